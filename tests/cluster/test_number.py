import pickle

import numpy as np
import pandas as pd
import pytest

from scrcl.cluster.consensus import Ensemble
from scrcl.cluster.number import RESOLUTIONS, choose_number, count_votes, estimate_number

from .test_consensus import build


def blobs(n_types: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(n_types), 60)
    return (np.eye(n_types + 3)[truth] * 8 + rng.normal(size=(len(truth), n_types + 3))).astype(np.float32)


@pytest.mark.parametrize("n_types", [2, 5, 9])
def test_the_number_of_clear_types_is_found(n_types):
    points = blobs(n_types)
    estimate = estimate_number(count_votes([points, points], 0), lambda: build(points, [points], [points], 0))
    assert estimate.best == n_types
    assert estimate.curve.loc[n_types, "votes"] >= 3
    assert estimate.curve.loc[n_types, "agreement"] > 0.95
    # The next two to be joined are unrelated, where one more cluster would divide a type.
    assert estimate.curve.loc[n_types, "distance"] > 0.9
    assert estimate.curve.loc[n_types + 1, "distance"] < 0.5


def test_the_estimate_is_the_largest_of_the_votes():
    points = blobs(4), np.random.default_rng(1).normal(size=(240, 3)).astype(np.float32)
    votes = count_votes(points, 0)
    assert len(votes) == 2 * len(RESOLUTIONS)
    estimate = estimate_number(votes, lambda: build(points[0], points, [points[0]], 0))
    assert estimate.best == max(votes)
    assert set(estimate.runner_ups) == set(votes) - {estimate.best}
    distances = [abs(number - estimate.best) for number in estimate.runner_ups]
    assert distances == sorted(distances)
    assert estimate.curve["votes"].sum() == len(votes)


@pytest.mark.parametrize(("votes", "number"), [([1, 1, 2, 1, 3, 4], 1), ([1, 1, 2, 2, 3, 4], 4), ([1], 1), ([2, 7], 7)])
def test_there_is_one_cluster_where_half_of_the_votes_say_so(votes, number):
    assert choose_number(votes) == number


def test_the_curve_is_found_once_when_it_is_first_read():
    points = blobs(3)
    asked = []

    def ensemble() -> Ensemble:
        asked.append(1)
        return build(points, [points], [points], 0)

    estimate = estimate_number([3, 3, 2], ensemble)
    assert (estimate.best, estimate.runner_ups, asked) == (3, [2], [])
    again = pickle.loads(pickle.dumps(estimate))
    pd.testing.assert_frame_equal(again.curve, estimate.curve)
    assert asked == [1]
    assert again == estimate
