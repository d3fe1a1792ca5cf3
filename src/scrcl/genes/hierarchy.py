r"""Names for groups of cells from a hierarchy of weighted marker lists, at the level that the evidence supports, over plain arrays.

Notation: ``n`` cells, ``G`` genes, ``K`` groups of cells, ``L`` names, of which each may have a parent.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np
import scipy.sparse as sp

from scrcl.utils.words import counted

from .naming import MIN_CONFIDENCE, MIN_SCORE, SIGNIFICANCE, GeneScores, GroupLevels, random_scores

#: Genes of a name that are scored, those that are the most frequent and specific.
N_SCORED = 40
#: Share of the score of a name that the best name below it must reach.
MIN_CHILD_SCORE = 0.8
#: Weighted share of the scored genes that must be up, and their least number.
MIN_SUPPORT, MIN_UP = 0.2, 3
#: Share of the cells of a group that must score higher for a name than for each other one with the same parent, if it has a parent.
MIN_CELL_SHARE = 0.65
#: Cells that are scored at once.
CELLS_AT_ONCE = 2000


@dataclass(frozen=True)
class Hierarchy:
    """Names that may have a parent, each after its parent.

    Attributes
    ----------
    parents
        ``(L,)`` number of the parent, -1 for none.
    """

    parents: np.ndarray

    @cached_property
    def below(self) -> np.ndarray:
        """``(L, L)`` whether the name of the column is that of the row or below it."""
        below = np.eye(len(self.parents), dtype=bool)
        for child in range(len(self.parents) - 1, -1, -1):
            if self.parents[child] >= 0:
                below[self.parents[child]] |= below[child]
        return below

    def children(self, name: int) -> np.ndarray:
        """Numbers of the names right below one, or of those without a parent for -1."""
        return np.flatnonzero(self.parents == name)

    def path(self, name: int) -> list[int]:
        """Numbers from the top to a name."""
        path = []
        while name >= 0:
            path.append(name)
            name = int(self.parents[name])
        return path[::-1]

    def common(self, names: np.ndarray) -> int:
        """The lowest name at or above all of these, of which -1 is none and does not count; -1 if there is none."""
        paths = [self.path(int(name)) for name in names if name >= 0]
        shared = [each for each in paths[0] if all(each in path for path in paths)] if paths else []
        return shared[-1] if shared else -1

    @cached_property
    def leaves(self) -> np.ndarray:
        """``(L,)`` whether no name is below."""
        return self.below.sum(1) == 1


def distinctive_genes(frequency: sp.csr_array, hierarchy: Hierarchy) -> sp.csr_array:
    r"""Weights ``(L, G)`` of the most distinctive genes of each name.

    The weight of a gene is the geometric mean of its frequency :math:`f_{lg}` and of its specificity,
    :math:`f_{lg} / (f_{lg} + \sum_{l'} f_{l'g})`, where the sum is over all names without others below that are neither above
    nor below this one. The frequency ``(L, G)`` is relative to the most frequent gene of a name.
    """
    dense = frequency.toarray()
    related = hierarchy.below | hierarchy.below.T
    others = (hierarchy.leaves & ~related).astype(float) @ dense
    weights = np.zeros_like(dense)
    listed = dense > 0
    weights[listed] = dense[listed] / np.sqrt(dense[listed] + others[listed])
    if weights.shape[1] > N_SCORED:
        lowest = np.partition(weights, -N_SCORED, axis=1)[:, [-N_SCORED]]
        weights[weights < lowest] = 0
    return sp.csr_array(weights)


@dataclass(frozen=True)
class SampledCells:
    """Single cells of groups.

    Attributes
    ----------
    values
        ``(n, M)`` log-normalised expression of some genes.
    columns
        ``(M,)`` numbers of these genes.
    groups
        ``(n,)`` number of the group of each cell.
    n_cells
        ``(n,)`` number of cells of the group for which each stands.
    """

    values: sp.csr_array
    columns: np.ndarray
    groups: np.ndarray
    n_cells: np.ndarray

    def merged(self, members: np.ndarray) -> "SampledCells":
        """The cells of disjoint unions of groups, ``members`` ``(U, K)`` of which are true."""
        groups = np.where(members.any(0), members.argmax(0), -1)[self.groups]
        rows = np.flatnonzero(groups >= 0)
        return SampledCells(self.values[rows], self.columns, groups[rows], self.n_cells[rows])


@dataclass(frozen=True)
class LevelNaming:
    """Fit of the names of a hierarchy to groups of cells.

    Attributes
    ----------
    weights
        ``(L, G)`` weights of the scored genes.
    gene_score
        ``(K, G)`` score of each gene, from 0 to 1.
    up
        ``(K, G)`` whether the gene is up, as in :class:`~.naming.Naming`.
    score, support, pvalue
        ``(K, L)`` mean score of the scored genes of each name, share of them that is up, both weighted, and the share of random
        gene sets with at least this score, times the number of names (at most 1).
    passed
        ``(K, L)`` share of the resamples that lead to each name or to one below it.
    fits
        ``(K, L)`` whether the name fits.
    cell_share
        ``(K, L)`` share of the cells that score higher for the name, or one below it, than for another name with the same
        parent, where this is least; 1 for names without a parent.
    alternative
        ``(K, L)`` number of that other name; the name itself if there is none.
    choice
        ``(K,)`` number of the name, -1 for none.
    best
        ``(K,)`` number of the name with the highest score, of those at or below the choice.
    """

    weights: sp.csr_array
    gene_score: np.ndarray
    up: np.ndarray
    score: np.ndarray
    support: np.ndarray
    pvalue: np.ndarray
    passed: np.ndarray
    fits: np.ndarray
    cell_share: np.ndarray
    alternative: np.ndarray
    choice: np.ndarray
    best: np.ndarray

    def genes_of(self, name: int) -> np.ndarray:
        """Numbers of the scored genes of a name, those with the highest weight first."""
        part = slice(self.weights.indptr[name], self.weights.indptr[name + 1])
        return self.weights.indices[part][np.argsort(-self.weights.data[part], kind="stable")]


def name_by_level(
    levels: GroupLevels,
    frequency: sp.csr_array,
    hierarchy: Hierarchy,
    seed: int,
    start: np.ndarray | None = None,
    reference: GroupLevels | None = None,
    cells: SampledCells | None = None,
    n_random: int = 1000,
    n_samples: int = 200,
) -> LevelNaming:
    """Name each group at the finest level of the hierarchy that the evidence supports.

    The score of a gene is the mean of its score relative to the other groups (:class:`~.naming.GeneScores`) and of the fraction of
    the cells that express it, which counts where all groups are of one kind; that of a name is the weighted mean over its
    distinctive genes (:func:`distinctive_genes`). Genes are resampled, and means within their standard errors. Each resample leads
    from the top to the child that has the highest score, itself or below it, as long as this is at least
    :data:`MIN_CHILD_SCORE` of the score of the name itself. A group has the finest name to which at least :data:`~.naming.MIN_CONFIDENCE` of the resamples lead, and
    that fits itself, or a name below it: a name fits if its score is at least :data:`~.naming.MIN_SCORE` and above that of nearly all
    random gene sets of similar mean expression, and enough of its genes are up.

    The mean of a group does not show whether it is a mixture. So single cells are scored as well, in the same way, and the name
    stays at the parent if less than :data:`MIN_CELL_SHARE` of them score higher for the child than for another child.

    Parameters
    ----------
    levels
        Expression in the groups, of which there are at least two.
    frequency
        ``(L, G)`` weight of each gene of each name, relative to the highest of the name.
    hierarchy
        Parents of the names.
    seed
        Seed of the random sets and the resampling.
    start
        ``(K,)`` number of a name at or below which the choice is; by default all names are possible.
    reference
        Groups relative to which genes are scored; by default the groups themselves.
    cells
        Single cells of the groups; by default only the groups are scored.
    n_random, n_samples
        Number of random gene sets, and of resamples.
    """
    rng = np.random.default_rng(seed)
    weights = distinctive_genes(frequency, hierarchy)
    mean = levels.shrunken
    scores = GeneScores.fit(mean if reference is None else reference.shrunken, levels.variance)
    fraction = levels.n_expressing / levels.sizes[:, None]
    gene_score = (scores(mean) + fraction) / 2
    up = scores.up(mean, levels.sizes)
    total = np.maximum(weights.sum(axis=1), 1e-12)
    score, support = (np.asarray(values @ weights.T) / total for values in (gene_score, up.astype(float)))
    n_up = up @ (weights > 0).astype(float).T

    listed = np.unique(weights.indices)
    columns = sp.csr_array(weights[:, listed])
    chosen, error = scores.select(listed), np.sqrt(levels.variance[listed] / levels.sizes[:, None])
    rows = np.repeat(np.arange(len(total)), np.diff(columns.indptr))
    sizes = np.diff(columns.indptr)
    resampled = np.empty((n_samples, *score.shape))
    for sample in range(n_samples):
        drawn = mean[:, listed] + error * rng.standard_normal(error.shape)
        values = (chosen(drawn) + fraction[:, listed]) / 2
        part = columns.copy()
        times = np.concatenate([rng.multinomial(size, np.full(size, 1 / size)) for size in sizes if size])
        part.data = columns.data * times
        drawn_total = np.bincount(rows, part.data, minlength=len(total))
        resampled[sample] = (values @ part.T) / np.maximum(drawn_total, 1e-12)

    pvalue = _pvalues(levels, gene_score, weights, score, n_random, rng)
    enough = n_up >= np.minimum(MIN_UP, (sizes + 1) // 2)
    fits = (score >= MIN_SCORE) & (pvalue <= SIGNIFICANCE) & (support >= MIN_SUPPORT) & enough
    supported = (fits.astype(int) @ hierarchy.below.T.astype(int)) > 0
    passed = _passed(resampled, hierarchy, start)
    cell_share, alternative = _cell_shares(cells, weights, scores, hierarchy, len(mean))
    sure = np.where(cell_share >= MIN_CELL_SHARE, passed * supported, 0)
    choice = np.full(len(mean), -1) if start is None else start.copy()
    best = np.empty(len(mean), dtype=int)
    for group in range(len(mean)):
        choice[group] = _deepest(sure[group], hierarchy, int(choice[group]))
        inside = np.ones(len(total), dtype=bool) if choice[group] < 0 else hierarchy.below[choice[group]]
        best[group] = np.where(inside, score[group] + fits[group], -1).argmax()
    return LevelNaming(
        weights, gene_score, up, score, support, pvalue, passed, fits, cell_share, alternative, choice, best
    )


def _cell_shares(
    cells: SampledCells | None, weights: sp.csr_array, scores: GeneScores, hierarchy: Hierarchy, n_groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shares ``(K, L)`` of the cells that prefer a name to its closest alternative, and this alternative.

    Cells with equal scores do not count.
    """
    n_names = len(hierarchy.parents)
    share, alternative = np.ones((n_groups, n_names)), np.tile(np.arange(n_names), (n_groups, 1))
    if cells is None:
        return share, alternative
    of_genes, listed = scores.select(cells.columns), sp.csr_array(weights[:, cells.columns]).toarray()
    listed /= np.maximum(listed.sum(1, keepdims=True), 1e-12)
    highest = np.empty((len(cells.groups), n_names))
    for first in range(0, len(highest), CELLS_AT_ONCE):
        values = cells.values[first : first + CELLS_AT_ONCE].toarray()
        score = (of_genes(values) + (values > 0)) / 2 @ listed.T
        highest[first : first + CELLS_AT_ONCE] = np.stack([score[:, below].max(1) for below in hierarchy.below], 1)
    for parent in range(n_names):
        for name, other in permutations(hierarchy.children(parent), 2):
            wins, losses = (
                np.bincount(cells.groups, cells.n_cells * prefers, minlength=n_groups)
                for prefers in (highest[:, name] > highest[:, other], highest[:, name] < highest[:, other])
            )
            against = np.where(wins + losses > 0, wins / np.maximum(wins + losses, 1e-12), 1)
            closer = against < share[:, name]
            share[closer, name], alternative[closer, name] = against[closer], other
    return share, alternative


