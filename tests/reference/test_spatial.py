import numpy as np

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
