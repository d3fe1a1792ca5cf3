import time

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import norm

from scrcl.cluster.null import OnePopulation, best_separation, overdispersed_genes, separation, split_pvalue


def population(
    m: int, rng: np.random.Generator, n_genes: int = 300, program: float = 0.7, fold: np.ndarray | None = None
):
    """Counts of one population with one correlated program of 30 genes, gamma noise and depths of all kinds."""
    mean = np.exp(np.random.default_rng(99).normal(-0.5, 1.2, n_genes))
    loading = np.r_[np.full(30, program), np.zeros(n_genes - 30)]
    rate = mean * np.exp(rng.normal(size=(m, 1)) * loading) * rng.gamma(5, 1 / 5, (m, n_genes))
    rate *= rng.lognormal(0, 0.4, (m, 1))
    return rng.poisson(rate if fold is None else rate * fold).astype(np.float64)


def types(n_first: int, n_second: int, rng: np.random.Generator) -> tuple[sp.csr_array, np.ndarray]:
    """Counts of two populations that differ in 40 genes, and whether a cell is of the first."""
    fold = np.ones(300)
    fold[100:120], fold[120:140] = 6, 1 / 6
    counts = np.concatenate([population(n_first, rng, fold=fold), population(n_second, rng)])
    return sp.csr_array(counts), np.arange(n_first + n_second) < n_first


def halves(counts: sp.csr_array) -> np.ndarray:
    """The best-separated halves by the first principal component: as different as halves of one population can be."""
    logs = np.log1p(counts.toarray() / counts.sum(axis=1)[:, None] * np.median(counts.sum(axis=1)))
    first = np.linalg.svd(logs - logs.mean(0), full_matrices=False)[0][:, 0]
    return first > np.median(first)


@pytest.fixture(scope="module")
def fitted():
    counts = population(300, np.random.default_rng(0))
    return counts, OnePopulation.fit(sp.csr_array(counts)).draw(300, np.random.default_rng(1)).toarray()


def test_draws_have_the_means_and_the_depth_of_the_cells(fitted):
    counts, drawn = fitted
    np.testing.assert_allclose(drawn.mean(), counts.mean(), rtol=0.1)
    assert np.corrcoef(np.log1p(drawn.mean(0)), np.log1p(counts.mean(0)))[0, 1] > 0.97
    depth, expected = np.log(drawn.sum(1)), np.log(counts.sum(1))
    assert depth.std() == pytest.approx(expected.std(), rel=0.25)


def test_draws_are_detected_and_vary_like_the_cells(fitted):
    counts, drawn = fitted
    np.testing.assert_allclose((drawn > 0).mean(0), (counts > 0).mean(0), atol=0.12)
    expressed = counts.mean(0) > 0.5
    ratio = np.log(drawn.var(0) / np.maximum(counts.var(0), 1e-9))[expressed]
    assert abs(np.median(ratio)) < 0.3


def test_draws_are_correlated_like_the_cells(fitted):
    counts, drawn = fitted
    leading = [np.linalg.eigvalsh(np.corrcoef(np.log1p(values[:, values.any(0)]).T))[-1] for values in fitted]
    assert leading[1] == pytest.approx(leading[0], rel=0.4)
    # Noise without correlation would be far below.
    shuffled = np.random.default_rng(2).permuted(counts, axis=0)
    assert np.linalg.eigvalsh(np.corrcoef(np.log1p(shuffled).T))[-1] < 0.6 * leading[1]


def test_the_draws_of_a_batch_have_its_means():
    rng = np.random.default_rng(3)
    counts = np.concatenate([population(100, rng), population(100, rng) * 0.2]).round()
    strata = np.repeat([0, 1], 100)
    null = OnePopulation.fit(counts, strata=strata)
    drawn, sizes = null.redraw(rng)
    for stratum in (0, 1):
        inside = strata == stratum
        assert drawn[inside].mean() == pytest.approx(counts[inside].mean(), rel=0.2)
        assert np.isin(sizes[inside], counts[inside].sum(1)).all()


def test_reads_with_a_large_overdispersion():
    rng = np.random.default_rng(4)
    counts = np.round(np.exp(rng.normal(3, 3, (80, 200))) * (rng.random((80, 200)) < 0.4))
    drawn = OnePopulation.fit(sp.csr_array(counts)).draw(80, rng)
    assert np.isfinite(drawn.data).all()
    assert 0 < split_pvalue(sp.csr_array(counts), rng.random(80) < 0.5) <= 1


def test_separation_is_the_r_squared_of_a_regression():
    rng = np.random.default_rng(5)
    points, side = rng.normal(size=(60, 4)), rng.random(60) < 0.3
    points[side] += 1
    points -= points.mean(0)
    scores = np.linalg.qr(points)[0]
    fitted = points @ np.linalg.lstsq(points, side - side.mean(), rcond=None)[0]
    expected = (fitted**2).sum() / ((side - side.mean()) ** 2).sum()
    assert separation(scores, side, np.zeros(60, int))[0] == pytest.approx(expected)


