"""Consensus of clusterings of two kinds, over plain arrays.

No way of clustering suits all data. k-means and mixtures know a large type from its close neighbour, but divide a type that
is much larger than the others rather than find the rare ones. Trees of micro-clusters keep large types whole and find
the rare ones, but leave large types that lie close to each other in one. So cells are clustered in both ways in several
spaces, and what most of these clusterings put together is put together, where both kinds count alike.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.cluster.hierarchy
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist
from scvi import settings
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize

from scrcl.utils.errors import PoorSupportWarning, ScrclValueError
from scrcl.utils.sizes import draw

from .clustering import Clustering, number_by_size
from .components import Components
from .kmeans import fit_kmeans
from .trees import Tree, adjusted_rand, grow, indicator

#: Principal components of each space that are read.
N_COMPONENTS = 20
#: Cells that are clustered; where there are more, the others join those that were drawn.
CLUSTERED_CELLS = 5_000
#: Starts of k-means, of which the best counts, and of the mixture.
N_STARTS, N_MIXTURES = 5, 2
#: Linkages whose trees are cut.
LINKAGES = ("ward", "average")
#: Cells of the smallest cluster, where there is a choice: a test of a cluster against the others needs two.
MIN_CLUSTER_CELLS = 2
#: Agreement of the trees with the consensus below which a warning is given; about 0.5 on data without types.
MIN_TREE_AGREEMENT = 0.6


@dataclass(frozen=True)
class Ensemble:
    """What cells are clustered by, for all numbers of clusters.

    Attributes
    ----------
    points
        ``(n, d)`` latent representation, by which cells that were not drawn join.
    cells
        ``(m,)`` cells that are clustered, increasing.
    trees
        Trees of micro-clusters of the ``m`` cells.
    spaces
        ``(m, p)`` principal components of each space.
    seed
        Seed of k-means and of the mixtures.
    """

    points: np.ndarray
    cells: np.ndarray
    trees: list[Tree]
    spaces: list[np.ndarray]
    seed: int

    @classmethod
    def build(
        cls,
        points: np.ndarray,
        cells: np.ndarray,
        spaces: Sequence[np.ndarray],
        features: Sequence[np.ndarray],
        seed: int,
        n_clusters: int = 0,
        euclidean: bool = False,
    ) -> "Ensemble":
        """Grow the trees, and reduce each space to its leading components.

        Parameters
        ----------
        points
            ``(n, d)`` latent representation.
        cells
            ``(m,)`` cells that are clustered, as :func:`clustered_cells` draws them.
        spaces
            ``(m, d_i)`` arrays in which they are clustered, and micro-clusters made.
        features
            ``(m, f_i)`` arrays by which micro-clusters are joined.
        seed
            Seed of the clusterings.
        n_clusters, euclidean
            As in :func:`~scrcl.cluster.trees.grow`.
        """
        trees = grow(spaces, features, seed, n_clusters, euclidean)
        return cls(points, cells, trees, [_reduce(space) for space in spaces], seed)

    @cached_property
    def linkages(self) -> list[np.ndarray]:
        """Linkages ``(m - 1, 4)`` in the form of SciPy, of each space by each of ``LINKAGES``."""
        return [scipy.cluster.hierarchy.linkage(space, name) for space in self.spaces for name in LINKAGES]

    def members(self, n_clusters: int) -> tuple[np.ndarray, np.ndarray]:
        """The clusterings that are reconciled, ``(m, n_members)``, and how much each counts, ``(n_members,)``.

        Those of the trees, and in each space those of k-means, of a mixture and of each linkage. Either kind counts half.
        """
        grown = [tree.cut(n_clusters) for tree in self.trees]
        others = [cut_tree(linkage, n_clusters) for linkage in self.linkages]
        for space in self.spaces:
            others += [fit_kmeans(space, n_clusters, N_STARTS, self.seed)[0], _mixture(space, n_clusters, self.seed)]
        weights = [np.full(len(kind), 1 / max(len(kind), 1)) for kind in (grown, others)]
        return np.column_stack(grown + others), np.concatenate(weights)

    def cut(self, n_clusters: int, min_cells: int = MIN_CLUSTER_CELLS) -> tuple[Clustering, float]:
        """Reconcile ``n_clusters`` clusters by average linkage of how often two cells are apart.

        The probability that a cell belongs to a cluster is how often it is together with the cells of that cluster,
        relative to all clusters.

        Parameters
        ----------
        n_clusters
            Number of clusters.
        min_cells
            Cells of the smallest cluster, as far as the data allow it. The cells of smaller ones join those with which
            they are most often together.

        Returns
        -------
        The clusters of all cells, and the mean adjusted Rand index of the trees with them.
        """
        found, weights = self.members(n_clusters)
        apart = pdist(found, "hamming", w=weights)
        labels = cut_tree(scipy.cluster.hierarchy.linkage(apart, "average"), n_clusters, min_cells)
        together = _together(found, weights, labels, n_clusters)
        labels = number_by_size(np.where(labels < 0, together.argmax(1), labels))
        together = _together(found, weights, labels, n_clusters)
        clustering = Clustering(
            self.points[self.cells], labels, probabilities=normalize(together, norm="l1").astype(np.float32)
        )
        return self._with_others(clustering), self.agreement_with(labels, n_clusters)

    def _with_others(self, found: Clustering) -> Clustering:
        """Clusters of all cells, where those that were not drawn join as new cells would."""
        if len(self.cells) == len(self.points):
            return found
        labels, probabilities = found.join(self.points)
        labels[self.cells], probabilities[self.cells] = found.labels, found.probabilities
        order = np.argsort(-np.bincount(labels, minlength=found.n_clusters), kind="stable")
        return Clustering(self.points, np.argsort(order)[labels], probabilities=probabilities[:, order])

    def agreement_with(self, labels: np.ndarray, n_clusters: int) -> float:
        """Mean adjusted Rand index of the trees, cut into ``n_clusters``, with clusters ``(m,)``; NaN without trees."""
        if not self.trees:
            return np.nan
        own, clusters = indicator(labels), np.eye(n_clusters)
        tables = [
            clusters[tree.joined(n_clusters)].T @ (indicator(tree.labels).T @ own).toarray() for tree in self.trees
        ]
        return float(adjusted_rand(np.stack(tables)).mean())

    def agreement(self, n_clusters: int) -> float:
        """Mean adjusted Rand index between trees of different divisions, two at a time, cut into ``n_clusters``."""
        clusters = np.eye(n_clusters)
        tables = [
            clusters[a.joined(n_clusters)].T @ shared @ clusters[b.joined(n_clusters)] for a, b, shared in self._pairs
        ]
        return float(adjusted_rand(np.stack(tables)).mean())

    @cached_property
    def _pairs(self) -> list[tuple[Tree, Tree, np.ndarray]]:
        """The trees that are compared, and how many cells each two of their micro-clusters share."""
        half = len(self.trees) // 2
        pairs = zip(self.trees[:half], self.trees[-half:], strict=True)
        return [(a, b, (indicator(a.labels).T @ indicator(b.labels)).toarray()) for a, b in pairs]

    def distance(self, n_clusters: int) -> float:
        """Mean distance of the next two of ``n_clusters`` clusters of a tree to be joined; NaN for a single one."""
        found = [tree.distances[n_clusters] for tree in self.trees if 1 < n_clusters < len(tree.distances)]
        return float(np.mean(found)) if found else np.nan


def clustered_cells(n: int, seed: int) -> np.ndarray:
    """Those of ``n`` cells that are clustered, increasing: all, or ``CLUSTERED_CELLS`` drawn at random."""
    return np.sort(draw(n, CLUSTERED_CELLS, seed))


def check_leaves(n_clusters: int, n_leaves: int) -> None:
    """Refuse more clusters than cells that are clustered.

    Raises
    ------
    ScrclValueError
        If there are more.
    """
    if n_clusters > n_leaves:
        raise ScrclValueError(
            f"n_clusters={n_clusters} is more than the {n_leaves:,} cells that method='consensus' clusters.",
            "Pass a smaller number, or `method='kmeans'`.",
            command="Pass a smaller number, or --method kmeans.",
            options={"method='consensus'": "--method consensus"},
        )


def cut_tree(tree: np.ndarray, n_clusters: int, min_cells: int = 1) -> np.ndarray:
    """Cut a tree where it has so many clusters of at least ``min_cells`` cells.

    Parameters
    ----------
    tree
        ``(m - 1, 4)`` linkage in the form of SciPy.
    n_clusters
        Number of clusters, at most ``m``.
    min_cells
        Cells of the smallest cluster; fewer where the tree is nowhere cut into so many of this size.

    Returns
    -------
    ``(m,)`` labels from 0, -1 for the cells of smaller clusters.
    """
    m = len(tree) + 1
    check_leaves(n_clusters, m)
    children = tree[:, :2].astype(np.int64)
    sizes = np.concatenate([np.ones(m), tree[:, 3]])
    for least in range(min_cells, 0, -1):
        # How many clusters are large enough before each merge is undone, the last one first.
        large = sizes >= least
        gained = large[children].sum(1) - large[m:]
        numbers = large[-1] + np.concatenate([[0], np.cumsum(gained[::-1])])
        if (numbers == n_clusters).any():
            n_merges = m - 1 - int((numbers == n_clusters).argmax())
            break
    first = np.arange(2 * m - 1)  # a leaf of each node
    for node, child in enumerate(children[:, 0], m):
        first[node] = first[child]
    ends = first[children[:n_merges]].T
    labels = connected_components(sp.coo_array((np.ones(n_merges), tuple(ends)), shape=(m, m)), directed=False)[1]
    kept = np.bincount(labels) >= least
    return np.where(kept[labels], np.cumsum(kept)[labels] - 1, -1)


def warn_if_undetermined(n_clusters: int, agreement: float) -> None:
    """Warn where the alternative clusterings disagree."""
    if n_clusters > 1 and agreement < MIN_TREE_AGREEMENT:
        warnings.warn(
            PoorSupportWarning(
                f"{n_clusters} clusters are poorly supported: alternative clusterings agree with an adjusted Rand index of "
                f"only {agreement:.2f}.",
                "See `model.get_cluster_probabilities()` for the confidence of each cell, and "
                "`model.estimate_n_clusters()` for other numbers.",
                command="Pass --report for the confidence of each cluster, and for other numbers.",
            ),
            stacklevel=settings.warnings_stacklevel,
        )


def _reduce(points: np.ndarray) -> np.ndarray:
    """The leading principal components ``(m, p)``."""
    points = points.astype(np.float64)
    return Components.fit(points, N_COMPONENTS)(points)


def _mixture(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """The most probable of Gaussians with one covariance, ``(m,)``: sizes may differ, and what varies within all counts less."""
    ridge = 1e-6 * points.var() + 1e-12
    mixture = GaussianMixture(n_clusters, covariance_type="tied", n_init=N_MIXTURES, random_state=seed, reg_covar=ridge)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what is nearly a mixture can vote as well
        return mixture.fit_predict(points)


def _together(found: np.ndarray, weights: np.ndarray, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """In what share of the clusterings ``(m, n_members)`` a cell is with those of each cluster, ``(m, n_clusters)``."""
    kept = labels >= 0
    clusters = sp.csr_array((np.ones(kept.sum()), (np.flatnonzero(kept), labels[kept])), (len(labels), n_clusters))
    total = np.zeros((len(labels), n_clusters))
    for own, weight in zip(found.T, weights, strict=True):
        total += weight * (indicator(own).T @ clusters).toarray()[own]
    return total / (weights.sum() * np.bincount(labels[kept], minlength=n_clusters))
