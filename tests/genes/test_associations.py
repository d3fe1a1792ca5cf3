"""Associations against scikit-learn, statsmodels, brute force and hand-worked cases."""

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
import scipy.sparse as sp
import statsmodels.api as sm
from scipy.stats import kstest
from sklearn.linear_model import Ridge

from scrcl.genes import associations
from scrcl.genes.associations import (
    RIDGE,
    GeneMap,
    Groups,
    contrast_weights,
    log_expression,
    marker_statistics,
    permutation_pvalues,
    standard_deviations,
)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    n, n_genes = 90, 14
    positions = rng.normal(size=(n, 5)).astype(np.float32)
    codes = np.repeat([0, 1, 2], [50, 30, 10])
    positions[:, 0] += codes
    counts = rng.poisson(np.exp(0.6 * positions[:, :1] * rng.normal(size=n_genes)))
    counts[:, -1] = 0  # a gene without counts
    totals = counts.sum(1) + 20.0
    expression = log_expression(sp.csr_array(counts.astype(np.float32)), totals, 30.0)
    return positions, expression, Groups(codes, 3), counts, totals


def standardized(expression: sp.csr_array) -> np.ndarray:
    dense = expression.toarray()
    deviation = dense.std(0)
    return np.divide(dense - dense.mean(0), deviation, out=np.zeros_like(dense), where=deviation > 0)


def test_log_expression_and_deviations(data):
    _, expression, _, counts, totals = data
    np.testing.assert_allclose(expression.toarray(), np.log1p(counts * 30 / totals[:, None]))
    np.testing.assert_allclose(standard_deviations(expression), expression.toarray().std(0))


class TestNearest:
    """The nearest of all maps that refine cells in the same way."""

    @pytest.fixture
    def parts(self, data):
        hidden, expression, *_ = data
        rng = np.random.default_rng(1)
        hidden, embedding = hidden.astype(np.float64) + 2, np.abs(rng.normal(size=(14, 3)))
        weight, bias = rng.normal(size=(5, 14)), rng.normal(size=14)
        found = GeneMap.nearest(hidden, expression, weight @ embedding, bias @ embedding, embedding)
        return hidden, expression, weight, bias, embedding, found

    def test_refined_positions_are_the_same(self, parts):
        """With an embedding in other coordinates and another bias, which a dense solution finds."""
        hidden, _, weight, bias, embedding, found = parts
        before = (hidden @ weight + bias) @ embedding
        change = np.linalg.lstsq(weight @ embedding, found.loadings @ embedding, rcond=None)[0]
        offset = ((found.center @ weight + bias) @ embedding) @ change @ np.linalg.pinv(embedding)
        after = (found(hidden) + offset) @ (embedding @ np.linalg.inv(change))
        np.testing.assert_allclose(after, before, atol=1e-8)

    def test_none_is_nearer(self, parts):
        """Of maps changed where the embedding does not look, and of embeddings in other coordinates."""
        hidden, expression, weight, bias, embedding, found = parts
        values, inverse = standardized(expression), np.linalg.pinv(embedding)
        regression = GeneMap.fit(hidden, expression).loadings
        refined = (hidden @ weight + bias) @ embedding

        def error(change, unseen):
            fitted = (hidden - found.center) @ (regression - regression @ embedding @ inverse + unseen)
            return ((fitted + refined @ change @ inverse - values) ** 2).sum()

        best = np.linalg.lstsq(refined, (hidden - found.center) @ regression @ embedding, rcond=None)[0]
        least = error(best, 0.0)
        offset = refined.mean(0) @ best @ inverse
        np.testing.assert_allclose(((found(hidden) + offset - values) ** 2).sum(), least)
        rng = np.random.default_rng(2)
        for _ in range(50):
            unseen = rng.normal(size=(5, 14)) * 0.1
            unseen -= unseen @ embedding @ inverse
            assert error(best + rng.normal(size=(3, 3)) * 0.1, 0.0) > least
            assert error(best, unseen) > least

    def test_a_network_that_predicts_expression_is_left_as_it_is(self, data):
        hidden, expression, *_ = data
        embedding = np.abs(np.random.default_rng(1).normal(size=(14, 3)))
        regression = GeneMap.fit(hidden, expression)
        weight, bias = regression.loadings, -regression.center @ regression.loadings
        found = GeneMap.nearest(hidden, expression, weight @ embedding, bias @ embedding, embedding)
        np.testing.assert_allclose(found.loadings, regression.loadings, atol=1e-8)


