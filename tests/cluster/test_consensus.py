import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.cluster.hierarchy
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import adjusted_rand_score

from scrcl.cluster import consensus as module
from scrcl.cluster.clustering import Clustering
from scrcl.cluster.consensus import MIN_TREE_AGREEMENT, Ensemble, clustered_cells, cut_tree, warn_if_undetermined
from scrcl.cluster.kmeans import kmeans
from scrcl.cluster.tree import average_linkage
from scrcl.cluster.trees import N_REPEATS, Tree
from scrcl.utils.errors import ScrclValueError


def build(
    points: np.ndarray,
    spaces: Sequence[np.ndarray],
    features: Sequence[np.ndarray],
    seed: int,
    n_clusters: int = 0,
    max_groups: int = 0,
) -> Ensemble:
    """An ensemble of those cells that are drawn."""
    cells = clustered_cells(len(points), seed)
    drawn, own = ([array[cells] for array in arrays] for arrays in (spaces, features))
    return Ensemble.build(points, cells, drawn, own, seed, N_REPEATS, n_clusters, max_groups=max_groups)


def consensus(points: np.ndarray, n_clusters: int, seed: int = 0) -> Clustering:
    return build(points, [points], [points], seed, n_clusters).cut(n_clusters)[0]


def unbalanced(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One type of 600 cells, wide, and three of 40, 30 and 20."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(4), [600, 40, 30, 20])
    points = np.eye(12)[truth] * 4 + rng.normal(size=(690, 12)) * np.where(truth == 0, 1.2, 0.7)[:, None]
    return points.astype(np.float32), truth


def test_a_large_type_is_kept_whole_where_kmeans_divides_it():
    points, truth = unbalanced()
    assert adjusted_rand_score(truth, kmeans(points, 4, 0).labels) < 0.6
    assert adjusted_rand_score(truth, consensus(points, 4).labels) > 0.88


@pytest.mark.parametrize("n_clusters", [1, 2, 5, 30, 120])
def test_number_of_clusters_and_numbering(n_clusters):
    points = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
    found = consensus(points, n_clusters)
    assert found.n_clusters == n_clusters
    assert (np.diff(np.bincount(found.labels)) <= 0).all()
    np.testing.assert_array_equal(consensus(points, n_clusters).labels, found.labels)


def test_clusters_of_a_single_cell_are_none():
    """Three types and four cells far from all: these are no clusters of their own where there are others."""
    rng = np.random.default_rng(0)
    centers = np.repeat(np.eye(8)[:3] * 6, 40, axis=0)
    points = np.concatenate([centers + rng.normal(size=(120, 8)), np.eye(8)[4:] * 40])
    ensemble = build(points, [points], [points], 0)
    for least in (1, module.MIN_CLUSTER_CELLS, 10):
        sizes = np.bincount(ensemble.cut(4, least)[0].labels)
        assert len(sizes) == 4
        assert np.min(sizes) == 1 if least == 1 else np.min(sizes) >= least


class TestCut:
    tree = scipy.cluster.hierarchy.linkage(np.random.default_rng(0).normal(size=(200, 5)), "average")

    @pytest.mark.parametrize("n_clusters", [1, 2, 7, 50, 200])
    def test_cut_as_scipy_does(self, n_clusters):
        expected = scipy.cluster.hierarchy.cut_tree(self.tree, n_clusters).ravel()
        found = cut_tree(self.tree, n_clusters)
        assert adjusted_rand_score(expected, found) == 1
        assert set(found) == set(range(n_clusters))

    @pytest.mark.parametrize(("least", "n_clusters"), [(2, 2), (2, 5), (2, 8), (5, 2), (5, 5), (20, 2)])
    def test_the_highest_cut_with_so_many_large_clusters(self, least, n_clusters):
        found = cut_tree(self.tree, n_clusters, least)
        for number in range(1, 201):
            expected = scipy.cluster.hierarchy.cut_tree(self.tree, number).ravel()
            large = np.bincount(expected) >= least
            if large.sum() == n_clusters:
                break
        assert set(found[found >= 0]) == set(range(n_clusters))
        np.testing.assert_array_equal(found >= 0, large[expected])
        assert adjusted_rand_score(expected[found >= 0], found[found >= 0]) == 1

    def test_fewer_cells_where_there_are_not_so_many_large_clusters(self):
        assert set(cut_tree(self.tree, 60, 5)) >= set(range(60))

    def test_leaves_of_several_cells(self):
        """A leaf of three cells is what three equal cells are."""
        points = np.random.default_rng(1).normal(size=(30, 3))
        sizes = np.random.default_rng(2).integers(1, 4, 30)
        leaf = np.repeat(np.arange(30), sizes)
        by_cells = cut_tree(scipy.cluster.hierarchy.linkage(points[leaf], "average"), 4, 3)
        by_leaves = cut_tree(average_linkage(squareform(pdist(points)), sizes), 4, 3, sizes)[leaf]
        np.testing.assert_array_equal(by_cells < 0, by_leaves < 0)
        assert adjusted_rand_score(by_cells, by_leaves) == 1

    def test_ties_do_not_matter(self):
        tree = scipy.cluster.hierarchy.linkage(np.repeat(np.eye(3), 5, axis=0), "average")
        for number in range(1, 16):
            assert len(np.unique(cut_tree(tree, number))) == number


@pytest.mark.parametrize("n_clusters", [2, 4])
def test_the_cut_is_that_of_all_pairs_of_cells(n_clusters):
    """Average linkage of the share of clusterings that separate two cells, computed for each pair.

    More clusters depend on the order of ties, of which there are many.
    """
    points, _ = unbalanced(1)
    ensemble = build(points, [points], [points], 0)
    members, weights = ensemble.members(n_clusters)
    assert len(np.unique(members, axis=0)) < len(points)
    pairs = scipy.cluster.hierarchy.linkage(pdist(members, "hamming", w=weights), "average")
    expected = cut_tree(pairs, n_clusters, module.MIN_CLUSTER_CELLS)
    found = ensemble.cut(n_clusters)[0].labels
    assert adjusted_rand_score(expected[expected >= 0], found[expected >= 0]) == 1


def flat_tree(labels: list[int]) -> Tree:
    """A tree of two clusters."""
    return Tree(np.array(labels), np.array([[2, 1], [1, 2]]), np.array([0, 0, 0.5]))


def test_reconciliation_by_hand():
    """Two of three trees put the first three cells together; the other puts the third with the last two."""
    trees = [flat_tree([0, 0, 0, 1, 1, 1]), flat_tree([1, 1, 1, 0, 0, 0]), flat_tree([0, 0, 1, 0, 1, 1])]
    ensemble = Ensemble(np.zeros((6, 1)), np.arange(6), trees, [], 0)
    found, agreement = ensemble.cut(2)
    assert adjusted_rand_score([0, 0, 0, 1, 1, 1], found.labels) == 1
    # The third cell: with itself in all, with the first two in two of three; with the last two in one of three.
    own, other = (1 + 2 * 2 / 3) / 3, (0 + 2 * 1 / 3) / 3
    assert found.probabilities is not None
    assert found.probabilities[2, found.labels[2]] == pytest.approx(own / (own + other))
    np.testing.assert_allclose(found.probabilities.sum(1), 1)
    assert agreement == pytest.approx((2 + adjusted_rand_score([0, 0, 1, 0, 1, 1], found.labels)) / 3)


def test_both_kinds_of_clusterings_count_half():
    points = unbalanced()[0]
    found, weights = build(points, [points, points[:, :5]], [points], 0).members(4)
    assert found.shape == (690, 32 + 8)
    assert (found.max(0) == 3).all()
    assert weights[:32].sum() == pytest.approx(weights[32:].sum())
    expected = scipy.cluster.hierarchy.linkage(points - points.mean(0), "ward")
    assert adjusted_rand_score(scipy.cluster.hierarchy.cut_tree(expected, 4).ravel(), found[:, 32]) == 1


def test_pooled_spaces_outvote_trees():
    """Two spaces of three separate the halves; trees and the third space say otherwise, and have less weight."""
    points = np.repeat([0.0, 10.0], 12)[:, None] + np.random.default_rng(0).normal(size=(24, 2))
    other = np.tile([0.0, 10.0], 12)[:, None] + np.random.default_rng(1).normal(size=(24, 2))
    spaces = [points, points.copy(), other]
    pooled = Ensemble.build(points, np.arange(24), [other], [other], 0, 2, pooled=spaces, max_groups=4)
    members, weights = pooled.members(2)
    assert members.shape == (24, 2 + 3 * 4)  # trees; k-means, a mixture, and two linkages in each space
    np.testing.assert_allclose(weights, [1 / 2] * 2 + [1 / 3] * 12)  # five kinds with the same weight
    first = np.repeat([0, 1], 12)
    assert adjusted_rand_score(first, pooled.cut(2)[0].labels) == 1
    assert adjusted_rand_score(first, replace(pooled, pooled=False).cut(2)[0].labels) < 0.5
    for ensemble in (pooled, pooled.subsampled(np.arange(0, 24, 2), [other], 0, True, 4)):
        leaves, linkage = ensemble.leaves()
        assert len(linkage) == leaves.n_clusters - 1
    assert pooled.subsampled(np.arange(8), [other], 0, True, 4).pooled


def test_agreement_between_trees_by_hand():
    trees = [flat_tree(labels) for labels in ([0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 1, 0, 1])]
    ensemble = Ensemble(np.zeros((4, 1)), np.arange(4), trees, [], 0)
    expected = [adjusted_rand_score(trees[i].labels, trees[i + 2].labels) for i in range(2)]
    assert ensemble.agreement(2) == pytest.approx(np.mean(expected))
    assert ensemble.agreement(1) == 1
    assert ensemble.distance(2) == 0.5
    assert np.isnan(ensemble.distance(1))
    assert np.isnan(ensemble.distance(3))


def test_probabilities_tell_cells_between_two_types():
    rng = np.random.default_rng(0)
    centers = np.eye(8)[[0, 1]] * 5
    sure = np.repeat(centers, 150, axis=0)
    between = np.repeat(centers.mean(0, keepdims=True), 30, axis=0)
    points = (np.concatenate([sure, between]) + rng.normal(size=(330, 8)) * 0.6).astype(np.float32)
    spaces = [points + rng.normal(size=points.shape) * 0.8 for _ in range(3)]
    probabilities = build(points, spaces, spaces, 0).cut(2)[0].probabilities
    assert probabilities is not None
    certainty = probabilities.max(1)
    assert certainty[:300].mean() > 0.92
    assert certainty[300:].mean() < certainty[:300].mean() - 0.1


def test_cells_beyond_those_that_are_clustered_join_them(monkeypatch):
    monkeypatch.setattr(module, "CLUSTERED_CELLS", 300)
    points, truth = unbalanced()
    ensemble = build(points, [points], [points], 0)
    assert len(ensemble.cells) == 300
    found = ensemble.cut(4)[0]
    assert len(found.labels) == 690
    assert (np.diff(np.bincount(found.labels)) <= 0).all()
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-6)
    assert adjusted_rand_score(truth, found.labels) > 0.6


def test_duplicate_cells():
    points = np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)
    assert adjusted_rand_score(np.repeat([0, 1, 2], 20), consensus(points, 3).labels) == 1


def test_warning_where_clusterings_hardly_agree():
    noise = np.random.default_rng(0).normal(size=(600, 20))
    agreement = build(noise, [noise], [noise, noise[:, ::2]], 0).cut(4)[1]
    assert agreement < MIN_TREE_AGREEMENT
    with pytest.warns(UserWarning, match="4 clusters are poorly supported"):
        warn_if_undetermined(4, agreement)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_undetermined(1, 0.0)
        warn_if_undetermined(4, 0.9)


def test_more_clusters_than_cells_that_are_clustered_are_refused():
    tree = scipy.cluster.hierarchy.linkage(np.random.default_rng(0).normal(size=(10, 2)), "average")
    assert len(np.unique(cut_tree(tree, 10))) == 10
    with pytest.raises(ScrclValueError, match="n_clusters=11 is more than the 10 cells.*method='kmeans'"):
        cut_tree(tree, 11)
