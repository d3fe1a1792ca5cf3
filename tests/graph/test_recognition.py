import numpy as np
import pandas as pd
import pytest

from scrcl.graph.recognition import Recognition

N = 400


def leading_repeat(rng):
    """The first eight features take eight values in all."""
    return np.concatenate([np.eye(8)[np.arange(N) % 8], rng.normal(size=(N, 12))], 1)


def one_dominates(rng):
    """One feature is a million times as large as what tells cells apart."""
    return np.concatenate([np.full((N, 1), 1e3), rng.normal(size=(N, 5))], 1)


def clustered(rng):
    """Cells of ten profiles that differ by a hundredth."""
    return rng.normal(size=(10, 30))[np.arange(N) % 10] + 0.01 * rng.normal(size=(N, 30))


def single(rng):
    return rng.normal(size=(N, 1))


def one_hot(rng):
    return np.eye(N)


KINDS = [leading_repeat, one_dominates, clustered, single, one_hot]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_found_in_any_order_and_up_to_rounding(kind, named):
    rng = np.random.default_rng(0)
    features = kind(rng).astype(np.float32)
    names = pd.Index([f"c{i}" for i in range(N)])
    order = rng.permutation(N)[:300]
    found = Recognition(features, names if named else None)
    np.testing.assert_array_equal(found(features[order], names[order]), order)
    rounded = (features[order] * (1 + 1e-7 * rng.normal(size=(300, features.shape[1])))).astype(np.float32)
    recognised = found(rounded, names[order] if named else names[:300])
    if named or kind is not one_dominates:  # whose cells differ by no more than rounding may
        np.testing.assert_array_equal(recognised, order)


def test_a_name_alone_is_not_enough_and_of_equal_cells_the_named_one_is_found():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 5)).astype(np.float32)
    features[9] = features[4]
    names = pd.Index([f"c{i}" for i in range(50)])
    found = Recognition(features, names)
    np.testing.assert_array_equal(
        found(features[::-1], names), np.where(np.arange(50) % 50 == 40, 4, 49 - np.arange(50))
    )
    np.testing.assert_array_equal(found(features[[4, 9]], names[[4, 9]]), [4, 9])
    assert (found(features + 0.01, names) == -1).all()
    assert len(found(features[:0], names[:0])) == 0


def test_names_that_occur_again():
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(5, 3)), 2, axis=0).astype(np.float32)
    names = pd.Index(np.repeat(list("abcde"), 2))
    np.testing.assert_array_equal(Recognition(features, names)(features, names), np.arange(10))
