"""Types that no label names: cells far from all labelled ones, that lie together."""

import numpy as np

from scrcl.cluster.leiden import leiden
from scrcl.graph.neighbors import NeighborSearch, nearest_neighbors

from .given import UNLABELED

#: Labelled cells from which the distance of a cell is measured.
NEAREST = 3
#: Share of the cells of labelled types that may be far from all labelled ones.
FAR = 0.05
#: Neighbours of a cell, and the share of these that must be far as well for it to be one of a type.
NEIGHBORS, TOGETHER = 15, 0.5
#: Cells of the smallest type that can be found.
LEAST_CELLS = 15
#: Resolution at which far cells are divided into types.
RESOLUTION = 0.2


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


def find_new(points: np.ndarray, codes: np.ndarray, predicted: np.ndarray, seed: int) -> np.ndarray:
    """Find types among cells without a label that are far from all labelled ones.

    A cell is far if it is farther from its nearest labelled cells than all but ``FAR`` of the labelled cells are from
    theirs. Labelled cells stand for all cells of their type, so each counts as many of these as there are to one. Far cells are of
    a new type where they lie together.

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

    Returns
    -------
    ``(n,)`` number of the new type of each cell, by decreasing size, from 0; -1 for cells of none.
    """
    labelled = codes != UNLABELED
    groups = np.full(len(codes), -1)
    distances = distance_to_labelled(points, labelled)
    own = codes[labelled]
    stands_for = np.bincount(np.where(labelled, codes, predicted))[own] / np.bincount(own)[own]
    known = distances[labelled]
    finite = np.isfinite(known)
    if not finite.any():
        return groups
    far = ~labelled & (distances > upper_quantile(known[finite], stands_for[finite], FAR))
    near = nearest_neighbors(points, min(NEIGHBORS, len(points) - 1)).indices
    together = np.flatnonzero(far & (far[near].mean(1) >= TOGETHER))
    if len(together) < LEAST_CELLS:
        return groups
    found = leiden(points[together], RESOLUTION, seed).labels
    sizes = np.bincount(found)
    groups[together] = np.where(sizes[found] >= LEAST_CELLS, found, -1)
    return groups
