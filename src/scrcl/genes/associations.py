r"""Associations between cells and genes, over plain arrays.

The loss depends on the map :math:`H W + b` of cells to genes only through its product with the gene embedding
:math:`\Gamma`, so it determines the refined positions :math:`Z_v` of the cells, but not the position of a gene among
them. This is found from the cells that express the gene: expression is either regressed on :math:`[Z_1, Z_2]`
(:meth:`GeneMap.fit`), or approximated by the nearest of all maps that give the same refined positions
(:meth:`GeneMap.nearest`). The association of a cell with a gene is the fitted expression of the cell.

Notation: ``n`` cells, ``G`` genes, ``h`` hidden units, ``c`` refined dimensions, ``p`` coordinates, ``K`` groups of cells.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import scipy.sparse as sp
import torch

from scrcl.nn.sparse import product, to_torch
from scrcl.utils.sizes import BLOCK_ENTRIES, SAMPLE_CELLS

#: Ridge penalty, relative to the mean variance of the refined coordinates; small, for numerical stability only.
RIDGE = 1e-6
#: Permutations that are scored at once, few enough for the cache.
PERMUTATIONS = 32


def log_expression(counts: sp.csr_array, totals: np.ndarray, target: float) -> sp.csr_array:
    """``log1p`` of sparse counts ``(n, G)`` scaled to ``target`` counts a cell, float64."""
    scaled = sp.csr_array(counts, dtype=np.float64, copy=True)
    scaled.data *= np.repeat(target / totals, np.diff(scaled.indptr))
    np.log1p(scaled.data, out=scaled.data)
    return scaled


def standard_deviations(expression: sp.csr_array) -> np.ndarray:
    """Standard deviation ``(G,)`` of each column; 0 for a gene that does not vary."""
    n = expression.shape[0]
    mean = expression.sum(axis=0) / n
    variance = expression.power(2).sum(axis=0) / n - mean**2
    return np.sqrt(np.where(variance > 1e-12 * np.maximum(mean, 1) ** 2, variance, 0))


def _divide(values: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Columns divided by their standard deviations; 0 where that is 0."""
    return np.divide(values, deviations, out=np.zeros_like(values), where=deviations > 0)


def _solver(centred: np.ndarray) -> np.ndarray:
    """Inverse ``(p, p)`` of the regularised Gram matrix of centred positions ``(n, p)``."""
    gram = centred.T @ centred
    n_coordinates = len(gram)
    return np.linalg.pinv(gram + RIDGE * np.trace(gram) / n_coordinates * np.eye(n_coordinates), hermitian=True)


