from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_t

from scrcl.cluster.confidence import (
    ClusterConfidence,
    JointComponents,
    Mixture,
    component_means,
    log_student_t,
    log_sum,
)

#: Dimensions of each kind.
FIRST, SECOND = slice(0, 2), slice(2, 5)
POINTS = np.random.default_rng(1).normal(size=(7, 5))


@pytest.fixture
def mixture() -> Mixture:
    """Two clusters, the first of two components, in two kinds of points."""
    rng = np.random.default_rng(0)
    return Mixture(
        kinds=np.array([0, 0, 1, 1, 1]),
        means=rng.normal(size=(3, 5)),
        deviations=np.full((3, 5), 0.3),
        scales=rng.uniform(0.5, 1, size=(3, 5)),
        weights=np.array([0.2, 0.3, 0.4, 0.1]),
        clusters=np.array([0, 0, 1]),
        degrees=np.array([3.5, 5.0]),
        spread=np.array([6.0, 7.0, 8.0, 8.0, 8.0]),
        shifts=np.zeros((0, 5)),
    )


def densities(mixture: Mixture, points: np.ndarray, part: slice, degrees: float, extra: float = 0.0) -> np.ndarray:
    """Weight times density by scipy, component by component, in one kind."""
    means = [*mixture.means, np.zeros(5)]
    variances = [*(mixture.scales**2 + mixture.deviations**2), mixture.spread**2]
    parts = [
        weight * multivariate_t(mean[part], np.diag(variance[part] + extra), degrees).pdf(points[:, part])
        for weight, mean, variance in zip(mixture.weights, means, variances, strict=True)
    ]
    return np.transpose(parts)


def test_log_sum_against_scipy():
    logs = np.random.default_rng(0).normal(size=(6, 4)) * 1000
    logs[0], logs[1, :3], logs[2, 0], logs[3] = -np.inf, -np.inf, -np.inf, 5
    np.testing.assert_allclose(log_sum(logs), logsumexp(logs, axis=1), rtol=1e-14)
    np.testing.assert_array_equal(log_sum(logs[:, :1]), logs[:, 0])


def test_density_against_scipy():
    means, scales = np.random.default_rng(2).normal(size=(2, 4, 5))
    scales = np.abs(scales) + 0.1
    expected = [multivariate_t(m, np.diag(s**2), 2.5).logpdf(POINTS) for m, s in zip(means, scales, strict=True)]
    np.testing.assert_allclose(log_student_t(POINTS, means, scales, 2.5), np.transpose(expected), rtol=1e-9)


def test_clusters_against_scipy(mixture):
    for kind, (part, degrees) in enumerate([(FIRST, 3.5), (SECOND, 5.0)]):
        parts = densities(mixture, POINTS, part, degrees)
        expected = np.column_stack([parts[:, :2].sum(1), parts[:, 2:]])
        np.testing.assert_allclose(np.exp(mixture.log_clusters(POINTS, kind)), expected, rtol=1e-9)


def test_batches_are_shifted_back_and_unknown_ones_widen(mixture):
    shifts = np.array([[1.0, 0, 0, 0, 0], [0, -2.0, 0, 0, 1]])
    shifted = replace(mixture, shifts=shifts, shift_scale=1.5)
    batches = np.array([0, 1, 0, 1, 0, 1, -1])
    moved = POINTS + shifts[batches] * (batches >= 0)[:, None]
    found = np.exp(shifted.log_densities(moved, 0, batches)) * mixture.weights
    np.testing.assert_allclose(found[:-1], densities(mixture, POINTS, FIRST, 3.5)[:-1], rtol=1e-9)
    np.testing.assert_allclose(found[-1], densities(mixture, POINTS, FIRST, 3.5, 1.5**2)[-1], rtol=1e-9)


def test_pairs_by_hand(mixture):
    """The components of cluster 0 each with the one of cluster 1, and never with each other."""
    expected = np.zeros(7)
    for first, weight in ((0, 0.4), (1, 0.6)):
        variance = (mixture.scales[first] ** 2 + mixture.scales[2] ** 2) / 2
        for share in (0.35, 0.5, 0.65):
            mean = 1.2 * (share * mixture.means[first] + (1 - share) * mixture.means[2])
            expected += weight / 3 * multivariate_t(mean[SECOND], np.diag(variance[SECOND]), 5).pdf(POINTS[:, SECOND])
    np.testing.assert_allclose(mixture.log_pairs(POINTS, 1), np.log(expected), rtol=1e-9)
    many = mixture.log_pairs(np.tile(POINTS, (1000, 1)), 1)  # in several blocks
    np.testing.assert_allclose(many, np.tile(np.log(expected), 1000), rtol=1e-9)


