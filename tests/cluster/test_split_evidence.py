import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import mannwhitneyu, norm
from sklearn.metrics import roc_auc_score

from scrcl.cluster.split_evidence import (
    MIN_AUROC,
    MIN_LOG2_DIFFERENCE,
    GroupedExpression,
    SplitGenes,
    areas_under_curve,
    split_distance,
    verdict,
)


def expression_of(counts: np.ndarray) -> sp.csr_array:
    return sp.csr_array(np.log1p(counts.astype(np.float64)))


def compare(expression: sp.csr_array, side: np.ndarray, batches: np.ndarray | None = None) -> SplitGenes:
    return GroupedExpression.build(expression, (~side).astype(int), batches).compare(*np.eye(2, dtype=bool))


@pytest.fixture(scope="module")
def lines():
    """Counts of 120 cells, of which 40 express genes 0 to 5, and the others genes 6 to 8, among 60 genes."""
    rng = np.random.default_rng(0)
    side = np.arange(120) < 40
    rate = np.full((120, 60), 0.5)
    rate[:40, :6] = 8
    rate[40:, 6:9] = 8
    return rng.poisson(rate), side


def test_areas_are_those_of_scikit_learn(lines):
    counts, side = lines
    areas = areas_under_curve(sp.csc_array(expression_of(counts)), side, ~side)
    np.testing.assert_allclose(areas, [roc_auc_score(side, gene) for gene in counts.T])


def test_areas_of_genes_that_do_not_vary():
    values = np.zeros((6, 2))
    values[:, 1] = 3
    np.testing.assert_allclose(areas_under_curve(sp.csc_array(values), np.arange(6) < 2, np.arange(6) >= 2), 0.5)


def test_standard_scores_are_those_of_scipy():
    rng = np.random.default_rng(7)
    side = np.arange(100) < 30
    values = rng.exponential(size=(100, 20)) + 4 * side[:, None]
    genes = compare(sp.csr_array(values), side)
    tests = [mannwhitneyu(gene[side], gene[~side], method="asymptotic", use_continuity=False) for gene in values.T]
    np.testing.assert_allclose(2 * norm.sf(abs(genes.z)), [test.pvalue for test in tests], rtol=1e-6)


def test_stored_zeros_are_zeros(lines):
    counts, side = lines
    whole = sp.csr_array(np.ones(counts.shape))
    whole.data[:] = np.log1p(counts).ravel()
    stored, expected = compare(whole, side), compare(expression_of(counts), side)
    np.testing.assert_allclose(stored.auroc, expected.auroc)
    np.testing.assert_allclose(stored.detection, expected.detection)


def test_genes_of_either_side(lines):
    counts, side = lines
    genes = compare(expression_of(counts), side)
    assert genes.n_up == (6, 3)
    first, second = genes.top(100)
    assert set(first) == set(range(6))
    assert set(second) == {6, 7, 8}
    assert len(genes.top(2)[0]) == 2
    assert genes.auroc[first[0]] == np.nanmax(genes.auroc)
    np.testing.assert_allclose(genes.detection[:, 0], [(counts[side, 0] > 0).mean(), (counts[~side, 0] > 0).mean()])
    logs = np.log2(1 + counts)
    np.testing.assert_allclose(genes.log2_difference, logs[side].mean(0) - logs[~side].mean(0))


def test_sides_are_exchangeable(lines):
    counts, side = lines
    one, other = compare(expression_of(counts), side), compare(expression_of(counts), ~side)
    assert one.n_up == other.n_up[::-1]
    np.testing.assert_allclose(one.auroc, 1 - other.auroc)


def test_the_bound_loses_no_gene():
    """Effects of random sparse data, brute force over all genes."""
    rng = np.random.default_rng(1)
    rate = np.exp(rng.normal(0, 2, 400)) * np.where(np.arange(200)[:, None] < 60, np.exp(rng.normal(0, 1.5, 400)), 1)
    counts, side = rng.poisson(rate), np.arange(200) < 60
    genes = compare(expression_of(counts), side)
    auroc = np.array([roc_auc_score(side, gene) for gene in counts.T])
    difference = np.log2(1 + counts)[side].mean(0) - np.log2(1 + counts)[~side].mean(0)
    np.testing.assert_array_equal(genes.up[0], (auroc > MIN_AUROC) & (difference > MIN_LOG2_DIFFERENCE))
    np.testing.assert_array_equal(genes.up[1], (auroc < 1 - MIN_AUROC) & (difference < -MIN_LOG2_DIFFERENCE))
    assert genes.up.sum() > 20
    assert np.isnan(genes.auroc).any()


