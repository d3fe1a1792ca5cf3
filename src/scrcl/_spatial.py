"""Cells in space: graphs over coordinates, smoothing over a graph and majority labels, over plain arrays.

Slices (samples) may overlap in their coordinates; nothing passes between them. No array of cells by cells is formed.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.spatial import Delaunay, QhullError, cKDTree
from scvi import settings

from ._graph import Neighbors, normalized_adjacency, symmetric_adjacency, without_itself

SpatialGraph = Literal["knn", "radius", "delaunay", "grid"]
SPATIAL_GRAPHS = get_args(SpatialGraph)
#: Name of the slice where there is only one.
NO_SAMPLES = "all cells"
#: Share of the smoothing kernel that may be left out.
KERNEL_TOLERANCE = 1e-6
#: Mean number of neighbours above which a graph is refused: the radius is far too large.
MOST_NEIGHBORS = 500
#: Cells at one position above which their coordinates are taken for missing.
MOST_AT_ONE_POSITION = 1000
#: Distance up to which spots of a grid are adjacent, relative to the nearest. On a square grid the diagonal is at 1.41,
#: on a hexagonal one the second ring at 1.73.
GRID_REACH = 1.2
#: Rows of the Visium arrays of 6.5 and of 11 mm.
VISIUM_ROWS = (78, 128)
#: Moran's I below which a feature is noise in space, by itself and relative to that of the most autocorrelated one.
LEAST_AUTOCORRELATION, LEAST_OF_LARGEST = 0.1, 0.15
#: Standard deviations above chance from which on something varies in space.
CERTAIN = 4
#: How far two sets of features of one cell may be apart, relative to their length, as rounding differs.
SAME_FEATURES = 1e-4


@dataclass(frozen=True)
class Slices:
    """Where cells are.

    Attributes
    ----------
    coordinates
        ``(n, 2)`` or ``(n, 3)`` positions, float64, in any unit.
    samples
        ``(n,)`` number of the slice of each cell, from 0.
    names
        Names of the slices.
    """

    coordinates: np.ndarray
    samples: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.coordinates)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name and rows of each slice. The rows are ordered by coordinates, so that no result depends on their order."""
        order = np.lexsort((*self.coordinates.T[::-1], self.samples))
        ends = np.searchsorted(self.samples[order], np.arange(len(self.names) + 1))
        for name, start, end in zip(self.names, ends[:-1], ends[1:], strict=True):
            if end > start:
                yield name, order[start:end]

    @property
    def apart(self) -> np.ndarray:
        """Coordinates ``(n, d + 1)``, float32, of slices that lie far from each other along a further axis."""
        extent = float(np.ptp(self.coordinates, axis=0).max()) if len(self) else 0.0
        away = self.samples * (10 * extent + 1)
        return np.column_stack([self.coordinates - self.coordinates.mean(0), away]).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain arrays."""
        return {"coordinates": self.coordinates, "samples": self.samples, "names": list(self.names)}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**state, "names": tuple(state["names"])})


@dataclass(frozen=True)
class Space:
    """Where the cells of a model are, and how it sees them among their neighbours.

    Attributes
    ----------
    slices
        Where the ``n`` cells are.
    features
        ``(n, D)`` features before smoothing, by which cells are found again.
    kept
        ``(D,)`` which of them vary in space and are read.
    kind, n_neighbors, radius
        The graph, as in :func:`spatial_graph`; the kind is ``"given"`` where the user has one.
    smoothing
        Strength of smoothing, as in :func:`smooth`.
    joined
        Whether a graph of similar cells is joined to the spatial one.
    """

    slices: Slices
    features: np.ndarray
    kept: np.ndarray
    kind: str
    n_neighbors: int
    radius: float | None
    smoothing: float
    joined: bool

    def smooth(self, adjacency: sp.csr_array, features: np.ndarray) -> np.ndarray:
        """Features ``(m, D)`` of cells with a spatial graph, as the model reads them, ``(m, d)``."""
        return smooth(adjacency, features[:, self.kept], self.smoothing)

    def to_dict(self) -> dict[str, Any]:
        """Plain arrays."""
        return {**vars(self), "slices": self.slices.to_dict()}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**state, "slices": Slices.from_dict(state["slices"])})


def read_slices(coordinates: Any, samples: Any, where: str, samples_where: str) -> Slices:
    """Check coordinates and the slices they belong to.

    Parameters
    ----------
    coordinates
        ``(n, 2)`` or ``(n, 3)`` positions.
    samples
        ``(n,)`` names of the slices, or ``None`` for a single one.
    where, samples_where
        What the user calls them, for messages.

    Raises
    ------
    ValueError
        If coordinates are not numbers in two or three columns, are NaN or infinite, or are the same for very many
        cells of a slice; or if a cell has no slice.
    """
    try:
        positions: np.ndarray = np.array(coordinates, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} must hold numbers. Put x and y coordinates there.") from error
    if positions.ndim != 2 or positions.shape[1] not in (2, 3):
        raise ValueError(f"{where} must have two or three columns (x, y, z), but its shape is {positions.shape}.")
    bad = ~np.isfinite(positions).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{where} holds NaN or infinite coordinates for {bad.sum():,} of {len(positions):,} cells. Remove these cells first: "
            "`adata[np.isfinite(coordinates).all(1)]`."
        )
    if samples is None:
        names: tuple[str, ...] = (NO_SAMPLES,)
        codes = np.zeros(len(positions), dtype=np.int64)
    else:
        codes, found = pd.factorize(pd.Series(np.asarray(samples, dtype=object)), sort=False)
        if (codes < 0).any():
            raise ValueError(
                f"{samples_where} is missing for {(codes < 0).sum():,} cells. Name the slice of every cell, or remove "
                "these cells."
            )
        names = tuple(str(name) for name in found)
    slices = Slices(positions, codes.astype(np.int64), names)
    for name, rows in slices:
        position, count = np.unique(positions[rows], axis=0, return_counts=True)
        if count.max() > MOST_AT_ONE_POSITION:
            raise ValueError(
                f"{count.max():,} cells of {_slice(name)} are at one position, {position[count.argmax()].tolist()}, in "
                f"{where}, so that their coordinates are likely missing. Remove these cells, or pass their coordinates."
            )
    return slices


def _slice(name: str) -> str:
    return f"the slice {name!r}" if name != NO_SAMPLES else "the data"


def spatial_graph(
    slices: Slices, kind: SpatialGraph = "knn", n_neighbors: int = 6, radius: float | None = None
) -> sp.csr_array:
    """Join cells that are close to each other.

    Parameters
    ----------
    slices
        Where the ``n`` cells are.
    kind
        ``"knn"``: either is among the ``n_neighbors`` nearest cells of the other. ``"radius"``: not farther apart than
        ``radius``. ``"delaunay"``: joined by Delaunay triangulation, and not farther apart than ``radius`` where one is
        given. ``"grid"``: adjacent spots of a regular grid, of which a spot has six on the hexagonal grid of Visium,
        whether in pixels or as rows and columns of its array, and four on a square one.
    n_neighbors
        Number of nearest neighbours.
    radius
        In the unit of the coordinates.

    Returns
    -------
    Binary, symmetric ``(n, n)`` graph without self loops, block-diagonal by slice. Cells without neighbours may be there
    in all but the graph of nearest neighbours.

    Raises
    ------
    ValueError
        If a slice has too few cells, the cells of one are on a line, or the radius is missing or far too large.
    """
    if kind == "radius" and radius is None:
        raise ValueError("spatial_graph='radius' needs a `radius`, in the unit of the coordinates.")
    edges = []
    for name, rows in slices:
        points = slices.coordinates[rows]
        if kind == "knn":
            found = _nearest(points, n_neighbors, name)
        elif kind == "radius":
            assert radius is not None
            found = _within(points, radius, name)
        elif kind == "delaunay":
            found = _triangulate(points, radius, name)
        else:
            found = _adjacent_spots(points, name)
        edges.append(rows[found])
    ends = np.concatenate(edges) if edges else np.empty((0, 2), np.int64)
    n = len(slices)
    return symmetric_adjacency(sp.csr_array((np.ones(len(ends), dtype=np.float32), tuple(ends.T)), shape=(n, n)))


def nearest_in_space(points: np.ndarray, n_neighbors: int) -> np.ndarray:
    """The ``(n, k)`` nearest of points ``(n, 2)``, none being its own neighbour even where several are at one position."""
    n = len(points)
    found = cKDTree(points).query(points, n_neighbors + 1)[1].reshape(n, -1)
    return found[without_itself(found)].reshape(n, n_neighbors)


def _nearest(points: np.ndarray, n_neighbors: int, name: str) -> np.ndarray:
    n = len(points)
    if n <= n_neighbors:
        fewer = f", or build the model with `n_spatial_neighbors={n - 1}` or fewer" if n > 1 else ""
        raise ValueError(
            f"n_spatial_neighbors={n_neighbors} needs at least {n_neighbors + 1} cells in each slice, but there are {n} in "
            f"{_slice(name)}. Pass all cells of the slice (results for some are had by `indices`), or leave it out{fewer}."
        )
    return np.column_stack([np.repeat(np.arange(n), n_neighbors), nearest_in_space(points, n_neighbors).ravel()])


def _within(points: np.ndarray, radius: float, name: str) -> np.ndarray:
    tree = cKDTree(points)
    mean = tree.count_neighbors(tree, radius) / len(points) - 1
    if mean > MOST_NEIGHBORS:
        raise ValueError(
            f"radius={radius:g} joins a cell of {_slice(name)} to {mean:,.0f} others on average. Pass a smaller one; the "
            f"nearest cell is at {_spacing(points):.3g} typically."
        )
    return tree.query_pairs(radius, output_type="ndarray")


def _triangulate(points: np.ndarray, radius: float | None, name: str) -> np.ndarray:
    """Edges of the triangulation of the positions. Cells at one position are joined to each other and to all around it."""
    places, place = np.unique(points, axis=0, return_inverse=True)
    place = place.ravel()
    try:
        simplices = Delaunay(places).simplices
    except (QhullError, ValueError) as error:
        raise ValueError(
            f"{_slice(name).capitalize()} cannot be triangulated: its {len(points):,} cells are too few or lie on a line. "
            "Use spatial_graph='knn', or leave this slice out."
        ) from error
    corners = simplices.shape[1]
    pairs = np.concatenate([simplices[:, [i, j]] for i in range(corners) for j in range(i)])
    if radius is not None:
        pairs = pairs[np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1) <= radius]
    n, m = len(points), len(places)
    near = symmetric_adjacency(sp.csr_array((np.ones(len(pairs), np.float32), tuple(pairs.T)), shape=(m, m)))
    at = sp.csr_array((np.ones(n, np.float32), (np.arange(n), place)), shape=(n, m))
    return np.column_stack((at @ (near + sp.eye_array(m, dtype=np.float32)) @ at.T).nonzero())


def _adjacent_spots(points: np.ndarray, name: str) -> np.ndarray:
    points = _unfold_visium(points)
    return _within(points, GRID_REACH * _spacing(points), name) if len(points) > 1 else np.empty((0, 2), np.int64)


def _unfold_visium(points: np.ndarray) -> np.ndarray:
    """Rows and columns of a Visium array as positions with equal distances; anything else as it is.

    Only every other column of a row has a spot, so that row and column are both even or both odd.
    """
    if points.shape[1] != 2 or (points != np.round(points)).any():
        return points
    row, column = points.T
    if len(np.unique((row + column) % 2)) > 1 or len(np.unique(row % 2)) == 1:
        return points
    if row.max() >= VISIUM_ROWS[1] or row.max() >= VISIUM_ROWS[0] > column.max():  # columns come first
        row, column = column, row
    return np.column_stack([row * np.sqrt(3), column])


def _spacing(points: np.ndarray) -> float:
    """The typical distance of nearest positions."""
    places = np.unique(points, axis=0)
    return float(np.median(cKDTree(places).query(places, 2)[0][:, 1])) if len(places) > 1 else 0.0


def smooth(adjacency: sp.csr_array, features: np.ndarray, strength: float) -> np.ndarray:
    r"""Average features over the walks in a graph, :math:`(I + t\,(I - W))^{-1} x` with :math:`W = D^{-1}(A + I)`.

    This is the mean of :math:`x` over where a random walk is that goes on at each step with probability
    :math:`t / (1 + t)`: about :math:`t` steps. Features that vary slowly over the graph stay as they are; the others,
    noise among them, are damped. A node without neighbours keeps its features, and those of a constant are constant.

    The eigenvalues :math:`w` of :math:`W` lie in :math:`(-1, 1]`, where :math:`1 / (1 + t (1 - w))` is the Chebyshev
    series :math:`(1 + 2t)^{-1/2} (1 + 2 \sum_k \rho^k T_k(w))` with :math:`\rho = (1 + t - \sqrt{1 + 2t}) / t`. So
    a few dozen products with a sparse matrix suffice, whatever the size of the graph.

    Parameters
    ----------
    adjacency
        ``(n, n)`` binary, symmetric graph without self loops.
    features
        ``(n, d)`` features.
    strength
        :math:`t`; 0 leaves features as they are.

    Returns
    -------
    ``(n, d)``, float32.
    """
    features = np.asarray(features, dtype=np.float32)
    if strength == 0 or len(features) == 0:
        return features
    n = adjacency.shape[0]
    walk = sp.diags_array(1 / (adjacency.sum(axis=1) + 1), dtype=np.float32) @ (
        adjacency + sp.eye_array(n, dtype=np.float32)
    )
    walk = sp.csr_array(walk, dtype=np.float32)
    root = float(np.sqrt(1 + 2 * strength))
    ratio = (1 + strength - root) / strength
    n_terms = int(np.ceil(np.log(KERNEL_TOLERANCE) / np.log(ratio)))
    previous, current = features, walk @ features
    total = previous + 2 * ratio * current
    for power in range(2, n_terms + 1):
        previous, current = current, 2 * (walk @ current) - previous
        total += 2 * ratio**power * current
    return total / root


def join_reference(graph: sp.csr_array, reference: sp.csr_array, neighbors: Neighbors) -> sp.csr_array:
    """The propagation matrix of cells that are joined to each other in space and receive from similar reference cells.

    The weights are those of :func:`~scrcl._graph.normalized_adjacency`, with the degrees that the reference cells have
    among themselves, which receive nothing.

    Parameters
    ----------
    graph
        ``(m, m)`` spatial graph of the cells.
    reference
        ``(n, n)`` graph of the reference.
    neighbors
        Neighbours of the ``m`` cells in the reference.

    Returns
    -------
    ``(n + m, n + m)``, the reference first.
    """
    received = neighbors.to_sparse()
    degree = graph.sum(axis=1) + received.sum(axis=1) + 1
    scale, reference_scale = (sp.diags_array(1 / np.sqrt(d)) for d in (degree, reference.sum(axis=1) + 1))
    own = scale @ (graph + sp.eye_array(graph.shape[0])) @ scale
    blocks = [[normalized_adjacency(reference), None], [scale @ received @ reference_scale, own]]
    return sp.csr_array(sp.block_array(blocks), dtype=np.float32)


def autocorrelation(adjacency: sp.csr_array, features: np.ndarray) -> np.ndarray:
    """Moran's I ``(d,)`` of features ``(n, d)`` over a graph, each cell comparing itself with the mean of its neighbours.

    Near 0 for what is noise in space, 1 for what is smooth.
    """
    centered = features - features.mean(0)
    mean = sp.diags_array(1 / np.maximum(adjacency.sum(axis=1), 1), dtype=features.dtype) @ (adjacency @ centered)
    variance = (centered**2).sum(0)
    return np.divide((centered * mean).sum(0), variance, out=np.zeros_like(variance), where=variance > 0)


def varying_in_space(adjacency: sp.csr_array, features: np.ndarray) -> np.ndarray:
    """Which of the features ``(n, d)`` vary in space; all, with a warning, where none is told from chance.

    Those whose autocorrelation is above 0.1, or above 0.15 of the largest where that is less, and not below two standard
    deviations of what chance gives.
    """
    found = autocorrelation(adjacency, features)
    chance = _chance(adjacency)
    if len(found) and found.max() > CERTAIN * chance:
        return found > max(2 * chance, min(LEAST_AUTOCORRELATION, LEAST_OF_LARGEST * found.max()))
    warnings.warn(
        "Expression hardly varies in space: cells are no more like their neighbours than like others. Check that the "
        "coordinates belong to these cells, or leave `spatial_key` out.",
        UserWarning,
        stacklevel=settings.warnings_stacklevel,
    )
    return np.ones(features.shape[1], dtype=bool)


def _chance(adjacency: sp.csr_array) -> float:
    r"""Standard deviation of Moran's I of independent values, :math:`\sqrt{\sum_{ij} (w_{ij} + w_{ji})^2 / 2} / \sum w`."""
    weights = sp.diags_array(1 / np.maximum(adjacency.sum(axis=1), 1)) @ adjacency
    total = weights.sum()
    return float(np.sqrt((weights + weights.T).power(2).sum() / 2) / total) if total else 1.0


