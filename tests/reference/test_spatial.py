import numpy as np

from scrcl.graph.neighborhoods import azimuthal_gradient, neighbor_weights, with_surroundings
from scrcl.graph.slices import find_cells
from scrcl.graph.smoothing import smooth
from scrcl.graph.spatial import SpatialOptions, spatial_graph
from scrcl.reference.spatial import SpatialReference

from ..helpers import slices_of


def test_tissue_smooths_what_varies_finds_cells_and_is_kept():
    rng = np.random.default_rng(0)
    slices = slices_of(rng.uniform(size=(30, 2)))
    features = rng.normal(size=(30, 4)).astype(np.float32)
    tissue = SpatialReference(slices, features, np.array([True, False, True, True]), SpatialOptions())
    graph = spatial_graph(slices, "knn", 4)
    expected = smooth(graph, features[:, [0, 2, 3]], tissue.options.smoothing)
    np.testing.assert_array_equal(tissue.smooth(graph, features), expected)
    order = rng.permutation(30)
    np.testing.assert_array_equal(find_cells(slices.select(order), features[order], slices, features), order)
    again = SpatialReference.from_dict(tissue.to_dict())
    assert again.options == tissue.options
    np.testing.assert_array_equal(again.smooth(graph, features), expected)


def test_views_of_domains():
    rng = np.random.default_rng(1)
    slices = slices_of(rng.uniform(size=(60, 2)))
    features = rng.normal(size=(60, 3)).astype(np.float32)
    tissue = SpatialReference(slices, features, np.ones(3, dtype=bool), SpatialOptions())
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
    near, far = neighbor_weights(slices, 15).toarray(), neighbor_weights(slices, 30)
    gradient = azimuthal_gradient(slices, far, features)
    np.testing.assert_allclose(
        views[3], with_surroundings(features[cells], near[cells] @ features, gradient[cells]), rtol=1e-4
    )
