import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from scrcl.labels.logistic import STRENGTH, Logistic


def points(n_types: int):
    rng = np.random.default_rng(0)
    codes = rng.integers(n_types, size=120)
    return rng.normal(size=(120, 5)) + rng.normal(size=(n_types, 5))[codes], codes


@pytest.mark.parametrize("n_types", [2, 4])
def test_against_scikit_learn(n_types):
    x, codes = points(n_types)
    expected = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000).fit(x, codes)
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


def test_weights_are_relative_within_a_type():
    x, codes = points(3)
    weights = np.where(codes == 1, 10.0, 1.0)
    np.testing.assert_allclose(Logistic.fit(x, codes, 3, weights)(x), Logistic.fit(x, codes, 3)(x), atol=1e-6)
    half = np.arange(len(x)) % 2 == 0
    found = Logistic.fit(x, codes, 3, half.astype(float))(x)
    few = Logistic.fit(x[half], codes[half], 3)
    assert np.abs(found - few(x)).mean() < 0.05
