import numpy as np
import pytest
import scipy.sparse as sp

from scrcl.graph.genes import directed_propagation, gene_graph, prior_gene_graph


def test_directed_propagation_by_hand():
    """Node 0 names 0 and 1, node 1 names nobody, node 2 names all: the in-degrees are 2, 2 and 1."""
    graph = sp.csr_array(np.array([[1.0, 1, 0], [0, 0, 0], [1, 1, 1]]))
    expected = [[1 / 2, 0, 1 / np.sqrt(2)], [1 / 2, 0, 1 / np.sqrt(2)], [0, 0, 1]]
    np.testing.assert_allclose(directed_propagation(graph).toarray(), expected)


def test_gene_graph_against_scikit_learn():
    from sklearn.metrics.pairwise import cosine_similarity

    features = np.random.default_rng(2).normal(size=(40, 6)).astype(np.float32)
    nearest = np.argsort(-cosine_similarity(features), axis=1)[:, :5]
    expected = np.zeros((40, 40))
    np.put_along_axis(expected, nearest, 1, axis=1)
    graph = gene_graph(features, 5)
    np.testing.assert_array_equal(graph.toarray(), expected)
    assert (graph.toarray() != graph.toarray().T).any()


@pytest.mark.parametrize("n_genes", [1, 2, 3])
def test_gene_graph_of_few_genes(n_genes):
    graph = gene_graph(np.eye(n_genes, 4, dtype=np.float32), 5)
    np.testing.assert_array_equal(graph.toarray(), np.ones((n_genes, n_genes)))


def test_gene_graph_of_a_gene_without_profile():
    features = np.random.default_rng(3).normal(size=(10, 3)).astype(np.float32)
    features[4] = 0
    assert np.isfinite(directed_propagation(gene_graph(features)).toarray()).all()


def test_prior_gene_graph_by_hand():
    similarity = np.zeros((5, 5))
    similarity[:3, :3] = 0.5
    similarity[[0, 1], [1, 0]] = 1.5
    np.fill_diagonal(similarity, 0)
    mnn_pairs = sp.csr_array(similarity)
    profiles = np.array([[1, 0], [0, 1], [1, 0.1], [1, 1], [-1, 0]], dtype=float)
    # Two edges and the loop: B is tied to A most; one edge and the loop: A to B.
    replaced = prior_gene_graph(mnn_pairs, profiles, None, n_neighbors=2).toarray()
    expected = np.eye(5)
    expected[0, 1] = expected[1, 0] = 1
    expected[2, 0] = 1  # C is tied to A and B alike; A has the more similar profile
    np.testing.assert_array_equal(replaced, expected)
    own = gene_graph(profiles, 3)
    joined = prior_gene_graph(mnn_pairs, profiles, own, n_neighbors=2).toarray()
    np.testing.assert_array_equal(joined, np.maximum(expected, own.toarray()))
