import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA

from scrcl.data.counts import Counts
from scrcl.reference import features
from scrcl.reference.features import CountFeatures, Moments, variable_genes
from scrcl.reference.modality_kinds import Rna
from scrcl.reference.normalizations import Values, log_normalize, pearson_residuals
from scrcl.utils.files import from_state, to_state

from ..helpers import build, real_data, simulate


@pytest.fixture
def counts() -> sp.csr_array:
    return sp.csr_array(simulate(90, 60).X)


def totals_of(counts: sp.csr_array) -> np.ndarray:
    return counts.sum(axis=1).astype(np.float64)


def choose(counts: sp.csr_array, n_top_genes: int) -> np.ndarray:
    wrapped = Counts.of(counts, "counts")
    return variable_genes(wrapped, Moments.by_batch(wrapped, np.zeros(wrapped.n_cells, dtype=int)), n_top_genes)


def test_log_normalize_against_scanpy(counts):
    import scanpy as sc
    from anndata import AnnData

    reference = AnnData(counts.toarray().astype(np.float64))
    sc.pp.normalize_total(reference, target_sum=500)
    sc.pp.log1p(reference)
    np.testing.assert_allclose(log_normalize(counts.toarray(), totals_of(counts), 500), reference.X, rtol=1e-6)


def test_pearson_residuals_against_scanpy(counts):
    import scanpy as sc
    from anndata import AnnData

    reference = AnnData(counts.toarray().astype(np.float64))
    sc.experimental.pp.normalize_pearson_residuals(reference, theta=100)
    totals = totals_of(counts)
    fractions = counts.sum(axis=0) / totals.sum()
    ours = pearson_residuals(counts.toarray().astype(np.float64), totals[:, None] * fractions, np.sqrt(len(totals)))
    np.testing.assert_allclose(ours, reference.X, rtol=1e-5, atol=1e-6)


def test_variable_genes_against_scanpy():
    """The genes of the seurat_v3 flavour, up to what a lowess curve differs from a loess curve."""
    import scanpy as sc

    adata = simulate(300, 500, seed=1)
    sc.pp.highly_variable_genes(adata, flavor="seurat_v3", n_top_genes=100)
    ours = choose(sp.csr_array(adata.X), 100)
    assert len(np.intersect1d(ours, np.flatnonzero(adata.var["highly_variable"]))) >= 95


def test_standardised_variance_against_the_formula(counts, monkeypatch):
    """With the same curve, the order of genes is that of the clipped and standardised counts."""
    monkeypatch.setattr(features, "_trend", lambda x, y: 1.2 * x + 0.1)
    dense = counts.toarray().astype(np.float64)
    mean = dense.mean(0)
    spread = np.sqrt(10 ** (1.2 * np.log10(mean) + 0.1))
    standardized = np.minimum((dense - mean) / spread, np.sqrt(len(dense)))
    score = (standardized**2).sum(0) / (len(dense) - 1)
    np.testing.assert_array_equal(choose(counts, 12), np.sort(np.argsort(-score)[:12]))


@pytest.mark.slow
def test_variable_genes_where_loess_is_singular():
    """Sparse real data on which scanpy fails."""
    import anndata as ad

    counts = sp.csr_array(ad.read_h5ad(real_data("zheng_pbmc500.h5ad")).X)
    assert len(choose(counts, 2000)) == 2000


def test_variable_genes_keeps_no_constant_gene(counts):
    padded = sp.hstack([counts, sp.csr_array((counts.shape[0], 10))], format="csr")
    kept = choose(padded, 1000)
    assert kept.max() < counts.shape[1]


def test_variable_genes_without_variation():
    with pytest.raises(ValueError, match="no variable genes"):
        choose(sp.csr_array(np.ones((20, 5))), 10)


@pytest.mark.parametrize("n_components", [1, 8, 200])
def test_projections_are_principal_components(counts, n_components):
    """Scores and explained variances equal those of scikit-learn, and are scaled to unit root mean square norm."""
    totals = totals_of(counts)
    fitted = CountFeatures.fit(counts, totals, n_components)
    values = log_normalize(counts.toarray().astype(np.float64), totals, fitted.target)
    pca = PCA(min(n_components, *(np.array(counts.shape) - [1, 0])), svd_solver="full").fit(values)
    kept = fitted.projections["log"].loadings.shape[1]
    scores = fitted.projections["log"](values)
    expected = pca.transform(values)[:, :kept]
    signs = np.sign((scores * expected).sum(0))
    np.testing.assert_allclose(scores, expected * signs * fitted.projections["log"].scale, atol=1e-6)
    np.testing.assert_allclose(fitted.projections["log"].singular_values ** 2, (expected**2).mean(0), rtol=1e-6)
    assert (scores**2).sum(1).mean() == pytest.approx(1)


