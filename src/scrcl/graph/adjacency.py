"""The cell graph as a sparse matrix, and the propagation matrices of convolutions over it."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import reverse_cuthill_mckee

from .neighbors import Neighbors

#: Numbers of nodes, or a slice.
Rows: TypeAlias = np.ndarray | slice
ALL = slice(None)


def symmetric_adjacency(graph: sp.sparray | sp.spmatrix) -> sp.csr_array:
    """The binary, symmetric ``(n, n)`` graph without self loops, with the edges of both directions."""
    graph = sp.csr_array(graph, copy=True)
    graph.data = (graph.data != 0).astype(np.float32)
    graph = graph.maximum(graph.T).tocsr()
    graph.setdiag(0)
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


def edge_graph(ends: np.ndarray, n: int) -> sp.csr_array:
    """The same from edges ``(2, e)`` between ``n`` nodes."""
    return symmetric_adjacency(sp.csr_array((np.ones(ends.shape[1], dtype=np.float32), tuple(ends)), shape=(n, n)))


class Propagation:
    r"""The propagation matrix :math:`\hat A = D^{-1/2} (A + I) D^{-1/2}` of a graph convolution over a graph ``(n, n)``.

    Rows are computed when they are indexed, as all rows take more memory than the graph.
    """

    def __init__(self, adjacency: sp.csr_array) -> None:
        self._adjacency = adjacency
        self._scale = (1 / np.sqrt(adjacency.sum(axis=1) + 1)).astype(adjacency.dtype)

    def __getitem__(self, rows: Rows) -> sp.csr_array:
        numbers = np.arange(len(self._scale))[rows]
        m, ones = len(numbers), np.ones(len(numbers), dtype=self._scale.dtype)
        self_loops = sp.csr_array((ones, numbers, np.arange(m + 1)), shape=(m, len(self._scale)))
        matrix = sp.csr_array(self._adjacency[rows] + self_loops)
        matrix.data *= np.repeat(self._scale[numbers], np.diff(matrix.indptr)) * self._scale[matrix.indices]
        return matrix

    def twice(
        self, features: np.ndarray, rows: Rows = ALL, function: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> np.ndarray:
        """Features ``(n, d)`` propagated twice, of all nodes or some rows: ``(m, d)``.

        Before, a ``function`` of single rows, which may change its argument, is applied to those that are needed.
        """
        if isinstance(rows, slice):
            matrix, all_features = self[:], features if function is None else function(features.copy())
            return (matrix @ (matrix @ all_features))[rows]
        second = self[rows]
        neighbors = reached(second)
        first = self[neighbors]
        sources = reached(first)
        needed = features[sources] if function is None else function(features[sources])
        return second[:, neighbors] @ (first[:, sources] @ needed)


def reached(matrix: sp.csr_array) -> np.ndarray:
    """The columns with entries."""
    return np.flatnonzero(np.bincount(matrix.indices, minlength=matrix.shape[1]))


def normalized_adjacency(adjacency: sp.csr_array) -> sp.csr_array:
    """All rows of :class:`Propagation`."""
    return Propagation(adjacency)[:]


def query_weights(adjacency: sp.csr_array, neighbors: Neighbors) -> tuple[sp.csr_array, float]:
    """Weights by which query cells receive from a cell graph ``(n, n)``, without sending to it.

    The edges of a query cell to its neighbours are weighted as in :class:`Propagation`, with the degrees of the neighbours in
    the graph without query cells. So neither the representation of the cells of the graph nor that of another query cell
    depends on it.

    Returns the weights ``(m, n)`` with which the query cells receive from the graph, and the weight of each for itself.
    """
    k = neighbors.indices.shape[1]
    degree = adjacency.sum(axis=1)
    weights = 1 / np.sqrt((degree[neighbors.indices] + 1) * (k + 1))
    return neighbors.to_sparse(weights.astype(np.float32)), 1 / (k + 1)


def local_order(adjacency: sp.csr_array) -> np.ndarray:
    """An order of the nodes with neighbours close to each other, by the reverse Cuthill-McKee algorithm.

    It makes sparse products faster, as their operands are in the cache.
    """
    return reverse_cuthill_mckee(sp.csr_matrix(adjacency), symmetric_mode=True)


def join_reference(graph: sp.csr_array, reference: sp.csr_array, neighbors: Neighbors) -> sp.csr_array:
    """The propagation matrix of cells that are joined in space and receive from similar reference cells.

    The weights are as in :class:`Propagation`; the reference cells have the degrees of their own graph, and receive nothing
    from the other cells. From the spatial graph ``(m, m)`` of the cells, the graph ``(n, n)`` of the reference, and the
    neighbours of the cells in the reference. Returns ``(n + m, n + m)``, float32, the reference first.
    """
    received = neighbors.to_sparse()
    degree = graph.sum(axis=1) + received.sum(axis=1) + 1
    scale, reference_scale = (sp.diags_array(1 / np.sqrt(d)) for d in (degree, reference.sum(axis=1) + 1))
    spatial = scale @ (graph + sp.eye_array(graph.shape[0])) @ scale
    blocks = [[normalized_adjacency(reference), None], [scale @ received @ reference_scale, spatial]]
    return sp.csr_array(sp.block_array(blocks), dtype=np.float32)
