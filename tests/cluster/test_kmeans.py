import numpy as np
import pytest
from sklearn.cluster import KMeans

from scrcl.cluster.kmeans import fit_kmeans, kmeans


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
