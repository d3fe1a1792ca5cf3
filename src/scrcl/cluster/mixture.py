"""How sure the cluster of a point is: heavy-tailed components that are tied to clusters, over plain arrays.

What is found here from given parameters is what :mod:`scrcl.nn.mixture` learns a posterior of.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from scipy.special import gammaln, logsumexp, softmax
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

#: Principal components of each kind of points, at most.
N_COMPONENTS = 20
#: Components of a cluster at most, and the cells that each needs.
COMPONENTS_EACH, CELLS_EACH = 1, 30


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
        for points in kinds:
            number = min(N_COMPONENTS, points.shape[1], len(points) - 1)
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
    r"""Student-t components, several a cluster, and one for what is in none.

    With :math:`\nu` degrees of freedom and :math:`p` dimensions, a point :math:`x` of batch :math:`b` has under component
    :math:`c` the density :math:`t_\nu(x; \mu_c + \delta_b, \mathrm{diag}(s_c^2 + v_c))`, :math:`v_c` being the posterior
    variance of the mean.

    Attributes
    ----------
    means, deviations
        ``(C, p)`` means of the components, and standard deviations of their posterior.
    scales
        ``(C, p)`` scales of the components.
    weights
        ``(C + 1,)`` their shares, the last one that of points in no cluster.
    clusters
        ``(C,)`` cluster of each component.
    degrees
        Degrees of freedom.
    spread
        ``(p,)`` scales of points in no cluster, about the origin.
    shifts
        ``(B, p)`` by how much the points of each batch lie elsewhere; ``(0, p)`` for none.
    shift_scale
        Scale of the shift of a batch that was not seen.
    temperature
        What log odds are divided by.
    """

    means: np.ndarray
    deviations: np.ndarray
    scales: np.ndarray
    weights: np.ndarray
    clusters: np.ndarray
    degrees: float
    spread: np.ndarray
    shifts: np.ndarray
    shift_scale: float = 0.0
    temperature: float = 1.0

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return int(self.clusters.max()) + 1

    def log_densities(self, points: np.ndarray, batches: np.ndarray | None = None) -> np.ndarray:
        """Logarithm ``(m, C + 1)`` of weight times density of points ``(m, p)``, the last column for no cluster.

        ``batches`` ``(m,)`` are numbers, -1 for a batch that was not seen.
        """
        variances = self.scales**2 + self.deviations**2
        extra = np.zeros(len(points))
        if batches is not None and len(self.shifts):
            seen = batches >= 0
            points = points - np.where(seen[:, None], self.shifts[batches], 0)
            extra = np.where(seen, 0.0, self.shift_scale**2)
        means = np.vstack([self.means, np.zeros_like(self.spread)])
        variances = np.vstack([variances, self.spread**2])
        found = np.empty((len(points), len(means)))
        for value in np.unique(extra):
            rows = extra == value
            found[rows] = log_student_t(points[rows], means, np.sqrt(variances + value), self.degrees)
        return found + np.log(self.weights)

    def log_clusters(self, points: np.ndarray, batches: np.ndarray | None = None) -> np.ndarray:
        """The same by cluster, ``(m, K + 1)``, the components of each together."""
        found = self.log_densities(points, batches)
        by_cluster = [logsumexp(found[:, :-1][:, self.clusters == k], axis=1) for k in range(self.n_clusters)]
        return np.column_stack([*by_cluster, found[:, -1]])

    def probabilities(self, points: np.ndarray, batches: np.ndarray | None = None) -> np.ndarray:
        """Probability ``(m, K)`` of each cluster for points ``(m, p)`` that are in one; rows sum to 1."""
        return softmax(self.log_clusters(points, batches)[:, :-1] / self.temperature, axis=1)

    def outlier_scores(self, points: np.ndarray, batches: np.ndarray | None = None) -> np.ndarray:
        """Probability ``(m,)`` that points ``(m, p)`` are in no cluster."""
        return softmax(self.log_clusters(points, batches), axis=1)[:, -1]


@dataclass(frozen=True)
class Certainty:
    """How sure the clusters of points are.

    Attributes
    ----------
    space
        What the mixture is over.
    mixture
        The mixture.
    """

    space: Space
    mixture: Mixture

    def probabilities(self, kinds: Sequence[np.ndarray], batches: np.ndarray | None = None) -> np.ndarray:
        """As :meth:`Mixture.probabilities`, of points of each kind, ``(m, d_i)``."""
        return self.mixture.probabilities(self.space(kinds), batches).astype(np.float32)

    def outlier_scores(self, kinds: Sequence[np.ndarray], batches: np.ndarray | None = None) -> np.ndarray:
        """As :meth:`Mixture.outlier_scores`, of points of each kind, ``(m, d_i)``."""
        return self.mixture.outlier_scores(self.space(kinds), batches).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and arrays."""
        return {"space": asdict(self.space), "mixture": asdict(self.mixture)}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(Space(**state["space"]), Mixture(**state["mixture"]))


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
