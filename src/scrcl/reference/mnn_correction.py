r"""How far the cells of a batch lie from their counterparts, which differs from type to type.

One shift for a whole batch leaves what a batch does to one type more than to another. So a cell moves as the cells of its batch
around it lie from their counterparts in others. Cells whose type is in one batch only have no counterparts, and stay where
they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from scrcl.graph.mutual_neighbors import mutual_neighbors
from scrcl.graph.neighbors import nearest_neighbors

#: Candidates for counterparts of a cell in each other batch.
N_MUTUAL_NEIGHBORS = 5
#: Rounds in which cells move and counterparts are found again.
ROUNDS = 2
#: Cells around a cell by which it moves.
AROUND = 30
#: Cells of all batches by which others move, at most.
ANCHORS = 20_000

Near = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class CorrectionVectors:
    """How the cells of a batch move.

    Attributes
    ----------
    anchors
        ``(R, m, d)`` features of some cells of the batch before each of ``R`` rounds, float32.
    moves
        ``(R, m, d)`` what is taken from each in that round, before any averaging; 0 without counterparts.
    """

    anchors: np.ndarray
    moves: np.ndarray

    def __call__(self, features: np.ndarray, near: Near) -> np.ndarray:
        """Where cells with features ``(n, d)`` come to lie; ``near`` gives that by which neighbours are found."""
        for anchors, moves in zip(self.anchors, self.moves, strict=True):
            features = features - _mean_move(anchors, moves, features, near)
        return features

    @classmethod
    def of_nothing(cls, n_features: int) -> Self:
        """Cells stay where they are."""
        return cls(*np.empty((2, 0, 0, n_features), dtype=np.float32))

    def to_dict(self) -> dict[str, Any]:
        """Plain arrays."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(**state)


def fit_correction_vectors(
    features: np.ndarray, batches: np.ndarray, near: Near, fixed: int | None = None
) -> list[CorrectionVectors]:
    """Find how the cells of each batch move so that counterparts come together.

    In each round a cell goes half of the way, and meets the others there; beside a ``fixed`` batch, all of it.

    Parameters
    ----------
    features
        ``(n, d)`` features of the cells by which others will move, float32.
    batches
        ``(n,)`` batch of each cell, numbered from 0.
    near
        Gives that by which neighbours are found, from features.
    fixed
        Number of a batch that stays.
    """
    points, stages = features, []
    members = [np.flatnonzero(batches == number) for number in range(int(batches.max()) + 1)]
    for _ in range(ROUNDS):
        moves = (0.5 if fixed is None else 1.0) * _offsets_to_mutual_neighbors(points, batches, near)
        if fixed is not None:
            moves[members[fixed]] = 0
        stages.append((points, moves))
        points = points.copy()
        for rows in members:
            before = stages[-1][0][rows]
            points[rows] = before - _mean_move(before, moves[rows], before, near)
    anchors, moves = (np.stack(each) for each in zip(*stages, strict=True))
    return [CorrectionVectors(anchors[:, rows], moves[:, rows]) for rows in members]


def _offsets_to_mutual_neighbors(points: np.ndarray, batches: np.ndarray, near: Near) -> np.ndarray:
    """How far each point ``(n, d)`` lies from the mean of its counterparts; 0 where there are none."""
    mnn_pairs = mutual_neighbors(near(points), batches, N_MUTUAL_NEIGHBORS)
    number = np.diff(mnn_pairs.indptr)
    means = (sp.csr_array(mnn_pairs) @ points) / np.maximum(number, 1)[:, None]
    return np.where(number[:, None] > 0, points - means, 0).astype(np.float32)


def _mean_move(anchors: np.ndarray, moves: np.ndarray, features: np.ndarray, near: Near) -> np.ndarray:
    """Mean move of the anchors nearest to each cell, the less the farther they are, so that no rounding decides who counts."""
    around = nearest_neighbors(near(anchors), min(AROUND, len(anchors)), near(features))
    farthest = np.maximum(around.distances[:, -1:], 1e-12)
    weights = np.maximum(1 - (around.distances / farthest) ** 2, 1e-6)
    weights /= weights.sum(1, keepdims=True)
    return (around.to_sparse(weights) @ moves).astype(np.float32)
