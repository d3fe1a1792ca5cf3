"""Graphs over coordinates, without dense arrays of cells by cells."""

import warnings
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
import scipy.sparse as sp
from scipy.spatial import Delaunay, QhullError, cKDTree
from scvi import settings

from scrcl.utils.errors import ScrclValueError, ScrclWarning
from scrcl.utils.words import counted

from .adjacency import edge_graph
from .slices import Slices, describe, nearest_in_space

SpatialGraph = Literal["knn", "radius", "delaunay", "grid"]
SPATIAL_GRAPHS = get_args(SpatialGraph)
#: Largest mean number of neighbours; with more, the radius is far too large.
MAX_MEAN_NEIGHBORS = 500
#: Distance up to which spots of a grid are adjacent, relative to the spacing. On a square grid the diagonal is at 1.41,
#: on a hexagonal one the second ring at 1.73.
GRID_REACH = 1.2
#: Distance of smoothing, relative to the spacing, below which hardly anything is smoothed.
MIN_REACH = 0.5
#: Factor between the spacings of slices above which their coordinates are probably in different units.
OTHER_UNIT = 10
#: Rows of the Visium arrays of 6.5 and of 11 mm.
VISIUM_ROWS = (78, 128)


@dataclass(frozen=True)
class SpatialOptions:
    """Options of the spatial graph and of smoothing over it.

    Attributes
    ----------
    kind, n_neighbors, radius
        The graph, as in :func:`spatial_graph`.
    smoothing
        Strength of smoothing, as in :func:`~scrcl.graph.smoothing.smooth`; None for that of
        :func:`~scrcl.graph.smoothing.chosen_steps`.
    joined
        Whether the spatial graph is joined to a graph of similar cells.
    smoothing_length
        Distance over which features are smoothed, in the unit of the coordinates, instead of the strength.
    micrometers_per_unit
        Scale of the coordinates, if the distance was given in micrometres.
    """

    kind: SpatialGraph = "knn"
    n_neighbors: int = 6
    radius: float | None = None
    smoothing: float | None = None
    joined: bool = False
    smoothing_length: float | None = None
    micrometers_per_unit: float | None = None

    def graph(self, slices: Slices) -> sp.csr_array:
        """The spatial graph of these cells."""
        return spatial_graph(slices, self.kind, self.n_neighbors, self.radius)

    def check_length(self, slices: Slices) -> None:
        """Raise ScrclValueError for a distance that is longer than any of these slices, and warn of one that reaches no cell."""
        length = self.smoothing_length
        if length is None or len(slices) == 0:
            return
        scale, unit = (1.0, "units") if self.micrometers_per_unit is None else (self.micrometers_per_unit, "µm")
        extent = max(np.linalg.norm(np.ptp(slices.coordinates[rows], axis=0)) for _, rows in slices)
        spacing = _typical_spacing(slices)
        asked, typical = f"spatial_smoothing='{scale * length:g} {unit}'", f"typically at {scale * spacing:.3g} {unit}"
        if length > extent > 0:
            raise ScrclValueError(
                f"{asked} is longer than the slice, of {scale * extent:.3g} {unit}.",
                f"Pass a shorter distance; the nearest cell is {typical}.",
            )
        if length < MIN_REACH * spacing:
            warnings.warn(
                ScrclWarning(
                    f"{asked} hardly smooths: the nearest cell is {typical}.",
                    "Check the unit of the coordinates, or pass `spatial_smoothing=0` for no smoothing.",
                    command="Check the unit of the coordinates.",
                ),
                stacklevel=settings.warnings_stacklevel,
            )

    def check_unit(self, known: Slices, new: Slices) -> None:
        """Warn of new slices whose coordinates are probably in another unit than the known ones, if a distance is smoothed over."""
        if self.smoothing_length is None or len(new) == 0:
            return
        spacings = _typical_spacing(known), _typical_spacing(new)
        if max(spacings) > OTHER_UNIT * min(spacings):
            warnings.warn(
                ScrclWarning(
                    f"The nearest cell is typically at {spacings[1]:.3g} units in the new slices, but at {spacings[0]:.3g} in the slices of "
                    f"the model, which smooths over {self.smoothing_length:.3g} units.",
                    "If their coordinates are in another unit, convert them.",
                ),
                stacklevel=settings.warnings_stacklevel,
            )

    def changed(self) -> list[str]:
        """Names of the options that differ from their defaults."""
        return [name for name, value in asdict(self).items() if value != getattr(SpatialOptions, name)]


