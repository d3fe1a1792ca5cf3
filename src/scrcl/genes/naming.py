"""Names for groups of cells from lists of marker genes, over plain arrays.

Notation: ``n`` cells, ``G`` genes, ``K`` groups of cells, ``L`` lists of marker genes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from scrcl.utils.words import counted

from .associations import Groups

#: Name of a group that no list fits.
NO_NAME = "none of these"
#: Share of random gene sets that may score as high as a list that fits, over all lists together.
SIGNIFICANCE = 0.05
#: Lowest score of a list that fits.
MIN_SCORE = 0.2
#: Share of resamples that lead to the same name, below which the name is reported as uncertain.
MIN_CONFIDENCE = 0.8
#: Cells of average expression added to each group, which shrinks means over few cells.
PSEUDO_CELLS = 2.0
#: Number of genes of similar mean expression from which random sets are drawn.
N_SIMILAR_GENES = 2000
#: Least number of cells that express a gene of a random set.
MIN_EXPRESSING = 3
#: Standard errors by which a gene that is up exceeds its low level.
MIN_STANDARD_ERRORS = 3.0
#: Added to the variance within groups, which may be 0.
MIN_VARIANCE = 1e-3


@dataclass(frozen=True)
class GroupLevels:
    """Expression of genes in groups of cells.

    Attributes
    ----------
    sizes
        ``(K,)`` number of cells.
    mean
        ``(K, G)`` mean log-normalised expression.
    variance
        ``(G,)`` variance within the groups, pooled.
    n_expressing
        ``(K, G)`` number of cells with at least one count.
    """

    sizes: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    n_expressing: np.ndarray

    @classmethod
    def from_blocks(cls, blocks: Iterable[tuple[slice, sp.csr_array]], groups: Groups) -> "GroupLevels":
        """Levels from log-normalised expression, read once in blocks of cells."""
        total: np.ndarray | float = 0.0
        squares: np.ndarray | float = 0.0
        expressing: np.ndarray | float = 0.0
        for rows, block in blocks:
            codes = groups.codes[rows]
            indicator = (np.ones(len(codes)), (codes, np.arange(len(codes))))
            member = sp.csr_array(indicator, shape=(groups.n_groups, len(codes)))
            present = block.copy()
            present.data = np.ones_like(block.data)
            total = total + (member @ block).toarray()
            squares = squares + (member @ block.power(2)).toarray()
            expressing = expressing + (member @ present).toarray()
        sizes = groups.sizes
        mean = np.asarray(total) / sizes[:, None]
        within = np.maximum((squares - sizes[:, None] * mean**2).sum(0), 0) / max(sizes.sum() - len(sizes), 1)
        return cls(sizes, mean, within, np.asarray(expressing))

    @classmethod
    def concatenate(cls, parts: "list[GroupLevels]") -> "GroupLevels":
        """Levels of the genes of several modalities of the same cells."""
        return cls(
            parts[0].sizes,
            np.concatenate([part.mean for part in parts], 1),
            np.concatenate([part.variance for part in parts]),
            np.concatenate([part.n_expressing for part in parts], 1),
        )

    def merged(self, members: np.ndarray) -> "GroupLevels":
        """Levels of unions of groups, ``members`` ``(M, K)`` of which are true; the variance stays that within the groups."""
        sizes = members @ self.sizes
        mean = (members * self.sizes) @ self.mean / sizes[:, None]
        return GroupLevels(sizes, mean, self.variance, members.astype(float) @ self.n_expressing)

    @cached_property
    def overall(self) -> np.ndarray:
        """``(G,)`` mean over all cells."""
        return self.sizes @ self.mean / self.sizes.sum()

    @cached_property
    def shrunken(self) -> np.ndarray:
        """``(K, G)`` mean of the cells of each group and of :data:`PSEUDO_CELLS` average ones."""
        weight = (self.sizes / (self.sizes + PSEUDO_CELLS))[:, None]
        return weight * self.mean + (1 - weight) * self.overall

    @cached_property
    def expressed_by_mean(self) -> np.ndarray:
        """Numbers of the genes from which random sets are drawn, by increasing mean."""
        n_expressing = self.n_expressing.sum(0)
        expressed = np.flatnonzero(n_expressing >= min(MIN_EXPRESSING, n_expressing.max()))
        return expressed[np.argsort(self.overall[expressed], kind="stable")]


@dataclass(frozen=True)
class GeneScores:
    r"""Scores of genes in groups, from 0 to 1, relative to the highest group and to the groups with low levels.

    The means :math:`m_{kg}` of a gene over the groups are divided into high and low ones so that the sum of squares
    between them is largest. With the mean of the low ones, :math:`l_g`, the highest of all, :math:`h_g`, and the
    standard deviation within groups, :math:`\sigma_g`, the difference :math:`\delta_{kg} = \max(m_{kg} - l_g, 0)` enters
    the score relative to the difference of high and low, to the deviation of cells, and to the level itself,

    .. math:: s_{kg} = \Bigl(\frac{\delta_{kg}}{h_g - l_g}\Bigr)^2 \sqrt{\frac{\delta_{kg}}{\delta_{kg} + \sigma_g}}
              \, \frac{\delta_{kg}}{m_{kg}}.

    So the score does not depend on how many groups or cells express the gene, as long as some do not. It is low for a gene
    that is far higher in another group, and for one that all groups express.

    Attributes
    ----------
    low
        ``(G,)`` mean of the groups with low levels.
    high
        ``(G,)`` highest level.
    deviation
        ``(G,)`` standard deviation within groups.
    """

    low: np.ndarray
    high: np.ndarray
    deviation: np.ndarray

    @classmethod
    def fit(cls, mean: np.ndarray, variance: np.ndarray) -> "GeneScores":
        """Divide the means ``(K, G)`` of each gene into low and high ones."""
        n_groups, n_genes = mean.shape
        ordered = np.cumsum(np.sort(mean, axis=0), axis=0)
        n_low = np.arange(1, n_groups)[:, None]
        low = ordered[:-1] / n_low
        high = (ordered[-1] - ordered[:-1]) / (n_groups - n_low)
        best = (n_low * (n_groups - n_low) * (high - low) ** 2).argmax(0), np.arange(n_genes)
        return cls(low[best], mean.max(0), np.sqrt(variance + MIN_VARIANCE))

    def relative_height(self, mean: np.ndarray) -> np.ndarray:
        """Position of means ``(K, G)`` between the low and the high level, from 0 to 1."""
        return np.clip((mean - self.low) / np.maximum(self.high - self.low, 1e-12), 0, 1)

    def up(self, mean: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Whether means ``(K, G)`` are nearer to the high than to the low level, and significantly above the low one."""
        standard_errors = (mean - self.low) / self.deviation * np.sqrt(sizes)[:, None]
        return (self.relative_height(mean) > 0.5) & (standard_errors > MIN_STANDARD_ERRORS)

    def __call__(self, mean: np.ndarray) -> np.ndarray:
        """Scores ``(K, G)`` of means."""
        above = np.maximum(mean - self.low, 0)
        noise = np.sqrt(above / (above + self.deviation))
        return self.relative_height(mean) ** 2 * noise * above / np.maximum(mean, 1e-12)

    def select(self, columns: np.ndarray) -> "GeneScores":
        """The scores of some genes."""
        return GeneScores(self.low[columns], self.high[columns], self.deviation[columns])


