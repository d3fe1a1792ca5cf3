import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

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


def test_kmeans_reaches_the_inertia_of_scikit_learn(blobs):
    points = np.random.default_rng(1).normal(size=(200, 5)).astype(np.float32)
    found = kmeans(points, 7, 3)
    assert found.centers is not None
    inertia = ((points - found.centers[found.labels]) ** 2).sum()
    assert inertia == pytest.approx(KMeans(7, n_init=20, random_state=3).fit(points).inertia_, rel=1e-6)


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


def test_leiden_is_reproducible_and_leaves_the_global_generator_alone(blobs):
    import random

    points = np.random.default_rng(2).normal(size=(300, 3)).astype(np.float32)
    random.seed(1)
    expected = random.random()
    random.seed(1)
    one = leiden(points, 1.0, 0).labels
    assert random.random() == expected
    np.testing.assert_array_equal(leiden(points, 1.0, 0).labels, one)


def test_more_resolution_more_clusters():
    points = np.random.default_rng(3).normal(size=(300, 3)).astype(np.float32)
    counts = [leiden(points, resolution, 0).n_clusters for resolution in (0.1, 1, 5)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_leiden_says_when_a_number_of_clusters_cannot_be_had():
    points = np.repeat(np.array([[0.0], [50.0]]), 30, axis=0) + np.linspace(0, 1, 60)[:, None]
    with pytest.warns(UserWarning, match="No resolution of Leiden gives 1 clusters"):
        found = leiden_with(points.astype(np.float32), 1, 0)
    assert adjusted_rand_score(np.repeat([0, 1], 30), found.labels) > 0
