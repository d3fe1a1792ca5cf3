"""Evidence that two sides of cells in space meet at a border, and not in a gradient, over plain arrays.

Cells near the border of two domains have neighbours in both, and smoothed features change gradually there in any tissue. So
the features of single cells are compared, as they change with the distance from the border.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from scrcl.graph.slices import Slices, nearest_in_space

from .clustering import Clustering
from .tree import MAX_CONNECTIVITY, NestedClusters
from .trees import indicator

#: Nearest cells, without the cell itself, whose majority says on which side of a border a cell is.
N_VOTES = 30
#: Distance from the border up to which cells are compared, and up to which a cell is at the border; in median distances from
#: a cell to its nearest ``N_NEAREST`` cells.
REACH, AT_BORDER, N_NEAREST = 10.0, 2.0, 6
#: Least number of cells that are compared on each side, and of those at the border.
MIN_COMPARED, MIN_AT_BORDER = 20, 5
#: Standard score of the difference of two sides below which there is none. Sides that are drawn in noise reach 5.5 in 10
#: simulations of ten splits each, as the cells around a cell have their part in where they are drawn.
MIN_SCORE = 6.0
#: Share of the difference away from the border below which there is a border: half of the way from simulated regions, where it is
#: 0.2 as cells next to the border may be on the wrong side, to gradients, where it is 1.
MAX_GRADUAL = 0.6

BorderVerdict = Literal["border", "continuum", "none", "unclear"]


@dataclass(frozen=True)
class Border:
    """How two sides of cells differ on both sides of their border.

    Attributes
    ----------
    sharpness
        Share of the difference of the sides that is at the border itself: 1 for regions that differ and do not change
        within, 0 for a gradient that goes on at the same rate. NaN if too few cells of both sides are near each other.
    score
        Standard score of the difference of the sides near the border; NaN as above.
    n_cells
        Number of cells that are compared, on the first and the second side.
    """

    sharpness: float = np.nan
    score: float = np.nan
    n_cells: tuple[int, int] = (0, 0)

    @property
    def connectivity(self) -> float:
        """Share of the difference that is not at the border, scaled so that borders are below ``MAX_CONNECTIVITY``.

        1 if there is no difference, NaN without a common border.
        """
        return 1.0 if self.score < MIN_SCORE else MAX_CONNECTIVITY / MAX_GRADUAL * (1 - self.sharpness)

    @property
    def verdict(self) -> BorderVerdict:
        """What the border is.

        - ``"border"``: more than two fifths of the difference of the sides are at their border.
        - ``"continuum"``: the sides differ, but most of the difference accumulates gradually, as between zones of a gradient.
        - ``"none"``: cells near the border do not differ.
        - ``"unclear"``: the sides have no common border, or too few cells near it, also where one is scattered among others.
        """
        if np.isnan(self.sharpness):
            return "unclear"
        if self.score < MIN_SCORE:
            return "none"
        return "border" if self.connectivity < MAX_CONNECTIVITY else "continuum"


class Surroundings:
    """Cells in space, and the groups of the cells around each of them.

    The noise of a cell has a part in the group that the cell is given, so that cells of two groups differ although their tissue
    does not. So a cell counts to the side to which most of the cells around it belong, regardless of its own group.

    Parameters
    ----------
    slices
        Positions of the ``n`` cells.
    features
        ``(n, d)`` features before smoothing.
    groups
        ``(n,)`` group of each cell, numbered from 0.

    Attributes
    ----------
    votes
        ``(n, k)`` share of each group among the nearest cells of a cell.
    contacts
        ``(k, k)`` number of times that a cell of one group is among the :data:`N_NEAREST` nearest of one of the other.
    spacing
        ``(n,)`` median distance from a cell to its nearest cells, in the slice of each cell.
    """

    def __init__(self, slices: Slices, features: np.ndarray, groups: np.ndarray) -> None:
        self.slices, self.features = slices, features
        members = indicator(groups)
        self.votes = np.zeros(members.shape, dtype=np.float32)
        self.contacts = np.zeros((members.shape[1], members.shape[1]))
        self.spacing = np.zeros(len(slices))
        for _, rows in slices:
            k = min(N_VOTES, len(rows) - 1)
            if k == 0:
                continue
            points = slices.coordinates[rows]
            neighbors = nearest_in_space(points, k)
            nearest = neighbors[:, :N_NEAREST]
            self.votes[rows] = _mean_over(neighbors, members[rows])
            self.contacts += nearest.shape[1] * (members[rows].T @ _mean_over(nearest, members[rows]))
            self.spacing[rows] = np.median(np.linalg.norm(points[nearest] - points[:, None], axis=2))
        self.contacts = (self.contacts + self.contacts.T).round().astype(np.int64)

    def border(self, first: np.ndarray, second: np.ndarray) -> Border:
        r"""Compare two sides, each a set of groups ``(k,)``, boolean.

        The features of cells within :data:`REACH` of the other side are projected onto the difference of the means of the
        sides. The projection is regressed on the side, and on the distance from the other side within each of the two:
        :math:`y = \beta z + \gamma_1 z_1 d + \gamma_2 z_2 d + c_s` with the slice :math:`s`, weighted by one minus the distance
        relative to the reach, as in a regression discontinuity design. The sharpness is :math:`\beta` relative to the difference
        of the means. The axis is found in every other cell, and the regression fitted to the
        rest, and the other way round: otherwise noise would be a difference, too.
        """
        votes = np.column_stack([self.votes[:, first].sum(1), self.votes[:, second].sum(1)])
        cells = np.flatnonzero(votes.sum(1) > 0.5)
        side = votes[cells, 0] > votes[cells, 1]
        distance = self._distance(cells, side)
        near = np.flatnonzero(distance < REACH)
        cells, side, distance = cells[near], side[near], distance[near]
        at_border = distance < AT_BORDER
        numbers = int(side.sum()), int((~side).sum())
        if min(numbers) < MIN_COMPARED or min(side[at_border].sum(), (~side)[at_border].sum()) < MIN_AT_BORDER:
            return Border(n_cells=numbers)
        z = np.where(side, 0.5, -0.5)
        _, sample = np.unique(self.slices.samples[cells], return_inverse=True)
        plain = np.column_stack([z, indicator(sample).toarray()])
        sloped = np.column_stack([plain, side * distance, ~side * distance])
        weight = np.sqrt(1 - distance / REACH)[:, None]
        # Every other cell by distance, so that both halves are alike and do not depend on the order of cells.
        half = np.argsort(np.lexsort((distance, side))) % 2
        jump = difference = variance = 0.0
        for part in (0, 1):
            rows, others = half == part, half != part
            axis = _fit(plain[others], self.features[cells[others]])[0]
            projection = self.features[cells[rows]] @ axis
            coefficients = _fit(plain[rows], projection)
            residual = projection - plain[rows] @ coefficients
            jump += _fit(weight[rows] * sloped[rows], weight[rows, 0] * projection)[0]
            difference += coefficients[0]
            variance += residual.var() * np.linalg.pinv(plain[rows].T @ plain[rows])[0, 0]
        score = difference / np.sqrt(variance) if variance > 0 else 0.0
        return Border(float(jump / difference) if difference else 0.0, float(score), numbers)

    def _distance(self, cells: np.ndarray, side: np.ndarray) -> np.ndarray:
        """Distance ``(m,)`` of cells from the nearest one of the other side in their slice, in the spacing of the slice."""
        distance = np.full(len(cells), np.inf)
        samples, points = self.slices.samples[cells], self.slices.coordinates[cells]
        for sample in np.unique(samples):
            rows = np.flatnonzero(samples == sample)
            spacing = self.spacing[cells[rows[0]]]
            for which in (True, False):
                own, others = rows[side[rows] == which], rows[side[rows] != which]
                if len(own) and len(others) and spacing > 0:
                    distance[own] = cKDTree(points[others]).query(points[own])[0] / spacing
        return distance


def _mean_over(neighbors: np.ndarray, members: sp.csr_array) -> np.ndarray:
    """Mean ``(n, k)`` of ``members`` ``(n, k)`` over the neighbours ``(n, m)`` of each cell."""
    n, m = neighbors.shape
    weights = sp.csr_array((np.full(n * m, 1 / m), neighbors.ravel(), np.arange(n + 1) * m), shape=(n, n))
    return (weights @ members).toarray()


def _fit(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients of least squares."""
    return np.linalg.lstsq(design, values.astype(np.float64), rcond=None)[0]


