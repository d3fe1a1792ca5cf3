import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scrcl.graph.adjacency import local_order, normalized_adjacency, query_weights, symmetric_adjacency
from scrcl.graph.genes import directed_propagation, gene_graph
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.nn.sparse import symmetric_product, to_torch

#: Five points on a line; the neighbours can be told by eye.
LINE = np.array([[0.0], [1.0], [3.0], [6.0], [10.0]], dtype=np.float32)


def test_nearest_neighbors_of_points_on_a_line():
    found = nearest_neighbors(LINE, 2)
    np.testing.assert_array_equal(found.indices, [[1, 2], [0, 2], [1, 0], [2, 4], [3, 2]])
    np.testing.assert_allclose(found.distances, [[1, 3], [1, 2], [2, 3], [3, 4], [4, 7]])


def test_nearest_neighbors_against_brute_force():
    points = np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32)
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    found = nearest_neighbors(points, 7)
    np.testing.assert_array_equal(found.indices, np.argsort(distances, axis=1)[:, :7])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :7], rtol=1e-5)


def test_duplicate_points_are_never_their_own_neighbor():
    found = nearest_neighbors(np.repeat(LINE, 3, axis=0), 2)
    assert not (found.indices == np.arange(15)[:, None]).any()
    assert (found.distances == 0).all()


def test_neighbors_of_no_points():
    assert nearest_neighbors(LINE, 2, LINE[:0]).indices.shape == (0, 2)


def test_symmetric_adjacency_by_hand():
    directed = sp.csr_array(np.array([[5.0, 0.3, 0, 0], [0, 0, 0, 0], [0, -2, 0, 0], [0, 0, 0, 1]]))
    expected = [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    before = directed.copy()
    np.testing.assert_array_equal(symmetric_adjacency(directed).toarray(), expected)
    np.testing.assert_array_equal(directed.toarray(), before.toarray())


def test_normalized_adjacency_against_the_dense_formula():
    rng = np.random.default_rng(1)
    graph = symmetric_adjacency(sp.csr_array((rng.random((30, 30)) < 0.05).astype(float)))
    assert (graph.sum(axis=1) == 0).any(), "the example should have an isolated cell"
    looped = graph.toarray() + np.eye(30)
    scale = np.diag(looped.sum(1) ** -0.5)
    np.testing.assert_allclose(normalized_adjacency(graph).toarray(), scale @ looped @ scale, rtol=1e-6)


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


def test_attached_cells_receive_and_send_nothing():
    """A new cell gets the weights of one that had joined, from the degrees of the graph as it is."""
    adjacency = symmetric_adjacency(nearest_neighbors(LINE, 1).to_sparse())
    new = nearest_neighbors(LINE, 2, np.array([[0.4], [9.0]], dtype=np.float32))
    received, own = query_weights(adjacency, new)
    degree = adjacency.sum(axis=1) + 1
    expected = np.zeros((2, 5))
    expected[0, [0, 1]] = 1 / np.sqrt(degree[[0, 1]] * 3)
    expected[1, [3, 4]] = 1 / np.sqrt(degree[[3, 4]] * 3)
    np.testing.assert_allclose(received.toarray(), expected, rtol=1e-6)
    assert own == pytest.approx(1 / 3)


def test_symmetric_product_has_the_dense_gradient():
    rng = np.random.default_rng(0)
    dense = torch.from_numpy(
        normalized_adjacency(symmetric_adjacency(sp.csr_array(rng.random((9, 9)) < 0.3))).toarray()
    )
    x = torch.from_numpy(rng.normal(size=(9, 4)).astype(np.float32)).requires_grad_()
    y = x.detach().clone().requires_grad_()
    (symmetric_product(dense.to_sparse_csr(), x) ** 2).sum().backward()
    ((dense @ y) ** 2).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, y.grad)


def test_local_order_is_a_permutation_that_narrows_the_graph():
    points = np.random.default_rng(0).uniform(size=(300, 1)).astype(np.float32)
    graph = symmetric_adjacency(nearest_neighbors(points, 4).to_sparse())
    order = local_order(graph)
    np.testing.assert_array_equal(np.sort(order), np.arange(300))

    def reach(matrix):
        edges = matrix.tocoo()
        return np.abs(edges.row - edges.col).mean()

    assert reach(graph[order][:, order]) < reach(graph) / 10


def test_to_torch_keeps_the_matrix():
    matrix = sp.csr_array(np.array([[0, 2.0, 0], [1, 0, 3]]))
    np.testing.assert_array_equal(to_torch(matrix).to_dense().numpy(), matrix.toarray())
    assert to_torch(matrix).crow_indices().dtype == torch.int32
