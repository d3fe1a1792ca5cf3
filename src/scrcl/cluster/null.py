r"""One population of cells as a null hypothesis, and the p-value of a split against it, over plain arrays.

Clusters that were found in the same counts differ by construction, so a test of their difference is not valid; that they
are farther apart than clusters of one population is a hypothesis that can be tested, with draws from a model of one
population. It is no use if that model knows Poisson noise only, as if counts are thinned into halves by Poisson's law:
real populations are overdispersed and their genes are correlated (cell cycle, stress, depth), and a continuous variation
would be rejected as two types. So the model has both, fitted to the cells, like that of sc-SHC (Grabski, Street & Irizarry,
Nature Methods 2023):

.. math:: y_{ig} \sim \mathrm{Poisson}(l_i\, \mu_{b_i g}\, e^{\lambda_g^\top z_i - |\lambda_g|^2 / 2}\, \varepsilon_{ig}),
          \quad z_i \sim N(0, I_K), \quad \varepsilon_{ig} \sim \mathrm{Gamma}(1 / \varphi_g, \varphi_g)

with library sizes :math:`l_i` (mean 1), the mean :math:`\mu_{bg}` of a gene in a batch, loadings :math:`\lambda_g`, and
overdispersion :math:`\varphi_g`. Two types are two modes of :math:`z`; one population, however stretched, has one.

Notation: ``m`` cells, ``G`` genes, ``K`` latent dimensions, ``B`` draws.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy.sparse as sp
from scipy.linalg import eigh
from scipy.special import logit
from scipy.stats import t as student

from .split_evidence import comparable_strata, numbered

#: Most latent dimensions, and least number of cells for each.
N_DIMENSIONS, MIN_CELLS_PER_DIMENSION = 10, 12
#: Least number of tested cells on the smaller side; of fewer cells, outliers cannot be distinguished from a type.
MIN_CELLS = 5
#: Cells of a split that are tested, drawn at random; more if the smaller side would have fewer than ``MIN_SIDE_CELLS``.
TESTED_CELLS, MAX_TESTED_CELLS, MIN_SIDE_CELLS = 300, 600, 10
#: Genes of the model, and genes of these by which cells are compared, chosen anew in each draw; both vary most for their mean.
CANDIDATE_GENES, TESTED_GENES = 200, 150
#: Least number of cells that express a gene of the model.
MIN_EXPRESSING = 5
#: Genes of similar mean to which the variance of a gene is compared.
N_SIMILAR_GENES = 100
#: Draws from the null; only the first of them where these leave no doubt, for a p-value outside of the bounds.
N_DRAWS, N_FIRST_DRAWS, DOUBT = 10, 5, (1e-3, 0.2)
#: Steps from each start of the search for the best split of a draw, and number of the farthest cells, and of random
#: directions, at which it starts.
N_STEPS, N_STARTS = 8, 16
#: Draws by which the loadings are calibrated.
N_CALIBRATIONS = 2
#: Bound of the variance of a rate relative to its mean.
MAX_OVERDISPERSION = 100.0


@dataclass(frozen=True)
class OnePopulation:
    """Model of the counts of one population: Poisson, log-normal of low rank, and gamma for each gene.

    Attributes
    ----------
    library_sizes
        ``(m,)`` total counts of the cells it was fitted to.
    strata
        ``(m,)`` batch of these, numbered from 0.
    shares
        ``(S, G)`` mean share of each gene in the counts of a cell, by batch.
    loadings
        ``(G, K)`` effect of the latent dimensions on the logarithm of the rate.
    overdispersion
        ``(G,)`` variance of the rate relative to its squared mean, given the latent dimensions.
    """

    library_sizes: np.ndarray
    strata: np.ndarray
    shares: np.ndarray
    loadings: np.ndarray
    overdispersion: np.ndarray

    @classmethod
    def fit(
        cls,
        counts: sp.csr_array | np.ndarray,
        library_sizes: np.ndarray | None = None,
        strata: np.ndarray | None = None,
    ) -> Self:
        r"""Fit the model by moments.

        The latent dimensions are those principal components of the log-normalised counts that exceed noise. A standard
        normal :math:`z` has :math:`E[e^{\lambda z} z] / E[e^{\lambda z}] = \lambda`, so the loadings are mean scores
        weighted by counts; the overdispersion is the rest of the second moment.

        Parameters
        ----------
        counts
            ``(m, G)`` counts; read counts with a large overdispersion may be passed, too.
        library_sizes
            ``(m,)`` total counts, if there are other genes.
        strata
            ``(m,)`` batch of each cell, numbered from 0, none empty.
        """
        dense = counts if isinstance(counts, np.ndarray) else counts.toarray()
        dense = dense.astype(np.float64)
        m = len(dense)
        sizes = np.maximum(dense.sum(1) if library_sizes is None else library_sizes, 1.0)
        strata = np.zeros(m, dtype=np.int64) if strata is None else strata
        shares = _sums(dense, strata) / _sums(sizes[:, None], strata)
        expected = sizes[:, None] * shares[strata]
        squares = (expected**2).sum(0)
        excess = ((dense - expected) ** 2).sum(0) - dense.sum(0)
        variance = np.clip(
            np.divide(excess, squares, out=np.zeros_like(excess), where=squares > 0), 0, MAX_OVERDISPERSION
        )

        scores, signal, noise = _signal(_logs(dense, sizes), strata)
        total = np.maximum(dense.sum(0), 1)
        loadings = (dense - expected).T @ scores / total[:, None]
        # James-Stein shrinkage, as all loadings of a gene with few counts are noise.
        length, noise_length = (loadings**2).sum(1), scores.shape[1] * ((dense - expected) ** 2).sum(0) / total**2
        loadings *= np.maximum(1 - noise_length / np.maximum(length, 1e-12), 0)[:, None]
        # No more than the second moment: the scores of two types are not normal.
        error = np.sqrt(2 / np.maximum(squares, 1e-12))
        length, bound = (loadings**2).sum(1), np.log1p(np.minimum(variance + 2 * error, MAX_OVERDISPERSION))
        loadings *= np.sqrt(np.minimum(1, bound / np.maximum(length, 1e-12)))[:, None]
        population = cls(sizes, strata, shares, loadings, variance)
        return population._calibrate(variance, signal, noise)

    def _calibrate(self, variance: np.ndarray, signal: np.ndarray, noise: float) -> Self:
        """Scale the loadings so that in the logs of draws, too, each latent dimension has this variance."""
        rng = np.random.default_rng(0)
        population = self
        m, n_genes = len(self.strata), len(self.loadings)
        for _ in range(N_CALIBRATIONS):
            length = (population.loadings**2).sum(1)
            population = replace(population, overdispersion=np.maximum((1 + variance) / np.exp(length) - 1, 0))
            latent = rng.standard_normal((m, len(signal)))
            logs = _logs(population._draw(self.library_sizes, self.strata, rng, latent), self.library_sizes)
            slopes = (latent - latent.mean(0)).T @ logs / m
            drawn = np.maximum((slopes**2).sum(1) - noise * n_genes / m, 1e-12)
            factors = np.clip(np.sqrt(signal / drawn), 0, 1.5)
            population = replace(population, loadings=population.loadings * factors)
        return population

    def draw(self, n: int, rng: np.random.Generator) -> sp.csr_array:
        """Counts ``(n, G)`` of new cells of any batch, float32, with library sizes drawn from the fitted cells."""
        rows = rng.integers(len(self.strata), size=n)
        return sp.csr_array(self._draw(self.library_sizes[rows], self.strata[rows], rng))

    def redraw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Counts ``(m, G)`` of as many new cells of the same batches, and their library sizes ``(m,)``."""
        sizes = self.library_sizes.copy()
        for stratum in range(len(self.shares)):
            inside = self.strata == stratum
            sizes[inside] = rng.choice(sizes[inside], inside.sum())
        return self._draw(sizes, self.strata, rng), sizes

    def _draw(
        self, sizes: np.ndarray, strata: np.ndarray, rng: np.random.Generator, latent: np.ndarray | None = None
    ) -> np.ndarray:
        latent = rng.standard_normal((len(sizes), self.loadings.shape[1])) if latent is None else latent
        rate = latent.astype(np.float32) @ self.loadings.T.astype(np.float32)
        rate -= (self.loadings**2).sum(1) / 2
        np.exp(rate, out=rate)
        rate *= self.shares[strata]
        rate *= sizes[:, None]
        noisy = np.flatnonzero(self.overdispersion > 1e-3)
        shape = (1 / self.overdispersion[noisy]).astype(np.float32)
        rate[:, noisy] *= rng.standard_gamma(shape, (len(sizes), len(noisy)), dtype=np.float32) / shape
        return rng.poisson(np.minimum(rate, 1e9)).astype(np.float32)


