"""Consensus of clusterings of two kinds, over plain arrays.

No clustering method suits all data. k-means and mixtures separate a large type from a close one, but divide a very large
type rather than find rare types. Trees of micro-clusters keep large types whole and find rare types, but merge large types
that are close to each other. So cells are clustered by both kinds of methods in several spaces, and cells that most of
these clusterings join are joined; both kinds have the same weight.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from scrcl.utils.words import counted

from .clustering import Clustering, number_by_size
from .components import Components
from .kmeans import best_kmeans, fit_kmeans, repeat_kmeans
from .tree import average_linkage, build_leaves
from .trees import N_REPEATS, Tree, adjusted_rand, grow, indicator, means, memberships

#: Principal components of each space.
SPACE_COMPONENTS = 20
#: Cells that are clustered; of more cells, this many are sampled, and the others join their clusters.
CLUSTERED_CELLS = 5_000
#: Numbers of clusters of the clusterings whose co-association is the tree of clusters, with enough cells in each.
TREE_NUMBERS, MIN_CELLS_PER_CLUSTER = (6, 10, 15, 20, 30, 40), 8
#: Small clusters of which the tree is built, least mean number of cells of each, and steps of k-means for them.
N_GROUPS, MIN_CELLS_PER_GROUP, GROUP_STEPS = 500, 4, 10
#: Starts of k-means and of the mixture.
KMEANS_STARTS, MIXTURE_STARTS = 5, 2
#: Starts of k-means in each of many spaces, for the tree.
POOLED_STARTS = 2
#: Linkages whose trees are cut.
LINKAGES = ("ward", "average")
#: Cells of the smallest cluster, if possible: a test of a cluster against the others needs two.
MIN_CLUSTER_CELLS = 2
#: Agreement of the trees with the consensus below which a warning is shown; about 0.5 on data without types.
MIN_TREE_AGREEMENT = 0.6


@dataclass(frozen=True)
class Ensemble:
    """Trees and spaces from which cells are clustered, for all numbers of clusters.

    Attributes
    ----------
    points
        ``(n, d)`` latent representation, by which cells outside the sample are assigned.
    cells
        ``(m,)`` numbers of the cells that are clustered, increasing.
    trees
        Trees of micro-clusters of the ``m`` cells.
    spaces
        ``(m, p)`` principal components of each space.
    seed
        Seed of k-means and of the mixtures.
    pooled
        Whether there are many spaces of different kinds, so that trees have no more weight than any other method.
    groups
        ``(m,)`` small clusters, numbered from 0, of which the tree of clusters is built, if it is.
    """

    points: np.ndarray
    cells: np.ndarray
    trees: list[Tree]
    spaces: list[np.ndarray]
    seed: int
    pooled: bool = False
    groups: np.ndarray | None = None

    @classmethod
    def build(
        cls,
        points: np.ndarray,
        cells: np.ndarray,
        spaces: Sequence[np.ndarray],
        features: Sequence[np.ndarray],
        seed: int,
        n_repeats: int = N_REPEATS,
        n_clusters: int = 0,
        euclidean: bool = False,
        pooled: Sequence[np.ndarray] = (),
        max_groups: int = 0,
    ) -> "Ensemble":
        """Grow the trees, and reduce each space to its leading components.

        Parameters
        ----------
        points
            ``(n, d)`` latent representation.
        cells
            ``(m,)`` numbers of the cells that are clustered, from :func:`clustered_cells`.
        spaces
            ``(m, d_i)`` arrays in which the cells and their micro-clusters are clustered.
        features
            ``(m, f_i)`` arrays whose similarity decides which micro-clusters are joined.
        seed
            Seed of the clusterings.
        n_repeats, n_clusters, euclidean
            As in :func:`~scrcl.cluster.trees.grow`.
        pooled
            ``(m, p_i)`` spaces of different kinds, reduced already, in which cells are clustered instead; trees are not.
        max_groups
            For the tree of clusters: most small clusters, which are divided in place of single cells. 0 for a consensus
            with a given number of clusters.
        """
        reduced = list(pooled) or [leading_components(space) for space in spaces]
        groups = _groups(reduced, max_groups, seed) if max_groups else None
        trees = grow(spaces, features, seed, n_repeats, n_clusters, euclidean, groups)
        return cls(points, cells, trees, reduced, seed, len(pooled) > 0, groups)

    def subsampled(
        self, rows: np.ndarray, features: Sequence[np.ndarray], seed: int, euclidean: bool, max_groups: int
    ) -> "Ensemble":
        """The same of some of the clustered cells and their ``features``, with one division in each space."""
        spaces, features = ([array[rows] for array in arrays] for arrays in (self.spaces, features))
        points, cells = self.points[self.cells[rows]], np.arange(len(rows))
        if self.pooled:
            groups = _groups(spaces, max_groups, seed)
            return replace(self, points=points, cells=cells, trees=[], spaces=spaces, seed=seed, groups=groups)
        return Ensemble.build(
            points, cells, spaces, features, seed, len(spaces), euclidean=euclidean, max_groups=max_groups
        )

    @cached_property
    def linkages(self) -> list[np.ndarray]:
        """Linkages ``(m - 1, 4)`` of SciPy, for each space and each of ``LINKAGES``."""
        distances = (pdist(space) for space in self.spaces)  # once for all linkages of a space
        return [scipy.cluster.hierarchy.linkage(values, name) for values in distances for name in LINKAGES]

    def members(self, n_clusters: int) -> tuple[np.ndarray, np.ndarray]:
        """The clusterings of the consensus, ``(m, n_members)``, and their weights, ``(n_members,)``.

        The clusterings of the trees have half of the weight; k-means, a mixture and the linkages in each space the other. If
        spaces are pooled, trees, k-means, mixtures and each linkage have the same weight.
        """
        members = [tree.cut(n_clusters) for tree in self.trees]
        kinds = ["trees"] * len(members)
        for number, linkage in enumerate(self.linkages):
            members.append(cut_tree(linkage, n_clusters))
            kinds.append(LINKAGES[number % len(LINKAGES)])
        for space in self.spaces:
            members += [
                fit_kmeans(space, n_clusters, KMEANS_STARTS, self.seed)[0],
                _mixture(space, n_clusters, self.seed),
            ]
            kinds += ["k-means", "mixture"]
        return _weighted(members, kinds if self.pooled else [kind == "trees" for kind in kinds])

    def leaves(self, n_starts: int = KMEANS_STARTS) -> tuple[Clustering, np.ndarray]:
        """Leaves of the tree of clusters of all cells, and the linkage of the leaves, see :class:`~.tree.NestedClusters`.

        Clusterings of the trees, at all numbers of clusters, have half of the weight, those of k-means in each space, the best
        of ``n_starts``, the other, or all of it if spaces are pooled. None of them divides the small clusters ``groups``.
        """
        assert self.groups is not None
        n, groups, sizes = len(self.cells), self.groups, np.bincount(self.groups)
        numbers = [number for number in TREE_NUMBERS if number <= n // MIN_CELLS_PER_CLUSTER] or [min(n, 2)]
        trees = [] if self.pooled else self.trees
        from_trees = [tree.cut(number) for number in numbers for tree in trees]
        seeds = np.random.default_rng(self.seed).integers(2**31, size=n_starts)
        numbers = [min(number, len(sizes)) for number in numbers]
        others = [
            labels[groups]
            for space in self.spaces
            for labels in best_kmeans(means(space, groups), numbers, seeds, sizes)
        ]
        kinds = [True] * len(from_trees) + [False] * len(others)
        members, weights = _weighted(from_trees + others, kinds)
        labels, linkage = build_leaves(members, weights, groups)
        together = _together(members, weights, labels, len(linkage) + 1).astype(np.float32)
        return self._with_others(Clustering(self.points[self.cells], labels, probabilities=together)), linkage

    def cut(self, n_clusters: int, min_cells: int = MIN_CLUSTER_CELLS) -> tuple[Clustering, float]:
        """Find ``n_clusters`` clusters by average linkage of the weighted share of clusterings that separate two cells.

        The probability of a cluster for a cell is how often the cell is in one cluster with its cells, relative to all
        clusters.

        Parameters
        ----------
        n_clusters
            Number of clusters.
        min_cells
            Cells of the smallest cluster, as far as the data allow it. The cells of smaller clusters join the cluster
            with which they are most often together.

        Returns
        -------
        The clusters of all cells, and the mean adjusted Rand index of the trees with them.
        """
        members, weights = self.members(n_clusters)
        # Cells that all clusterings put together are one leaf.
        distinct, leaf = np.unique(members, axis=0, return_inverse=True)
        if len(distinct) < n_clusters:
            distinct, leaf = members, np.arange(len(members))
        one_hot, sizes = memberships(distinct, weights).toarray(), np.bincount(leaf)
        linkage = average_linkage(1 - one_hot @ one_hot.T, sizes)
        labels = cut_tree(linkage, n_clusters, min_cells, sizes)[leaf]
        together = _together(members, weights, labels, n_clusters)
        labels = number_by_size(np.where(labels < 0, together.argmax(1), labels))
        together = _together(members, weights, labels, n_clusters)
        clustering = Clustering(
            self.points[self.cells], labels, probabilities=normalize(together, norm="l1").astype(np.float32)
        )
        return _numbered_by_size(self._with_others(clustering)), self.agreement_with(labels, n_clusters)

    def _with_others(self, sampled: Clustering) -> Clustering:
        """Clusters of all cells; cells outside the sample are assigned like new cells."""
        if len(self.cells) == len(self.points):
            return sampled
        labels, probabilities = sampled.join(self.points)
        labels[self.cells], probabilities[self.cells] = sampled.labels, sampled.probabilities
        return Clustering(self.points, labels, probabilities=probabilities)

    def agreement_with(self, labels: np.ndarray, n_clusters: int) -> float:
        """Mean adjusted Rand index of the trees, cut into ``n_clusters``, with clusters ``(m,)``; NaN without trees."""
        if not self.trees:
            return np.nan
        members, clusters = indicator(labels), np.eye(n_clusters)
        tables = [
            clusters[tree.joined(n_clusters)].T @ (indicator(tree.labels).T @ members).toarray() for tree in self.trees
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
        """Pairs of trees, and the number of cells that each two of their micro-clusters share."""
        half = len(self.trees) // 2
        pairs = zip(self.trees[:half], self.trees[-half:], strict=True)
        return [(a, b, (indicator(a.labels).T @ indicator(b.labels)).toarray()) for a, b in pairs]

    def distance(self, n_clusters: int) -> float:
        """Mean distance over the trees of the two of ``n_clusters`` clusters that are joined next; NaN for a single one."""
        distances = [tree.distances[n_clusters] for tree in self.trees if 1 < n_clusters < len(tree.distances)]
        return float(np.mean(distances)) if distances else np.nan


def clustered_cells(n: int, seed: int) -> np.ndarray:
    """Numbers of the cells of ``n`` that are clustered, increasing: all, or a sample of ``CLUSTERED_CELLS``."""
    return np.sort(draw(n, CLUSTERED_CELLS, seed))


def check_leaves(n_clusters: int, n_leaves: int) -> None:
    """Raise ScrclValueError for more clusters than cells that are clustered."""
    if n_clusters > n_leaves:
        raise ScrclValueError(
            f"n_clusters={n_clusters} is more than the {counted(n_leaves, 'cell')} that method='consensus' clusters.",
            "Pass a smaller number, or `method='kmeans'`.",
            command="Pass a smaller number, or --method kmeans.",
            options={"method='consensus'": "--method consensus"},
        )


def cut_tree(tree: np.ndarray, n_clusters: int, min_cells: int = 1, sizes: np.ndarray | None = None) -> np.ndarray:
    """Cut a tree where it has ``n_clusters`` clusters of at least ``min_cells`` cells.

    Parameters
    ----------
    tree
        ``(m - 1, 4)`` linkage of SciPy, whose last column counts cells.
    n_clusters
        Number of clusters, at most ``m``.
    min_cells
        Cells of the smallest cluster; fewer if no cut gives ``n_clusters`` clusters of this size.
    sizes
        ``(m,)`` number of cells of each leaf; 1 by default.

    Returns
    -------
    ``(m,)`` labels of the leaves from 0, -1 for those of smaller clusters.
    """
    m = len(tree) + 1
    check_leaves(n_clusters, m)
    children = tree[:, :2].astype(np.int64)
    of_leaf = np.ones(m) if sizes is None else sizes
    of_node = np.concatenate([of_leaf, tree[:, 3]])
    for smallest in range(min_cells, 0, -1):
        # Number of clusters that are large enough, before each merge is undone from the last one on.
        large = of_node >= smallest
        gained = large[children].sum(1) - large[m:]
        numbers = large[-1] + np.concatenate([[0], np.cumsum(gained[::-1])])
        if (numbers == n_clusters).any():
            n_merges = m - 1 - int((numbers == n_clusters).argmax())
            break
    first = np.arange(2 * m - 1)  # one leaf of each node
    for node, child in enumerate(children[:, 0], m):
        first[node] = first[child]
    ends = first[children[:n_merges]].T
    labels = connected_components(sp.coo_array((np.ones(n_merges), tuple(ends)), shape=(m, m)), directed=False)[1]
    kept = np.bincount(labels, of_leaf) >= smallest
    return np.where(kept[labels], np.cumsum(kept)[labels] - 1, -1)


def warn_if_undetermined(n_clusters: int, agreement: float, kind: str = "clusters") -> None:
    """Warn if the alternative clusterings disagree; ``kind`` is what clusters are called."""
    if n_clusters > 1 and agreement < MIN_TREE_AGREEMENT:
        warnings.warn(
            PoorSupportWarning(
                f"{n_clusters} {kind} are poorly supported: alternative clusterings agree with an adjusted Rand index of "
                f"only {agreement:.2f}.",
                "See `model.get_cluster_probabilities()` for the confidence of each cell, and "
                "`model.estimate_n_clusters()` for other numbers.",
                command="Pass --report for the confidence of each cluster, and for other numbers.",
            ),
            stacklevel=settings.warnings_stacklevel,
        )


def _weighted(members: list[np.ndarray], kinds: Sequence[str | bool]) -> tuple[np.ndarray, np.ndarray]:
    """Clusterings ``(m, n_members)`` of several kinds, and their weights, such that all kinds have the same."""
    _, kind, sizes = np.unique(kinds, return_inverse=True, return_counts=True)
    return np.column_stack(members), 1 / sizes[kind]


def _numbered_by_size(clustering: Clustering) -> Clustering:
    """The same clusters, numbered by decreasing size."""
    assert clustering.probabilities is not None
    order = np.argsort(-np.bincount(clustering.labels, minlength=clustering.n_clusters), kind="stable")
    labels, probabilities = np.argsort(order)[clustering.labels], clustering.probabilities[:, order]
    return Clustering(clustering.points, labels, probabilities=probabilities)


def leading_components(points: np.ndarray) -> np.ndarray:
    """The leading principal components ``(m, p)`` of points ``(m, d)``, of mean squared length 1."""
    points = points.astype(np.float64)
    return Components.fit(points, SPACE_COMPONENTS)(points)


def _groups(spaces: Sequence[np.ndarray], max_groups: int, seed: int) -> np.ndarray:
    """At most ``max_groups`` small clusters ``(m,)`` in all spaces ``(m, p_i)`` together, numbered from 0."""
    points = np.concatenate(spaces, 1).astype(np.float32)
    number = max(1, min(max_groups, len(points) // MIN_CELLS_PER_GROUP))
    labels = next(repeat_kmeans(points, number, [seed], max_iter=GROUP_STEPS))
    return np.unique(labels, return_inverse=True)[1]


def _mixture(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Clusters ``(m,)`` by a mixture of Gaussians with one covariance, whose weights may differ."""
    ridge = 1e-6 * points.var() + 1e-12
    mixture = GaussianMixture(
        n_clusters, covariance_type="tied", n_init=MIXTURE_STARTS, random_state=seed, reg_covar=ridge
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a mixture near convergence is good enough for a vote
        return mixture.fit_predict(points)


def _together(members: np.ndarray, weights: np.ndarray, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """Share ``(m, n_clusters)`` of the clusterings ``(m, n_members)`` in which a cell is joined to the cells of a cluster."""
    kept = np.flatnonzero(labels >= 0)
    clusters = sp.csr_array((np.ones(len(kept)), (kept, labels[kept])), (len(labels), n_clusters))
    one_hot = memberships(members, weights)
    return one_hot @ (one_hot.T @ clusters).toarray() / clusters.sum(0)
