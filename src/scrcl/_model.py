"""The public face: SCRCL on scvi-tools. Wiring only."""

import inspect
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData
from scvi import settings
from scvi.data import AnnDataManager
from scvi.data.fields import ObsmField
from scvi.model.base import BaseModelClass
from sklearn.preprocessing import normalize

from . import _constants as keys
from ._associations import GeneMap
from ._batches import GraphDataModule
from ._checks import (
    as_rows,
    check_at_least,
    check_cells_have_counts,
    check_n_clusters,
    check_option,
    check_unique_genes,
    match_genes,
)
from ._cluster import RESOLUTION, Clustering, kmeans, leiden, leiden_with
from ._consensus import N_MICRO, Ensemble
from ._features import NORMALIZATIONS, CountFeatures, Moments, center_and_scale, sample_cells, variable_genes
from ._genes import GeneMixin
from ._graph import (
    attach,
    directed_propagation,
    gene_graph,
    nearest_neighbors,
    symmetric_adjacency,
)
from ._inference import REPRESENTATIONS, Encoded, Representation, View, encode, encode_new
from ._joint import JointReference
from ._memory import for_batch, warn_if_short, warn_of_model
from ._module import SCRCLModule
from ._multimodal import CountsField, MultimodalMixin, check_enough_cells
from ._networks import prior_gene_graph, read_network
from ._number import NumberOfClusters, cast_votes, estimate_number, median
from ._progress import begin
from ._reading import read_counts, read_graph, read_positions, read_space, read_spatial_graph
from ._reference import Reference, Spaces
from ._space import SpatialMixin, graph_options, refuse_space_options
from ._spatial import (
    SPATIAL_GRAPHS,
    Space,
    SpatialGraph,
    majority,
    varying_in_space,
)
from ._training import OnNewWeights, SCRCLTrainingPlan, SCRCLTrainRunner

# A child of the logger of scvi-tools, so that `scvi.settings.verbosity` governs both.
logger = logging.getLogger("scvi.scrcl")

#: Passes over the cells, and batches after which no further pass begins, when `max_epochs` is not given.
DEFAULT_EPOCHS, DEFAULT_STEPS = 50, 500

#: What is recorded at each epoch.
METRICS = (
    "train_loss",
    "alignment_loss_train",
    "neighborhood_loss_train",
    "cross_view_loss_train",
    "spread_loss_train",
)

#: Agreement of the trees with their consensus below which a warning is given; about 0.5 on data without types.
LEAST_AGREEMENT = 0.6

#: Options of training that are weights and rates.
PLAN_OPTIONS = (
    "lr",
    "weight_decay",
    "alignment_weight",
    "neighborhood_weight",
    "cross_view_weight",
    "spread_weight",
)

Method = Literal["consensus", "kmeans", "leiden"]
NETWORK_MODES = ("join", "replace")


