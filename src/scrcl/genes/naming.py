"""Names for groups of cells from lists of marker genes, over plain arrays.

Notation: ``n`` cells, ``G`` genes, ``K`` groups of cells, ``L`` lists of marker genes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from .associations import Groups

#: The answer where no list fits.
NONE = "none of these"
#: Share of random gene sets that may score as high as a list that fits, over all lists together.
LEVEL = 0.05
#: Lowest score of a list that fits.
MIN_SCORE = 0.2
#: Share of resampled lists below which a name is reported as unsure.
SURE = 0.8
#: Cells of average expression that are added to each group, so that a mean over few cells is not an extreme.
PRIOR_CELLS = 2.0
#: Genes with the most similar mean expression, among which random sets are drawn.
SIMILAR_GENES = 2000
#: Cells that must express a gene that random sets are drawn from.
MIN_EXPRESSING = 3
#: Standard errors by which a gene that is up exceeds the groups without it.
MIN_ERRORS = 3.0
#: Added to the variance within groups, so that a gene without any is not infinitely high.
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
    def of(cls, blocks: Iterable[tuple[slice, sp.csr_array]], groups: Groups) -> "GroupLevels":
        """Levels of genes whose log-normalised expression is read in blocks of cells, each block once."""
        total: np.ndarray | float = 0.0
        squares: np.ndarray | float = 0.0
        expressing: np.ndarray | float = 0.0
        for rows, block in blocks:
            codes = groups.codes[rows]
            of_group = (np.ones(len(codes)), (codes, np.arange(len(codes))))
            member = sp.csr_array(of_group, shape=(groups.n_groups, len(codes)))
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
    def join(cls, parts: "list[GroupLevels]") -> "GroupLevels":
        """Levels of the genes of several modalities of the same cells."""
        return cls(
            parts[0].sizes,
            np.concatenate([part.mean for part in parts], 1),
            np.concatenate([part.variance for part in parts]),
            np.concatenate([part.n_expressing for part in parts], 1),
        )

    @property
    def overall(self) -> np.ndarray:
        """``(G,)`` mean over all cells."""
        return self.sizes @ self.mean / self.sizes.sum()


@dataclass(frozen=True)
class GeneScores:
    r"""How high genes are in groups, from 0 to 1, relative to the highest group and to the groups without the gene.

    The means :math:`m_{kg}` of a gene over the groups are divided into high and low ones, where the sum of squares
    between the two is largest. With the mean of the low ones, :math:`l_g`, the highest of all, :math:`h_g`, and the
    standard deviation within groups, :math:`\sigma_g`, the difference :math:`\delta_{kg} = \max(m_{kg} - l_g, 0)` enters
    the score in three ways: how much of the way from low to high it is, how large it is beside the spread of cells, and
    beside the level itself,

    .. math:: s_{kg} = \Bigl(\frac{\delta_{kg}}{h_g - l_g}\Bigr)^2 \sqrt{\frac{\delta_{kg}}{\delta_{kg} + \sigma_g}}
              \, \frac{\delta_{kg}}{m_{kg}}.

    So it does not matter how many of the groups or cells have the gene, as long as some do not; a gene that another
    group has far more of gets a low score; and one that all groups have gets a low score in all.

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
        """Divide the means ``(K, G)`` of each gene in two, where the sum of squares between the parts is largest."""
        n_groups, n_genes = mean.shape
        ordered = np.cumsum(np.sort(mean, axis=0), axis=0)
        n_low = np.arange(1, n_groups)[:, None]
        low = ordered[:-1] / n_low
        high = (ordered[-1] - ordered[:-1]) / (n_groups - n_low)
        best = (n_low * (n_groups - n_low) * (high - low) ** 2).argmax(0), np.arange(n_genes)
        return cls(low[best], mean.max(0), np.sqrt(variance + MIN_VARIANCE))

    def way(self, mean: np.ndarray) -> np.ndarray:
        """How much of the way from low to high means ``(K, G)`` are, from 0 to 1."""
        return np.clip((mean - self.low) / np.maximum(self.high - self.low, 1e-12), 0, 1)

    def errors(self, mean: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """By how many standard errors means ``(K, G)`` exceed the low level."""
        return (mean - self.low) / self.deviation * np.sqrt(sizes)[:, None]

    def __call__(self, mean: np.ndarray) -> np.ndarray:
        """Scores ``(K, G)`` of means."""
        above = np.maximum(mean - self.low, 0)
        return self.way(mean) ** 2 * np.sqrt(above / (above + self.deviation)) * above / np.maximum(mean, 1e-12)

    def select(self, columns: np.ndarray) -> "GeneScores":
        """The same of some genes."""
        return GeneScores(self.low[columns], self.high[columns], self.deviation[columns])


@dataclass(frozen=True)
class Naming:
    """How well lists of marker genes fit groups of cells.

    Attributes
    ----------
    gene_score
        ``(K, G)`` score of each gene, see :class:`GeneScores`.
    up
        ``(K, G)`` whether the gene is nearer to its high than to its low level, and above the low one beyond doubt.
    score
        ``(K, L)`` mean score of the genes of each list.
    support
        ``(K, L)`` fraction of the genes of each list that are up.
    pvalue
        ``(K, L)`` share of random gene sets with at least this score, times the number of lists (at most 1).
    fits
        ``(K, L)`` whether the list fits the group.
    choice
        ``(K,)`` number of the list chosen, or ``L`` for none.
    best
        ``(K,)`` number of the list chosen or, where there is none, of the one with the highest score.
    confidence
        ``(K,)`` share of resampled lists and cells that lead to the same choice.
    rival
        ``(K,)`` the choice that they lead to most often otherwise; the same as ``choice`` where there is no other.
    """

    gene_score: np.ndarray
    up: np.ndarray
    score: np.ndarray
    support: np.ndarray
    pvalue: np.ndarray
    fits: np.ndarray
    choice: np.ndarray
    best: np.ndarray
    confidence: np.ndarray
    rival: np.ndarray


def name_groups(
    levels: GroupLevels,
    lists: list[np.ndarray],
    min_support: float,
    seed: int,
    measured: np.ndarray | None = None,
    n_random: int = 1000,
    n_samples: int = 200,
) -> Naming:
    """Choose the list of marker genes that fits each group best, or none.

    A list fits if its mean score is at least :data:`MIN_SCORE` and above that of nearly all random sets of as many genes
    with similar mean expression, and enough of its genes are up. Of those that fit, the one with the highest score is
    chosen; a list of which less than half was measured counts in proportion to twice that part. Lists are resampled with replacement, and means within their standard errors, to find how much the choice
    depends on single genes and cells.

    Parameters
    ----------
    levels
        Expression of all ``G`` genes in the groups, of which there are at least two.
    lists
        Numbers of the genes of each list; at least one gene each.
    min_support
        More than this fraction of the genes of a list must be up.
    seed
        Seed of the random sets and of the resampling.
    measured
        ``(L,)`` fraction of the genes of each list that the data have; all by default.
    n_random, n_samples
        Number of random gene sets, and of resampled lists.
    """
    rng = np.random.default_rng(seed)
    n_groups, n_lists = len(levels.sizes), len(lists)
    part = np.ones(n_lists) if measured is None else np.minimum(2 * measured, 1)
    overall = levels.overall
    weight = (levels.sizes / (levels.sizes + PRIOR_CELLS))[:, None]
    mean = weight * levels.mean + (1 - weight) * overall
    scores = GeneScores.fit(mean, levels.variance)
    gene_score = scores(mean)
    up = (scores.way(mean) > 0.5) & (scores.errors(mean, levels.sizes) > MIN_ERRORS)
    score = np.stack([gene_score[:, genes].mean(1) for genes in lists], 1)
    support = np.stack([up[:, genes].mean(1) for genes in lists], 1)

    pvalue, threshold = np.empty_like(score), np.empty_like(score)
    similar = _SimilarGenes.of(overall, levels.n_expressing.sum(0))
    for number, genes in enumerate(lists):
        random = similar.mean_scores(gene_score, overall[genes], n_random, rng)
        reached = (random >= score[:, [number]]).sum(1)
        pvalue[:, number] = np.minimum((1 + reached) / (1 + random.shape[1]) * n_lists, 1)
        threshold[:, number] = np.quantile(random, 1 - LEVEL / n_lists, axis=1)

    def fitting(score: np.ndarray, support: np.ndarray) -> np.ndarray:
        return (score > threshold) & (score >= MIN_SCORE) & (support > min_support)

    def choose(fits: np.ndarray, score: np.ndarray) -> np.ndarray:
        return np.where(fits.any(1), np.where(fits, score * part, -np.inf).argmax(1), n_lists)

    fits = fitting(score, support)
    choice = choose(fits, score)
    best = np.where(choice < n_lists, choice, (score * part).argmax(1))

    listed, place = np.unique(np.concatenate(lists), return_inverse=True)
    ends = np.cumsum([len(genes) for genes in lists])
    places = np.split(place, ends[:-1])
    of_listed, error = scores.select(listed), np.sqrt(levels.variance[listed] / levels.sizes[:, None])
    answers = np.zeros((n_groups, n_lists + 1))
    for _ in range(n_samples):
        drawn = mean[:, listed] + error * rng.standard_normal(error.shape)
        drawn_score = of_listed(drawn)
        drawn_up = (of_listed.way(drawn) > 0.5) & (of_listed.errors(drawn, levels.sizes) > MIN_ERRORS)
        chosen = [rng.choice(genes, len(genes)) for genes in places]
        again = np.stack([drawn_score[:, genes].mean(1) for genes in chosen], 1)
        of_up = np.stack([drawn_up[:, genes].mean(1) for genes in chosen], 1)
        answers[np.arange(n_groups), choose(fitting(again, of_up), again)] += 1
    every = np.arange(n_groups)
    confidence = answers[every, choice] / n_samples
    answers[every, choice] = 0
    rival = np.where(answers.any(1), answers.argmax(1), choice)
    return Naming(gene_score, up, score, support, pvalue, fits, choice, best, confidence, rival)


@dataclass(frozen=True)
class _SimilarGenes:
    """The genes that random sets are drawn from.

    Attributes
    ----------
    genes
        Their numbers, by increasing mean expression.
    overall
        That mean.
    """

    genes: np.ndarray
    overall: np.ndarray

    @classmethod
    def of(cls, overall: np.ndarray, n_expressing: np.ndarray) -> "_SimilarGenes":
        genes = np.flatnonzero(n_expressing >= min(MIN_EXPRESSING, n_expressing.max()))
        genes = genes[np.argsort(overall[genes], kind="stable")]
        return cls(genes, overall[genes])

    def mean_scores(
        self, gene_score: np.ndarray, overall: np.ndarray, n_random: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Mean scores ``(K, B)`` of random sets of genes with similar means; a set of one gene is each of these genes."""
        window = min(SIMILAR_GENES, len(self.genes))
        first = np.clip(np.searchsorted(self.overall, overall) - window // 2, 0, len(self.genes) - window)
        if len(first) == 1:
            return gene_score[:, self.genes[first[0] : first[0] + window]]
        total = np.zeros((len(gene_score), n_random))
        for start in first:
            total += gene_score[:, self.genes[start + rng.integers(window, size=n_random)]]
        return total / len(first)


def reasons(
    naming: Naming,
    lists: list[np.ndarray],
    names: list[str],
    genes: np.ndarray,
    absent: dict[str, list[str]],
    min_support: float,
) -> list[str]:
    """Why each group has no name, or why its name is unsure, in a sentence; empty where it is sure.

    Parameters
    ----------
    naming
        The names of the groups.
    lists, names
        Numbers of the genes of each list, and its name.
    genes
        ``(G,)`` names of the genes.
    absent
        Genes of each list, by name, that the data do not have.
    min_support
        As in :func:`name_groups`.
    """
    return [_reason(naming, group, lists, names, genes, absent, min_support) for group in range(len(naming.choice))]


def _reason(
    naming: Naming,
    group: int,
    lists: list[np.ndarray],
    names: list[str],
    genes: np.ndarray,
    absent: dict[str, list[str]],
    min_support: float,
) -> str:
    choice, rival = naming.choice[group], naming.rival[group]
    named, best = choice < len(names), naming.best[group]
    name, columns, own = names[best], lists[best], naming.up[group, lists[best]]
    found = []
    if not named and not naming.support[group].any():
        return "No gene of the lists is higher here than in the other clusters."
    if not named and naming.support[group, best] <= min_support:
        which = f" ({', '.join(genes[columns[own]])})" if own.any() else ""
        found.append(
            f"{name} scores highest, but the number of its genes that are up is {own.sum()} of {len(columns)}{which}."
        )
    elif not named and naming.score[group, best] < MIN_SCORE:
        found.append(
            f"{name} scores highest, but its genes are hardly higher here than elsewhere "
            f"({naming.score[group, best]:.2f}, at least {MIN_SCORE:.2f} needed)."
        )
    elif not named:
        found.append(
            f"{name} scores highest, but {naming.pvalue[group, best] / len(names):.1%} of random sets of as many genes "
            f"score as high (at most {LEVEL / len(names):.1%} allowed)."
        )
    elif len(columns) == 1:
        found.append(f"It rests on one gene, {genes[columns[0]]}.")
    elif naming.confidence[group] < SURE:
        found.append(
            f"{names[rival]} fits nearly as well."
            if rival < len(names)
            else f"It depends on few genes of {name}, without which no list fits."
        )
    missing = absent.get(name, [])
    if missing and (found or len(missing) > len(columns)):
        found.append(f"The data lack {len(missing)} of the {len(missing) + len(columns)} genes of {name}.")
    return " ".join(found)
