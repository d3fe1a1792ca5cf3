"""Labels of cells, and the cell graph without edges between different labels."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp

#: Predicted type of a cell that fits no type.
UNASSIGNED = "unassigned"
#: Code of a cell without a label.
NO_LABEL = -1


@dataclass(frozen=True)
class Labels:
    """Labels of some cells.

    Attributes
    ----------
    names
        Names of the ``C`` types that at least one cell is labelled with.
    codes
        ``(n,)`` number of the type of each cell, -1 for a cell without a label.
    """

    names: tuple[str, ...]
    codes: np.ndarray

    @classmethod
    def from_values(cls, values: np.ndarray) -> Self | None:
        """Labels by name ``(n,)``, ``None`` for a cell without one; ``None`` if no cell has any."""
        labelled = np.array([value is not None for value in values], dtype=bool)
        codes = np.full(len(values), NO_LABEL, dtype=np.int64)
        if not labelled.any():
            return None
        names, codes[labelled] = np.unique(values[labelled].astype(str), return_inverse=True)
        return cls(tuple(names.tolist()), codes)

    @property
    def labelled(self) -> np.ndarray:
        """``(n,)`` which cells have a label."""
        return self.codes != NO_LABEL

    def remove_conflicts(self, adjacency: sp.csr_array) -> sp.csr_array:
        """The graph ``(n, n)`` without edges between cells of different labels; edges of unlabelled cells stay."""
        edges = adjacency.tocoo()
        first, second = self.codes[edges.row], self.codes[edges.col]
        kept = (first == second) | (first == NO_LABEL) | (second == NO_LABEL)
        return sp.csr_array((edges.data[kept], (edges.row[kept], edges.col[kept])), shape=adjacency.shape)