@dataclass(frozen=True)
class NestedDomains(NestedClusters):
    """Nested clusters of cells in space, whose splits are supported if there is a border.

    Attributes
    ----------
    borders
        Border of each split, of which there are ``L - 1``.
    """

    borders: tuple[Border, ...] = ()

    @classmethod
    def in_space(
        cls, leaves: Clustering, linkage: np.ndarray, adjacency: sp.csr_array, slices: Slices, features: np.ndarray
    ) -> "NestedDomains":
        """Compare the sides of all splits, in features ``(n, d)`` before smoothing; ``adjacency`` is the spatial graph."""
        nested = NestedClusters.build(leaves, linkage, adjacency)
        surroundings = Surroundings(slices, features, leaves.labels)
        borders = tuple(surroundings.border(*nested.below[sides]) for sides in nested.sides)
        return cls(leaves, linkage, nested.edges, None, borders)

    @cached_property
    def connectivity(self) -> np.ndarray:
        """``(L - 1,)`` connectivity of the borders; without a border, that of :class:`NestedClusters` in the spatial graph."""
        connectivity = np.array([border.connectivity for border in self.borders])
        return np.where(np.isnan(connectivity), super().connectivity, connectivity)

    def verdicts(self, n_up: np.ndarray) -> Sequence[str]:
        """``(L - 1,)`` what each border is; the numbers of genes ``(L - 1, 2)`` have no part in it."""
        return [border.verdict for border in self.borders]


def domain_borders(slices: Slices, features: np.ndarray, labels: np.ndarray) -> list[tuple[int, int, int, Border]]:
    """Numbers, contacts and border of each pair of adjacent domains.

    Parameters
    ----------
    slices
        Positions of the ``n`` cells.
    features
        ``(n, d)`` features before smoothing.
    labels
        ``(n,)`` domain of each cell, numbered from 0.
    """
    surroundings = Surroundings(slices, features, labels)
    contacts, each = surroundings.contacts, np.eye(len(surroundings.contacts), dtype=bool)
    pairs = np.argwhere(np.triu(contacts, 1) > 0).tolist()
    return [(a, b, int(contacts[a, b]), surroundings.border(each[a], each[b])) for a, b in pairs]
