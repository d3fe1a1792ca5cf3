"""Evidence that the two sides of a split of cells are two cell types, over plain arrays.

Notation: ``m`` cells, ``G`` genes; ``side`` is true for the cells of the first side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from .trees import indicator, joining_distance

#: Effect of a gene that counts: cells of one side exceed cells of the other in four of five pairs, ...
MIN_AUROC = 0.8
#: ... its mean log is higher by a doubling, ...
MIN_LOG2_DIFFERENCE = 1.0
#: ... and the rank-sum test has a standard score that noise in 15,000 genes exceeds in one split of a hundred, with
#: clusters that were not found in the same counts. At least nine cells a side are required to reach it.
MIN_Z = 5.0
#: Number of genes, up on either side, that make a type of a split with a narrow neck, and a continuum of another. Halves of
#: sorted blood cells, by 2-means, have at most one such gene, halves of a cell line 10 to 50; sorted types, 20 and more.
MIN_TYPE_GENES, MIN_CONTINUUM_GENES = 1, 10

Verdict = Literal["type", "suspicious", "continuum", "none"]


@dataclass(frozen=True)
class SplitGenes:
    """Difference of the genes between the two sides of a split; all arrays ``(G,)``, float64.

    The effects are of the same cells that were clustered, so they describe the split but don't prove it: clusters of one
    population differ, too.

    Attributes
    ----------
    auroc
        Probability that a cell of the first side has a higher expression than one of the second, ties counting half; NaN
        for genes that cannot be :attr:`up` on either side, by a bound.
    z
        Standard score of the rank-sum test, stratified by batch (van Elteren 1960), with the variance without ties, which
        is the largest; NaN where ``auroc`` is.
    log2_difference
        Mean of ``log2(1 + x)`` of the normalised counts ``x`` on the first side, minus that on the second.
    detection
        ``(2, G)`` fraction of the cells of each side that express the gene.
    """

    auroc: np.ndarray
    z: np.ndarray
    log2_difference: np.ndarray
    detection: np.ndarray

    @property
    def up(self) -> np.ndarray:
        """``(2, G)`` whether the gene passes the stated effect, up on the first or on the second side."""
        direction = np.array([[1.0], [-1.0]])
        return (
            (direction * (self.auroc - 0.5) > MIN_AUROC - 0.5)
            & (direction * self.log2_difference > MIN_LOG2_DIFFERENCE)
            & (direction * self.z > MIN_Z)
        )

    @property
    def n_up(self) -> tuple[int, int]:
        """Number of genes up on the first side, and on the second."""
        first, second = self.up.sum(1)
        return int(first), int(second)

    def top(self, n_top: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of at most ``n_top`` genes :attr:`up` on the first side, and on the second, the highest AUROC first."""
        first, second = (
            passing[np.lexsort((-abs(self.log2_difference[passing]), -abs(self.auroc[passing] - 0.5)))][:n_top]
            for passing in map(np.flatnonzero, self.up)
        )
        return first, second


