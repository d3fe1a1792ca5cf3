"""Graphs over coordinates, against brute force and by hand."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist

from scrcl.graph.slices import nearest_in_space
from scrcl.graph.spatial import spatial_graph

from ..helpers import slices_of


def edges(graph) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in zip(*graph.nonzero(), strict=True) if i < j}


def check_form(graph):
    assert (graph != graph.T).nnz == 0
    assert graph.diagonal().sum() == 0
    assert set(graph.data) <= {1.0}


@pytest.mark.parametrize("dimensions", [2, 3])
def test_nearest_cells(dimensions):
    points = np.random.default_rng(0).normal(size=(60, dimensions))
    graph = spatial_graph(slices_of(points), "knn", 4)
    check_form(graph)
    distances = cdist(points, points)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, 1)[:, :4]
    assert edges(graph) == {(min(i, j), max(i, j)) for i, row in enumerate(nearest.tolist()) for j in row}


def test_radius():
    points = np.random.default_rng(0).uniform(size=(50, 2))
    points[0] = 5  # isolated
    graph = spatial_graph(slices_of(points), "radius", radius=0.2)
    check_form(graph)
    distances = cdist(points, points)
    assert edges(graph) == {(i, j) for i in range(50) for j in range(i + 1, 50) if distances[i, j] <= 0.2}
    assert graph[[0]].nnz == 0


def test_delaunay():
    # A square with its centre: the triangulation has the four sides and the four spokes.
    points = np.array([[0, 0], [2, 0], [2, 2], [0, 2], [1, 1.0]])
    assert edges(spatial_graph(slices_of(points), "delaunay")) == {
        (0, 1), (1, 2), (2, 3), (0, 3), (0, 4), (1, 4), (2, 4), (3, 4),
    }  # fmt: skip
    assert edges(spatial_graph(slices_of(points), "delaunay", radius=1.5)) == {(0, 4), (1, 4), (2, 4), (3, 4)}
    # A second cell at the centre is joined to the first and to all corners.
    flat = np.column_stack([points, np.full(len(points), 7.0)])  # z of a single slice
    assert edges(spatial_graph(slices_of(flat), "delaunay")) == edges(spatial_graph(slices_of(points), "delaunay"))
    twice = edges(spatial_graph(slices_of(np.vstack([points, points[4]])), "delaunay"))
    assert {(i, 5) for i in range(5)} <= twice


def test_hexagonal_grid_as_array_and_in_pixels():
    row, column = np.meshgrid(np.arange(6), np.arange(8), indexing="ij")
    array = np.column_stack([row.ravel(), (2 * column + row % 2).ravel()]).astype(float)
    graph = spatial_graph(slices_of(array), "grid")
    check_form(graph)
    pixels = array * [np.sqrt(3) * 50, 50] @ np.array([[0.8, -0.6], [0.6, 0.8]]) + 3
    assert edges(graph) == edges(spatial_graph(slices_of(pixels), "grid"))
    inside = (row.ravel() % 5 > 0) & (column.ravel() % 7 > 0)
    assert set(graph.sum(axis=1)[inside]) == {6}
    middle = 3 * 8 + 3
    offsets = array[edges_of(graph, middle)] - array[middle]
    assert {tuple(offset) for offset in offsets.tolist()} == {(0, 2), (0, -2), (1, 1), (1, -1), (-1, 1), (-1, -1)}


def edges_of(graph, cell: int) -> np.ndarray:
    return graph[[cell]].nonzero()[1]


@pytest.mark.parametrize("step", [1, 100])
def test_square_grid(step):
    row, column = np.meshgrid(np.arange(5), np.arange(5), indexing="ij")
    graph = spatial_graph(slices_of(np.column_stack([row.ravel(), column.ravel()]) * step), "grid")
    assert sorted(edges_of(graph, 12)) == [7, 11, 13, 17]
    assert graph.nnz == 2 * 40


@pytest.mark.parametrize("kind", ["knn", "radius", "delaunay", "grid"])
def test_slices_are_never_joined(kind):
    points = np.random.default_rng(0).uniform(size=(40, 2))
    samples = np.repeat(["a", "b"], 40)
    order = np.random.default_rng(1).permutation(80)
    graph = spatial_graph(slices_of(np.vstack([points, points])[order], samples[order]), kind, radius=0.3)
    back = np.argsort(order)
    graph = graph[back][:, back]
    alone = spatial_graph(slices_of(points), kind, radius=0.3)
    assert (graph != sp.block_diag([alone, alone])).nnz == 0


def test_cells_at_one_position():
    points = np.vstack([np.zeros((20, 2)), np.random.default_rng(0).normal(5, 1, size=(10, 2))])
    nearest = nearest_in_space(points, 4)
    assert (nearest != np.arange(30)[:, None]).all()
    assert all(len(set(row)) == 4 for row in nearest.tolist())
    assert (nearest[:20] < 20).all()
    check_form(spatial_graph(slices_of(points), "knn", 4))


def test_ties_do_not_depend_on_the_order():
    row, column = np.meshgrid(np.arange(6.0), np.arange(6.0))
    points = np.column_stack([row.ravel(), column.ravel()])
    order = np.random.default_rng(0).permutation(36)
    graph, shuffled = (spatial_graph(slices_of(each), "knn", 6) for each in (points, points[order]))
    assert (graph[order][:, order] != shuffled).nnz == 0
