"""The graph of the genes, directed from each gene to those with the most similar profiles."""

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from .neighbors import nearest_neighbors


def gene_graph(features: np.ndarray, n_neighbors: int = 5) -> sp.csr_array:
    """The directed graph from each gene to itself and its nearest genes, by the cosine of their features ``(G, d)``.

    Binary ``(G, G)``; row ``g`` holds the nearest genes of gene ``g``.
    """
    self_loops = sp.eye_array(len(features), dtype=np.float32, format="csr")
    if len(features) == 1:
        return self_loops
    others = nearest_neighbors(normalize(features), min(n_neighbors, len(features)) - 1)
    return sp.csr_array(others.to_sparse() + self_loops)


def directed_propagation(graph: sp.csr_array) -> sp.csr_array:
    r"""The propagation matrix :math:`\bar B = D^{-1/2} B^\top D^{-1/2}` of a graph convolution over a directed graph.

    Row ``i`` of ``B`` holds the edges from ``i``, so that a node receives along its incoming edges; ``D`` holds the
    in-degrees, the column sums of ``B``. A node without incoming edges receives nothing.
    """
    degree = np.maximum(graph.sum(axis=0), 1)
    scale = sp.diags_array(1 / np.sqrt(degree), dtype=graph.dtype)
    return sp.csr_array(scale @ graph.T @ scale)


def prior_gene_graph(
    similarity: sp.csr_array, profiles: np.ndarray, profile_graph: sp.csr_array | None, n_neighbors: int = 5
) -> sp.csr_array:
    """The directed gene graph of prior knowledge, alone or joined to a graph ``(G, G)`` of expression profiles.

    Each gene has edges to the genes of highest ``similarity``, ``(G, G)``, symmetric and without self loops; among equal ones,
    to the genes with the most similar profiles ``(G, d)``. With the edge to itself it has at most ``n_neighbors``, as in the
    graph of profiles. Binary ``(G, G)``; every gene has an edge to itself.
    """
    unit = normalize(profiles)
    n = len(unit)
    rows, columns = [np.arange(n)], [np.arange(n)]
    for gene in np.flatnonzero(np.diff(similarity.indptr)):
        entries = slice(similarity.indptr[gene], similarity.indptr[gene + 1])
        others, strength = similarity.indices[entries], similarity.data[entries]
        order = np.lexsort((-(unit[others] @ unit[gene]), -strength))[: n_neighbors - 1]
        rows.append(np.full(len(order), gene))
        columns.append(others[order])
    edges = np.concatenate(rows), np.concatenate(columns)
    graph = sp.csr_array((np.ones(len(edges[0]), dtype=np.float32), edges), shape=(n, n))
    return graph if profile_graph is None else sp.csr_array(graph.maximum(profile_graph))
