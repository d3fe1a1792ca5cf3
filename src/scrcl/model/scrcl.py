"""The public class: SCRCL on scvi-tools."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import pandas as pd

from scrcl.data.micrometers import micrometers_per_unit, parse_length
from scrcl.data.sources import read_graph
from scrcl.graph.spatial import SPATIAL_GRAPHS, SpatialGraph, SpatialOptions
from scrcl.reference.prepare import Mode, Options, prepare
from scrcl.reference.reference import Reference
from scrcl.reference.writing import describe_parameters, write_preparation
from scrcl.utils.checks import check_at_least, check_option
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.public import public_class
from scrcl.utils.words import counted

from .base import Data, SCRCLBase
from .batches import BatchesMixin
from .cells import CellsMixin
from .certainty import CertaintyMixin
from .clusters import ClustersMixin
from .domains import DomainsMixin
from .genes import GenesMixin
from .labels import LabelsMixin
from .markers import MarkersMixin
from .names import NamesMixin
from .pseudobulk import PseudobulkMixin
from .saving import SavingMixin
from .setup import SetupMixin
from .training import TrainingMixin

# A child of the logger of scvi-tools, so that `scvi.settings.verbosity` governs both.
logger = logging.getLogger("scvi.scrcl")

MODES = get_args(Mode)
#: Argument of each option of spatial data.
SPATIAL_ARGUMENTS = {
    "kind": "spatial_graph",
    "n_neighbors": "n_spatial_neighbors",
    "radius": "radius",
    "smoothing": "spatial_smoothing",
    "smoothing_length": "spatial_smoothing",
    "joined": "spatial_mode",
}


@public_class
class SCRCL(
    SetupMixin,
    TrainingMixin,
    SavingMixin,
    CellsMixin,
    ClustersMixin,
    DomainsMixin,
    CertaintyMixin,
    GenesMixin,
    MarkersMixin,
    NamesMixin,
    PseudobulkMixin,
    BatchesMixin,
    LabelsMixin,
    SCRCLBase,
):
    r"""Refinement contrastive learning of cell-gene associations :cite:p:`Peng2026`.

    Finds cell types without labels, or with labels of some cells. Two views of each cell, by itself and among its neighbours,
    are aligned, and both are tied to the genes that the cell expresses. The model selects genes, reduces counts to
    features and builds the cell graph and the gene graph itself, from raw counts of all genes.

    Parameters
    ----------
    adata
        Data registered with :meth:`setup_anndata` or :meth:`setup_mudata`.
    registry
        Registry of a saved model. Used by :meth:`load`; not meant to be passed.
    n_top_genes
        Number of most variable genes that are kept; of several modalities, also of peaks that cells are tied to.
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
        Prior knowledge of related genes: a network, as a table with columns ``source`` and ``target`` (decoupler) or
        ``source_genesymbol`` and ``target_genesymbol`` (OmniPath) and optionally ``weight``, or the path of one; or gene sets,
        as a dictionary, a table whose sources are no genes, or the path of a GMT file. Genes are matched by name, and the
        matches are written to ``uns["scrcl_gene_network"]``.
    gene_network_mode
        ``"join"``: its edges are added to those between genes with similar expression. ``"replace"``: they replace those.
    spatial_graph
        Spatial graph, for data set up with a ``spatial_key``. ``"knn"``: each cell is joined to its
        ``n_spatial_neighbors`` nearest cells. ``"radius"``: all cells not farther than ``radius``. ``"delaunay"``:
        Delaunay triangulation, without edges longer than ``radius`` if one is given. ``"grid"``: adjacent spots of a
        regular grid, such as the hexagonal one of Visium. Cells of different slices are never joined.
    n_spatial_neighbors
        Number of nearest cells of ``spatial_graph="knn"``.
    radius
        Longest edge, in the unit of the coordinates.
    spatial_smoothing
        Mean number of steps in the spatial graph over which features are averaged. More steps give larger domains; 0 means
        no smoothing. By default 10, or fewer where cells 10 steps apart differ, as on slices of few large spots; the number is
        written to ``uns["scrcl"]``. Or a distance: ``"50 units"`` of the coordinates, or ``"50 µm"`` if their scale is known: by scale
        factors in ``uns["spatial"]``, ``array_row`` and ``array_col`` of Visium, or centroids of Xenium or MERSCOPE in ``obs``.
    spatial_mode
        ``"replace"``: the spatial graph replaces the graph of similar cells. ``"join"``: its edges are added to that graph.

    Raises
    ------
    ValueError
        If an argument is out of range, there are too few cells for the number of neighbours, no genes vary, or the gene
        network cannot be read or has other identifiers than the data.

    Notes
    -----
    The prepared data are written to ``adata``, to be inspected and plotted: cell features to
    ``obsm["X_scrcl_features"]``, the cell graph to ``obsp["scrcl_connectivities"]`` (with ``uns["scrcl_neighbors"]``
    in the form of :func:`scanpy.pp.neighbors`), the genes kept to ``var["scrcl_genes"]``, the gene graph to
    ``varp["scrcl_gene_graph"]``, gene features to ``varm["scrcl_gene_features"]`` and its main
    parameters to ``uns["scrcl"]``. In space, the features are the smoothed ones and the graph is the spatial one. The model
    holds its own copy, so that changes to ``adata`` do not change the model. Of several modalities, the features, the joint cell graph
    and the weights of the modalities (``obsm["scrcl_modality_weights"]``) are written to the :class:`~mudata.MuData`;
    what is in ``mdata.mod`` stays as it is.

    Examples
    --------
    >>> scrcl.SCRCL.setup_anndata(adata)
    >>> model = scrcl.SCRCL(adata)
    >>> model.train()
    >>> adata.obsm["X_scrcl"] = model.get_latent_representation()
    >>> adata.obs["scrcl"] = model.get_clusters()
    """

    def __init__(
        self,
        adata: Data | None = None,
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
        spatial_smoothing: float | str | None = None,
        spatial_mode: Literal["join", "replace"] = "replace",
    ) -> None:
        check_at_least(n_top_genes, 2, "n_top_genes")
        check_at_least(n_components, 1, "n_components")
        check_at_least(n_neighbors, 1, "n_neighbors")
        check_at_least(n_hidden, 1, "n_hidden")
        check_at_least(n_refined, 1, "n_refined")
        check_at_least(temperature, 1e-6, "temperature")
        check_at_least(dropout_rate, 0.0, "dropout_rate")
        if dropout_rate >= 1:
            raise ScrclValueError(f"dropout_rate={dropout_rate!r} is not below 1.", "Pass a smaller rate.")
        check_option(gene_network_mode, MODES, "gene_network_mode")
        check_option(spatial_mode, MODES, "spatial_mode")
        spatial = SpatialOptions(spatial_graph, n_spatial_neighbors, radius, joined=spatial_mode == "join")
        in_micrometers = False
        if isinstance(spatial_smoothing, str):
            length, in_micrometers = parse_length(spatial_smoothing, "spatial_smoothing")
            spatial = replace(spatial, smoothing_length=length)
        elif spatial_smoothing is not None:
            check_at_least(spatial_smoothing, 0.0, "spatial_smoothing")
            spatial = replace(spatial, smoothing=float(spatial_smoothing))
        _check_spatial_options(spatial)
        super().__init__(adata, registry)
        self._module_kwargs = {
            "n_hidden": n_hidden,
            "n_refined": n_refined,
            "temperature": temperature,
            "dropout_rate": dropout_rate,
        }
        self.refinement_trained_ = None
        self._reference_data, self._kept_results = None, None
        if adata is not None and registry is None:
            if in_micrometers and self._setup("spatial_key") is not None:
                scale = micrometers_per_unit(adata, self._slices(adata), "spatial_smoothing")
                spatial = replace(spatial, smoothing_length=length / scale, micrometers_per_unit=scale)
            self._prepare(
                adata,
                Options(n_top_genes, n_components, n_neighbors, gene_network, gene_network_mode, spatial),
            )
        self._model_summary_string = (
            f"SCRCL with n_top_genes: {n_top_genes}, n_components: {n_components}, n_neighbors: {n_neighbors}, "
            f"n_hidden: {n_hidden}, n_refined: {n_refined}, temperature: {temperature}, dropout_rate: {dropout_rate}"
        )
        self.init_params_ = self._get_init_params(locals())
        if gene_network is not None:  # which may be large, and is part of the gene graph, which is saved
            self.init_params_["non_kwargs"]["gene_network"] = "in the gene graph"

    def _prepare(self, data: Data, options: Options) -> None:
        """Build features and graphs from the data, and write them where the user can see them."""
        self._check_what_would_be_unused(options.spatial)
        neighbors_key = self._setup("neighbors_key")
        graph = None if neighbors_key is None else read_graph(data, neighbors_key)
        where, n_hidden = "mdata" if self._several else "adata", self._module_kwargs["n_hidden"]
        preparation = prepare(self._cells(data), options, n_hidden, where, graph, self._labels(data))
        reference = preparation.reference
        self._set_reference(reference)
        self._reference_data = data
        parameters = describe_parameters(reference, options, self.registry["setup_args"], self._several)
        write_preparation(data, preparation, parameters)
        if preparation.network is not None:
            logger.info(preparation.network.describe())
        logger.info(
            f"{counted(reference.n_cells, 'cell')}: {self._describe(reference)}, {counted(reference.adjacency.nnz // 2, 'edge')}"
        )

    def _check_what_would_be_unused(self, spatial: SpatialOptions) -> None:
        """Refuse options and graphs that would not be used."""
        neighbors_key, graph_key = self._setup("neighbors_key"), self._setup("spatial_neighbors_key")
        changed = spatial.changed()
        if self._setup("spatial_key") is None:
            if changed:
                raise ScrclValueError(
                    f"{SPATIAL_ARGUMENTS[changed[0]]} requires coordinates.",
                    f"Name them: {self._setup_call(spatial_key='spatial')}.",
                )
            return
        unused = [name for name in changed if name in ("kind", "n_neighbors", "radius")]
        if graph_key is not None and unused:
            raise ScrclValueError(
                f"{SPATIAL_ARGUMENTS[unused[0]]} has no effect with the graph of spatial_neighbors_key={graph_key!r}.",
                "Leave one of them out.",
            )
        if neighbors_key is not None and not spatial.joined:
            raise ScrclValueError(
                f"neighbors_key={neighbors_key!r} has no effect with the spatial graph.",
                "Pass `SCRCL(adata, spatial_mode='join')`, or leave it out.",
            )

    def _describe(self, reference: Reference) -> str:
        """Features and cell graph in words."""
        neighbors_key, spatial = self._setup("neighbors_key"), reference.spatial
        if self._several:
            features = ", ".join(
                f"{name!r} {counted(number, 'feature')} (weight {weight:.2f})"
                for name, number, weight in zip(
                    reference.modalities, reference.n_inputs, reference.mean_weights, strict=True
                )
            )
        else:
            kept = self._setup("features_key") or counted(len(reference.genes), "gene")
            features = f"{counted(reference.n_features, 'feature')} from {kept}"
        graph = (
            f"of {neighbors_key!r}" if neighbors_key else f"of {counted(reference.n_neighbors, 'nearest neighbour')}"
        )
        batches = reference.batches
        if batches is not None:
            what = "corrected" if batches.corrected else "none of which differs, so that nothing is corrected"
            features += f", {counted(len(batches.names), 'batch', 'batches')}, {what}"
        labels = reference.labels
        if labels is not None:
            features += f", {counted(labels.labelled.sum(), 'cell')} labelled with {counted(len(labels.names), 'type')}"
        if spatial is not None:
            n_slices = len(spatial.slices.names)
            similar = f" and {graph}" if spatial.options.joined else ""
            graph = f"in space{similar}, {counted(n_slices, 'slice')}"
        return f"{features}; cell graph {graph}"


def _check_spatial_options(spatial: SpatialOptions) -> None:
    """Refuse options of cells in space that are out of range or do not go together."""
    check_option(spatial.kind, SPATIAL_GRAPHS, "spatial_graph")
    check_at_least(spatial.n_neighbors, 1, "n_spatial_neighbors")
    if spatial.radius is not None:
        check_at_least(spatial.radius, 1e-300, "radius")
        if spatial.kind not in ("radius", "delaunay"):
            raise ScrclValueError(
                f"radius={spatial.radius!r} has no effect with spatial_graph={spatial.kind!r}.",
                "Leave it out, or pass `spatial_graph='radius'`.",
            )
    elif spatial.kind == "radius":
        raise ScrclValueError(
            "spatial_graph='radius' requires a radius.", "Pass `radius`, in the unit of the coordinates."
        )
