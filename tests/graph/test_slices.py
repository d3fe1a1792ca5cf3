import numpy as np
import pandas as pd

from scrcl.graph.slices import find_cells, majority, overlap

from ..helpers import slices_of


def test_majority():
    points = np.arange(7.0)[:, None] * [1, 0]
    labels = np.array([0, 0, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(majority(labels, slices_of(points), 2), [0, 0, 0, 0, 0, 1, 1])
    # The same points in two slices: a slice with other labels does not count.
    both = slices_of(np.vstack([points, points]), np.repeat([0, 1], 7))
    found = majority(np.concatenate([labels, np.full(7, 2)]), both, 2)
    np.testing.assert_array_equal(found, [0, 0, 0, 0, 0, 1, 1, *[2] * 7])
    np.testing.assert_array_equal(majority(labels, slices_of(points), 50), np.zeros(7))  # all others
    tie = majority(np.array([0, 1]), slices_of(points[:2]), 50)
    np.testing.assert_array_equal(tie, [0, 1])


def test_cells_are_found_again():
    rng = np.random.default_rng(0)
    points, features = rng.uniform(size=(30, 2)), rng.normal(size=(30, 4))
    points[1] = points[0]
    known = slices_of(points, np.repeat(["a", "b"], 15))
    order = rng.permutation(30)
    found = find_cells(slices_of(points[order].astype(np.float32)), features[order], known, features)
    np.testing.assert_array_equal(found, order)
    moved, changed = points + 1e-3, features + 0.1
    assert (find_cells(slices_of(moved), features, known, features) == -1).all()
    assert (find_cells(slices_of(points), changed, known, features) == -1).all()


def test_of_cells_that_are_the_same_the_one_with_the_same_name_is_found():
    points, features = np.zeros((3, 2)), np.ones((3, 4))
    slices, known_names = slices_of(points), pd.Index(["a", "b", "c"])
    found = find_cells(slices, features, slices, features, pd.Index(["c", "x", "a"]), known_names)
    np.testing.assert_array_equal(found, [2, 0, 0])
    moved = slices_of(points + 1)
    assert (find_cells(moved, features, slices, features, known_names, known_names) == -1).all()


def test_overlap_of_groups():
    """Groups at random are as near to each other as expected, and groups beside each other touch at their border only."""
    points = np.random.default_rng(0).uniform(size=(2000, 2))
    groups = np.random.default_rng(1).choice(3, 2000, p=[0.6, 0.3, 0.1])
    assert 0.9 < overlap(points, groups) < 1.1
    assert overlap(points, (points[:, 0] > 0.5).astype(int)) < 0.1
    assert overlap(points[:4], np.array([0, 0, 0, -1])) == 0
    # Two cells of each group at four places: half of the expected neighbours would be of others, but the nearest are not.
    pairs = np.repeat(np.array([[0.0, 0], [0, 9], [9, 0], [9, 9]]), 2, axis=0) + np.tile([[0, 0], [0, 1]], (4, 1))
    assert overlap(pairs, np.repeat([0, 1, 0, 1], 2)) == 0
