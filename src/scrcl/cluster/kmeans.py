"""k-means."""

from collections.abc import Iterable, Iterator

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import euclidean_distances

from scrcl.utils.sizes import SAMPLE_CELLS, draw

from .clustering import Clustering, number_by_size

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
    return fit.fit(points[draw(len(points), n_sampled, seed)]).predict(points), fit.cluster_centers_


def repeat_kmeans(points: np.ndarray, n_clusters: int, seeds: Iterable[int]) -> Iterator[np.ndarray]:
    """Labels ``(n,)`` of points ``(n, d)`` from one k-means++ start for each seed.

    All starts share the distances of all points, ``(n, n)``, so that there must not be too many of these: with as many
    clusters as are sought here, finding distances anew takes most of the time.
    """
    distances = euclidean_distances(points, squared=True)
    for seed in seeds:
        start = points[_choose_centers(distances, n_clusters, np.random.default_rng(seed))]
        yield KMeans(n_clusters, init=start, n_init=1).fit_predict(points)


def _choose_centers(distances: np.ndarray, number: int, rng: np.random.Generator) -> list[int]:
    """Points that k-means++ starts from, given squared distances ``(n, n)``; of some candidates the best, as in scikit-learn."""
    chosen = [int(rng.integers(len(distances)))]
    nearest = distances[chosen[0]]
    for _ in range(number - 1):
        sums = np.cumsum(nearest, dtype=np.float64)
        candidates = np.searchsorted(sums, rng.random(2 + int(np.log(number))) * sums[-1])
        remaining = np.minimum(nearest, distances[candidates])
        best = int(remaining.sum(1).argmin())
        nearest = remaining[best]
        chosen.append(int(candidates[best]))
    return chosen
