"""Names for clusters from lists of marker genes, over plain arrays."""

from dataclasses import dataclass

import numpy as np

#: The answer where no list fits.
NONE = "none of these"
#: Share of random gene sets of the same size that a list must exceed, before the number of lists is taken into account.
LEVEL = 0.05


@dataclass(frozen=True)
class Naming:
    """How well lists of marker genes fit groups of cells.

    Attributes
    ----------
    score
        ``(K, L)`` mean score of the markers of each list.
    pvalue
        ``(K, L)`` share of random gene sets of the same size with at least this mean score, times the number of
        lists (at most 1).
    choice
        ``(K,)`` number of the list chosen, or ``L`` for none.
    confidence
        ``(K,)`` share of resampled lists that lead to the same choice.
    """

    score: np.ndarray
    pvalue: np.ndarray
    choice: np.ndarray
    confidence: np.ndarray


def name_groups(scores: np.ndarray, lists: list[np.ndarray], seed: int, n_samples: int = 1000) -> Naming:
    """Choose the list of marker genes that fits each group, or none.

    The list with the highest mean score is chosen if hardly any random set of as many genes scores as high in the
    group. The confidence is how often the choice stays the same when each list is resampled with replacement, so that a
    name that hangs on a single gene of many, or that a similar list contests, gets a low one.

    Parameters
    ----------
    scores
        ``(K, G)`` scores of the genes in each group.
    lists
        Columns of the marker genes of each list; none is empty.
    seed
        Seed of the resampling.
    n_samples
        Number of random gene sets and of resampled lists.
    """
    rng = np.random.default_rng(seed)
    n_groups, n_genes = scores.shape
    mean = np.stack([scores[:, columns].mean(1) for columns in lists], 1)
    sizes = np.array([len(columns) for columns in lists])
    pvalue = np.empty_like(mean)
    threshold = np.empty_like(mean)
    level = LEVEL / len(lists)
    for size in np.unique(sizes):
        if size == 1:
            random = scores
        else:
            draws = np.stack([rng.choice(n_genes, min(size, n_genes), replace=False) for _ in range(n_samples)])
            random = scores[:, draws].mean(2)
        of_size = sizes == size
        reached = (random[:, :, None] >= mean[:, None, of_size]).sum(1)
        pvalue[:, of_size] = (1 + reached) / (1 + random.shape[1])
        threshold[:, of_size] = np.quantile(random, 1 - level, axis=1)[:, None]
    pvalue = np.minimum(pvalue * len(lists), 1)

    def choose(mean: np.ndarray) -> np.ndarray:
        best = mean.argmax(-1)
        fits = np.take_along_axis(mean > threshold, best[..., None], -1)[..., 0]
        return np.where(fits, best, len(lists))

    choice = choose(mean)
    agree = np.zeros(n_groups)
    for _ in range(n_samples):
        resampled = [scores[:, rng.choice(columns, len(columns))].mean(1) for columns in lists]
        agree += choose(np.stack(resampled, 1)) == choice
    return Naming(mean, pvalue, choice, agree / n_samples)