@dataclass(frozen=True)
class GroupedExpression:
    """Expression of cells in groups, added up once, so that any groups can be compared with any others.

    Attributes
    ----------
    expression
        ``(m, G)`` log-normalised expression (``log1p``), not negative.
    groups, strata
        ``(m,)`` group and batch of each cell, numbered from 0.
    sizes
        ``(S, L)`` number of cells of each group in each batch.
    sums, detected
        For each batch, ``(L, G)`` summed expression of its groups, and number of cells that express a gene.
    """

    expression: sp.csc_array
    groups: np.ndarray
    strata: np.ndarray
    sizes: np.ndarray
    sums: list[sp.csr_array]
    detected: list[sp.csr_array]

    @classmethod
    def build(cls, expression: sp.csr_array, groups: np.ndarray, batches: np.ndarray | None = None) -> Self:
        """Add up the expression ``(m, G)`` of the cells of each group ``(m,)``, within each batch ``(m,)``."""
        strata = numbered(batches, len(groups))
        n_groups, n_strata = int(groups.max()) + 1, int(strata.max()) + 1
        cells, combined = np.arange(len(groups)), strata * n_groups + groups
        members = sp.csr_array((np.ones(len(groups)), (combined, cells)), shape=(n_strata * n_groups, len(groups)))
        expressed = (expression.data > 0).astype(np.float64)
        detected = sp.csr_array((expressed, expression.indices, expression.indptr), shape=expression.shape)
        sums, numbers = (
            [added[start : start + n_groups] for start in range(0, n_strata * n_groups, n_groups)]
            for added in (members @ expression.astype(np.float64), members @ detected)
        )
        sizes = np.bincount(combined, minlength=n_strata * n_groups).reshape(n_strata, n_groups)
        return cls(sp.csc_array(expression), groups, strata, sizes, sums, numbers)

    def compare(self, first: np.ndarray, second: np.ndarray) -> SplitGenes:
        """Compare two sides gene by gene.

        With batches, cells are compared within each batch that has cells of both sides, and the results are averaged with
        the weights ``n_1 n_2 / (n_1 + n_2 + 1)`` of van Elteren (1960), so that a difference of batches is none of sides.

        Parameters
        ----------
        first, second
            ``(L,)`` whether a group is on the first side, and on the second.

        Returns
        -------
        The effects; no difference (``auroc`` NaN) if no batch has cells of both sides.

        References
        ----------
        van Elteren. On the combination of independent two sample tests of Wilcoxon. Bulletin of the International
        Statistical Institute 1960.
        """
        n_genes = self.expression.shape[1]
        sides = np.stack([first, second])
        numbers = self.sizes @ sides.T
        strata = np.flatnonzero((numbers > 0).all(1))
        if len(strata) == 0:
            missing = np.full(n_genes, np.nan)
            return SplitGenes(missing, missing, np.zeros(n_genes), np.zeros((2, n_genes)))
        n_first, n_second = numbers[strata].T
        weights = n_first * n_second / (n_first + n_second + 1)
        weights /= weights.sum()

        means = np.stack([(sides @ self.sums[stratum]) / numbers[stratum][:, None] for stratum in strata])
        detections = np.stack([(sides @ self.detected[stratum]) / numbers[stratum][:, None] for stratum in strata])
        change = np.tensordot(weights, means[:, 0] - means[:, 1], 1) / np.log(2)
        detection = np.tensordot(weights, detections, 1)

        # The AUROC is highest when all cells of a side that express the gene exceed all cells of the other.
        undetected = 0.5 * np.tensordot(weights, np.prod(1 - detections, axis=1), 1)
        candidates = np.flatnonzero(
            (abs(change) > MIN_LOG2_DIFFERENCE) & (np.where(change > 0, *detection) + undetected > MIN_AUROC)
        )
        auroc, values = np.full(n_genes, np.nan), self.expression[:, candidates]
        on_side = sides[:, self.groups]
        auroc[candidates] = weights @ np.stack(
            [areas_under_curve(values, *(on_side & (self.strata == stratum))) for stratum in strata]
        )
        variance = weights**2 @ ((n_first + n_second + 1) / (12 * n_first * n_second))
        return SplitGenes(auroc, (auroc - 0.5) / np.sqrt(variance), change, detection)


def numbered(batches: np.ndarray | None, n: int) -> np.ndarray:
    """Number of the batch of each of ``n`` cells, from 0 and none empty; 0 if there are no batches."""
    return np.zeros(n, dtype=np.int64) if batches is None else np.unique(batches, return_inverse=True)[1]


def comparable_strata(side: np.ndarray, batches: np.ndarray | None) -> list[np.ndarray]:
    """Positions of the cells of each batch that has cells of both sides; of all cells if there are no batches."""
    codes = numbered(batches, len(side))
    strata = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    return [rows for rows in strata if 0 < side[rows].sum() < len(rows)]


