"""Where cells lie among those of a reference: what a network needs to know of cells that are asked for."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from .neighbors import Neighbors


@dataclass(frozen=True)
class Surroundings:
    """The slices of tissue in which new cells lie.

    Attributes
    ----------
    features
        ``(a, d)`` smoothed features of all cells of these slices, float32.
    graph
        ``(a, a)`` spatial graph of these cells.
    neighbors
        Nearest cells of the reference to each of them, where the model joins cells to similar ones; else ``None``.
    modality_weights
        ``(a, M)`` their weights of the modalities.
    positions
        ``(m',)`` rows of the new cells among them.
    """

    features: np.ndarray
    graph: sp.csr_array
    neighbors: Neighbors | None
    modality_weights: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True, eq=False)
class Placement:
    """Where ``m`` cells lie among the ``n`` cells of a reference.

    Attributes
    ----------
    reference_index
        ``(m,)`` row of each cell in the reference, -1 for a new one.
    features
        ``(m', d)`` features of the new ones, in their order, float32.
    neighbors
        The nearest cells of the reference to the new ones; ``None`` where nothing asks for them, as in space.
    modality_weights
        ``(m', M)`` weights of the modalities of the new ones; rows sum to 1.
    surroundings
        In space, the slices of the new ones; ``None`` elsewhere, and where no cell is new.
    """

    reference_index: np.ndarray
    features: np.ndarray
    neighbors: Neighbors | None
    modality_weights: np.ndarray
    surroundings: Surroundings | None = None

    @property
    def new(self) -> np.ndarray:
        """``(m,)`` number of each cell among the new ones, -1 for a cell of the reference."""
        new = self.reference_index < 0
        return np.where(new, np.cumsum(new) - 1, -1)
