import pickle

import numpy as np
import pandas as pd
import pytest

from scrcl.cluster.consensus import Ensemble
from scrcl.cluster.number import NumberOfClusters, choose_number, count_votes, estimate_number
from scrcl.cluster.tree import MAX_CONNECTIVITY, NestedClusters
from scrcl.graph.adjacency import symmetric_adjacency
from scrcl.graph.neighbors import nearest_neighbors

from .test_consensus import build


def blobs(n_types: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(n_types), 60)
    return (np.eye(n_types + 3)[truth] * 8 + rng.normal(size=(len(truth), n_types + 3))).astype(np.float32)


def trees(points: np.ndarray) -> tuple[NestedClusters, Ensemble]:
    ensemble = build(points, [points], [points], 0, max_groups=500)
    graph = symmetric_adjacency(nearest_neighbors(points, 15).to_sparse())
    return NestedClusters.build(*ensemble.leaves(), graph), ensemble


@pytest.mark.parametrize("n_types", [2, 5, 9])
def test_the_number_of_clear_types_is_found(n_types):
    tree, ensemble = trees(blobs(n_types))
    estimate = estimate_number(tree, lambda: ensemble)
    assert estimate.best == n_types
    assert estimate.curve.loc[n_types, "agreement"] > 0.95
    # The next two to be joined are unrelated, where one more cluster would divide a type.
    assert estimate.curve.loc[n_types, "distance"] > 0.9
    assert estimate.curve.loc[n_types + 1, "distance"] < 0.5
    assert (
        estimate.curve.loc[n_types, "connectivity"] < MAX_CONNECTIVITY < estimate.curve.loc[n_types + 1, "connectivity"]
    )


def test_one_population_is_one_cluster():
    points = np.random.default_rng(0).normal(size=(300, 10)).astype(np.float32)
    tree, ensemble = trees(points)
    assert estimate_number(tree, lambda: ensemble).best == 1


def test_the_curve_is_the_least_connectivity_that_gives_a_number():
    tree, ensemble = trees(np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32))
    curve = estimate_number(tree, lambda: ensemble).curve
    for number, limit in zip(curve.index.tolist(), curve["connectivity"], strict=True):
        assert tree.made(tree.connectivity <= limit).sum() + 1 >= number
        assert number == 1 or tree.made(tree.connectivity < limit).sum() + 1 < number


def test_the_estimate_in_space_is_the_median_of_the_votes():
    points = blobs(4), blobs(2), np.random.default_rng(1).normal(size=(240, 3)).astype(np.float32)
    votes = count_votes(points, 0)
    assert votes[:2] == [4, 2]
    tree, ensemble = trees(points[0])
    estimate = estimate_number(tree, lambda: ensemble, votes)
    assert estimate.best == sorted(votes)[1]
    assert set(estimate.runner_ups) == set(votes) - {estimate.best}
    distances = [abs(number - estimate.best) for number in estimate.runner_ups]
    assert distances == sorted(distances)


@pytest.mark.parametrize(
    ("votes", "number"), [([1, 1, 2, 1, 3], 1), ([1, 4, 4, 7, 9], 4), ([1], 1), ([1, 1, 2, 2], 1), ([2, 7], 4)]
)
def test_the_middle_vote_decides(votes, number):
    assert choose_number(votes) == number


def test_the_curve_is_found_once_when_it_is_first_read():
    tree, ensemble = trees(blobs(3))
    asked = []

    def count() -> Ensemble:
        asked.append(1)
        return ensemble

    estimate = estimate_number(tree, count)
    assert (estimate.best, asked) == (3, [])
    again = pickle.loads(pickle.dumps(estimate))
    pd.testing.assert_frame_equal(again.curve, estimate.curve)
    assert asked == [1]
    assert again == estimate


def test_what_is_shown_computes_nothing():
    def fail():
        raise AssertionError("the curve takes long")

    estimate = NumberOfClusters(3, [4, 2], fail)
    lines = repr(estimate).splitlines()
    assert lines[0] == "NumberOfClusters: 3 (4, 2 nearly as well supported)"
    assert [line.split() for line in lines[-3:]] == [["2", "nearly"], ["3", "yes"], ["4", "nearly"]]
    assert "<table" in estimate._repr_html_()


def test_the_curve_is_shown_once_it_is_there():
    curve = pd.DataFrame({"connectivity": [0.0, 0.1, 0.3]}, index=pd.RangeIndex(1, 4, name="n_clusters"))
    estimate = NumberOfClusters(3, [], lambda: curve)
    assert "0.30" not in repr(estimate)
    assert estimate.curve is curve
    assert "0.30" in repr(estimate)
