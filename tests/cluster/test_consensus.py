import itertools

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from scrcl.cluster.consensus import LEAST_COHESION, Ensemble, Tree, adjusted_rand, agglomerate, joining_distance
from scrcl.cluster.kmeans import kmeans


def consensus(points, features, n_clusters, seed):
    return Ensemble.build([points], [features], seed, n_clusters).cut(n_clusters)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def unbalanced(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One type of 600 cells, wide, and three of 40, 30 and 20."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(4), [600, 40, 30, 20])
    points = np.eye(12)[truth] * 4 + rng.normal(size=(690, 12)) * np.where(truth == 0, 1.2, 0.7)[:, None]
    return points.astype(np.float32), truth


def test_a_large_type_is_kept_whole_where_kmeans_divides_it():
    points, truth = unbalanced()
    assert adjusted_rand_score(truth, kmeans(points, 4, 0).labels) < 0.6
    assert adjusted_rand_score(truth, consensus(points, points, 4, 0).labels) > 0.9


@pytest.mark.parametrize("n_clusters", [1, 2, 5, 30])
def test_number_of_clusters_and_numbering(n_clusters):
    points = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
    found = consensus(points, points, n_clusters, 0)
    assert found.n_clusters == n_clusters
    assert (np.diff(np.bincount(found.labels)) <= 0).all()
    np.testing.assert_array_equal(consensus(points, points, n_clusters, 0).labels, found.labels)


def test_joining_distance_by_brute_force():
    rng = np.random.default_rng(1)
    profiles, labels = unit(rng.normal(size=(30, 4)) + 1), rng.integers(4, size=30)
    members = [profiles[labels == k] for k in range(4)]
    cosines = np.array([[(a @ b.T).sum() for b in members] for a in members])
    sizes = np.array([len(m) for m in members], dtype=float)
    distance = joining_distance(cosines, sizes)
    for a, b in itertools.permutations(range(4), 2):
        between = np.mean([x @ y for x in members[a] for y in members[b]])
        within = [np.mean([x @ y for x, y in itertools.permutations(members[k], 2)]) for k in (a, b)]
        noise_free = between / np.sqrt(np.prod(np.maximum(within, LEAST_COHESION)))
        assert distance[a, b] == pytest.approx(max(1 - noise_free, 1e-6))


def cut(tree: Tree, n_clusters: int) -> np.ndarray:
    """The clusters of a tree when so many are left."""
    return tree.same(n_clusters).argmax(1)[tree.labels]


def test_agglomeration_joins_what_is_alike():
    """Six clusters along three directions, two along each."""
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(6), 20)
    profiles = unit(np.eye(3)[labels // 2] + 0.1 * rng.normal(size=(120, 3)))
    tree = agglomerate(profiles, labels)
    assert adjusted_rand_score(labels // 2, cut(tree, 3)) == 1
    np.testing.assert_array_equal(cut(tree, 6), labels)
    np.testing.assert_array_equal(cut(tree, 9), labels)
    assert (cut(tree, 1) == 0).all()
    # Halves of one direction are alike; different directions are not.
    assert (tree.distances[4:7] < 0.1).all()
    assert (tree.distances[2:4] > 0.8).all()


def test_trees_are_nested():
    rng = np.random.default_rng(4)
    tree = agglomerate(unit(rng.normal(size=(200, 5))), rng.integers(12, size=200))
    cuts = [cut(tree, k) for k in range(1, 13)]
    for fewer, more in itertools.pairwise(cuts):
        assert len(np.unique(more)) == len(np.unique(fewer)) + 1
        assert len(np.unique(more + 100 * fewer)) == len(np.unique(more))


def test_very_small_clusters_join_the_most_similar_first():
    labels = np.array([0] * 20 + [1] * 20 + [2] * 3)
    profiles = unit(np.array([[1.0, 0], [0, 1], [0.3, 1]])[labels])
    joined = cut(agglomerate(profiles, labels), 2)
    assert adjusted_rand_score(np.where(labels == 2, 1, labels), joined) == 1


def test_adjusted_rand_of_a_table():
    rng = np.random.default_rng(5)
    a, b = rng.integers(4, size=60), rng.integers(3, size=60)
    table = np.array([[((a == i) & (b == j)).sum() for j in range(3)] for i in range(4)])
    same = np.diag(np.bincount(a))[:, :3] + 0 * table
    same[3, 0] = (a == 3).sum()
    merged = np.where(a == 3, 0, a)
    np.testing.assert_allclose(
        adjusted_rand(np.stack([table, same])), [adjusted_rand_score(a, b), adjusted_rand_score(a, merged)]
    )
    np.testing.assert_array_equal(adjusted_rand(np.array([[[7.0]], [[1.0]]])), 1)


def test_where_trees_are_of_two_minds_the_consensus_is_what_most_find():
    """Five atoms: three trees put the middle ones apart, two put them together; average linkage alone would mix both."""
    atoms = np.repeat(np.arange(5), 4)
    first, second = np.array([0, 0, 0, 1, 1])[atoms], np.array([0, 1, 1, 1, 0])[atoms]
    for most, few in ((first, second), (second, first)):
        ensemble = Ensemble(np.zeros((20, 1)), atoms, [flat_tree(most)] * 3 + [flat_tree(few)] * 2)
        assert adjusted_rand_score(ensemble.cut(2).labels, most) == 1


def flat_tree(labels: list[int] | np.ndarray) -> Tree:
    """A tree of two clusters."""
    return Tree(np.array(labels), np.array([[2, 1], [1, 2]]), np.array([0, 0, 0.5]))


def test_reconciliation_by_hand():
    """Two of three trees say that atoms 0 and 1 belong together, and 2 and 3."""
    atoms = np.array([0, 0, 1, 2, 3, 3])
    trees = [flat_tree([0, 0, 0, 1, 1, 1]), flat_tree([1, 1, 1, 0, 0, 0]), flat_tree([0, 0, 1, 0, 1, 1])]
    ensemble = Ensemble(np.zeros((6, 1)), atoms, trees)
    found = ensemble.cut(2)
    assert adjusted_rand_score([0, 0, 0, 1, 1, 1], found.labels) == 1
    assert adjusted_rand_score(atoms, ensemble.cut(4).labels) == 1
    # Atom 0 is always with itself and in two of three trees with atom 1; in one of three with atom 2, never with 3.
    same, other = (2 * 1 + 1 * 2 / 3) / 3, (1 * 1 / 3 + 2 * 0) / 3
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities[0, found.labels[0]], same / (same + other), rtol=1e-6)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-6)
    assert ensemble.agreement(2, found.labels) == pytest.approx(
        (1 + 1 + adjusted_rand_score([0, 0, 1, 0, 1, 1], found.labels)) / 3
    )
    assert ensemble.distance(2) == 0.5
    assert np.isnan(ensemble.distance(1))
    assert np.isnan(ensemble.distance(3))


def test_clusters_of_a_single_cell_only_where_there_is_no_choice():
    """Two of three trees set the last cell apart; the other divides the cells in halves."""
    atoms = np.arange(6)
    trees = [flat_tree([0, 0, 0, 0, 0, 1])] * 2 + [flat_tree([0, 0, 0, 1, 1, 1])]
    ensemble = Ensemble(np.zeros((6, 1)), atoms, trees)
    np.testing.assert_array_equal(np.bincount(ensemble.cut(2, least_cells=1).labels), [5, 1])
    for least_cells in (2, 3, 100):
        np.testing.assert_array_equal(np.bincount(ensemble.cut(2, least_cells).labels), [3, 3])
    only = Ensemble(np.zeros((6, 1)), atoms, trees[:2])
    np.testing.assert_array_equal(np.bincount(only.cut(2).labels), [5, 1])


def test_probabilities_tell_cells_between_two_types():
    rng = np.random.default_rng(0)
    centers = np.eye(8)[[0, 1]] * 5
    sure = np.repeat(centers, 150, axis=0)
    between = np.repeat(centers.mean(0, keepdims=True), 30, axis=0)
    points = (np.concatenate([sure, between]) + rng.normal(size=(330, 8)) * 0.6).astype(np.float32)
    # Micro-clusters of cells between the types are put with one type by some trees and with the other by others.
    features = [points + rng.normal(size=points.shape) * 0.8 for _ in range(6)]
    probabilities = Ensemble.build([points], features, 0).cut(2).probabilities
    assert probabilities is not None
    certainty = probabilities.max(1)
    assert certainty[:300].mean() > 0.95
    assert certainty[300:].mean() < certainty[:300].mean() - 0.1


def test_duplicate_cells():
    points = np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)
    assert adjusted_rand_score(np.repeat([0, 1, 2], 20), consensus(points, points, 3, 0).labels) == 1
