"""Leiden communities of the nearest-neighbour graph."""

import warnings
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from graspologic_native import leiden_csr
from scvi import settings

from scrcl.graph.adjacency import symmetric_adjacency
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.utils.errors import ScrclWarning

from .clustering import N_NEIGHBORS, Clustering, number_by_size

#: Modularity resolution for the latent representation, whose clusters are compact.
RESOLUTION = 0.1
#: Times that the algorithm is run, each starting from the communities of the last one. Later runs hardly raise the modularity.
N_ITERATIONS = 3


def leiden(points: np.ndarray, resolution: float, seed: int) -> Clustering:
    """Leiden communities of the nearest-neighbour graph of points ``(n, d)``, by modularity; a higher resolution gives more clusters."""
    return _divide(points, _build_graph(points), resolution, seed)


def count_communities(points: np.ndarray, resolutions: Sequence[float], seed: int) -> list[int]:
    """Numbers of Leiden communities of points ``(n, d)`` at some resolutions."""
    graph = _build_graph(points)
    return [_divide(points, graph, resolution, seed).n_clusters for resolution in resolutions]


def leiden_with(points: np.ndarray, n_clusters: int, seed: int, noun: str = "clusters") -> Clustering:
    """Leiden communities at a resolution that gives ``n_clusters`` clusters, or the nearest number.

    Parameters
    ----------
    points, n_clusters, seed
        ``(n, d)`` points, number of clusters, and seed of the optimiser.
    noun
        Name of the clusters in the warning.
    """
    graph = _build_graph(points)
    low, high = 0.0, 1.0
    best = _divide(points, graph, high, seed)
    while best.n_clusters < n_clusters and high < 1000:
        low, high = high, 2 * high
        best = _divide(points, graph, high, seed)
    for _ in range(20):
        if best.n_clusters == n_clusters:
            break
        middle = (low + high) / 2
        clustering = _divide(points, graph, middle, seed)
        low, high = (middle, high) if clustering.n_clusters < n_clusters else (low, middle)
        if abs(clustering.n_clusters - n_clusters) < abs(best.n_clusters - n_clusters):
            best = clustering
    if best.n_clusters != n_clusters:
        warnings.warn(
            ScrclWarning(
                f"No resolution of Leiden gives {n_clusters} {noun}; the nearest gives {best.n_clusters}.",
                "Pass `method='kmeans'` for an exact number." if noun == "clusters" else "",
                command="Pass --method kmeans for an exact number.",
            ),
            stacklevel=settings.warnings_stacklevel,
        )
    return best


def _build_graph(points: np.ndarray) -> sp.csr_array:
    """The nearest-neighbour graph ``(n, n)`` of the points, unweighted and symmetric."""
    return symmetric_adjacency(nearest_neighbors(points, min(N_NEIGHBORS, len(points) - 1)).to_sparse())


def _divide(points: np.ndarray, graph: sp.csr_array, resolution: float, seed: int) -> Clustering:
    _, communities = leiden_csr(
        graph.indptr.astype(np.int64),
        graph.indices.astype(np.int32),
        graph.data.astype(np.float64),
        len(points),
        resolution=resolution,
        iterations=N_ITERATIONS,
        seed=seed,
    )
    labels = np.fromiter((communities[node] for node in range(len(points))), dtype=np.int64, count=len(points))
    return Clustering(points, number_by_size(labels))
