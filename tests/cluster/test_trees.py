import itertools

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from scrcl.cluster.trees import (
    MIN_COHESION,
    adjusted_rand,
    agglomerate,
    enough_for,
    grow,
    joining_distance,
    memberships,
)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


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
        noise_free = between / np.sqrt(np.prod(np.maximum(within, MIN_COHESION)))
        assert distance[a, b] == pytest.approx(max(1 - noise_free, 1e-6))


def test_agglomeration_joins_what_is_alike():
    """Six clusters along three directions, two along each."""
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(6), 20)
    profiles = unit(np.eye(3)[labels // 2] + 0.1 * rng.normal(size=(120, 3)))
    tree = agglomerate(profiles, labels)
    assert adjusted_rand_score(labels // 2, tree.cut(3)) == 1
    np.testing.assert_array_equal(tree.cut(6), labels)
    np.testing.assert_array_equal(tree.cut(9), labels)
    assert (tree.cut(1) == 0).all()
    # Halves of one direction are alike; different directions are not.
    assert (tree.distances[4:7] < 0.1).all()
    assert (tree.distances[2:4] > 0.8).all()


def test_trees_are_nested():
    rng = np.random.default_rng(4)
    tree = agglomerate(unit(rng.normal(size=(200, 5))), rng.integers(12, size=200))
    cuts = [tree.cut(k) for k in range(1, 13)]
    for fewer, more in itertools.pairwise(cuts):
        assert len(np.unique(more)) == len(np.unique(fewer)) + 1
        assert len(np.unique(more + 100 * fewer)) == len(np.unique(more))


def test_very_small_clusters_join_the_most_similar_first():
    labels = np.array([0] * 20 + [1] * 20 + [2] * 3)
    profiles = unit(np.array([[1.0, 0], [0, 1], [0.3, 1]])[labels])
    joined = agglomerate(profiles, labels).cut(2)
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


def test_domains_are_joined_by_distance():
    """The two nearest of three tight groups are joined, though the cosine of the other two is larger."""
    rng = np.random.default_rng(0)
    means = np.repeat([[1.0, 1.0], [10.0, 10.0], [1.0, -1.0]], 20, axis=0)
    labels = np.repeat([0, 1, 2], 20)
    profiles = means + rng.normal(scale=0.01, size=means.shape)
    np.testing.assert_array_equal(agglomerate(profiles, labels, euclidean=True).cut(2) == 0, labels != 1)
    np.testing.assert_array_equal(agglomerate(unit(profiles), labels).cut(2) == 0, labels != 2)


def test_trees_of_each_division_by_each_features():
    points = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    trees = grow([points, points[:, :3]], [points, points**2, points[:, ::2]], seed=0)
    assert len(trees) == 2 * 16 * 3
    np.testing.assert_array_equal(trees[0].labels, trees[2].labels)
    assert (trees[0].labels != trees[3].labels).any()
    assert all(tree.labels.max() < 100 // 8 for tree in trees)


def test_enough_micro_clusters_for_many_clusters():
    points = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    assert enough_for(4, 100) == 0
    assert enough_for(9, 100) == 9
    for tree in grow([points], [points], 0, n_clusters=enough_for(40, 100))[:3]:
        assert len(np.unique(tree.cut(40))) == 40


def test_products_of_memberships_are_the_share_of_clusterings():
    rng = np.random.default_rng(2)
    members, weights = rng.integers([1, 2, 3, 4, 9], size=(12, 5)), rng.random(5)
    one_hot = memberships(members, weights)
    together = (members[:, None] == members[None]) @ weights / weights.sum()
    np.testing.assert_allclose((one_hot @ one_hot.T).toarray(), together)
