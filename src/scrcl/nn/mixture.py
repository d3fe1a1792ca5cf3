"""The Bayesian mixture of :mod:`scrcl.cluster.confidence` in Pyro, and variational inference of its parameters."""

from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal, init_to_value
from pyro.nn import PyroModule

from scrcl.cluster.confidence import Mixture, component_means

#: Steps of stochastic variational inference, and cells of each.
N_STEPS, STEP_CELLS = 200, 4_096
#: Learning rate of Adam.
LEARNING_RATE = 0.02
#: Pyro's checks of each value take a quarter of the time.
SETTINGS = {
    "module_local_params": True,
    "validate_distributions_pyro": False,
    "validate_distributions_torch": False,
    "validate_infer": False,
    "validate_poutine": False,
}


class Start(NamedTuple):
    """Initial values of inference, which also centre the priors.

    Attributes
    ----------
    means
        ``(C, p)`` means of the components.
    clusters
        ``(C,)`` cluster of each.
    scales
        ``(m,)`` root mean square distance of a cell from the mean of its component, per dimension of each kind.
    spread
        ``(p,)`` root mean square distance of a cell from the mean of all cells, in the same way.
    kinds
        ``(p,)`` kind of each dimension, numbered from 0.
    fractions
        ``(C,)`` fraction of the cells nearest to each component.
    """

    means: np.ndarray
    clusters: np.ndarray
    scales: np.ndarray
    spread: np.ndarray
    kinds: np.ndarray
    fractions: np.ndarray


class MixtureModel(PyroModule):
    r"""The generative model.

    .. math::
        \pi &\sim \mathrm{Dirichlet}(\alpha), \quad \mu_c \sim \mathcal N(m_c, s^2), \quad
        \log s_j \sim \mathcal N(\log \hat s_j, 0.2^2), \quad \log f_c \sim \mathcal N(0, 0.1^2), \quad
        \log\nu_m \sim \mathcal N(\log 4, 0.5^2), \quad \rho \sim \mathrm{Beta}(1, 19), \\
        \delta_b &\sim \mathcal N(0, \omega^2), \quad
        x_i^{(m)} \mid c, b \sim t_{\nu_m}(\mu_c + \delta_b, \mathrm{diag}(f_c s)^2), \quad
        P(y_i \mid c) = 1 - \rho \text{ if } y_i = k(c) \text{ and } \rho / (K - 1) \text{ otherwise,}

    where :math:`s_j` is the scale of all dimensions of one kind, multiplied in each component by a factor :math:`f_c`,
    :math:`y_i` is the assigned cluster of the cell, and :math:`k(c)` is the cluster of the component. The component of cells
    in no cluster is wide, and under it all :math:`y_i` are equally probable. The components of the cells are marginalised.

    The priors are centred at ``start``. Shifts are learned if there are several batches.
    """

    def __init__(self, start: Start, n_obs: int, n_batches: int) -> None:
        super().__init__()
        self.n_obs, self.n_batches, self.n_clusters = n_obs, n_batches, int(start.clusters.max()) + 1
        self.clusters, self.kinds = torch.tensor(start.clusters), torch.tensor(start.kinds)
        self.means, self.scales, self.spread, self.fractions = (
            torch.tensor(values, dtype=torch.float32)
            for values in (start.means, start.scales, start.spread, start.fractions)
        )

    def forward(self, points: torch.Tensor, labels: torch.Tensor, batches: torch.Tensor) -> None:
        """Log density of points ``(m, p)`` with clusters and batches ``(m,)``."""
        number, dimensions = self.means.shape
        zero, one = points.new_zeros(()), points.new_ones(())
        prior = torch.cat([self.fractions * number, one[None]])
        weights = pyro.sample("weights", dist.Dirichlet(prior + 1))
        means = pyro.sample("means", dist.Normal(self.means, self.scales[self.kinds]).to_event(2))
        kind_scales = pyro.sample("kind_scales", dist.LogNormal(self.scales.log(), 0.2).to_event(1))[self.kinds]
        factors = pyro.sample("factors", dist.LogNormal(zero.expand(number), 0.1).to_event(1))
        degrees = pyro.sample("degrees", dist.LogNormal(np.log(4.0) * torch.ones_like(self.scales), 0.5).to_event(1))
        mislabeled = pyro.sample("mislabeled", dist.Beta(one, 19 * one))
        if self.n_batches > 1:
            shift_scale = pyro.sample("shift_scale", dist.HalfNormal(self.scales.mean()))
            shifts = pyro.sample(
                "shifts", dist.Normal(zero.expand(self.n_batches, dimensions), shift_scale).to_event(2)
            )
            points = points - shifts[batches]
        centers = torch.cat([means, means.new_zeros(1, dimensions)])
        scales = torch.cat([factors[:, None] * kind_scales, self.spread[None]])
        same = labels[:, None] == self.clusters
        others = mislabeled / max(self.n_clusters - 1, 1)
        labeled = torch.where(same, 1 - mislabeled, others).log()
        labeled = torch.cat([labeled, labeled.new_full((len(labels), 1), -np.log(self.n_clusters))], 1)
        density = points.new_zeros(len(points), len(centers))
        for kind in range(len(self.scales)):
            columns = self.kinds == kind
            density = density + log_student_t(
                points[:, columns], centers[:, columns], scales[:, columns], degrees[kind]
            )
        with pyro.plate("cells", self.n_obs, subsample_size=len(points)):
            pyro.factor("observed", torch.logsumexp(density + labeled + weights.log(), 1))


