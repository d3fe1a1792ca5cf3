"""Positions of the cells of a model in space."""

from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scrcl.graph.slices import Slices, find_cells
from scrcl.graph.smoothing import smooth
from scrcl.graph.spatial import SpatialOptions
from scrcl.utils.files import State


@dataclass(frozen=True)
class SpatialReference:
    """Positions of the cells of a model in space, and the smoothing over their neighbours.

    Attributes
    ----------
    slices
        Positions and slices of the ``n`` cells.
    features
        ``(n, D)`` features before smoothing, by which cells are recognised.
    kept
        ``(D,)`` mask of the features that vary in space, which the model reads.
    options
        Options of the graph and the smoothing.
    """

    slices: Slices
    features: np.ndarray
    kept: np.ndarray
    options: SpatialOptions

    def smooth(self, adjacency: sp.csr_array, features: np.ndarray) -> np.ndarray:
        """Smooth features ``(m, D)`` of cells over their spatial graph ``(m, m)``, and select those that are read, ``(m, d)``."""
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

    def to_dict(self) -> State:
        """Plain numbers and arrays."""
        state = {"slices": self.slices.to_dict(), "features": self.features, "kept": self.kept}
        return state | asdict(self.options)

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The inverse of :meth:`to_dict`."""
        state = dict(state)
        own = {name: state.pop(name) for name in ("features", "kept")}
        return cls(slices=Slices.from_dict(state.pop("slices")), options=SpatialOptions(**state), **own)
