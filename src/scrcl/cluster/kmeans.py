"""k-means clustering."""

from collections.abc import Iterable, Iterator

import numpy as np
from sklearn.cluster import KMeans

from scrcl.utils.sizes import SAMPLE_CELLS, draw

from .clustering import Clustering, number_by_size

#: Number of k-means++ starts.
N_STARTS = 20


def kmeans(points: np.ndarray, n_clusters: int, seed: int) -> Clustering:
    """k-means of points ``(n, d)``, the best of ``N_STARTS`` k-means++ starts."""
    by_center, centers = fit_kmeans(points, n_clusters, N_STARTS, seed)
    labels = number_by_size(by_center)
    _, first = np.unique(labels, return_index=True)
    return Clustering(points, labels, centers[by_center[first]])


def fit_kmeans(
    points: np.ndarray, n_clusters: int, n_starts: int, seed: int, n_sampled: int = SAMPLE_CELLS
) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``(n,)`` and centres ``(k, d)`` of points ``(n, d)``, the best of ``n_starts`` k-means++ starts.

    If there are more than ``n_sampled`` points, centres are fitted to a random sample of this size.
    """
    fit = KMeans(n_clusters, n_init=n_starts, random_state=seed)
    if len(points) <= n_sampled:
        return fit.fit_predict(points), fit.cluster_centers_
    return fit.fit(points[draw(len(points), n_sampled, seed)]).predict(points), fit.cluster_centers_


def repeat_kmeans(points: np.ndarray, n_clusters: int, seeds: Iterable[int]) -> Iterator[np.ndarray]:
    """Labels ``(n,)`` of points ``(n, d)`` from one k-means++ start for each seed.

    All starts share the products ``(n, n)`` of all points, which with many clusters would take most of the time of each
    start; ``n`` must be small enough for them.
    """
    centered = points - points.mean(0)  # for the accuracy of single precision
    products = centered @ centered.T
    for seed in seeds:
        start = points[_choose_centers(products, n_clusters, np.random.default_rng(seed))]
        yield KMeans(n_clusters, init=start, n_init=1).fit_predict(points)


def _choose_centers(products: np.ndarray, number: int, rng: np.random.Generator) -> list[int]:
    """Starting points of k-means++ from products of points ``(n, n)``: the best of some candidates, as in scikit-learn."""
    norms = products.diagonal()

    def distances(rows: list[int] | np.ndarray) -> np.ndarray:
        return np.maximum(norms + norms[rows, None] - 2 * products[rows], 0)

    chosen = [int(rng.integers(len(norms)))]
    nearest = distances(chosen)[0]
    for _ in range(number - 1):
        sums = np.cumsum(nearest, dtype=np.float64)
        candidates = np.searchsorted(sums, rng.random(2 + int(np.log(number))) * sums[-1])
        remaining = np.minimum(nearest, distances(candidates))
        best = int(remaining.sum(1).argmin())
        nearest = remaining[best]
        chosen.append(int(candidates[best]))
    return chosen
