from collections.abc import Iterator

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal, init_to_value
from scipy.special import softmax
from scipy.stats import multivariate_t

import scrcl.nn.mixture
from scrcl.cluster.confidence import Mixture, component_means
from scrcl.nn.mixture import LEARNING_RATE, MixtureModel, Start, find_start, fit_mixture

pytestmark = pytest.mark.usefixtures("full_inference")
CENTERS = np.array([[5.0, 0, 0], [0, 5, 0], [0, 0, 5]])


class PyroModel:
    """The model of :class:`scrcl.nn.mixture.MixtureModel` in Pyro, and its guide: an oracle for densities and gradients."""

    def __init__(self, start: Start, n_obs: int, n_batches: int) -> None:
        self.n_obs, self.n_batches, self.n_clusters = n_obs, n_batches, int(start.clusters.max()) + 1
        self.clusters, self.kinds = torch.tensor(start.clusters), torch.tensor(start.kinds)
        self.means, self.scales, self.spread, self.fractions = (
            torch.tensor(values, dtype=torch.float32)
            for values in (start.means, start.scales, start.spread, start.fractions)
        )

    def __call__(self, points: torch.Tensor, labels: torch.Tensor, batches: torch.Tensor) -> None:
        number, dimensions = self.means.shape
        zero, one = torch.zeros(()), torch.ones(())
        weights = pyro.sample("weights", dist.Dirichlet(torch.cat([self.fractions * number, one[None]]) + 1))
        means = pyro.sample("means", dist.Normal(self.means, self.scales[self.kinds]).to_event(2))
        kind_scales = pyro.sample("kind_scales", dist.LogNormal(self.scales.log(), 0.2).to_event(1))[self.kinds]
        factors = pyro.sample("factors", dist.LogNormal(zero.expand(number), 0.1).to_event(1))
        degrees = pyro.sample("degrees", dist.LogNormal(np.log(4.0) * torch.ones_like(self.scales), 0.5).to_event(1))
        mislabeled = pyro.sample("mislabeled", dist.Beta(one, 19 * one))
        if self.n_batches > 1:
            shift_scale = pyro.sample("shift_scale", dist.HalfNormal(self.scales.mean()))
            shifts = dist.Normal(zero.expand(self.n_batches, dimensions), shift_scale).to_event(2)
            points = points - pyro.sample("shifts", shifts)[batches]
        centers = torch.cat([means, means.new_zeros(1, dimensions)])
        scales = torch.cat([factors[:, None] * kind_scales, self.spread[None]])
        others = mislabeled / max(self.n_clusters - 1, 1)
        density = torch.where(labels[:, None] == self.clusters, 1 - mislabeled, others).log()
        density = torch.cat([density, density.new_full((len(labels), 1), -np.log(self.n_clusters))], 1)
        for kind in range(len(self.scales)):
            columns = self.kinds == kind
            squares = (((points[:, None] - centers) / scales) ** 2)[..., columns].sum(2)
            normal = dist.StudentT(degrees[kind]).log_prob(zero)  # of one dimension, for the constant of many
            size = columns.sum()
            constant = torch.lgamma((degrees[kind] + size) / 2) - torch.lgamma((degrees[kind] + 1) / 2)
            constant = constant + normal - (size - 1) / 2 * (degrees[kind] * np.pi).log()
            tail = (degrees[kind] + size) / 2 * torch.log1p(squares / degrees[kind])
            density = density + constant - scales[:, columns].log().sum(1) - tail
        with pyro.poutine.scale(scale=self.n_obs / len(points)), pyro.plate("cells", len(points)):
            pyro.factor("observed", torch.logsumexp(density + weights.log(), 1))

    def guide(self, *arguments: torch.Tensor) -> AutoNormal:
        """Normal for each transformed parameter."""
        weights = torch.cat([self.fractions * 0.99, torch.tensor([0.01])])
        values = {
            "weights": weights / weights.sum(),
            "means": self.means.clone(),  # the guide changes it
            "kind_scales": self.scales,
            "factors": torch.ones(len(self.means)),
            "degrees": torch.full_like(self.scales, 4.0),
            "mislabeled": torch.tensor(0.05),
            "shift_scale": 0.1 * self.scales.mean(),
            "shifts": torch.zeros(self.n_batches, self.means.shape[1]),
        }
        guide = AutoNormal(self, init_loc_fn=init_to_value(values=values), init_scale=0.02)
        guide(*arguments)  # creates its parameters
        return guide


@pytest.fixture
def local_parameters() -> Iterator[None]:
    """Guides of Pyro do not share their parameters."""
    with pyro.settings.context(module_local_params=True):
        yield


