"""Graphs of cells and genes, over plain arrays."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import reverse_cuthill_mckee
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from torch import Tensor

#: Targets up to which neighbours are searched for exactly. Compiling the approximate search takes longer than that.
EXACT_TARGETS = 50_000
#: Neighbours that nearest-neighbour descent keeps of each target; more than are asked for, so that these are found.
DESCENT_NEIGHBORS = 30
#: How much farther than the farthest neighbour found so far a query looks.
DESCENT_EPSILON = 0.2


@dataclass(frozen=True)
class Neighbors:
    """The nearest neighbours of ``n`` points among ``m`` targets, nearest first.

    Attributes
    ----------
    indices
        ``(n, k)`` int64, rows of the targets.
    distances
        ``(n, k)`` float32, Euclidean.
    n_targets
        Number of targets ``m``.
    """

    indices: np.ndarray
    distances: np.ndarray
    n_targets: int

    def to_sparse(self, values: np.ndarray | None = None) -> sp.csr_array:
        """The ``(n, m)`` matrix that holds ``values`` (default: ones) at the neighbours of each point."""
        n, k = self.indices.shape
        data = np.ones(n * k, dtype=np.float32) if values is None else values.ravel()
        return sp.csr_array((data, self.indices.ravel(), np.arange(0, n * k + 1, k)), shape=(n, self.n_targets))


class NeighborSearch:
    """Search for nearest neighbours by Euclidean distance among targets that stay the same.

    Exact among up to ``EXACT_TARGETS`` targets. Among more, nearest-neighbour descent (Dong et al., WWW 2011), which finds
    nearly all and the same at each run. What is found for a point never depends on the other points.

    Parameters
    ----------
    targets
        ``(m, d)`` points to search among.
    """

    def __init__(self, targets: np.ndarray) -> None:
        self._targets = targets

    @cached_property
    def _exact(self) -> NearestNeighbors | None:
        return NearestNeighbors(algorithm="brute").fit(self._targets) if len(self._targets) <= EXACT_TARGETS else None

    @cached_property
    def _index(self) -> Any:
        from pynndescent import NNDescent  # compiles for seconds, and is not needed for few cells

        return NNDescent(
            np.ascontiguousarray(self._targets, dtype=np.float32), n_neighbors=DESCENT_NEIGHBORS, random_state=0
        )

    def among_themselves(self, n_neighbors: int) -> Neighbors:
        """The nearest neighbours of each target among the others."""
        if self._exact is not None:
            return self._neighbors(*self._exact.kneighbors(n_neighbors=n_neighbors))
        if n_neighbors >= DESCENT_NEIGHBORS:
            raise ValueError(
                f"n_neighbors={n_neighbors} is too many for the approximate search that more than {EXACT_TARGETS:,} cells "
                f"need. Take at most {DESCENT_NEIGHBORS - 1}."
            )
        indices, distances = self._index.neighbor_graph
        others = without_itself(indices)
        kept = [found[others].reshape(len(found), -1)[:, :n_neighbors] for found in (distances, indices)]
        return self._neighbors(*kept)

    def __call__(self, points: np.ndarray, n_neighbors: int) -> Neighbors:
        """The nearest targets of points ``(n, d)``."""
        if len(points) == 0:
            return self._neighbors(np.empty((0, n_neighbors)), np.empty((0, n_neighbors)))
        if self._exact is not None:
            return self._neighbors(*self._exact.kneighbors(points, n_neighbors))
        indices, distances = self._index.query(
            np.ascontiguousarray(points, dtype=np.float32), n_neighbors, epsilon=DESCENT_EPSILON
        )
        return self._neighbors(distances, indices)

    def _neighbors(self, distances: np.ndarray, indices: np.ndarray) -> Neighbors:
        return Neighbors(indices.astype(np.int64), distances.astype(np.float32), len(self._targets))


def without_itself(indices: np.ndarray) -> np.ndarray:
    """Which of its ``k`` nearest points ``(n, k)``, itself among them, are another: all but one, ``(n, k)``.

    Where points coincide, a point is not always the first of its own neighbours; where many do, it is none of them, and
    the last one goes.
    """
    others = indices != np.arange(len(indices))[:, None]
    others[others.all(1), -1] = False
    return others


def nearest_neighbors(targets: np.ndarray, n_neighbors: int, points: np.ndarray | None = None) -> Neighbors:
    """Find nearest neighbours once, as :class:`NeighborSearch` does.

    Parameters
    ----------
    targets
        ``(m, d)`` points to search among.
    n_neighbors
        Number of neighbours of each point.
    points
        ``(n, d)`` points to search for. By default the targets themselves, none being its own neighbour.
    """
    search = NeighborSearch(targets)
    return search.among_themselves(n_neighbors) if points is None else search(points, n_neighbors)


def symmetric_adjacency(graph: sp.sparray | sp.spmatrix) -> sp.csr_array:
    """The binary, symmetric ``(n, n)`` graph without self loops that joins the edges of both directions."""
    graph = sp.csr_array(graph, copy=True)
    graph.data = (graph.data != 0).astype(np.float32)
    graph = graph.maximum(graph.T).tocsr()
    graph.setdiag(0)
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


def normalized_adjacency(adjacency: sp.csr_array) -> sp.csr_array:
    r"""The propagation matrix :math:`\hat A = D^{-1/2} (A + I) D^{-1/2}` of a graph convolution."""
    matrix = sp.csr_array(adjacency + sp.eye_array(adjacency.shape[0], dtype=adjacency.dtype, format="csr"))
    scale = (1 / np.sqrt(adjacency.sum(axis=1) + 1)).astype(matrix.dtype)
    matrix.data *= np.repeat(scale, np.diff(matrix.indptr)) * scale[matrix.indices]
    return matrix


def gene_graph(features: np.ndarray, n_neighbors: int = 5) -> sp.csr_array:
    """The directed graph of each gene's nearest genes by cosine similarity of their profiles, itself included.

    Parameters
    ----------
    features
        ``(G, d)`` gene features.
    n_neighbors
        Number of nearest genes, the gene itself counted.

    Returns
    -------
    Binary ``(G, G)`` matrix; row ``g`` holds the nearest genes of gene ``g``.
    """
    others = nearest_neighbors(normalize(features), min(n_neighbors, len(features)) - 1) if len(features) > 1 else None
    itself = sp.eye_array(len(features), dtype=np.float32, format="csr")
    return sp.csr_array(itself if others is None else others.to_sparse() + itself)


def directed_propagation(graph: sp.csr_array) -> sp.csr_array:
    r"""The propagation matrix :math:`\bar B = D^{-1/2} B^\top D^{-1/2}` of a graph convolution over a directed graph.

    Row ``i`` of ``B`` holds the edges from ``i``, so that a node receives from those that name it; ``D`` holds the
    in-degrees, the column sums of ``B``. A node that nobody names receives nothing.
    """
    degree = np.maximum(graph.sum(axis=0), 1)
    scale = sp.diags_array(1 / np.sqrt(degree), dtype=graph.dtype)
    return sp.csr_array(scale @ graph.T @ scale)


def attach(adjacency: sp.csr_array, neighbors: Neighbors) -> tuple[sp.csr_array, float]:
    """Add new cells to a cell graph so that they receive from it and send nothing.

    The edges of a new cell are weighted as in :func:`normalized_adjacency`, with the degrees that its neighbours have
    in the graph as it is. Nothing changes for the cells already there, so neither their representation nor that of
    another new cell depends on it.

    Parameters
    ----------
    adjacency
        ``(n, n)`` adjacency of the graph.
    neighbors
        Neighbours of the ``m`` new cells in the graph.

    Returns
    -------
    The weights ``(m, n)`` with which new cells receive from the graph, and the one each has for itself.
    """
    k = neighbors.indices.shape[1]
    degree = adjacency.sum(axis=1)
    weights = 1 / np.sqrt((degree[neighbors.indices] + 1) * (k + 1))
    return neighbors.to_sparse(weights.astype(np.float32)), 1 / (k + 1)


def to_torch(matrix: sp.csr_array) -> Tensor:
    """A sparse CSR tensor, float32, with the 32-bit indices that the fast CPU kernels want."""
    with warnings.catch_warnings():
        # Torch announces once that CSR tensors are in beta and that their invariants are not checked.
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)", category=UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int32)),
            torch.from_numpy(matrix.indices.astype(np.int32)),
            torch.from_numpy(matrix.data.astype(np.float32)),
            size=matrix.shape,
        )


class _SymmetricProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, x: Tensor) -> Tensor:
        ctx.matrix = matrix
        return _product(matrix, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, _product(ctx.matrix, gradient)


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    # Sparse products exist in the precision of the matrix only, whatever that of the training.
    with torch.autocast(x.device.type, enabled=False):
        return (matrix @ x.to(matrix.dtype)).to(x.dtype)


def symmetric_product(matrix: Tensor, x: Tensor) -> Tensor:
    """Product of a symmetric sparse CSR tensor ``(n, n)`` with a dense one ``(n, d)``, differentiable in the latter.

    The gradient multiplies by the same matrix, where torch would sort and transpose it at every backward pass.
    """
    return _SymmetricProduct.apply(matrix, x)


def local_order(adjacency: sp.csr_array) -> np.ndarray:
    """An order of the nodes that puts neighbours close to each other, by the reverse Cuthill-McKee algorithm.

    Sparse products over a graph in this order find in the cache what they need.
    """
    return reverse_cuthill_mckee(sp.csr_matrix(adjacency), symmetric_mode=True)