@pytest.mark.parametrize("cost", [0, 1e12], ids=["iterations", "matrix"])
@pytest.mark.parametrize("shape", [(1300, 700), (700, 1300)])
def test_components_of_many_genes_are_exact(monkeypatch, shape, cost):
    """Those of all eigenvectors of the covariance, with their signs, from matrices of genes, of cells, or of neither."""
    monkeypatch.setattr(features, "COST_OF_ENTRY", cost)
    n, n_genes = shape
    rng = np.random.default_rng(0)
    rates = np.exp(rng.normal(size=(n, 6)) @ rng.normal(size=(6, n_genes)) / 3)
    values = sp.csr_array(rng.poisson(rates).astype(float))
    level = rng.uniform(1, 2, (n, 1))
    weights, rows = sp.csr_array(level), rng.normal(size=(1, n_genes))
    dense = values.toarray() + level @ rows
    mean, covariance = dense.mean(0), np.cov(dense.T, bias=True)
    variances, loadings = (x[..., ::-1][..., :20] for x in np.linalg.eigh(covariance))
    loadings = loadings * np.sign(loadings[np.abs(loadings).argmax(0), np.arange(20)])
    centered = Values(values, weights, rows).center(mean)
    found = [features.components_of_values(mean, centered, 20), features.principal_components(mean, covariance, 20)]
    for projection in found:
        np.testing.assert_allclose(projection.singular_values**2, variances, rtol=1e-6)
        assert np.linalg.svd(projection.loadings.T @ loadings)[1].min() > 1 - 1e-6
        np.testing.assert_allclose(projection.loadings, loadings, atol=2e-4)
    again = features.components_of_values(mean, centered, 20)
    np.testing.assert_array_equal(found[0].loadings, again.loadings)


def test_features_are_the_components_of_each_normalization(counts):
    """Every part of the features, against scikit-learn on a normalisation written out here."""
    totals = totals_of(counts)
    dense = counts.toarray().astype(np.float64)
    log = np.log1p(dense / totals[:, None] * np.median(totals))
    mean = totals[:, None] * dense.sum(0) / dense.sum()
    residuals = np.clip((dense - mean) / np.sqrt(mean + mean**2 / 100), -np.sqrt(90), np.sqrt(90))
    fitted_log = log / log.sum(1, keepdims=True)
    expected = {
        "log": log,
        "pearson": residuals,
        "standardized_log": fitted_log / fitted_log.std(0),
        "signed_log_residuals": np.sign(residuals) * np.log(1 + np.abs(residuals)),
    }
    fitted = CountFeatures.fit(counts, totals, 5)
    features = fitted.transform(counts, totals)
    assert list(fitted.projections) == list(expected)
    for part, values in zip(fitted.parts.values(), expected.values(), strict=True):
        scores = PCA(5, svd_solver="full").fit_transform(values)
        scores /= np.sqrt((scores**2).sum(1).mean())
        found = features[:, part]
        np.testing.assert_allclose(found, scores * np.sign((scores * found).sum(0)), atol=1e-4)


def test_the_stabilised_normalizations_at_unit_length(counts):
    totals = totals_of(counts)
    fitted = CountFeatures.fit(counts, totals, 4)
    features = fitted.transform(counts, totals)
    expected = features[:, 8:] / np.linalg.norm(features[:, 8:], axis=1, keepdims=True)
    rna = Rna(pd.Index(map(str, range(counts.shape[1]))), np.arange(counts.shape[1]), fitted)
    np.testing.assert_allclose(rna.neighbor_features(features), expected, rtol=1e-5)


def test_transform_does_not_depend_on_the_other_cells(counts, monkeypatch):
    totals = totals_of(counts)
    fitted = CountFeatures.fit(counts, totals, 6)
    together = fitted.transform(counts, totals)
    alone = np.concatenate([fitted.transform(counts[[i]], totals[[i]]) for i in range(len(totals))])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    monkeypatch.setattr(features, "PRODUCT_ENTRIES", 7 * counts.shape[1])
    np.testing.assert_allclose(fitted.transform(counts, totals), together, atol=1e-5)
    blockwise = CountFeatures.fit(counts, totals, 6).transform(counts, totals)
    np.testing.assert_allclose(blockwise, together, atol=1e-4)


def test_gene_features_are_the_projection_of_genes_on_left_singular_vectors(counts):
    totals = totals_of(counts)
    fitted = CountFeatures.fit(counts, totals, 5)
    values = log_normalize(counts.toarray(), totals, fitted.target)
    centred = values - values.mean(0)
    left = np.linalg.svd(centred, full_matrices=False)[0][:, :5]
    expected = centred.T @ left
    expected *= np.sqrt(5) / np.linalg.norm(expected, axis=1, keepdims=True)
    signs = np.sign((expected * fitted.gene_features).sum(0))
    np.testing.assert_allclose(fitted.gene_features, expected * signs, atol=1e-5)


def test_round_trip(counts):
    totals = totals_of(counts)
    fitted = CountFeatures.fit(counts, totals, 4)
    again = from_state(CountFeatures, to_state(fitted))
    np.testing.assert_array_equal(again.transform(counts, totals), fitted.transform(counts, totals))


def test_components_of_a_sample_are_those_of_all(monkeypatch):
    """Where components are found on some cells, the clusters stay the same."""
    adata = simulate(400)
    expected = build(adata.copy(), epochs=20).get_clusters(n_clusters=3)
    monkeypatch.setattr("scrcl.utils.sizes.SAMPLE_CELLS", 200)
    found = build(adata, epochs=20).get_clusters(n_clusters=3)
    from sklearn.metrics import adjusted_rand_score

    assert adjusted_rand_score(expected, found) > 0.95