@dataclass(frozen=True)
class Naming:
    """Fit of lists of marker genes to groups of cells.

    Attributes
    ----------
    lists
        Numbers of the genes of each list.
    min_support
        Fraction of the genes of a list more than which must be up.
    gene_score
        ``(K, G)`` score of each gene, see :class:`GeneScores`.
    up
        ``(K, G)`` whether the gene is nearer to its high than to its low level, and significantly above the low one.
    score
        ``(K, L)`` mean score of the genes of each list.
    support
        ``(K, L)`` fraction of the genes of each list that are up.
    pvalue
        ``(K, L)`` share of random gene sets with at least this score, times the number of lists (at most 1).
    choice
        ``(K,)`` number of the list that names the group, or ``L`` for none.
    best
        ``(K,)`` number of that list or, if there is none, of the one with the highest score.
    confidence
        ``(K,)`` share of resampled lists and cells that lead to the same choice.
    alternative
        ``(K,)`` the most frequent other choice of the resamples; the same as ``choice`` if there is no other.
    """

    lists: list[np.ndarray]
    min_support: float
    gene_score: np.ndarray
    up: np.ndarray
    score: np.ndarray
    support: np.ndarray
    pvalue: np.ndarray
    choice: np.ndarray
    best: np.ndarray
    confidence: np.ndarray
    alternative: np.ndarray


