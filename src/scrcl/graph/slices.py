"""Coordinates of cells in one or several slices of tissue.

Slices (samples) may overlap in their coordinates; no edge joins two of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from scrcl.utils.errors import ScrclValueError
from scrcl.utils.names import as_names
from scrcl.utils.words import counted

from .neighbors import without_itself
from .recognition import named_rows, same_features

#: Name of a single slice.
NO_SAMPLES = "all cells"
#: Most cells at one position; with more, coordinates are probably missing.
MAX_CELLS_AT_POSITION = 1000
#: Largest slice whose cells may all be at one position.
MAX_CELLS_OF_POINT = 10


@dataclass(frozen=True)
class Slices:
    """Coordinates of cells by slice.

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
        """Name and rows of each slice, in the order of their coordinates, so that results do not depend on the order of cells."""
        order = np.lexsort((*self.coordinates.T[::-1], self.samples))
        ends = np.searchsorted(self.samples[order], np.arange(len(self.names) + 1))
        for name, start, end in zip(self.names, ends[:-1], ends[1:], strict=True):
            if end > start:
                yield name, order[start:end]

    @property
    def disjoint_coordinates(self) -> np.ndarray:
        """Coordinates ``(n, d + 1)``, float32, with slices far from each other along an additional axis."""
        extent = float(np.ptp(self.coordinates, axis=0).max()) if len(self) else 0.0
        separation = self.samples * (10 * extent + 1)
        return np.column_stack([self.coordinates - self.coordinates.mean(0), separation]).astype(np.float32)

    def select(self, rows: np.ndarray) -> Self:
        """The coordinates of some cells."""
        return replace(self, coordinates=self.coordinates[rows], samples=self.samples[rows])


