import numpy as np
import pytest
import scipy.sparse as sp

from scrcl.graph.adjacency import symmetric_adjacency
from scrcl.graph.smoothing import (
    DEFAULT_STEPS,
    MAX_STEPS,
    _chance,
    autocorrelation,
    chosen_steps,
    smooth,
    steps_of_length,
    varying_in_space,
)
from scrcl.graph.spatial import spatial_graph

from ..helpers import slices_of


@pytest.mark.parametrize("strength", [0.5, 10.0, 100.0])
def test_smoothing_solves_the_linear_system(strength):
    rng = np.random.default_rng(0)
    graph = spatial_graph(slices_of(rng.uniform(size=(80, 2))), "radius", radius=0.15).toarray()
    features = rng.normal(size=(80, 3))
    walk = (graph + np.eye(80)) / (graph.sum(1, keepdims=True) + 1)
    expected = np.linalg.solve(np.eye(80) + strength * (np.eye(80) - walk), features)
    found = smooth(sp.csr_array(graph.astype(np.float32)), features, strength)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_smoothing_leaves_constants_and_the_isolated():
    graph = symmetric_adjacency(sp.csr_array((np.ones(2), ([0, 1], [1, 2])), shape=(4, 4)))
    constant = np.array([[1.0], [1.0], [1.0], [7.0]])
    np.testing.assert_allclose(smooth(graph, constant, 10), constant, rtol=1e-5)
    np.testing.assert_array_equal(smooth(graph, constant, 0), constant)


def waves(n_cells: int, frequency: float, noise: float) -> tuple[sp.csr_array, np.ndarray]:
    """The graph of cells, and features that vary over it beside noise of single cells."""
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(n_cells, 2))
    phases = frequency * np.column_stack([points, points.sum(1)])
    features = np.sin(phases) + noise * rng.normal(size=phases.shape)
    return spatial_graph(slices_of(points), "knn", 6), (features - features.mean(0)).astype(np.float32)


@pytest.mark.parametrize(
    ("frequency", "noise", "about"), [(20.0, 0.3, 2.0), (10.0, 0.5, 5.0), (10.0, 3.0, 10.0), (3.0, 1.0, 10.0)]
)
def test_steps_are_chosen_by_the_error_for_cells_left_out(frequency, noise, about):
    """Few if places differ and cells are not noisy, as leaving out each cell in turn has it."""
    graph, features = waves(300, frequency, noise)
    dense = graph.toarray()
    walk = (dense + np.eye(300)) / (dense.sum(1, keepdims=True) + 1)
    strengths, shares = np.arange(0.5, 10.5, 0.5), []
    for strength in strengths:
        kernel = np.linalg.inv(np.eye(300) + strength * (np.eye(300) - walk))
        np.fill_diagonal(kernel, 0)
        others = (kernel @ features) / kernel.sum(1, keepdims=True)
        shares.append(1 - ((features - others) ** 2).sum() / (features**2).sum())
    expected = strengths[np.array(shares) >= 0.85 * max(shares)].max()
    found = chosen_steps(graph, features)
    assert abs(found - expected) <= 1
    assert abs(found - about) <= 1


def test_steps_do_not_depend_on_cells_without_neighbors():
    graph, features = waves(300, 10.0, 0.5)
    with_others = sp.csr_array(sp.block_diag([graph, sp.csr_array((200, 200))]), dtype=np.float32)
    noise = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    assert chosen_steps(with_others, np.concatenate([features, noise])) == chosen_steps(graph, features)
    assert chosen_steps(sp.csr_array((300, 300), dtype=np.float32), features) == DEFAULT_STEPS
    assert chosen_steps(graph, np.zeros_like(features)) == DEFAULT_STEPS


def test_autocorrelation():
    """Moran's I by its definition, with weights that sum to one for each cell."""
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(100, 2))
    graph = spatial_graph(slices_of(points), "knn", 5)
    features = np.column_stack([points[:, 0], rng.normal(size=100)])
    weights = graph.toarray() / graph.sum(axis=1)[:, None]
    centered = features - features.mean(0)
    expected = [100 / weights.sum() * (c @ weights @ c) / (c @ c) for c in centered.T]
    found = autocorrelation(graph, features)
    np.testing.assert_allclose(found, expected)
    assert found[0] > 0.8
    assert abs(found[1]) < 0.2


