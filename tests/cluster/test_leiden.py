import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

from scrcl.cluster.clustering import N_NEIGHBORS
from scrcl.cluster.leiden import leiden, leiden_with
from scrcl.graph.adjacency import symmetric_adjacency
from scrcl.graph.neighbors import nearest_neighbors


def modularity(graph: sp.csr_array, labels: np.ndarray, resolution: float) -> float:
    """Share of the edges within communities, minus its expectation at random, from dense matrices."""
    matrix = graph.toarray().astype(float)
    expected = np.outer(matrix.sum(1), matrix.sum(0)) / matrix.sum()
    return ((matrix - resolution * expected) * np.equal.outer(labels, labels)).sum() / matrix.sum()


def test_leiden_is_reproducible():
    points = np.random.default_rng(2).normal(size=(300, 3)).astype(np.float32)
    one = leiden(points, 1.0, 0).labels
    np.testing.assert_array_equal(leiden(points, 1.0, 0).labels, one)
    assert (leiden(points, 1.0, 1).labels != one).any()


@pytest.mark.parametrize("resolution", [0.1, 1.0, 4.0])
def test_the_modularity_is_as_high_as_that_of_igraph(resolution):
    import igraph

    rng = np.random.default_rng(5)
    points = (np.eye(6)[rng.integers(0, 6, 300)] * 3 + rng.normal(size=(300, 6))).astype(np.float32)
    graph = symmetric_adjacency(nearest_neighbors(points, N_NEIGHBORS).to_sparse())
    peer = igraph.Graph(n=300, edges=np.column_stack(sp.triu(graph, format="coo").coords))
    expected = peer.community_leiden("modularity", resolution=resolution, n_iterations=-1)
    found = leiden(points, resolution, 0)
    assert modularity(graph, found.labels, resolution) > 0.97 * peer.modularity(expected, resolution=resolution)
    assert abs(found.n_clusters - len(expected)) <= 0.2 * len(expected)


def test_more_resolution_more_clusters():
    points = np.random.default_rng(3).normal(size=(300, 3)).astype(np.float32)
    counts = [leiden(points, resolution, 0).n_clusters for resolution in (0.1, 1, 5)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_leiden_says_when_a_number_of_clusters_cannot_be_had():
    points = np.repeat(np.array([[0.0], [50.0]]), 30, axis=0) + np.linspace(0, 1, 60)[:, None]
    with pytest.warns(UserWarning, match="No resolution of Leiden gives 1 clusters"):
        found = leiden_with(points.astype(np.float32), 1, 0)
    assert adjusted_rand_score(np.repeat([0, 1], 30), found.labels) > 0
