"""The sparse way of projecting counts against the dense formulas."""

import numpy as np
import pytest
import scipy.sparse as sp

from scrcl.reference import normalizations
from scrcl.reference.features import CountFeatures
from scrcl.reference.normalizations import Normalizer, Values, entry_slices, interpolation


def draw(n: int, n_genes: int, seed: int = 0) -> tuple[sp.csr_array, np.ndarray]:
    """Counts of cells of depths that differ 1000-fold, with a gene and a cell without any, and totals over more genes."""
    rng = np.random.default_rng(seed)
    depths, genes = 10 ** rng.uniform(0, 3, n), rng.gamma(0.3, size=n_genes)
    counts = rng.poisson(depths[:, None] * genes * np.exp(rng.normal(size=(n, n_genes))))
    counts[:, 3], counts[5] = 0, 0
    return sp.csr_array(counts.astype(np.float32)), counts.sum(1) + rng.integers(1, 50, n).astype(float)


def dense(fitted: CountFeatures, counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """All features, in double precision, by the definitions."""
    log = np.log(1 + counts * fitted.target / totals[:, None])
    relative = log / np.maximum(log.mean(1), 1e-12)[:, None]
    mean = totals[:, None] * fitted.fractions
    with np.errstate(invalid="ignore"):
        residuals = np.nan_to_num((counts - mean) / np.sqrt(mean + mean**2 / 100)).clip(-fitted.clip, fitted.clip)
    signed = np.sign(residuals) * np.log(1 + np.abs(residuals))
    values = (log, residuals, relative / fitted.deviations, signed)
    found = [(v - p.mean) @ p.loadings * p.scale for v, p in zip(values, fitted.projections.values(), strict=True)]
    return np.concatenate(found, 1)


@pytest.mark.parametrize("n", [40, 400], ids=["zeros clipped", "no zeros clipped"])
def test_projections_against_the_dense_formulas(n, monkeypatch):
    counts, totals = draw(n, 80)
    fitted = CountFeatures.fit(counts, totals, 10)
    new, new_totals = draw(300, 80, seed=1)
    expected = dense(fitted, new.toarray().astype(np.float64), new_totals)
    features = fitted.transform(new, new_totals)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=2e-6 * np.abs(expected).max())
    monkeypatch.setattr(normalizations, "ENTRIES", 1000)
    np.testing.assert_allclose(fitted.transform(new, new_totals), features, atol=1e-6 * np.abs(expected).max())


def test_slices_cover_all_rows_once():
    indptr = np.array([0, 0, normalizations.ENTRIES - 1, normalizations.ENTRIES + 5, normalizations.ENTRIES + 5])
    covered = np.concatenate([np.arange(4)[rows] for rows in entry_slices(indptr)])
    np.testing.assert_array_equal(covered, np.arange(4))
    assert [rows.stop - rows.start for rows in entry_slices(np.zeros(4, dtype=int))] == [3]
    assert not list(entry_slices(np.zeros(1, dtype=int)))


def test_interpolation_of_residuals_is_as_exact_as_float32():
    """Of zeros of genes from the rarest to one that has all counts, alone as among others."""

    def residuals(totals: np.ndarray) -> np.ndarray:
        mean = totals[:, None] * np.geomspace(1e-7, 1, 20)
        pearson = np.sqrt(mean) / np.sqrt(1 + mean / 100)
        return np.concatenate([pearson, np.log(1 + pearson)], 1)

    totals = np.concatenate([[1.0, float(np.exp(1))], np.random.default_rng(0).uniform(1, 1e6, 500)])

    def interpolate(totals: np.ndarray) -> np.ndarray:
        weights, knots = interpolation(totals)
        return weights @ residuals(knots)

    found = interpolate(totals)
    np.testing.assert_allclose(found, residuals(totals), rtol=6e-8)
    np.testing.assert_allclose(interpolate(totals[7:8]), found[7:8], rtol=1e-14)


@pytest.mark.parametrize("n_cells", [40, 150])
def test_values_are_those_of_the_dense_normalization(n_cells):
    """With fewer cells than 100, residuals of zeros are clipped, and not interpolated."""
    rng = np.random.default_rng(0)
    counts = sp.csr_array(rng.poisson(rng.gamma(0.5, 1, (n_cells, 30))))
    totals = counts.sum(axis=1) + 5.0
    normalizer = Normalizer(20.0, counts.sum(axis=0) / totals.sum(), rng.uniform(1, 2, 30), float(np.sqrt(n_cells)))
    expected = normalizer.normalize(counts.toarray().astype(float), totals)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(n_cells, 3))
    for name, values in normalizer.values(counts, totals).items():
        dense = expected[name]
        np.testing.assert_allclose(values.block(), dense, atol=1e-6)
        np.testing.assert_allclose(values.mean(), dense.mean(0), atol=1e-6)
        half = slice(n_cells // 2)
        both = Values.stack([Values(values.above[half], values.weights[half], values.rows), values])
        centered, dense = both.center(values.mean()), np.concatenate([dense[half], dense]) - dense.mean(0)
        np.testing.assert_allclose(centered.block(slice(3, 9), slice(2, 7)), dense[3:9, 2:7], atol=1e-6)
        np.testing.assert_allclose(centered @ x, dense @ x, atol=1e-5)
        y_both = np.concatenate([y[half], y])
        np.testing.assert_allclose(centered.transposed_product(y_both), dense.T @ y_both, atol=1e-5)
