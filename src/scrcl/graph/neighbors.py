"""Nearest neighbours of points: exact, in an inverted file, or by nearest-neighbour descent."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.neighbors import NearestNeighbors

from scrcl.utils.errors import ScrclValueError
from scrcl.utils.words import counted

if TYPE_CHECKING:
    from pynndescent import NNDescent

#: Most targets of the exact search.
EXACT_TARGETS = 10_000
#: Most targets of the search in an inverted file, which is faster than compiling nearest-neighbour descent.
LISTED_TARGETS = 200_000
#: Most pairs of points and targets that are compared beyond, which is faster than an index of all targets for few points.
EXACT_PAIRS = 2_000_000_000
#: Most lists of the inverted file, least mean number of targets of a list, and share of all targets compared with a point.
MAX_LISTS, MIN_LIST_TARGETS, SEARCHED_SHARE = 256, 64, 0.125
#: Targets to which the lists are fitted, and points searched at once, so that their similarities fit in the cache.
FITTED_TARGETS, CHUNK_POINTS = 20_000, 64
#: Candidates of which the nearest one is looked for first.
GROUP = 16
#: Neighbours of each target in nearest-neighbour descent; more than are returned, for their accuracy.
DESCENT_NEIGHBORS = 30
#: Relative distance beyond the farthest neighbour so far in which a query continues.
DESCENT_EPSILON = 0.2


def neighbor_matrix(indices: np.ndarray, n_targets: int, values: np.ndarray | None = None) -> sp.csr_array:
    """The ``(n, m)`` matrix with ``values`` ``(n, k)`` (default: ones) at the neighbours ``(n, k)`` of each point."""
    n, k = indices.shape
    data = np.ones(n * k, dtype=np.float32) if values is None else values.ravel()
    return sp.csr_array((data, indices.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n_targets))


@dataclass(frozen=True)
class Neighbors:
    """The nearest neighbours of ``n`` points among ``m`` targets, nearest first.

    Attributes
    ----------
    indices
        ``(n, k)`` int64, rows of the targets.
    distances
        ``(n, k)`` float32, Euclidean.
    n_targets
        Number of targets ``m``.
    """

    indices: np.ndarray
    distances: np.ndarray
    n_targets: int

    def to_sparse(self, values: np.ndarray | None = None) -> sp.csr_array:
        """The ``(n, m)`` matrix with ``values`` (default: ones) at the neighbours of each point."""
        return neighbor_matrix(self.indices, self.n_targets, values)


class ListSearch:
    """Approximate, deterministic search for nearest neighbours among targets ``(m, d)`` in an inverted file.

    k-means divides the targets into lists. A point is compared with the targets of the lists whose centres are nearest to that
    of its own list, which hold ``SEARCHED_SHARE`` of all targets. The neighbours of a point do not depend on the other points.
    """

    def __init__(self, targets: np.ndarray) -> None:
        self._mean = targets.mean(0, dtype=np.float64).astype(np.float32)
        centered, n = self._center(targets), len(targets)
        fitted = np.sort(np.random.default_rng(0).permutation(n)[:FITTED_TARGETS])
        number = max(1, min(MAX_LISTS, n // MIN_LIST_TARGETS))
        self._lists = MiniBatchKMeans(number, init="random", n_init=1, batch_size=2048, max_iter=10, random_state=0)
        self._rows, self._ends = _by_list(self._lists.fit(centered[fitted]).predict(centered), number)
        self._targets = torch.from_numpy(centered[self._rows])  # one list after the other

    def among_themselves(self, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances and rows ``(m, k)`` of the targets nearest to each other target."""
        distances = np.empty((len(self._rows), n_neighbors), dtype=np.float32)
        indices = np.empty((len(self._rows), n_neighbors), dtype=np.int64)
        for part, found in self._search(self._targets, self._ends, n_neighbors + 1):
            others = without_itself(found.numpy(), np.arange(part.start, part.stop))
            neighbors = found[torch.from_numpy(others)].view(-1, n_neighbors)
            rows = self._rows[part]
            distances[rows], indices[rows] = self._nearest_first(self._targets[part], neighbors)
        return distances, indices

    def __call__(self, points: np.ndarray, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances and rows ``(n, k)`` of the targets nearest to points ``(n, d)``."""
        distances = np.empty((len(points), n_neighbors), dtype=np.float32)
        indices = np.empty((len(points), n_neighbors), dtype=np.int64)
        for rows, part, found in self._near(points, n_neighbors):
            distances[rows], indices[rows] = self._nearest_first(part, found)
        return distances, indices

    def unordered(self, points: np.ndarray, n_neighbors: int) -> np.ndarray:
        """The same rows ``(n, k)``, in any order, without the distances, which take as long as the search in short lists."""
        indices = np.empty((len(points), n_neighbors), dtype=np.int64)
        for rows, _, found in self._near(points, n_neighbors):
            indices[rows] = self._rows[found.numpy()]
        return indices

    def _center(self, points: np.ndarray) -> np.ndarray:
        """Points minus the mean of the targets, which reduces rounding errors."""
        return np.ascontiguousarray(points - self._mean, dtype=np.float32)

    def _near(self, points: np.ndarray, n_neighbors: int) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
        """Rows of some points ``(n, d)``, the centred points, and their neighbours among the targets by list."""
        centered = self._center(points)
        rows, ends = _by_list(self._lists.predict(centered), len(self._ends))
        queries = torch.from_numpy(centered[rows])
        for part, found in self._search(queries, ends, n_neighbors):
            yield rows[part], queries[part], found

    def _search(
        self, queries: torch.Tensor, ends: np.ndarray, n_neighbors: int
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Neighbours of queries, sorted by list, among the targets by list, a part of a list at a time."""
        # The product a·b - |b|^2 / 2 = |a|^2 / 2 - |a - b|^2 / 2 has the same order as the distances from a.
        shifts = -(self._targets**2).sum(1) / 2
        sizes, centers = np.diff(self._ends, prepend=0), self._lists.cluster_centers_
        n_candidates = max(SEARCHED_SHARE * len(self._rows), n_neighbors)
        for number, (start, stop) in enumerate(pairwise([0, *ends.tolist()])):
            if start == stop:
                continue
            nearest = np.argsort(((centers - centers[number]) ** 2).sum(1), kind="stable")
            n_searched = int(np.searchsorted(np.cumsum(sizes[nearest]), n_candidates)) + 1
            searched = np.sort(nearest[:n_searched])
            candidates = torch.cat([torch.arange(self._ends[i] - sizes[i], self._ends[i]) for i in searched])
            shift = shifts[candidates]
            missing = -len(candidates) % GROUP  # of whole groups
            candidates = torch.cat([candidates, candidates[:1].expand(missing)])
            shift = torch.cat([shift, shift.new_full((missing,), -torch.inf)])
            transposed = self._targets[candidates].T
            for first in range(start, stop, CHUNK_POINTS):
                part = slice(first, min(first + CHUNK_POINTS, stop))
                yield part, candidates[_largest(torch.addmm(shift, queries[part], transposed), n_neighbors)]

    def _nearest_first(self, points: torch.Tensor, neighbors: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Exact distances and rows of the neighbours ``(n, k)`` of centred points, as the products have rounding errors."""
        found = self._targets[neighbors.ravel()].view(*neighbors.shape, -1)
        distances, order = torch.linalg.vector_norm(found - points[:, None], dim=2).sort(dim=1, stable=True)
        return distances.numpy(), self._rows[neighbors.gather(1, order).numpy()]


def _largest(values: torch.Tensor, number: int) -> torch.Tensor:
    """Columns ``(n, number)`` of the largest of values ``(n, m)`` of each row, in any order; ``m`` is a multiple of ``GROUP``.

    They are in the groups with the largest maxima, of which there are fewer than values.
    """
    n, m = values.shape
    n_groups = m // GROUP
    if n_groups < 4 * number:
        return values.topk(number, sorted=False).indices
    groups = values.view(n, GROUP, n_groups).amax(1).topk(number, sorted=False).indices
    columns = (groups[:, None] + n_groups * torch.arange(GROUP)[:, None]).view(n, -1)
    return columns.gather(1, values.gather(1, columns).topk(number, sorted=False).indices)


class NeighborSearch:
    """Search for nearest neighbours by Euclidean distance among fixed targets ``(m, d)``.

    Exact for up to ``EXACT_TARGETS`` targets; in an inverted file (:class:`ListSearch`) for up to ``LISTED_TARGETS``; by
    nearest-neighbour descent (Dong et al., WWW 2011) for more. All are deterministic, and the neighbours of a point do not
    depend on the other points.
    """

    def __init__(self, targets: np.ndarray) -> None:
        self._targets = targets

    @property
    def _exact(self) -> bool:
        return len(self._targets) <= EXACT_TARGETS

    @cached_property
    def _brute_force(self) -> NearestNeighbors:
        return NearestNeighbors(algorithm="brute").fit(self._targets)

    @cached_property
    def _listed(self) -> ListSearch | None:
        return ListSearch(self._targets) if len(self._targets) <= LISTED_TARGETS else None

    @cached_property
    def _index(self) -> "NNDescent":
        from pynndescent import NNDescent  # takes seconds to compile, and few cells do not need it

        return NNDescent(
            np.ascontiguousarray(self._targets, dtype=np.float32), n_neighbors=DESCENT_NEIGHBORS, random_state=0
        )

    def among_themselves(self, n_neighbors: int) -> Neighbors:
        """The nearest neighbours of each target among the others."""
        if self._exact:
            return self._neighbors(*self._brute_force.kneighbors(n_neighbors=n_neighbors))
        if self._listed is not None:
            return self._neighbors(*self._listed.among_themselves(n_neighbors))
        if n_neighbors >= DESCENT_NEIGHBORS:
            raise ScrclValueError(
                f"n_neighbors={n_neighbors} is too large for the approximate search that more than {counted(LISTED_TARGETS, 'cell')} "
                "need.",
                f"Pass at most {DESCENT_NEIGHBORS - 1}.",
                command="Pass fewer cells.",
            )
        indices, distances = self._index.neighbor_graph
        others = without_itself(indices, np.arange(len(indices)))
        distances, indices = (a[others].reshape(len(a), -1)[:, :n_neighbors] for a in (distances, indices))
        return self._neighbors(distances, indices)

    def __call__(self, points: np.ndarray, n_neighbors: int) -> Neighbors:
        """The nearest targets of points ``(n, d)``."""
        if len(points) == 0:
            return self._neighbors(np.empty((0, n_neighbors)), np.empty((0, n_neighbors)))
        if self._exact:
            return self.exactly(points, n_neighbors)
        if self._listed is not None:
            return self._neighbors(*self._listed(points, n_neighbors))
        indices, distances = self._index.query(
            np.ascontiguousarray(points, dtype=np.float32), n_neighbors, epsilon=DESCENT_EPSILON
        )
        return self._neighbors(distances, indices)

    def exactly(self, points: np.ndarray, n_neighbors: int) -> Neighbors:
        """The same by comparison with all targets, regardless of their number."""
        return self._neighbors(*self._brute_force.kneighbors(points, n_neighbors))

    def _neighbors(self, distances: np.ndarray, indices: np.ndarray) -> Neighbors:
        return Neighbors(indices.astype(np.int64), distances.astype(np.float32), len(self._targets))


def _by_list(labels: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The points ``(n,)`` in the order of ``number`` lists, and the end ``(number,)`` of each, from the list of each point."""
    return np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=number))


def without_itself(indices: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mask ``(n, k)`` of the nearest points ``(n, k)`` of points ``(n,)`` that excludes one of each row: the point itself.

    If points coincide, a point is not always the first of its neighbours; if it is none of them, the last one is excluded.
    """
    others = indices != rows[:, None]
    others[others.all(1), -1] = False
    return others


def nearest_neighbors(targets: np.ndarray, n_neighbors: int, points: np.ndarray | None = None) -> Neighbors:
    """The nearest targets ``(m, d)`` of points ``(n, d)`` or, without points, of each target among the others."""
    search = NeighborSearch(targets)
    if points is None:
        return search.among_themselves(n_neighbors)
    exact = len(targets) > LISTED_TARGETS and len(points) * len(targets) <= EXACT_PAIRS
    return search.exactly(points, n_neighbors) if exact else search(points, n_neighbors)
