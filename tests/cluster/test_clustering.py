import numpy as np
import pytest

from scrcl.cluster.clustering import Clustering
from scrcl.cluster.kmeans import kmeans
from scrcl.cluster.leiden import leiden, leiden_with


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Four blobs of 40, 35, 30 and 25 points."""
    rng = np.random.default_rng(0)
    truth = np.repeat([2, 0, 1, 3], [30, 40, 35, 25])
    return (8 * np.eye(4)[truth] + rng.normal(size=(130, 4))).astype(np.float32), truth


METHODS = {
    "kmeans": lambda points: kmeans(points, 4, 0),
    "leiden": lambda points: leiden(points, 0.1, 0),
    "leiden with a number": lambda points: leiden_with(points, 4, 0),
}


@pytest.mark.parametrize("method", METHODS)
def test_clusters_are_found_and_numbered_by_size(blobs, method):
    points, truth = blobs
    np.testing.assert_array_equal(METHODS[method](points).labels, truth)


@pytest.mark.parametrize("method", METHODS)
def test_further_points_join_the_nearest_cluster(blobs, method):
    points, truth = blobs
    further = 8 * np.eye(4, dtype=np.float32)[[3, 1, 0, 2]]
    np.testing.assert_array_equal(METHODS[method](points).assign(further), [3, 1, 0, 2])


def test_assignment_by_hand():
    points = np.array([[0.0], [1.0], [2.0], [9.0]])
    by_center = Clustering(points, np.array([0, 0, 0, 1]), np.array([[1.0], [9.0]]))
    np.testing.assert_array_equal(by_center.assign(np.array([[4.9], [5.1]])), [0, 1])
    # Without centres, most of the neighbours decide: there are three of cluster 0 among all four.
    by_votes = Clustering(points, np.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(by_votes.assign(np.array([[4.9], [5.1], [9.0]])), [0, 0, 0])


@pytest.mark.parametrize("n_block", [7, 1000])
def test_points_join_with_one_search(blobs, n_block, monkeypatch):
    """Clusters and probabilities against a search by brute force, in blocks of any size, where all lists are searched."""
    monkeypatch.setattr("scrcl.cluster.clustering.BLOCK_POINTS", n_block)
    monkeypatch.setattr("scrcl.graph.neighbors.SEARCHED_SHARE", 1.0)
    points, truth = blobs
    rng = np.random.default_rng(1)
    known = rng.dirichlet(np.ones(4), len(points))
    found = Clustering(points, truth, probabilities=known)
    further = rng.normal(size=(30, 4)).astype(np.float32) * 5
    nearest = np.argsort(((further[:, None] - points) ** 2).sum(2), axis=1)[:, :15]
    labels, probabilities = found.join(further)
    np.testing.assert_array_equal(labels, [np.argmax(np.bincount(own)) for own in truth[nearest]])
    np.testing.assert_allclose(probabilities, known[nearest].mean(1))
