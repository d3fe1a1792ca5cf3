"""What is taken out of the features of batches."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scrcl.data.counts import Counts
from scrcl.reference.batches import Batches, check_sizes, find_shifts
from scrcl.reference.features import PRIOR_CELLS, CountFeatures, Moments, variable_genes
from scrcl.reference.modality_kinds import Embedding


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    return sp.csr_array(rng.poisson(rng.gamma(1, 2, 60), size=(200, 60)).astype(np.float32) + 0)


@pytest.fixture
def batches():
    return np.random.default_rng(1).permutation(np.repeat([0, 1], [120, 80]))


def test_moments_of_each_batch(counts, batches):
    found = Moments.by_batch(Counts.of(counts, "X"), batches)
    for number, moments in enumerate(found):
        own = counts.toarray()[batches == number].astype(np.float64)
        np.testing.assert_allclose(moments.mean, own.mean(0))
        np.testing.assert_allclose(moments.variance, own.var(0, ddof=1))
        np.testing.assert_allclose(moments.totals, own.sum(1))


def test_genes_that_differ_between_batches_only_are_not_chosen(batches):
    rng = np.random.default_rng(0)
    types = rng.integers(2, size=200)
    rates = np.tile(rng.lognormal(1.5, 1, 300), (200, 1))
    rates[:, :10] *= np.where(types, 4, 1)[:, None]
    rates[:, 10:20] *= np.where(batches, 6, 1)[:, None]
    counts = Counts.of(sp.csr_array(rng.poisson(rates).astype(np.float32)), "X")
    pooled = variable_genes(counts, Moments.by_batch(counts, np.zeros(counts.n_cells, dtype=int)), 20)
    assert np.isin(np.arange(10, 20), pooled).sum() > 5
    chosen = variable_genes(counts, Moments.by_batch(counts, batches), 20, batches)
    assert np.isin(np.arange(10), chosen).sum() > 5
    assert np.isin(np.arange(10, 20), chosen).sum() < 3


def test_what_a_batch_compares_with(counts):
    dense, totals = counts.toarray().astype(np.float64), np.asarray(counts.sum(axis=1), dtype=np.float64)
    fitted = CountFeatures.fit(counts, totals, 5)
    found = fitted.adaptation(counts[:50], totals[:50])
    fraction = dense[:50].sum(0) / totals[:50].sum()
    np.testing.assert_allclose(
        found["fractions"], (50 * fraction + PRIOR_CELLS * fitted.fractions) / (50 + PRIOR_CELLS)
    )
    logs = np.log1p(dense[:50] * fitted.target / totals[:50, None])
    variance = (logs / logs.mean(1, keepdims=True)).var(0)
    expected = np.sqrt((50 * variance + PRIOR_CELLS * fitted.deviations**2) / (50 + PRIOR_CELLS))
    np.testing.assert_allclose(found["deviations"], expected, rtol=1e-5)


def test_batches_that_see_genes_differently_get_the_same_features():
    rng = np.random.default_rng(0)
    rates = rng.gamma(2, 4, 80)
    types = rng.integers(2, size=400)
    rates = rates * np.where(types[:, None] & (np.arange(80) < 30), 4, 1)
    bias = rng.lognormal(0, 0.7, 80)
    batches = np.repeat([0, 1], 200)
    counts = sp.csr_array(rng.poisson(np.where(batches[:, None] == 1, rates * bias, rates)).astype(np.float32))
    totals = counts.sum(axis=1).astype(np.float64)

    def apart(features):
        """Distance of batches relative to that of types."""
        mean = {(b, t): features[(batches == b) & (types == t)].mean(0) for b in (0, 1) for t in (0, 1)}
        between = np.linalg.norm(mean[0, 0] - mean[1, 0]) + np.linalg.norm(mean[0, 1] - mean[1, 1])
        return between / (np.linalg.norm(mean[0, 0] - mean[0, 1]) + np.linalg.norm(mean[1, 0] - mean[1, 1]))

    plain = CountFeatures.fit(counts, totals, 5).transform(counts, totals)
    fitted = CountFeatures.fit(counts, totals, 5, batches)
    own = [batches == number for number in (0, 1)]
    adapted = np.concatenate(
        [replace(fitted, **fitted.adaptation(counts[b], totals[b])).transform(counts[b], totals[b]) for b in own]
    )
    assert apart(adapted) < 0.5 * apart(plain)


#: Distances are those of the features.
euclidean = Embedding(pd.Index([]), np.arange(6), np.zeros(6), 1.0, cosine=False)


def test_shifts_follow_counterparts_and_not_means():
    rng = np.random.default_rng(0)
    means = 12 * np.eye(3, 6)
    shift = np.array([0, 0, 0, 3.0, 0, 0])
    types = [np.repeat([0, 1, 2], [50, 50, 50]), np.repeat([0, 1, 2], [10, 10, 130])]
    first, second = (means[kind] + rng.normal(size=(150, 6)) for kind in types)
    features = np.concatenate([first, second + shift]).astype(np.float32)
    batches = np.repeat([0, 1], 150)
    shifts = find_shifts(features, batches, euclidean)
    by_means = features[150:].mean(0) - features[:150].mean(0)
    assert np.linalg.norm(by_means - shift) > 5
    assert np.linalg.norm(shifts[1] - shifts[0] - shift) < 1
    np.testing.assert_allclose((features - shifts[batches]).mean(0), 0, atol=1e-5)


def test_codes_of_names():
    batches = Batches(("b", "c", "a"), np.array([0, 1, 0]), {}, {}, {}, {}, {})
    assert batches.codes_of(np.array(["a", "c", "z", "b", "0"])).tolist() == [2, 1, -1, 0, -1]


def test_batches_of_too_few_cells():
    check_sizes(np.repeat(["a", "b"], 10), "A batch")
    with pytest.raises(ValueError, match=r"has batches of fewer than 10 cells: 'b' \(9\)"):
        check_sizes(np.repeat(["a", "b"], [10, 9]), "A batch")
