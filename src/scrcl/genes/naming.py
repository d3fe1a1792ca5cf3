"""Names for clusters from lists of marker genes, over plain arrays."""

from dataclasses import dataclass

import numpy as np

#: The answer where no list fits.
NONE = "none of these"
#: Share of random gene sets of the same size that may score as high as a list, over all lists together.
LEVEL = 0.05


@dataclass(frozen=True)
class MarkerList:
    """A list of marker genes.

    Attributes
    ----------
    columns
        Those of its genes that have a score; at least one.
    n_genes
        Number of its genes that the data have. Those without a score vary too little to speak for any group.
    """

    columns: np.ndarray
    n_genes: int


@dataclass(frozen=True)
class Naming:
    """How well lists of marker genes fit groups of cells.

    Attributes
    ----------
    score
        ``(K, L)`` mean score of the markers of each list, in standard errors of the mean of as many random genes.
    support
        ``(K, L)`` fraction of the markers that the data have which are up in the group.
    pvalue
        ``(K, L)`` share of random gene sets of the same size with at least this mean score, times the number of
        lists (at most 1).
    choice
        ``(K,)`` number of the list chosen, or ``L`` for none.
    confidence
        ``(K,)`` share of resampled lists that lead to the same choice.
    """

    score: np.ndarray
    support: np.ndarray
    pvalue: np.ndarray
    choice: np.ndarray
    confidence: np.ndarray


def name_groups(
    scores: np.ndarray,
    up: np.ndarray,
    lists: list[MarkerList],
    min_support: float,
    seed: int,
    n_samples: int = 1000,
) -> Naming:
    """Choose the list of marker genes that fits each group best, or none.

    A list fits if hardly any random set of as many genes has as high a mean score in the group, and enough of its
    markers are up in it. The confidence is how often the choice stays the same when each list is resampled with
    replacement, so that a name that hangs on few genes, or that a similar list contests, gets a low one.

    Parameters
    ----------
    scores
        ``(K, G)`` scores of the genes in each group.
    up
        ``(K, G)`` whether the gene is higher in the group than in the other cells beyond doubt.
    lists
        The lists.
    min_support
        More than this fraction of the markers of a list must be up.
    seed
        Seed of the random sets and of the resampling.
    n_samples
        Number of random gene sets and of resampled lists.
    """
    rng = np.random.default_rng(seed)
    n_groups, n_genes = scores.shape
    center, deviation = scores.mean(1, keepdims=True), np.maximum(scores.std(1, keepdims=True), 1e-12)
    sizes = np.array([len(markers.columns) for markers in lists])
    shares = np.array([len(markers.columns) / markers.n_genes for markers in lists])

    def scored(columns: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        mean = np.stack([scores[:, genes].mean(1) for genes in columns], 1)
        support = np.stack([up[:, genes].mean(1) for genes in columns], 1) * shares
        return (mean - center) / deviation * np.sqrt(sizes), support

    score, support = scored([markers.columns for markers in lists])
    pvalue, threshold = np.empty_like(score), np.empty_like(score)
    for size in np.unique(sizes):
        if size == 1:
            random = scores
        else:
            draws = np.stack([rng.choice(n_genes, size, replace=False) for _ in range(n_samples)])
            random = scores[:, draws].mean(2)
        random = (random - center) / deviation * np.sqrt(size)
        reached = (random[:, :, None] >= score[:, None, sizes == size]).sum(1)
        pvalue[:, sizes == size] = (1 + reached) / (1 + random.shape[1])
        threshold[:, sizes == size] = np.quantile(random, 1 - LEVEL / len(lists), axis=1)[:, None]

    def choose(score: np.ndarray, support: np.ndarray) -> np.ndarray:
        fitting = np.where((score > threshold) & (support > min_support), score, -np.inf)
        return np.where(np.isfinite(fitting).any(1), fitting.argmax(1), len(lists))

    choice = choose(score, support)
    agree = np.zeros(n_groups)
    for _ in range(n_samples):
        agree += choose(*scored([rng.choice(markers.columns, len(markers.columns)) for markers in lists])) == choice
    return Naming(score, support, np.minimum(pvalue * len(lists), 1), choice, agree / n_samples)