def majority(labels: np.ndarray, slices: Slices, n_neighbors: int) -> np.ndarray:
    """Give each cell the label that most of it and its nearest cells have; its own where that is among the most frequent.

    Parameters
    ----------
    labels
        ``(n,)`` labels, numbered from 0.
    slices
        Where the cells are. Only cells of the same slice count.
    n_neighbors
        Number of nearest cells; all others in a slice with fewer.

    Returns
    -------
    ``(n,)`` labels.
    """
    result = labels.copy()
    n_labels = int(labels.max()) + 1 if len(labels) else 0
    for _, rows in slices:
        own = labels[rows]
        k = min(n_neighbors, len(rows) - 1)
        if k == 0:
            continue
        near = nearest_in_space(slices.coordinates[rows], k)
        ties = sp.csr_array((np.ones(near.size), (np.repeat(np.arange(len(rows)), k), own[near].ravel())))
        votes = np.zeros((len(rows), n_labels))
        votes[:, : ties.shape[1]] = ties.toarray()
        votes[np.arange(len(rows)), own] += 1.5  # its own vote, and half a vote more that decides between equals
        result[rows] = votes.argmax(1)
    return result


def find_cells(slices: Slices, features: np.ndarray, known_slices: Slices, known_features: np.ndarray) -> np.ndarray:
    """Find cells again by their position and their own features, whatever the name of their slice.

    Parameters
    ----------
    slices, features
        Where the ``m`` cells are, and their ``(m, d)`` features, not smoothed.
    known_slices, known_features
        The same of the ``n`` cells among which they are sought.

    Returns
    -------
    ``(m,)`` rows of the known cells, -1 for a cell that is none of them.
    """
    rows = np.full(len(slices), -1)
    if slices.coordinates.shape[1] != known_slices.coordinates.shape[1]:
        return rows
    axes = list(range(slices.coordinates.shape[1]))
    # Single precision, as coordinates may have been written in it.
    tables = [pd.DataFrame(each.coordinates.astype(np.float32)) for each in (slices, known_slices)]
    tables = [table.assign(row=np.arange(len(table))) for table in tables]
    pairs = tables[0].merge(tables[1], on=axes, suffixes=("", "_known"))
    here, there = pairs["row"].to_numpy(), pairs["row_known"].to_numpy()
    tolerance = SAME_FEATURES * np.maximum(np.linalg.norm(features, axis=1), 1e-3)
    same = np.linalg.norm(features[here] - known_features[there], axis=1) <= tolerance[here]
    here, there = here[same][::-1], there[same][::-1]
    rows[here] = there  # the first of several, as the last assignment counts
    return rows


def select(slices: Slices, rows: np.ndarray) -> Slices:
    """Where some of the cells are."""
    return replace(slices, coordinates=slices.coordinates[rows], samples=slices.samples[rows])
