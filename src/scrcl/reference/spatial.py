"""Positions of the cells of a model in space."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Self

import numpy as np
import scipy.sparse as sp

from scrcl.graph.neighborhoods import (
    azimuthal_gradient,
    neighbor_weights,
    neighborhood_mean,
    with_surroundings,
)
from scrcl.graph.slices import Slices
from scrcl.graph.smoothing import chosen_steps, smooth, steps_of_length
from scrcl.graph.spatial import SpatialOptions, spatial_graph
from scrcl.utils.files import State, from_state, to_state

#: Nearest cells over which features are averaged, per step of smoothing, and bounds of their number: 15 by default.
NEAR_CELLS, CELLS_RANGE = 1.5, (6, 150)
#: Nearest cells over which the gradient of features is measured, per cell over which they are averaged.
FAR = 2


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
        Options of the graph and the smoothing, of which either the strength or the length is given.
    """

    slices: Slices
    features: np.ndarray
    kept: np.ndarray
    options: SpatialOptions

    @classmethod
    def fit(
        cls,
        slices: Slices,
        adjacency: sp.csr_array,
        features: np.ndarray,
        kept: np.ndarray,
        options: SpatialOptions,
    ) -> Self:
        """Choose the strength of smoothing, if it isn't given: one for all slices, so that their features are alike."""
        if options.smoothing is None and options.smoothing_length is None:
            in_slices = [rows for _, rows in slices]
            centered = np.concatenate([features[rows][:, kept] - features[rows][:, kept].mean(0) for rows in in_slices])
            order = np.concatenate(in_slices)
            options = replace(options, smoothing=chosen_steps(adjacency[order][:, order], centered))
        return cls(slices, features, kept, options)

    def smooth(self, slices: Slices, adjacency: sp.csr_array, features: np.ndarray) -> np.ndarray:
        """Smooth features ``(m, D)`` of cells over their spatial graph ``(m, m)``, and select those that are read, ``(m, d)``."""
        features = features[:, self.kept]
        if self.options.smoothing_length is None:
            return smooth(adjacency, features, self.strength)
        smoothed = np.empty_like(features)
        for _, rows in slices:
            within = adjacency[rows][:, rows]
            steps = steps_of_length(slices.coordinates[rows], within, self.options.smoothing_length)
            smoothed[rows] = smooth(within, features[rows], steps)
        return smoothed

    @property
    def strength(self) -> float:
        """Mean number of steps of smoothing; of a length, the median of those over the nearest cells."""
        options = self.options
        if options.smoothing_length is None:
            assert options.smoothing is not None  # chosen by `fit`
            return options.smoothing
        graph = spatial_graph(self.slices, "knn", SpatialOptions.n_neighbors)
        return float(np.median(steps_of_length(self.slices.coordinates, graph, options.smoothing_length)))

    def domain_spaces(
        self, features: Sequence[np.ndarray], smoothed: Sequence[np.ndarray], cells: np.ndarray
    ) -> list[np.ndarray]:
        """Views ``(m, d_i)`` of some cells, in each of which domains are found; without those that do not vary.

        The features of a cell, the smoothed ones, the mean over the nearest cells, and all three of a cell, the mean of its
        surroundings and their gradient.

        Parameters
        ----------
        features
            ``(n, d_i)`` features of all cells before smoothing, of several kinds.
        smoothed
            ``(m, d_i)`` features of the requested cells after smoothing, of the same kinds.
        cells
            ``(m,)`` requested cells.
        """
        near_cells = int(np.clip(np.round(NEAR_CELLS * self.strength), *CELLS_RANGE))
        near, far = (neighbor_weights(self.slices, number, cells) for number in (near_cells, FAR * near_cells))
        spaces = []
        for own, smooth_ in zip(features, smoothed, strict=True):
            gradient = azimuthal_gradient(self.slices, far, own, cells)
            spaces += [
                own[cells],
                smooth_,
                neighborhood_mean(near, own, cells),
                with_surroundings(own[cells], near @ own, gradient),
            ]
        return [space for space in spaces if np.ptp(space, axis=0).any()]

    def to_dict(self) -> State:
        """Plain numbers and arrays, the options beside the others."""
        state = {"slices": to_state(self.slices), "features": self.features, "kept": self.kept}
        return state | asdict(self.options)

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The inverse of :meth:`to_dict`."""
        options = SpatialOptions(
            **{field.name: state[field.name] for field in fields(SpatialOptions) if field.name in state}
        )
        return cls(from_state(Slices, state["slices"]), state["features"], state["kept"], options)