def _sums(values: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Sums ``(S, d)`` of rows by stratum."""
    member = np.zeros((int(strata.max()) + 1, len(strata)), dtype=values.dtype)
    member[strata, np.arange(len(strata))] = 1
    return member @ values


def _logs(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """``log1p`` of counts scaled to the median library size."""
    return np.log1p(counts * (np.median(sizes) / sizes)[:, None].astype(counts.dtype))


def _components(logs: np.ndarray, strata: np.ndarray, n_dimensions: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Orthonormal principal component scores ``(m, K)`` of logs centred by stratum, their eigenvalues, and the sum of all."""
    means = _sums(logs, strata) / np.bincount(strata)[:, None]
    centred = logs - means[strata]
    m, n_genes = centred.shape
    wide = n_genes > m
    products = centred @ centred.T if wide else centred.T @ centred
    last = len(products) - 1
    values, vectors = eigh(products, subset_by_index=(max(last + 1 - n_dimensions, 0), last), check_finite=False)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    scores = vectors if wide else centred @ vectors / np.sqrt(np.maximum(values, 1e-12))
    return scores, values, float(np.trace(products))


def _n_dimensions(m: int) -> int:
    return max(1, min(N_DIMENSIONS, m // MIN_CELLS_PER_DIMENSION))


def _signal(logs: np.ndarray, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    r"""Standardised scores ``(m, K)``, the variance of each without noise, and the variance of the noise of a gene.

    With :math:`\gamma = G / m`, a dimension of variance :math:`\ell` appears among noise of unit variance with
    :math:`x = (1 + \ell)(1 + \gamma / \ell)`, if :math:`\ell > \sqrt\gamma` (Baik & Silverstein, Journal of Multivariate
    Analysis 2006).
    """
    m, n_genes = logs.shape
    vectors, values, total = _components(logs, strata, _n_dimensions(m))
    noise = max((total - values.sum()) / (m * max(n_genes - len(values), 1)), 1e-12)
    gamma = n_genes / m
    above = values / (m * noise) - 1 - gamma
    signal = np.where(above > 2 * np.sqrt(gamma), above + np.sqrt(np.maximum(above**2 - 4 * gamma, 0)), 0) / 2
    return vectors * np.sqrt(m), signal * noise, noise


def separation(scores: np.ndarray, side: np.ndarray, strata: np.ndarray) -> np.ndarray:
    r"""Share :math:`R^2` of the variance of a side, within batches, that the scores explain linearly.

    With :math:`D` the Mahalanobis distance of the two sides by the covariance within them, and the share :math:`p` of one
    of them, :math:`R^2 = p (1 - p) D^2 / (1 + p (1 - p) D^2)`. It depends on the sizes of the sides, but not on the scale or
    direction of the scores.

    Parameters
    ----------
    scores
        ``(m, K)`` orthonormal scores, centred within batches.
    side
        ``(m,)`` or ``(m, s)`` whether a cell is on the first side, for several splits.
    strata
        ``(m,)`` batch of each cell, numbered from 0.
    """
    centred = side.reshape(len(side), -1).astype(np.float64)
    centred -= (_sums(centred, strata) / np.bincount(strata)[:, None])[strata]
    return ((scores.T @ centred) ** 2).sum(0) / np.maximum((centred**2).sum(0), 1e-12)


def best_separation(scores: np.ndarray, n_first: np.ndarray, strata: np.ndarray) -> float:
    """Largest :func:`separation` found among all splits with ``n_first`` ``(S,)`` cells of each batch on the first side.

    From both ends of each dimension, the farthest cells and random directions on, the cells farthest in a direction become the first side, and
    its mean the next direction. Each step raises the separation, as it maximises a convex function at its tangent.
    """
    m, n_dimensions = scores.shape
    cells = scores[np.argsort(-(scores**2).sum(1), kind="stable")[:N_STARTS]]
    random = np.random.default_rng(0).standard_normal((N_STARTS, n_dimensions))
    directions = np.concatenate([np.eye(n_dimensions), -np.eye(n_dimensions), cells, random]).T
    rows = [np.flatnonzero(strata == stratum) for stratum in range(len(n_first))]
    side = np.zeros((m, directions.shape[1]), dtype=bool)
    for _ in range(N_STEPS):
        projected = scores @ directions
        side[:] = False
        for inside, number in zip(rows, n_first, strict=True):
            last = len(inside) - number
            highest = np.argpartition(projected[inside], last, axis=0)[last:]
            side[inside[highest], np.arange(side.shape[1])] = True
        directions = scores.T @ side
    return float(separation(scores, side, strata).max())


def split_pvalue(
    counts: sp.csr_array,
    side: np.ndarray,
    *,
    cells: np.ndarray | None = None,
    batches: np.ndarray | None = None,
    seed: int = 0,
) -> float:
    r"""P-value that the cells of both sides are one population, for sides that were found in the same counts.

    :class:`OnePopulation` is fitted to the cells of both sides. In each draw from it, principal components are found anew,
    and the split with the largest :func:`separation` is searched among those with as many cells on either side, which is a
    harder search than a clustering makes. The observed separation is compared with these by the t-distribution that
    predicts a further draw of its log-odds, so that ten draws suffice.

    A small p-value means two modes, or a shape that the model does not have, such as a tail of damaged cells; a large one
    that the split may be one of a continuum or of noise, or that too few cells are on one side. The test doesn't say which
    side of a larger hierarchy is real: other splits inside of both sides make a node multimodal, too.

    Parameters
    ----------
    counts
        ``(n, G)`` counts.
    side
        ``(m,)`` whether a cell is on the first side.
    cells
        ``(m,)`` rows of the counts of the cells of both sides; by default all.
    batches
        ``(m,)`` number of the batch of each cell. Sides are then compared within batches, and the draws have the means of
        each batch and its share of the first side, so that a difference of batches is none of sides.
    seed
        Seed of the sample of cells and of the draws.

    Returns
    -------
    The p-value; 1 if fewer than :data:`MIN_CELLS` cells of the smaller side can be compared, or fewer than three genes vary.

    References
    ----------
    Grabski, Street & Irizarry. Significance analysis for clustering with single-cell RNA-sequencing data. Nature Methods
    2023.
    """
    rng = np.random.default_rng(seed)
    rows = _tested_cells(side, batches, rng)
    if min(side[rows].sum(), (~side[rows]).sum()) < MIN_CELLS:
        return 1.0
    tested, side = counts[rows if cells is None else cells[rows]], side[rows]
    strata = numbered(None if batches is None else batches[rows], len(rows))
    sizes = np.maximum(tested.sum(1), 1.0)
    genes, typical = overdispersed_genes(tested, sizes)
    if len(genes) < 3:
        return 1.0
    dense = tested[:, genes].toarray().astype(np.float64)
    population = OnePopulation.fit(dense, sizes, strata)
    n_first = np.bincount(strata, side).astype(np.int64)
    n_dimensions = min(_n_dimensions(len(rows)), len(genes) - 1)

    scores = _scores(_logs(dense, sizes), typical, strata, n_dimensions)
    observed = _log_odds(separation(scores, side, strata)[0])
    drawn: list[float] = []
    for number in (N_FIRST_DRAWS, N_DRAWS):
        while len(drawn) < number:
            scores = _scores(_logs(*population.redraw(rng)), typical, strata, n_dimensions)
            drawn.append(_log_odds(best_separation(scores, n_first, strata)))
        pvalue = _tail(observed, np.array(drawn))
        if not DOUBT[0] < pvalue < DOUBT[1]:
            break
    return pvalue


def _scores(logs: np.ndarray, typical: np.ndarray, strata: np.ndarray, n_dimensions: int) -> np.ndarray:
    """Orthonormal scores ``(m, K)`` by the genes whose logs vary most for their mean, chosen anew in each draw."""
    chosen = np.argsort(-logs.var(0) / typical, kind="stable")[:TESTED_GENES]
    return _components(logs[:, np.sort(chosen)], strata, n_dimensions)[0]


def _log_odds(share: float) -> float:
    return float(logit(np.clip(share, 1e-9, 1 - 1e-9)))


def _tail(observed: float, drawn: np.ndarray) -> float:
    """Probability that a further draw exceeds the observed value, for normal draws of unknown mean and variance."""
    n = len(drawn)
    deviation = max(drawn.std(ddof=1), 1e-6) * np.sqrt(1 + 1 / n)
    return float(student.sf((observed - drawn.mean()) / deviation, n - 1))


def _tested_cells(side: np.ndarray, batches: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Positions of a random sample of the cells of batches with both sides, all of these batches in it again."""
    strata = comparable_strata(side, batches)
    if not strata:
        return np.zeros(0, dtype=np.int64)
    rows = np.concatenate(strata)
    smaller = min(side[rows].sum(), (~side[rows]).sum())
    number = np.clip(int(np.ceil(MIN_SIDE_CELLS * len(rows) / smaller)), TESTED_CELLS, MAX_TESTED_CELLS)
    if number >= len(rows):
        return np.sort(rows)
    sampled = rng.choice(rows, number, replace=False)
    kept = comparable_strata(side[sampled], None if batches is None else batches[sampled])
    return np.sort(sampled[np.concatenate(kept)]) if kept else np.zeros(0, dtype=np.int64)


def overdispersed_genes(counts: sp.csr_array, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of at most :data:`CANDIDATE_GENES` genes whose logs vary most for their mean, and the typical variance.

    The variance of the logs is compared with the median of :data:`N_SIMILAR_GENES` genes of similar mean, so that no kind of
    noise is assumed.

    Parameters
    ----------
    counts
        ``(m, G)`` counts.
    sizes
        ``(m,)`` library sizes.
    """
    m = counts.shape[0]
    scale = (np.median(sizes) / sizes).astype(np.float32)
    logs = np.log1p(counts.data.astype(np.float32) * np.repeat(scale, np.diff(counts.indptr))).astype(np.float64)

    def sums(values: np.ndarray) -> np.ndarray:
        return sp.csr_array((values, counts.indices, counts.indptr), counts.shape).T @ np.ones(m)

    enough = np.flatnonzero(sums((logs > 0).astype(np.float64)) >= min(MIN_EXPRESSING, max(m // 20, 2)))
    mean = sums(logs)[enough] / m
    variance = sums(logs**2)[enough] / m - mean**2
    order = np.argsort(mean, kind="stable")
    if len(order):
        size = min(N_SIMILAR_GENES, len(order))
        blocks = order[len(order) % size :].reshape(-1, size)
        typical = np.interp(mean, np.median(mean[blocks], axis=1), np.median(variance[blocks], axis=1))
    else:
        typical = mean
    typical = np.maximum(typical, 1e-12)
    chosen = np.sort(np.argsort(-variance / typical, kind="stable")[:CANDIDATE_GENES])
    return enough[chosen], typical[chosen]
