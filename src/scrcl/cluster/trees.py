"""Trees of micro-clusters, built by agglomeration, over plain arrays.

k-means favours clusters of equal size, and divides the largest cell type rather than find rare types. So k-means is only
used for many small clusters. These are joined by the similarity of their cells in the features, which training did not
change, and nearly independent of their size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from scrcl.graph.adjacency import ALL
from scrcl.utils.progress import track

from .kmeans import repeat_kmeans

#: Number of micro-clusters if there are enough cells, and least mean number of cells of each.
N_MICRO, MIN_CELLS_PER_MICRO = 60, 8
#: Divisions into micro-clusters, over all representations, for a given number of clusters and for the tree of clusters.
N_REPEATS, N_TREE_REPEATS = 32, 12
#: Cells and share of cells below which a cluster is joined to another one first.
SMALL_CLUSTER_CELLS, SMALL_CLUSTER_SHARE = 5, 0.005
#: Power of the size in the cost of joining two clusters, for cosines, and for squared distances between domains in space.
#: 0 is average linkage, and 1 would resemble Ward's linkage.
SIZE_POWER, DOMAIN_SIZE_POWER = 0.05, 0.15
#: Lower bound of the similarity within a cluster in the correction for noise.
MIN_COHESION = 0.02

#: Rows of a matrix between clusters.
Rows: TypeAlias = int | slice


@dataclass(frozen=True)
class Tree:
    """A hierarchy of micro-clusters.

    Attributes
    ----------
    labels
        ``(n,)`` micro-cluster of each cell.
    together
        ``(m, m)`` largest number of clusters at which two micro-clusters are in the same cluster.
    distances
        ``(m + 1,)`` distance between the two clusters that are joined when the number of clusters is the index; 0 if
        no clusters are joined by distance.
    """

    labels: np.ndarray
    together: np.ndarray
    distances: np.ndarray

    def joined(self, n_clusters: int) -> np.ndarray:
        """The cluster ``(m,)`` of each micro-cluster, for ``n_clusters`` clusters or fewer micro-clusters."""
        first = (self.together >= min(n_clusters, len(self.together))).argmax(1)
        return np.unique(first, return_inverse=True)[1]

    def cut(self, n_clusters: int) -> np.ndarray:
        """The cluster ``(n,)`` of each cell, for ``n_clusters`` clusters."""
        return self.joined(n_clusters)[self.labels]


def grow(
    representations: Sequence[np.ndarray],
    features: Sequence[np.ndarray],
    seed: int,
    n_repeats: int = N_REPEATS,
    n_clusters: int = 0,
    euclidean: bool = False,
    groups: np.ndarray | None = None,
) -> list[Tree]:
    """Divide cells into micro-clusters several times, and join these in several ways.

    Parameters
    ----------
    representations
        ``(n, d)`` arrays in which k-means finds micro-clusters.
    features
        ``(n, m)`` arrays whose cosines, or squared distances, decide which micro-clusters are joined.
    seed
        Seed of k-means.
    n_repeats
        Number of divisions, over all representations.
    n_clusters
        Least number of micro-clusters.
    euclidean
        Whether squared distances decide: for smoothed features, whose length is not noise but the difference of a cell
        from the mean.
    groups
        ``(n,)`` small clusters, numbered from 0, that are divided in place of single cells, by their means; a
        micro-cluster consists of whole ones.
    """
    n = len(representations[0])
    n_seeds = max(1, n_repeats // len(representations))
    seeds = np.random.default_rng(seed).integers(2**31, size=(len(representations), n_seeds))
    number = max(1, n_clusters, min(max(N_MICRO, 2 * n_clusters), n // MIN_CELLS_PER_MICRO))
    profiles = [_scale(space) if euclidean else normalize(space) for space in features]
    groups = np.arange(n) if groups is None else groups
    weights = np.bincount(groups)
    number = min(number, len(weights))
    divisions = chain.from_iterable(
        repeat_kmeans(means(points, groups), number, row, weights)
        for points, row in zip(representations, seeds, strict=True)
    )
    trees = []
    for division in track(divisions, seeds.size):
        micro = np.unique(division, return_inverse=True)[1].astype(np.int32)[groups]
        trees += [agglomerate(profile, micro, euclidean) for profile in profiles]
    return trees


def enough_for(n_clusters: int, n_cells: int) -> int:
    """``n_clusters`` for :func:`grow` so that its trees can be cut into so many clusters; 0 if the default suffices."""
    return n_clusters if 2 * n_clusters > min(N_MICRO, n_cells // MIN_CELLS_PER_MICRO) else 0


def adjusted_rand(tables: np.ndarray) -> np.ndarray:
    """Adjusted Rand indices ``(t,)`` from contingency tables ``(t, k, l)``."""
    n, both, first, second = (
        (sizes * (sizes - 1)).reshape(len(tables), -1).sum(1)
        for sizes in (tables.sum((1, 2)), tables, tables.sum(2), tables.sum(1))
    )
    expected, largest = first * second / np.maximum(n, 1), (first + second) / 2
    trivial = largest <= expected
    return np.where(trivial, 1.0, (both - expected) / np.where(trivial, 1.0, largest - expected))


def agglomerate(profiles: np.ndarray, labels: np.ndarray, euclidean: bool = False) -> Tree:
    r"""Join clusters, two at a time, until one remains.

    The two clusters with the smallest :math:`d_{ab}\, s_{ab}^\alpha` are joined. :math:`d_{ab}` is one minus the
    mean cosine between cells of both, divided by the geometric mean of the mean cosines between different cells of each:
    Spearman's correction for attenuation, without which noisy clusters seem far from all others. :math:`s_{ab}` is the
    harmonic mean of the sizes. Very small clusters are joined to the most similar cluster first.

    Parameters
    ----------
    profiles
        ``(n, m)`` features; for cosines, with rows of unit length.
    labels
        ``(n,)`` initial clusters, numbered from 0.
    euclidean
        Whether :math:`d_{ab}` is the squared distance of the two means instead.
    """
    distance_of, power = (squared_distance, DOMAIN_SIZE_POWER) if euclidean else (joining_distance, SIZE_POWER)
    members = indicator(labels)
    sizes = members.sum(axis=0)
    sums = members.T @ profiles.astype(np.float64)
    cosines = sums @ sums.T  # summed over all pairs of cells of two clusters
    n, m = len(labels), len(sizes)
    group, remaining = np.arange(m), np.ones(m, dtype=bool)
    together, distances = np.diag(np.full(m, m)), np.zeros(m + 1)
    distance = distance_of(cosines, sizes)
    cost = distance * _size_factor(sizes, power, n)
    np.fill_diagonal(cost, np.inf)
    for number in range(m, 1, -1):
        smallest = int(np.argmin(np.where(remaining, sizes, np.inf)))
        if sizes[smallest] < max(SMALL_CLUSTER_CELLS, SMALL_CLUSTER_SHARE * n):
            similarity = np.where(remaining, -distance[smallest] if euclidean else cosines[smallest] / sizes, -np.inf)
            similarity[smallest] = -np.inf
            a, b = sorted((smallest, int(np.argmax(similarity))))
        else:
            a, b = divmod(int(cost.argmin()), m)
            distances[number] = distance[a, b]
        joined = np.outer(group == a, group == b)
        together[joined | joined.T] = number - 1
        group[group == b], remaining[b] = a, False
        cosines[a] += cosines[b]
        cosines[:, a] += cosines[:, b]
        sizes[a] += sizes[b]
        distance[a] = distance[:, a] = distance_of(cosines, sizes, a)
        cost[a] = cost[:, a] = np.where(remaining, distance[a] * _size_factor(sizes, power, n, a), np.inf)
        cost[a, a] = cost[b] = cost[:, b] = np.inf
    return Tree(labels, together, distances)


def joining_distance(cosines: np.ndarray, sizes: np.ndarray, rows: Rows = ALL) -> np.ndarray:
    """Distances ``(k, k)`` between clusters, or some rows, from sizes and from cosines summed over pairs of cells."""
    pairs = np.maximum(sizes * (sizes - 1), 1)
    cohesion = np.maximum((np.diag(cosines) - sizes) / pairs, MIN_COHESION)
    between = cosines[rows] / np.multiply.outer(sizes[rows], sizes)
    return np.maximum(1 - between / np.sqrt(np.multiply.outer(cohesion[rows], cohesion)), 1e-6)


def squared_distance(products: np.ndarray, sizes: np.ndarray, rows: Rows = ALL) -> np.ndarray:
    """Squared distance ``(k, k)`` between the means of clusters, or some rows, from dot products summed over pairs of cells."""
    norms = np.diag(products) / sizes**2
    between = products[rows] / np.multiply.outer(sizes[rows], sizes)
    return np.maximum(np.add.outer(norms[rows], norms) - 2 * between, 1e-12)


def _scale(space: np.ndarray) -> np.ndarray:
    """Centre features, which reduces rounding errors, and scale them to a mean squared distance of 1."""
    centered = space - space.mean(0, dtype=np.float64)
    variance = 2 * float((centered**2).sum(1).mean())
    return centered / np.sqrt(variance) if variance > 0 else centered


def _size_factor(sizes: np.ndarray, power: float, n_cells: int, rows: Rows = ALL) -> np.ndarray:
    """Factors ``(k, k)`` of the distances, or some rows, by which smaller clusters are joined first."""
    harmonic = 2 * np.multiply.outer(sizes[rows], sizes) / np.add.outer(sizes[rows], sizes) / n_cells
    return harmonic**power


def indicator(labels: np.ndarray) -> sp.csr_array:
    """One-hot matrix ``(n, k)`` of labels ``(n,)``."""
    n = len(labels)
    return sp.csr_array((np.ones(n), labels, np.arange(n + 1)), shape=(n, int(labels.max()) + 1))


def means(points: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Means ``(k, d)`` of the points ``(n, d)`` of each group, numbered from 0."""
    members = indicator(groups)
    return ((members.T @ points) / members.sum(axis=0)[:, None]).astype(points.dtype)


def memberships(members: np.ndarray, weights: np.ndarray) -> sp.csr_array:
    """One-hot matrices of clusterings ``(n, n_members)`` side by side, ``(n, c)``.

    The inner product of two rows is the share of the clusterings, by their ``weights`` ``(n_members,)``, that put two cells
    together.
    """
    n, n_members = members.shape
    sizes = members.max(0) + 1
    columns = members + (np.cumsum(sizes) - sizes)
    values = np.broadcast_to(np.sqrt(weights / weights.sum()), members.shape)
    start = np.arange(n + 1) * n_members
    return sp.csr_array((values.ravel(), columns.ravel(), start), shape=(n, int(sizes.sum())))
