import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from scrcl.labels import logistic
from scrcl.labels.logistic import INVERSE_PENALTY, Logistic


def points(n_types: int):
    rng = np.random.default_rng(0)
    codes = rng.integers(n_types, size=120)
    return rng.normal(size=(120, 5)) + rng.normal(size=(n_types, 5))[codes], codes


@pytest.mark.parametrize("n_types", [2, 4])
def test_against_scikit_learn(n_types):
    x, codes = points(n_types)
    expected = LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", max_iter=1000).fit(x, codes)
    found = Logistic.fit(x, codes, n_types)(x)
    np.testing.assert_allclose(found, expected.predict_proba(x), atol=0.01)
    np.testing.assert_allclose(found.sum(1), 1)


def test_a_type_without_points_is_impossible():
    x, codes = points(2)
    found = Logistic.fit(x, codes * 2, 4)(x)
    np.testing.assert_array_equal(found[:, [1, 3]], 0)
    np.testing.assert_allclose(found[:, [0, 2]], Logistic.fit(x, codes, 2)(x))


def test_a_single_type_is_certain():
    x, _ = points(2)
    np.testing.assert_array_equal(Logistic.fit(x, np.ones(len(x), int), 3)(x)[:, 1], 1)


def test_types_count_by_a_power_of_their_points():
    x, codes = points(3)
    sizes = np.bincount(codes)
    for power, weight in ((1.0, np.ones(120)), (0.5, 1 / np.sqrt(sizes)[codes])):
        weight = weight * 120 / weight.sum()
        expected = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000).fit(x, codes, sample_weight=weight)
        found = Logistic.fit(x, codes, 3, power)
        np.testing.assert_allclose(found(x), expected.predict_proba(x), atol=0.01)
        np.testing.assert_allclose(found.shares, sizes**power / (sizes**power).sum())


def test_shares_of_types(monkeypatch):
    """With full power, shares are those that maximise the likelihood of the points, found by brute force."""
    rng = np.random.default_rng(0)
    codes = (rng.random(4000) < 0.1).astype(int)
    x = (rng.normal(size=4000) + 2.5 * codes)[:, None]
    even = Logistic.fit(np.concatenate([x[codes == 0][:300], x[codes == 1][:300]]), np.repeat([0, 1], 300), 2)
    before, after = even(x), even.adapted(x)(x)
    assert after[:, 1].mean() < before[:, 1].mean()
    np.testing.assert_allclose(after.sum(1), 1)
    odds = np.log(after[:, 1] / after[:, 0]) - np.log(before[:, 1] / before[:, 0])
    np.testing.assert_allclose(odds, odds[0], atol=1e-6)  # all points alike
    monkeypatch.setattr(logistic, "SHARE_ITERATIONS", 300)
    full = even.adapted(x, 1.0)(x)[:, 1].mean()
    grid = np.linspace(0.01, 0.5, 200)
    best = grid[np.argmax([np.log(before @ [1 - share, share]).sum() for share in grid])]
    assert full == pytest.approx(best, abs=0.01)
    assert full == pytest.approx(0.1, abs=0.03)


def test_a_type_that_cannot_be_has_no_share():
    x, codes = points(2)
    np.testing.assert_array_equal(Logistic.fit(x, codes * 2, 3).adapted(x)(x)[:, 1], 0)


def test_shares_that_are_right_already_stay():
    x, codes = points(3)
    found = Logistic.fit(x, codes, 3, 1.0)
    np.testing.assert_allclose(found.adapted(x, 1.0)(x), found(x), atol=0.01)
