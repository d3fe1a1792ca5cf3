"""How far modalities agree, and how much each is to be trusted for each cell, over plain arrays.

Weighted-nearest-neighbour analysis (Hao et al., Cell 2021) weighs a modality by how well its neighbours predict the
profile of the cell in it, relative to the neighbours by another. A modality of noise then keeps a large weight, as its
neighbours were chosen for being near in that same noise, and one whose cells were permuted even gains, as no other
predicts it. Here a modality counts by what its neighbours predict in the *others*, and in one half of its own
features from the other half: by nothing that took part in choosing them.

Notation: ``n`` cells, ``M`` modalities, ``s_m`` features of modality ``m``; all rows have unit length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from sklearn.preprocessing import normalize

from scrcl.graph.neighbors import Neighbors, nearest_neighbors

#: Added to all agreements, so that weights are positive, and equal where nothing agrees with anything.
LEAST_TRUST = 0.01
#: Cells on which the structure of a modality is measured, if there are more.
STRUCTURE_CELLS = 5_000


@dataclass(frozen=True)
class Agreement:
    """How well the neighbours of each cell in one modality predict it in another.

    Attributes
    ----------
    gains
        ``(n, M, M)`` float32. ``[i, s, t]``: mean cosine in modality ``t`` of cell ``i`` and its neighbours in modality
        ``s``, less that of cell ``i`` and all cells.
    structure
        ``(M,)`` how well the neighbours by one half of the features of a modality predict the other half: 0 for noise,
        at most 1.
    neighbors
        Neighbours of the cells in each modality.
    """

    gains: np.ndarray
    structure: np.ndarray
    neighbors: Sequence[Neighbors]

    @classmethod
    def fit(cls, features: Sequence[np.ndarray], n_neighbors: int, structure: Sequence[float]) -> Self:
        """Find neighbours by the features ``(n, s_m)`` of each modality and see what they predict in all.

        The structure of each modality is from :func:`own_structure`.
        """
        neighbors = [nearest_neighbors(own, n_neighbors) for own in features]
        return cls(_gains(features, features, neighbors), np.asarray(structure), neighbors)

    @cached_property
    def pairwise(self) -> np.ndarray:
        """``(n, M, M)`` share of what the neighbours in ``t`` predict in ``t`` that those in ``s`` do, from 0 to 1.

        Averaged, numerator and denominator, over the cell and its neighbours in ``s``, as one cell says little.
        """
        return self._share(self.gains, self.neighbors)

    @cached_property
    def weights(self) -> np.ndarray:
        """``(n, M)`` weights of the modalities, positive; rows sum to 1."""
        return trust(self.pairwise, self.structure)

    @property
    def overall(self) -> np.ndarray:
        """``(M, M)`` mean agreement over all cells, the structure of each modality on the diagonal."""
        return _with_diagonal(self.pairwise.mean(0), self.structure)

    def weights_of(
        self, features: Sequence[np.ndarray], queries: Sequence[np.ndarray], neighbors: Sequence[Neighbors]
    ) -> np.ndarray:
        """Weights ``(m, M)`` of query cells, each by itself, from their neighbours by each modality among the ``n`` cells."""
        return trust(self._share(_gains(features, queries, neighbors), neighbors), self.structure)

    def to_dict(self) -> dict[str, Any]:
        """Plain arrays; distances of neighbours are of no use later."""
        neighbors = [near.indices.astype(np.int32) for near in self.neighbors]
        return {"gains": self.gains, "structure": self.structure, "neighbors": neighbors}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        indices = [near.astype(np.int64) for near in state["neighbors"]]
        neighbors = [Neighbors(near, np.zeros(near.shape, np.float32), len(near)) for near in indices]
        return cls(state["gains"], state["structure"], neighbors)

    def _share(self, gains: np.ndarray, neighbors: Sequence[Neighbors]) -> np.ndarray:
        share = np.empty_like(gains)
        for source, near in enumerate(neighbors):
            around = near.to_sparse()
            for target in range(len(neighbors)):
                predicted = gains[:, source, target] + around @ self.gains[:, source, target]
                own = gains[:, target, target] + around @ self.gains[:, target, target]
                share[:, source, target] = np.clip(predicted / np.maximum(own, 1e-6), 0, 1)
        return share


def trust(pairwise: np.ndarray, structure: np.ndarray) -> np.ndarray:
    r"""Weights ``(n, M)`` of modalities, from their agreements ``(n, M, M)`` and the structure ``(M,)`` of each.

    A modality is trusted as far as its neighbours predict what is to be trusted: :math:`w_s \propto \sum_t T_{st} w_t`,
    with the agreements :math:`T_{st}` of the cell and the structure of each modality as :math:`T_{ss}`. This is the
    leading eigenvector of a positive matrix. Where modalities agree, they share the weight; where one agrees with none
    of the others, it goes to these; of two that contradict each other, it goes to the one with more structure.
    """
    values, vectors = np.linalg.eig(_with_diagonal(pairwise, structure).astype(np.float64) + LEAST_TRUST)
    leading = np.take_along_axis(vectors, values.real.argmax(1)[:, None, None], 2)[..., 0]
    weights = np.abs(leading.real)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def own_structure(features: Sequence[np.ndarray], n_neighbors: int) -> float:
    """How well neighbours by one half of the columns predict the other half: 0 for noise, at most 1.

    Of several arrays ``(n, d_i)``, none with two columns of the same values, the one with most structure counts.
    """
    rows = np.random.default_rng(0).permutation(len(features[0]))[:STRUCTURE_CELLS]
    found = [0.0]
    for columns in features:
        halves = [normalize(columns[rows, half::2]) for half in (0, 1) if columns.shape[1] > 1]
        if halves:
            shares = Agreement.fit(halves, min(n_neighbors, len(rows) - 1), (1.0, 1.0)).pairwise
            found.append(float(shares[:, 0, 1].mean() + shares[:, 1, 0].mean()) / 2)
    return max(found)


def join(features: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    r"""Features ``(n, s_m)`` of the modalities side by side, ``(n, s)`` float32, rows of unit length.

    The cosine of two cells is the sum of their cosines by modality, weighted by :math:`\sqrt{w_{im} w_{jm}}`.
    """
    parts = [np.sqrt(weight)[:, None] * own for weight, own in zip(weights.T, features, strict=True)]
    return np.concatenate(parts, 1).astype(np.float32)


def _with_diagonal(matrices: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    matrices = matrices.copy()
    every = np.arange(len(diagonal))
    matrices[..., every, every] = diagonal
    return matrices


def _gains(features: Sequence[np.ndarray], queries: Sequence[np.ndarray], neighbors: Sequence[Neighbors]) -> np.ndarray:
    """What the neighbours of query cells among the cells, by each modality, predict in each, ``(m, M, M)``."""
    gains = np.empty((len(queries[0]), len(features), len(features)), dtype=np.float32)
    for target, (known, own) in enumerate(zip(features, queries, strict=True)):
        mean = known.mean(0)
        for source, near in enumerate(neighbors):
            predicted = near.to_sparse() @ known / near.indices.shape[1]
            gains[:, source, target] = np.einsum("ij,ij->i", own, predicted - mean)
    return gains
