import numpy as np
import pytest
import scipy.sparse as sp

from scrcl.graph.adjacency import (
    Propagation,
    edge_graph,
    join_reference,
    local_order,
    normalized_adjacency,
    query_weights,
    symmetric_adjacency,
)
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.graph.spatial import spatial_graph

from ..helpers import slices_of


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


def test_query_cells_receive_and_send_nothing():
    """A new cell gets the weights of one that had joined, from the degrees of the graph as it is."""
    line = np.array([[0.0], [1.0], [3.0], [6.0], [10.0]], dtype=np.float32)
    adjacency = symmetric_adjacency(nearest_neighbors(line, 1).to_sparse())
    new = nearest_neighbors(line, 2, np.array([[0.4], [9.0]], dtype=np.float32))
    received, own = query_weights(adjacency, new)
    degree = adjacency.sum(axis=1) + 1
    expected = np.zeros((2, 5))
    expected[0, [0, 1]] = 1 / np.sqrt(degree[[0, 1]] * 3)
    expected[1, [3, 4]] = 1 / np.sqrt(degree[[3, 4]] * 3)
    np.testing.assert_allclose(received.toarray(), expected, rtol=1e-6)
    assert own == pytest.approx(1 / 3)


def test_local_order_is_a_permutation_that_narrows_the_graph():
    points = np.random.default_rng(0).uniform(size=(300, 1)).astype(np.float32)
    graph = symmetric_adjacency(nearest_neighbors(points, 4).to_sparse())
    order = local_order(graph)
    np.testing.assert_array_equal(np.sort(order), np.arange(300))

    def reach(matrix):
        edges = matrix.tocoo()
        return np.abs(edges.row - edges.col).mean()

    assert reach(graph[order][:, order]) < reach(graph) / 10


def test_joined_propagation():
    rng = np.random.default_rng(0)
    reference = spatial_graph(slices_of(rng.uniform(size=(8, 2))), "knn", 2)
    graph = spatial_graph(slices_of(rng.uniform(size=(5, 2))), "knn", 2)
    neighbors = nearest_neighbors(rng.normal(size=(8, 3)), 3, rng.normal(size=(5, 3)))
    found = join_reference(graph, reference, neighbors).toarray()
    edges_from = np.zeros((13, 13))
    edges_from[:8, :8] = reference.toarray()
    edges_from[8:, 8:] = graph.toarray()
    edges_from[8:, :8] = neighbors.to_sparse().toarray()
    degree = edges_from.sum(1) + 1
    expected = (edges_from + np.eye(13)) / np.sqrt(np.outer(degree, degree))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("rows", [slice(None), np.array([2, 0])])
def test_a_function_of_single_rows_comes_before_propagation(rows):
    def halve(rows):
        rows /= 2
        return rows

    propagation = Propagation(edge_graph(np.array([[0, 1, 2], [1, 2, 3]]), 5))
    features = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    before = features.copy()
    found = propagation.twice(features, rows, halve)
    np.testing.assert_allclose(found, propagation.twice(features / 2, rows), rtol=1e-6)
    np.testing.assert_array_equal(features, before)
