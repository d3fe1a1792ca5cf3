import numpy as np
import pyro
import pytest
import torch
from scipy.special import softmax
from scipy.stats import multivariate_t

import scrcl.nn.mixture
from scrcl.cluster.confidence import Mixture, component_means
from scrcl.nn.mixture import MixtureModel, Start, find_start, fit_mixture

pytestmark = pytest.mark.usefixtures("full_inference")
CENTERS = np.array([[5.0, 0, 0], [0, 5, 0], [0, 0, 5]])


def toy(each: int = 100, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    points = CENTERS.repeat(each, 0) + np.random.default_rng(seed).normal(size=(3 * each, 3))
    return points - CENTERS.mean(0), np.repeat([0, 1, 2], each)


def posterior(mixture: Mixture, points: np.ndarray) -> np.ndarray:
    """Probability of each cluster, the last one of none."""
    return softmax(mixture.log_clusters(points, 0), axis=1)


@pytest.fixture(scope="module")
def fitted(full_inference):
    return fit_mixture(*toy(), None, 0)


def test_density_of_the_model_against_scipy():
    points, labels = toy(3)
    start = Start(np.eye(3), np.arange(3), np.ones(2), np.array([2.0, 3, 4]), np.array([0, 0, 1]), np.full(3, 1 / 3))
    values = {
        "weights": torch.tensor([0.2, 0.3, 0.4, 0.1]),
        "means": torch.tensor(CENTERS, dtype=torch.float32),
        "kind_scales": torch.tensor([0.5, 1.5]),
        "factors": torch.tensor([1.0, 2.0, 0.5]),
        "degrees": torch.tensor([3.0, 5.0]),
        "mislabeled": torch.tensor(0.2),
    }
    model = pyro.condition(MixtureModel(start, len(points), 1), data=values)
    arguments = (
        torch.tensor(points, dtype=torch.float32),
        torch.tensor(labels),
        torch.zeros(len(points), dtype=torch.long),
    )
    trace = pyro.poutine.trace(model).get_trace(*arguments)
    trace.compute_log_prob()

    def by_kind(mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        first = multivariate_t(mean[:2], np.diag(scale[:2] ** 2), 3).pdf(points[:, :2])
        return first * multivariate_t(mean[2:], np.diag(scale[2:] ** 2), 5).pdf(points[:, 2:])

    total = np.zeros(len(points))
    for k in range(3):
        scale = np.array([1.0, 2.0, 0.5])[k] * np.array([0.5, 0.5, 1.5])
        labeled = np.where(labels == k, 0.8, 0.1)
        total += [0.2, 0.3, 0.4][k] * labeled * by_kind(CENTERS[k], scale)
    total += 0.1 / 3 * by_kind(np.zeros(3), np.array([2.0, 3, 4]))
    np.testing.assert_allclose(trace.nodes["observed"]["log_prob"].detach().numpy(), np.log(total), rtol=1e-4)


@pytest.mark.slow
def test_the_parameters_are_found(fitted):
    points, labels = toy()
    means, clusters = component_means(points, labels, 0)
    assert fitted.clusters.tolist() == clusters.tolist()
    found = [np.average(fitted.means[clusters == k], 0, fitted.weights[:-1][clusters == k]) for k in range(3)]
    np.testing.assert_allclose(found, CENTERS - CENTERS.mean(0), atol=0.6)
    assert fitted.weights[-1] < 0.05
    assert (fitted.deviations > 0).all()
    assert posterior(fitted, points)[np.arange(300), labels].mean() > 0.95


@pytest.mark.slow
def test_more_cells_make_means_more_certain(fitted):
    assert fit_mixture(*toy(400), None, 0).deviations.mean() < 0.8 * fitted.deviations.mean()


@pytest.mark.slow
def test_what_lies_between_is_uncertain_and_what_lies_far_is_in_none(fitted):
    between = np.array([[2.5, 2.5, 0], [0, 2.5, 2.5]]) - CENTERS.mean(0)
    assert (posterior(fitted, between).max(1) < 0.9).all()
    assert (posterior(fitted, np.array([[30.0, 30, 30]]))[:, -1] > 0.5).all()


@pytest.mark.slow
def test_wrong_clusters_and_the_shift_of_a_batch_are_found():
    points, labels = toy()
    labels[:5] = 1
    batches = np.arange(300) % 2
    points += np.where(batches[:, None] == 1, [0, 0, 1.5], 0)
    fitted = fit_mixture(points, labels, batches, 0)
    assert (softmax(fitted.log_clusters(points[:5], 0, batches[:5]), axis=1)[:, 1] < 0.1).all()
    assert (fitted.shifts[1] - fitted.shifts[0])[2] == pytest.approx(1.5, abs=0.5)
    assert np.abs((fitted.shifts[1] - fitted.shifts[0])[:2]).max() < 0.5


def test_the_seed_decides_and_the_state_of_torch_stays(monkeypatch):
    monkeypatch.setattr(scrcl.nn.mixture, "N_STEPS", 10)
    state = torch.random.get_rng_state()
    one, again, other = (fit_mixture(*toy(), None, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(again.means, one.means)
    assert not np.array_equal(other.means, one.means)
    assert len(pyro.get_param_store()) == 0


def test_start():
    points, labels = toy()
    start = find_start(points, labels, *component_means(points, labels, 0), np.array([0, 0, 1]))
    assert start.fractions.sum() == pytest.approx(1)
    within = points - np.array([points[labels == k].mean(0) for k in range(3)])[labels]
    np.testing.assert_allclose(start.scales, [within[:, :2].std(), within[:, 2].std()])
    squares = (points**2).mean(0)
    np.testing.assert_allclose(start.spread**2, [squares[:2].mean()] * 2 + [squares[2]])
