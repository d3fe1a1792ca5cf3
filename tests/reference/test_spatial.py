import numpy as np

from scrcl.graph.neighborhoods import azimuthal_gradient, neighbor_weights, with_surroundings
from scrcl.graph.slices import Slices, find_cells
from scrcl.graph.smoothing import smooth, steps_of_length
from scrcl.graph.spatial import SpatialOptions, spatial_graph
from scrcl.reference.spatial import SpatialReference

from ..helpers import slices_of


def test_tissue_smooths_what_varies_finds_cells_and_is_kept():
    rng = np.random.default_rng(0)
    slices = slices_of(rng.uniform(size=(30, 2)))
    features = rng.normal(size=(30, 4)).astype(np.float32)
    tissue = SpatialReference(slices, features, np.array([True, False, True, True]), SpatialOptions(smoothing=10.0))
    graph = spatial_graph(slices, "knn", 4)
    expected = smooth(graph, features[:, [0, 2, 3]], 10.0)
    np.testing.assert_array_equal(tissue.smooth(slices, graph, features), expected)
    order = rng.permutation(30)
    np.testing.assert_array_equal(find_cells(slices.select(order), features[order], slices, features), order)
    again = SpatialReference.from_dict(tissue.to_dict())
    assert again.options == tissue.options
    np.testing.assert_array_equal(again.smooth(slices, graph, features), expected)


def test_views_of_domains():
    rng = np.random.default_rng(1)
    slices = slices_of(rng.uniform(size=(60, 2)))
    features = rng.normal(size=(60, 3)).astype(np.float32)
    tissue = SpatialReference(slices, features, np.ones(3, dtype=bool), SpatialOptions(smoothing=10.0))
    cells = np.array([2, 5, 40])
    smoothed = rng.normal(size=(3, 3)).astype(np.float32)
    constant = np.zeros_like(features)
    views = tissue.domain_spaces([features, constant], [smoothed, smoothed], cells)
    assert [view.shape for view in views] == [(3, 3), (3, 3), (3, 3), (3, 9), (3, 3)]  # constant views are left out
    np.testing.assert_array_equal(views[0], features[cells])
    np.testing.assert_array_equal(views[1], smoothed)
    distances = np.linalg.norm(slices.coordinates[cells, None] - slices.coordinates, axis=2)
    nearest = np.argsort(distances, axis=1)[:, :16]
    np.testing.assert_allclose(views[2], features[nearest].mean(1), atol=1e-6)
    near, far = (neighbor_weights(slices, number, cells) for number in (15, 30))
    gradient = azimuthal_gradient(slices, far, features, cells)
    np.testing.assert_allclose(views[3], with_surroundings(features[cells], near @ features, gradient), rtol=1e-4)


def test_a_length_is_the_same_distance_in_dense_and_in_coarse_slices():
    """Of two slices, one has cells twice as far apart: with a length, it needs a quarter of the steps."""
    rng = np.random.default_rng(2)
    points = rng.uniform(size=(200, 2))
    features = rng.normal(size=(200, 3)).astype(np.float32)
    both = slices_of(np.concatenate([points, 2 * points]), np.repeat(["dense", "coarse"], 200))
    graph = spatial_graph(both, "knn", 6)
    one = spatial_graph(slices_of(points), "knn", 6)
    steps = steps_of_length(points, one, 0.3)
    kept, options = np.ones(3, dtype=bool), SpatialOptions(smoothing_length=0.3)
    tissue = SpatialReference(both, np.tile(features, (2, 1)), kept, options)
    smoothed = tissue.smooth(both, graph, tissue.features)
    np.testing.assert_allclose(smoothed[:200], smooth(one, features, steps), atol=1e-4)
    np.testing.assert_allclose(smoothed[200:], smooth(one, features, steps / 4), atol=1e-4)
    assert SpatialReference.from_dict(tissue.to_dict()).options.smoothing_length == 0.3
    state = tissue.to_dict()
    del state["smoothing_length"]  # of an earlier version
    assert SpatialReference.from_dict(state).options.smoothing_length is None


def test_more_smoothing_reads_larger_surroundings():
    rng = np.random.default_rng(3)
    slices, features = slices_of(rng.uniform(size=(90, 2))), rng.normal(size=(90, 2)).astype(np.float32)
    cells = np.array([0, 1])
    nearest = np.argsort(np.linalg.norm(slices.coordinates[cells, None] - slices.coordinates, axis=2), axis=1)
    for steps, number in [(10.0, 15), (20.0, 30), (0.0, 6)]:
        tissue = SpatialReference(slices, features, np.ones(2, dtype=bool), SpatialOptions(smoothing=steps))
        mean = tissue.domain_spaces([features], [features[cells]], cells)[2]
        np.testing.assert_allclose(mean, features[nearest[:, : number + 1]].mean(1), atol=1e-5)


def test_steps_are_the_same_for_all_slices_and_any_order_of_cells():
    """Slices differ by a constant, which says nothing about places within them."""
    rng = np.random.default_rng(4)
    points, kept = rng.uniform(size=(300, 2)), np.array([True, True, False])
    waves = np.sin(np.column_stack([20 * points, points[:, 0]])).astype(np.float32)
    one, both = slices_of(points), slices_of(np.concatenate([points, points]), np.repeat(["a", "b"], 300))
    features = np.concatenate([waves, waves + 5])

    def steps(slices: Slices, features: np.ndarray, options: SpatialOptions) -> float | None:
        return SpatialReference.fit(slices, spatial_graph(slices, "knn", 6), features, kept, options).options.smoothing

    chosen = steps(one, waves, SpatialOptions())
    assert chosen is not None
    assert chosen < 5
    assert steps(both, features, SpatialOptions()) == chosen
    order = rng.permutation(600)
    assert steps(both.select(order), features[order], SpatialOptions()) == chosen
    assert steps(one, waves, SpatialOptions(smoothing=10.0)) == 10
    assert steps(one, waves, SpatialOptions(smoothing_length=0.1)) is None
