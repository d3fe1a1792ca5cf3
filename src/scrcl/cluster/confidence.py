"""Confidence of clusters: a mixture of heavy-tailed components, each of them in one cluster, over plain arrays.

:mod:`scrcl.nn.mixture` learns the parameters of the mixture; this module evaluates it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, Self

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, gammaln, softmax
from sklearn.cluster import KMeans

from scrcl.utils.sizes import sample_cells

from .components import Components

#: Most principal components of the latent representation and of the features.
CONFIDENCE_COMPONENTS = 20, 50
#: Most mixture components of a cluster, and least cells of each.
MAX_COMPONENTS_OF_CLUSTER, MIN_CELLS_OF_COMPONENT = 1, 30
#: Kinds of points by number.
LATENT, FEATURES = 0, 1
#: Points that are compared with pairs of clusters at once.
PAIR_BLOCK_POINTS = 4_096
#: Mixing proportions of the two clusters of a doublet.
PROPORTIONS = 0.35, 0.5, 0.65
#: Factor by which the mean of doublets is farther from the origin than that of single cells: they have more counts, so less noise.
DOUBLET_SCALE = 1.2
#: Standard deviation of the logarithm of the counts of single cells.
COUNTS_DEVIATION = 0.5
#: Bounds of the mean probability.
MIN_LEVEL, MAX_LEVEL = 0.05, 0.999


@dataclass(frozen=True)
class JointComponents:
    """Principal components of several kinds of points side by side, each kind with a mean squared length of 1.

    Attributes
    ----------
    parts
        Components of each kind.
    """

    parts: list[Components]

    @classmethod
    def fit(cls, kinds: Sequence[np.ndarray]) -> Self:
        """Find the components of points ``(n, d_i)`` of each kind, float64."""
        limits = zip(kinds, CONFIDENCE_COMPONENTS, strict=False)
        return cls([Components.fit(points.astype(np.float64), min(limit, len(points) - 1)) for points, limit in limits])

    @property
    def kinds(self) -> np.ndarray:
        """``(p,)`` kind of each dimension, numbered from 0."""
        return np.repeat(np.arange(len(self.parts)), [part.loadings.shape[1] for part in self.parts])

    def __call__(self, kinds: Sequence[np.ndarray]) -> np.ndarray:
        """Coordinates ``(m, p)`` of points ``(m, d_i)`` of each kind."""
        return np.concatenate([part(points) for part, points in zip(self.parts, kinds, strict=True)], 1)


@dataclass(frozen=True)
class Mixture:
    r"""Student-t components, one or more of each cluster, and one of points in no cluster.

    Kinds of points are independent given the component. With :math:`\nu` degrees of freedom, the density of component
    :math:`c` at a point :math:`x` of one kind and of batch :math:`b` is
    :math:`t_\nu(x; \mu_c + \delta_b, \mathrm{diag}(s_c^2 + v_c))`, where :math:`v_c` is the posterior variance of the mean.

    Attributes
    ----------
    kinds
        ``(p,)`` kind of each dimension, numbered from 0 to ``m - 1``.
    means, deviations
        ``(C, p)`` means of the components, and standard deviations of their posterior.
    scales
        ``(C, p)`` scales of the components.
    weights
        ``(C + 1,)`` weights of the components, the last one that of points in no cluster.
    clusters
        ``(C,)`` cluster of each component.
    degrees
        ``(m,)`` degrees of freedom of each kind.
    spread
        ``(p,)`` scales of points in no cluster, around the origin.
    shifts
        ``(B, p)`` shift of the points of each batch; ``(0, p)`` without batches.
    shift_scale
        Scale of the shift of a new batch.
    """

    kinds: np.ndarray
    means: np.ndarray
    deviations: np.ndarray
    scales: np.ndarray
    weights: np.ndarray
    clusters: np.ndarray
    degrees: np.ndarray
    spread: np.ndarray
    shifts: np.ndarray
    shift_scale: float = 0.0

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return int(self.clusters.max()) + 1

    def log_densities(self, points: np.ndarray, kind: int, batches: np.ndarray | None = None) -> np.ndarray:
        """Logarithm ``(n, C + 1)`` of the density of points ``(n, p)`` in one kind, the last column for no cluster.

        ``batches`` ``(n,)`` are numbers, -1 for a new batch.
        """
        means = np.vstack([self.means, np.zeros_like(self.spread)])
        variances = np.vstack([self.scales**2 + self.deviations**2, self.spread**2])
        return self._log_densities(points, means, variances, kind, batches)

    def log_clusters(self, points: np.ndarray, kind: int, batches: np.ndarray | None = None) -> np.ndarray:
        """Logarithm ``(n, K + 1)`` of weight times density by cluster in one kind, the last column for no cluster."""
        components = self.log_densities(points, kind, batches) + np.log(self.weights)
        clusters = np.append(self.clusters, self.n_clusters)
        return np.column_stack([log_sum(components[:, clusters == k]) for k in range(self.n_clusters + 1)])

    def log_pairs(self, points: np.ndarray, kind: int, batches: np.ndarray | None = None) -> np.ndarray:
        """Logarithm ``(n,)`` of the density of points ``(n, p)`` in one kind as doublets of two clusters."""
        first, second = np.triu_indices(len(self.means), 1)
        different = self.clusters[first] != self.clusters[second]
        first, second = first[different], second[different]
        log_density = np.full(len(points), -np.inf)
        if len(first) == 0:
            return log_density
        means = [DOUBLET_SCALE * (w * self.means[first] + (1 - w) * self.means[second]) for w in PROPORTIONS]
        variances = np.tile((self.scales[first] ** 2 + self.scales[second] ** 2) / 2, (len(PROPORTIONS), 1))
        weights = np.tile(self.weights[first] * self.weights[second], len(PROPORTIONS))
        log_weights = np.log(weights / weights.sum())
        for start in range(0, len(points), PAIR_BLOCK_POINTS):  # there are many pairs
            rows = slice(start, start + PAIR_BLOCK_POINTS)
            block = points[rows], np.concatenate(means), variances, kind, None if batches is None else batches[rows]
            log_density[rows] = log_sum(self._log_densities(*block) + log_weights)
        return log_density

    def _log_densities(
        self, points: np.ndarray, means: np.ndarray, variances: np.ndarray, kind: int, batches: np.ndarray | None
    ) -> np.ndarray:
        """Logarithm ``(n, c)`` of the densities of components with means and variances ``(c, p)``."""
        extra = np.zeros(len(points))
        if batches is not None and len(self.shifts):
            known = batches >= 0
            points = points - np.where(known[:, None], self.shifts[batches], 0)
            extra = np.where(known, 0.0, self.shift_scale**2)
        columns, log_densities = self.kinds == kind, np.empty((len(points), len(means)))
        for value in np.unique(extra):
            rows, scales = extra == value, np.sqrt(variances[:, columns] + value)
            log_densities[rows] = log_student_t(points[rows][:, columns], means[:, columns], scales, self.degrees[kind])
        return log_densities


class Evidence(NamedTuple):
    """Evidence for the clusters of points, each ``(n,)``; higher is more certain.

    Attributes
    ----------
    odds
        Log odds of the cluster of a point against all other clusters, by the features.
    typical
        Log of weight times density of the latent representation in that cluster.
    known
        Log of the density of the features in clusters, relative to that in none.
    """

    odds: np.ndarray
    typical: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class ClusterConfidence:
    r"""Probabilities of clusters, from a mixture and the distribution of its evidence over the cells.

    The log odds of a mixture in many dimensions are far too large, but their order is informative. So each kind of evidence
    is standardised by the cells that the mixture was learned from: minus their median, in units of their standard
    deviation, :math:`a` for the odds and :math:`b` for the density. A cell may be of another cluster, or of none:

    .. math:: P = 1 / \bigl(1 + e^{-\lambda}(e^{-a} + e^{-b})\bigr),

    with :math:`\lambda` such that the mean over the cells is a level that is passed.

    Attributes
    ----------
    components
        Components of the latent representation and of the features, in which the mixture is fitted.
    mixture
        The mixture.
    centers, scales
        ``(4,)`` median and standard deviation of each kind of :class:`Evidence`, and of the log of the density of the
        features in clusters relative to that of doublets.
    offset
        :math:`\lambda`.
    """

    components: JointComponents
    mixture: Mixture
    centers: np.ndarray
    scales: np.ndarray
    offset: float

    @classmethod
    def fit(
        cls,
        components: JointComponents,
        mixture: Mixture,
        kinds: Sequence[np.ndarray],
        labels: np.ndarray,
        level: float,
        batches: np.ndarray | None = None,
    ) -> Self:
        """Standardise the evidence on points ``(n, d_i)`` of two kinds with clusters ``(n,)``, to a mean probability ``level``.

        Many points are sampled.
        """
        rows = sample_cells(len(labels))
        kinds, labels = [points[rows] for points in kinds], labels[rows]
        batches = None if batches is None else batches[rows]
        raw = cls(components, mixture, np.zeros(4), np.ones(4), 0.0)
        evidence = np.stack([*raw._evidence(kinds, labels, batches)[0], raw._single(kinds, batches)])
        evidence = np.where(np.isfinite(evidence), evidence, 0)  # a single cluster has neither odds nor pairs
        centers, scales = np.median(evidence, axis=1), np.maximum(evidence.std(1), 1e-9)
        doubt = _doubt(*((evidence - centers[:, None]) / scales[:, None])[:2])
        level = min(max(level, MIN_LEVEL), MAX_LEVEL)
        offset = brentq(lambda value: expit(value - doubt).mean() - level, -100, 100)
        return cls(components, mixture, centers, scales, float(offset))

    def probabilities(
        self, kinds: Sequence[np.ndarray], labels: np.ndarray, batches: np.ndarray | None = None
    ) -> np.ndarray:
        """Probability ``(n, K)``, float32, of each cluster for points ``(n, d_i)`` with clusters ``(n,)``.

        The other clusters share the remaining probability in proportion to their densities of the features.
        """
        evidence, by_features = self._evidence(kinds, labels, batches)
        n, number = len(labels), self.mixture.n_clusters
        if number == 1:
            return np.ones((n, 1), dtype=np.float32)
        evidence = self._standardized(evidence)
        assigned = expit(self.offset - _doubt(evidence.odds, evidence.typical))
        by_features[np.arange(n), labels] = -np.inf
        probabilities = (1 - assigned)[:, None] * softmax(by_features / self.scales[0], axis=1)
        probabilities[np.arange(n), labels] = assigned
        return probabilities.astype(np.float32)

    def outlier_scores(
        self, kinds: Sequence[np.ndarray], labels: np.ndarray, batches: np.ndarray | None = None
    ) -> np.ndarray:
        """Distance of points ``(n, d_i)`` from all clusters, ``(n,)`` float32, in standard deviations above the median."""
        return -self._standardized(self._evidence(kinds, labels, batches)[0]).known.astype(np.float32)

    def doublet_scores(
        self, kinds: Sequence[np.ndarray], batches: np.ndarray | None = None, log_counts: np.ndarray | None = None
    ) -> np.ndarray:
        """Similarity of points ``(n, d_i)`` to doublets, ``(n,)`` float32, in standard deviations above the median.

        ``log_counts`` ``(n,)`` are the logarithms of the counts of each cell relative to the median cell, if known.
        """
        scores = (self.centers[-1] - self._single(kinds, batches)) / self.scales[-1]
        scores = np.where(np.isfinite(scores), scores, 0)  # a single cluster has no pairs
        if log_counts is not None:
            scores = (scores + log_counts / COUNTS_DEVIATION) / np.sqrt(2)
        return scores.astype(np.float32)

    def _evidence(
        self, kinds: Sequence[np.ndarray], labels: np.ndarray, batches: np.ndarray | None
    ) -> tuple[Evidence, np.ndarray]:
        """The evidence, and the log of weight times density of the features in each cluster, ``(n, K)``."""
        points, rows = self.components(kinds), np.arange(len(labels))
        features = self.mixture.log_clusters(points, FEATURES, batches)
        by_features, none = features[:, :-1], features[:, -1]
        others = by_features.copy()
        others[rows, labels] = -np.inf
        odds = by_features[rows, labels] - log_sum(others)
        typical = self.mixture.log_clusters(points, LATENT, batches)[rows, labels]
        return Evidence(odds, typical, log_sum(by_features) - none), by_features

    def _single(self, kinds: Sequence[np.ndarray], batches: np.ndarray | None) -> np.ndarray:
        """Log of the density of the features in clusters relative to that of doublets, ``(n,)``."""
        points = self.components(kinds)
        clusters = self.mixture.log_clusters(points, FEATURES, batches)[:, :-1]
        return log_sum(clusters) - self.mixture.log_pairs(points, FEATURES, batches)

    def _standardized(self, evidence: Evidence) -> Evidence:
        columns = zip(evidence, self.centers[:-1], self.scales[:-1], strict=True)
        return Evidence(*((values - center) / scale for values, center, scale in columns))

    def to_dict(self) -> dict[str, object]:
        """Plain numbers and arrays."""
        parts = self.components.parts
        return {
            "space": {"centers": [part.mean for part in parts], "loadings": [part.loadings for part in parts]},
            "mixture": asdict(self.mixture),
            "centers": self.centers,
            "scales": self.scales,
            "offset": self.offset,
        }

    @classmethod
    def from_dict(cls, state: Mapping) -> Self:
        """The inverse of :meth:`to_dict`."""
        parts = zip(state["space"]["centers"], state["space"]["loadings"], strict=True)
        components = JointComponents([Components(mean, loadings) for mean, loadings in parts])
        return cls(components, Mixture(**state["mixture"]), state["centers"], state["scales"], state["offset"])


def _doubt(odds: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Logarithm of the odds of another cluster or of none, up to a constant."""
    return np.logaddexp(-odds, -typical)