def _deepest(sure: np.ndarray, hierarchy: Hierarchy, start: int) -> int:
    """The deepest name with a confidence ``sure`` ``(L,)`` of at least :data:`~.naming.MIN_CONFIDENCE`, from ``start`` on."""
    while True:
        children = hierarchy.children(start)
        children = children[sure[children] >= MIN_CONFIDENCE]
        if not len(children):
            return start
        start = int(children[sure[children].argmax()])


def _passed(resampled: np.ndarray, hierarchy: Hierarchy, start: np.ndarray | None = None) -> np.ndarray:
    """Share ``(K, L)`` of the resamples ``(S, K, L)`` of scores that lead to each name, from ``start`` ``(K,)`` on."""
    highest = np.stack([resampled[:, :, below].max(2) for below in hierarchy.below], 2)
    passes = np.zeros(resampled.shape, dtype=bool)
    for name in range(-1, len(hierarchy.parents)):
        children = hierarchy.children(name)
        if not len(children):
            continue
        lowest = MIN_SCORE if name < 0 else MIN_CHILD_SCORE * resampled[:, :, name]
        here = np.ones(resampled.shape[:2], dtype=bool) if name < 0 else passes[:, :, name]
        if start is not None:
            here = here & (start < 0) if name < 0 else here | (start == name)
        of_children = highest[:, :, children]
        winner = of_children.argmax(2)
        goes_on = here & (of_children.max(2) >= lowest)
        for number, child in enumerate(children):
            passes[:, :, child] = goes_on & (winner == number)
    return passes.mean(0)


