"""How sure the cluster of a point is: heavy-tailed components that are tied to clusters, over plain arrays.

What is found here from given parameters is what :mod:`scrcl.nn.mixture` learns a posterior of.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, gammaln, logsumexp, softmax
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from scrcl.utils.sizes import sample_cells

#: Principal components at most, of the latent representation and of the features.
N_COMPONENTS = 20, 50
#: Components of a cluster at most, and the cells that each needs.
COMPONENTS_EACH, CELLS_EACH = 1, 30
#: Kinds of points by number.
LATENT, FEATURES = 0, 1
#: Points that are compared with pairs of clusters at once.
BLOCK = 4_096
#: Mixing proportions of two clusters at which doublets are looked for.
PROPORTIONS = 0.35, 0.5, 0.65
#: By how much the mean of doublets is farther from the origin than that of single cells: they have more counts, and so less noise.
LESS_NOISE = 1.2
#: Standard deviation of the logarithm of the counts of single cells.
COUNTS_DEVIATION = 0.5
#: Bounds of the mean probability that is matched.
LEAST_LEVEL, MOST_LEVEL = 0.05, 0.999


@dataclass(frozen=True)
class Space:
    """Principal components of several kinds of points, side by side, each kind with a mean squared length of one.

    Attributes
    ----------
    centers, loadings
        ``(d_i,)`` mean and ``(d_i, p_i)`` scaled loadings of each kind.
    """

    centers: list[np.ndarray]
    loadings: list[np.ndarray]

    @classmethod
    def fit(cls, kinds: Sequence[np.ndarray]) -> Self:
        """Find the components of points ``(n, d_i)``."""
        centers, loadings = [], []
        for points, most in zip(kinds, N_COMPONENTS, strict=False):
            number = min(most, points.shape[1], len(points) - 1)
            found = PCA(number, random_state=0).fit(points.astype(np.float64))
            length = np.sqrt(found.explained_variance_.sum())
            centers.append(found.mean_)
            loadings.append(found.components_.T / max(length, 1e-12))
        return cls(centers, loadings)

    @property
    def kinds(self) -> np.ndarray:
        """``(p,)`` kind of each dimension, numbered from 0."""
        return np.repeat(np.arange(len(self.loadings)), [loadings.shape[1] for loadings in self.loadings])

    def __call__(self, kinds: Sequence[np.ndarray]) -> np.ndarray:
        """Points ``(m, p)`` of those of each kind, ``(m, d_i)``."""
        parts = zip(kinds, self.centers, self.loadings, strict=True)
        return np.concatenate([(points - center) @ loadings for points, center, loadings in parts], 1)


@dataclass(frozen=True)
class Mixture:
    r"""Student-t components, one or more a cluster, and one for what is in none.

    Kinds of points are independent given the component. With :math:`\nu` degrees of freedom, a point :math:`x` of one kind and
    batch :math:`b` has under component :math:`c` the density
    :math:`t_\nu(x; \mu_c + \delta_b, \mathrm{diag}(s_c^2 + v_c))`, :math:`v_c` being the posterior variance of the mean.

    Attributes
    ----------
    kinds
        ``(p,)`` kind of each dimension, numbered from 0 to ``m - 1``.
    means, deviations
        ``(C, p)`` means of the components, and standard deviations of their posterior.
    scales
        ``(C, p)`` scales of the components.
    weights
        ``(C + 1,)`` their shares, the last one that of points in no cluster.
    clusters
        ``(C,)`` cluster of each component.
    degrees
        ``(m,)`` degrees of freedom of each kind.
    spread
        ``(p,)`` scales of points in no cluster, about the origin.
    shifts
        ``(B, p)`` by how much the points of each batch lie elsewhere; ``(0, p)`` for none.
    shift_scale
        Scale of the shift of a batch that was not seen.
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

        ``batches`` ``(n,)`` are numbers, -1 for a batch that was not seen.
        """
        means = np.vstack([self.means, np.zeros_like(self.spread)])
        variances = np.vstack([self.scales**2 + self.deviations**2, self.spread**2])
        return self._log_densities(points, means, variances, kind, batches)

    def log_clusters(self, points: np.ndarray, kind: int, batches: np.ndarray | None = None) -> np.ndarray:
        """Logarithm ``(n, K + 1)`` of weight times density by cluster in one kind, the last column for no cluster."""
        found = self.log_densities(points, kind, batches) + np.log(self.weights)
        by_cluster = [logsumexp(found[:, :-1][:, self.clusters == k], axis=1) for k in range(self.n_clusters)]
        return np.column_stack([*by_cluster, found[:, -1]])

    def log_pairs(self, points: np.ndarray, kind: int, batches: np.ndarray | None = None) -> np.ndarray:
        """Logarithm ``(n,)`` of the density of points ``(n, p)`` in one kind, were they of two clusters at once."""
        first, second = np.triu_indices(len(self.means), 1)
        apart = self.clusters[first] != self.clusters[second]
        first, second = first[apart], second[apart]
        found = np.full(len(points), -np.inf)
        if len(first) == 0:
            return found
        means = [LESS_NOISE * (w * self.means[first] + (1 - w) * self.means[second]) for w in PROPORTIONS]
        variances = (self.scales[first] ** 2 + self.scales[second] ** 2) / 2
        weights = np.tile(self.weights[first] * self.weights[second], len(PROPORTIONS))
        pairs, log_weights = (
            (np.concatenate(means), np.tile(variances, (len(PROPORTIONS), 1))),
            np.log(weights / weights.sum()),
        )
        for start in range(0, len(points), BLOCK):  # there are many pairs
            rows = slice(start, start + BLOCK)
            own = None if batches is None else batches[rows]
            found[rows] = logsumexp(self._log_densities(points[rows], *pairs, kind, own) + log_weights, axis=1)
        return found

    def _log_densities(
        self, points: np.ndarray, means: np.ndarray, variances: np.ndarray, kind: int, batches: np.ndarray | None
    ) -> np.ndarray:
        """Of components with means and variances ``(c, p)``: ``(n, c)``."""
        extra = np.zeros(len(points))
        if batches is not None and len(self.shifts):
            seen = batches >= 0
            points = points - np.where(seen[:, None], self.shifts[batches], 0)
            extra = np.where(seen, 0.0, self.shift_scale**2)
        own, found = self.kinds == kind, np.empty((len(points), len(means)))
        for value in np.unique(extra):
            rows, scales = extra == value, np.sqrt(variances[:, own] + value)
            found[rows] = log_student_t(points[rows][:, own], means[:, own], scales, self.degrees[kind])
        return found


class Evidence(NamedTuple):
    """What a mixture says of points, each ``(n,)``, more for what is sure.

    Attributes
    ----------
    odds
        Log odds of the cluster a point was put in against the others, by the features.
    typical
        Log of weight times density of the latent representation in that cluster.
    known
        Log of the density of the features in clusters, relative to that in none.
    """

    odds: np.ndarray
    typical: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Certainty:
    r"""How sure clusters are: a mixture, and what of its evidence is usual.

    Log odds of a mixture in many dimensions are far too large, but their order is telling. So each kind of evidence is
    measured against the cells that the mixture was learned of: less their median, in units of their standard deviation,
    :math:`a` for the odds and :math:`b` for what is typical. A cell may be of another cluster, or of none that is known;

    .. math:: P = 1 / \bigl(1 + e^{-\lambda}(e^{-a} + e^{-b})\bigr),

    with :math:`\lambda` such that the mean over the cells is a level that is given.

    Attributes
    ----------
    space
        What the mixture is over: the latent representation and the features.
    mixture
        The mixture.
    centers, scales
        ``(4,)`` median and standard deviation of each kind of :class:`Evidence`, and of the log of the density of the
        features in clusters relative to that of two clusters at once.
    offset
        :math:`\lambda`.
    """

    space: Space
    mixture: Mixture
    centers: np.ndarray
    scales: np.ndarray
    offset: float

    @classmethod
    def fit(
        cls,
        space: Space,
        mixture: Mixture,
        kinds: Sequence[np.ndarray],
        labels: np.ndarray,
        level: float,
        batches: np.ndarray | None = None,
    ) -> Self:
        """Learn what is usual for points ``(n, d_i)`` of two kinds with clusters ``(n,)``, to a mean probability.

        Of many points, from a sample.
        """
        rows = sample_cells(len(labels))
        kinds, labels = [points[rows] for points in kinds], labels[rows]
        batches = None if batches is None else batches[rows]
        raw = cls(space, mixture, np.zeros(4), np.ones(4), 0.0)
        evidence = np.stack([*raw._evidence(kinds, labels, batches)[0], raw._single(kinds, batches)])
        evidence = np.where(np.isfinite(evidence), evidence, 0)  # a single cluster has no odds and no pairs
        centers, scales = np.median(evidence, axis=1), np.maximum(evidence.std(1), 1e-9)
        doubt = _doubt(*((evidence - centers[:, None]) / scales[:, None])[:2])
        level = min(max(level, LEAST_LEVEL), MOST_LEVEL)
        offset = brentq(lambda value: expit(value - doubt).mean() - level, -100, 100)
        return cls(space, mixture, centers, scales, float(offset))

    def probabilities(
        self, kinds: Sequence[np.ndarray], labels: np.ndarray, batches: np.ndarray | None = None
    ) -> np.ndarray:
        """Probability ``(n, K)``, float32, of each cluster for points ``(n, d_i)`` that were put in clusters ``(n,)``.

        What the cluster of a point does not have, the others share by the features.
        """
        evidence, by_features = self._evidence(kinds, labels, batches)
        n, number = len(labels), self.mixture.n_clusters
        if number == 1:
            return np.ones((n, 1), dtype=np.float32)
        evidence = self._standardized(evidence)
        own = expit(self.offset - _doubt(evidence.odds, evidence.typical))
        by_features[np.arange(n), labels] = -np.inf
        found = (1 - own)[:, None] * softmax(by_features / self.scales[0], axis=1)
        found[np.arange(n), labels] = own
        return found.astype(np.float32)

    def outlier_scores(
        self, kinds: Sequence[np.ndarray], labels: np.ndarray, batches: np.ndarray | None = None
    ) -> np.ndarray:
        """How far points ``(n, d_i)`` are from all clusters, ``(n,)`` float32: standard deviations above the median."""
        return -self._standardized(self._evidence(kinds, labels, batches)[0]).known.astype(np.float32)

    def doublet_scores(
        self, kinds: Sequence[np.ndarray], batches: np.ndarray | None = None, log_counts: np.ndarray | None = None
    ) -> np.ndarray:
        """How much points ``(n, d_i)`` look like two cells at once, ``(n,)`` float32, in the same way.

        ``log_counts`` ``(n,)`` are the logarithms of the counts of each cell relative to the median cell, if known.
        """
        found = (self.centers[-1] - self._single(kinds, batches)) / self.scales[-1]
        found = np.where(np.isfinite(found), found, 0)  # of a single cluster there are no pairs
        if log_counts is not None:
            found = (found + log_counts / COUNTS_DEVIATION) / np.sqrt(2)
        return found.astype(np.float32)

    def _evidence(
        self, kinds: Sequence[np.ndarray], labels: np.ndarray, batches: np.ndarray | None
    ) -> tuple[Evidence, np.ndarray]:
        """The evidence, and the log of weight times density of the features in each cluster, ``(n, K)``."""
        points, rows = self.space(kinds), np.arange(len(labels))
        features = self.mixture.log_clusters(points, FEATURES, batches)
        by_features, none = features[:, :-1], features[:, -1]
        others = by_features.copy()
        others[rows, labels] = -np.inf
        odds = by_features[rows, labels] - logsumexp(others, axis=1)
        typical = self.mixture.log_clusters(points, LATENT, batches)[rows, labels]
        return Evidence(odds, typical, logsumexp(by_features, axis=1) - none), by_features

    def _single(self, kinds: Sequence[np.ndarray], batches: np.ndarray | None) -> np.ndarray:
        """Log of the density of the features in clusters relative to that of two at once, ``(n,)``."""
        points = self.space(kinds)
        clusters = self.mixture.log_clusters(points, FEATURES, batches)[:, :-1]
        return logsumexp(clusters, axis=1) - self.mixture.log_pairs(points, FEATURES, batches)

    def _standardized(self, evidence: Evidence) -> Evidence:
        each = zip(evidence, self.centers[:-1], self.scales[:-1], strict=True)
        return Evidence(*((found - center) / scale for found, center, scale in each))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and arrays."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        rest = {name: state[name] for name in ("centers", "scales", "offset")}
        return cls(Space(**state["space"]), Mixture(**state["mixture"]), **rest)


def _doubt(odds: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Logarithm of what speaks for another cluster or for none."""
    return np.logaddexp(-odds, -typical)


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


def divide(points: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Means ``(C, p)`` of parts of clusters, found by k-means in each, and the cluster ``(C,)`` of each part."""
    means, clusters = [], []
    for cluster in np.unique(labels):
        members = points[labels == cluster]
        number = min(COMPONENTS_EACH, max(1, len(members) // CELLS_EACH))
        means.append(KMeans(number, n_init=3, random_state=seed).fit(members).cluster_centers_)
        clusters.append(np.full(number, cluster))
    return np.concatenate(means), np.concatenate(clusters)
