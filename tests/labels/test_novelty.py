import numpy as np
import pytest

from scrcl.labels.novelty import (
    MIN_NEW_CELLS,
    N_NEAREST,
    _few_labelled,
    distance_to_labelled,
    find_new,
    upper_quantile,
)


def blobs(sizes, spread=1.0, seed=0):
    """Round blobs far apart, and the blob of each point."""
    rng = np.random.default_rng(seed)
    kind = np.repeat(np.arange(len(sizes)), sizes)
    return (10 * np.eye(len(sizes), 6)[kind] + spread * rng.normal(size=(len(kind), 6))).astype(np.float32), kind


def some(kind, each, without=(), seed=0):
    """Labels of some points of each blob."""
    rng = np.random.default_rng(seed)
    codes = np.full(len(kind), -1)
    for k in np.unique(kind):
        if k not in without:
            codes[rng.permutation(np.flatnonzero(kind == k))[:each]] = k
    return codes


def test_distance_against_all_pairs():
    points, kind = blobs([20, 15])
    labelled = some(kind, 6) >= 0
    apart = np.linalg.norm(points[:, None] - points[None, labelled], axis=2)
    for i in range(len(points)):
        own = np.sort(apart[i])
        own = own[1:] if labelled[i] else own
        assert distance_to_labelled(points, labelled)[i] == pytest.approx(own[:N_NEAREST].mean(), abs=1e-4)


def test_few_labelled_points():
    points, _ = blobs([10])
    one = np.arange(10) == 4
    found = distance_to_labelled(points, one)
    assert found[4] == np.inf
    np.testing.assert_allclose(found[~one], np.linalg.norm(points[~one] - points[4], axis=1), atol=1e-4)


def test_the_quantile_is_conformal():
    """A further value exceeds it as often as it should, and none does where the values are too few to tell."""
    rng = np.random.default_rng(0)
    exceeded = []
    for _ in range(3000):
        values = rng.normal(size=40)
        exceeded.append(values[0] > upper_quantile(values[1:], np.ones(39), 0.05))
    assert np.mean(exceeded) == pytest.approx(0.05, abs=0.015)
    assert upper_quantile(np.arange(10.0), np.ones(10), 0.05) == np.inf
    assert upper_quantile(np.arange(4.0), np.array([1.0, 1, 1, 9]), 0.5) == 3


@pytest.mark.parametrize("held", [0, 2])
def test_a_blob_without_labels_is_new(held):
    points, kind = blobs([120, 90, 60])
    codes = some(kind, 20, without=(held,))
    predicted = np.where(kind == held, (held + 1) % 3, kind)
    found = find_new(points, codes, predicted, 0)
    assert (found[kind == held] == 0).all()
    assert (found[kind != held] == -1).all()


def test_two_blobs_without_labels_are_two_types():
    points, kind = blobs([100, 100, 40, 70])
    found = find_new(points, some(kind, 20, without=(2, 3)), np.minimum(kind, 1), 0)
    assert set(found[kind == 3]) == {0}  # the larger one first
    assert set(found[kind == 2]) == {1}


def test_few_cells_and_stragglers_are_no_type():
    points, kind = blobs([150, 150, MIN_NEW_CELLS - 1])
    assert (find_new(points, some(kind, 20, without=(2,)), np.minimum(kind, 1), 0) == -1).all()
    points, kind = blobs([150, 150])
    points[:12] *= np.linspace(3, 8, 12)[:, None].astype(np.float32)
    assert (find_new(points, some(kind, 20), kind, 0) == -1).all()


def test_too_few_labels_to_tell():
    points, kind = blobs([60, 60, 60])
    assert (find_new(points, some(kind, 1, without=(2,)), np.minimum(kind, 1), 0) == -1).all()
    assert (find_new(points, np.where(np.arange(180) == 5, 0, -1), np.zeros(180, int), 0) == -1).all()


def test_a_part_of_a_type_that_no_label_hit_by_chance_is_not_new():
    """A lobe of a type has none of few labelled cells: at one labelled cell of 50, less than one is to be expected there."""
    points, kind = blobs([540, 40, 600])
    codes = some(kind, 10, without=(1,))
    predicted = np.where(kind == 2, 2, 0)
    assert (find_new(points, codes, predicted, 0) == -1).all()
    codes = some(kind, 100, without=(1,))  # now one expects seven
    np.testing.assert_array_equal(find_new(points, codes, predicted, 0) == 0, kind == 1)


def test_few_labelled_by_hand():
    """Of 20 cells at a rate of one half, none, one and nine are labelled; 8 cells are too few; 20 at a rate of 0.1."""
    groups = np.repeat([0, 1, 2, 3, 4], [20, 20, 20, 8, 20])
    labelled = np.zeros(88, dtype=bool)
    labelled[[25, *range(40, 49)]] = True
    rate = np.where(groups == 4, 0.1, 0.5)
    found = _few_labelled(groups, labelled, rate, np.full(88, 0.6), np.ones(88, bool))
    np.testing.assert_array_equal(found, np.repeat([0, 1, -1, -1, -1], [20, 20, 20, 8, 20]))
    apart = _few_labelled(groups, labelled, rate, np.full(88, 0.95), np.ones(88, bool))
    np.testing.assert_array_equal(apart, np.repeat([0, 1, -1, -1, 2], [20, 20, 20, 8, 20]))


def test_a_batch_without_labels_is_evidence_only_apart():
    """Of 20 cells at a rate of one half none is labelled, as all are of a batch without labels."""
    groups, unlabelled, rate = np.zeros(20, dtype=int), np.zeros(20, dtype=bool), np.full(20, 0.5)
    assert (_few_labelled(groups, unlabelled, rate, np.full(20, 0.6), np.zeros(20, bool)) == -1).all()
    assert (_few_labelled(groups, unlabelled, rate, np.full(20, 0.95), np.zeros(20, bool)) == 0).all()
    assert (
        _few_labelled(groups, unlabelled, rate, np.full(20, 0.6), np.arange(20) < 10) == 0
    ).all()  # five are expected


def test_what_is_far_in_a_batch_without_labels():
    """A type of the second batch that lies apart is new there; cells that its effect draws away from the labels are not."""
    points, kind = blobs([150, 150, 60])
    batch = np.where(kind == 2, 1, np.arange(360) % 2)
    codes = np.where(batch == 0, kind, -1)
    found = find_new(points, codes, np.minimum(kind, 1), 0, batch)
    np.testing.assert_array_equal(found == 0, kind == 2)