def _pvalues(
    levels: GroupLevels,
    gene_score: np.ndarray,
    weights: sp.csr_array,
    score: np.ndarray,
    n_random: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Share ``(K, L)`` of random gene sets with the same weights and similar means that score as high, times ``L``."""
    by_mean = levels.expressed_by_mean
    of_expressed = gene_score[:, by_mean]
    pvalue = np.ones_like(score)
    n_names = len(score.T)
    n_random = max(n_random, round(2 * n_names / SIGNIFICANCE))
    for name in np.flatnonzero((score >= MIN_SCORE).any(0)):
        genes = weights.indices[weights.indptr[name] : weights.indptr[name + 1]]
        values = weights.data[weights.indptr[name] : weights.indptr[name + 1]]
        positions = np.searchsorted(levels.overall[by_mean], levels.overall[genes])
        random = random_scores(of_expressed, positions, n_random, rng, values)
        reached = (random >= score[:, [name]]).sum(1)
        pvalue[:, name] = np.minimum((1 + reached) / (1 + random.shape[1]) * n_names, 1)
    return pvalue


def explain_level(naming: LevelNaming, group: int, hierarchy: Hierarchy, names: list[str], genes: np.ndarray) -> str:
    """Why a group has no name or no finer one, in a sentence; empty if nothing is below its name."""
    choice, best = naming.choice[group], naming.best[group]
    children = hierarchy.children(int(choice))
    if choice >= 0 and not len(children):
        listed = naming.genes_of(int(best))
        return f"The name is based on a single gene, {genes[listed[0]]}." if len(listed) == 1 else ""
    passed = children[np.argsort(-naming.passed[group, children], kind="stable")]
    shares = naming.passed[group, passed]
    if choice < 0 and not naming.fits[group, best]:
        return _explain_misfit(naming, group, best, names, genes)
    if choice >= 0 and shares.sum() < 0.5:
        return f"No name below {names[choice]} fits better than {names[choice]} itself."
    share, alternative = naming.cell_share[group, passed[0]], naming.alternative[group, passed[0]]
    if shares[0] >= MIN_CONFIDENCE and share < MIN_CELL_SHARE:
        return f"Only {share:.0%} of the cells fit {names[passed[0]]} better than {names[alternative]}."
    if shares[0] >= MIN_CONFIDENCE:
        return f"{names[passed[0]]} is likely, but too few of its genes are up."
    if len(passed) > 1 and shares[1] > 0:
        return (
            f"{names[passed[0]]} and {names[passed[1]]} fit about as well "
            f"({shares[0]:.0%} and {shares[1]:.0%} of the resamples)."
        )
    return f"{names[passed[0]]} fits in {shares[0]:.0%} of the resamples only."


def _explain_misfit(naming: LevelNaming, group: int, best: int, names: list[str], genes: np.ndarray) -> str:
    """Why the name with the highest score does not fit."""
    name, score = names[best], naming.score[group, best]
    columns = naming.genes_of(best)
    up = columns[naming.up[group, columns]]
    if not len(columns) or not naming.up[group].any():
        return "No gene of the lists is higher here than in the other clusters."
    if score < MIN_SCORE:
        return (
            f"{name} scores highest, but its genes are barely higher here than elsewhere "
            f"({score:.2f}; at least {MIN_SCORE:.2f} is required)."
        )
    if naming.pvalue[group, best] > SIGNIFICANCE:
        return f"{name} scores highest, but random sets of as many genes often score as high."
    shown = f" ({', '.join(genes[up[:5]])})" if len(up) else ""
    verb = "is" if len(up) == 1 else "are"
    return f"{name} scores highest, but only {len(up)} of its {counted(len(columns), 'most distinctive gene')} {verb} up{shown}."
