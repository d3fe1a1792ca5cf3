"""A nested tree of clusters, from the co-association of many clusterings, over plain arrays.

Cells are clustered at several numbers of clusters. Average linkage of the share of these clusterings that separate two cells
joins them to a tree, whose splits are the candidates: which of them are supported is decided afterwards, for each split.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from scrcl.graph.neighbors import nearest_neighbors

from .clustering import BLOCK_POINTS, Clustering, number_by_size
from .split_evidence import verdict
from .trees import indicator, memberships

#: Largest number of leaves, and least number of cells of each.
MAX_LEAVES, MIN_LEAF_CELLS = 40, 10
#: Connectivity below which the sides of a split are clusters, and the power of the size of the smaller side in it. Both
#: were chosen on 13 labelled data sets, and keep sorted populations and cell lines whole.
MAX_CONNECTIVITY, SIZE_POWER = 0.343, 0.4
#: Weight of the edges across a split that no edge crosses.
MIN_EDGES = 0.5
#: Number of cells below which the best split of one population crosses fewer edges by chance.
MANY_CELLS = 250
#: Size up to which a side has fewer neighbours of its own than the graph; its cells per nearest neighbour that is looked at;
#: least number of these neighbours; and the share of them outside below which the side is a cluster.
RARE_CELLS, CELLS_PER_NEIGHBOR, MIN_NEIGHBORS, MAX_OUTSIDE = 30, 3, 3, 0.12


def coassociation(members: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Share of clusterings that put two cells together, the mean over the cells of two groups.

    Parameters
    ----------
    members
        ``(n, n_members)`` clusterings, numbered from 0.
    weights
        ``(n_members,)`` weight of each clustering.
    groups
        ``(n,)`` group of each cell, numbered from 0.

    Returns
    -------
    Array ``(m, m)``, from 0 to 1.
    """
    of_group = indicator(groups).T
    shares = (of_group @ memberships(members, weights)).toarray() / of_group.sum(1)[:, None]
    return shares @ shares.T


