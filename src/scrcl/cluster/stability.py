"""Stability of the splits of a tree of clusters, over plain arrays."""

from collections.abc import Callable

import numpy as np

from .tree import NestedClusters
from .trees import indicator

#: Subsamples, the share of the cells in each, and the most small clusters of which their trees are built.
N_SUBSAMPLES, SUBSAMPLED_SHARE, SUBSAMPLE_GROUPS = 3, 0.8, 200


def split_stability(
    tree: NestedClusters, cells: np.ndarray, rebuild: Callable[[np.ndarray, int], NestedClusters], seed: int
) -> np.ndarray:
    """Mean Jaccard index of the sides of each split with the most similar clusters in trees of subsamples (Hennig 2007).

    Parameters
    ----------
    tree
        The tree of clusters.
    cells
        ``(m,)`` numbers of the cells to sample from.
    rebuild
        Function that returns the tree of the cells in some rows ``(m',)`` of ``cells``, with a seed.
    seed
        Seed of the samples.

    Returns
    -------
    Array ``(L - 1,)``: of both sides, the one that is found less well; 1 if it is found in all subsamples.

    References
    ----------
    Hennig. Cluster-wise assessment of cluster stability. Computational Statistics and Data Analysis 2007.
    """
    rng = np.random.default_rng(seed)
    similarity = np.zeros(len(tree.below))
    for number in range(N_SUBSAMPLES):
        rows = np.sort(rng.choice(len(cells), max(1, round(SUBSAMPLED_SHARE * len(cells))), replace=False))
        similarity += _best_jaccard(tree, rebuild(rows, seed + number + 1), cells[rows]) / N_SUBSAMPLES
    return similarity[tree.sides].min(1)


def _best_jaccard(tree: NestedClusters, other: NestedClusters, cells: np.ndarray) -> np.ndarray:
    """Jaccard index ``(2 L - 1,)`` of each node with the most similar node of a tree of ``cells`` ``(m,)`` of its cells."""
    of_leaf = np.zeros((len(cells), tree.n_leaves))
    of_leaf[np.arange(len(cells)), tree.leaves.labels[cells]] = 1
    members = of_leaf @ tree.below.T
    others = indicator(other.leaves.labels) @ other.below.T.astype(np.float64)
    shared = members.T @ others
    union = members.sum(0)[:, None] + others.sum(0) - shared
    return (shared / np.maximum(union, 1)).max(1)
