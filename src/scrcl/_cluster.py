"""Clusters of points, over plain arrays."""

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import igraph
import numpy as np
import scipy.sparse as sp
from sklearn.cluster import KMeans

from ._graph import nearest_neighbors, symmetric_adjacency

#: Number of k-means++ starts.
N_STARTS = 20
#: Number of neighbours in the graph that Leiden divides.
N_NEIGHBORS = 15
#: Modularity resolution that suits this latent space, whose clusters are compact.
RESOLUTION = 0.1
#: Points on which centres of k-means are found, and among which communities are counted, where there are more.
SAMPLED_POINTS = 20_000


@dataclass(frozen=True)
class Clustering:
    """Clusters of reference points, and the rule by which further points join them.

    Attributes
    ----------
    points
        ``(n, d)`` reference points.
    labels
        ``(n,)`` cluster of each, numbered from 0 by decreasing size.
    centers
        ``(k, d)`` cluster centres; ``None`` where clusters are not defined by centres.
    probabilities
        ``(n, k)`` probability that a point belongs to a cluster; ``None`` where the method gives none.
    """

    points: np.ndarray
    labels: np.ndarray
    centers: np.ndarray | None = None
    probabilities: np.ndarray | None = None

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return int(self.labels.max()) + 1

    def assign(self, points: np.ndarray) -> np.ndarray:
        """Assign points ``(m, d)`` to the nearest centre or, without centres, to what most of their neighbours are."""
        if self.centers is not None:
            return nearest_neighbors(self.centers, 1, points).indices[:, 0]
        votes = np.zeros((len(points), self.n_clusters))
        np.add.at(votes, (np.arange(len(points))[:, None], self.labels[self._neighbors(points)]), 1)
        return votes.argmax(1)

    def assign_probabilities(self, points: np.ndarray) -> np.ndarray:
        """Probabilities ``(m, k)`` of points ``(m, d)``: the mean of those of their neighbours."""
        if self.probabilities is None:
            raise ValueError("These clusters have no probabilities.")
        return self.probabilities[self._neighbors(points)].mean(1)

    def _neighbors(self, points: np.ndarray) -> np.ndarray:
        return nearest_neighbors(self.points, min(N_NEIGHBORS, len(self.points)), points).indices


def kmeans(points: np.ndarray, n_clusters: int, seed: int) -> Clustering:
    """k-means, the best of 20 k-means++ starts.

    Parameters
    ----------
    points
        ``(n, d)`` points.
    n_clusters
        Number of clusters.
    seed
        Seed of the starts.
    """
    found, centers = fit_kmeans(points, n_clusters, N_STARTS, seed)
    labels = number_by_size(found)
    _, first = np.unique(labels, return_index=True)
    return Clustering(points, labels, centers[found[first]])


def fit_kmeans(
    points: np.ndarray, n_clusters: int, n_starts: int, seed: int, n_sampled: int = SAMPLED_POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``(n,)`` and centres ``(k, d)`` of k-means; of many points, centres are found on some.

    Parameters
    ----------
    points
        ``(n, d)`` points.
    n_clusters
        Number of clusters.
    n_starts
        Number of k-means++ starts, of which the best counts.
    seed
        Seed of the starts and of the choice of points.
    n_sampled
        Number of points on which centres are found.
    """
    fit = KMeans(n_clusters, n_init=n_starts, random_state=seed)
    if len(points) <= n_sampled:
        return fit.fit_predict(points), fit.cluster_centers_
    return fit.fit(_sample(points, n_sampled, seed)).predict(points), fit.cluster_centers_


def leiden(points: np.ndarray, resolution: float, seed: int) -> Clustering:
    """Leiden communities of the nearest-neighbour graph, by modularity.

    Parameters
    ----------
    points
        ``(n, d)`` points.
    resolution
        Resolution of the modularity: more gives more clusters.
    seed
        Seed of the optimiser.
    """
    return _divide(points, _network(points), resolution, seed)


def count_communities(points: np.ndarray, resolutions: Sequence[float], seed: int) -> list[int]:
    """Numbers of Leiden communities at some resolutions; of many points, among a random part of them.

    Parameters
    ----------
    points
        ``(n, d)`` points.
    resolutions
        Resolutions of the modularity.
    seed
        Seed of the optimiser and of the choice of points.
    """
    if len(points) > SAMPLED_POINTS:
        points = _sample(points, SAMPLED_POINTS, seed)
    network = _network(points)
    return [_divide(points, network, resolution, seed).n_clusters for resolution in resolutions]


def leiden_with(points: np.ndarray, n_clusters: int, seed: int) -> Clustering:
    """Leiden communities at a resolution that gives the number of clusters asked for, or comes nearest to it.

    Parameters
    ----------
    points
        ``(n, d)`` points.
    n_clusters
        Number of clusters.
    seed
        Seed of the optimiser.
    """
    network = _network(points)
    low, high = 0.0, 1.0
    best = _divide(points, network, high, seed)
    while best.n_clusters < n_clusters and high < 1000:
        low, high = high, 2 * high
        best = _divide(points, network, high, seed)
    for _ in range(20):
        if best.n_clusters == n_clusters:
            break
        middle = (low + high) / 2
        found = _divide(points, network, middle, seed)
        low, high = (middle, high) if found.n_clusters < n_clusters else (low, middle)
        if abs(found.n_clusters - n_clusters) < abs(best.n_clusters - n_clusters):
            best = found
    if best.n_clusters != n_clusters:
        warnings.warn(
            f"No resolution of Leiden gives {n_clusters} clusters here; the nearest gives {best.n_clusters}. Use "
            "method='kmeans' for an exact number.",
            UserWarning,
            stacklevel=2,
        )
    return best


def _sample(points: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Some of the points, drawn at random."""
    return points[np.random.default_rng(seed).choice(len(points), number, replace=False)]


def _network(points: np.ndarray) -> igraph.Graph:
    """The nearest-neighbour graph that Leiden divides."""
    graph = symmetric_adjacency(nearest_neighbors(points, min(N_NEIGHBORS, len(points) - 1)).to_sparse())
    upper = sp.triu(graph, format="coo")
    return igraph.Graph(n=len(points), edges=np.column_stack(upper.coords))


def _divide(points: np.ndarray, network: igraph.Graph, resolution: float, seed: int) -> Clustering:
    igraph.set_random_number_generator(random.Random(seed))
    try:
        found = network.community_leiden("modularity", resolution=resolution, n_iterations=-1)
    finally:
        igraph.set_random_number_generator(random)
    return Clustering(points, number_by_size(np.asarray(found.membership)))


def number_by_size(labels: np.ndarray) -> np.ndarray:
    """Number clusters from 0 by decreasing size."""
    _, labels, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return np.argsort(np.argsort(-sizes, kind="stable"))[labels]