def read_slices(coordinates: ArrayLike, samples: ArrayLike | None, where: str, samples_where: str) -> Slices:
    """Check coordinates, ``(n, 2)`` or ``(n, 3)``, and the names ``(n,)`` of the slices, ``None`` for a single one.

    Refused are coordinates that are not finite numbers, or the same for very many cells of a slice, and cells without a slice.
    Messages say where they are in the data.
    """
    try:
        if isinstance(coordinates, sp.sparray | sp.spmatrix):
            coordinates = coordinates.toarray()
        if np.ma.isMaskedArray(coordinates):
            coordinates = np.ma.filled(coordinates.astype(np.float64), np.nan)
        positions: np.ndarray = np.array(coordinates, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ScrclValueError(
            f"{where} holds values other than numbers.", "Put x and y coordinates there.", where=where
        ) from error
    if positions.ndim != 2 or positions.shape[1] not in (2, 3):
        raise ScrclValueError(
            f"{where} has the shape {positions.shape}, not two or three columns.",
            "Put x and y, or x, y and z there.",
            where=where,
        )
    bad = ~np.isfinite(positions).all(axis=1)
    if bad.any():
        raise ScrclValueError(
            f"{where} holds NaN or infinite coordinates for {bad.sum():,} of {counted(len(positions), 'cell')}.",
            f"Remove these cells first: `adata = adata[np.isfinite({where}).all(axis=1)].copy()`.",
            command="Remove these cells from the file first.",
            where=where,
        )
    if samples is None:
        names: tuple[str, ...] = (NO_SAMPLES,)
        codes = np.zeros(len(positions), dtype=np.int64)
    else:
        codes, distinct = pd.factorize(as_names(samples))
        if (codes < 0).any():
            raise ScrclValueError(
                f"{samples_where} is missing for {counted((codes < 0).sum(), 'cell')}.",
                "Name the slice of every cell, or remove these cells.",
                where=samples_where,
            )
        names = tuple(distinct)
    slices = Slices(positions, codes.astype(np.int64), names)
    for name, rows in slices:
        position, count = np.unique(positions[rows], axis=0, return_counts=True)
        most = int(np.argmax(count))
        if count[most] > MAX_CELLS_AT_POSITION or MAX_CELLS_OF_POINT < len(rows) == count[most]:
            raise ScrclValueError(
                f"{where} holds the same position, {position[most].tolist()}, for {counted(count[most], 'cell')} of {describe(name)}, "
                "so their coordinates are probably missing.",
                "Remove these cells, or pass their coordinates.",
                where=where,
            )
    return slices


def describe(name: str) -> str:
    """The description of a slice in messages."""
    return f"the slice {name!r}" if name != NO_SAMPLES else "the data"


def nearest_in_space(points: np.ndarray, n_neighbors: int, rows: np.ndarray | None = None) -> np.ndarray:
    """The nearest neighbours ``(m, k)`` of some of the points ``(n, 2)``, without the point itself even if points coincide."""
    rows = np.arange(len(points)) if rows is None else rows
    neighbors = cKDTree(points).query(points[rows], n_neighbors + 1)[1].reshape(len(rows), -1)
    return neighbors[without_itself(neighbors, rows)].reshape(len(rows), n_neighbors)


def overlap(points: np.ndarray, groups: np.ndarray) -> float:
    """How far groups of points ``(n, d)`` lie over each other: near 1 at random positions, 0 for groups beside each other.

    The share of points whose nearest point is of another group, relative to that expected of random groups. ``groups`` ``(n,)``
    are numbered from 0, negative for none.
    """
    points, groups = points[groups >= 0], groups[groups >= 0]
    expected = 1 - ((np.bincount(groups) / max(len(groups), 1)) ** 2).sum()
    if len(points) < 2 or expected <= 0:
        return 0.0
    nearest = nearest_in_space(points, 1)[:, 0]
    return float((groups[nearest] != groups).mean() / expected)


def majority(labels: np.ndarray, slices: Slices, n_neighbors: int) -> np.ndarray:
    """The most frequent label ``(n,)`` of each cell and its nearest cells; of equally frequent ones, that of the cell.

    Labels ``(n,)`` are numbered from 0. Neighbours are in the same slice; a slice with fewer cells has fewer.
    """
    result = labels.copy()
    n_labels = int(labels.max()) + 1 if len(labels) else 0
    for _, rows in slices:
        slice_labels, cells = labels[rows], np.arange(len(rows))
        k = min(n_neighbors, len(rows) - 1)
        if k == 0:
            continue
        neighbors = nearest_in_space(slices.coordinates[rows], k)
        votes = np.zeros((len(rows), n_labels))
        np.add.at(votes, (cells[:, None], slice_labels[neighbors]), 1)
        votes[cells, slice_labels] += 1.5  # its own vote, and half a vote that decides between equals
        result[rows] = votes.argmax(1)
    return result


def find_cells(
    slices: Slices,
    features: np.ndarray,
    known_slices: Slices,
    known_features: np.ndarray,
    names: pd.Index | None = None,
    known_names: pd.Index | None = None,
) -> np.ndarray:
    """Find known cells by position and features ``(m, d)``, not smoothed, in any slice.

    Returns rows ``(m,)`` among the ``n`` known cells, -1 for other cells. Of several equal cells, the one with the same
    name or else the first.
    """
    rows = np.full(len(slices), -1)
    if slices.coordinates.shape[1] != known_slices.coordinates.shape[1]:
        return rows
    axes = list(range(slices.coordinates.shape[1]))
    # Coordinates may have been saved in single precision.
    tables = [pd.DataFrame(s.coordinates.astype(np.float32)) for s in (slices, known_slices)]
    tables = [table.assign(row=np.arange(len(table))) for table in tables]
    pairs = tables[0].merge(tables[1], on=axes, suffixes=("", "_known"))
    cells, known = pairs["row"].to_numpy(), pairs["row_known"].to_numpy()
    same = same_features(features[cells], known_features[known])
    cells, known = cells[same][::-1], known[same][::-1]
    rows[cells] = known  # the last assignment, of the first of several, remains
    if names is not None:
        named = named_rows(known_names, names)[cells] == known
        rows[cells[named]] = known[named]
    return rows
