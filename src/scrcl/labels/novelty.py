"""New types: groups of cells that are far from all labelled cells."""

import numpy as np
from scipy.stats import poisson

from scrcl.cluster.leiden import leiden
from scrcl.graph.neighbors import NeighborSearch, nearest_neighbors

from .cell_labels import NO_LABEL

#: Nearest labelled cells whose mean distance is the distance of a cell from the labelled ones.
N_NEAREST = 3
#: Share of the cells of labelled types that may be far from all labelled cells.
FAR_SHARE = 0.05
#: Neighbours of a cell, and the share of them that must be far as well for the cell to be of a new type.
NOVELTY_NEIGHBORS, MIN_FAR_NEIGHBORS = 15, 0.5
#: Cells of the smallest new type.
MIN_NEW_CELLS = 15
#: Leiden resolution at which far cells are divided into types.
NOVELTY_RESOLUTION = 0.2
#: A group is new if the probability of so few labelled cells, were it of labelled types, is at most this; and the same for
#: an isolated group, for which it suffices that two labelled cells are expected and there is none. A group is isolated if
#: the mean share of far cells among the neighbours of its cells is at least ``MIN_ISOLATION``.
MAX_PVALUE, MAX_PVALUE_ISOLATED, MIN_ISOLATION = 0.01, 0.15, 0.87


def distance_to_labelled(points: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Mean distance ``(n,)`` of points ``(n, d)`` to the ``N_NEAREST`` labelled ones ``(n,)``, a point itself excluded.

    With fewer labelled points, to all of them; infinite if there is no other.
    """
    rows = np.flatnonzero(labelled)
    search = NeighborSearch(points[rows])
    distances = np.full(len(points), np.inf)
    others = ~labelled
    if others.any():
        distances[others] = search(points[others], min(N_NEAREST, len(rows))).distances.mean(1)
    if len(rows) > 1:
        distances[rows] = search.among_themselves(min(N_NEAREST, len(rows) - 1)).distances.mean(1)
    return distances


def upper_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The value that a new value of the same weighted distribution exceeds with probability ``share``.

    A conformal quantile; infinite if there are too few values.
    """
    order = np.argsort(values)
    above = weights.sum() + weights.max() - np.cumsum(weights[order])
    exceeded = above <= share * (weights.sum() + weights.max())
    return float(values[order][exceeded.argmax()]) if exceeded.any() else np.inf


def find_new(
    points: np.ndarray, codes: np.ndarray, predicted: np.ndarray, seed: int, batches: np.ndarray | None = None
) -> np.ndarray:
    """Find new types among unlabelled cells that are far from all labelled ones.

    A cell is far if its distance to the nearest labelled cells exceeds that of all but a share ``FAR_SHARE`` of the labelled
    cells. Each labelled cell has the weight of the cells of its type that it represents. A group of far cells is a new type if
    it has fewer labelled cells than expected by chance from the types that its cells seem to have. An isolated group needs
    less evidence.

    In a batch without labels, all cells are unlabelled, and a remaining batch effect draws them away from the labelled ones.
    So the cells of such a batch are evidence only in isolated groups.

    All cells have points ``(n, d)``, labels ``codes`` ``(n,)``, -1 for none, a most probable label ``predicted`` ``(n,)``, and
    numbers of their ``batches`` ``(n,)``; a single batch by default. The seed is that of the division into types.

    Returns the number ``(n,)`` of the new type of each unlabelled cell, by decreasing size, from 0; -1 for all other cells.
    """
    labelled = codes != NO_LABEL
    new_types = np.full(len(codes), -1)
    if labelled.all():
        return new_types
    distances = distance_to_labelled(points, labelled)
    types = np.where(labelled, codes, predicted)
    n_labelled = np.bincount(codes[labelled], minlength=types.max() + 1)
    rate = (n_labelled / np.maximum(np.bincount(types), 1))[types]
    evaluated = labelled & np.isfinite(distances)
    if not evaluated.any():
        return new_types
    far = distances > upper_quantile(distances[evaluated], 1 / rate[evaluated], FAR_SHARE)
    far_neighbors = far[nearest_neighbors(points, min(NOVELTY_NEIGHBORS, len(points) - 1)).indices].mean(1)
    rows = np.flatnonzero(far & (far_neighbors >= MIN_FAR_NEIGHBORS))
    if len(rows) < MIN_NEW_CELLS:
        return new_types
    groups = leiden(points[rows], NOVELTY_RESOLUTION, seed).labels
    in_labelled_batch = np.ones(len(codes), dtype=bool) if batches is None else np.isin(batches, batches[labelled])
    new_types[rows] = _few_labelled(groups, labelled[rows], rate[rows], far_neighbors[rows], in_labelled_batch[rows])
    new_types[labelled] = -1
    return new_types


def _few_labelled(
    groups: np.ndarray,
    labelled: np.ndarray,
    rate: np.ndarray,
    far_neighbors: np.ndarray,
    in_labelled_batch: np.ndarray,
) -> np.ndarray:
    """Groups ``(m,)`` that have fewer labelled cells than is likely, numbered from 0; -1 for cells of the other groups.

    Each ``(m,)``: the group of a cell, whether it is labelled, the probability ``rate`` that it is, the share of its
    neighbours that are far, and whether its batch has labels.
    """
    sizes, n_labelled = np.bincount(groups), np.bincount(groups, labelled)
    isolated = np.bincount(groups, far_neighbors) / sizes >= MIN_ISOLATION
    expected = np.where(isolated, np.bincount(groups, rate), np.bincount(groups, rate * in_labelled_batch))
    unlikely = poisson.cdf(n_labelled, expected) <= np.where(isolated, MAX_PVALUE_ISOLATED, MAX_PVALUE)
    kept = (sizes - n_labelled >= MIN_NEW_CELLS) & unlikely
    return np.where(kept, np.cumsum(kept) - 1, -1)[groups]
