import itertools

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from scrcl._cluster import kmeans
from scrcl._consensus import (
    LEAST_COHESION,
    SIZE_POWER,
    agglomerate,
    consensus,
    joining_cost,
    reconcile,
)


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


def test_joining_cost_by_brute_force():
    rng = np.random.default_rng(1)
    profiles, labels = unit(rng.normal(size=(30, 4)) + 1), rng.integers(4, size=30)
    members = [profiles[labels == k] for k in range(4)]
    cosines = np.array([[(a @ b.T).sum() for b in members] for a in members])
    sizes = np.array([len(m) for m in members], dtype=float)
    cost = joining_cost(cosines, sizes)
    for a, b in itertools.permutations(range(4), 2):
        between = np.mean([x @ y for x in members[a] for y in members[b]])
        within = [np.mean([x @ y for x, y in itertools.permutations(members[k], 2)]) for k in (a, b)]
        noise_free = between / np.sqrt(np.prod(np.maximum(within, LEAST_COHESION)))
        harmonic = 2 / (1 / sizes[a] + 1 / sizes[b]) / 30
        assert cost[a, b] == pytest.approx(max(1 - noise_free, 1e-6) * harmonic**SIZE_POWER)
    assert np.isinf(np.diag(cost)).all()


def test_agglomeration_joins_what_is_alike():
    """Six clusters along three directions, two along each."""
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(6), 20)
    profiles = unit(np.eye(3)[labels // 2] + 0.1 * rng.normal(size=(120, 3)))
    assert adjusted_rand_score(labels // 2, agglomerate(profiles, labels, 3)) == 1
    np.testing.assert_array_equal(agglomerate(profiles, labels, 6), labels)
    np.testing.assert_array_equal(agglomerate(profiles, labels, 9), labels)


def test_very_small_clusters_join_the_most_similar_first():
    labels = np.array([0] * 20 + [1] * 20 + [2] * 3)
    profiles = unit(np.array([[1.0, 0], [0, 1], [0.3, 1]])[labels])
    joined = agglomerate(profiles, labels, 2)
    assert adjusted_rand_score(np.where(labels == 2, 1, labels), joined) == 1


def test_reconciliation_by_hand():
    """Two of three runs say that atoms 0 and 1 belong together, and 2 and 3."""
    atoms = np.array([0, 0, 1, 2, 3, 3])
    runs = [np.array([7, 7, 7, 1, 1, 1]), np.array([0, 0, 0, 5, 5, 5]), np.array([0, 0, 1, 0, 1, 1])]
    found = reconcile(runs, atoms, 2)
    assert adjusted_rand_score([0, 0, 0, 1, 1, 1], found) == 1
    np.testing.assert_array_equal(reconcile(runs, atoms, 4), atoms)


def test_duplicate_cells():
    points = np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)
    assert adjusted_rand_score(np.repeat([0, 1, 2], 20), consensus(points, points, 3, 0).labels) == 1
