"""k-means."""

import numpy as np
from sklearn.cluster import KMeans

from scrcl.utils.sizes import SAMPLE_CELLS

from .clustering import Clustering, draw, number_by_size

#: Number of k-means++ starts.
N_STARTS = 20


def kmeans(points: np.ndarray, n_clusters: int, seed: int) -> Clustering:
    """k-means of points ``(n, d)``, the best of 20 k-means++ starts."""
    found, centers = fit_kmeans(points, n_clusters, N_STARTS, seed)
    labels = number_by_size(found)
    _, first = np.unique(labels, return_index=True)
    return Clustering(points, labels, centers[found[first]])


def fit_kmeans(
    points: np.ndarray, n_clusters: int, n_starts: int, seed: int, n_sampled: int = SAMPLE_CELLS
) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``(n,)`` and centres ``(k, d)`` of points ``(n, d)``, the best of some k-means++ starts.

    Of more points than ``n_sampled``, centres are found on as many, drawn at random.
    """
    fit = KMeans(n_clusters, n_init=n_starts, random_state=seed)
    if len(points) <= n_sampled:
        return fit.fit_predict(points), fit.cluster_centers_
    return fit.fit(draw(points, n_sampled, seed)).predict(points), fit.cluster_centers_
