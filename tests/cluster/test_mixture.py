import numpy as np
import pytest
from scipy.stats import multivariate_t

from scrcl.cluster.mixture import Certainty, Mixture, Space, divide, log_student_t


@pytest.fixture
def mixture() -> Mixture:
    """Two clusters, the first of two components, in three dimensions."""
    rng = np.random.default_rng(0)
    return Mixture(
        means=rng.normal(size=(3, 3)),
        deviations=np.full((3, 3), 0.3),
        scales=rng.uniform(0.5, 1, size=(3, 3)),
        weights=np.array([0.2, 0.3, 0.4, 0.1]),
        clusters=np.array([0, 0, 1]),
        degrees=3.5,
        spread=np.array([6.0, 7.0, 8.0]),
        shifts=np.zeros((0, 3)),
    )


POINTS = np.random.default_rng(1).normal(size=(7, 3))


def densities(mixture: Mixture, points: np.ndarray, extra: float = 0.0) -> np.ndarray:
    """Weight times density by scipy, component by component."""
    means = [*mixture.means, np.zeros(3)]
    variances = [*(mixture.scales**2 + mixture.deviations**2), mixture.spread**2]
    parts = [
        weight * multivariate_t(mean, np.diag(variance + extra), mixture.degrees).pdf(points)
        for weight, mean, variance in zip(mixture.weights, means, variances, strict=True)
    ]
    return np.transpose(parts)


def test_density_against_scipy():
    means, scales = np.random.default_rng(2).normal(size=(2, 4, 3))
    scales = np.abs(scales) + 0.1
    expected = [multivariate_t(m, np.diag(s**2), 2.5).logpdf(POINTS) for m, s in zip(means, scales, strict=True)]
    np.testing.assert_allclose(log_student_t(POINTS, means, scales, 2.5), np.transpose(expected), rtol=1e-9)


def test_probabilities_against_scipy(mixture):
    parts = densities(mixture, POINTS)
    by_cluster = np.column_stack([parts[:, :2].sum(1), parts[:, 2]])
    expected = by_cluster / by_cluster.sum(1, keepdims=True)
    np.testing.assert_allclose(mixture.probabilities(POINTS), expected, rtol=1e-9)
    np.testing.assert_allclose(mixture.outlier_scores(POINTS), parts[:, 3] / parts.sum(1), rtol=1e-9)


def test_a_temperature_halves_log_odds(mixture):
    warm = Mixture(**{**vars(mixture), "temperature": 2.0})
    odds, warmer = (
        np.log(found[:, 0] / found[:, 1]) for found in (mixture.probabilities(POINTS), warm.probabilities(POINTS))
    )
    np.testing.assert_allclose(warmer, odds / 2)


def test_batches_are_shifted_back_and_unknown_ones_widen(mixture):
    shifts = np.array([[1.0, 0, 0], [0, -2.0, 0]])
    shifted = Mixture(**{**vars(mixture), "shifts": shifts, "shift_scale": 1.5})
    batches = np.array([0, 1, 0, 1, 0, 1, -1])
    found = np.exp(shifted.log_densities(POINTS + shifts[batches] * (batches >= 0)[:, None], batches))
    np.testing.assert_allclose(found[:-1], densities(mixture, POINTS)[:-1], rtol=1e-9)
    np.testing.assert_allclose(found[-1], densities(mixture, POINTS, 1.5**2)[-1], rtol=1e-9)


def test_far_points_are_in_no_cluster(mixture):
    assert (mixture.outlier_scores(100 * np.eye(3)) > 0.5).all()
    assert (mixture.outlier_scores(mixture.means) < 0.2).all()


def test_a_space_has_the_distances_of_its_points():
    rng = np.random.default_rng(0)
    kinds = [rng.normal(size=(50, 4)), 1000 * rng.normal(size=(50, 30)) + 5]
    space = Space.fit(kinds)
    points = space(kinds)
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-9)
    scaled = np.linalg.norm(kinds[0][:, None] - kinds[0], axis=2)
    found = np.linalg.norm(points[:, None, :4] - points[:, :4], axis=2)
    np.testing.assert_allclose(found / found.max(), scaled / scaled.max(), atol=1e-9)
    assert np.linalg.norm(points[:, :4]) == pytest.approx(np.sqrt(49), rel=1e-6)


def test_parts_are_of_one_cluster_each():
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0], [0, 5], [9, 0]])
    points = centers.repeat(60, 0) + 0.1 * rng.normal(size=(180, 2))
    means, clusters = divide(points, np.repeat([0, 0, 1], 60), seed=0)
    assert (np.bincount(clusters) == [3, 2]).all()
    assert np.abs(means[clusters == 1] - centers[2]).max() < 0.5


def test_few_cells_have_one_part():
    means, clusters = divide(POINTS, np.array([0, 0, 0, 0, 0, 1, 1]), seed=0)
    assert clusters.tolist() == [0, 1]
    np.testing.assert_allclose(means[0], POINTS[:5].mean(0))


def test_certainty_survives_a_dictionary(mixture):
    certainty = Certainty(Space.fit([POINTS]), mixture)
    again = Certainty.from_dict(certainty.to_dict())
    np.testing.assert_array_equal(again.probabilities([POINTS]), certainty.probabilities([POINTS]))
