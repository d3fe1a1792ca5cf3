import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from scrcl.cluster.leiden import leiden, leiden_with


def test_leiden_is_reproducible_and_leaves_the_global_generator_alone():
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
