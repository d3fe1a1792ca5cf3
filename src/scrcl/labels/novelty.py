"""Types that no label names: cells far from all labelled ones, that lie together."""

import numpy as np
from scipy.stats import poisson

from scrcl.cluster.leiden import leiden
from scrcl.graph.neighbors import NeighborSearch, nearest_neighbors

from .cell_labels import UNLABELED

#: Labelled cells from which the distance of a cell is measured.
NEAREST = 3
#: Share of the cells of labelled types that may be far from all labelled ones.
FAR = 0.05
#: Neighbours of a cell, and the share of these that must be far as well for it to be one of a type.
NEIGHBORS, TOGETHER = 15, 0.5
#: Cells of the smallest type that can be found.
MIN_NEW_CELLS = 15
#: Resolution at which far cells are divided into types.
RESOLUTION = 0.2
#: Probability of as few labelled cells among the cells of a group, were they of labelled types, below which they are not; and
#: for a group that lies apart, as types do: about two labelled cells are to be expected, and there is none. It lies apart if so
#: large a share of the neighbours of its cells are far as well.
CHANCE, CHANCE_APART, APART = 0.01, 0.15, 0.87


def distance_to_labelled(points: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Mean distance ``(n,)`` of points ``(n, d)`` to the ``NEAREST`` labelled ones ``(n,)``, a point itself not among them.

    With fewer labelled points, to all of them; infinite where there is none other.
    """
    rows = np.flatnonzero(labelled)
    search = NeighborSearch(points[rows])
    found = np.full(len(points), np.inf)
    others = ~labelled
    if others.any():
        found[others] = search(points[others], min(NEAREST, len(rows))).distances.mean(1)
    if len(rows) > 1:
        found[rows] = search.among_themselves(min(NEAREST, len(rows) - 1)).distances.mean(1)
    return found


def upper_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The value that a share of weighted values exceed, as a new one of their kind would: infinite where they are too few."""
    order = np.argsort(values)
    above = weights.sum() + weights.max() - np.cumsum(weights[order])
    exceeded = above <= share * (weights.sum() + weights.max())
    return float(values[order][exceeded.argmax()]) if exceeded.any() else np.inf


def find_new(
    points: np.ndarray, codes: np.ndarray, predicted: np.ndarray, seed: int, batches: np.ndarray | None = None
) -> np.ndarray:
    """Find types among cells without a label that are far from all labelled ones.

    A cell is far if it is farther from its nearest labelled cells than all but ``FAR`` of the labelled cells are from
    theirs. Labelled cells stand for all cells of their type, so each counts as many of these as there are to one. Far cells that lie
    together are of a new type if there are fewer labelled ones among them than chance would have it, were they of the types
    that they seem to be. Where they also lie apart from all others, less evidence is asked for.

    In a batch without any label, cells are unlabelled whatever they are, and what is left of a batch effect draws them
    away from labelled ones. So these are evidence only where they lie apart.

    Parameters
    ----------
    points
        ``(n, d)``.
    codes
        ``(n,)`` numbers of the labels, -1 for none.
    predicted
        ``(n,)`` the label that each cell is most likely to have.
    seed
        Seed of the division into types.
    batches
        ``(n,)`` number of the batch of each; all of one by default.

    Returns
    -------
    ``(n,)`` number of the new type of each cell without a label, by decreasing size, from 0; -1 for cells of none.
    """
    labelled = codes != UNLABELED
    groups = np.full(len(codes), -1)
    if labelled.all():
        return groups
    distances = distance_to_labelled(points, labelled)
    seems = np.where(labelled, codes, predicted)
    rate = (np.bincount(codes[labelled], minlength=seems.max() + 1) / np.maximum(np.bincount(seems), 1))[seems]
    evaluated = labelled & np.isfinite(distances)
    if not evaluated.any():
        return groups
    far = distances > upper_quantile(distances[evaluated], 1 / rate[evaluated], FAR)
    around = far[nearest_neighbors(points, min(NEIGHBORS, len(points) - 1)).indices].mean(1)
    together = np.flatnonzero(far & (around >= TOGETHER))
    if len(together) < MIN_NEW_CELLS:
        return groups
    found = leiden(points[together], RESOLUTION, seed).labels
    tells = np.ones(len(codes), dtype=bool) if batches is None else np.isin(batches, batches[labelled])
    groups[together] = _few_labelled(found, labelled[together], rate[together], around[together], tells[together])
    groups[labelled] = -1
    return groups


def _few_labelled(
    groups: np.ndarray, labelled: np.ndarray, rate: np.ndarray, around: np.ndarray, tells: np.ndarray
) -> np.ndarray:
    """Groups ``(m,)`` that have fewer labelled cells than is likely, numbered anew; -1 for cells of the others.

    Parameters
    ----------
    groups, labelled
        ``(m,)`` group of each cell, and whether it is labelled.
    rate, around
        ``(m,)`` how likely it is labelled, and the share of its neighbours that are far.
    tells
        ``(m,)`` whether it is of a batch with labels.
    """
    sizes, found = np.bincount(groups), np.bincount(groups, labelled)
    apart = np.bincount(groups, around) / sizes >= APART
    expected = np.where(apart, np.bincount(groups, rate), np.bincount(groups, rate * tells))
    unlikely = poisson.cdf(found, expected) <= np.where(apart, CHANCE_APART, CHANCE)
    kept = (sizes - found >= MIN_NEW_CELLS) & unlikely
    return np.where(kept, np.cumsum(kept) - 1, -1)[groups]