def test_few_cells_prove_no_gene():
    """With 5 cells, many of 15,000 genes of pure noise have a high AUROC."""
    rng = np.random.default_rng(2)
    expression, side = expression_of(rng.negative_binomial(0.5, 0.1, (60, 15_000))), np.arange(60) < 5
    genes = compare(expression, side)
    assert (genes.auroc > MIN_AUROC).sum() > 10
    assert genes.n_up == (0, 0)


def test_a_cell_alone_proves_no_gene():
    """Genes that only one cell expresses separate it from all others."""
    counts = np.random.default_rng(8).poisson(0.3, (50, 200))
    counts[0], counts[1:, :20] = 5, 0
    assert compare(expression_of(counts), np.arange(50) < 1).n_up == (0, 0)


def test_a_difference_of_batches_is_none_of_sides(lines):
    counts, side = lines
    batches = side.astype(int)
    assert compare(expression_of(counts), side, batches).n_up == (0, 0)
    # Nearly the same: ten cells of the other batch on either side, whose genes are those of their batch.
    exchanged = side.copy()
    exchanged[[*range(10), *range(40, 50)]] ^= True
    assert sum(compare(expression_of(counts), exchanged).n_up) > 0
    assert compare(expression_of(counts), exchanged, batches).n_up == (0, 0)


def test_genes_within_batches_are_weighted_means(lines):
    counts, side = lines
    batches = np.random.default_rng(3).integers(3, size=len(side))
    batches[batches == 2] = np.where(side, 0, 2)[batches == 2]  # the last batch has no cell of the first side
    genes = compare(expression_of(counts), side, batches)
    weights, areas = [], []
    for batch in (0, 1):
        inside = batches == batch
        n_first, n_second = side[inside].sum(), (~side[inside]).sum()
        weights.append(n_first * n_second / (n_first + n_second + 1))
        areas.append([roc_auc_score(side[inside], gene) for gene in counts[inside].T])
    known = np.isfinite(genes.auroc)
    np.testing.assert_allclose(genes.auroc[known], np.average(areas, axis=0, weights=weights)[known])
    assert genes.n_up == (6, 3)


@pytest.mark.parametrize("batched", [False, True])
def test_cells_on_neither_side_do_not_matter(lines, batched):
    counts, side = lines
    groups = np.where(side, 0, np.where(np.arange(120) < 90, 2, 1))
    batches = np.arange(120) % 3 if batched else None
    rows = np.flatnonzero(groups != 2)
    some = GroupedExpression.build(expression_of(counts), groups, batches).compare(*np.eye(3, dtype=bool)[:2])
    expected = compare(expression_of(counts[rows]), side[rows], None if batches is None else batches[rows])
    for name in ("auroc", "z", "log2_difference", "detection"):
        np.testing.assert_allclose(getattr(some, name), getattr(expected, name))


def test_distance_of_halves_of_noisy_cells():
    rng = np.random.default_rng(5)
    center = rng.normal(size=50)
    noisy, side = center + 3 * rng.normal(size=(400, 50)), np.arange(400) < 100
    far = np.where(side[:, None], center, np.roll(center, 1)) + rng.normal(size=(400, 50))
    assert split_distance([noisy], side) < 0.1
    assert 0.5 < split_distance([far], side) < 1.5
    assert split_distance([noisy, far], side) == pytest.approx(
        (split_distance([noisy], side) + split_distance([far], side)) / 2
    )


def test_distance_by_hand():
    """Mean cosines of 1 within both sides, and of cos(60 degrees) between them."""
    space = np.array([[1, 0], [2, 0], [0.5, np.sqrt(0.75)], [1, np.sqrt(3)]])
    assert split_distance([space], np.arange(4) < 2) == pytest.approx(0.5)


def test_distance_within_batches():
    rng = np.random.default_rng(6)
    batches = np.repeat([0, 1], 100)
    space = np.eye(20)[batches] + 0.1 * rng.normal(size=(200, 20))
    side = rng.random(200) < np.where(batches, 0.1, 0.9)
    assert split_distance([space], side) > 0.3
    assert split_distance([space], side, batches) < 0.03
    assert split_distance([space], batches == 1, batches) == 0


@pytest.mark.parametrize(
    ("narrow_neck", "n_up", "expected"),
    [
        (True, (4, 3), "type"),
        (True, (0, 1), "type"),
        (True, (0, 0), "suspicious"),
        (False, (30, 2), "continuum"),
        (False, (4, 3), "none"),
        (False, (0, 0), "none"),
    ],
)
def test_verdict(narrow_neck, n_up, expected):
    assert verdict(narrow_neck, n_up) == expected
