import numpy as np
import pytest

from scrcl.labels.calibration import (
    DEFAULT_TEMPERATURE,
    find_temperature,
    folds,
    tempered,
)
from tests.helpers import calibration_error


def drawn(n=20_000, temperature=1.0):
    """Probabilities, and types drawn from what these are at a temperature."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.5, 0.5, 0.5], n)
    true = tempered(probabilities, temperature)
    codes = (rng.random(n)[:, None] > true.cumsum(1)).sum(1).clip(0, 2)
    return probabilities, codes


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found(temperature):
    probabilities, codes = drawn(temperature=temperature)
    found = find_temperature(probabilities, codes, np.ones(len(codes)))
    assert found == pytest.approx(temperature, rel=0.05)
    assert calibration_error(tempered(probabilities, found), codes) < 0.03


def test_cells_count_by_their_weights():
    probabilities, codes = drawn(temperature=2.5)
    other, other_codes = drawn(temperature=0.5)
    both, all_codes = np.concatenate([probabilities, other]), np.concatenate([codes, other_codes])
    weights = np.repeat([1.0, 0.0], len(codes))
    assert find_temperature(both, all_codes, weights) == pytest.approx(2.5, rel=0.05)


def test_probabilities_that_say_nothing_become_even():
    probabilities, _ = drawn(400)
    unrelated = np.random.default_rng(1).permutation(np.arange(400) % 3)
    found = find_temperature(probabilities, unrelated, np.ones(400))
    assert tempered(probabilities, found).max() < 0.45


def test_a_type_thought_impossible_does_no_harm():
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert np.isfinite(find_temperature(probabilities, np.array([1, 1]), np.ones(2)))
    assert find_temperature(np.empty((0, 2)), np.empty(0, int), np.empty(0)) == DEFAULT_TEMPERATURE


def test_tempered_by_hand():
    np.testing.assert_allclose(tempered(np.array([[0.8, 0.2]]), 0.5), [[16 / 17, 1 / 17]])
    np.testing.assert_allclose(tempered(np.array([[1.0, 0.0]]), 3.0), [[1.0, 0.0]])


def test_the_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.45, 0.55]])
    # Two at .9, of which half are right; one at .6, right; one at .55, wrong; each of the last two in a bin of its own.
    codes = np.array([0, 1, 1, 0])
    assert calibration_error(probabilities, codes, n_bins=20) == pytest.approx((0.8 + 0.4 + 0.55) / 4)


def test_folds_are_even_and_leave_something_of_each_type():
    codes = np.array([0] * 7 + [1] * 2 + [2])
    found = folds(codes, 3, 0)
    assert found[-1] == -1
    assert (found[:-1] >= 0).all()
    for code in (0, 1):
        sizes = np.bincount(found[codes == code], minlength=3)
        assert np.ptp(sizes) <= 1
    np.testing.assert_array_equal(found, folds(codes, 3, 0))
