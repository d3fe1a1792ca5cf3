import numpy as np
import pytest

from scrcl.cluster.components import Components


@pytest.fixture
def points() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (5 + rng.normal(size=(200, 4)) * [4, 3, 2, 1]).astype(np.float32)


def test_all_components_keep_distances_up_to_the_scale(points):
    reduced = Components.fit(points, 50)(points)
    assert reduced.dtype == np.float32
    np.testing.assert_allclose(reduced.mean(0), 0, atol=1e-5)
    assert (reduced**2).sum(1).mean() == pytest.approx(1, rel=1e-4)
    expected = np.linalg.norm(points[:50] - points[50:100], axis=1)
    found = np.linalg.norm(reduced[:50] - reduced[50:100], axis=1)
    np.testing.assert_allclose(found / expected, found[0] / expected[0], rtol=1e-3)


def test_leading_components_against_a_singular_value_decomposition(points):
    u, s, _ = np.linalg.svd(points - points.mean(0), full_matrices=False)
    found = Components.fit(points.astype(np.float64), 2)(points)
    expected = u[:, :2] * s[:2] / np.sqrt((s[:2] ** 2).sum() / len(points))
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)


def test_the_scale_of_the_points_does_not_matter(points):
    np.testing.assert_allclose(Components.fit(points, 3)(points), Components.fit(8 * points, 3)(8 * points), atol=1e-5)


def test_points_that_do_not_vary():
    points = np.ones((5, 2), np.float32)
    np.testing.assert_array_equal(Components.fit(points, 2)(points), 0)