def toy(each: int = 60) -> tuple[list[np.ndarray], np.ndarray, Mixture, JointComponents]:
    """Three clusters in two kinds of points, and the mixture by their means and scales."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], each)
    kinds = [4.0 * np.eye(3)[labels] + rng.normal(size=(3 * each, 3)) for _ in range(2)]
    space = JointComponents.fit(kinds)
    points = space(kinds)
    means = np.array([points[labels == k].mean(0) for k in range(3)])
    mixture = Mixture(
        kinds=space.kinds,
        means=means,
        deviations=np.zeros_like(means),
        scales=np.full_like(means, (points - means[labels]).std()),
        weights=np.array([0.33, 0.33, 0.33, 0.01]),
        clusters=np.arange(3),
        degrees=np.array([4.0, 4.0]),
        spread=points.std(0) * 2,
        shifts=np.zeros((0, points.shape[1])),
    )
    return kinds, labels, mixture, space


def test_certainty_by_hand():
    kinds, labels, mixture, space = toy()
    certainty = ClusterConfidence.fit(space, mixture, kinds, labels, 0.9)
    found = certainty.probabilities(kinds, labels)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    rows = np.arange(len(labels))
    own = found[rows, labels]
    assert own.mean() == pytest.approx(0.9, abs=1e-5)
    latent, features = (mixture.log_clusters(space(kinds), kind) for kind in (0, 1))
    weights = np.exp(features[:, :3] - features[:, :3].max())
    odds = np.log(weights[rows, labels] / (weights.sum(1) - weights[rows, labels]))
    standard = [(value - np.median(value)) / value.std() for value in (odds, latent[rows, labels])]
    doubt = np.exp(-standard[0]) + np.exp(-standard[1])
    ratio = (1 / own - 1) / doubt
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)  # e^-λ, the same for all
    others = found[0, 1:] / found[0, 1:].sum()
    expected = np.exp((features[0, 1:3] - features[0, 1]) / odds.std())
    np.testing.assert_allclose(others, expected / expected.sum(), rtol=1e-4)


def test_what_lies_between_is_less_certain_and_far_is_outlying():
    kinds, labels, mixture, space = toy()
    certainty = ClusterConfidence.fit(space, mixture, kinds, labels, 0.9)
    own = certainty.probabilities(kinds, labels)[np.arange(180), labels]
    between = [np.array([[2.0, 2, 0]])] * 2
    assert certainty.probabilities(between, np.array([0]))[0, 0] < np.quantile(own, 0.1)
    assert certainty.doublet_scores(between)[0] > np.quantile(certainty.doublet_scores(kinds), 0.95)
    far = [np.array([[-20.0, -20, -20]])] * 2
    assert certainty.outlier_scores(far, np.array([0]))[0] > certainty.outlier_scores(kinds, labels).max()


def test_counts_speak_for_doublets():
    kinds, labels, mixture, space = toy()
    certainty = ClusterConfidence.fit(space, mixture, kinds, labels, 0.9)
    without = certainty.doublet_scores(kinds)
    found = certainty.doublet_scores(kinds, log_counts=np.full(180, 0.5))
    np.testing.assert_allclose(found, (without + 1) / np.sqrt(2), atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_levels_at_the_bounds(level):
    kinds, labels, mixture, space = toy()
    own = ClusterConfidence.fit(space, mixture, kinds, labels, level).probabilities(kinds, labels)[
        np.arange(180), labels
    ]
    assert own.mean() == pytest.approx(np.clip(level, 0.05, 0.999), abs=1e-4)


def test_a_single_cluster_is_certain():
    kinds, labels, mixture, space = toy()
    single = replace(mixture, clusters=np.zeros(3, dtype=int))
    certainty = ClusterConfidence.fit(space, single, kinds, 0 * labels, 1.0)
    assert (certainty.probabilities(kinds, 0 * labels) == 1).all()
    assert np.isfinite(certainty.doublet_scores(kinds)).all()


def test_joint_components_keep_the_distances_of_each_kind():
    rng = np.random.default_rng(0)
    kinds = [rng.normal(size=(50, 4)), 1000 * rng.normal(size=(50, 30)) + 5]
    space = JointComponents.fit(kinds)
    points = space(kinds)
    assert (np.bincount(space.kinds) == [4, 30]).all()
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-9)
    for kind, given in enumerate(kinds):
        part = points[:, space.kinds == kind]
        expected = np.linalg.norm(given[:, None] - given, axis=2)
        found = np.linalg.norm(part[:, None] - part, axis=2)
        np.testing.assert_allclose(found / found.max(), expected / np.max(expected), atol=1e-6)
        assert np.linalg.norm(part) == pytest.approx(np.sqrt(50), rel=1e-6)


def test_parts_are_of_one_cluster_each(monkeypatch):
    monkeypatch.setattr("scrcl.cluster.confidence.MAX_COMPONENTS_OF_CLUSTER", 2)
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0], [0, 5], [9, 0]])
    points = centers.repeat(60, 0) + 0.1 * rng.normal(size=(180, 2))
    means, clusters = component_means(points, np.repeat([0, 0, 1], 60), seed=0)
    assert clusters.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(means[np.argsort(means[:2, 1])], centers[:2], atol=0.1)
    assert np.abs(means[2:] - centers[2]).max() < 0.5


def test_by_default_a_cluster_is_one_part():
    labels = np.array([0, 0, 0, 0, 0, 1, 1])
    means, clusters = component_means(POINTS, labels, seed=0)
    assert clusters.tolist() == [0, 1]
    np.testing.assert_allclose(means, [POINTS[:5].mean(0), POINTS[5:].mean(0)])


def test_certainty_survives_a_dictionary():
    kinds, labels, mixture, space = toy()
    certainty = ClusterConfidence.fit(space, mixture, kinds, labels, 0.9)
    again = ClusterConfidence.from_dict(certainty.to_dict())
    np.testing.assert_array_equal(again.probabilities(kinds, labels), certainty.probabilities(kinds, labels))


def test_what_is_usual_is_told_by_a_sample(monkeypatch):
    kinds, labels, mixture, space = toy()
    certainty = ClusterConfidence.fit(space, mixture, kinds, labels, 0.9)
    monkeypatch.setattr("scrcl.utils.sizes.SAMPLE_CELLS", 120)
    sampled = ClusterConfidence.fit(space, mixture, kinds, labels, 0.9)
    assert not np.array_equal(sampled.centers, certainty.centers)
    differences = np.abs(sampled.probabilities(kinds, labels) - certainty.probabilities(kinds, labels))
    assert differences.mean() < 0.05