@dataclass(frozen=True)
class GeneMap:
    """Positions of the genes among the cells.

    Attributes
    ----------
    center
        ``(p,)`` mean position of the cells that the map was fitted to.
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
        # With centred positions, centring the expression as well makes no difference.
        return cls(center, _solver(centred) @ _divide((expression.T @ centred).T, standard_deviations(expression)))

    @classmethod
    def nearest(
        cls, hidden: np.ndarray, expression: sp.csr_array, weight: np.ndarray, bias: np.ndarray, embedding: np.ndarray
    ) -> "GeneMap":
        r"""The map nearest to the expression among all that refine cells as the network does.

        The refined position of a cell is the direction of :math:`(H W + b)\, \Gamma`. For every invertible :math:`M`, all
        :math:`W'` with :math:`W' \Gamma M^{-1} = W \Gamma`, and :math:`b'` likewise, give the same positions with the embedding
        :math:`\Gamma M^{-1}`. With the regression :math:`W_0` of the expression on the hidden units, the map of
        least squares among these has :math:`W' = W_0 + (W \Gamma M - W_0 \Gamma)\, \Gamma^+`, where :math:`M` is the regression of
        :math:`H W_0 \Gamma` on :math:`H W \Gamma + b \Gamma`. Associations are relative to their mean over the cells.

        From hidden units ``(n, h)`` of the cells, their expression ``(n, G)``, log-normalised, and of the network
        ``weight`` :math:`W \Gamma`, ``(h, c)``, ``bias`` :math:`b \Gamma`, ``(c,)``, and ``embedding`` :math:`\Gamma`, ``(G, c)``.
        """
        regression = cls.fit(hidden, expression)
        center, loadings = regression.center, regression.loadings
        centred = hidden - center
        refined = centred @ weight + (center @ weight + bias)
        projected = loadings @ embedding.astype(np.float64)
        change = np.linalg.lstsq(refined, centred @ projected, rcond=None)[0]
        return cls(center, loadings + (weight @ change - projected) @ np.linalg.pinv(embedding.astype(np.float64)))

    def __call__(self, positions: np.ndarray, columns: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Associations ``(n, G)`` of cells at positions ``(n, p)``, with all genes or some columns."""
        return (positions - self.center) @ self.loadings[:, columns]

    def select(self, columns: np.ndarray | slice) -> "GeneMap":
        """The map of some genes."""
        return GeneMap(self.center, self.loadings[:, columns])

    def blocks(self, positions: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Associations in dense blocks of cells."""
        step = max(1, BLOCK_ENTRIES // self.loadings.shape[1])
        for start in range(0, len(positions), step):
            rows = slice(start, min(start + step, len(positions)))
            yield rows, self(positions[rows])

    def top(self, positions: np.ndarray, n_top: int) -> sp.csr_array:
        """The highest positive associations of each cell, float32, as a sparse ``(n, G)`` matrix."""
        n_genes = self.loadings.shape[1]
        n_top = min(n_top, n_genes)
        values = np.empty((len(positions), n_top), dtype=np.float32)
        genes = np.empty((len(positions), n_top), dtype=np.int32)
        for rows, block in self.blocks(positions):
            genes[rows] = np.sort(np.argpartition(-block, n_top - 1, axis=1)[:, :n_top], axis=1)
            values[rows] = np.maximum(np.take_along_axis(block, genes[rows], 1), 0)
        starts = np.arange(0, values.size + 1, n_top)
        associations = sp.csr_array((values.ravel(), genes.ravel(), starts), shape=(len(positions), n_genes))
        associations.eliminate_zeros()
        return associations

    def to_dict(self) -> dict[str, np.ndarray]:
        """The map as plain arrays."""
        return asdict(self)


@dataclass(frozen=True)
class Groups:
    """A partition of cells into groups.

    Attributes
    ----------
    codes
        ``(n,)`` number of the group of each cell.
    n_groups
        Number of groups ``K``, none of them empty.
    """

    codes: np.ndarray
    n_groups: int

    @property
    def sizes(self) -> np.ndarray:
        """``(K,)`` number of cells."""
        return np.bincount(self.codes, minlength=self.n_groups)

    def means(self, values: np.ndarray | sp.csr_array) -> np.ndarray:
        """Mean ``(K, d)`` of dense or sparse rows ``(n, d)`` in each group."""
        n = len(self.codes)
        member = sp.csr_array((np.ones(n), (self.codes, np.arange(n))), shape=(self.n_groups, n))
        total = member @ values
        return (total.toarray() if sp.issparse(total) else total) / self.sizes[:, None]

    def means_outside(self, means: np.ndarray) -> np.ndarray:
        """Mean ``(K, d)`` of the cells outside each group, from the means inside."""
        sizes = self.sizes[:, None]
        return ((means * sizes).sum(0) - means * sizes) / (sizes.sum() - sizes)


@dataclass(frozen=True)
class Markers:
    """Associations of groups of cells with genes; all arrays ``(K, G)``, float64.

    Attributes
    ----------
    score
        Mean association in the group minus the mean over all other cells, in standard deviations of the expression.
    standard_error
        Heteroscedasticity-robust standard error (HC0) of the score.
    specificity
        Mean association in the group minus the highest mean in another group.
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
    """The weight ``(K, n)`` of the standardised expression of each cell in the score of each group.

    The score is a contrast of a regression: the coefficients times the difference of two mean positions. It is linear
    in the expression of the gene. The weights are the same for all genes, and each row sums to zero.
    """
    centred = positions - positions.mean(0, dtype=np.float64)
    means = groups.means(centred)
    return (means - groups.means_outside(means)) @ _solver(centred) @ centred.T


def marker_statistics(positions: np.ndarray, expression: sp.csr_array, groups: Groups) -> Markers:
    """Score all genes for at least two groups, from refined positions ``(n, p)`` and log-normalised expression ``(n, G)``."""
    gene_map = GeneMap.fit(positions, expression)
    deviation = standard_deviations(expression)
    weights = contrast_weights(positions, groups)
    in_group = (groups.means(positions) - gene_map.center) @ gene_map.loadings
    score = in_group - groups.means_outside(in_group)
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
        groups.means_outside(fraction),
        np.log2((abundance + 1e-9) / (groups.means_outside(abundance) + 1e-9)),
    )


