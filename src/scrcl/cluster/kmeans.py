"""k-means clustering."""

import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from scrcl.utils.sizes import SAMPLE_CELLS, draw

from .clustering import Clustering, number_by_size

#: Number of k-means++ starts.
N_STARTS = 20
#: Most steps from a start, as in scikit-learn.
MAX_STEPS = 300


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


def repeat_kmeans(
    points: np.ndarray,
    n_clusters: int,
    seeds: Iterable[int],
    weights: np.ndarray | None = None,
    max_iter: int = MAX_STEPS,
) -> Iterator[np.ndarray]:
    """Labels ``(n,)`` of points ``(n, d)`` with ``weights`` ``(n,)`` from one k-means++ start for each seed."""
    for start in _starts(points, n_clusters, seeds, weights):
        yield _fit(points, start, weights, max_iter).labels_


def best_kmeans(
    points: np.ndarray, numbers: Sequence[int], seeds: Iterable[int], weights: np.ndarray | None = None
) -> list[np.ndarray]:
    """Labels ``(n,)`` of weighted points for several numbers of clusters, each the best of one start for each seed.

    The first centres that k-means++ chooses are a start for fewer clusters, too.
    """
    fits: dict[int, list[KMeans]] = {number: [] for number in numbers}
    for start in _starts(points, max(numbers), seeds, weights):
        for number in numbers:
            fits[number].append(_fit(points, start[:number], weights))
    return [min(fits[number], key=lambda fit: fit.inertia_).labels_ for number in numbers]


def _fit(points: np.ndarray, start: list[int], weights: np.ndarray | None, max_iter: int = MAX_STEPS) -> KMeans:
    """k-means from some of the points."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # where there are fewer distinct points than clusters
        return KMeans(len(start), init=points[start], n_init=1, max_iter=max_iter).fit(points, None, weights)


def _starts(points: np.ndarray, number: int, seeds: Iterable[int], weights: np.ndarray | None) -> Iterator[list[int]]:
    """Starting points of k-means++ for each seed.

    All starts share the products ``(n, n)`` of all points, which with many clusters would take most of the time of each
    start; ``n`` must be small enough for them.
    """
    centered = points - points.mean(0)  # for the accuracy of single precision
    products = centered @ centered.T
    weights = np.ones(len(points)) if weights is None else weights
    for seed in seeds:
        yield _choose_centers(products, number, weights.astype(products.dtype), np.random.default_rng(seed))


def _choose_centers(products: np.ndarray, number: int, weights: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Starting points of k-means++ from products of points ``(n, n)``: the best of some candidates, as in scikit-learn."""
    norms = products.diagonal()

    def distances(rows: list[int] | np.ndarray) -> np.ndarray:
        return np.maximum(norms + norms[rows, None] - 2 * products[rows], 0)

    chosen = [int(rng.integers(len(norms)))]
    nearest = distances(chosen)[0]
    for _ in range(number - 1):
        sums = np.cumsum(nearest * weights, dtype=np.float64)
        candidates = np.searchsorted(sums, rng.random(2 + int(np.log(number))) * sums[-1])
        remaining = np.minimum(nearest, distances(candidates))
        best = int((remaining @ weights).argmin())
        nearest = remaining[best]
        chosen.append(int(candidates[best]))
    return chosen
