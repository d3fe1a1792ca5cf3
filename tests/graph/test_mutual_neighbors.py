"""Counterparts and the graph that joins batches, against brute force and hand-worked toys."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from scrcl.graph.mutual_neighbors import (
    RETURN_FACTOR,
    balanced_graph,
    batch_offsets,
    mixing,
    mutual_neighbors,
    paired_batches,
    sample_of_each,
    separation,
)


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    return rng.normal(size=(90, 3)).astype(np.float32), rng.permutation(np.repeat([0, 1, 2], [40, 30, 20]))


@pytest.mark.parametrize("protected", [False, True])
def test_counterparts_against_brute_force(points, protected):
    x, batches = points
    conditions = np.random.default_rng(1).integers(2, size=90) if protected else None
    of = np.zeros(90, dtype=int) if conditions is None else conditions
    distance = cdist(x, x)
    n_mutual = 2

    def rank(i, j):  # place of j among the cells of its batch, seen from i
        others = np.flatnonzero((batches == batches[j]) & (of == of[j]))
        return int((distance[i, others] < distance[i, j]).sum())

    expected = np.zeros((90, 90))
    for i in range(90):
        for j in range(90):
            near, far = sorted((rank(i, j), rank(j, i)))
            if batches[i] != batches[j] and of[i] == of[j] and near < n_mutual and far < RETURN_FACTOR * n_mutual:
                expected[i, j] = 1
    np.testing.assert_array_equal(mutual_neighbors(x, batches, n_mutual, conditions).toarray(), expected)


def test_a_cell_whose_likes_are_missing_has_no_counterparts():
    line = np.arange(40, dtype=np.float32)
    here = np.concatenate([line, 1000 + line])  # two types, of which the other batch has the first
    points = np.concatenate([here, line + 0.25])[:, None]
    batches = np.repeat([0, 1], [80, 40])
    found = mutual_neighbors(points, batches, 3)
    assert found[40:80].nnz == 0
    assert (np.diff(found.indptr)[:40] > 0).all()


def test_balanced_graph(points):
    x, batches = points
    graph = balanced_graph(x, batches, 12)
    assert (graph != graph.T).nnz == 0
    assert graph.diagonal().sum() == 0
    own = cdist(x, x)
    for i in range(90):
        others = np.flatnonzero((batches == batches[i]) & (np.arange(90) != i))
        nearest = others[np.argsort(own[i, others])[:4]]
        assert graph[[i], :].toarray()[0, nearest].all()
    between = graph.tocoo()
    between = batches[between.row] != batches[between.col]
    assert between.sum() == mutual_neighbors(x, batches, 4).nnz


@pytest.mark.parametrize("n_batches", [1, 2, 3, 7, 40, 200])
def test_few_pairs_of_batches_join_all(n_batches):
    sizes = np.random.default_rng(0).integers(1, 9, n_batches)
    pairs = paired_batches(np.repeat(np.arange(n_batches), sizes), n_batches)
    assert len(set(pairs)) == len(pairs) <= n_batches * np.ceil(np.log2(max(n_batches, 2)))
    if n_batches <= 3:
        assert len(pairs) == n_batches * (n_batches - 1) // 2
    if n_batches > 1:
        graph = sp.csr_array((np.ones(len(pairs)), tuple(np.transpose(pairs))), shape=(n_batches, n_batches))
        assert connected_components(graph, directed=False)[0] == 1


def test_offsets_are_found_again():
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=(4, 5))
    offsets -= offsets.mean(0)
    pairs = np.array([(0, 1), (1, 2), (2, 3), (0, 1), (3, 0)])
    differences = offsets[pairs[:, 0]] - offsets[pairs[:, 1]]
    found = batch_offsets(differences, pairs, 4, rng.uniform(0.5, 2, len(pairs)))
    np.testing.assert_allclose(found, offsets, atol=1e-10)
    alone = batch_offsets(np.ones((1, 1)), np.array([(0, 1)]), 3, np.ones(1))
    np.testing.assert_allclose(alone[:, 0], [0.5, -0.5, 0], atol=1e-10)


def test_offsets_of_contradicting_pairs_are_their_weighted_mean():
    pairs = np.array([(0, 1), (0, 1)])
    found = batch_offsets(np.array([[1.0], [4.0]]), pairs, 2, np.array([2.0, 1.0]))
    assert found[0, 0] - found[1, 0] == pytest.approx(2.0)


def test_mixing_by_hand():
    # Two pairs, far apart: the nearest of each is of the other batch in the first, of its own in the second.
    points = np.array([[0.0], [1.0], [100.0], [101.0]])
    batches = np.array([0, 1, 0, 0])
    np.testing.assert_allclose(mixing(points, batches, 1), [1 / (1 / 3), 1 / (3 / 3), 0, 0])


def test_mixing_of_random_batches_is_that_of_chance():
    rng = np.random.default_rng(0)
    found = mixing(rng.normal(size=(2000, 5)), rng.integers(3, size=2000), 15)
    assert found.mean() == pytest.approx(1, abs=0.03)


def test_sample_of_each():
    batches = np.repeat([0, 1, 2], [1000, 20, 500])
    np.testing.assert_array_equal(sample_of_each(batches, 2000), np.arange(1520))
    drawn = sample_of_each(batches, 300)
    assert np.bincount(batches[drawn]).tolist() == [100, 20, 100]
    assert (np.diff(drawn) > 0).all()


def test_separation_is_1_whatever_types_and_sizes_are():
    rng = np.random.default_rng(0)
    types = np.repeat([0, 1, 2, 0], [60, 150, 150, 300])  # the second batch has the first type only
    points = 20 * np.eye(3, 12)[types] + rng.normal(size=(660, 12))
    batches = np.repeat([0, 1], [360, 300])
    assert mixing(points, batches, 15).mean() < 0.6
    np.testing.assert_allclose(separation(points, batches, 5), 1, atol=0.05)


def test_separation_by_hand():
    # Cells of a batch are 1 apart, and 4 from the other batch.
    line = np.arange(5.0) * 10
    points = np.concatenate([line, line + 1, line + 5, line + 6])[:, None]
    first = np.repeat([0, 1], 10)
    np.testing.assert_allclose(separation(points, first, 1), 4)
    np.testing.assert_array_equal(separation(points, np.zeros(20, dtype=int), 1), [1])


def test_separation_within_conditions():
    """Two batches of the same cells: the condition moves cells far, and is no effect of the batches."""
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(400, 5)).astype(np.float32)
    batches, conditions = np.repeat([0, 1], 200), rng.permutation(np.repeat([0, 1], 200))
    # The first batch has nearly the first condition only.
    conditions[:170], conditions[230:] = 0, 1
    moved = cells + 20 * conditions[:, None].astype(np.float32)
    np.testing.assert_allclose(separation(moved, batches, 5, conditions), 1, atol=0.15)
    apart = moved + 3 * batches[:, None].astype(np.float32)
    assert separation(apart, batches, 5, conditions).min() > 1.5
    lone = conditions.copy()
    lone[0] = 2  # alone in its condition
    assert np.isfinite(separation(moved, batches, 5, lone)).all()