def log_sum(logs: np.ndarray) -> np.ndarray:
    """Logarithm ``(n,)`` of the sums of rows, from the logarithms ``(n, m)`` of their entries; ``-inf`` for zero.

    Several times as fast as that of scipy, which allows for complex numbers, and computes with denormal ones.
    """
    highest = logs.max(1, keepdims=True)
    with np.errstate(invalid="ignore"):  # where all are infinite
        terms = logs - highest
    np.fmax(terms, -700, out=terms)
    return np.log(np.exp(terms, out=terms).sum(1)) + highest[:, 0]


def log_student_t(points: np.ndarray, means: np.ndarray, scales: np.ndarray, degrees: float) -> np.ndarray:
    r"""Logarithm ``(m, C)`` of the density of multivariate Student-t distributions with diagonal scale matrices.

    Parameters
    ----------
    points
        ``(m, p)``.
    means, scales
        ``(C, p)``; scales are square roots of the diagonal of the scale matrix.
    degrees
        Degrees of freedom.
    """
    dimensions = points.shape[1]
    precisions = 1 / scales**2
    squares = points**2 @ precisions.T - 2 * points @ (means * precisions).T + (means**2 * precisions).sum(1)
    constant = gammaln((degrees + dimensions) / 2) - gammaln(degrees / 2) - dimensions / 2 * np.log(degrees * np.pi)
    total = (degrees + dimensions) / 2 * np.log1p(np.maximum(squares, 0) / degrees)
    return constant - np.log(scales).sum(1) - total


def component_means(points: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Means ``(C, p)`` of the components of clusters by k-means in each cluster, and the cluster ``(C,)`` of each component."""
    means, clusters = [], []
    for cluster in np.unique(labels):
        members = points[labels == cluster]
        number = min(MAX_COMPONENTS_OF_CLUSTER, max(1, len(members) // MIN_CELLS_OF_COMPONENT))
        means.append(KMeans(number, n_init=3, random_state=seed).fit(members).cluster_centers_)
        clusters.append(np.full(number, cluster))
    return np.concatenate(means), np.concatenate(clusters)
