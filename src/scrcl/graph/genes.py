"""The graph of the genes, directed from each gene to those with the most similar profiles."""

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from .neighbors import nearest_neighbors


def gene_graph(features: np.ndarray, n_neighbors: int = 5) -> sp.csr_array:
    """The directed graph of each gene's nearest genes, itself among them, by the cosine of their features ``(G, d)``.

    Binary ``(G, G)``; row ``g`` holds the nearest genes of gene ``g``.
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


def prior_gene_graph(
    similarity: sp.csr_array, profiles: np.ndarray, own: sp.csr_array | None, n_neighbors: int = 5
) -> sp.csr_array:
    """The directed gene graph that prior knowledge gives, by itself or joined to that of the expression profiles.

    Each gene points to the genes that it is most strongly tied to, as many as in the graph of profiles; among equally
    strong ties, to those with the most similar profiles.

    Parameters
    ----------
    similarity
        ``(G, G)`` symmetric, without self loops; higher for genes that belong together more.
    profiles
        ``(G, d)`` gene features.
    own
        ``(G, G)`` graph of the profiles to join, or ``None`` to replace it.
    n_neighbors
        Number of genes that a gene points to, itself counted.

    Returns
    -------
    Binary ``(G, G)`` matrix; every gene points to itself.
    """
    unit = normalize(profiles)
    n = len(unit)
    rows, columns = [np.arange(n)], [np.arange(n)]
    for gene in np.flatnonzero(np.diff(similarity.indptr)):
        mnn_pairs = slice(similarity.indptr[gene], similarity.indptr[gene + 1])
        others, strength = similarity.indices[mnn_pairs], similarity.data[mnn_pairs]
        order = np.lexsort((-(unit[others] @ unit[gene]), -strength))[: n_neighbors - 1]
        rows.append(np.full(len(order), gene))
        columns.append(others[order])
    edges = np.concatenate(rows), np.concatenate(columns)
    graph = sp.csr_array((np.ones(len(edges[0]), dtype=np.float32), edges), shape=(n, n))
    return graph if own is None else sp.csr_array(graph.maximum(own))
