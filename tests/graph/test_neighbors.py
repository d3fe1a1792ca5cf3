"""Nearest neighbours, exact against brute force, approximate against exact."""

import numpy as np
import pytest

from scrcl.graph import neighbors
from scrcl.graph.neighbors import nearest_neighbors

#: Five points on a line; the neighbours can be told by eye.
LINE = np.array([[0.0], [1.0], [3.0], [6.0], [10.0]], dtype=np.float32)


def test_nearest_neighbors_of_points_on_a_line():
    found = nearest_neighbors(LINE, 2)
    np.testing.assert_array_equal(found.indices, [[1, 2], [0, 2], [1, 0], [2, 4], [3, 2]])
    np.testing.assert_allclose(found.distances, [[1, 3], [1, 2], [2, 3], [3, 4], [4, 7]])


def test_nearest_neighbors_against_brute_force():
    points = np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32)
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    found = nearest_neighbors(points, 7)
    np.testing.assert_array_equal(found.indices, np.argsort(distances, axis=1)[:, :7])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :7], rtol=1e-5)


def test_duplicate_points_are_never_their_own_neighbor():
    found = nearest_neighbors(np.repeat(LINE, 3, axis=0), 2)
    assert not (found.indices == np.arange(15)[:, None]).any()
    assert (found.distances == 0).all()


def test_neighbors_of_no_points():
    assert nearest_neighbors(LINE, 2, LINE[:0]).indices.shape == (0, 2)


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, 10))
    return (centers[rng.integers(20, size=3000)] + 0.4 * rng.normal(size=(3000, 10))).astype(np.float32)


class TestApproximateNeighbors:
    @pytest.fixture(autouse=True, params=["lists", pytest.param("descent", marks=pytest.mark.slow)])
    def approximate(self, request, monkeypatch):
        monkeypatch.setattr(neighbors, "EXACT_TARGETS", 1000)
        if request.param == "descent":
            monkeypatch.setattr(neighbors, "LISTED_TARGETS", 1000)
            monkeypatch.setattr(neighbors, "EXACT_PAIRS", 0)

    @staticmethod
    def exact(points, queries, k, skip):
        from sklearn.neighbors import NearestNeighbors

        return NearestNeighbors(algorithm="brute").fit(points).kneighbors(queries, k + skip)[1][:, skip:]

    def test_recall_and_reproducibility(self, points):
        found = neighbors.nearest_neighbors(points, 15)
        expected = self.exact(points, points, 15, skip=1)
        recall = np.mean([len(np.intersect1d(a, b)) / 15 for a, b in zip(found.indices, expected, strict=True)])
        assert recall >= 0.95
        assert not (found.indices == np.arange(3000)[:, None]).any()
        assert (np.diff(found.distances, axis=1) >= 0).all()
        np.testing.assert_array_equal(found.indices, neighbors.nearest_neighbors(points, 15).indices)

    def test_queries_do_not_depend_on_each_other(self, points):
        new = points[:200] + 0.05
        search = neighbors.NeighborSearch(points)
        together = search(new, 15)
        expected = self.exact(points, new, 15, skip=0)
        recall = np.mean([len(np.intersect1d(a, b)) / 15 for a, b in zip(together.indices, expected, strict=True)])
        assert recall >= 0.95
        np.testing.assert_array_equal(search(new[7:8], 15).indices, together.indices[7:8])

    def test_duplicates(self, points):
        found = neighbors.nearest_neighbors(np.repeat(points[:300], 5, axis=0), 4)
        assert not (found.indices == np.arange(1500)[:, None]).any()
        assert (found.distances == 0).mean() > 0.95

    def test_distances_are_those_of_the_points_found(self, points):
        found = neighbors.nearest_neighbors(points + 100, 15)
        expected = np.linalg.norm(points[found.indices].astype(np.float64) - points[:, None], axis=2)
        np.testing.assert_allclose(found.distances, expected, rtol=1e-3)

    def test_too_many_neighbors(self, points, monkeypatch):
        monkeypatch.setattr(neighbors, "LISTED_TARGETS", 1000)
        with pytest.raises(ValueError, match="n_neighbors=40 is too large.*at most 29"):
            neighbors.nearest_neighbors(points, 40)


def test_lists_find_what_is_nearest_among_all_when_all_are_searched(points, monkeypatch):
    monkeypatch.setattr(neighbors, "SEARCHED_SHARE", 1.0)
    search, new = neighbors.ListSearch(points), points[:500] + 0.1
    for found, exact in (
        (search.among_themselves(7), nearest_neighbors(points, 7)),
        (search(new, 7), nearest_neighbors(points, 7, new)),
    ):
        np.testing.assert_array_equal(found[1], exact.indices)
        np.testing.assert_allclose(found[0], exact.distances, rtol=1e-5)


@pytest.mark.parametrize("n", [3, 100, 600])
def test_lists_of_few_points(n):
    """As many as are asked for are found, whatever is near."""
    points = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    found = neighbors.ListSearch(points)(points, n)[1]
    np.testing.assert_array_equal(np.sort(found, 1), np.tile(np.arange(n), (n, 1)))


def test_lists_of_points_that_coincide():
    distances, indices = neighbors.ListSearch(np.zeros((600, 3))).among_themselves(5)
    assert (distances == 0).all()
    assert not (indices == np.arange(600)[:, None]).any()


def test_few_points_are_compared_with_all_of_many_targets(monkeypatch):
    """No index is built for them, and their neighbours are exact."""
    rng = np.random.default_rng(0)
    targets, points = rng.normal(size=(400, 3)).astype(np.float32), rng.normal(size=(7, 3)).astype(np.float32)
    monkeypatch.setattr(neighbors, "EXACT_TARGETS", 100)
    monkeypatch.setattr(neighbors, "LISTED_TARGETS", 100)
    monkeypatch.setattr(neighbors.NeighborSearch, "_index", property(lambda self: pytest.fail("an index was built")))
    found = nearest_neighbors(targets, 4, points)
    distances = np.linalg.norm(points[:, None] - targets, axis=2)
    np.testing.assert_array_equal(found.indices, distances.argsort(1)[:, :4])
    np.testing.assert_allclose(found.distances, np.sort(distances, 1)[:, :4], rtol=1e-4)
    monkeypatch.setattr(neighbors, "EXACT_PAIRS", 7 * 400 - 1)
    with pytest.raises(pytest.fail.Exception, match="an index was built"):
        nearest_neighbors(targets, 4, points)
