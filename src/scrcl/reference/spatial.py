"""Positions of the cells of a model in space."""

from dataclasses import asdict, dataclass, fields
from typing import Self

import numpy as np
import scipy.sparse as sp

from scrcl.graph.slices import Slices
from scrcl.graph.smoothing import smooth
from scrcl.graph.spatial import SpatialOptions
from scrcl.utils.files import State, from_state, to_state


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

    def to_dict(self) -> State:
        """Plain numbers and arrays, the options beside the others."""
        state = {"slices": to_state(self.slices), "features": self.features, "kept": self.kept}
        return state | asdict(self.options)

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The inverse of :meth:`to_dict`."""
        options = SpatialOptions(**{field.name: state[field.name] for field in fields(SpatialOptions)})
        return cls(from_state(Slices, state["slices"]), state["features"], state["kept"], options)