def _initial_values(model: MixtureModel, start: Start) -> dict[str, torch.Tensor]:
    """Initial value of each parameter."""
    weights = torch.tensor([*start.fractions * 0.99, 0.01], dtype=torch.float32)
    return {
        "weights": weights / weights.sum(),
        "means": model.means,
        "kind_scales": model.scales,
        "factors": torch.ones(len(start.means)),
        "degrees": torch.full_like(model.scales, 4.0),
        "mislabeled": torch.tensor(0.05),
        "shift_scale": 0.1 * model.scales.mean(),
        "shifts": torch.zeros(model.n_batches, start.means.shape[1]),
    }


def _median(guide: AutoNormal, start: Start) -> Mixture:
    """The mixture at the median of the posterior, with the standard deviations of the means."""
    median = {name: value.detach().double().numpy() for name, value in guide.median().items()}
    weights, dimensions = median["weights"], median["means"].shape[1]
    return Mixture(
        kinds=start.kinds,
        means=median["means"],
        deviations=guide.scales.means.detach().double().numpy(),
        scales=median["factors"][:, None] * median["kind_scales"][start.kinds],
        weights=weights / weights.sum(),
        clusters=start.clusters,
        degrees=median["degrees"],
        spread=start.spread.astype(np.float32).astype(np.float64),
        shifts=median.get("shifts", np.zeros((0, dimensions))),
        shift_scale=float(median.get("shift_scale", 0.0)),
    )


def log_student_t(
    points: torch.Tensor, means: torch.Tensor, scales: torch.Tensor, degrees: torch.Tensor
) -> torch.Tensor:
    """As :func:`scrcl.cluster.confidence.log_student_t`, with gradients."""
    dimensions, precisions = points.shape[1], scales**-2
    squares = points**2 @ precisions.T - 2 * points @ (means * precisions).T + (means**2 * precisions).sum(1)
    constant = torch.lgamma((degrees + dimensions) / 2) - torch.lgamma(degrees / 2)
    constant = constant - dimensions / 2 * (degrees * np.pi).log() - scales.log().sum(1)
    return constant - (degrees + dimensions) / 2 * torch.log1p(squares.clamp(min=0) / degrees)


def fit_mixture(
    points: np.ndarray, labels: np.ndarray, batches: np.ndarray | None, seed: int, kinds: np.ndarray | None = None
) -> Mixture:
    """Learn the mixture of clusters by stochastic variational inference.

    From points ``(n, p)`` with mean 0, their clusters ``(n,)``, numbered from 0 without gaps, their batches ``(n,)`` by
    number, and the kind ``(p,)`` of each dimension, numbered from 0; a single kind by default. The seed is that of the initial
    values and of inference; the random state of torch does not change.
    """
    n = len(points)
    batches = np.zeros(n, dtype=np.int64) if batches is None else batches
    kinds = np.zeros(points.shape[1], dtype=np.int64) if kinds is None else kinds
    means, clusters = component_means(points, labels, seed)
    start = find_start(points, labels, means, clusters, kinds)
    tensors = (torch.tensor(points, dtype=torch.float32), torch.tensor(labels), torch.tensor(batches))
    with torch.random.fork_rng(devices=[]), pyro.settings.context(**SETTINGS):
        torch.manual_seed(seed)
        model = MixtureModel(start, n, int(batches.max()) + 1)
        initial = init_to_value(values=_initial_values(model, start))
        guide = AutoNormal(model, init_loc_fn=initial, init_scale=0.02)  # normal, for each transformed parameter
        guide(*(tensor[:2] for tensor in tensors))  # creates its parameters
        loss, optimizer = Trace_ELBO().differentiable_loss, torch.optim.Adam(guide.parameters(), lr=LEARNING_RATE)
        n_epochs = -(-N_STEPS // -(-n // STEP_CELLS))
        for _ in range(n_epochs):
            for rows in torch.randperm(n).split(STEP_CELLS):
                optimizer.zero_grad()
                loss(model, guide, *(tensor[rows] for tensor in tensors)).backward()
                optimizer.step()
        return _median(guide, start)


def find_start(
    points: np.ndarray, labels: np.ndarray, means: np.ndarray, clusters: np.ndarray, kinds: np.ndarray
) -> Start:
    """Initial values from the means ``(C, p)`` of components, their clusters ``(C,)`` and the kinds ``(p,)`` of dimensions."""
    penalty = np.where(labels[:, None] == clusters, 0, np.inf)
    squares = (points**2).sum(1)[:, None] - 2 * points @ means.T + (means**2).sum(1)
    nearest = (squares + penalty).argmin(1)
    within, total = (_by_kind(offsets, kinds) for offsets in (points - means[nearest], points))
    fractions = np.bincount(nearest, minlength=len(means)) / len(points)
    return Start(means, clusters, within, total[kinds], kinds, fractions)


def _by_kind(offsets: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Root mean square of offsets ``(n, p)`` over points and the dimensions of each kind."""
    squares = np.bincount(kinds, (offsets**2).mean(0)) / np.bincount(kinds)
    return np.maximum(np.sqrt(squares), 1e-4)