def name_groups(
    levels: GroupLevels,
    lists: list[np.ndarray],
    min_support: float,
    seed: int,
    measured: np.ndarray | None = None,
    n_random: int = 1000,
    n_samples: int = 200,
) -> Naming:
    """Name each group by the list of marker genes that fits it best, or by none.

    A list fits if its mean score is at least :data:`MIN_SCORE` and above that of nearly all of ``n_random`` random sets of as
    many genes with similar mean expression, and more than a fraction ``min_support`` of its genes are up. Of the lists that
    fit, the one with the highest score is chosen; if less than half of a list was ``measured`` ``(L,)``, its score is
    multiplied by twice that fraction. Genes of the lists are resampled ``n_samples`` times with replacement, and means within
    their standard errors, to find how much the choice depends on single genes and cells.

    There are at least two groups. ``lists`` are numbers of genes, at least one each.
    """
    rng = np.random.default_rng(seed)
    n_groups, n_lists = len(levels.sizes), len(lists)
    measured_weight = np.ones(n_lists) if measured is None else np.minimum(2 * measured, 1)
    mean = levels.shrunken
    scores = GeneScores.fit(mean, levels.variance)
    gene_score = scores(mean)
    up = scores.up(mean, levels.sizes)
    score = np.stack([gene_score[:, genes].mean(1) for genes in lists], 1)
    support = np.stack([up[:, genes].mean(1) for genes in lists], 1)

    pvalue, threshold = np.empty_like(score), np.empty_like(score)
    by_mean = levels.expressed_by_mean
    for number, genes in enumerate(lists):
        positions = np.searchsorted(levels.overall[by_mean], levels.overall[genes])
        random = random_scores(gene_score[:, by_mean], positions, n_random, rng)
        reached = (random >= score[:, [number]]).sum(1)
        pvalue[:, number] = np.minimum((1 + reached) / (1 + random.shape[1]) * n_lists, 1)
        threshold[:, number] = np.quantile(random, 1 - SIGNIFICANCE / n_lists, axis=1)

    def fitting(score: np.ndarray, support: np.ndarray) -> np.ndarray:
        return (score > threshold) & (score >= MIN_SCORE) & (support > min_support)

    def choose(fits: np.ndarray, score: np.ndarray) -> np.ndarray:
        return np.where(fits.any(1), np.where(fits, score * measured_weight, -np.inf).argmax(1), n_lists)

    fits = fitting(score, support)
    choice = choose(fits, score)
    best = np.where(choice < n_lists, choice, (score * measured_weight).argmax(1))

    listed, positions = np.unique(np.concatenate(lists), return_inverse=True)
    ends = np.cumsum([len(genes) for genes in lists])
    list_positions = np.split(positions, ends[:-1])
    listed_scores, error = scores.select(listed), np.sqrt(levels.variance[listed] / levels.sizes[:, None])
    n_chosen, rows = np.zeros((n_groups, n_lists + 1)), np.arange(n_groups)
    for _ in range(n_samples):
        drawn = mean[:, listed] + error * rng.standard_normal(error.shape)
        drawn_score, drawn_up = listed_scores(drawn), listed_scores.up(drawn, levels.sizes)
        resampled = [rng.choice(genes, len(genes)) for genes in list_positions]
        resampled_score = np.stack([drawn_score[:, genes].mean(1) for genes in resampled], 1)
        resampled_support = np.stack([drawn_up[:, genes].mean(1) for genes in resampled], 1)
        n_chosen[rows, choose(fitting(resampled_score, resampled_support), resampled_score)] += 1
    confidence = n_chosen[rows, choice] / n_samples
    n_chosen[rows, choice] = 0
    alternative = np.where(n_chosen.any(1), n_chosen.argmax(1), choice)
    return Naming(lists, min_support, gene_score, up, score, support, pvalue, choice, best, confidence, alternative)


