"""Variational inference of the Bayesian mixture of :mod:`scrcl.cluster.confidence`."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from torch.distributions import StickBreakingTransform
from torch.nn.functional import logsigmoid, pad, softplus

from scrcl.cluster.confidence import Mixture, component_means

#: Steps of stochastic variational inference, and cells of each.
N_STEPS, STEP_CELLS = 200, 4_096
#: Learning rate of Adam.
LEARNING_RATE = 0.02
#: Initial standard deviation of each transformed parameter.
INITIAL_DEVIATION = 0.02
#: Standard deviations of the logarithms of the scales of kinds, of the factors of components, and of the degrees of freedom.
SCALE_DEVIATION, FACTOR_DEVIATION, DEGREES_DEVIATION = 0.2, 0.1, 0.5
#: Median of the degrees of freedom.
DEGREES = 4.0
#: Second parameter of the Beta distribution of the fraction of wrong clusters; the first is 1.
MISLABELED = 19
#: Largest difference of log densities: arithmetic with the denormal numbers of larger ones is slow.
MAX_DIFFERENCE = 60


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


class Cells(NamedTuple):
    """What the mixture reads of cells.

    Attributes
    ----------
    points
        ``(n, p_m)`` points of each kind.
    squares
        ``(n,)`` squares of their lengths.
    same
        ``(C, n)`` whether each component is of the cluster of each cell.
    batches
        ``(n,)`` numbers of the batches.
    """

    points: list[torch.Tensor]
    squares: list[torch.Tensor]
    same: torch.Tensor
    batches: torch.Tensor

    def take(self, rows: torch.Tensor) -> Self:
        """Some of the cells."""
        points, squares = ([part[rows] for part in parts] for parts in self[:2])
        return type(self)(points, squares, self.same[:, rows], self.batches[rows])


class _Distances(NamedTuple):
    r"""Centres and scales of components in one kind, its degrees of freedom, and distances of cells from the components.

    With the scaled square :math:`q` of a distance, ``squares`` ``(C + 1, n)`` are :math:`q / \nu`, and ``tails``
    :math:`\log(1 + q / \nu)`.
    """

    centers: torch.Tensor
    log_scales: torch.Tensor
    degrees: torch.Tensor
    squares: torch.Tensor
    tails: torch.Tensor


class MixtureModel:
    r"""The joint density of cells and parameters.

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

    The priors are centred at ``start``. Shifts are learned if there are several batches; the prior of :math:`\omega` is
    half-normal. All parameters are in one vector ``(d,)``, transformed to real numbers: the weights by breaking a stick,
    :math:`\rho` by the logit, and what is positive by the logarithm.
    """

    def __init__(self, start: Start, n_obs: int, n_batches: int) -> None:
        self.start, self.n_obs, self.n_batches = start, n_obs, n_batches
        self.n_clusters = int(start.clusters.max()) + 1
        number, dimensions = start.means.shape
        means, scales, spread, fractions = (
            torch.tensor(values, dtype=torch.float32)
            for values in (start.means, start.scales, start.spread, start.fractions)
        )
        self.columns = [torch.tensor(np.flatnonzero(start.kinds == kind)) for kind in range(len(scales))]
        self.log_spread = [spread[columns[:1]].log() for columns in self.columns]
        self.counts, self.mean_scale = torch.cat([fractions * number, torch.ones(1)]), scales.mean()
        self.pieces = torch.arange(number, 0, -1.0)  # left of the stick after each break
        weights, no_normal = torch.cat([fractions * 0.99, torch.tensor([0.01])]), torch.tensor(torch.inf)
        # Initial values, which are the means of normal priors, and the standard deviations of these.
        parameters = {
            "weights": (StickBreakingTransform().inv(weights / weights.sum()), no_normal),
            "means": (means, scales[torch.tensor(start.kinds)]),
            "kind_scales": (scales.log(), torch.tensor(SCALE_DEVIATION)),
            "factors": (torch.zeros(number), torch.tensor(FACTOR_DEVIATION)),
            "degrees": (torch.full_like(scales, DEGREES).log(), torch.tensor(DEGREES_DEVIATION)),
            "mislabeled": (torch.tensor(0.05).logit(), no_normal),
        }
        if n_batches > 1:
            parameters["shift_scale"] = (0.1 * self.mean_scale).log(), no_normal
            parameters["shifts"] = torch.zeros(n_batches, dimensions), no_normal
        self.shapes = {name: value.shape for name, (value, _) in parameters.items()}
        self.initial = torch.cat([value.flatten() for value, _ in parameters.values()])
        self.precisions = torch.cat([(value * 0 + std).flatten() for value, std in parameters.values()]) ** -2

    def split(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of each parameter in a vector."""
        parts = vector.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def cells(self, points: np.ndarray, labels: np.ndarray, batches: np.ndarray) -> Cells:
        """Cells of points ``(n, p)``, clusters ``(n,)`` and batches ``(n,)``."""
        kinds = [torch.tensor(points, dtype=torch.float32)[:, columns] for columns in self.columns]
        same = torch.tensor(self.start.clusters[:, None] == labels)
        return Cells(kinds, [(part**2).sum(1) for part in kinds], same, torch.tensor(batches))

    def gradient(self, parameters: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Gradient ``(d,)`` of the log density of parameters and of all cells, which ``cells`` represent."""
        gradient = (self.initial - parameters) * self.precisions
        values, slopes = self.split(parameters), self.split(gradient)
        if self.n_batches > 1:
            cells = self._shifted(values["shifts"], cells)
        kinds = [self._distances(values, cells, kind) for kind in range(len(self.columns))]
        shares = self._log_densities(values, cells, kinds).softmax(0) * (self.n_obs / len(cells.batches))
        totals = shares.sum(1)
        for kind, columns in enumerate(self.columns):
            points, (centers, log_scales, degrees, squares, tails) = cells.points[kind], kinds[kind]
            size = len(columns)
            pulls = shares / (1 + squares)
            pulled, pull = pulls.sum(1), ((-2 * log_scales).exp() * (1 + size / degrees))[:, None]
            stretch = degrees * totals - (degrees + size) * pulled
            slopes["kind_scales"][kind] += stretch[:-1].sum()
            slopes["factors"] += stretch[:-1]
            constant = torch.digamma((degrees + size) / 2) - torch.digamma(degrees / 2) - size / degrees
            tail = (1 + size / degrees) * (totals - pulled).sum() - (shares * tails).sum()
            slopes["degrees"][kind] += degrees / 2 * (self.n_obs * constant + tail)
            slopes["means"][:, columns] += ((pulls @ points - pulled[:, None] * centers) * pull)[:-1]
            if self.n_batches > 1:
                offsets = (pulls.T @ pull) * points - pulls.T @ (centers * pull)
                slopes["shifts"][:, columns] += offsets.new_zeros(self.n_batches, size).index_add(
                    0, cells.batches, offsets
                )
        counts = self.counts + totals
        later = counts.flip(0).cumsum(0).flip(0)[1:]
        broken = (values["weights"] - self.pieces.log()).sigmoid()
        slopes["weights"] += (counts[:-1] + 1) * (1 - broken) - (later + self.pieces) * broken
        right, mislabeled = (shares[:-1] * cells.same).sum(), values["mislabeled"].sigmoid()
        wrong = totals[:-1].sum() - right
        slopes["mislabeled"] += (1 + wrong) * (1 - mislabeled) - (MISLABELED + right) * mislabeled
        if self.n_batches > 1:
            shifts, shift_scale = values["shifts"], values["shift_scale"].exp()
            slopes["shifts"] -= shifts / shift_scale**2
            slopes["shift_scale"] += (shifts**2).sum() / shift_scale**2 - shifts.numel()
            slopes["shift_scale"] += 1 - (shift_scale / self.mean_scale) ** 2
        return gradient

    def _shifted(self, shifts: torch.Tensor, cells: Cells) -> Cells:
        """Cells without the shifts of their batches."""
        points = [
            part - shifts[:, columns][cells.batches] for part, columns in zip(cells.points, self.columns, strict=True)
        ]
        return cells._replace(points=points, squares=[(part**2).sum(1) for part in points])

    def _distances(self, values: dict[str, torch.Tensor], cells: Cells, kind: int) -> _Distances:
        centers, degrees = pad(values["means"][:, self.columns[kind]], (0, 0, 0, 1)), values["degrees"][kind].exp()
        log_scales = torch.cat([values["factors"] + values["kind_scales"][kind], self.log_spread[kind]])
        squares = torch.addmm(cells.squares[kind], centers, cells.points[kind].T, alpha=-2)
        squares = squares.add_((centers**2).sum(1)[:, None]).clamp_(min=0)
        squares *= ((-2 * log_scales).exp() / degrees)[:, None]
        return _Distances(centers, log_scales, degrees, squares, squares.log1p())

    def _log_densities(
        self, values: dict[str, torch.Tensor], cells: Cells, kinds: Sequence[_Distances]
    ) -> torch.Tensor:
        """Log of weight times density ``(C + 1, n)``, up to a constant of each cell."""
        rest, mislabeled = values["weights"] - self.pieces.log(), values["mislabeled"]
        log_weights = pad(logsigmoid(rest), (0, 1)) + pad(logsigmoid(-rest).cumsum(0), (1, 0))
        wrong = logsigmoid(mislabeled) - np.log(max(self.n_clusters - 1, 1))
        labeled = torch.where(cells.same, logsigmoid(-mislabeled), wrong)
        log_densities = pad(labeled, (0, 0, 0, 1), value=-np.log(self.n_clusters))
        for part, columns in zip(kinds, self.columns, strict=True):
            log_weights = log_weights - len(columns) * part.log_scales
            log_densities -= part.tails * ((part.degrees + len(columns)) / 2)
        log_densities += log_weights[:, None]
        return log_densities.clamp_(min=log_densities.amax(0) - MAX_DIFFERENCE)

    def mixture(self, parameters: torch.Tensor, deviations: torch.Tensor) -> Mixture:
        """The mixture at the median ``(d,)`` of the posterior, with the standard deviations ``(d,)`` of the means."""
        values = {name: value.double() for name, value in self.split(parameters).items()}
        weights, dimensions = StickBreakingTransform()(values["weights"]).numpy(), values["means"].shape[1]
        kinds = torch.tensor(self.start.kinds)
        return Mixture(
            kinds=self.start.kinds,
            means=values["means"].numpy(),
            deviations=self.split(deviations)["means"].double().numpy(),
            scales=(values["factors"][:, None] + values["kind_scales"][kinds]).exp().numpy(),
            weights=weights / weights.sum(),
            clusters=self.start.clusters,
            degrees=values["degrees"].exp().numpy(),
            spread=self.start.spread.astype(np.float32).astype(np.float64),
            shifts=values["shifts"].numpy() if self.n_batches > 1 else np.zeros((0, dimensions)),
            shift_scale=float(values["shift_scale"].exp()) if self.n_batches > 1 else 0.0,
        )


def fit_mixture(
    points: np.ndarray, labels: np.ndarray, batches: np.ndarray | None, seed: int, kinds: np.ndarray | None = None
) -> Mixture:
    """Learn the mixture of clusters by stochastic variational inference.

    The posterior of each transformed parameter is approximated by a normal distribution.

    From points ``(n, p)`` with mean 0, their clusters ``(n,)``, numbered from 0 without gaps, their batches ``(n,)`` by
    number, and the kind ``(p,)`` of each dimension, numbered from 0; a single kind by default. The seed is that of the initial
    values and of inference; the random state of torch does not change.
    """
    n = len(points)
    batches = np.zeros(n, dtype=np.int64) if batches is None else batches
    kinds = np.zeros(points.shape[1], dtype=np.int64) if kinds is None else kinds
    means, clusters = component_means(points, labels, seed)
    start = find_start(points, labels, means, clusters, kinds)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        return _infer(MixtureModel(start, n, int(batches.max()) + 1), points, labels, batches)


def _infer(model: MixtureModel, points: np.ndarray, labels: np.ndarray, batches: np.ndarray) -> Mixture:
    """Climb the evidence lower bound, with one draw of the parameters in each step."""
    n, cells, noise = len(points), model.cells(points, labels, batches), torch.empty_like(model.initial)
    median, deviation = model.initial.clone(), torch.full_like(noise, INITIAL_DEVIATION).expm1().log()
    optimizer = torch.optim.Adam([median, deviation], lr=LEARNING_RATE, fused=True)
    torch.randperm(n)  # these two draws only keep the results of versions that used Pyro
    _draw(model, noise)
    n_epochs = -(-N_STEPS // -(-n // STEP_CELLS))
    for _ in range(n_epochs):
        for rows in torch.randperm(n).split(STEP_CELLS):
            _draw(model, noise)
            scale, drawn_cells = softplus(deviation), cells.take(rows) if len(rows) < n else cells
            gradient = model.gradient(median + noise * scale, drawn_cells)
            median.grad = -gradient
            deviation.grad = -(gradient * noise + 1 / scale) * deviation.sigmoid()
            optimizer.step()
    return model.mixture(median, softplus(deviation))


def _draw(model: MixtureModel, noise: torch.Tensor) -> None:
    """Fill a vector with standard normal numbers, in the order of the parameters."""
    for part in model.split(noise).values():
        part.normal_()


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
