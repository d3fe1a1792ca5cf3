"""Where cells are: coordinates in one or several slices of tissue.

Slices (samples) may overlap in their coordinates; nothing passes between them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.spatial import cKDTree

from scrcl.utils.errors import ScrclValueError
from scrcl.utils.names import as_names

from .neighbors import without_itself
from .recognition import named_rows, same_features

#: Name of the slice where there is only one.
NO_SAMPLES = "all cells"
#: Cells at one position above which their coordinates are taken for missing.
MAX_CELLS_AT_POSITION = 1000


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
    def disjoint_coordinates(self) -> np.ndarray:
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

    def select(self, rows: np.ndarray) -> Self:
        """Where some of the cells are."""
        return replace(self, coordinates=self.coordinates[rows], samples=self.samples[rows])


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
            f"{where} holds NaN or infinite coordinates for {bad.sum():,} of {len(positions):,} cells.",
            f"Remove these cells first: `adata = adata[np.isfinite({where}).all(axis=1)].copy()`.",
            command="Remove these cells from the file first.",
            where=where,
        )
    if samples is None:
        names: tuple[str, ...] = (NO_SAMPLES,)
        codes = np.zeros(len(positions), dtype=np.int64)
    else:
        codes, found = pd.factorize(as_names(samples))
        if (codes < 0).any():
            raise ScrclValueError(
                f"{samples_where} is missing for {(codes < 0).sum():,} cells.",
                "Name the slice of every cell, or remove these cells.",
                where=samples_where,
            )
        names = tuple(found)
    slices = Slices(positions, codes.astype(np.int64), names)
    for name, rows in slices:
        position, count = np.unique(positions[rows], axis=0, return_counts=True)
        most = int(np.argmax(count))
        if count[most] > MAX_CELLS_AT_POSITION:
            raise ScrclValueError(
                f"{where} holds the same position, {position[most].tolist()}, for {count[most]:,} cells of {describe(name)}, "
                "so their coordinates are probably missing.",
                "Remove these cells, or pass their coordinates.",
                where=where,
            )
    return slices


def describe(name: str) -> str:
    """What a slice is called in messages."""
    return f"the slice {name!r}" if name != NO_SAMPLES else "the data"


def nearest_in_space(points: np.ndarray, n_neighbors: int) -> np.ndarray:
    """The ``(n, k)`` nearest of points ``(n, 2)``, none being its own neighbour even where several are at one position."""
    n = len(points)
    found = cKDTree(points).query(points, n_neighbors + 1)[1].reshape(n, -1)
    return found[without_itself(found, np.arange(n))].reshape(n, n_neighbors)


def majority(labels: np.ndarray, slices: Slices, n_neighbors: int) -> np.ndarray:
    """The label that most of a cell and its nearest cells have; its own where that is among the most frequent, ``(n,)``.

    Labels ``(n,)`` are numbered from 0. Only cells of the same slice count; all, in a slice with fewer.
    """
    result = labels.copy()
    n_labels = int(labels.max()) + 1 if len(labels) else 0
    for _, rows in slices:
        own = labels[rows]
        k = min(n_neighbors, len(rows) - 1)
        if k == 0:
            continue
        near = nearest_in_space(slices.coordinates[rows], k)
        mnn_pairs = sp.csr_array((np.ones(near.size), (np.repeat(np.arange(len(rows)), k), own[near].ravel())))
        votes = np.zeros((len(rows), n_labels))
        votes[:, : mnn_pairs.shape[1]] = mnn_pairs.toarray()
        votes[np.arange(len(rows)), own] += 1.5  # its own vote, and half a vote more that decides between equals
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
    """Find cells again by position and by features ``(m, d)``, not smoothed, whatever the name of their slice.

    Of several that are the same, the one with the same name, or else the first. ``(m,)`` rows among the ``n`` known cells, -1
    for a cell that is none of them.
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
    same = same_features(features[here], known_features[there])
    here, there = here[same][::-1], there[same][::-1]
    rows[here] = there  # the first of several, as the last assignment counts
    if names is not None:
        named = named_rows(known_names, names)[here] == there
        rows[here[named]] = there[named]
    return rows
