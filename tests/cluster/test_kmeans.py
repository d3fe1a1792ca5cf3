import numpy as np
import pytest
from sklearn.cluster import KMeans

from scrcl.cluster.kmeans import kmeans


def test_kmeans_reaches_the_inertia_of_scikit_learn(blobs):
    points = np.random.default_rng(1).normal(size=(200, 5)).astype(np.float32)
    found = kmeans(points, 7, 3)
    assert found.centers is not None
    inertia = ((points - found.centers[found.labels]) ** 2).sum()
    assert inertia == pytest.approx(KMeans(7, n_init=20, random_state=3).fit(points).inertia_, rel=1e-6)
