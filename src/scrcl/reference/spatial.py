"""Where the cells of a model are in space."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scrcl.graph.slices import Slices, find_cells
from scrcl.graph.smoothing import smooth
from scrcl.graph.spatial import SpatialOptions


@dataclass(frozen=True)
class SpatialReference:
    """Where the cells of a model are in space, and how it sees them among their neighbours.

    Attributes
    ----------
    slices
        Where the ``n`` cells are.
    features
        ``(n, D)`` features before smoothing, by which cells are found again.
    kept
        ``(D,)`` which of them vary in space and are read.
    options
        The graph and the smoothing.
    """

    slices: Slices
    features: np.ndarray
    kept: np.ndarray
    options: SpatialOptions

    def smooth(self, adjacency: sp.csr_array, features: np.ndarray) -> np.ndarray:
        """Features ``(m, D)`` of cells with a spatial graph, as the model reads them, ``(m, d)``."""
        return smooth(adjacency, features[:, self.kept], self.options.smoothing)

    def find(
        self,
        slices: Slices,
        features: np.ndarray,
        names: pd.Index | None = None,
        known_names: pd.Index | None = None,
    ) -> np.ndarray:
        """Find cells among these by position and features ``(m, D)`` before smoothing: ``(m,)`` rows, -1 for others."""
        return find_cells(slices, features, self.slices, self.features, names, known_names)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and arrays."""
        state = {"slices": self.slices.to_dict(), "features": self.features, "kept": self.kept}
        return state | asdict(self.options)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        state = dict(state)
        own = {name: state.pop(name) for name in ("features", "kept")}
        return cls(slices=Slices.from_dict(state.pop("slices")), options=SpatialOptions(**state), **own)
