"""From sources to a reference: features of cells and genes, and their graphs."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from scvi import settings
from sklearn.preprocessing import normalize

from scrcl.data.networks import GeneSets, Network, read_network
from scrcl.data.sources import Source
from scrcl.graph.adjacency import symmetric_adjacency
from scrcl.graph.genes import gene_graph, prior_gene_graph
from scrcl.graph.mutual_neighbors import balanced_graph
from scrcl.graph.neighbors import Neighbors, nearest_neighbors
from scrcl.graph.smoothing import varying_in_space
from scrcl.graph.spatial import SpatialOptions
from scrcl.labels.cell_labels import Labels
from scrcl.utils.errors import PoorSupportWarning, ScrclValueError
from scrcl.utils.memory import FIXED_BYTES, release, warn_if_short
from scrcl.utils.progress import begin
from scrcl.utils.sizes import sample_cells
from scrcl.utils.words import counted

from .agreement import Agreement, join, own_structure
from .batches import Batches
from .cells import Cells
from .modality import Modality, joint_names, n_inputs, neighbor_features, side_by_side, split_features
from .modality_kinds import KINDS, fit_modality
from .reference import FEATURE_SHARE, Reference
from .spatial import SpatialReference

#: Minimum agreement with another modality, below which a warning is given; noise has about 0.01.
MIN_AGREEMENT = 0.1

Mode = Literal["join", "replace"]


@dataclass(frozen=True)
class Options:
    """Options of the preparation; the attributes are arguments of :class:`scrcl.SCRCL`."""

    n_top_genes: int = 2000
    n_components: int = 50
    n_neighbors: int = 15
    gene_network: GeneSets | None = None
    gene_network_mode: Mode = "join"
    spatial: SpatialOptions = field(default_factory=SpatialOptions)


class Preparation(NamedTuple):
    """The reference, the neighbours of its cell graph, if they were computed, and the gene network, if there is one."""

    reference: Reference
    neighbors: Neighbors | None
    network: Network | None


def prepare(
    cells: Cells,
    options: Options,
    n_hidden: int,
    where: str,
    graph: sp.csr_array | None = None,
    labels: Labels | None = None,
) -> Preparation:
    """Build features and graphs of all cells of a model.

    ``graph`` ``(n, n)`` is a cell graph of the user, if there is one; ``n_hidden`` is the number of hidden units of the
    network, for the estimate of memory, and ``where`` the name of the data, for messages. Refused are too few cells, data that
    do not vary, and a gene network that does not fit the genes.
    """
    sources, slices, n_cells = cells.sources, cells.slices, len(cells.names)
    # The spatial graph comes first, as it is quick and may be refused.
    spatial = None
    if slices is not None:
        options.spatial.check_length(slices)
        spatial = options.spatial.graph(slices) if cells.graph is None else cells.graph
    if spatial is None or options.spatial.joined:
        _check_enough_cells(n_cells, options.n_neighbors, where)
    _warn_of_memory(sources, options, n_hidden, n_cells)

    begin("features")
    batches, modalities, by_modality = _fit(sources, options, cells)
    release()
    network = _read_network(modalities, options)

    begin("graph")
    spatial_reference, features = None, side_by_side(by_modality)
    if slices is not None and spatial is not None:
        kept = np.concatenate([varying_in_space(spatial, part) for part in by_modality])
        spatial_reference = SpatialReference.fit(slices, spatial, features, kept, options.spatial)
        features = spatial_reference.smooth(slices, spatial, features)
    agreement, points_by_modality = _agreement(
        modalities, by_modality, features, spatial_reference, options.n_neighbors
    )
    mean_weights = [1.0] if agreement is None else agreement.weights.mean(0, dtype=np.float64).tolist()
    _warn_if_contradicting(list(modalities), agreement, mean_weights)

    corrected = batches is not None and batches.corrected
    neighbors, adjacency = None, spatial
    if adjacency is None or options.spatial.joined:
        if graph is not None:
            similar = symmetric_adjacency(graph)
        else:
            points = points_by_modality[0] if agreement is None else join(points_by_modality, agreement.weights)
            if batches is not None and corrected:
                conditions = None if batches.conditions is None else batches.conditions.codes
                similar = balanced_graph(points, batches.codes, options.n_neighbors, conditions)
            else:
                neighbors = nearest_neighbors(points, options.n_neighbors)
                similar = symmetric_adjacency(neighbors.to_sparse())
        adjacency = similar if spatial is None else symmetric_adjacency(similar + spatial)

    gene_features = _gene_features(modalities, sources, by_modality, mean_weights, options.n_components)
    genes = None if network and options.gene_network_mode == "replace" else gene_graph(gene_features)
    if network:
        genes = prior_gene_graph(network.similarity, gene_features, genes)
    assert genes is not None  # a network replaces the graph of the features
    reference = Reference(
        modalities=modalities,
        features=features,
        adjacency=adjacency,
        gene_features=gene_features,
        gene_graph=genes,
        n_neighbors=options.n_neighbors,
        agreement=agreement,
        spatial=spatial_reference,
        batches=batches,
        # The correction of features is incomplete; that of the graph completes it for the views of the network.
        feature_share=0.0 if corrected else FEATURE_SHARE,
        labels=labels,
        cell_names=cells.names.copy(),
    )
    release()
    return Preparation(reference, neighbors, network)


def _fit(
    sources: Mapping[str, Source], options: Options, cells: Cells
) -> tuple[Batches | None, dict[str, Modality], list[np.ndarray]]:
    """Batches, if any, modalities and the features of each."""
    sources = {name: source.kept() for name, source in sources.items()}
    if cells.batches is not None:
        sizes = options.n_top_genes, options.n_components, options.n_neighbors
        return Batches.fit(cells.batches, sources, *sizes, cells.conditions)
    modalities = {
        name: fit_modality(name, source, options.n_top_genes, options.n_components) for name, source in sources.items()
    }
    return None, modalities, [modality.features(sources[name]) for name, modality in modalities.items()]


def _check_enough_cells(n_cells: int, n_neighbors: int, where: str) -> None:
    """Refuse data with no more cells than neighbours."""
    if n_cells <= n_neighbors:
        raise ScrclValueError(
            f"{where} has {counted(n_cells, 'cell')}, but {n_neighbors} neighbours of each require at least {n_neighbors + 1}.",
            f"Pass more cells, or `n_neighbors={max(1, n_cells - 1)}` or fewer.",
            command="Pass more cells.",
            where=where,
        )


def _warn_of_memory(sources: Mapping[str, Source], options: Options, n_hidden: int, n_cells: int) -> None:
    n_features = 0
    for source in sources.values():
        n_columns = len(source.names) if source.embedding is None else source.embedding.shape[1]
        n_features += KINDS[source.kind].most_features(
            min(n_columns, options.n_top_genes) if source.kind == "rna" else n_columns, options.n_components
        )
    # Measured, with a margin: 3 values for each feature and hidden unit of a cell, and 60 bytes for each neighbour.
    bytes_of_cell = 12 * (n_features + len(sources) * n_hidden) + 60 * len(sources) * options.n_neighbors
    warn_if_short(
        n_cells * bytes_of_cell + FIXED_BYTES,
        f"A model of {counted(n_cells, 'cell')}",
        "Pass a smaller `n_components`, or fewer cells and place the others later; counts can stay in the file: "
        "`anndata.read_h5ad(path, backed='r')`.",
        "Pass fewer cells.",
    )


def _read_network(modalities: dict[str, Modality], options: Options) -> Network | None:
    if options.gene_network is None:
        return None
    genes = joint_names({name: modality.variables for name, modality in modalities.items()})
    all_genes = joint_names({name: modality.names for name, modality in modalities.items()})
    return read_network(options.gene_network, genes, all_genes)


def _agreement(
    modalities: dict[str, Modality],
    by_modality: list[np.ndarray],
    features: np.ndarray,
    spatial_reference: SpatialReference | None,
    n_neighbors: int,
) -> tuple[Agreement | None, list[np.ndarray]]:
    """Agreement of several modalities, and the features of each for the neighbour search."""
    points = neighbor_features(
        modalities, split_features(features, n_inputs(modalities, spatial_reference)), spatial_reference
    )
    if len(modalities) == 1:
        return None, points
    structure = [
        own_structure(modality.structure_features(part), n_neighbors)
        for modality, part in zip(modalities.values(), by_modality, strict=True)
    ]
    return Agreement.fit(points, n_neighbors, structure), points


def _gene_features(
    modalities: dict[str, Modality],
    sources: Mapping[str, Source],
    by_modality: list[np.ndarray],
    mean_weights: list[float],
    n_components: int,
) -> np.ndarray:
    """Features ``(G, d_g)`` of the variables of all modalities."""
    (only, *others) = modalities.values()
    if not others and only.gene_features is not None:
        return only.gene_features
    sample = sample_cells(len(by_modality[0]))
    expression = [modality.expression(sources[name], sample) for name, modality in modalities.items()]
    linear = [
        modality.linear_features(part[sample]) for modality, part in zip(modalities.values(), by_modality, strict=True)
    ]
    return variable_features(expression, linear, mean_weights, n_components)


def variable_features(
    expression: list[sp.csr_array], linear: list[np.ndarray], mean_weights: list[float], n_features: int
) -> np.ndarray:
    r"""Features ``(V, d)``, float32, of the variables of all modalities in one embedding: :math:`X^\top U_d`.

    They generalise the gene features of one modality: ``U`` are the left singular vectors of all modalities side by side, of
    their centred features ``(n, d_m)``, which are linear in the values ``(n, V_m)``, weighted by the mean_weights. There are at most
    ``n_features``.
    """
    cells = np.concatenate([np.sqrt(weight) * part for weight, part in zip(mean_weights, linear, strict=True)], 1)
    cells = cells.astype(np.float64)
    squares, vectors = np.linalg.eigh(cells.T @ cells)
    squares, vectors = squares[::-1][:n_features], vectors[:, ::-1][:, :n_features]
    kept = squares > 1e-10 * squares[0]
    basis = cells @ vectors[:, kept] / np.sqrt(squares[kept])
    basis -= basis.mean(0)
    features = normalize(np.concatenate([values.T @ basis for values in expression]))
    return (features * np.sqrt(features.shape[1])).astype(np.float32)


def _warn_if_contradicting(names: list[str], agreement: Agreement | None, mean_weights: list[float]) -> None:
    if agreement is None:
        return
    others = np.sqrt(agreement.overall * agreement.overall.T)
    np.fill_diagonal(others, -np.inf)
    best = others.max(1)
    alone = [name for name, highest in zip(names, best, strict=True) if highest < MIN_AGREEMENT]
    if alone:
        weights = ", ".join(f"{name!r} {share:.2f}" for name, share in zip(names, mean_weights, strict=True))
        warnings.warn(
            PoorSupportWarning(
                f"No other modality agrees with {' or with '.join(map(repr, alone))}: neighbours in one are not similar in "
                f"another (agreement {best.min():.2f} of 1; mean weights: {weights}).",
                "Check how cells were matched between modalities; a modality may also be noise.",
            ),
            stacklevel=settings.warnings_stacklevel,
        )
