r"""Associations between cells and genes, over plain arrays.

The loss reads the map :math:`H W + b` of cells to genes only through its product with the gene embedding
:math:`\Gamma`, so it determines the refined positions :math:`Z_v` of the cells and leaves open where a gene lies among
them. The position of a gene is therefore read off the cells that express it. Either expression is regressed on
:math:`[Z_1, Z_2]` (:meth:`GeneMap.fit`), or of all maps that give the same refined positions the one nearest to the
expression is taken (:meth:`GeneMap.nearest`). The association of a cell with a gene is what this says of the cell.

Notation: ``n`` cells, ``G`` genes, ``h`` hidden units, ``c`` refined dimensions, ``p`` coordinates, ``K`` groups of cells.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from scrcl.utils.sizes import BLOCK_ENTRIES, SAMPLE_CELLS

#: Ridge penalty, relative to the mean variance of the refined coordinates. Small: it only steadies the solution.
RIDGE = 1e-6


def log_expression(counts: sp.csr_array, totals: np.ndarray, target: float) -> sp.csr_array:
    """``log1p`` of sparse counts ``(n, G)`` scaled to ``target`` counts a cell, float64."""
    scaled = sp.csr_array(counts, dtype=np.float64, copy=True)
    scaled.data *= np.repeat(target / totals, np.diff(scaled.indptr))
    np.log1p(scaled.data, out=scaled.data)
    return scaled


def spread(expression: sp.csr_array) -> np.ndarray:
    """Standard deviation ``(G,)`` of each column; 0 where a gene does not vary."""
    n = expression.shape[0]
    mean = expression.sum(axis=0) / n
    variance = expression.power(2).sum(axis=0) / n - mean**2
    return np.sqrt(np.where(variance > 1e-12 * np.maximum(mean, 1) ** 2, variance, 0))


def _divide(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Columns divided by standard deviations, 0 where that is 0."""
    return np.divide(values, by, out=np.zeros_like(values), where=by > 0)


def _solver(centred: np.ndarray) -> np.ndarray:
    """Inverse ``(p, p)`` of the steadied Gram matrix of centred positions ``(n, p)``."""
    gram = centred.T @ centred
    n_coordinates = len(gram)
    return np.linalg.pinv(gram + RIDGE * np.trace(gram) / n_coordinates * np.eye(n_coordinates), hermitian=True)


