"""The placement of requested cells among the cells of a reference, from which the network encodes them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from .adjacency import ALL, Rows
from .neighbors import Neighbors


@dataclass(frozen=True)
class Surroundings:
    """The slices of tissue that contain new cells.

    Attributes
    ----------
    features
        ``(a, d)`` smoothed features of all cells of these slices, float32.
    graph
        ``(a, a)`` spatial graph of these cells.
    neighbors
        Nearest cells of the reference to each of these cells, if the model joins similar cells; else ``None``.
    modality_weights
        ``(a, M)`` modality weights of these cells.
    positions
        ``(m',)`` rows of the new cells among these cells.
    """

    features: np.ndarray
    graph: sp.csr_array
    neighbors: Neighbors | None
    modality_weights: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True, eq=False)
class Placement:
    """The positions of ``m`` cells among the ``n`` cells of a reference.

    Attributes
    ----------
    reference_index
        ``(m,)`` row of each cell in the reference, -1 for a new one.
    features
        ``(m', d)`` features of the new cells, in their order, float32.
    neighbors
        The nearest cells of the reference to the new cells; ``None`` if they are not needed, as in space.
    modality_weights
        ``(m', M)`` modality weights of the new cells; rows sum to 1.
    surroundings
        In space, the slices of the new cells; ``None`` without coordinates or new cells.
    """

    reference_index: np.ndarray
    features: np.ndarray
    neighbors: Neighbors | None
    modality_weights: np.ndarray
    surroundings: Surroundings | None = None

    @property
    def new(self) -> np.ndarray:
        """``(m,)`` number of each cell among the new cells, -1 for a cell of the reference."""
        new = self.reference_index < 0
        return np.where(new, np.cumsum(new) - 1, -1)


@dataclass(frozen=True)
class Query:
    """Cells that are asked for.

    Attributes
    ----------
    placement
        Positions of these cells, or of these and others, among the cells of the reference.
    rows
        ``(m,)`` rows of the placement that are asked for; all by default.
    """

    placement: Placement
    rows: Rows = field(default_factory=lambda: ALL)

    @cached_property
    def reference_index(self) -> np.ndarray:
        """``(m,)`` row of each cell in the reference, -1 for a new one."""
        return self.placement.reference_index[self.rows]

    @cached_property
    def new(self) -> np.ndarray:
        """``(m',)`` number of each new cell that is asked for among the new ones of the placement."""
        return self.placement.new[self.rows][self.reference_index < 0]

    def combine(self, reference_values: np.ndarray, new_values: Callable[[], np.ndarray]) -> np.ndarray:
        """Values of the cells, from those ``(n, ...)`` of the reference and, if any cell is new, ``(m', ...)`` of the new."""
        values = reference_values[self.reference_index]
        if len(self.new):
            values[self.reference_index < 0] = new_values()
        return values