def test_gene_map_against_scikit_learn(data):
    positions, expression, *_ = data
    gene_map = GeneMap.fit(positions, expression)
    centred = positions - positions.mean(0, dtype=float)
    oracle = Ridge(alpha=RIDGE * (centred**2).sum() / 5).fit(positions.astype(float), standardized(expression))
    np.testing.assert_allclose(gene_map.loadings.T, oracle.coef_, atol=1e-8)
    np.testing.assert_allclose(gene_map(positions), oracle.predict(positions.astype(float)), atol=1e-8)


def test_top_against_sorting(data, monkeypatch):
    positions, expression, *_ = data
    gene_map = GeneMap.fit(positions, expression)
    dense = gene_map(positions)
    expected = np.where((dense >= np.sort(dense, 1)[:, [-4]]) & (dense > 0), dense, 0)
    found = gene_map.top(positions, 4)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)
    monkeypatch.setattr(associations, "BLOCK_ENTRIES", 40)
    assert (gene_map.top(positions, 4) != found).nnz == 0
    assert gene_map.top(positions, 99).shape == dense.shape


def test_statistics_by_brute_force(data, monkeypatch):
    positions, expression, groups, counts, totals = data
    found = marker_statistics(positions, expression, groups)
    association = GeneMap.fit(positions, expression)(positions)
    dense = counts * 30 / totals[:, None]
    means = np.stack([association[groups.codes == k].mean(0) for k in range(3)])
    for k in range(3):
        inside = groups.codes == k
        np.testing.assert_allclose(
            found.score[k], association[inside].mean(0) - association[~inside].mean(0), atol=1e-9
        )
        np.testing.assert_allclose(found.specificity[k], means[k] - np.delete(means, k, 0).max(0), atol=1e-9)
        np.testing.assert_allclose(found.fraction_in[k], (counts[inside] > 0).mean(0))
        np.testing.assert_allclose(found.fraction_out[k], (counts[~inside] > 0).mean(0))
        ratio = (dense[inside].mean(0) + 1e-9) / (dense[~inside].mean(0) + 1e-9)
        np.testing.assert_allclose(found.log2_fold_change[k], np.log2(ratio), atol=1e-9)
    assert (found.score[:, -1] == 0).all()
    monkeypatch.setattr(associations, "BLOCK_ENTRIES", 40)
    np.testing.assert_allclose(marker_statistics(positions, expression, groups).standard_error, found.standard_error)


def test_standard_error_against_statsmodels(data):
    positions, expression, groups, *_ = data
    found = marker_statistics(positions, expression, groups)
    values = standardized(expression)
    design = sm.add_constant(positions.astype(float))
    inside = groups.codes == 1
    contrast = np.append(0, positions[inside].mean(0) - positions[~inside].mean(0))
    for gene in range(values.shape[1] - 1):
        test = sm.OLS(values[:, gene], design).fit(cov_type="HC0").t_test(contrast)
        np.testing.assert_allclose(found.score[1, gene], np.squeeze(test.effect), rtol=1e-4)
        np.testing.assert_allclose(found.standard_error[1, gene], np.squeeze(test.sd), rtol=1e-4)


def test_the_score_is_linear_in_expression(data):
    positions, expression, groups, *_ = data
    weights = contrast_weights(positions, groups)
    np.testing.assert_allclose(weights.sum(1), 0, atol=1e-10)
    found = marker_statistics(positions, expression, groups)
    np.testing.assert_allclose(weights @ standardized(expression), found.score, atol=1e-9)


