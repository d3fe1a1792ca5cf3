"""Correction of batches by mutual nearest neighbours (Haghverdi et al., Nature Biotechnology 2018).

One shift for a whole batch does not correct effects that differ between cell types. So each cell moves by the mean offset between
cells around it, in its batch, and their mutual nearest neighbours in other batches. Cells of a type that only one batch contains
have no mutual neighbours, and barely move.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp

from scrcl.graph.mutual_neighbors import mutual_neighbors
from scrcl.graph.neighbors import nearest_neighbors

from .modality import Modality

#: Nearest neighbours in each other batch among which the mutual ones are found.
N_MUTUAL_NEIGHBORS = 5
#: Rounds of finding mutual neighbours and moving cells.
ROUNDS = 2
#: Nearest anchors over which the move of a cell is averaged.
N_AVERAGED = 30
#: Maximum number of anchors in all batches.
MAX_ANCHORS = 20_000


@dataclass(frozen=True)
class CorrectionVectors:
    """The moves of the cells of a batch.

    Attributes
    ----------
    anchors
        ``(R, m, d)`` features of some cells of the batch before each of ``R`` rounds, float32.
    moves
        ``(R, m, d)`` vector that is subtracted from each in that round, before averaging; 0 without mutual neighbours.
    """

    anchors: np.ndarray
    moves: np.ndarray

    def __call__(self, features: np.ndarray, modality: Modality) -> np.ndarray:
        """Corrected features of cells of a modality with features ``(n, d)``."""
        for anchors, moves in zip(self.anchors, self.moves, strict=True):
            features = features - _mean_move(anchors, moves, features, modality)
        return features

    @classmethod
    def of_nothing(cls, n_features: int) -> Self:
        """No moves."""
        return cls(*np.empty((2, 0, 0, n_features), dtype=np.float32))


def fit_correction_vectors(
    features: np.ndarray,
    batches: np.ndarray,
    modality: Modality,
    fixed: int | None = None,
    conditions: np.ndarray | None = None,
) -> list[CorrectionVectors]:
    """Find the moves of the cells of each batch that bring mutual neighbours together.

    The anchors have features ``(n, d)``, float32, in which the modality defines distances, and batches ``(n,)``, numbered from
    0. In each round a cell moves half of the way to its mutual neighbours; with a ``fixed`` batch, which does not move, all of
    it. Mutual neighbours are of the same of the ``conditions`` ``(n,)``, if there are any.
    """
    points, stages = features, []
    members = [np.flatnonzero(batches == number) for number in range(int(batches.max()) + 1)]
    for _ in range(ROUNDS):
        moves = (0.5 if fixed is None else 1.0) * _offsets_to_mutual_neighbors(points, batches, modality, conditions)
        if fixed is not None:
            moves[members[fixed]] = 0
        stages.append((points, moves))
        points = points.copy()
        for rows in members:
            before = stages[-1][0][rows]
            points[rows] = before - _mean_move(before, moves[rows], before, modality)
    anchors, moves = (np.stack(arrays) for arrays in zip(*stages, strict=True))
    return [CorrectionVectors(anchors[:, rows], moves[:, rows]) for rows in members]


def _offsets_to_mutual_neighbors(
    points: np.ndarray, batches: np.ndarray, modality: Modality, conditions: np.ndarray | None
) -> np.ndarray:
    """Offset of each point ``(n, d)`` from the mean of its mutual neighbours; 0 where there are none."""
    mnn_pairs = mutual_neighbors(modality.neighbor_features(points), batches, N_MUTUAL_NEIGHBORS, conditions)
    n_pairs = np.diff(mnn_pairs.indptr)
    means = (sp.csr_array(mnn_pairs) @ points) / np.maximum(n_pairs, 1)[:, None]
    return np.where(n_pairs[:, None] > 0, points - means, 0).astype(np.float32)


def _mean_move(anchors: np.ndarray, moves: np.ndarray, features: np.ndarray, modality: Modality) -> np.ndarray:
    """Mean move of the anchors nearest to each cell; weights fall to 0 with distance, so that rounding changes little."""
    around = nearest_neighbors(
        modality.neighbor_features(anchors), min(N_AVERAGED, len(anchors)), modality.neighbor_features(features)
    )
    farthest = np.maximum(around.distances[:, -1:], 1e-12)
    weights = np.maximum(1 - (around.distances / farthest) ** 2, 1e-6)
    weights /= weights.sum(1, keepdims=True)
    return (around.to_sparse(weights) @ moves).astype(np.float32)
