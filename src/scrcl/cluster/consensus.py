"""Consensus of agglomerated micro-clusters, over plain arrays.

k-means wants clusters of equal size and divides the largest cell type rather than find the rare ones. Here k-means only
makes many small clusters. These are joined, two at a time, by how similar their cells are in the features, which
training has not drawn together. What they are joined by, and from which small clusters the joining starts, decides
where a close call goes; so it is done many times, from several representations and by several features, and the trees
that result are reconciled. How often they agree tells how certain a cell's cluster is.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.cluster.hierarchy
import scipy.sparse as sp
from scipy.spatial.distance import squareform
from scvi import settings
from sklearn.preprocessing import normalize

from scrcl.utils.progress import track

from .clustering import Clustering, number_by_size
from .kmeans import fit_kmeans

#: Micro-clusters, and atoms on which trees are reconciled, if there are enough cells.
N_MICRO, N_ATOMS = 60, 150
#: Least number of cells to each micro-cluster and to each atom.
CELLS_PER_MICRO, CELLS_PER_ATOM = 8, 6
#: Divisions into micro-clusters, shared among the representations.
N_REPEATS = 32
#: Cells on which a division is found, drawn anew for each, where there are more.
DIVIDED_CELLS = 5_000
#: Cells and share of cells below which a micro-cluster joins another first.
SMALLEST_CELLS, SMALLEST_SHARE = 5, 0.005
#: Power of the size in the cost of joining two clusters: 0 is average linkage, 1 would be like Ward's. For cosines, and
#: for squared distances, by which domains in space are joined.
SIZE_POWER, DOMAIN_SIZE_POWER = 0.05, 0.15
#: Cells of the smallest cluster, where there is a choice: a test of a cluster against the others needs two.
LEAST_CELLS = 2
#: Agreement of the trees with their consensus below which a warning is given; about 0.5 on data without types.
LEAST_AGREEMENT = 0.6
#: Least similarity within a cluster by which noise is corrected.
LEAST_COHESION = 0.02


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

    def same(self, n_clusters: int) -> np.ndarray:
        """Which micro-clusters ``(m, m)`` are in the same of ``n_clusters`` clusters."""
        return self.together >= min(n_clusters, len(self.together))


@dataclass(frozen=True)
class Ensemble:
    """Many trees over the same cells.

    Attributes
    ----------
    points
        ``(n, d)`` latent representation, by which further cells join.
    atoms
        ``(n,)`` small groups of cells, numbered from 0, that are never divided.
    trees
        The trees.
    """

    points: np.ndarray
    atoms: np.ndarray
    trees: list[Tree]

    @classmethod
    def build(
        cls,
        representations: Sequence[np.ndarray],
        features: Sequence[np.ndarray],
        seed: int,
        n_clusters: int = 0,
        euclidean: bool = False,
    ) -> "Ensemble":
        """Divide cells into micro-clusters in several ways and join these in several ways.

        Parameters
        ----------
        representations
            ``(n, d)`` arrays in which micro-clusters are made by k-means, the latent representation first.
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
        n_divisions = max(1, N_REPEATS // len(representations))
        seeds = iter(np.random.default_rng(seed).integers(2**31, size=n_divisions * len(representations) + 1))

        def divide(points: np.ndarray, number: int, cells_each: int) -> np.ndarray:
            number = min(n, max(n_clusters, min(max(number, 2 * n_clusters), n // cells_each)))
            labels, _ = fit_kmeans(points, max(number, 1), 1, int(next(seeds)), DIVIDED_CELLS)
            return np.unique(labels, return_inverse=True)[1].astype(np.int32)

        profiles = [_scale(space) if euclidean else normalize(space) for space in features]
        trees = []
        divisions = [points for points in representations for _ in range(n_divisions)]
        for points in track(divisions, len(divisions)):
            micro = divide(points, N_MICRO, CELLS_PER_MICRO)
            trees += [agglomerate(profile, micro, euclidean) for profile in profiles]
        return cls(representations[0], divide(representations[0], N_ATOMS, CELLS_PER_ATOM), trees)

    @staticmethod
    def least(n_clusters: int, n_cells: int) -> int:
        """For how many clusters an ensemble must be built so that it can be cut into these: 0 for the usual one."""
        return n_clusters if 2 * n_clusters > min(N_MICRO, n_cells // CELLS_PER_MICRO) else 0

    @property
    def n_atoms(self) -> int:
        """Number of atoms, above which there are no more clusters."""
        return int(self.atoms.max()) + 1

    @cached_property
    def _counts(self) -> list[np.ndarray]:
        """For each tree, how many cells of each atom are in each micro-cluster, ``(n_atoms, m)``."""
        return [(_members(self.atoms).T @ _members(tree.labels)).toarray() for tree in self.trees]

    def cut(self, n_clusters: int, least_cells: int = LEAST_CELLS) -> Clustering:
        """Reconcile the clusters of all trees when ``n_clusters`` are left.

        The candidates are the clusters of each tree, of whole atoms, and what average linkage makes of how often atoms are
        together. The one that agrees best with all trees is taken: where the trees are of two minds it is what one of
        them found and most find, and not something between. The probability that an atom belongs to a cluster is how often
        it is together with the cells of that cluster, relative to all clusters. Candidates with a cluster of fewer than
        ``least_cells`` cells count only where there are no others.
        """
        together = np.zeros((self.n_atoms, self.n_atoms))
        for tree, counts in zip(self.trees, self._counts, strict=True):
            share = counts / counts.sum(1, keepdims=True)
            together += share @ tree.same(n_clusters) @ share.T / len(self.trees)
        together = (together + together.T) / 2
        joined = (
            self._reconcile(together, n_clusters, least_cells) if self.n_atoms > n_clusters else np.arange(self.n_atoms)
        )
        labels = number_by_size(joined[self.atoms])
        cluster_of_atom = self._of_atoms(labels)
        sizes = np.bincount(self.atoms).astype(np.float64)
        weights = _members(cluster_of_atom) * sizes[:, None]
        belonging = together @ weights.toarray() / weights.sum(axis=0)
        probabilities = normalize(belonging, norm="l1").astype(np.float32)
        return Clustering(self.points, labels, probabilities=probabilities[self.atoms])

    def _reconcile(self, together: np.ndarray, n_clusters: int, least_cells: int) -> np.ndarray:
        """The candidate ``(n_atoms,)`` that agrees best with all trees, of those whose clusters are large enough."""
        apart = np.clip(1 - together, 0, None)
        np.fill_diagonal(apart, 0)
        linkage = scipy.cluster.hierarchy.linkage(squareform(apart, checks=False), "average")
        candidates = [scipy.cluster.hierarchy.cut_tree(linkage, n_clusters).ravel()]
        found = self._found(n_clusters)
        for main in found.argmax(2).T:
            clusters, candidate = np.unique(main, return_inverse=True)
            if len(clusters) == n_clusters:
                candidates.append(candidate)
        smallest = [min(np.bincount(candidate[self.atoms]).min(), least_cells) for candidate in candidates]
        large = [candidate for candidate, size in zip(candidates, smallest, strict=True) if size == max(smallest)]
        return max(large, key=lambda candidate: _agreements(candidate, found).mean())

    def _found(self, n_clusters: int) -> np.ndarray:
        """How many cells of each atom are in each of the clusters of each tree, ``(n_atoms, n_trees, m)``."""
        found = np.zeros((self.n_atoms, len(self.trees), max(len(tree.together) for tree in self.trees)))
        for number, (tree, counts) in enumerate(zip(self.trees, self._counts, strict=True)):
            clusters = tree.same(n_clusters).argmax(1)
            found[:, number, : len(clusters)] = counts @ np.eye(len(clusters))[clusters]
        return found

    def _of_atoms(self, labels: np.ndarray) -> np.ndarray:
        """The cluster of each atom, from those of the cells ``(n,)``."""
        clusters = np.zeros(self.n_atoms, dtype=np.int64)
        clusters[self.atoms] = labels
        return clusters

    def agreement(self, n_clusters: int, consensus: np.ndarray) -> float:
        """Mean adjusted Rand index between ``n_clusters`` clusters of the trees and those of their consensus, ``(n,)``."""
        return float(_agreements(self._of_atoms(consensus), self._found(n_clusters)).mean())

    def distance(self, n_clusters: int) -> float:
        """Mean distance of the next two of ``n_clusters`` clusters to be joined; NaN for a single one."""
        found = [tree.distances[n_clusters] for tree in self.trees if 1 < n_clusters < len(tree.distances)]
        return float(np.mean(found)) if found else np.nan


def _agreements(clusters: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Adjusted Rand index ``(n_trees,)`` of clusters ``(n_atoms,)`` with those that each tree found."""
    tables = np.tensordot(_members(clusters).toarray(), found, (0, 0))
    return adjusted_rand(tables.swapaxes(0, 1))


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
    members = _members(labels)
    sizes = members.sum(axis=0)
    sums = members.T @ profiles.astype(np.float64)
    cosines = sums @ sums.T  # summed over all pairs of cells of two clusters
    groups = [[number] for number in range(len(sizes))]
    together = np.diag(np.full(len(sizes), len(sizes)))
    distances = np.zeros(len(sizes) + 1)
    smallest_size = max(SMALLEST_CELLS, SMALLEST_SHARE * len(labels))
    while len(groups) > 1:
        distance = squared_distance(cosines, sizes) if euclidean else joining_distance(cosines, sizes)
        if sizes.min() < smallest_size:
            a = int(sizes.argmin())
            similarity = -distance[a] if euclidean else cosines[a] / sizes
            similarity[a] = -np.inf
            b = int(similarity.argmax())
        else:
            cost = distance * _size_factor(sizes, DOMAIN_SIZE_POWER if euclidean else SIZE_POWER)
            np.fill_diagonal(cost, np.inf)
            a, b = (int(i) for i in np.unravel_index(cost.argmin(), cost.shape))
            distances[len(groups)] = distance[a, b]
        a, b = min(a, b), max(a, b)
        together[np.ix_(groups[a], groups[b])] = together[np.ix_(groups[b], groups[a])] = len(groups) - 1
        groups[a] += groups.pop(b)
        cosines[a] += cosines[b]
        cosines[:, a] += cosines[:, b]
        sizes[a] += sizes[b]
        cosines, sizes = np.delete(np.delete(cosines, b, 0), b, 1), np.delete(sizes, b)
    return Tree(labels, together, distances)


def joining_distance(cosines: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Distance ``(k, k)`` between clusters, from cosines summed over pairs of cells and from sizes."""
    pairs = np.maximum(sizes * (sizes - 1), 1)
    cohesion = np.maximum((np.diag(cosines) - sizes) / pairs, LEAST_COHESION)
    between = cosines / np.outer(sizes, sizes)
    return np.maximum(1 - between / np.sqrt(np.outer(cohesion, cohesion)), 1e-6)


def squared_distance(products: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Squared distance ``(k, k)`` between the means of clusters, from dot products summed over pairs of cells."""
    between = products / np.outer(sizes, sizes)
    own = np.diag(between)
    return np.maximum(own[:, None] + own - 2 * between, 1e-12)


def warn_if_undetermined(n_clusters: int, agreement: float) -> None:
    """Warn where the clusterings that were reconciled hardly agree."""
    if n_clusters > 1 and agreement < LEAST_AGREEMENT:
        warnings.warn(
            f"The data hardly determine {n_clusters} clusters: the clusterings that were reconciled agree with an "
            f"adjusted Rand index of only {agreement:.2f}. See `get_cluster_probabilities()` for how certain each cell "
            "is, and `estimate_n_clusters()` for other numbers.",
            UserWarning,
            stacklevel=settings.warnings_stacklevel,
        )


def _scale(space: np.ndarray) -> np.ndarray:
    """Centre features, so that little is lost to rounding, and scale them to a mean squared distance of one."""
    centered = space - space.mean(0, dtype=np.float64)
    variance = 2 * float((centered**2).sum(1).mean())
    return centered / np.sqrt(variance) if variance > 0 else centered


def _size_factor(sizes: np.ndarray, power: float) -> np.ndarray:
    """By what the distance is multiplied, so that of two equal ones the smaller clusters are joined."""
    harmonic = 2 * np.outer(sizes, sizes) / np.add.outer(sizes, sizes) / sizes.sum()
    return harmonic**power


def _members(labels: np.ndarray) -> sp.csr_array:
    """Which of ``n`` things is in which of ``k`` groups, ``(n, k)``."""
    n = len(labels)
    return sp.csr_array((np.ones(n), labels, np.arange(n + 1)), shape=(n, int(labels.max()) + 1))