def spatial_graph(
    slices: Slices, kind: SpatialGraph = "knn", n_neighbors: int = 6, radius: float | None = None
) -> sp.csr_array:
    """Join cells that are close to each other; the arguments are as in :class:`scrcl.SCRCL`.

    A spot of a grid has six adjacent ones on the hexagonal grid of Visium, whether in pixels or as rows and columns of its
    array, and four on a square one. A slice with too few cells or cells on a line, and a radius that is missing or far too
    large, are refused.

    Returns a binary, symmetric ``(n, n)`` graph without self loops, block-diagonal by slice. Except with ``kind="knn"``, cells
    may have no neighbours.
    """
    if kind == "radius" and radius is None:
        raise ScrclValueError(
            "spatial_graph='radius' requires a radius.", "Pass `radius`, in the unit of the coordinates."
        )
    edges = []
    for name, rows in slices:
        points = slices.coordinates[rows]
        if kind == "knn":
            pairs = _nearest(points, n_neighbors, name)
        elif kind == "radius":
            assert radius is not None
            pairs = _within(points, radius, name)
        elif kind == "delaunay":
            pairs = _triangulate(points, radius, name)
        else:
            pairs = _adjacent_spots(points, name)
        edges.append(rows[pairs])
    ends = np.concatenate(edges) if edges else np.empty((0, 2), np.int64)
    return edge_graph(ends.T, len(slices))


def _nearest(points: np.ndarray, n_neighbors: int, name: str) -> np.ndarray:
    n = len(points)
    if n <= n_neighbors:
        fewer = f", or build the model with `n_spatial_neighbors={n - 1}` or fewer" if n > 1 else ""
        raise ScrclValueError(
            f"n_spatial_neighbors={n_neighbors} requires at least {n_neighbors + 1} cells in each slice, but there are {n} in "
            f"{describe(name)}.",
            f"Pass all cells of the slice (for results of some, pass `indices`), or leave the slice out{fewer}.",
            command="Leave the slice out, or pass all of its cells.",
        )
    return np.column_stack([np.repeat(np.arange(n), n_neighbors), nearest_in_space(points, n_neighbors).ravel()])


def _within(points: np.ndarray, radius: float, name: str) -> np.ndarray:
    tree = cKDTree(points)
    mean = tree.count_neighbors(tree, radius) / len(points) - 1
    if mean > MAX_MEAN_NEIGHBORS:
        raise ScrclValueError(
            f"radius={radius:g} joins a cell of {describe(name)} to {mean:,.0f} others on average.",
            f"Pass a smaller radius; the nearest cell is typically at {_spacing(points):.3g}.",
        )
    return tree.query_pairs(radius, output_type="ndarray")


def _triangulate(points: np.ndarray, radius: float | None, name: str) -> np.ndarray:
    """Edges of the triangulation of the positions. Cells at one position are joined to each other and to all adjacent cells.

    A coordinate that is the same everywhere, such as z of a flat slice, is ignored.
    """
    positions, position = np.unique(points, axis=0, return_inverse=True)
    try:
        simplices = Delaunay(positions[:, np.ptp(positions, axis=0) > 0]).simplices
    except (QhullError, ValueError) as error:
        raise ScrclValueError(
            f"spatial_graph='delaunay' cannot triangulate {describe(name)}: {counted(len(points), 'cell is', 'cells are')} too few or on a "
            "line.",
            "Pass `spatial_graph='knn'`, or leave this slice out.",
            command="Leave this slice out.",
        ) from error
    corners = simplices.shape[1]
    pairs = np.concatenate([simplices[:, [i, j]] for i in range(corners) for j in range(i)])
    if radius is not None:
        pairs = pairs[np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1) <= radius]
    n, m = len(points), len(positions)
    member = sp.csr_array((np.ones(n, np.float32), (np.arange(n), position.ravel())), shape=(n, m))
    return np.column_stack((member @ (edge_graph(pairs.T, m) + sp.eye_array(m, dtype=np.float32)) @ member.T).nonzero())


def _adjacent_spots(points: np.ndarray, name: str) -> np.ndarray:
    points = _unfold_visium(points)
    return _within(points, GRID_REACH * _spacing(points), name) if len(points) > 1 else np.empty((0, 2), np.int64)


def _unfold_visium(points: np.ndarray) -> np.ndarray:
    """Convert rows and columns of a Visium array to positions on a regular grid; return other positions unchanged.

    Only every other column of a row has a spot, so row and column are both even or both odd.
    """
    if points.shape[1] != 2 or (points != np.round(points)).any():
        return points
    row, column = points.T
    if len(np.unique((row + column) % 2)) > 1 or len(np.unique(row % 2)) == 1:
        return points
    if row.max() >= VISIUM_ROWS[1] or row.max() >= VISIUM_ROWS[0] > column.max():  # columns come first
        row, column = column, row
    return np.column_stack([row * np.sqrt(3), column])


def _typical_spacing(slices: Slices) -> float:
    """The median distance of nearest positions in a typical slice."""
    return float(np.median([_spacing(slices.coordinates[rows]) for _, rows in slices]))


def _spacing(points: np.ndarray) -> float:
    """The median distance of nearest positions."""
    positions = np.unique(points, axis=0)
    return float(np.median(cKDTree(positions).query(positions, 2)[0][:, 1])) if len(positions) > 1 else 0.0
