import numpy as np
import pytest
import scipy.sparse as sp

from scrcl.cluster.clustering import Clustering
from scrcl.cluster.stability import N_SUBSAMPLES, split_stability
from scrcl.cluster.tree import NestedClusters


def tree_of(labels: np.ndarray) -> NestedClusters:
    """Leaves 1 and 2 are joined, then 0."""
    leaves = Clustering(np.zeros((len(labels), 1)), labels, probabilities=np.eye(3, dtype=np.float32)[labels])
    sizes = np.bincount(labels, minlength=3)
    linkage = np.array([[1, 2, 0.4, sizes[1] + sizes[2]], [0, 3, 0.9, sizes.sum()]], dtype=float)
    return NestedClusters.build(leaves, linkage, sp.csr_array((len(labels), len(labels))))


labels = np.repeat([0, 1, 2], [50, 30, 20])


def test_clusters_that_are_found_again_have_stability_one():
    found = split_stability(tree_of(labels), np.arange(100), lambda rows, seed: tree_of(labels[rows]), 0)
    np.testing.assert_allclose(found, 1)


def test_stability_is_the_mean_jaccard_index_of_the_worse_side():
    """Half of the cells of leaf 1 are put into leaf 0, in each subsample."""
    moved = labels.copy()
    moved[50:65] = 0
    found = split_stability(tree_of(labels), np.arange(100), lambda rows, seed: tree_of(moved[rows]), 0)

    expected = []
    rng = np.random.default_rng(0)
    for _ in range(N_SUBSAMPLES):
        rows = rng.choice(100, 80, replace=False)
        nodes = [np.isin(moved[rows], leaf) for leaf in ([0], [1], [2], [1, 2], [0, 1, 2])]
        jaccard = [
            max(np.sum(side & node) / float(np.sum(side | node)) for node in nodes)
            for side in (np.isin(labels[rows], leaf) for leaf in ([1], [2], [0], [1, 2]))
        ]
        expected.append(jaccard)
    one, two, zero, both = np.mean(expected, axis=0)
    assert found == pytest.approx([min(one, two), min(zero, both)])
    assert found[0] < 0.7


def test_random_clusters_are_unstable():
    rng = np.random.default_rng(0)
    found = split_stability(
        tree_of(labels), np.arange(100), lambda rows, seed: tree_of(rng.permutation(labels)[rows]), 0
    )
    assert found.max() < 0.6
