"""Mutual nearest neighbours of cells in several batches, and a graph that joins batches only there.

Two cells of different batches are mutual nearest neighbours if each is among the nearest cells of the other in its
batch (Haghverdi et al., Nature Biotechnology 2018). The cells of a type that a batch lacks have none there except by
chance, as the cells nearest to them have nearer ones of their own type.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .adjacency import edge_graph, symmetric_adjacency
from .neighbors import Neighbors, NeighborSearch, nearest_neighbors

#: Least number of nearest cells of a cell in each batch.
MIN_MUTUAL_NEIGHBORS = 3
#: Factor of the number of nearest cells in which the cell must be in return.
RETURN_FACTOR = 4
#: Least number of cells of a batch in a condition that are compared with other batches.
MIN_COMPARED_CELLS = 10
#: Cells of each batch from which offsets between batches are estimated.
ALIGNED_CELLS = 2_000
#: Iterations that alternate between mutual nearest neighbours and offsets.
OFFSET_ROUNDS = 3


def paired_batches(batches: np.ndarray, n_batches: int) -> list[tuple[int, int]]:
    """Pairs of batches in which mutual nearest neighbours are searched for: all of a few, and about ``log2(B)`` for each of many.

    In a circle ordered by size, each batch is paired with those 1, 2, 4, … positions ahead. So any two batches are connected
    over a few others, and the cost grows with the number of cells rather than of pairs.
    """
    order = np.argsort(-np.bincount(batches, minlength=n_batches), kind="stable").tolist()
    steps = [2**power for power in range(n_batches) if 2**power <= n_batches // 2]
    pairs = {
        tuple(sorted((order[start], order[(start + step) % n_batches]))) for start in range(n_batches) for step in steps
    }
    return sorted((first, second) for first, second in pairs if first != second)


def mutual_neighbors(
    points: np.ndarray, batches: np.ndarray, n_mutual: int, conditions: np.ndarray | None = None
) -> sp.csr_array:
    """Join each cell, a point ``(n, d)``, to its mutual nearest neighbours in other batches.

    ``batches`` ``(n,)`` are numbered from 0; candidates are the ``n_mutual`` nearest cells in each other batch, of the same of
    the ``conditions`` ``(n,)`` if there are any. Binary, symmetric ``(n, n)``, with edges between batches only.
    """
    edges = [np.empty((2, 0), dtype=np.int64)]
    for pair in _batch_pairs(points, batches, n_mutual, conditions):
        rows, columns = pair.mnn_pairs
        edges.append(np.stack([pair.first[rows], pair.second[columns]]))
    return edge_graph(np.concatenate(edges, 1), len(points))


class BatchPair(NamedTuple):
    """Two batches: their cells, the nearest cells in the other batch, and the positions of mutual nearest neighbours."""

    batches: tuple[int, int]
    first: np.ndarray
    second: np.ndarray
    first_neighbors: Neighbors
    second_neighbors: Neighbors
    mnn_pairs: tuple[np.ndarray, np.ndarray]


def _batch_pairs(
    points: np.ndarray, batches: np.ndarray, n_mutual: int, conditions: np.ndarray | None
) -> Iterator[BatchPair]:
    """The paired batches with their mutual nearest neighbours, in each condition."""
    for cells in units(np.zeros(len(batches), dtype=np.int64) if conditions is None else conditions):
        numbers, codes = np.unique(batches[cells], return_inverse=True)
        members = [cells[codes == number] for number in range(len(numbers))]
        searches = [NeighborSearch(points[rows]) for rows in members]
        for pair in paired_batches(codes, len(numbers)):
            first, second = (members[number] for number in pair)
            from_first = searches[pair[1]](points[first], min(RETURN_FACTOR * n_mutual, len(second)))
            from_second = searches[pair[0]](points[second], min(RETURN_FACTOR * n_mutual, len(first)))
            mutual = _leading(from_first, n_mutual).multiply(from_second.to_sparse().T)
            mutual = mutual + from_first.to_sparse().multiply(_leading(from_second, n_mutual).T)
            rows, columns = sp.coo_array(mutual).coords
            names = int(numbers[pair[0]]), int(numbers[pair[1]])
            yield BatchPair(names, first, second, from_first, from_second, (rows, columns))


def units(*codes: np.ndarray) -> list[np.ndarray]:
    """Cells of each combination of numbers ``(n,)``, such as batch and condition, increasing."""
    unit = np.unique(np.stack(codes), axis=1, return_inverse=True)[1].ravel()
    return np.split(np.argsort(unit, kind="stable"), np.cumsum(np.bincount(unit))[:-1])


def separation(
    points: np.ndarray, batches: np.ndarray, n_mutual: int, conditions: np.ndarray | None = None
) -> np.ndarray:
    """Ratio ``(B,)`` of the distances to the nearest cells in other batches and in the own batch; 1 without batch effects.

    Only cells with mutual nearest neighbours are included, so that the types of a batch do not matter, and the ratio of two
    batches is the geometric mean of both directions, so that their sizes do not matter. The value of a batch is the mean
    over its paired batches; 1 if there are none. With ``conditions`` ``(n,)``, cells of the same condition are compared, where
    both batches have at least ``MIN_COMPARED_CELLS`` of them.
    """
    fewest = 1 if conditions is None else MIN_COMPARED_CELLS
    within = np.full(len(points), np.nan)
    for rows in units(batches) if conditions is None else units(batches, conditions):
        if len(rows) > 1:
            within[rows] = nearest_neighbors(points[rows], min(n_mutual, len(rows) - 1)).distances.mean(1)
    log_within = np.log(np.maximum(within, 1e-12))
    log_ratios: list[list[float]] = [[] for _ in range(int(batches.max()) + 1)]
    for pair in _batch_pairs(points, batches, n_mutual, conditions):
        if len(pair.mnn_pairs[0]) == 0 or min(len(pair.first), len(pair.second)) < fewest:
            continue  # there are no pairs if cells coincide
        neighbors = pair.first_neighbors, pair.second_neighbors
        medians = []
        for cells, others, positions in zip((pair.first, pair.second), neighbors, pair.mnn_pairs, strict=True):
            paired = np.unique(positions)
            log_across = np.log(np.maximum(others.distances[paired, :n_mutual].mean(1), 1e-12))
            medians.append(np.median(log_across - log_within[cells[paired]]))
        for number in pair.batches:
            log_ratios[number].append(float(np.mean(medians)))
    return np.exp([float(np.mean(ratios)) if ratios else 0.0 for ratios in log_ratios])


def _leading(neighbors: Neighbors, number: int) -> sp.csr_array:
    """The graph of the ``number`` nearest neighbours."""
    return Neighbors(neighbors.indices[:, :number], neighbors.distances[:, :number], neighbors.n_targets).to_sparse()


def balanced_graph(
    points: np.ndarray, batches: np.ndarray, n_neighbors: int, conditions: np.ndarray | None = None
) -> sp.csr_array:
    """Join each cell to its nearest neighbours in its batch, and to its mutual nearest neighbours in other batches.

    From points ``(n, d)`` and batches ``(n,)``, numbered from 0; the neighbours in other batches are of the same of the
    ``conditions`` ``(n,)``, if there are any. A cell has about ``n_neighbors`` in all batches together, and
    at least ``MIN_MUTUAL_NEIGHBORS`` in each. Binary, symmetric ``(n, n)``, without self loops.
    """
    n_batches = int(batches.max()) + 1
    n_each = max(MIN_MUTUAL_NEIGHBORS, n_neighbors // n_batches)
    edges = [np.empty((2, 0), dtype=np.int64)]
    for number in range(n_batches):
        rows = np.flatnonzero(batches == number)
        k = min(n_each, len(rows) - 1)
        if k > 0:
            neighbors = nearest_neighbors(points[rows], k).indices
            edges.append(np.stack([np.repeat(rows, k), rows[neighbors].ravel()]))
    within = edge_graph(np.concatenate(edges, 1), len(points))
    return symmetric_adjacency(within + mutual_neighbors(points, batches, n_each, conditions))


def batch_offsets(differences: np.ndarray, pairs: np.ndarray, n_batches: int, weights: np.ndarray) -> np.ndarray:
    r"""Positions of batches relative to each other, from differences of their mutual nearest neighbours.

    The least-squares solution of :math:`s_g - s_h = x_i - x_j` over all mutual nearest neighbours ``i`` in batch ``g`` and
    ``j`` in ``h``, with ``differences`` :math:`x_i - x_j` ``(p, d)``, the batches of ``i`` and ``j`` in ``pairs`` ``(p, 2)``,
    and the weight ``(p,)`` of each: a linear system in the Laplacian of the graph of batches.

    Returns ``(B, d)`` offsets, whose sum is 0 over batches that pairs connect; 0 for a batch without pairs.
    """
    laplacian = np.zeros((n_batches, n_batches))
    right_side = np.zeros((n_batches, differences.shape[1]))
    first, second = pairs.T
    np.add.at(laplacian, (first, first), weights)
    np.add.at(laplacian, (second, second), weights)
    np.add.at(laplacian, (first, second), -weights)
    np.add.at(laplacian, (second, first), -weights)
    np.add.at(right_side, first, weights[:, None] * differences)
    np.add.at(right_side, second, -weights[:, None] * differences)
    return np.linalg.pinv(laplacian, rcond=1e-9, hermitian=True) @ right_side


def sample_of_each(batches: np.ndarray, n_cells: int) -> np.ndarray:
    """Numbers of all cells, or of a sample of about ``n_cells`` with the same number of each batch if possible, increasing."""
    if len(batches) <= n_cells:
        return np.arange(len(batches))
    rng = np.random.default_rng(0)
    numbers = np.unique(batches)
    n_each = max(1, n_cells // len(numbers))
    members = (np.flatnonzero(batches == number) for number in numbers)
    return np.sort(
        np.concatenate([rows if len(rows) <= n_each else rng.choice(rows, n_each, False) for rows in members])
    )


def mixing(points: np.ndarray, batches: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Mixing ``(n,)`` of batches around each cell: 0 for none, 1 for the amount expected by chance.

    The share of other batches among its nearest cells, relative to their share of all cells.
    """
    sizes = np.bincount(batches)
    others = (len(batches) - sizes)[batches] / max(1, len(batches) - 1)
    neighbors = nearest_neighbors(points, min(n_neighbors, len(points) - 1)).indices
    return (batches[neighbors] != batches[:, None]).mean(1) / np.maximum(others, 1e-12)