def test_best_separation_of_a_normal_variable_is_that_of_its_tail():
    """The share ``phi(z)^2 / (p (1 - p))`` of the variance of the side, by the truncated normal distribution."""
    scores = norm.ppf((np.arange(4000) + 0.5) / 4000)[:, None]
    scores /= np.linalg.norm(scores)
    for share in (0.5, 0.1, 0.03):
        found = best_separation(scores, np.array([int(4000 * share)]), np.zeros(4000, int))
        expected = norm.pdf(norm.isf(share)) ** 2 / (share * (1 - share))
        assert found == pytest.approx(expected, rel=0.01)


def test_best_separation_is_that_of_all_splits():
    """Brute force over all splits of ten cells into three and seven."""
    from itertools import combinations

    rng = np.random.default_rng(6)
    for _ in range(8):
        points = rng.normal(size=(10, 2))
        scores = np.linalg.qr(points - points.mean(0))[0]
        sides = np.array([np.isin(np.arange(10), chosen) for chosen in combinations(range(10), 3)]).T
        best = separation(scores, sides, np.zeros(10, int)).max()
        assert best_separation(scores, np.array([3]), np.zeros(10, int)) == pytest.approx(best)


def test_halves_of_one_population_are_not_rejected():
    """Sides found in the same counts, along a program that is far more variable than Poisson noise."""
    pvalues = []
    for seed in range(6):
        counts = sp.csr_array(population(120, np.random.default_rng(seed)))
        pvalues.append(split_pvalue(counts, halves(counts), seed=seed))
    assert np.mean(np.array(pvalues) < 0.05) <= 1 / 6


@pytest.mark.parametrize(("n_first", "n_second"), [(100, 100), (20, 180), (20, 600)])
def test_two_populations_are_rejected(n_first, n_second):
    counts, side = types(n_first, n_second, np.random.default_rng(7))
    assert split_pvalue(counts, side) < 0.01
    assert split_pvalue(counts, ~side) < 0.01
    shuffled = np.random.default_rng(0).permutation(2 * len(side))
    among_others = sp.csr_array(sp.vstack([counts, counts[::-1]]))[shuffled]
    cells = np.argsort(shuffled)[: len(side)]
    assert split_pvalue(among_others, side, cells=cells) == split_pvalue(counts, side)


def test_a_difference_of_batches_is_none_of_sides():
    rng = np.random.default_rng(8)
    counts, batch = types(100, 100, rng)
    codes = batch.astype(int)
    assert split_pvalue(counts, batch) < 0.01
    assert split_pvalue(counts, batch, batches=codes) == 1
    # Ten cells of each batch on the side of the other.
    side = batch.copy()
    side[[*range(10), *range(100, 110)]] ^= True
    assert split_pvalue(counts, side, batches=codes) > 0.05


def test_types_are_found_within_batches():
    rng = np.random.default_rng(9)
    (one, first), (other, second) = types(40, 80, rng), types(60, 20, rng)
    batch = sp.csr_array(other.toarray() * np.where(np.arange(300) % 2, 3, 1))
    counts, side = sp.csr_array(sp.vstack([one, batch])), np.concatenate([first, second])
    assert split_pvalue(counts, side, batches=np.repeat([4, 7], [120, 80])) < 0.01


def test_the_same_seed_gives_the_same_value():
    counts, side = types(60, 60, np.random.default_rng(10))
    weak = np.random.default_rng(0).permuted(side)
    assert split_pvalue(counts, weak, seed=1) == split_pvalue(counts, weak, seed=1)


def test_too_few_cells_or_genes_prove_nothing():
    counts, side = types(4, 100, np.random.default_rng(11))
    assert split_pvalue(counts, side) == 1
    empty = sp.csr_array((100, 50))
    assert split_pvalue(empty, np.arange(100) < 50) == 1


def test_overdispersed_genes_are_those_that_differ():
    rng, fold = np.random.default_rng(12), np.ones(300)
    fold[100:120] = 20
    counts = sp.csr_array(np.concatenate([population(100, rng, fold=fold), population(100, rng)]))
    genes, typical = overdispersed_genes(counts, counts.sum(axis=1))
    logs = np.log1p(counts.toarray() * (np.median(counts.sum(axis=1)) / counts.sum(axis=1))[:, None])
    excess = logs.var(0)[genes] / typical
    assert len(genes) == 200
    assert np.isin(range(100, 120), genes).sum() >= 18
    assert np.median(excess[np.isin(genes, range(100, 120))]) > 1.3 * np.median(excess)


def test_a_split_is_tested_fast():
    rng = np.random.default_rng(13)
    counts, side = types(700, 1300, rng)
    start = time.process_time()
    split_pvalue(counts, side)
    assert time.process_time() - start < 2