def test_what_varies_in_space():
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(400, 2))
    graph = spatial_graph(slices_of(points), "knn", 6)
    drawn = [autocorrelation(graph, rng.normal(size=(400, 200))).std() for _ in range(3)]
    np.testing.assert_allclose(np.mean(drawn), _chance(graph), rtol=0.1)
    wave = np.sin(5 * points)
    features = np.column_stack([wave, wave + rng.normal(size=wave.shape), rng.normal(size=(400, 20))])
    kept = varying_in_space(graph, features)
    assert kept[:4].all()
    assert kept[4:].sum() <= 2
    # Weak structure counts where there is no stronger.
    assert varying_in_space(graph, np.column_stack([wave + 2 * rng.normal(size=wave.shape), features[:, 4:]]))[:2].all()
    with pytest.warns(UserWarning, match="does not vary in space"):
        assert varying_in_space(graph, features[:, 4:]).all()


def test_steps_of_a_length_are_those_of_a_random_walk():
    """Walks on a large square grid, simulated: they end at the distance that was asked for."""
    side = 61
    points = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2) * 5.0
    apart = np.abs(points[:, None] - points).sum(2)
    graph = sp.csr_array((apart == 5).astype(np.float32))
    steps = steps_of_length(points, graph, 20.0)
    middle = steps[np.abs(points - points.mean(0)).max(1) < 100]
    np.testing.assert_allclose(middle, 16 / (4 / 5))  # four of five steps move by one cell
    rng = np.random.default_rng(0)
    lengths = rng.geometric(1 / (1 + middle[0]), size=20_000) - 1
    moves = np.array([[0, 0], [5, 0], [-5, 0], [0, 5], [0, -5]])
    ends = np.array([moves[rng.integers(5, size=number)].sum(0) if number else np.zeros(2) for number in lengths])
    assert np.sqrt((ends**2).sum(1).mean()) == pytest.approx(20, rel=0.05)
    assert not steps_of_length(points, sp.csr_array((side**2, side**2), dtype=np.float32), 20.0).any()


def test_strengths_of_single_nodes_solve_the_linear_system():
    rng = np.random.default_rng(0)
    graph = spatial_graph(slices_of(rng.uniform(size=(80, 2))), "knn", 6).toarray()
    features, strengths = rng.normal(size=(80, 3)), rng.gamma(1.0, 10.0, size=80)
    strengths[:5] = 0
    walk = (graph + np.eye(80)) / (graph.sum(1, keepdims=True) + 1)
    expected = np.linalg.solve(np.eye(80) + strengths[:, None] * (np.eye(80) - walk), features)
    found = smooth(sp.csr_array(graph.astype(np.float32)), features, strengths)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(found[:5], features[:5], atol=1e-5)


def test_a_length_is_the_same_where_cells_are_dense_and_where_they_are_not():
    """In a slice with cells 5 apart on one side and 30 apart on the other, features are averaged over the same distance."""
    rng = np.random.default_rng(0)
    dense, sparse = (np.indices((size, size)).reshape(2, -1).T for size in (60, 20))
    points = np.concatenate([5.0 * dense, [300.0, 0.0] + 30.0 * sparse]) + rng.normal(scale=0.5, size=(4000, 2))
    graph = spatial_graph(slices_of(points), "knn", 6)
    centers = [np.linalg.norm(points - middle, axis=1).argmin() for middle in ([150, 150], [600, 300])]
    squares = np.stack([((points - points[center]) ** 2).sum(1) for center in centers], 1)
    steps = steps_of_length(points, graph, 50.0)
    distances = np.sqrt(np.diag(smooth(graph, squares, steps)[centers]))
    np.testing.assert_allclose(distances, 50, rtol=0.1)
    # With the same number of steps everywhere, the distance is that between cells.
    same = np.sqrt(np.diag(smooth(graph, squares, float(np.median(steps)))[centers]))
    assert same[1] > 4 * same[0]


def test_many_cells_at_one_position_have_bounded_steps():
    points = np.repeat(np.random.default_rng(0).uniform(size=(20, 2)), 10, axis=0)
    graph = spatial_graph(slices_of(points), "knn", 6)
    steps = steps_of_length(points, graph, 1e6)
    assert steps.max() <= MAX_STEPS
    assert np.isfinite(smooth(graph, np.ones((200, 1)), steps)).all()
