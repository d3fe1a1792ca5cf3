"""Clusters of points, and the assignment of new points to them."""

from dataclasses import dataclass

import numpy as np

from scrcl.graph.neighbors import ListSearch, nearest_neighbors
from scrcl.utils.errors import ScrclValueError

#: Neighbours that vote for the cluster of a new point, and of a point in the graph of Leiden.
N_NEIGHBORS = 15
#: Points that are assigned at once.
BLOCK_POINTS = 16_384


@dataclass(frozen=True)
class Clustering:
    """Clusters of reference points, to which new points can be assigned.

    Attributes
    ----------
    points
        ``(n, d)`` reference points.
    labels
        ``(n,)`` cluster of each point, numbered from 0 by decreasing size.
    centers
        ``(k, d)`` cluster centres; ``None`` if clusters are not defined by centres.
    probabilities
        ``(n, k)`` probability of each cluster for each point; ``None`` if the method gives none.
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
        """Clusters ``(m,)`` of points ``(m, d)``: of the nearest centre or, without centres, of most neighbours."""
        if self.centers is not None:
            return nearest_neighbors(self.centers, 1, points).indices[:, 0]
        return self._vote(self._neighbors(points))

    def assign_probabilities(self, points: np.ndarray) -> np.ndarray:
        """Probabilities ``(m, k)`` of points ``(m, d)``: the mean of the probabilities of their neighbours."""
        if self.probabilities is None:
            raise ScrclValueError("These clusters have no probabilities.", "Cluster with method='consensus'.")
        return self.probabilities[self._neighbors(points)].mean(1)

    def join(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Clusters and probabilities as by :meth:`assign` without centres, but with neighbours from a :class:`ListSearch`."""
        assert self.probabilities is not None  # only a consensus is joined
        search, n_neighbors = ListSearch(self.points), min(N_NEIGHBORS, len(self.points))
        labels = np.empty(len(points), dtype=np.int64)
        probabilities = np.empty((len(points), self.n_clusters), dtype=self.probabilities.dtype)
        for start in range(0, len(points), BLOCK_POINTS):
            rows = slice(start, start + BLOCK_POINTS)
            neighbors = search.unordered(points[rows], n_neighbors)
            labels[rows], probabilities[rows] = self._vote(neighbors), self.probabilities[neighbors].mean(1)
        return labels, probabilities

    def _vote(self, neighbors: np.ndarray) -> np.ndarray:
        """The cluster ``(m,)`` of most of the neighbours ``(m, k)`` of points."""
        votes = np.zeros((len(neighbors), self.n_clusters))
        np.add.at(votes, (np.arange(len(neighbors))[:, None], self.labels[neighbors]), 1)
        return votes.argmax(1)

    def _neighbors(self, points: np.ndarray) -> np.ndarray:
        return nearest_neighbors(self.points, min(N_NEIGHBORS, len(self.points)), points).indices


def number_by_size(labels: np.ndarray) -> np.ndarray:
    """Number clusters from 0 by decreasing size."""
    _, labels, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return np.argsort(np.argsort(-sizes, kind="stable"))[labels]
