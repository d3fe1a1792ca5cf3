"""What is read of AnnData, checked."""

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from ._checks import as_features, check_key
from ._counts import Counts
from ._spatial import Slices, read_slices


def read_counts(adata: AnnData, layer: str | None) -> Counts:
    """The counts of the data."""
    if layer is None:
        return Counts.of(adata.X, "adata.X")
    check_key(layer, adata.layers, "layer", "adata.layers")
    return Counts.of(adata.layers[layer], f"adata.layers[{layer!r}]")


def read_space(adata: AnnData, key: str) -> np.ndarray:
    """A space that the user already has, ``(n, d)``."""
    check_key(key, adata.obsm, "features_key", "adata.obsm")
    return as_features(adata.obsm[key], f"adata.obsm[{key!r}]")


def read_graph(adata: AnnData, key: str, argument: str = "neighbors_key", how: str | None = None) -> sp.csr_array:
    """A cell graph ``(n, n)`` in the form of :func:`scanpy.pp.neighbors`."""
    check_key(key, adata.uns, argument, "adata.uns")
    entry = adata.uns[key]
    graph_key = entry.get("connectivities_key") if isinstance(entry, dict) else None
    if graph_key is None:
        raise ValueError(
            f"adata.uns[{key!r}] does not describe a cell graph. Build one first: "
            f"{how or f'`scanpy.pp.neighbors(adata, key_added={key!r})`'}."
        )
    check_key(graph_key, adata.obsp, f"the graph of {argument}={key!r},", "adata.obsp")
    graph = sp.csr_array(adata.obsp[graph_key])
    if not np.isfinite(graph.data).all():
        raise ValueError(f"adata.obsp[{graph_key!r}] holds NaN or infinite weights. Build the graph again.")
    return graph


def read_positions(adata: AnnData, key: str, sample_key: str | None) -> Slices:
    """Where the cells are, and in which slice."""
    check_key(key, adata.obsm, "spatial_key", "adata.obsm")
    samples = None
    if sample_key is not None:
        check_key(sample_key, adata.obs, "sample_key", "adata.obs")
        samples = adata.obs[sample_key]
    return read_slices(adata.obsm[key], samples, f"adata.obsm[{key!r}]", f"adata.obs[{sample_key!r}]")


def read_spatial_graph(adata: AnnData, key: str, slices: Slices) -> sp.csr_array:
    """A graph in space ``(n, n)`` in the form of squidpy."""
    if key in adata.obsp:
        graph = sp.csr_array(adata.obsp[key])
    else:
        check_key(key, adata.uns, "spatial_neighbors_key", "adata.uns or adata.obsp")
        graph = read_graph(adata, key, "spatial_neighbors_key", "`squidpy.gr.spatial_neighbors(adata)`")
    edges = graph.tocoo()
    between = (slices.samples[edges.row] != slices.samples[edges.col]) & (edges.data != 0)
    if between.any():
        raise ValueError(
            f"The graph of spatial_neighbors_key={key!r} has {between.sum():,} edges between slices. Build it for each "
            "slice: `squidpy.gr.spatial_neighbors(adata, library_key=...)`."
        )
    return graph