def test_pvalues_against_all_permutations():
    rng = np.random.default_rng(1)
    positions, groups = rng.normal(size=(6, 1)), Groups(np.array([0, 0, 1, 1, 1, 1]), 2)
    expression = sp.csr_array(np.array([[3.0, 2, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [2, 2, 2, 2, 2, 2]]).T)
    weights = contrast_weights(positions, groups)
    observed = weights @ expression.toarray()
    every = np.stack([weights[:, list(order)] @ expression.toarray() for order in permutations(range(6))])
    exact = (every >= observed - 1e-12).mean(0)
    found = permutation_pvalues(positions, expression, groups, 20_000, seed=0)
    np.testing.assert_allclose(found, exact, atol=4 * np.sqrt(0.25 / 20_000))
    assert (found[:, 2] == 1).all()  # a constant gene


@pytest.mark.parametrize("most", [20_000, 60])
def test_pvalues_against_scores_of_each_permutation(data, most, monkeypatch):
    positions, expression, groups, *_ = data
    monkeypatch.setattr(associations, "SAMPLE_CELLS", most)
    rng = np.random.default_rng(3)
    rows = associations._tested_cells(groups, rng)
    weights, profiles = contrast_weights(positions, groups)[:, rows], expression.toarray()[rows]
    weights -= weights.mean(1, keepdims=True)
    scores = np.stack([weights[:, rng.permutation(len(rows))] @ profiles for _ in range(70)])
    exact = (1 + (scores >= weights @ profiles - 1e-9).sum(0)) / 71
    np.testing.assert_array_equal(permutation_pvalues(positions, expression, groups, 70, seed=3), exact)


@pytest.mark.parametrize("most", [20_000, 60])
def test_pvalues_of_permuted_cells_are_uniform(data, most, monkeypatch):
    positions, _, groups, *_ = data
    monkeypatch.setattr(associations, "SAMPLE_CELLS", most)
    rng = np.random.default_rng(2)
    # Genes of any abundance, each permuted by itself, so that the p-values are independent within a group.
    profile = np.log1p(rng.poisson(rng.gamma(1, 1, size=600) * np.exp(positions[:, :1])))
    expression = sp.csr_array(rng.permuted(profile, axis=0)[:, (profile > 0).sum(0) > 20])
    pvalues = permutation_pvalues(positions, expression, groups, 500, seed=0)
    for group in range(3):
        assert kstest(pvalues[group], "uniform").pvalue > 0.01
    # and of the data as they are, they are not
    assert kstest(permutation_pvalues(positions, sp.csr_array(profile), groups, 500, 0)[0], "uniform").pvalue < 1e-10


def test_tested_cells_keep_rare_groups(monkeypatch):
    monkeypatch.setattr(associations, "SAMPLE_CELLS", 30)
    codes = np.repeat([0, 1, 2], [500, 300, 7])
    rows = associations._tested_cells(Groups(codes, 3), np.random.default_rng(0))
    assert np.bincount(codes[rows]).tolist() == [10, 10, 7]


def test_memory_is_bounded(monkeypatch):
    """No array of all cells by all genes is formed: the peak stays below a fraction of one."""
    monkeypatch.setattr(associations, "BLOCK_ENTRIES", 20_000)
    rng = np.random.default_rng(0)
    n, n_genes = 6000, 800
    positions = rng.normal(size=(n, 4))
    expression = sp.random_array((n, n_genes), density=0.01, rng=rng, format="csr")
    groups = Groups(rng.integers(3, size=n), 3)
    tracemalloc.start()
    try:
        GeneMap.fit(positions, expression).top(positions, 5)
        marker_statistics(positions, expression, groups)
        permutation_pvalues(positions, expression, groups, 3, seed=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.25 * n * n_genes * 8
