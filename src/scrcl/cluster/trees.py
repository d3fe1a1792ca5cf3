"""Trees of micro-clusters that are joined two at a time, over plain arrays.

k-means wants clusters of equal size and divides the largest cell type rather than find the rare ones. Here k-means only
makes many small clusters. These are joined by how similar their cells are in the features, which training has not drawn
together, with hardly any regard to their size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from scrcl.utils.progress import track

from .kmeans import repeat_kmeans

#: Micro-clusters, if there are enough cells, and least number of cells to each.
N_MICRO, CELLS_PER_MICRO = 60, 8
#: Divisions into micro-clusters, shared among the representations.
N_REPEATS = 32
#: Cells and share of cells below which a micro-cluster joins another first.
SMALLEST_CELLS, SMALLEST_SHARE = 5, 0.005
#: Power of the size in the cost of joining two clusters: 0 is average linkage, 1 would be like Ward's. For cosines, and
#: for squared distances, by which domains in space are joined.
SIZE_POWER, DOMAIN_SIZE_POWER = 0.05, 0.15
#: Least similarity within a cluster by which noise is corrected.
MIN_COHESION = 0.02

#: Rows of a matrix between clusters.
Rows: TypeAlias = int | slice
ALL = slice(None)


@dataclass(frozen=True)
class Tree:
    """The order in which micro-clusters are joined.

    Attributes
    ----------
    labels
        ``(n,)`` micro-cluster of each cell.
    together
        ``(m, m)`` the largest number of clusters at which two micro-clusters are in the same one.
    distances
        ``(m + 1,)`` distance between the two clusters that are joined when there are as many as the index says; 0
        where none are.
    """

    labels: np.ndarray
    together: np.ndarray
    distances: np.ndarray

    def joined(self, n_clusters: int) -> np.ndarray:
        """The cluster ``(m,)`` of each micro-cluster when ``n_clusters`` are left, or all where there are fewer."""
        first = (self.together >= min(n_clusters, len(self.together))).argmax(1)
        return np.unique(first, return_inverse=True)[1]

    def cut(self, n_clusters: int) -> np.ndarray:
        """The cluster ``(n,)`` of each cell when ``n_clusters`` are left."""
        return self.joined(n_clusters)[self.labels]


def grow(
    representations: Sequence[np.ndarray],
    features: Sequence[np.ndarray],
    seed: int,
    n_clusters: int = 0,
    euclidean: bool = False,
) -> list[Tree]:
    """Divide cells into micro-clusters in several ways and join these in several ways.

    Parameters
    ----------
    representations
        ``(n, d)`` arrays in which micro-clusters are made by k-means.
    features
        ``(n, m)`` arrays by whose cosines, or squared distances, they are joined.
    seed
        Seed of k-means.
    n_clusters
        Number of clusters for which there must be enough micro-clusters.
    euclidean
        Whether they are joined by squared distances: for features that were smoothed, whose length is no noise but
        tells how much a cell differs from the mean.
    """
    n = len(representations[0])
    each = max(1, N_REPEATS // len(representations))
    seeds = np.random.default_rng(seed).integers(2**31, size=(len(representations), each))
    number = max(1, n_clusters, min(max(N_MICRO, 2 * n_clusters), n // CELLS_PER_MICRO))
    profiles = [_scale(space) if euclidean else normalize(space) for space in features]
    divisions = chain.from_iterable(
        repeat_kmeans(points, min(n, number), own) for points, own in zip(representations, seeds, strict=True)
    )
    trees = []
    for division in track(divisions, seeds.size):
        micro = np.unique(division, return_inverse=True)[1].astype(np.int32)
        trees += [agglomerate(profile, micro, euclidean) for profile in profiles]
    return trees


def enough_for(n_clusters: int, n_cells: int) -> int:
    """For how many clusters trees must be grown so that they can be cut into these: 0 for the usual ones."""
    return n_clusters if 2 * n_clusters > min(N_MICRO, n_cells // CELLS_PER_MICRO) else 0


def adjusted_rand(tables: np.ndarray) -> np.ndarray:
    """Adjusted Rand indices ``(t,)``, from how many cells are in each pair of clusters, ``(t, k, l)``."""
    n, both, first, second = (
        (sizes * (sizes - 1)).reshape(len(tables), -1).sum(1)
        for sizes in (tables.sum((1, 2)), tables, tables.sum(2), tables.sum(1))
    )
    expected, most = first * second / np.maximum(n, 1), (first + second) / 2
    trivial = most <= expected
    return np.where(trivial, 1.0, (both - expected) / np.where(trivial, 1.0, most - expected))


def agglomerate(profiles: np.ndarray, labels: np.ndarray, euclidean: bool = False) -> Tree:
    r"""Join clusters, two at a time, until one is left.

    The two clusters with the smallest :math:`d_{ab}\, s_{ab}^\alpha` are joined. :math:`d_{ab}` is one less the mean
    cosine between cells of both, divided by the geometric mean of the mean cosines between different cells of each:
    Spearman's correction for attenuation, without which noisy clusters seem far from all others. :math:`s_{ab}` is the
    harmonic mean of the sizes. Very small clusters join the most similar one first.

    Parameters
    ----------
    profiles
        ``(n, m)`` features; for cosines, with rows of unit length.
    labels
        ``(n,)`` clusters to start from, numbered from 0.
    euclidean
        Whether :math:`d_{ab}` is the squared distance of the two means instead.
    """
    distance_of, power = (squared_distance, DOMAIN_SIZE_POWER) if euclidean else (joining_distance, SIZE_POWER)
    members = indicator(labels)
    sizes = members.sum(axis=0)
    sums = members.T @ profiles.astype(np.float64)
    cosines = sums @ sums.T  # summed over all pairs of cells of two clusters
    n, m = len(labels), len(sizes)
    group, left = np.arange(m), np.ones(m, dtype=bool)
    together, distances = np.diag(np.full(m, m)), np.zeros(m + 1)
    distance = distance_of(cosines, sizes)
    cost = distance * _size_factor(sizes, power, n)
    np.fill_diagonal(cost, np.inf)
    for number in range(m, 1, -1):
        smallest = int(np.argmin(np.where(left, sizes, np.inf)))
        if sizes[smallest] < max(SMALLEST_CELLS, SMALLEST_SHARE * n):
            similarity = np.where(left, -distance[smallest] if euclidean else cosines[smallest] / sizes, -np.inf)
            similarity[smallest] = -np.inf
            a, b = sorted((smallest, int(np.argmax(similarity))))
        else:
            a, b = divmod(int(cost.argmin()), m)
            distances[number] = distance[a, b]
        joined = np.outer(group == a, group == b)
        together[joined | joined.T] = number - 1
        group[group == b], left[b] = a, False
        cosines[a] += cosines[b]
        cosines[:, a] += cosines[:, b]
        sizes[a] += sizes[b]
        distance[a] = distance[:, a] = distance_of(cosines, sizes, a)
        cost[a] = cost[:, a] = np.where(left, distance[a] * _size_factor(sizes, power, n, a), np.inf)
        cost[a, a] = cost[b] = cost[:, b] = np.inf
    return Tree(labels, together, distances)


def joining_distance(cosines: np.ndarray, sizes: np.ndarray, rows: Rows = ALL) -> np.ndarray:
    """Distance ``(k, k)`` between clusters, or some rows, from cosines summed over pairs of cells and from sizes."""
    pairs = np.maximum(sizes * (sizes - 1), 1)
    cohesion = np.maximum((np.diag(cosines) - sizes) / pairs, MIN_COHESION)
    between = cosines[rows] / np.multiply.outer(sizes[rows], sizes)
    return np.maximum(1 - between / np.sqrt(np.multiply.outer(cohesion[rows], cohesion)), 1e-6)


def squared_distance(products: np.ndarray, sizes: np.ndarray, rows: Rows = ALL) -> np.ndarray:
    """Squared distance ``(k, k)`` between the means of clusters, or some rows, from dot products summed over pairs of cells."""
    own = np.diag(products) / sizes**2
    between = products[rows] / np.multiply.outer(sizes[rows], sizes)
    return np.maximum(np.add.outer(own[rows], own) - 2 * between, 1e-12)


def _scale(space: np.ndarray) -> np.ndarray:
    """Centre features, so that little is lost to rounding, and scale them to a mean squared distance of one."""
    centered = space - space.mean(0, dtype=np.float64)
    variance = 2 * float((centered**2).sum(1).mean())
    return centered / np.sqrt(variance) if variance > 0 else centered


def _size_factor(sizes: np.ndarray, power: float, n_cells: int, rows: Rows = ALL) -> np.ndarray:
    """By what the distance is multiplied, or some rows, so that of two equal ones the smaller clusters are joined."""
    harmonic = 2 * np.multiply.outer(sizes[rows], sizes) / np.add.outer(sizes[rows], sizes) / n_cells
    return harmonic**power


def indicator(labels: np.ndarray) -> sp.csr_array:
    """Which of ``n`` things is in which of ``k`` groups, ``(n, k)``."""
    n = len(labels)
    return sp.csr_array((np.ones(n), labels, np.arange(n + 1)), shape=(n, int(labels.max()) + 1))