def permutation_pvalues(
    positions: np.ndarray, expression: sp.csr_array, groups: Groups, n_permutations: int, seed: int
) -> np.ndarray:
    r"""One-sided p-values ``(K, G)`` of the scores of :func:`marker_statistics` against ``n_permutations`` of the cells.

    Null hypothesis: given the positions and the groups, the expression of a gene is exchangeable between cells. The expression
    profiles are permuted between the cells and scored again; :math:`p = (1 + b) / (1 + B)`, with :math:`b` of the :math:`B`
    permuted scores at least as high as the observed one. Valid for any :math:`B` (Phipson & Smyth, Statistical Applications in
    Genetics and Molecular Biology 2010). Of more than 20,000 cells, a sample is tested; it depends on the groups and the seed
    only, so that the test stays exact.
    """
    rng = np.random.default_rng(seed)
    weights = contrast_weights(positions, groups)
    rows = _tested_cells(groups, rng)
    if len(rows) < len(positions):
        weights = weights[:, rows]
        weights -= weights.mean(1, keepdims=True)
        expression = expression[rows]
    by_gene = sp.csr_array(expression.T)
    # The order of a sum changes its rounding; equal scores must count as equal.
    tolerance = 1e-9 * np.abs(weights).max(1)[:, None] * np.maximum(abs(by_gene).sum(axis=1), 1e-300)
    observed = torch.from_numpy(by_gene @ weights.T - tolerance.T)
    # The sum over groups of score times size inside times size outside is zero, so one group follows from the others.
    sides = groups.sizes * (len(groups.codes) - groups.sizes)
    last = int(sides.argmax())
    reached = torch.zeros(observed.shape, dtype=torch.int64)
    sparse = to_torch(by_gene, np.float64)
    for start in range(0, n_permutations, PERMUTATIONS):
        orders = [rng.permutation(len(rows)) for _ in range(min(PERMUTATIONS, n_permutations - start))]
        columns = np.stack(orders, axis=1)
        others = torch.zeros((len(observed), len(orders)), dtype=torch.float64)
        for group in np.delete(np.arange(groups.n_groups), last):
            scores = product(sparse, torch.from_numpy(weights[group][columns]))
            reached[:, group] += (scores >= observed[:, group, None]).sum(1)
            others.add_(scores, alpha=float(sides[group] / sides[last]))
        reached[:, last] += (-others >= observed[:, last, None]).sum(1)
    return (1 + reached.numpy().T) / (1 + n_permutations)


def _tested_cells(groups: Groups, rng: np.random.Generator) -> np.ndarray:
    """All cells, or a sample with at most the same number of each group."""
    if len(groups.codes) <= SAMPLE_CELLS:
        return np.arange(len(groups.codes))
    n_each = SAMPLE_CELLS // groups.n_groups
    sample = [rng.permutation(np.flatnonzero(groups.codes == group))[:n_each] for group in range(groups.n_groups)]
    return np.sort(np.concatenate(sample))
