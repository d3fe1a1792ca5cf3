import numpy as np

from scrcl.graph.placement import Placement


def test_new_cells_are_numbered_in_their_order():
    placement = Placement(np.array([4, -1, -1, 0, -1]), np.zeros((3, 2)), None, np.ones((3, 1)))
    np.testing.assert_array_equal(placement.new, [-1, 0, 1, -1, 2])
    assert len({placement, Placement(np.array([0]), np.zeros((0, 2)), None, np.ones((0, 1)))}) == 2