def random_scores(
    gene_score: np.ndarray,
    positions: np.ndarray,
    n_random: int,
    rng: np.random.Generator,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Mean scores ``(K, B)`` of random sets of genes with similar means; for a single gene, the scores of all similar genes.

    The genes of ``gene_score`` ``(K, G)`` are ordered by their mean; the genes of a set are near ``positions``, and may have weights.
    """
    n_genes = gene_score.shape[1]
    window = min(N_SIMILAR_GENES, n_genes)
    first = np.clip(positions - window // 2, 0, n_genes - window)
    if len(first) == 1:
        return gene_score[:, first[0] : first[0] + window]
    weights = np.full(len(first), 1.0) if weights is None else weights
    total = np.zeros((len(gene_score), n_random))
    for start, weight in zip(first, weights, strict=True):
        total += weight * gene_score[:, start + rng.integers(window, size=n_random)]
    return total / weights.sum()


def explain_name(naming: Naming, group: int, names: list[str], genes: np.ndarray, absent: dict[str, list[str]]) -> str:
    """Why a group has no name, or why its name is uncertain, in a sentence; empty if the name is certain.

    ``names`` are the names of the lists, ``genes`` ``(G,)`` the names of the genes, and ``absent`` the genes of each list that are not
    in the data.
    """
    best, alternative, named = naming.best[group], naming.alternative[group], naming.choice[group] < len(names)
    name, columns, score = names[best], naming.lists[best], naming.score[group, best]
    up = naming.up[group, columns]
    if not named and not naming.support[group].any():
        return "No gene of the lists is higher here than in the other clusters."
    reason = ""
    if not named and naming.support[group, best] <= naming.min_support:
        genes_up = f" ({', '.join(genes[columns[up]])})" if up.any() else ""
        verb = "is" if up.sum() == 1 else "are"
        reason = (
            f"{name} scores highest, but only {up.sum()} of its {counted(len(columns), 'gene')} {verb} up{genes_up}."
        )
    elif not named and score < MIN_SCORE:
        reason = (
            f"{name} scores highest, but its genes are barely higher here than elsewhere "
            f"({score:.2f}; at least {MIN_SCORE:.2f} is required)."
        )
    elif not named:
        reason = (
            f"{name} scores highest, but {naming.pvalue[group, best] / len(names):.1%} of random sets of as many genes "
            f"score as high (at most {SIGNIFICANCE / len(names):.1%} is allowed)."
        )
    elif len(columns) == 1:
        reason = f"The name is based on a single gene, {genes[columns[0]]}."
    elif naming.confidence[group] < MIN_CONFIDENCE and alternative < len(names):
        reason = f"{names[alternative]} fits nearly as well."
    elif naming.confidence[group] < MIN_CONFIDENCE:
        reason = f"The name depends on few genes of {name}, without which no list fits."
    missing = absent.get(name, [])
    if missing and (reason or len(missing) > len(columns)):
        reason += f" The data lack {len(missing)} of the {counted(len(missing) + len(columns), 'gene')} of {name}."
    return reason.strip()
