"""Cells of several batches: which are counterparts of each other, and a graph that joins batches only there.

A cell and one of another batch are counterparts where each is among the nearest cells that the other has in the batch of
the first (mutual nearest neighbours: Haghverdi et al., Nature Biotechnology 2018). A type that a batch lacks has no
counterparts there but by chance, as the cells nearest to it have nearer ones of their own type.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .adjacency import symmetric_adjacency
from .neighbors import Neighbors, NeighborSearch, nearest_neighbors

#: Least number of nearest cells that a cell has in each other batch.
MIN_MUTUAL_NEIGHBORS = 3
#: Among how many times as many the cell must be for the tie to be mutual.
MUTUAL = 4
#: Cells of each batch on which offsets between batches are found.
ALIGNED_CELLS = 2_000
#: Rounds in which counterparts and offsets are found from each other.
ROUNDS = 3


def paired_batches(batches: np.ndarray, n_batches: int) -> list[tuple[int, int]]:
    """Which pairs of batches counterparts are sought in: all of a few, and about ``log2`` of the number for each of many.

    In the order of their size, each is tied to those 1, 2, 4, … places on, in a circle, so that any two are joined over a
    few others and work grows with the number of cells and not with that of pairs.
    """
    order = np.argsort(-np.bincount(batches, minlength=n_batches), kind="stable").tolist()
    steps = [2**power for power in range(n_batches) if 2**power <= n_batches // 2]
    pairs = {tuple(sorted((order[at], order[(at + step) % n_batches]))) for at in range(n_batches) for step in steps}
    return sorted((first, second) for first, second in pairs if first != second)


def mutual_neighbors(points: np.ndarray, batches: np.ndarray, n_mutual: int) -> sp.csr_array:
    """Join each cell to its counterparts in other batches.

    Parameters
    ----------
    points
        ``(n, d)`` points by whose distance cells are near.
    batches
        ``(n,)`` batch of each cell, numbered from 0.
    n_mutual
        Number of nearest cells in each other batch that are candidates.

    Returns
    -------
    Binary, symmetric ``(n, n)``, with edges between batches only.
    """
    edges = [np.empty((2, 0), dtype=np.int64)]
    for pair in _batch_pairs(points, batches, n_mutual):
        rows, columns = pair.mnn_pairs
        edges.append(np.stack([pair.here[rows], pair.there[columns]]))
    ends = np.concatenate(edges, 1)
    n = len(points)
    return symmetric_adjacency(sp.csr_array((np.ones(ends.shape[1], dtype=np.float32), tuple(ends)), shape=(n, n)))


class BatchPair(NamedTuple):
    """Cells of two batches: who they are, their nearest in the other, and which of them are counterparts, by place."""

    batches: tuple[int, int]
    here: np.ndarray
    there: np.ndarray
    out: Neighbors
    back: Neighbors
    mnn_pairs: tuple[np.ndarray, np.ndarray]


def _batch_pairs(points: np.ndarray, batches: np.ndarray, n_mutual: int) -> Iterator[BatchPair]:
    """The pairs of batches in which counterparts are sought."""
    n_batches = int(batches.max()) + 1
    members = [np.flatnonzero(batches == number) for number in range(n_batches)]
    searches = [NeighborSearch(points[rows]) for rows in members]
    for first, second in paired_batches(batches, n_batches):
        here, there = members[first], members[second]
        if len(here) == 0 or len(there) == 0:
            continue
        out = searches[second](points[here], min(MUTUAL * n_mutual, len(there)))
        back = searches[first](points[there], min(MUTUAL * n_mutual, len(here)))
        mutual = _leading(out, n_mutual).multiply(back.to_sparse().T) + out.to_sparse().multiply(
            _leading(back, n_mutual).T
        )
        rows, columns = sp.coo_array(mutual).coords
        yield BatchPair((first, second), here, there, out, back, (rows, columns))


def separation(points: np.ndarray, batches: np.ndarray, n_mutual: int) -> np.ndarray:
    """How much farther off the nearest cells of other batches are than those of the own one: 1 if batches do nothing, ``(B,)``.

    Only cells that have counterparts count, so that it does not matter which types a batch has; and of two batches it is the
    geometric mean of both directions, so that it does not matter how many cells. For each batch, the mean over the others
    that counterparts are sought in; 1 where there are none.
    """
    own = np.empty(len(points))
    for number in np.unique(batches):
        rows = np.flatnonzero(batches == number)
        own[rows] = nearest_neighbors(points[rows], min(n_mutual, len(rows) - 1)).distances.mean(1)
    own = np.log(np.maximum(own, 1e-12))
    found: list[list[float]] = [[] for _ in range(int(batches.max()) + 1)]
    for pair in _batch_pairs(points, batches, n_mutual):
        if len(pair.mnn_pairs[0]) == 0:  # only where cells coincide
            continue
        sides = zip((pair.here, pair.there), (pair.out, pair.back), pair.mnn_pairs, strict=True)
        logs = []
        for cells, other, mnn_pairs in sides:
            tied = np.unique(mnn_pairs)
            across = np.log(np.maximum(other.distances[tied, :n_mutual].mean(1), 1e-12))
            logs.append(np.median(across - own[cells[tied]]))
        for number in pair.batches:
            found[number].append(float(np.mean(logs)))
    return np.exp([float(np.mean(each)) if each else 0.0 for each in found])


def _leading(neighbors: Neighbors, number: int) -> sp.csr_array:
    """The graph of the nearest of the neighbours."""
    return Neighbors(neighbors.indices[:, :number], neighbors.distances[:, :number], neighbors.n_targets).to_sparse()


def balanced_graph(points: np.ndarray, batches: np.ndarray, n_neighbors: int) -> sp.csr_array:
    """Join each cell to its nearest in its own batch, and to its counterparts in others.

    Parameters
    ----------
    points
        ``(n, d)`` points by whose distance cells are near.
    batches
        ``(n,)`` batch of each cell, numbered from 0.
    n_neighbors
        Number of neighbours, divided among the batches; at least 3 for each.

    Returns
    -------
    Binary, symmetric ``(n, n)`` without self loops.
    """
    n, n_batches = len(points), int(batches.max()) + 1
    each = max(MIN_MUTUAL_NEIGHBORS, n_neighbors // n_batches)
    edges = [np.empty((2, 0), dtype=np.int64)]
    for number in range(n_batches):
        rows = np.flatnonzero(batches == number)
        k = min(each, len(rows) - 1)
        if k > 0:
            near = nearest_neighbors(points[rows], k).indices
            edges.append(np.stack([np.repeat(rows, k), rows[near].ravel()]))
    ends = np.concatenate(edges, 1)
    own = sp.csr_array((np.ones(ends.shape[1], dtype=np.float32), tuple(ends)), shape=(n, n))
    return symmetric_adjacency(own + mutual_neighbors(points, batches, each))


def batch_offsets(differences: np.ndarray, pairs: np.ndarray, n_batches: int, weights: np.ndarray) -> np.ndarray:
    r"""Where batches lie relative to each other, from how their counterparts differ.

    The least-squares solution of :math:`s_g - s_h = x_i - x_j` over all pairs of counterparts ``i`` in batch ``g`` and
    ``j`` in ``h``: a linear system in the Laplacian of the graph of batches.

    Parameters
    ----------
    differences
        ``(p, d)`` differences :math:`x_i - x_j`.
    pairs
        ``(p, 2)`` batches of ``i`` and ``j``.
    n_batches
        Number of batches ``B``.
    weights
        ``(p,)`` weight of each pair.

    Returns
    -------
    ``(B, d)``, adding up to 0 over batches that are joined by pairs, and 0 for one that is joined to none.
    """
    laplacian = np.zeros((n_batches, n_batches))
    right = np.zeros((n_batches, differences.shape[1]))
    first, second = pairs.T
    np.add.at(laplacian, (first, first), weights)
    np.add.at(laplacian, (second, second), weights)
    np.add.at(laplacian, (first, second), -weights)
    np.add.at(laplacian, (second, first), -weights)
    np.add.at(right, first, weights[:, None] * differences)
    np.add.at(right, second, -weights[:, None] * differences)
    return np.linalg.pinv(laplacian, rcond=1e-9, hermitian=True) @ right


def sample_of_each(batches: np.ndarray, most: int) -> np.ndarray:
    """Cells by number, increasing: all of them, or about ``most``, as many of each batch if it has them, drawn at random."""
    if len(batches) <= most:
        return np.arange(len(batches))
    rng = np.random.default_rng(0)
    numbers = np.unique(batches)
    each = max(1, most // len(numbers))
    members = (np.flatnonzero(batches == number) for number in numbers)
    return np.sort(np.concatenate([rows if len(rows) <= each else rng.choice(rows, each, False) for rows in members]))


def mixing(points: np.ndarray, batches: np.ndarray, n_neighbors: int) -> np.ndarray:
    """How freely each cell is among those of other batches: 0 not at all, 1 as chance has it, ``(n,)``.

    The share of its nearest cells that are of other batches, relative to the share of all cells that are.
    """
    sizes = np.bincount(batches)
    others = (len(batches) - sizes)[batches] / max(1, len(batches) - 1)
    near = nearest_neighbors(points, min(n_neighbors, len(points) - 1)).indices
    return (batches[near] != batches[:, None]).mean(1) / np.maximum(others, 1e-12)