@dataclass(frozen=True)
class GeneMap:
    """Where the genes lie among the cells.

    Attributes
    ----------
    center
        ``(p,)`` mean position of the cells it was fitted on.
    loadings
        ``(p, G)`` coefficients of the standardised log-normalised expression of each gene.
    """

    center: np.ndarray
    loadings: np.ndarray

    @classmethod
    def fit(cls, positions: np.ndarray, expression: sp.csr_array) -> "GeneMap":
        """Regress the log-normalised expression ``(n, G)`` of each gene on the refined positions ``(n, p)`` of the cells."""
        positions = positions.astype(np.float64)
        center = positions.mean(0)
        centred = positions - center
        # The positions are centred, so that centring the expression too would change nothing.
        return cls(center, _solver(centred) @ _divide((expression.T @ centred).T, spread(expression)))

    @classmethod
    def nearest(
        cls, hidden: np.ndarray, expression: sp.csr_array, weight: np.ndarray, bias: np.ndarray, embedding: np.ndarray
    ) -> "GeneMap":
        r"""Of all maps that refine cells as the network does, the one nearest to the expression.

        The refined position of a cell is the direction of :math:`(H W + b)\, \Gamma`. For every invertible :math:`M`, all
        :math:`W'` with :math:`W' \Gamma M^{-1} = W \Gamma`, and :math:`b'` likewise, give the same with the embedding
        :math:`\Gamma M^{-1}`. With the regression :math:`W_0` of the expression on the hidden units, the least sum of squares
        among these has :math:`W' = W_0 + (W \Gamma M - W_0 \Gamma)\, \Gamma^+`, where :math:`M` is the regression of
        :math:`H W_0 \Gamma` on :math:`H W \Gamma + b \Gamma`. Associations are relative to their mean over the cells.

        Parameters
        ----------
        hidden
            ``(n, h)`` hidden units of the cells.
        expression
            ``(n, G)`` log-normalised expression.
        weight, bias, embedding
            The map of the network after the genes, :math:`W \Gamma` of shape ``(h, c)`` and :math:`b \Gamma` of shape
            ``(c,)``, and :math:`\Gamma` of shape ``(G, c)``.
        """
        regression = cls.fit(hidden, expression)
        center, loadings = regression.center, regression.loadings
        centred = hidden - center
        refined = centred @ weight + (center @ weight + bias)
        wanted = loadings @ embedding.astype(np.float64)
        change = np.linalg.lstsq(refined, centred @ wanted, rcond=None)[0]
        return cls(center, loadings + (weight @ change - wanted) @ np.linalg.pinv(embedding.astype(np.float64)))

    def __call__(self, positions: np.ndarray, columns: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Associations ``(n, G)``, or of some genes, of cells at positions ``(n, p)``."""
        return (positions - self.center) @ self.loadings[:, columns]

    def select(self, columns: np.ndarray | slice) -> "GeneMap":
        """The map of some of the genes."""
        return GeneMap(self.center, self.loadings[:, columns])

    def blocks(self, positions: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Associations in dense blocks of cells."""
        step = max(1, BLOCK_ENTRIES // self.loadings.shape[1])
        for start in range(0, len(positions), step):
            rows = slice(start, min(start + step, len(positions)))
            yield rows, self(positions[rows])

    def top(self, positions: np.ndarray, n_top: int) -> sp.csr_array:
        """The highest positive associations of each cell, float32, in a sparse ``(n, G)`` matrix."""
        n_genes = self.loadings.shape[1]
        n_top = min(n_top, n_genes)
        values = np.empty((len(positions), n_top), dtype=np.float32)
        genes = np.empty((len(positions), n_top), dtype=np.int32)
        for rows, block in self.blocks(positions):
            genes[rows] = np.sort(np.argpartition(-block, n_top - 1, axis=1)[:, :n_top], axis=1)
            values[rows] = np.maximum(np.take_along_axis(block, genes[rows], 1), 0)
        starts = np.arange(0, values.size + 1, n_top)
        kept = sp.csr_array((values.ravel(), genes.ravel(), starts), shape=(len(positions), n_genes))
        kept.eliminate_zeros()
        return kept

    def to_dict(self) -> dict[str, Any]:
        """The map as plain arrays."""
        return asdict(self)


@dataclass(frozen=True)
class Groups:
    """A division of cells.

    Attributes
    ----------
    codes
        ``(n,)`` number of the group of each cell.
    n_groups
        Number of groups ``K``; none is empty.
    """

    codes: np.ndarray
    n_groups: int

    @property
    def sizes(self) -> np.ndarray:
        """``(K,)`` number of cells."""
        return np.bincount(self.codes, minlength=self.n_groups)

    def means(self, values: Any) -> np.ndarray:
        """Mean ``(K, d)`` of dense or sparse rows ``(n, d)`` in each group."""
        n = len(self.codes)
        member = sp.csr_array((np.ones(n), (self.codes, np.arange(n))), shape=(self.n_groups, n))
        total = member @ values
        return (total.toarray() if sp.issparse(total) else total) / self.sizes[:, None]

    def rest(self, means: np.ndarray) -> np.ndarray:
        """Mean ``(K, d)`` of all cells outside each group, from the means in the groups."""
        sizes = self.sizes[:, None]
        return ((means * sizes).sum(0) - means * sizes) / (sizes.sum() - sizes)


@dataclass(frozen=True)
class Markers:
    """How groups of cells are associated with genes; all arrays ``(K, G)``, float64.

    Attributes
    ----------
    score
        Mean association in the group less the mean over all other cells, in standard deviations of the expression.
    standard_error
        Heteroscedasticity-robust standard error (HC0) of the score.
    specificity
        Mean association in the group less the highest mean in another group.
    fraction_in, fraction_out
        Fraction of the cells inside and outside the group that express the gene.
    log2_fold_change
        Logarithm to base 2 of the ratio of the mean normalised counts inside and outside.
    """

    score: np.ndarray
    standard_error: np.ndarray
    specificity: np.ndarray
    fraction_in: np.ndarray
    fraction_out: np.ndarray
    log2_fold_change: np.ndarray


def contrast_weights(positions: np.ndarray, groups: Groups) -> np.ndarray:
    """The weights ``(K, n)`` with which standardised expression enters the score of each group.

    The score is a contrast of a regression: the coefficients times the difference of two mean positions. It is linear
    in the expression of the gene, whose weights these are; they depend on no gene, and each row sums to zero.
    """
    centred = positions - positions.mean(0, dtype=np.float64)
    means = groups.means(centred)
    return (means - groups.rest(means)) @ _solver(centred) @ centred.T


def marker_statistics(positions: np.ndarray, expression: sp.csr_array, groups: Groups) -> Markers:
    """Score all genes for at least two groups, from refined positions ``(n, p)`` and log-normalised expression ``(n, G)``."""
    gene_map = GeneMap.fit(positions, expression)
    deviation = spread(expression)
    weights = contrast_weights(positions, groups)
    in_group = (groups.means(positions) - gene_map.center) @ gene_map.loadings
    score = in_group - groups.rest(in_group)
    highest = np.sort(in_group, axis=0)[-2:]
    other = np.where(in_group == highest[-1], highest[-2], highest[-1])

    variance = np.zeros_like(score)
    mean = expression.mean(axis=0)
    for rows, fitted in gene_map.blocks(positions):
        observed = _divide(expression[rows].toarray() - mean, deviation)
        variance += weights[:, rows] ** 2 @ (observed - fitted) ** 2

    expressed, counts = expression.copy(), expression.copy()
    expressed.data = np.ones_like(expression.data)
    counts.data = np.expm1(expression.data)
    fraction, abundance = groups.means(expressed), groups.means(counts)
    return Markers(
        score,
        np.sqrt(variance),
        in_group - other,
        fraction,
        groups.rest(fraction),
        np.log2((abundance + 1e-9) / (groups.rest(abundance) + 1e-9)),
    )


def permutation_pvalues(
    positions: np.ndarray, expression: sp.csr_array, groups: Groups, n_permutations: int, seed: int
) -> np.ndarray:
    r"""One-sided p-values ``(K, G)`` of the scores against permuted cells.

    Null: given the positions and the groups, the expression of a gene is exchangeable between cells. The expression
    profiles are dealt out anew to the cells and scored again; :math:`p = (1 + b) / (1 + B)`, with :math:`b` of
    :math:`B` permuted scores that reach the observed one (Phipson & Smyth 2010), which is valid for any :math:`B`.

    Parameters
    ----------
    positions, expression, groups
        As in :func:`marker_statistics`.
    n_permutations
        Number of permutations ``B``.
    seed
        Seed of the permutations, and of the choice of cells where there are more than 20,000. The choice depends on the
        groups only, so that the test stays exact.
    """
    rng = np.random.default_rng(seed)
    weights = contrast_weights(positions, groups)
    rows = _tested_cells(groups, rng)
    if len(rows) < len(positions):
        weights = weights[:, rows]
        weights -= weights.mean(1, keepdims=True)
        expression = expression[rows]
    by_gene = sp.csr_array(expression.T)
    # Sums in another order differ by rounding; equal scores must count as equal.
    tolerance = 1e-9 * np.abs(weights).max(1)[:, None] * np.maximum(abs(by_gene).sum(axis=1), 1e-300)
    observed = (by_gene @ weights.T).T - tolerance
    reached = np.zeros(observed.shape, dtype=np.int64)
    n_groups, n = weights.shape
    step = max(1, min(64, BLOCK_ENTRIES // (4 * n_groups * max(n, by_gene.shape[0]))))
    for start in range(0, n_permutations, step):
        number = min(step, n_permutations - start)
        dealt = np.concatenate([weights[:, rng.permutation(n)] for _ in range(number)])
        permuted = (by_gene @ np.ascontiguousarray(dealt.T)).T.reshape(number, *observed.shape)
        reached += (permuted >= observed).sum(0)
    return (1 + reached) / (1 + n_permutations)


def _tested_cells(groups: Groups, rng: np.random.Generator) -> np.ndarray:
    """All cells or, of too many, at most an equal number of each group."""
    if len(groups.codes) <= SAMPLE_CELLS:
        return np.arange(len(groups.codes))
    most = SAMPLE_CELLS // groups.n_groups
    chosen = [rng.permutation(np.flatnonzero(groups.codes == group))[:most] for group in range(groups.n_groups)]
    return np.sort(np.concatenate(chosen))
