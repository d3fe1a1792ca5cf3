"""Agreement of modalities, and the weight of each for each cell, over plain arrays.

Weighted-nearest-neighbour analysis (Hao et al., Cell 2021) weighs a modality by how well its neighbours predict the
profile of the cell in it, relative to the neighbours by another. A modality of noise then keeps a large weight, as its
neighbours were chosen by that same noise, and a modality with permuted cells even gains weight, as no other predicts it.
Here a modality is weighted by how well its neighbours predict the *other* modalities, and one half of its own features
from the other half: always by features that were not used to choose the neighbours.

Notation: ``n`` cells, ``M`` modalities, ``s_m`` features of modality ``m``; all rows have unit length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from scrcl.graph.neighbors import Neighbors, nearest_neighbors, neighbor_matrix

#: Added to all agreements, so that weights are positive, and equal where nothing agrees with anything.
MIN_TRUST = 0.01
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
        ``(M,)`` how well neighbours in one half of the features of a modality predict the other half: 0 for noise, at most 1.
    neighbors
        ``(n, k)`` int32, rows of the neighbours of the cells in each modality.
    """

    gains: np.ndarray
    structure: np.ndarray
    neighbors: Sequence[np.ndarray]

    @classmethod
    def fit(cls, features: Sequence[np.ndarray], n_neighbors: int, structure: Sequence[float]) -> Self:
        """Find neighbours by the features ``(n, s_m)`` of each modality, and how well they predict every modality.

        The structure of each modality is from :func:`own_structure`.
        """
        neighbors = [nearest_neighbors(part, n_neighbors) for part in features]
        indices = [nearest.indices.astype(np.int32) for nearest in neighbors]
        return cls(_gains(features, features, neighbors), np.asarray(structure), indices)

    @cached_property
    def pairwise(self) -> np.ndarray:
        """``(n, M, M)`` share of what the neighbours in ``t`` predict in ``t`` that those in ``s`` do, from 0 to 1.

        Averaged, numerator and denominator, over the cell and its neighbours in ``s``, as one cell says little.
        """
        return self._share(self.gains, [neighbor_matrix(indices, len(indices)) for indices in self.neighbors])

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
        graphs = [nearest.to_sparse() for nearest in neighbors]
        return trust(self._share(_gains(features, queries, neighbors), graphs), self.structure)

    def _share(self, gains: np.ndarray, graphs: Sequence[sp.csr_array]) -> np.ndarray:
        share = np.empty_like(gains)
        for source, graph in enumerate(graphs):
            for target in range(len(graphs)):
                predicted = gains[:, source, target] + graph @ self.gains[:, source, target]
                highest = gains[:, target, target] + graph @ self.gains[:, target, target]
                share[:, source, target] = np.clip(predicted / np.maximum(highest, 1e-6), 0, 1)
        return share


def trust(pairwise: np.ndarray, structure: np.ndarray) -> np.ndarray:
    r"""Weights ``(n, M)`` of modalities, from their agreements ``(n, M, M)`` and the structure ``(M,)`` of each.

    The weight of a modality increases with how well its neighbours predict modalities of high weight: :math:`w_s \propto \sum_t T_{st} w_t`,
    with the agreements :math:`T_{st}` of the cell and the structure of each modality as :math:`T_{ss}`. This is the
    leading eigenvector of a positive matrix. Modalities that agree share the weight; a modality that agrees with no other
    has little; of two that contradict each other, the one with more structure has most of it.
    """
    values, vectors = np.linalg.eig(_with_diagonal(pairwise, structure).astype(np.float64) + MIN_TRUST)
    leading = np.take_along_axis(vectors, values.real.argmax(1)[:, None, None], 2)[..., 0]
    weights = np.abs(leading.real)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def own_structure(features: Sequence[np.ndarray], n_neighbors: int) -> float:
    """How well neighbours in one half of the columns predict the other half: 0 for noise, at most 1.

    Returns the maximum over arrays ``(n, d_i)``, none of which may have two columns of the same values.
    """
    rows = np.random.default_rng(0).permutation(len(features[0]))[:STRUCTURE_CELLS]
    structure = [0.0]
    for columns in features:
        halves = [normalize(columns[rows, half::2]) for half in (0, 1) if columns.shape[1] > 1]
        if halves:
            shares = Agreement.fit(halves, min(n_neighbors, len(rows) - 1), (1.0, 1.0)).pairwise
            structure.append(float(shares[:, 0, 1].mean() + shares[:, 1, 0].mean()) / 2)
    return max(structure)


def join(features: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    r"""Features ``(n, s_m)`` of the modalities side by side, ``(n, s)`` float32, rows of unit length.

    The cosine of two cells is the sum of their cosines by modality, weighted by :math:`\sqrt{w_{im} w_{jm}}`.
    """
    parts = [np.sqrt(weight)[:, None] * part for weight, part in zip(weights.T, features, strict=True)]
    return np.concatenate(parts, 1).astype(np.float32)


def _with_diagonal(matrices: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    matrices = matrices.copy()
    index = np.arange(len(diagonal))
    matrices[..., index, index] = diagonal
    return matrices


def _gains(features: Sequence[np.ndarray], queries: Sequence[np.ndarray], neighbors: Sequence[Neighbors]) -> np.ndarray:
    """Gains ``(m, M, M)`` of query cells from their neighbours among the cells, as in :class:`Agreement`."""
    gains = np.empty((len(queries[0]), len(features), len(features)), dtype=np.float32)
    for target, (points, query) in enumerate(zip(features, queries, strict=True)):
        mean = points.mean(0)
        for source, nearest in enumerate(neighbors):
            predicted = nearest.to_sparse() @ points / nearest.indices.shape[1]
            gains[:, source, target] = np.einsum("ij,ij->i", query, predicted - mean)
    return gains
