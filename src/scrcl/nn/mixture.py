"""The Bayesian mixture of :mod:`scrcl.cluster.confidence` in Pyro, and the posterior of its parameters."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal, init_to_value
from pyro.nn import PyroModule
from scvi.module.base import PyroBaseModuleClass
from scvi.train import LowLevelPyroTrainingPlan

from scrcl.cluster.confidence import Mixture, component_means

#: Steps of stochastic variational inference, and cells of one.
N_STEPS, CELLS_EACH_STEP = 200, 4_096
#: Learning rate of Adam.
LEARNING_RATE = 0.02


class Start(NamedTuple):
    """Where inference starts, and what the priors are about.

    Attributes
    ----------
    means
        ``(C, p)`` means of the components.
    clusters
        ``(C,)`` cluster of each.
    scales
        ``(m,)`` root mean square distance of a cell from the mean of its component, per dimension of each kind.
    spread
        ``(p,)`` root mean square distance of a cell from the mean of all, likewise.
    kinds
        ``(p,)`` kind of each dimension, numbered from 0.
    shares
        ``(C,)`` shares of cells nearest to each component.
    """

    means: np.ndarray
    clusters: np.ndarray
    scales: np.ndarray
    spread: np.ndarray
    kinds: np.ndarray
    shares: np.ndarray


class MixtureModel(PyroModule):
    r"""The generative model.

    .. math::
        \pi &\sim \mathrm{Dirichlet}(\alpha), \quad \mu_c \sim \mathcal N(m_c, s^2), \quad
        \log s_j \sim \mathcal N(\log \hat s_j, 0.2^2), \quad \log f_c \sim \mathcal N(0, 0.1^2), \quad
        \log\nu_m \sim \mathcal N(\log 4, 0.5^2), \quad \rho \sim \mathrm{Beta}(1, 19), \\
        \delta_b &\sim \mathcal N(0, \omega^2), \quad
        x_i^{(m)} \mid c, b \sim t_{\nu_m}(\mu_c + \delta_b, \mathrm{diag}(f_c s)^2), \quad
        P(y_i \mid c) = 1 - \rho \text{ if } y_i = k(c) \text{ and } \rho / (K - 1) \text{ otherwise,}

    :math:`s_j` being the scale of all dimensions of one kind, shared by the components but for a factor :math:`f_c`,
    :math:`y_i` the cluster that the cell was put in, :math:`k(c)` that of the component, and the component of
    cells in no cluster being wide and saying nothing of :math:`y_i`. Which component a cell is of is summed over.

    Parameters
    ----------
    start
        Where inference starts.
    n_obs
        Number of cells.
    n_batches
        Number of batches; shifts are learned where there are several.
    """

    def __init__(self, start: Start, n_obs: int, n_batches: int) -> None:
        super().__init__()
        self.n_obs, self.n_batches, self.n_clusters = n_obs, n_batches, int(start.clusters.max()) + 1
        self.register_buffer("means", torch.tensor(start.means, dtype=torch.float32))
        self.register_buffer("clusters", torch.tensor(start.clusters))
        self.register_buffer("kinds", torch.tensor(start.kinds))
        self.register_buffer("scales", torch.tensor(start.scales, dtype=torch.float32))
        self.register_buffer("spread", torch.tensor(start.spread, dtype=torch.float32))
        self.register_buffer("shares", torch.tensor(start.shares, dtype=torch.float32))

    def forward(self, points: torch.Tensor, labels: torch.Tensor, batches: torch.Tensor) -> None:
        """Log density of points ``(m, p)`` with clusters and batches ``(m,)``."""
        number, dimensions = self.means.shape
        zero, one = points.new_zeros(()), points.new_ones(())
        prior = torch.cat([self.shares * number, one[None]])
        weights = pyro.sample("weights", dist.Dirichlet(prior + 1))
        means = pyro.sample("means", dist.Normal(self.means, self.scales[self.kinds]).to_event(2))
        shared = pyro.sample("shared", dist.LogNormal(self.scales.log(), 0.2).to_event(1))[self.kinds]
        own = pyro.sample("own", dist.LogNormal(zero.expand(number), 0.1).to_event(1))
        degrees = pyro.sample("degrees", dist.LogNormal(np.log(4.0) * torch.ones_like(self.scales), 0.5).to_event(1))
        mislabeled = pyro.sample("mislabeled", dist.Beta(one, 19 * one))
        if self.n_batches > 1:
            shift_scale = pyro.sample("shift_scale", dist.HalfNormal(self.scales.mean()))
            shifts = pyro.sample(
                "shifts", dist.Normal(zero.expand(self.n_batches, dimensions), shift_scale).to_event(2)
            )
            points = points - shifts[batches]
        centers = torch.cat([means, means.new_zeros(1, dimensions)])
        scales = torch.cat([own[:, None] * shared, self.spread[None]])
        same = labels[:, None] == self.clusters
        others = mislabeled / max(self.n_clusters - 1, 1)
        labeled = torch.where(same, 1 - mislabeled, others).log()
        labeled = torch.cat([labeled, labeled.new_full((len(labels), 1), -np.log(self.n_clusters))], 1)
        density = points.new_zeros(len(points), len(centers))
        for kind in range(len(self.scales)):
            own_kind = self.kinds == kind
            density = density + log_student_t(
                points[:, own_kind], centers[:, own_kind], scales[:, own_kind], degrees[kind]
            )
        with pyro.plate("cells", self.n_obs, subsample_size=len(points)):
            pyro.factor("observed", torch.logsumexp(density + labeled + weights.log(), 1))


class MixtureModule(PyroBaseModuleClass):
    """Model and guide, a normal distribution of each transformed parameter, by the conventions of scvi-tools.

    Parameters
    ----------
    start, n_obs, n_batches
        As in :class:`MixtureModel`.
    """

    def __init__(self, start: Start, n_obs: int, n_batches: int) -> None:
        super().__init__()
        self._model = MixtureModel(start, n_obs, n_batches)
        number, dimensions = start.means.shape
        shares = torch.tensor([*start.shares * 0.99, 0.01], dtype=torch.float32)
        values = {
            "weights": shares / shares.sum(),
            "means": self._model.means,
            "shared": self._model.scales,
            "own": torch.ones(number),
            "degrees": torch.full_like(self._model.scales, 4.0),
            "mislabeled": torch.tensor(0.05),
            "shift_scale": 0.1 * self._model.scales.mean(),
            "shifts": torch.zeros(n_batches, dimensions),
        }
        self._guide = AutoNormal(self._model, init_loc_fn=init_to_value(values=values), init_scale=0.02)

    @property
    def model(self) -> MixtureModel:
        """The generative model."""
        return self._model

    @property
    def guide(self) -> AutoNormal:
        """The family of posteriors."""
        return self._guide

    @staticmethod
    def _get_fn_args_from_batch(tensor_dict: Sequence[torch.Tensor]) -> tuple[Iterable, dict]:
        return tensor_dict, {}

    def posterior(self, clusters: np.ndarray) -> Mixture:
        """The mixture at the median of the posterior, with the standard deviations of the means."""
        median = {name: value.detach().double().cpu().numpy() for name, value in self._guide.median().items()}
        deviations = self._guide.scales.means.detach().double().cpu().numpy()
        weights, dimensions = median["weights"], median["means"].shape[1]
        return Mixture(
            kinds=self._model.kinds.cpu().numpy(),
            means=median["means"],
            deviations=deviations,
            scales=median["own"][:, None] * median["shared"][self._model.kinds.cpu().numpy()],
            weights=weights / weights.sum(),
            clusters=clusters,
            degrees=median["degrees"],
            spread=self._model.spread.double().cpu().numpy(),
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

    Parameters
    ----------
    points
        ``(n, p)``, of which the mean is the origin.
    labels
        ``(n,)`` cluster of each, numbered from 0 without gaps.
    batches
        ``(n,)`` number of the batch of each; ``None`` where batches are not told apart.
    seed
        Seed of the division into parts and of inference. The random state of torch stays as it was.
    kinds
        ``(p,)`` kind of each dimension, numbered from 0; all of one by default.
    """
    n = len(points)
    batches = np.zeros(n, dtype=np.int64) if batches is None else batches
    kinds = np.zeros(points.shape[1], dtype=np.int64) if kinds is None else kinds
    means, clusters = component_means(points, labels, seed)
    start = find_start(points, labels, means, clusters, kinds)
    tensors = (torch.tensor(points, dtype=torch.float32), torch.tensor(labels), torch.tensor(batches))
    with torch.random.fork_rng(devices=[]), pyro.settings.context(module_local_params=True):
        torch.manual_seed(seed)
        module = MixtureModule(start, n, int(batches.max()) + 1)
        module.guide(*(tensor[:2] for tensor in tensors))  # makes its parameters
        # The plan of scvi-tools without its trainer, which takes longer to start than this takes.
        plan = LowLevelPyroTrainingPlan(module, optim_kwargs={"lr": LEARNING_RATE})
        optimizer = plan.configure_optimizers()
        n_epochs = -(-N_STEPS // -(-n // CELLS_EACH_STEP))
        for _ in range(n_epochs):
            for rows in torch.randperm(n).split(CELLS_EACH_STEP):
                optimizer.zero_grad()
                plan.training_step([tensor[rows] for tensor in tensors], 0)["loss"].backward()
                optimizer.step()
        return module.posterior(clusters)


def find_start(
    points: np.ndarray, labels: np.ndarray, means: np.ndarray, clusters: np.ndarray, kinds: np.ndarray
) -> Start:
    """Where to start from the means of parts ``(C, p)`` of clusters ``(C,)``, with dimensions of some kinds ``(p,)``."""
    far = np.where(labels[:, None] == clusters, 0, np.inf)
    squares = (points**2).sum(1)[:, None] - 2 * points @ means.T + (means**2).sum(1)
    nearest = (squares + far).argmin(1)
    within, total = (_by_kind(offsets, kinds) for offsets in (points - means[nearest], points))
    shares = np.bincount(nearest, minlength=len(means)) / len(points)
    return Start(means, clusters, within, total[kinds], kinds, shares)


def _by_kind(offsets: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Root mean square of offsets ``(n, p)`` over points and the dimensions of each kind."""
    squares = np.bincount(kinds, (offsets**2).mean(0)) / np.bincount(kinds)
    return np.maximum(np.sqrt(squares), 1e-4)