def two_kinds(n_batches: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points of three clusters in five dimensions, a tenth of them in the wrong one, with their batches; and the kinds."""
    rng = np.random.default_rng(0)
    labels, batches = rng.integers(0, 3, 90), rng.integers(0, n_batches, 90)
    points = rng.normal(size=(3, 5))[labels] * 3 + rng.normal(size=(n_batches, 5))[batches] + rng.normal(size=(90, 5))
    labels[:9] = (labels[:9] + 1) % 3
    return points - points.mean(0), labels, batches, np.array([0, 1, 0, 1, 1])


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
    model = pyro.condition(PyroModel(start, len(points), 1), data=values)
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


@pytest.mark.parametrize(
    ("n_batches", "n_rows", "components"),
    [
        pytest.param(3, 90, [0, 1, 2], id="batches"),
        pytest.param(1, 90, [0, 1, 2], id="one batch"),
        pytest.param(3, 40, [0, 1, 2], id="some of the cells"),
        pytest.param(2, 90, [0, 0, 1, 2], id="two components of a cluster"),
        pytest.param(1, 90, [0], id="one cluster"),
    ],
)
@pytest.mark.usefixtures("local_parameters")
def test_gradient_against_pyro(n_batches, n_rows, components):
    points, labels, batches, kinds = two_kinds(n_batches)
    clusters, rng = np.array(components), np.random.default_rng(1)
    labels = np.minimum(labels, clusters.max())
    means = np.stack([points[labels == k].mean(0) for k in clusters]) + rng.normal(size=(len(clusters), 5)) / 10
    start = find_start(points, labels, means, clusters, kinds)
    arguments = tuple(torch.tensor(values[:n_rows]) for values in (points.astype(np.float32), labels, batches))
    oracle, model = PyroModel(start, 90, n_batches), MixtureModel(start, 90, n_batches)
    guide = oracle.guide(*arguments)
    medians = {name: getattr(guide.locs, f"{name}_unconstrained") for name in model.shapes}
    torch.testing.assert_close(model.initial, torch.cat([median.detach().flatten() for median in medians.values()]))
    with torch.no_grad():
        for median in medians.values():
            median += torch.tensor(rng.normal(size=median.shape) / 4)
        parameters = torch.cat([median.flatten() for median in medians.values()])
    torch.manual_seed(0)
    Trace_ELBO().differentiable_loss(oracle, guide, *arguments).backward()
    torch.manual_seed(0)
    noise = torch.empty_like(parameters)
    scrcl.nn.mixture._draw(model, noise)
    cells = model.cells(points[:n_rows], labels[:n_rows], batches[:n_rows])
    found = model.split(model.gradient(parameters + 0.02 * noise, cells))
    for name, median in medians.items():
        atol = 1e-5 * float(median.grad.abs().max())
        np.testing.assert_allclose(found[name], -median.grad, rtol=1e-4, atol=atol, err_msg=name)


@pytest.mark.parametrize("step_cells", [90, 40])
@pytest.mark.usefixtures("local_parameters")
def test_mixture_against_pyro(monkeypatch, step_cells):
    monkeypatch.setattr(scrcl.nn.mixture, "N_STEPS", 30)
    monkeypatch.setattr(scrcl.nn.mixture, "STEP_CELLS", step_cells)
    points, labels, batches, kinds = two_kinds()
    found = fit_mixture(points, labels, batches, 0, kinds)
    oracle = PyroModel(find_start(points, labels, *component_means(points, labels, 0), kinds), 90, 3)
    arguments = torch.tensor(points, dtype=torch.float32), torch.tensor(labels), torch.tensor(batches)
    torch.manual_seed(0)
    torch.randperm(90)  # a draw of Pyro if it first sees few of the cells
    guide = oracle.guide(*arguments)
    optimizer = torch.optim.Adam(guide.parameters(), lr=LEARNING_RATE)
    for _ in range(30 // -(-90 // step_cells)):
        for rows in torch.randperm(90).split(step_cells):
            optimizer.zero_grad()
            Trace_ELBO().differentiable_loss(oracle, guide, *(values[rows] for values in arguments)).backward()
            optimizer.step()
    median = {name: value.numpy() for name, value in guide.median().items()}
    for name in ("means", "weights", "degrees", "shifts", "shift_scale"):
        np.testing.assert_allclose(getattr(found, name), median[name], rtol=1e-4, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(found.deviations, guide.scales.means.detach(), rtol=1e-4)
    np.testing.assert_allclose(found.scales, median["factors"][:, None] * median["kind_scales"][kinds], rtol=1e-4)


def test_the_parameters_are_found(fitted):
    points, labels = toy()
    means, clusters = component_means(points, labels, 0)
    assert fitted.clusters.tolist() == clusters.tolist()
    found = [np.average(fitted.means[clusters == k], 0, fitted.weights[:-1][clusters == k]) for k in range(3)]
    np.testing.assert_allclose(found, CENTERS - CENTERS.mean(0), atol=0.6)
    assert fitted.weights[-1] < 0.05
    assert (fitted.deviations > 0).all()
    assert posterior(fitted, points)[np.arange(300), labels].mean() > 0.95


def test_more_cells_make_means_more_certain(fitted):
    assert fit_mixture(*toy(400), None, 0).deviations.mean() < 0.8 * fitted.deviations.mean()


def test_what_lies_between_is_uncertain_and_what_lies_far_is_in_none(fitted):
    between = np.array([[2.5, 2.5, 0], [0, 2.5, 2.5]]) - CENTERS.mean(0)
    assert (posterior(fitted, between).max(1) < 0.9).all()
    assert (posterior(fitted, np.array([[30.0, 30, 30]]))[:, -1] > 0.5).all()


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


def test_start():
    points, labels = toy()
    start = find_start(points, labels, *component_means(points, labels, 0), np.array([0, 0, 1]))
    assert start.fractions.sum() == pytest.approx(1)
    within = points - np.array([points[labels == k].mean(0) for k in range(3)])[labels]
    np.testing.assert_allclose(start.scales, [within[:, :2].std(), within[:, 2].std()])
    squares = (points**2).mean(0)
    np.testing.assert_allclose(start.spread**2, [squares[:2].mean()] * 2 + [squares[2]])
