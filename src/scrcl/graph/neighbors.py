"""Nearest neighbours of points: exact, in an inverted file, or by nearest-neighbour descent."""

from dataclasses import dataclass
from functools import cached_property
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
FITTED_TARGETS, CHUNK_POINTS = 20_000, 128
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
        self._targets = self._center(targets)
        n = len(targets)
        fitted = np.sort(np.random.default_rng(0).permutation(n)[:FITTED_TARGETS])
        number = max(1, min(MAX_LISTS, n // MIN_LIST_TARGETS))
        self._lists = MiniBatchKMeans(number, init="random", n_init=1, batch_size=2048, max_iter=10, random_state=0)
        self._members = _by_list(self._lists.fit(self._targets[fitted]).predict(self._targets), number)

    def among_themselves(self, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances and rows ``(m, k)`` of the targets nearest to each other target."""
        return self._search(self._targets, self._members, n_neighbors, themselves=True)

    def __call__(self, points: np.ndarray, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances and rows ``(n, k)`` of the targets nearest to points ``(n, d)``."""
        points = self._center(points)
        return self._search(points, _by_list(self._lists.predict(points), len(self._members)), n_neighbors)

    def _center(self, points: np.ndarray) -> np.ndarray:
        """Points minus the mean of the targets, which reduces rounding errors."""
        return np.ascontiguousarray(points - self._mean, dtype=np.float32)

    def _search(
        self, points: np.ndarray, by_list: list[np.ndarray], n_neighbors: int, themselves: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        # The product a·b - |b|^2 / 2 = |a|^2 / 2 - |a - b|^2 / 2 has the same order as the distances from a.
        half_squares = torch.from_numpy((self._targets**2).sum(1) / 2)
        targets, queries = torch.from_numpy(self._targets), torch.from_numpy(points)
        distances = np.empty((len(points), n_neighbors), dtype=np.float32)
        indices = np.empty((len(points), n_neighbors), dtype=np.int64)
        sizes, centers = np.array([len(members) for members in self._members]), self._lists.cluster_centers_
        n_candidates = max(SEARCHED_SHARE * len(targets), n_neighbors + themselves)
        for listed, center in zip(by_list, centers, strict=True):
            if len(listed) == 0:
                continue
            nearest = np.argsort(((centers - center) ** 2).sum(1), kind="stable")
            n_searched = int(np.searchsorted(np.cumsum(sizes[nearest]), n_candidates)) + 1
            candidates = np.concatenate([self._members[number] for number in nearest[:n_searched]])
            positions = torch.from_numpy(candidates)
            transposed, shift = targets[positions].T.contiguous(), -half_squares[positions]
            for rows in np.split(listed, range(CHUNK_POINTS, len(listed), CHUNK_POINTS)):
                product = torch.addmm(shift, queries[torch.from_numpy(rows)], transposed)
                neighbors = candidates[product.topk(n_neighbors + themselves).indices.numpy()]
                if themselves:
                    neighbors = neighbors[without_itself(neighbors, rows)].reshape(len(rows), n_neighbors)
                # Exact distances, as the products have rounding errors.
                exact = np.linalg.norm(self._targets[neighbors] - points[rows][:, None], axis=2)
                order = np.argsort(exact, axis=1, kind="stable")
                indices[rows], distances[rows] = (np.take_along_axis(a, order, 1) for a in (neighbors, exact))
        return distances, indices


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


def _by_list(labels: np.ndarray, number: int) -> list[np.ndarray]:
    """The points of each of ``number`` lists, from the list of each point ``(n,)``."""
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=number))[:-1])


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