def areas_under_curve(values: sp.csc_array, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """AUROC ``(G,)`` of each gene for the first cells against the second, ties counting half, by the sum of ranks.

    Parameters
    ----------
    values
        ``(m, G)`` values, none negative, compared as float32; only those above zero are sorted.
    first, second
        ``(m,)`` whether a cell is one of the first, and of the second; both have cells.
    """
    n_genes = values.shape[1]
    n_first, n_second = int(first.sum()), int(second.sum())
    compared = np.flatnonzero((values.data > 0) & (first | second)[values.indices])
    # Bits of positive numbers are in the order of the numbers: one sort of integers by gene, value and side.
    keys = np.repeat(np.arange(n_genes, dtype=np.int64) << 32, np.diff(values.indptr))[compared]
    keys |= values.data[compared].astype(np.float32).view(np.uint32).astype(np.int64)
    keys = np.sort(keys << 1 | first[values.indices[compared]])
    keys, is_first = keys >> 1, keys & 1

    # Groups of equal values in a gene; its zeros are another group, below all others.
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    counts = np.diff(starts, append=len(keys))
    gene = keys[starts] >> 32
    n_positive = np.bincount(gene, counts, n_genes)
    n_zero = n_first + n_second - n_positive
    mean_rank = starts - (np.cumsum(n_positive) - n_positive)[gene] + n_zero[gene] + (counts + 1) / 2
    n_of_first = np.add.reduceat(is_first, starts) if len(starts) else counts
    zeros_first = n_first - np.bincount(gene, n_of_first, n_genes)
    rank_sum = np.bincount(gene, mean_rank * n_of_first, n_genes) + zeros_first * (n_zero + 1) / 2
    return (rank_sum - n_first * (n_first + 1) / 2) / (n_first * n_second)


def split_distance(spaces: Sequence[np.ndarray], side: np.ndarray, batches: np.ndarray | None = None) -> float:
    """Distance of the two sides, corrected for the noise of single cells; the mean over several feature spaces.

    One minus the mean cosine between cells of both sides, divided by the geometric mean of the mean cosines between
    different cells of each (see :func:`~scrcl.cluster.trees.joining_distance`): about 0 for the halves of one
    population, however noisy its cells, 1 for sides that have nothing in common, and above 1 for opposite ones. It says
    how far the sides are apart, not whether there is a gap between them.

    Parameters
    ----------
    spaces
        Arrays ``(m, f_i)`` of features of the cells, centred over all cells of the data set.
    side
        ``(m,)`` whether a cell is on the first side.
    batches
        ``(m,)`` number of the batch of each cell. The distance is then the mean over the batches that have at least two
        cells on both sides, weighted by ``n_1 n_2 / (n_1 + n_2)``.

    Returns
    -------
    The distance; 0 if no batch has two cells on both sides.
    """
    strata = [rows for rows in comparable_strata(side, batches) if 2 <= side[rows].sum() <= len(rows) - 2]
    if not strata:
        return 0.0
    distances, weights = [], []
    for rows in strata:
        members = indicator(side[rows].astype(np.int64))
        sizes = members.sum(axis=0)
        sums = [members.T @ normalize(space[rows].astype(np.float64)) for space in spaces]
        distances.append(np.mean([joining_distance(total @ total.T, sizes)[0, 1] for total in sums]))
        weights.append(np.prod(sizes) / sizes.sum())
    return float(np.average(distances, weights=weights))


def verdict(narrow_neck: bool, n_up: tuple[int, int]) -> Verdict:
    """What a split is, from its connectivity and its genes.

    Parameters
    ----------
    narrow_neck
        Whether few edges of the cell graph cross the split for the size of the smaller side.
    n_up
        Number of genes with a large effect, up on either side (:attr:`SplitGenes.n_up`).

    Returns
    -------
    - ``"type"``: a narrow neck and at least :data:`MIN_TYPE_GENES` genes.
    - ``"suspicious"``: a narrow neck and fewer genes, as between batches, or between doublets and single cells.
    - ``"continuum"``: no narrow neck, but at least :data:`MIN_CONTINUUM_GENES` genes.
    - ``"none"``: neither.
    """
    n_genes = sum(n_up)
    if narrow_neck:
        return "type" if n_genes >= MIN_TYPE_GENES else "suspicious"
    return "continuum" if n_genes >= MIN_CONTINUUM_GENES else "none"
