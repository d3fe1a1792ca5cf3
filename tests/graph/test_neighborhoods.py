"""Surroundings of cells, beside dense formulas in loops."""

import numpy as np
import pytest

from scrcl.graph.neighborhoods import azimuthal_gradient, neighbor_weights, neighborhood_mean, with_surroundings

from ..helpers import slices_of


def dense_weights(points: np.ndarray, k: int) -> np.ndarray:
    weights = np.zeros((len(points), len(points)))
    for i, point in enumerate(points):
        distances = np.linalg.norm(points - point, axis=1)
        distances[i] = np.inf
        nearest = np.argsort(distances, kind="stable")[:k]
        weights[i, nearest] = np.exp(-((distances[nearest] / np.median(distances[nearest])) ** 2))
    return weights / weights.sum(1, keepdims=True)


def test_weights_are_gaussian_in_units_of_the_median_distance():
    points = np.random.default_rng(0).uniform(size=(40, 2))
    cells = np.array([30, 2, 11])
    weights = neighbor_weights(slices_of(points), 7, cells)
    np.testing.assert_allclose(weights.toarray(), dense_weights(points, 7)[cells], atol=1e-6)
    np.testing.assert_allclose(
        neighbor_weights(slices_of(50 * points), 7, cells).toarray(), weights.toarray(), atol=1e-5
    )


def test_the_gradient_is_the_length_of_a_sum_of_complex_numbers():
    rng = np.random.default_rng(1)
    points, features = rng.uniform(size=(30, 2)), rng.normal(size=(30, 4)).astype(np.float32)
    slices = slices_of(points)
    found = azimuthal_gradient(slices, neighbor_weights(slices, 6, np.arange(30)), features, np.arange(30))
    dense = dense_weights(points, 6)
    for i in range(30):
        others = [j for j in range(30) if j != i]
        azimuth = np.arctan2(*(points[others] - points[i]).T[::-1])
        difference = features[others] - dense[i] @ features
        expected = np.abs((dense[i, others] * np.exp(1j * azimuth)) @ difference)
        np.testing.assert_allclose(found[i], expected, atol=1e-5)
    some = np.array([3, 8, 21])
    again = azimuthal_gradient(slices, neighbor_weights(slices, 6, some), features, some)
    np.testing.assert_allclose(again, found[some], atol=1e-6)


def test_the_gradient_is_large_at_a_border_and_does_not_depend_on_rotations():
    grid = np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), -1).reshape(-1, 2) + 0.01 * np.random.default_rng(
        2
    ).normal(size=(144, 2))
    step = (grid[:, :1] > 5.5).astype(np.float32)
    slices = slices_of(grid)
    cells = np.arange(144)
    gradient = azimuthal_gradient(slices, neighbor_weights(slices, 8, cells), step, cells)[:, 0]
    border = np.abs(grid[:, 0] - 5.5) < 0.7
    assert gradient[border].min() > 0.2
    assert gradient[np.abs(grid[:, 0] - 5.5) > 2].max() < 1e-5
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    turned = slices_of(grid @ turn)
    again = azimuthal_gradient(turned, neighbor_weights(turned, 8, cells), step, cells)[:, 0]
    np.testing.assert_allclose(again, gradient, atol=1e-4)


def test_three_dimensions_with_a_flat_slice_are_as_two():
    rng = np.random.default_rng(3)
    points, features = rng.uniform(size=(25, 2)), rng.normal(size=(25, 3)).astype(np.float32)
    flat, deep = slices_of(points), slices_of(np.column_stack([points, np.zeros(25)]))
    found = [
        azimuthal_gradient(slices, neighbor_weights(slices, 5, np.arange(25)), features, np.arange(25))
        for slices in (flat, deep)
    ]
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


def test_the_mean_counts_the_cell_itself():
    rng = np.random.default_rng(4)
    points, features = rng.uniform(size=(20, 2)), rng.normal(size=(20, 3)).astype(np.float32)
    cells = np.array([19, 0, 7])
    found = neighborhood_mean(neighbor_weights(slices_of(points), 4, cells), features, cells)
    for row, i in enumerate(cells):
        nearest = np.argsort(np.linalg.norm(points - points[i], axis=1))[:5]  # the cell itself is the first
        np.testing.assert_allclose(found[row], features[nearest].mean(0), atol=1e-6)


@pytest.mark.parametrize("numbers", [[1, 12], [3, 9], [1]])
def test_slices_do_not_mix_and_small_ones_have_fewer_neighbors(numbers):
    rng = np.random.default_rng(5)
    samples = np.repeat(np.arange(len(numbers)), numbers)
    points, features = rng.uniform(size=(len(samples), 2)), rng.normal(size=(len(samples), 2)).astype(np.float32)
    slices = slices_of(points, samples)
    cells = np.arange(len(samples))
    weights = neighbor_weights(slices, 5, cells)
    dense = weights.toarray()
    assert not dense[samples[:, None] != samples].any()
    sizes = np.array(numbers)[samples]
    np.testing.assert_array_equal((dense > 0).sum(1), np.minimum(5, sizes - 1))
    alone = sizes == 1
    np.testing.assert_array_equal(neighborhood_mean(weights, features, cells)[alone], features[alone])
    assert not azimuthal_gradient(slices, weights, features, cells)[alone].any()


def test_cells_at_one_position_have_equal_weights_and_no_direction():
    points = np.zeros((5, 2))
    slices = slices_of(points)
    weights = neighbor_weights(slices, 4, np.arange(5))
    np.testing.assert_allclose(weights.toarray(), (1 - np.eye(5)) / 4)
    assert not azimuthal_gradient(slices, weights, np.arange(10.0, dtype=np.float32).reshape(5, 2), np.arange(5)).any()


def test_shares_of_the_surroundings_are_those_of_banksy():
    rng = np.random.default_rng(6)
    own, mean, gradient = (scale * rng.normal(size=(50, 3)) + 7 for scale in (1.0, 0.1, 30.0))
    found = with_surroundings(own, mean, gradient)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-9)
    lengths = (found.reshape(50, 3, 3) ** 2).sum(2).mean(0)
    np.testing.assert_allclose(lengths, [0.2, 0.8 / 1.5, 0.4 / 1.5])
    assert np.corrcoef(found[:, 4], mean[:, 1])[0, 1] == pytest.approx(1)
    assert not with_surroundings(own, mean, np.ones((50, 3)))[:, 6:].any()  # the same gradient everywhere