class SCRCL(GeneMixin, MultimodalMixin, SpatialMixin, BaseModelClass):
    r"""Refinement contrastive learning of cell-gene associations :cite:p:`Peng2026`.

    Finds cell types without labels. Two views of each cell, by itself and among its neighbours, are brought into
    agreement, and both are tied to the genes that the cell expresses. The model selects genes, reduces counts to
    features and builds the cell graph and the gene graph itself, from raw counts of all genes.

    Parameters
    ----------
    adata
        Data registered with :meth:`setup_anndata` or :meth:`setup_mudata`.
    registry
        Registry of a saved model. Used by :meth:`load`; not meant to be passed.
    n_top_genes
        Number of most variable genes that are kept; of several modalities, also of peaks that genes are tied to.
    n_components
        Number of principal components of each normalisation, or of each modality.
    n_neighbors
        Number of nearest neighbours of a cell in the cell graph.
    n_hidden
        Number of hidden units ``h`` of each branch.
    n_refined
        Number of refined dimensions ``c``.
    temperature
        Temperature of the softmax in the alignment losses.
    dropout_rate
        Dropout in the neighbourhood branch and before the map to gene space.
    gene_network
        Prior knowledge of which genes belong together: a network, as a table with columns ``source`` and ``target``
        (decoupler) or ``source_genesymbol`` and ``target_genesymbol`` (OmniPath) and maybe ``weight``, or the path of
        one; or gene sets, as a dictionary, a table whose sources are no genes, or the path of a GMT file. Genes are
        matched by name; what was matched is written to ``uns["scrcl_gene_network"]``.
    gene_network_mode
        ``"join"``: its edges are added to those between genes with similar expression. ``"replace"``: they take their
        place.
    spatial_graph
        How cells in space are joined, where `setup_anndata` was told a ``spatial_key``. ``"knn"``: the
        ``n_spatial_neighbors`` nearest cells. ``"radius"``: all cells not farther than ``radius``. ``"delaunay"``:
        Delaunay triangulation, without edges longer than ``radius`` if one is given. ``"grid"``: adjacent spots of a
        regular grid, such as the hexagonal one of Visium. Cells of different slices are never joined.
    n_spatial_neighbors
        Number of nearest cells of ``spatial_graph="knn"``.
    radius
        Longest edge, in the unit of the coordinates.
    spatial_smoothing
        Mean number of steps in the spatial graph over which features are averaged. More gives larger domains; 0 reads
        each cell as it is.
    spatial_mode
        ``"replace"``: the spatial graph takes the place of the graph of similar cells. ``"join"``: its edges are added
        to those.

    Raises
    ------
    ValueError
        If an argument is out of range, there are no more cells than neighbours, no genes vary, or the gene network
        cannot be read or has other identifiers than the data.

    Notes
    -----
    What the model prepares is written to ``adata``, where it can be seen and plotted: cell features to
    ``obsm["X_scrcl_features"]``, the cell graph to ``obsp["scrcl_connectivities"]`` (with ``uns["scrcl_neighbors"]``
    in the form of :func:`scanpy.pp.neighbors`), the genes kept to ``var["scrcl_genes"]``, the gene graph to
    ``varp["scrcl_gene_graph"]``, gene features to ``varm["scrcl_gene_features"]`` and all parameters to
    ``uns["scrcl"]``. In space, the features are the smoothed ones and the graph is the spatial one. The model holds its own
    copy, so that changes to ``adata`` do not change the model. Of several modalities, the features, the joint cell graph
    and the weights of the modalities (``obsm["scrcl_modality_weights"]``) are written to the :class:`~mudata.MuData`;
    what is in ``mdata.mod`` stays as it is.

    Examples
    --------
    >>> scrcl.SCRCL.setup_anndata(adata, layer="counts")
    >>> model = scrcl.SCRCL(adata)
    >>> model.train()
    >>> adata.obsm["X_scrcl"] = model.get_latent_representation()
    >>> adata.obs["scrcl"] = model.get_clusters()
    """

    _module_cls = SCRCLModule
    _training_plan_cls = SCRCLTrainingPlan
    _train_runner_cls = SCRCLTrainRunner

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        registry: dict | None = None,
        *,
        n_top_genes: int = 2000,
        n_components: int = 50,
        n_neighbors: int = 15,
        n_hidden: int = 128,
        n_refined: int = 32,
        temperature: float = 1.0,
        dropout_rate: float = 0.1,
        gene_network: pd.DataFrame | Mapping[str, Sequence[str]] | str | os.PathLike[str] | None = None,
        gene_network_mode: Literal["join", "replace"] = "join",
        spatial_graph: SpatialGraph = "knn",
        n_spatial_neighbors: int = 6,
        radius: float | None = None,
        spatial_smoothing: float = 10.0,
        spatial_mode: Literal["join", "replace"] = "replace",
    ) -> None:
        check_option(gene_network_mode, NETWORK_MODES, "gene_network_mode")
        check_option(spatial_graph, SPATIAL_GRAPHS, "spatial_graph")
        check_option(spatial_mode, NETWORK_MODES, "spatial_mode")
        check_at_least(n_spatial_neighbors, 1, "n_spatial_neighbors")
        check_at_least(spatial_smoothing, 0.0, "spatial_smoothing")
        if radius is not None:
            check_at_least(radius, 1e-300, "radius")
        elif spatial_graph == "radius":
            raise ValueError("spatial_graph='radius' needs a `radius`, in the unit of the coordinates.")
        if radius is not None and spatial_graph not in ("radius", "delaunay"):
            raise ValueError(
                f"radius={radius!r} is not used by spatial_graph={spatial_graph!r}. Leave it out, or pass 'radius'."
            )
        for name in ("n_top_genes", "n_components", "n_neighbors", "n_hidden", "n_refined"):
            check_at_least(locals()[name], 2 if name == "n_top_genes" else 1, name)
        check_at_least(temperature, 1e-6, "temperature")
        check_at_least(dropout_rate, 0.0, "dropout_rate")
        if dropout_rate >= 1:
            raise ValueError(f"dropout_rate must be below 1, not {dropout_rate!r}.")
        super().__init__(adata, registry)
        self._module_kwargs: dict[str, Any] = {
            "n_hidden": n_hidden,
            "n_refined": n_refined,
            "temperature": temperature,
            "dropout_rate": dropout_rate,
        }
        self._forget()
        self.refinement_trained_: bool | None = None
        self._reference_adata: AnnData | None = None
        self._reference_names = pd.Index([])
        if adata is not None and registry is None:
            space = {
                "kind": spatial_graph,
                "n_neighbors": n_spatial_neighbors,
                "radius": radius,
                "smoothing": float(spatial_smoothing),
                "joined": spatial_mode == "join",
            }
            if isinstance(adata, MuData):
                refuse_space_options(space)
                self._prepare_mudata(adata, n_top_genes, n_components, n_neighbors, gene_network, gene_network_mode)
            else:
                self._prepare(adata, n_top_genes, n_components, n_neighbors, gene_network, gene_network_mode, space)
            self.module  # noqa: B018  built now, so that the seed set by the user governs its weights
        self._model_summary_string = (
            f"SCRCL with n_top_genes: {n_top_genes}, n_components: {n_components}, n_neighbors: {n_neighbors}, "
            f"n_hidden: {n_hidden}, n_refined: {n_refined}, temperature: {temperature}, dropout_rate: {dropout_rate}"
        )
        # The gene graph is saved with the model; what it was made from may be large and need not be.
        gene_network = None if gene_network is None else "in the gene graph"
        self.init_params_ = self._get_init_params(locals())

    # ------------------------------------------------------------------ data

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        features_key: str | None = None,
        neighbors_key: str | None = None,
        spatial_key: str | None = None,
        sample_key: str | None = None,
        spatial_neighbors_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register data. Validates, and leaves all work to the model.

        Genes without counts may be there and are never kept. Cells without counts are refused.

        Parameters
        ----------
        adata
            Cells by genes, with raw counts of all genes. Nothing needs to be prepared.
        layer
            Key of ``adata.layers`` that holds the counts; by default they are in ``adata.X``.
        features_key
            Key of ``adata.obsm`` of a space to use as cell features, e.g. ``"X_scVI"``, ``"X_pca_harmony"`` or
            ``"X_pca"``. By default features are computed from the counts. Counts are read in either case, for the
            genes.
        neighbors_key
            Key of ``adata.uns`` of a cell graph to use, as :func:`scanpy.pp.neighbors` writes it (``"neighbors"`` by
            default there). Edges are used in both directions and without weights. By default a graph is built from
            the features.
        spatial_key
            Key of ``adata.obsm`` of coordinates, ``(n, 2)`` or ``(n, 3)``, in any unit; ``"spatial"`` by convention. Each
            cell is then seen among its neighbours in space, and clusters are domains.
        sample_key
            Key of ``adata.obs`` of the slice of each cell. Slices may overlap in their coordinates; nothing passes
            between them. By default there is one.
        spatial_neighbors_key
            Key of ``adata.uns`` of a spatial graph to use, as :func:`squidpy.gr.spatial_neighbors` writes it
            (``"spatial_neighbors"`` by default there), or of ``adata.obsp``. By default the model builds one.
        **kwargs
            Passed to :meth:`scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        ValueError
            If the data are not raw counts (negative, fractional or non-finite values), a cell has no counts, gene
            names are not unique, a space or graph does not fit the cells, or coordinates are missing or NaN.
        KeyError
            If a layer or key is missing.
        TypeError
            If ``adata`` is not an :class:`~anndata.AnnData`.
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        if not isinstance(adata, AnnData):
            several = " Use `setup_mudata` for several modalities." if isinstance(adata, MuData) else ""
            raise TypeError(f"adata must be an AnnData object, not {type(adata).__name__}.{several}")
        if adata.is_view:
            # As scvi-tools does elsewhere: a view cannot be written to, so it becomes data of its own, in place.
            adata._init_as_actual(adata.to_memory() if adata.isbacked else adata.copy())
        check_unique_genes(adata.var_names)
        read_counts(adata, layer).check()
        fields = [CountsField(layer)]
        if features_key is not None:
            space = read_space(adata, features_key)
            if "source_registry" not in kwargs and (space == space[0]).all():
                raise ValueError(f"adata.obsm[{features_key!r}] is the same for all cells. Name a space that varies.")
            fields.append(ObsmField(keys.FEATURES_KEY, features_key))
        # Data on which a saved model is loaded need no graph: the model places their cells in its own.
        if neighbors_key is not None and "source_registry" not in kwargs:
            read_graph(adata, neighbors_key)
        if spatial_key is not None:
            slices = read_positions(adata, spatial_key, sample_key)
            if spatial_neighbors_key is not None and "source_registry" not in kwargs:
                read_spatial_graph(adata, spatial_neighbors_key, slices)
        elif sample_key is not None or spatial_neighbors_key is not None:
            given = "sample_key" if sample_key is not None else "spatial_neighbors_key"
            raise ValueError(f"{given} tells of cells in space. Name their coordinates, too: `spatial_key='spatial'`.")
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    def setup_annbatch(cls, *args: Any, **kwargs: Any) -> None:
        """Not available: batches of independent cells have no graph."""
        raise NotImplementedError("SCRCL needs the graph of the cells. Use `setup_anndata`.")

    def _prepare(
        self,
        adata: AnnData,
        n_top_genes: int,
        n_components: int,
        n_neighbors: int,
        gene_network: Any,
        gene_network_mode: str,
        space_options: dict[str, Any],
    ) -> None:
        """Build features and graphs from the data, and write them where the user can see them."""
        spatial_key, neighbors_key = self.get_setup_arg("spatial_key"), self.get_setup_arg("neighbors_key")
        in_space = spatial_key is not None
        self._check_space_options(space_options)
        # The graph in space is built first, as it is quick and may be refused.
        slices = self._slices(adata) if in_space else None
        spatial = None if slices is None else self._spatial_graph(adata, slices, **graph_options(space_options))
        if spatial is None or space_options["joined"]:
            check_enough_cells(adata.n_obs, n_neighbors, "adata")
        counts = read_counts(adata, self.get_setup_arg("layer"))
        n_features = len(NORMALIZATIONS) * min(n_components, n_top_genes, counts.n_genes)
        warn_of_model(counts.n_cells, n_features, self._module_kwargs["n_hidden"], n_neighbors, counts.in_memory)
        begin("features")
        moments = Moments.of(counts)
        check_cells_have_counts(moments.totals, counts.where)
        columns = variable_genes(counts, moments, n_top_genes)
        genes = adata.var_names[columns]
        network = None if gene_network is None else read_network(gene_network, genes, adata.var_names)
        kept, sample = counts.select(columns), sample_cells(counts.n_cells)
        transform = CountFeatures.fit(kept.read(sample), moments.totals[sample], n_components)

        features_key = self.get_setup_arg("features_key")
        center, scale = None, 1.0
        if features_key is None:
            features = np.empty((counts.n_cells, transform.n_features), dtype=np.float32)
            for rows, block in kept.blocks():
                features[rows] = transform.transform(block, moments.totals[rows])
        else:
            space = read_space(adata, features_key)
            center, scale = center_and_scale(space)
            features = (space - center) * scale
        begin("graph")
        stabilized, distances, placed = features_key is None, None, None
        if slices is not None and spatial is not None:
            stabilized = False
            placed = Space(slices, features, varying_in_space(spatial, features), **space_options)
            features = placed.smooth(spatial, features)
        if spatial is not None and not space_options["joined"]:
            adjacency = spatial
        elif neighbors_key is None:
            space = transform.select_stabilized(features) if stabilized else features
            neighbors = nearest_neighbors(normalize(space) if in_space else space, n_neighbors)
            distances = neighbors.to_sparse(neighbors.distances)
            adjacency = symmetric_adjacency(neighbors.to_sparse())
        else:
            adjacency = symmetric_adjacency(read_graph(adata, neighbors_key))
        if spatial is not None and space_options["joined"]:
            adjacency = symmetric_adjacency(adjacency + spatial)

        graph = None if network and gene_network_mode == "replace" else gene_graph(transform.gene_features)
        if network:
            graph = prior_gene_graph(network, transform.gene_features, graph)
        self._reference = Reference(
            transform=transform,
            all_genes=adata.var_names.copy(),
            genes=genes,
            features=features,
            adjacency=adjacency,
            gene_graph=graph,
            n_neighbors=n_neighbors,
            center=center,
            scale=scale,
            stabilized=stabilized,
            space=placed,
        )
        self._reference_adata, self._reference_names = adata, adata.obs_names.copy()
        parameters = {
            "n_top_genes": len(columns),
            "n_components": n_components,
            "n_neighbors": n_neighbors,
            "features_key": features_key or "",
            "neighbors_key": neighbors_key or "",
            "gene_network": gene_network_mode if network else "",
        }
        if placed is not None:
            parameters |= {
                "spatial_key": spatial_key,
                "sample_key": self.get_setup_arg("sample_key") or "",
                "spatial_graph": self.get_setup_arg("spatial_neighbors_key") or placed.kind,
                "n_spatial_neighbors": placed.n_neighbors,
                "radius": placed.radius or 0.0,
                "spatial_smoothing": placed.smoothing,
                "spatial_mode": "join" if placed.joined else "replace",
            }
        report = network.report(gene_network_mode) if network else None
        self._write_cells(adata, distances, parameters, report)
        self._write_genes(adata, columns)
        if network and report:
            logger.info(
                f"gene_network: {report['pairs']:,} pairs of the genes kept, of {report['form']}; "
                f"{len(network.unknown):,} of its {network.n_genes:,} genes are not in the data"
                f"{': ' + ', '.join(network.unknown[:5]) if len(network.unknown) else ''}"
                f"{', …' if len(network.unknown) > 5 else ''}"
            )
        logger.info(
            f"{adata.n_obs:,} cells: {features.shape[1]} features from {features_key or f'{len(columns):,} genes'}; "
            f"cell graph {_describe(neighbors_key, n_neighbors, placed)}, {adjacency.nnz // 2:,} edges"
        )

    def _write_cells(
        self,
        data: AnnData | MuData,
        distances: sp.csr_array | None,
        parameters: dict[str, Any],
        network: dict[str, Any] | None,
    ) -> None:
        """Write features and graph of the cells, all parameters, and what became of the gene network."""
        reference = self._reference
        data.obsm[keys.FEATURES_KEY] = reference.features
        data.obsp[keys.CONNECTIVITIES_KEY] = sp.csr_matrix(reference.adjacency)
        data.uns[keys.NEIGHBORS_KEY] = {
            "connectivities_key": keys.CONNECTIVITIES_KEY,
            "distances_key": keys.DISTANCES_KEY,
            "params": {"n_neighbors": parameters["n_neighbors"], "method": "scrcl", "use_rep": keys.FEATURES_KEY},
        }
        if distances is not None:
            data.obsp[keys.DISTANCES_KEY] = sp.csr_matrix(distances)
        else:
            del data.uns[keys.NEIGHBORS_KEY]["distances_key"]
        data.uns[keys.PARAMS_KEY] = parameters
        data.uns.pop(keys.GENE_NETWORK_KEY, None)
        if network is not None:
            data.uns[keys.GENE_NETWORK_KEY] = network

    def _write_genes(self, adata: AnnData, columns: np.ndarray) -> None:
        """Write which genes were kept, their features and their graph."""
        reference = self._reference
        kept = np.zeros(adata.n_vars, dtype=bool)
        kept[columns] = True
        adata.var[keys.GENES_KEY] = kept
        gene_features = reference.transform.gene_features
        all_genes = np.zeros((adata.n_vars, gene_features.shape[1]), dtype=np.float32)
        all_genes[columns] = gene_features
        adata.varm[keys.GENE_FEATURES_KEY] = all_genes
        edges = reference.gene_graph.tocoo()
        adata.varp[keys.GENE_GRAPH_KEY] = sp.csr_matrix(
            (edges.data, (columns[edges.row], columns[edges.col])), shape=(adata.n_vars, adata.n_vars)
        )

    def _read_features(self, adata: AnnData, rows: np.ndarray | None) -> np.ndarray:
        """Features of any cells, as the model reads them."""
        reference = self._reference
        if isinstance(reference, JointReference):
            return self._read_modalities(adata, rows)
        features_key = self.get_setup_arg("features_key")
        if reference.center is not None:
            space = read_space(adata, features_key)
            if space.shape[1] != len(reference.center):
                raise ValueError(
                    f"adata.obsm[{features_key!r}] has {space.shape[1]} columns, but the model was built on "
                    f"{len(reference.center)}. Compute it with the same method as for the training cells."
                )
            return ((space if rows is None else space[rows]) - reference.center) * reference.scale
        wanted, place = (None, slice(None)) if rows is None else np.unique(rows, return_inverse=True)
        n_features = reference.transform.n_features
        features = np.empty((adata.n_obs if wanted is None else len(wanted), n_features), dtype=np.float32)
        for found, counts, totals in self._read_kept(adata, wanted, self.get_setup_arg("layer")):
            features[found] = reference.transform.transform(counts, totals)
        return features[place]

    def _read_kept(
        self, adata: AnnData, rows: np.ndarray | None, layer: str | None
    ) -> Iterator[tuple[slice, sp.csr_array, np.ndarray]]:
        """Read any cells, increasing, in blocks: counts of the genes kept, in the model's order, and totals."""
        reference = self._reference
        columns, missing = match_genes(adata.var_names, reference.genes)
        every, _ = match_genes(adata.var_names, reference.all_genes)
        every = every[every >= 0]
        if len(missing):
            warnings.warn(
                f"{len(missing)} of the {len(columns):,} genes that the model reads are missing from the data and are "
                f"taken as not expressed: {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}",
                UserWarning,
                stacklevel=settings.warnings_stacklevel,
            )
        counts = read_counts(adata, layer)
        if not np.array_equal(every, np.arange(adata.n_vars)):
            counts = counts.select(every)
        # Columns of the genes read, in the model's order; a missing gene takes an empty column at the end.
        position = np.full(adata.n_vars + 1, len(every))
        position[every] = np.arange(len(every))
        for found, block in counts.blocks(rows):
            totals = block.sum(axis=1, dtype=np.float64)
            check_cells_have_counts(totals, counts.where)
            padded = sp.hstack([block, sp.csr_array((block.shape[0], 1), dtype=np.float32)], format="csr")
            yield found, padded[:, position[columns]], totals

    # -------------------------------------------------------------- training

    @cached_property
    def module(self) -> SCRCLModule:
        """The network, sized by what the model prepared."""
        reference = self._reference
        return self._module_cls(
            gene_profiles=directed_propagation(reference.gene_graph) @ reference.gene_features,
            n_input=reference.n_inputs,
            shares=reference.shares,
            **self._module_kwargs,
        )

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        batch_size: int | None = None,
        early_stopping: bool = False,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the model on the cells it was built on. Called again, training goes on from where it is.

        Parameters
        ----------
        max_epochs
            Number of passes over the cells. By default 50, or fewer where 500 batches are reached before.
        accelerator, devices
            Where to train, as in :class:`lightning.pytorch.trainer.Trainer`. On several devices, each takes its share
            of the batches of an epoch.
        batch_size
            Number of cells of a batch. A batch is made of random neighbourhoods and the graph among their cells. By
            default all cells and the whole graph up to 20,000 cells, and 1,024 cells beyond.
        early_stopping
            Stop when ``train_loss`` no longer falls. :class:`scvi.train.Trainer` lists the options, which are passed
            as ``early_stopping_patience`` and so on.
        plan_kwargs
            Options of :class:`~scrcl._training.SCRCLTrainingPlan`: ``lr``, ``weight_decay``, and the weights of the
            losses, ``alignment_weight``, ``neighborhood_weight``, ``cross_view_weight`` and ``spread_weight``.
        **trainer_kwargs
            Passed to :class:`scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If an argument is out of range or unknown.

        Notes
        -----
        The progress bar is turned off by ``enable_progress_bar=False``. Ctrl-C ends training early and leaves a
        usable model. ``history`` holds ``train_loss`` and its terms ``alignment_loss_train``,
        ``neighborhood_loss_train``, ``cross_view_loss_train`` and ``spread_loss_train``, unweighted, by epoch.
        """
        if batch_size is not None:
            check_at_least(batch_size, 1, "batch_size")
        reference = self._reference
        points = reference.search_space if reference.space is None else reference.space.slices.apart
        data = GraphDataModule(reference.features, reference.adjacency, points, batch_size)
        if max_epochs is None:
            max_epochs = min(DEFAULT_EPOCHS, -(-DEFAULT_STEPS // data.n_batches))
        check_at_least(max_epochs, 1, "max_epochs")
        warn_if_short(
            for_batch(min(data.batch_size, reference.n_cells), reference.n_features, self._module_kwargs["n_hidden"]),
            f"Training on batches of {min(data.batch_size, reference.n_cells):,} cells",
            "Take a smaller `batch_size`.",
        )
        if accelerator == "mps":
            raise ValueError("accelerator='mps' has no sparse products. Use accelerator='cpu'.")
        plan_kwargs = dict(plan_kwargs or {})
        _check_plan_kwargs(self._training_plan_cls, self._module_cls.loss, plan_kwargs)
        for name, value in (
            ("early_stopping_monitor", "train_loss"),
            ("checkpointing_monitor", "train_loss"),
            ("log_every_n_steps", 1),
        ):
            trainer_kwargs.setdefault(name, value)
        for name in ("early_stopping_monitor", "checkpointing_monitor"):
            check_option(trainer_kwargs[name], METRICS, name)
        earlier = self.is_trained_ if self.refinement_trained_ is None else self.refinement_trained_
        self.refinement_trained_ = bool(earlier or plan_kwargs.get("cross_view_weight", 1.0) > 0)
        begin("training")
        self.module.train()  # Lightning keeps the mode it finds
        runner = self._train_runner_cls(
            self,
            training_plan=self._training_plan_cls(self.module, **plan_kwargs),
            data_splitter=data,
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            early_stopping=early_stopping,
            callbacks=[*trainer_kwargs.pop("callbacks", []), OnNewWeights(self._forget)],
            **trainer_kwargs,
        )
        runner()

    # --------------------------------------------------------------- results

    def get_latent_representation(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        representation: Representation = "aligned",
        modality: str | None = None,
    ) -> np.ndarray:
        """Return the latent representation of cells.

        Parameters
        ----------
        adata
            Data with the same genes, matched by name; need not be set up. By default the data of the model. A cell
            that the model was built on gets its own representation, wherever it stands. A new cell is placed among
            its nearest cells of those that the model was built on, so its result does not depend on the other cells
            passed. In space, a training cell is known by its position and counts, and a new cell is seen among its
            neighbours in space: all cells of its slice in ``adata``, whatever ``indices`` asks for. So pass whole slices.
        indices
            Cells to return, by number or as a boolean mask; all by default.
        representation
            ``"aligned"``: the two aligned views side by side. ``"refined"``: the two refined by cell-gene
            associations.
        modality
            Modality whose own views to return. By default, of several modalities, each view is the mean over them,
            weighted as in :meth:`get_modality_weights`.

        Returns
        -------
        Array of shape ``(n_cells, 2 * n_hidden)`` or ``(n_cells, 2 * n_refined)``, float32, in the order asked for.
        Each view has rows of unit length.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the data are not counts, lack genes that the model reads, or ``indices`` are out of range.
        """
        self._check_if_trained(warn=False)
        view = self._view(representation, modality)
        known, placed, _ = self._find(self._data(adata), indices)
        latent = self._reference_latent[view][known]
        latent[known < 0] = placed[view]
        return latent

    def get_clusters(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        n_clusters: int | None = None,
        method: Method = "consensus",
        resolution: float = RESOLUTION,
        representation: Representation = "aligned",
        seed: int = 0,
        modality: str | None = None,
        n_majority: int = 0,
    ) -> pd.Series:
        """Return the clusters of cells.

        Clusters are found among the cells that the model was built on. Other cells join the nearest.

        Parameters
        ----------
        adata, indices
            Cells to return, as in :meth:`get_latent_representation`.
        n_clusters
            Number of clusters; estimated as in :meth:`estimate_n_clusters` by default.
        method
            ``"consensus"``: small clusters of the latent representation and of the smoothed features, joined by the
            similarity of their cells in the features of each normalisation; the consensus of all. It keeps large cell
            types whole where k-means divides them. ``"kmeans"``: k-means, the best of 20 k-means++ starts.
            ``"leiden"``: Leiden communities of the nearest-neighbour graph of the latent space; a given ``n_clusters``
            is sought by changing the resolution.
        resolution
            Resolution of ``method="leiden"`` where ``n_clusters`` is not given: more gives more clusters.
        representation
            Latent representation to cluster.
        seed
            Seed of the clustering.
        modality
            Modality to cluster by: its own views, and its own features. By default all.
        n_majority
            In space, give each cell the label that most of it and its ``n_majority`` nearest cells in its slice have. The
            paper takes 50. 0 for no such smoothing.

        Returns
        -------
        Categorical series indexed by the names of the cells, in the order asked for. Clusters are named ``"0"``,
        ``"1"``, … by decreasing size among the cells that the model was built on.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If ``n_clusters`` is below 2 or above the number of cells, or an argument is out of range or unknown.
        """
        self._check_if_trained(warn=False)
        check_option(method, get_args(Method), "method")
        view = self._view(representation, modality)
        check_n_clusters(n_clusters, self._reference.n_cells)
        check_at_least(resolution, 0.0, "resolution")
        check_at_least(seed, 0, "seed")
        check_at_least(n_majority, 0, "n_majority")
        space = self._reference.space
        if n_majority and space is None:
            raise ValueError(
                f"n_majority={n_majority} needs coordinates: `setup_anndata(adata, spatial_key='spatial')`."
            )
        adata = self._data(adata)
        # Whom a cell is among is asked of all cells.
        known, placed, _ = self._find(adata, None if n_majority else indices)
        clustering = self._cluster(n_clusters, method, float(resolution), view, seed)
        labels = clustering.labels[known]
        labels[known < 0] = clustering.assign(placed[view])
        if n_majority and space is not None:
            own = majority(clustering.labels, space.slices, n_majority)[known]
            new = known < 0
            labels = np.where(new, majority(labels, self._slices(adata), n_majority), own) if new.any() else own
            labels = labels if indices is None else labels[as_rows(indices, adata.n_obs)]
        return pd.Series(
            _named(labels, clustering.n_clusters), index=_cell_names(adata, indices), name=keys.CLUSTERS_KEY
        )

    def get_cluster_probabilities(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        n_clusters: int | None = None,
        representation: Representation = "aligned",
        seed: int = 0,
        modality: str | None = None,
    ) -> pd.DataFrame:
        """Return how certainly cells belong to each cluster of the consensus.

        The consensus reconciles many clusterings. A cell belongs to a cluster as often as these put it together with
        the cells of that cluster, relative to all clusters. A cell between two types has shares in both, and may have
        the larger one in the other than it was put in.

        Parameters
        ----------
        adata, indices
            Cells to return, as in :meth:`get_latent_representation`. A new cell has the mean of its neighbours.
        n_clusters, representation, seed, modality
            As in :meth:`get_clusters`.

        Returns
        -------
        Data frame ``(n_cells, n_clusters)``, float32, indexed by the names of the cells; the columns are the names of
        the clusters in :meth:`get_clusters`. Rows sum to 1.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If ``n_clusters`` is below 2 or above the number of cells, or an argument is out of range or unknown.
        """
        self._check_if_trained(warn=False)
        view = self._view(representation, modality)
        check_n_clusters(n_clusters, self._reference.n_cells)
        check_at_least(seed, 0, "seed")
        adata = self._data(adata)
        known, placed, _ = self._find(adata, indices)
        clustering = self._cluster(n_clusters, "consensus", RESOLUTION, view, seed)
        assert clustering.probabilities is not None  # a consensus has them
        probabilities = clustering.probabilities[known]
        probabilities[known < 0] = clustering.assign_probabilities(placed[view])
        columns = [str(number) for number in range(clustering.n_clusters)]
        return pd.DataFrame(probabilities, index=_cell_names(adata, indices), columns=columns)

    def get_mapping_quality(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        n_clusters: int | None = None,
        alpha: float = 0.05,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Return how well cells fit among those that the model was built on, and flag those unlike anything there.

        A cell of a type that the model has not seen is put into some cluster like any other. It is told by its
        distance from its neighbours, compared with the distances that the cells of the model with as much signal have
        from theirs. Types close to one that is there are not told: single cells of theirs fit as well.

        Parameters
        ----------
        adata, indices
            Cells to return, as in :meth:`get_latent_representation`. The result for a cell does not depend on the
            other cells.
        n_clusters, seed
            As in :meth:`get_clusters`.
        alpha
            Level of the test: about the share of cells flagged where none is new in kind.

        Returns
        -------
        Data frame indexed by the names of the cells:

        - ``known``: whether the model was built on this cell
        - ``cluster``: as :meth:`get_clusters` returns it
        - ``confidence``: probability of that cluster, see :meth:`get_cluster_probabilities`
        - ``distance``: mean distance from the nearest cells of the model
        - ``excess``: by how many standard deviations the distance is above the mean of the cells of the model with
          as much signal
        - ``pvalue``: share of the cells of the model with at least this excess
        - ``outlier``: whether ``pvalue`` is at most ``alpha``

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If an argument is out of range, or the data do not fit the model.
        NotImplementedError
            In space: neighbours there share what was smoothed, so that cells of another slice would seem new.
        """
        self._check_if_trained(warn=False)
        if self._reference.space is not None:
            raise NotImplementedError(
                "get_mapping_quality compares single cells. In space, neighbours share what was smoothed, so that cells of "
                "another slice would seem new. Build a model without `spatial_key` for this."
            )
        check_at_least(alpha, 0.0, "alpha")
        check_n_clusters(n_clusters, self._reference.n_cells)
        check_at_least(seed, 0, "seed")
        adata, reference = self._data(adata), self._reference
        known, placed, new = self._find(adata, indices)
        places = known.copy()
        places[known < 0] = reference.n_cells + np.arange(len(new))
        distance = np.concatenate([reference.distances, reference.neighbors(new).distances.mean(1)])[places]
        signal = reference.signal(np.concatenate([reference.features, new]))[places]
        excess = reference.distance_scale(signal, distance)
        pvalue = reference.distance_scale.pvalues(excess)
        clustering = self._cluster(n_clusters, "consensus", RESOLUTION, "aligned", seed)
        assert clustering.probabilities is not None  # a consensus has them
        labels = np.concatenate([clustering.labels, clustering.assign(placed["aligned"])])[places]
        probabilities = np.concatenate([clustering.probabilities, clustering.assign_probabilities(placed["aligned"])])[
            places
        ]
        return pd.DataFrame(
            {
                "known": known >= 0,
                "cluster": _named(labels, clustering.n_clusters),
                "confidence": probabilities[np.arange(len(labels)), labels],
                "distance": distance,
                "excess": excess,
                "pvalue": pvalue,
                "outlier": pvalue <= alpha,
            },
            index=_cell_names(adata, indices),
        )

    def estimate_n_clusters(
        self, representation: Representation = "aligned", seed: int = 0, modality: str | None = None
    ) -> NumberOfClusters:
        """Estimate the number of clusters, and tell what speaks for others.

        The estimate is the median number of Leiden communities at three low resolutions, in the nearest-neighbour
        graphs of the latent representation and of the smoothed features. :func:`scrcl.pl.n_clusters` draws it.

        Parameters
        ----------
        representation, seed, modality
            As in :meth:`get_clusters`.

        Returns
        -------
        The estimate ``best``, the numbers that are next to it ``runner_ups``, and ``curve``, a data frame of the
        evidence for each number: ``votes``, ``distance`` and ``agreement``, explained at
        :class:`~scrcl.NumberOfClusters`.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If an argument is out of range or unknown.
        """
        self._check_if_trained(warn=False)
        view = self._view(representation, modality)
        check_at_least(seed, 0, "seed")
        return estimate_number(self._count(view, seed), self._ensemble(view, seed, 0))

    def _view(self, representation: Representation, modality: str | None) -> View:
        """What the network calls a representation, of all modalities or of one."""
        check_option(representation, REPRESENTATIONS, "representation")
        if modality is None:
            return representation
        self._check_modality(modality)
        names = list(self._reference.modalities)
        return (representation, names.index(modality)) if len(names) > 1 else representation

    def _data(self, adata: AnnData | MuData | None) -> Any:
        if adata is None:
            adata = self.adata
        if adata is None:
            raise ValueError("The model was loaded without data. Pass `adata`.")
        _check_type(adata, isinstance(self._reference, JointReference))
        return adata

    def _is_reference(self, adata: AnnData) -> bool:
        """Whether the data are those that the model was built on, with the same cells still."""
        return bool(adata.obs_names.equals(self._reference_names)) and adata is self._reference_adata

    def _find(
        self, adata: AnnData, indices: Sequence[int] | np.ndarray | None
    ) -> tuple[np.ndarray, dict[View, np.ndarray], np.ndarray]:
        """Find cells among those of the model, and place those that are new.

        Returns
        -------
        The row of each cell among the cells of the model, -1 for a new one; each representation of the new cells; and
        their features.
        """
        rows = None if indices is None else as_rows(indices, adata.n_obs)
        reference, none_placed = self._reference, {name: z[:0] for name, z in self._reference_latent.items()}
        if self._is_reference(adata):
            return (np.arange(adata.n_obs) if rows is None else rows), none_placed, reference.features[:0]
        if reference.space is not None:
            return self._find_in_space(adata, np.arange(adata.n_obs) if rows is None else rows)
        features = self._read_features(adata, rows)
        known = reference.identify(features)
        features = features[known < 0]
        if len(features) == 0:
            return known, none_placed, features
        begin("placing")
        neighbors, weights = reference.place(features)
        received, own = attach(reference.adjacency, neighbors)
        hidden = self._encoded.hidden
        return known, encode_new(self.module, features, received, own, weights, reference.features, hidden), features

    @cached_property
    def _encoded(self) -> Encoded:
        """What the network makes of the cells of the model."""
        reference = self._reference
        begin("inference")
        return encode(self.module, reference.features, reference.propagation, reference.weights)

    @property
    def _reference_latent(self) -> dict[View, np.ndarray]:
        """Each representation of the cells of the model."""
        return self._encoded.latent

    def _cluster(self, n_clusters: int | None, method: str, resolution: float, view: View, seed: int) -> Clustering:
        """Cluster the cells of the model, once for each choice of arguments."""
        choice = (n_clusters, method, resolution, view, seed)
        if choice not in self._clusterings:
            begin("clustering")
            points = self._reference_latent[view]
            if method == "leiden":
                found = (
                    leiden(points, resolution, seed) if n_clusters is None else leiden_with(points, n_clusters, seed)
                )
            else:
                if n_clusters is None:
                    n_clusters = median(self._count(view, seed))
                if method == "consensus":
                    ensemble = self._ensemble(view, seed, n_clusters)
                    found = ensemble.cut(n_clusters)
                    _warn_if_undetermined(n_clusters, ensemble.agreement(n_clusters, found.labels))
                else:
                    found = kmeans(points, n_clusters, seed)
            self._clusterings[choice] = found
        return self._clusterings[choice]

    def _sources(self, view: View) -> list[np.ndarray]:
        """What micro-clusters are made in and communities are counted in."""
        return [self._reference_latent[view], self._seen_by(view).smoothed]

    def _seen_by(self, view: View) -> Spaces:
        """What clusters are found by, beside a view."""
        modality = None if isinstance(view, str) else list(self._reference.modalities)[view[1]]
        return self._reference.seen_by(modality)

    def _ensemble(self, view: View, seed: int, n_clusters: int) -> Ensemble:
        """Trees over the cells of the model; the same for all usual numbers of clusters."""
        least = n_clusters if 2 * n_clusters > N_MICRO else 0
        choice = (view, seed, least)
        if choice not in self._ensembles:
            joining, euclidean = self._seen_by(view).joining, self._reference.space is not None
            self._ensembles[choice] = Ensemble.build(self._sources(view), joining, seed, least, euclidean=euclidean)
        return self._ensembles[choice]

    def _count(self, view: View, seed: int) -> list[int]:
        """Numbers of communities, of which the number of clusters is the median."""
        choice = (view, seed)
        if choice not in self._votes:
            self._votes[choice] = cast_votes(self._sources(view), seed)
        return self._votes[choice]

    def _forget(self) -> None:
        """Drop what was computed from the weights."""
        self._clusterings: dict[tuple, Clustering] = {}
        self._ensembles: dict[tuple, Ensemble] = {}
        self._votes: dict[tuple, list[int]] = {}
        self._gene_map: GeneMap | None = None
        self.__dict__.pop("_encoded", None)

    # --------------------------------------------------------- save and load

    @property
    def reference_(self) -> dict[str, Any]:
        """The cells, genes and graphs of the model as plain arrays, saved with it."""
        return self._reference.to_dict()

    @reference_.setter
    def reference_(self, state: dict[str, Any]) -> None:
        self._reference = (JointReference if "modalities" in state else Reference).from_dict(state)

    def save(
        self,
        dir_path: str | os.PathLike[str],
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save the model. All files are written before any takes its name, so that a failure leaves what was there.

        Parameters
        ----------
        dir_path
            Folder to write, made if need be.
        prefix
            Prefix of the file names.
        overwrite
            Replace what the folder holds.
        save_anndata
            Save the data too.
        **kwargs
            Passed to :meth:`scvi.model.base.BaseModelClass.save`.

        Raises
        ------
        ValueError
            If the folder exists and ``overwrite`` is not set.
        OSError
            If it cannot be written.
        """
        folder = Path(dir_path)
        if folder.exists() and not overwrite:
            raise ValueError(f"dir_path={str(folder)!r} already exists. Name another folder, or pass `overwrite=True`.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as unfinished:
            try:
                super().save(unfinished, prefix, overwrite=True, save_anndata=save_anndata, **kwargs)
            except (OSError, RuntimeError) as error:
                raise OSError(
                    f"The model cannot be saved to dir_path={str(folder)!r}: {error}. Free space there, or name another folder."
                ) from error
            folder.mkdir(exist_ok=True)
            for file in Path(unfinished).iterdir():
                file.replace(folder / file.name)

    @classmethod
    def load(
        cls,
        dir_path: str | os.PathLike[str],
        adata: AnnData | MuData | Literal[False] | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a saved model.

        Parameters
        ----------
        dir_path
            Folder that :meth:`save` wrote.
        adata
            Data to use with the model: those it was trained on or others with the same genes, matched by name. By
            default the data saved with the model, if any; ``False`` for none. Training goes on with the cells that
            the model was built on, whatever the data.
        accelerator, device
            Where to put the model, whatever it was trained on.
        prefix
            Prefix of the saved file names.
        **kwargs
            Passed to :meth:`scvi.model.base.BaseModelClass.load`.

        Raises
        ------
        ValueError
            If the folder holds no model, a damaged one, or one of another class.
        """
        path = os.path.join(dir_path, f"{prefix or ''}model.pt")
        if "backup_url" not in kwargs:
            if not os.path.isfile(path):
                raise ValueError(f"dir_path={os.fspath(dir_path)!r} holds no saved model: there is no file {path!r}.")
            try:
                registry = cls.load_registry(dir_path, prefix=prefix)
            except Exception as error:
                raise ValueError(
                    f"The model saved in dir_path={os.fspath(dir_path)!r} is damaged and cannot be read. Save it again."
                ) from error
            saved_by = registry.get("model_name")
            if saved_by != cls.__name__:
                raise ValueError(
                    f"{path!r} holds a model of class {saved_by}, not {cls.__name__}. Load it with that class."
                )
            _check_type(adata or None, registry.get("setup_method_name") == "setup_mudata")
        with warnings.catch_warnings():
            # Genes are matched by name, so that their order does not matter.
            warnings.filterwarnings("ignore", message="`var_names` for the loaded `model`", category=UserWarning)
            return super().load(dir_path, adata=adata, accelerator=accelerator, device=device, prefix=prefix, **kwargs)


def _named(labels: np.ndarray, n_clusters: int) -> pd.Categorical:
    names: Any = [str(number) for number in range(n_clusters)]
    return pd.Categorical.from_codes(labels, pd.Index(names))


def _check_type(adata: Any, several: bool) -> None:
    """Refuse data of one modality where several are wanted, and the other way round."""
    if adata is not None and not isinstance(adata, MuData if several else AnnData):
        wanted = "a MuData" if several else "an AnnData"
        raise TypeError(f"adata must be {wanted} object, not {type(adata).__name__}.")


def _cell_names(adata: AnnData, indices: Sequence[int] | np.ndarray | None) -> pd.Index:
    return adata.obs_names if indices is None else adata.obs_names[as_rows(indices, adata.n_obs)]


def _warn_if_undetermined(n_clusters: int, agreement: float) -> None:
    if n_clusters > 1 and agreement < LEAST_AGREEMENT:
        warnings.warn(
            f"The data hardly determine {n_clusters} clusters: the clusterings that were reconciled agree with an "
            f"adjusted Rand index of only {agreement:.2f}. See `get_cluster_probabilities()` for how certain each cell "
            "is, and `estimate_n_clusters()` for other numbers.",
            UserWarning,
            stacklevel=settings.warnings_stacklevel,
        )


def _describe(neighbors_key: str | None, n_neighbors: int, space: Space | None) -> str:
    """The cell graph in words."""
    similar = f"of {neighbors_key!r}" if neighbors_key else f"of {n_neighbors} nearest neighbours"
    if space is None:
        return similar
    n_slices = len(space.slices.names)
    return f"in space{f' and {similar}' if space.joined else ''}, {n_slices} slice{'s' if n_slices > 1 else ''}"


def _check_plan_kwargs(plan: type, loss: Callable, plan_kwargs: dict[str, Any]) -> None:
    """Refuse options that neither the training plan nor the loss knows."""
    known: set[str] = set()
    for function in (*(vars(c)["__init__"] for c in plan.__mro__ if "__init__" in vars(c)), loss):
        known.update(inspect.signature(function).parameters)
    unknown = sorted(set(plan_kwargs) - known)
    if unknown:
        raise ValueError(
            f"plan_kwargs has unknown options: {', '.join(unknown)}. Known are {', '.join(PLAN_OPTIONS)} and those of "
            "scvi.train.TrainingPlan."
        )
    for name in PLAN_OPTIONS:
        if name in plan_kwargs:
            check_at_least(plan_kwargs[name], 0.0, f"plan_kwargs[{name!r}]")