def average_linkage(distances: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Average linkage of points in groups, as if all points were passed to :func:`scipy.cluster.hierarchy.linkage`.

    Parameters
    ----------
    distances
        ``(m, m)`` mean distances between the points of two groups.
    sizes
        ``(m,)`` number of points of each group.

    Returns
    -------
    ``(m - 1, 4)`` linkage of SciPy of the groups; the last column counts points.
    """
    m, rows = len(sizes), np.arange(len(sizes))
    distances, sizes, nodes = distances.astype(np.float64), sizes.astype(np.float64), np.arange(len(sizes))
    np.fill_diagonal(distances, np.inf)
    linkage = np.empty((m - 1, 4))
    nearest = distances.argmin(1)
    for number in range(m - 1):
        a = int(np.argmin(distances[rows, nearest]))
        b = int(nearest[a])
        linkage[number] = *sorted((nodes[a], nodes[b])), distances[a, b], sizes[a] + sizes[b]
        joined = (sizes[a] * distances[a] + sizes[b] * distances[b]) / (sizes[a] + sizes[b])
        joined[[a, b]] = np.inf
        distances[a] = distances[:, a] = joined
        distances[b] = distances[:, b] = np.inf
        sizes[a] += sizes[b]
        nodes[a] = m + number
        outdated = np.isin(nearest, (a, b))
        outdated[a] = True
        nearest[outdated] = distances[outdated].argmin(1)
        nearest[joined < distances[rows, nearest]] = a
    return linkage


def find_leaves(linkage: np.ndarray, sizes: np.ndarray, max_leaves: int, min_cells: int) -> np.ndarray:
    """Cut a tree of groups of cells into leaves by its highest splits with enough cells on both sides.

    Parameters
    ----------
    linkage
        ``(m - 1, 4)`` linkage of SciPy, from :func:`average_linkage`.
    sizes
        ``(m,)`` number of cells of each group.
    max_leaves, min_cells
        Largest number of leaves, and least number of cells on each side of a split.

    Returns
    -------
    ``(m,)`` leaf of each group, numbered from 0; -1 for those that leave a leaf, too few to be one.
    """
    m = len(sizes)
    children = linkage[:, :2].astype(np.int64)
    large = np.concatenate([sizes, linkage[:, 3]])[children] >= min_cells
    splits = set(np.flatnonzero(large.all(1))[::-1][: max_leaves - 1].tolist())
    leaf, n_leaves = np.zeros(2 * m - 1, dtype=np.int64), 1
    for row in range(m - 2, -1, -1):
        leaf[children[row]] = leaf[m + row]
        if row in splits:
            leaf[children[row, 1]], n_leaves = n_leaves, n_leaves + 1
        elif large[row].any():
            leaf[children[row, ~large[row]]] = -1
    return leaf[:m]


def build_leaves(
    members: np.ndarray,
    weights: np.ndarray,
    groups: np.ndarray,
    max_leaves: int = MAX_LEAVES,
    min_cells: int = MIN_LEAF_CELLS,
) -> tuple[np.ndarray, np.ndarray]:
    """Leaves of the tree of clusters, and how they are joined.

    Parameters
    ----------
    members, weights, groups
        As in :func:`coassociation`; the groups are small clusters that the tree does not divide.
    max_leaves, min_cells
        Largest number of leaves, and least number of cells of each.

    Returns
    -------
    ``(n,)`` leaf of each cell, numbered from 0 by decreasing size, and the linkage ``(L - 1, 4)`` of the leaves.
    """
    sizes, together = np.bincount(groups), coassociation(members, weights, groups)
    leaf = find_leaves(average_linkage(1 - together, sizes), sizes, max_leaves, min_cells)
    kept = np.flatnonzero(leaf >= 0)
    cells_of_leaf = sp.csr_array((sizes[kept].astype(float), (kept, leaf[kept])), shape=(len(sizes), leaf.max() + 1))
    with_leaf = (together @ cells_of_leaf) / cells_of_leaf.sum(0)
    leaves = number_by_size(np.where(leaf < 0, with_leaf.argmax(1), leaf)[groups])
    return leaves, average_linkage(1 - coassociation(members, weights, leaves), np.bincount(leaves))


@dataclass(frozen=True)
class NestedClusters:
    """A binary tree whose leaves are clusters of cells.

    Nodes are numbered as in SciPy: the leaves from 0 to ``L - 1``; row ``s`` of the linkage, a split, is node ``L + s``; the
    root is the last one.

    Attributes
    ----------
    leaves
        Leaf of each cell, with ``(n, L)`` probabilities: how often the cell is in one cluster with cells of a leaf.
    linkage
        ``(L - 1, 4)`` linkage of SciPy of the leaves: nodes on both sides, the weighted share of clusterings that separate
        their cells, and the number of cells that were clustered.
    edges
        ``(L, L)`` sums of the weights of the edges between leaves, in a graph of the cells.
    features
        ``(n, d)`` features in which the nearest neighbours of the cells of small sides are found, if they are.
    """

    leaves: Clustering
    linkage: np.ndarray
    edges: np.ndarray
    features: np.ndarray | None = None

    @classmethod
    def build(
        cls, leaves: Clustering, linkage: np.ndarray, adjacency: sp.csr_array, features: np.ndarray | None = None
    ) -> "NestedClusters":
        """Add up the edges of a symmetric graph ``(n, n)`` of the cells."""
        members = indicator(leaves.labels)
        found = cls(leaves, linkage, (members.T @ (adjacency @ members)).toarray(), features)
        # Features of many cells take much memory.
        return found if (found.sizes[found.sides] <= RARE_CELLS).any() else replace(found, features=None)

    @property
    def n_leaves(self) -> int:
        """Number of leaves ``L``."""
        return len(self.edges)

    @cached_property
    def below(self) -> np.ndarray:
        """``(2 L - 1, L)`` whether a leaf is below a node, or is that node."""
        below = np.zeros((2 * self.n_leaves - 1, self.n_leaves), dtype=bool)
        below[: self.n_leaves] = np.eye(self.n_leaves, dtype=bool)
        for node, (a, b) in enumerate(self.linkage[:, :2].astype(np.int64), self.n_leaves):
            below[node] = below[a] | below[b]
        return below

    @cached_property
    def sizes(self) -> np.ndarray:
        """``(2 L - 1,)`` number of cells of each node."""
        return self.below @ np.bincount(self.leaves.labels, minlength=self.n_leaves)

    @cached_property
    def sides(self) -> np.ndarray:
        """``(L - 1, 2)`` nodes on both sides of each split, the larger one first."""
        sides = self.linkage[:, :2].astype(np.int64)
        smaller_first = self.sizes[sides[:, 0]] < self.sizes[sides[:, 1]]
        return np.where(smaller_first[:, None], sides[:, ::-1], sides)

    @cached_property
    def connectivity(self) -> np.ndarray:
        r"""``(L - 1,)`` connectivity of the sides of each split.

        :math:`2 e / (v m^{0.4})` with the edges :math:`e` between the sides, the sum :math:`v` of the degrees of the smaller
        side, and its share :math:`m` of all cells. Half of the edges of a cell lead across a split at random; a group of few
        cells has few edges beyond itself wherever it is cut out.

        A side of at most 30 cells has hardly more cells than a cell has neighbours in the graph, so that many edges leave it
        wherever it is: its connectivity is at most 2.86 times :attr:`outside`. In fewer than 250 cells, the best split of one
        population crosses fewer edges by chance, so it is multiplied by :math:`\sqrt{250 / n}`.
        """
        larger, smaller = self.below[self.sides.T].astype(np.float64)
        across = ((larger @ self.edges) * smaller).sum(1)
        degrees = smaller @ self.edges.sum(1)
        share = self.sizes[self.sides[:, 1]] / len(self.leaves.labels)
        connectivity = 2 * np.maximum(across, MIN_EDGES) / (np.maximum(degrees, MIN_EDGES) * share**SIZE_POWER)
        connectivity = np.fmin(connectivity, MAX_CONNECTIVITY / MAX_OUTSIDE * self.outside)
        return connectivity * max(1.0, np.sqrt(MANY_CELLS / len(self.leaves.labels)))

    @cached_property
    def outside(self) -> np.ndarray:
        """``(L - 1,)`` share of the nearest neighbours of the cells of the smaller side that are not on that side.

        Of each cell a third as many as the side has cells, at least 3. NaN for sides of more than 30 cells, and without
        ``features``.
        """
        outside = np.full(self.n_leaves - 1, np.nan)
        rare = np.flatnonzero(self.sizes[self.sides[:, 1]] <= RARE_CELLS)
        if self.features is None or len(rare) == 0:
            return outside
        labels = self.leaves.labels
        inside = self.below[self.sides[rare, 1]][:, labels]
        cells = np.flatnonzero(inside.any(0))
        number = min(max(RARE_CELLS // CELLS_PER_NEIGHBOR, MIN_NEIGHBORS), len(labels) - 1)
        neighbors = nearest_neighbors(self.features, number + 1, self.features[cells]).indices
        others = neighbors != cells[:, None]
        others[others.all(1), -1] = False  # a cell with as near ones as itself
        neighbors = neighbors[others].reshape(len(cells), number)
        for split, members in zip(rare, inside, strict=True):
            number = max(members.sum() // CELLS_PER_NEIGHBOR, MIN_NEIGHBORS)
            outside[split] = 1 - members[neighbors[members[cells], :number]].mean()
        return outside

    def made(self, supported: np.ndarray) -> np.ndarray:
        """``(L - 1,)`` whether each split is made, if supported ones ``(L - 1,)`` are, as far as all splits above are."""
        made = np.zeros(self.n_leaves - 1, dtype=bool)
        open_nodes = {2 * self.n_leaves - 2}
        for split in range(self.n_leaves - 2, -1, -1):
            if supported[split] and self.n_leaves + split in open_nodes:
                made[split] = True
                open_nodes.update(self.sides[split].tolist())
        return made

    def highest(self, n_clusters: int) -> np.ndarray:
        """``(L - 1,)`` whether a split is one of those that divide the cells into ``n_clusters``, from the root on."""
        return np.arange(self.n_leaves - 1) >= self.n_leaves - n_clusters

    def clusters(self, made: np.ndarray) -> np.ndarray:
        """``(K,)`` nodes that are the clusters, by decreasing size, for splits ``(L - 1,)`` from :meth:`made`."""
        root = 2 * self.n_leaves - 2
        nodes = np.setdiff1d(np.append(self.sides[made], root), self.n_leaves + np.flatnonzero(made))
        return nodes[np.argsort(-self.sizes[nodes], kind="stable")]

    def cut(self, made: np.ndarray) -> Clustering:
        """Clusters of the cells, for splits ``(L - 1,)`` from :meth:`made`."""
        of_cluster = self.below[self.clusters(made)]
        cells_of_leaf = of_cluster * self.sizes[: self.n_leaves]
        of_leaf, shares = self.leaves.probabilities, (cells_of_leaf / cells_of_leaf.sum(1, keepdims=True)).T
        assert of_leaf is not None
        probabilities = np.empty((len(of_leaf), len(of_cluster)), dtype=np.float32)
        for start in range(0, len(of_leaf), BLOCK_POINTS):
            rows = slice(start, start + BLOCK_POINTS)
            probabilities[rows] = normalize(of_leaf[rows] @ shares, norm="l1")
        return Clustering(self.leaves.points, of_cluster.argmax(0)[self.leaves.labels], probabilities=probabilities)

    def verdicts(self, n_up: np.ndarray) -> Sequence[str]:
        """``(L - 1,)`` what each split is, from its connectivity and the numbers ``(L - 1, 2)`` of genes up on its sides."""
        return [
            verdict(bool(narrow), (left, right)) for narrow, (left, right) in zip(self.supported(), n_up, strict=True)
        ]

    def supported(self, min_cells: int = 1) -> np.ndarray:
        """``(L - 1,)`` whether each split divides cells whose connectivity is low, with at least ``min_cells`` on each side."""
        return (self.connectivity < MAX_CONNECTIVITY) & (self.sizes[self.sides[:, 1]] >= min_cells)
