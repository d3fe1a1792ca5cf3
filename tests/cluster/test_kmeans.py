import numpy as np
import pytest
from sklearn.cluster import KMeans

from scrcl.cluster.kmeans import best_kmeans, fit_kmeans, kmeans, repeat_kmeans


def test_kmeans_reaches_the_inertia_of_scikit_learn():
    points = np.random.default_rng(1).normal(size=(200, 5)).astype(np.float32)
    found = kmeans(points, 7, 3)
    assert found.centers is not None
    inertia = ((points - found.centers[found.labels]) ** 2).sum()
    assert inertia == pytest.approx(KMeans(7, n_init=20, random_state=3).fit(points).inertia_, rel=1e-6)


def test_of_many_points_centres_are_found_on_some():
    """Each point is with the nearest centre, and the centres are those of the points drawn."""
    rng = np.random.default_rng(0)
    points = (np.eye(3)[rng.integers(3, size=400)] * 9 + rng.normal(size=(400, 3))).astype(np.float32)
    labels, centers = fit_kmeans(points, 3, 2, seed=1, n_sampled=60)
    distances = np.linalg.norm(points[:, None] - centers, axis=2)
    np.testing.assert_array_equal(labels, distances.argmin(1))
    drawn = points[np.random.default_rng(1).choice(400, 60, replace=False)]
    expected = KMeans(3, n_init=2, random_state=1).fit(drawn).cluster_centers_
    np.testing.assert_allclose(centers, expected, rtol=1e-5)


def test_starts_from_shared_distances_are_as_good_as_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(30, 20))[rng.integers(30, size=600)] * 3 + rng.normal(size=(600, 20))).astype(np.float32)

    def inertia(labels: np.ndarray) -> float:
        return sum(((points[labels == own] - points[labels == own].mean(0)) ** 2).sum() for own in np.unique(labels))

    ours = [inertia(labels) for labels in repeat_kmeans(points, 30, range(10))]
    theirs = [inertia(KMeans(30, n_init=1, random_state=seed).fit_predict(points)) for seed in range(10)]
    assert len(set(ours)) > 1
    assert np.mean(ours) < 1.03 * np.mean(theirs)


def test_starts_where_points_are_the_same(recwarn):
    points = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    for labels in [*repeat_kmeans(points, 5, range(3)), *best_kmeans(points, [3, 5], [0])]:
        assert len(np.unique(labels[::10])) == 3
    assert not recwarn


def test_weighted_points_are_repeated_points():
    """The best of some starts is as good as that of scikit-learn, for each number of clusters."""
    rng = np.random.default_rng(0)
    points, weights = rng.normal(size=(80, 3)).astype(np.float32), rng.integers(1, 6, size=80)
    repeated = np.repeat(points, weights, axis=0)

    def inertia(labels: np.ndarray) -> float:
        return sum(
            ((repeated[labels == own] - repeated[labels == own].mean(0)) ** 2).sum() for own in np.unique(labels)
        )

    numbers = [3, 6, 12]
    for number, labels in zip(numbers, best_kmeans(points, numbers, range(20), weights), strict=True):
        assert labels.max() == number - 1
        expected = KMeans(number, n_init=20, random_state=0).fit(repeated).inertia_
        assert inertia(np.repeat(labels, weights)) < 1.02 * expected
