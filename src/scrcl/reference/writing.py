"""Write results of the preparation to the data of the user."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData

from scrcl.graph.spatial import SpatialOptions
from scrcl.utils import keys
from scrcl.utils.files import State

from .prepare import Options, Preparation
from .reference import Reference


def write_preparation(data: AnnData | MuData, preparation: Preparation, parameters: State) -> None:
    """Write features, graphs, weights and parameters. Arrays are copies, which the user may change."""
    reference, neighbors, network = preparation.reference, preparation.neighbors, preparation.network
    data.obsm[keys.FEATURES_KEY] = reference.features.copy()
    data.obsp[keys.CONNECTIVITIES_KEY] = sp.csr_matrix(reference.adjacency, copy=True)
    data.uns[keys.NEIGHBORS_KEY] = {
        "connectivities_key": keys.CONNECTIVITIES_KEY,
        "params": {"n_neighbors": reference.n_neighbors, "method": "scrcl", "use_rep": keys.FEATURES_KEY},
    }
    if neighbors is not None:
        data.obsp[keys.DISTANCES_KEY] = sp.csr_matrix(neighbors.to_sparse(neighbors.distances))
        data.uns[keys.NEIGHBORS_KEY]["distances_key"] = keys.DISTANCES_KEY
    elif keys.DISTANCES_KEY in data.obsp:  # of an earlier model
        del data.obsp[keys.DISTANCES_KEY]
    data.uns[keys.PARAMS_KEY] = parameters
    data.uns.pop(keys.GENE_NETWORK_KEY, None)
    if network is not None:
        data.uns[keys.GENE_NETWORK_KEY] = network.report(parameters["gene_network"])
    if isinstance(data, MuData):
        names = list(reference.modalities)
        data.obsm[keys.WEIGHTS_KEY] = pd.DataFrame(reference.weights.copy(), index=data.obs_names, columns=names)
        data.uns[keys.NEIGHBORS_KEY]["params"] |= _as_muon(data, names)
    else:
        _write_genes(data, reference)


def share(data: AnnData | MuData, reference: Reference) -> None:
    """Replace copies by the arrays of the model, which saves gigabytes with millions of cells if nobody changes them."""
    data.obsm[keys.FEATURES_KEY] = reference.features
    data.obsp[keys.CONNECTIVITIES_KEY] = sp.csr_matrix(reference.adjacency)


def _as_muon(mdata: MuData, names: list[str]) -> State:
    """Parameters that :func:`muon.tl.umap` requires beside the graph: a matrix, here the smallest, as it is almost unused."""
    sizes = {name: mdata.mod[name].n_vars for name in names if mdata.mod[name].X is not None}
    if not sizes:
        return {}
    smallest = min(sizes, key=lambda name: sizes[name])
    return {"use_rep": {smallest: "X"}, "n_pcs": {smallest: -1}}


def _write_genes(adata: AnnData, reference: Reference) -> None:
    """Write which genes were kept, their features and their graph."""
    (modality,) = reference.modalities.values()
    columns = modality.columns
    kept = np.zeros(adata.n_vars, dtype=bool)
    kept[columns] = True
    adata.var[keys.GENES_KEY] = kept
    features = np.zeros((adata.n_vars, reference.gene_features.shape[1]), dtype=np.float32)
    features[columns] = reference.gene_features
    adata.varm[keys.GENE_FEATURES_KEY] = features
    edges = reference.gene_graph.tocoo()
    adata.varp[keys.GENE_GRAPH_KEY] = sp.csr_matrix(
        (edges.data, (columns[edges.row], columns[edges.col])), shape=(adata.n_vars, adata.n_vars)
    )


def describe_parameters(reference: Reference, options: Options, setup: State, several: bool) -> State:
    """The main parameters of the preparation and of the setup, in a form that AnnData can write."""
    network = options.gene_network_mode if options.gene_network is not None else ""
    parameters: State = {
        "n_top_genes": options.n_top_genes if several else len(reference.genes),
        "n_components": options.n_components,
        "n_neighbors": options.n_neighbors,
        "gene_network": network,
    }
    if several:
        parameters["modalities"] = {name: modality.kind for name, modality in reference.modalities.items()}
    else:
        parameters |= {name: setup.get(name) or "" for name in ("features_key", "neighbors_key")}
    if reference.labels is not None:
        parameters |= {name: str(setup.get(name) or "") for name in ("labels_key", "unlabeled_category")}
    if reference.spatial is not None:
        parameters |= _describe_space(reference.spatial.options, setup)
    return parameters


def _describe_space(options: SpatialOptions, setup: State) -> State:
    """Parameters of spatial data; of the graph, only those that were used."""
    graph_key = setup.get("spatial_neighbors_key")
    parameters = {
        "spatial_key": setup["spatial_key"],
        "sample_key": setup.get("sample_key") or "",
        "spatial_graph": graph_key or options.kind,
        "spatial_smoothing": (
            options.smoothing if options.smoothing_length is None else f"{options.smoothing_length:g} units"
        ),
        "spatial_mode": "join" if options.joined else "replace",
    }
    if graph_key is None and options.kind == "knn":
        parameters["n_spatial_neighbors"] = options.n_neighbors
    if graph_key is None and options.radius is not None:
        parameters["radius"] = options.radius
    return parameters
