"""Nearest neighbours of points, exact, among lists, or by descent."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.neighbors import NearestNeighbors

from scrcl.utils.errors import ScrclValueError

#: Targets up to which neighbours are searched for exactly.
EXACT_TARGETS = 10_000
#: Targets up to which neighbours are searched for in lists. Compiling nearest-neighbour descent takes longer than that.
LISTED_TARGETS = 200_000
#: Lists that targets are divided into at most, targets of each at least, and the share of all that a point is compared with.
N_LISTS, LISTED_EACH, SEARCHED_SHARE = 256, 64, 0.125
#: Targets that lists are found on, and those whose neighbours are searched for at once, so that similarities stay in the cache.
LISTING_TARGETS, CHUNK = 20_000, 128
#: Neighbours that nearest-neighbour descent keeps of each target; more than are asked for, so that these are found.
DESCENT_NEIGHBORS = 30
#: How much farther than the farthest neighbour found so far a query looks.
DESCENT_EPSILON = 0.2


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
        """The ``(n, m)`` matrix that holds ``values`` (default: ones) at the neighbours of each point."""
        n, k = self.indices.shape
        data = np.ones(n * k, dtype=np.float32) if values is None else values.ravel()
        return sp.csr_array((data, self.indices.ravel(), np.arange(0, n * k + 1, k)), shape=(n, self.n_targets))


class ListSearch:
    """Search for nearest neighbours in an inverted file, which finds nearly all of them and the same at each run.

    Targets are divided into lists by k-means, and points are compared with those of the lists nearest to their own by the
    centres that hold ``SEARCHED_SHARE`` of all targets. What is found for a point does not depend on the others.

    Parameters
    ----------
    targets
        ``(m, d)`` points to search among.
    """

    def __init__(self, targets: np.ndarray) -> None:
        self._mean = targets.mean(0, dtype=np.float64).astype(np.float32)
        self._targets = self._center(targets)
        n = len(targets)
        some = np.sort(np.random.default_rng(0).permutation(n)[:LISTING_TARGETS])
        number = max(1, min(N_LISTS, n // LISTED_EACH))
        self._lists = MiniBatchKMeans(number, init="random", n_init=1, batch_size=2048, max_iter=10, random_state=0)
        self._members = _by_list(self._lists.fit(self._targets[some]).predict(self._targets), number)

    def among_themselves(self, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances and rows ``(m, k)`` of the targets nearest to each other target."""
        return self._search(self._targets, self._members, n_neighbors, themselves=True)

    def __call__(self, points: np.ndarray, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances and rows ``(n, k)`` of the targets nearest to points ``(n, d)``."""
        points = self._center(points)
        return self._search(points, _by_list(self._lists.predict(points), len(self._members)), n_neighbors)

    def _center(self, points: np.ndarray) -> np.ndarray:
        """Points about the mean of the targets, so that little is lost to rounding."""
        return np.ascontiguousarray(points - self._mean, dtype=np.float32)

    def _search(
        self, points: np.ndarray, by_list: list[np.ndarray], n_neighbors: int, themselves: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        # Of two points, -d^2 / 2 + |a|^2 / 2 is one product, by which those nearest to a are the same.
        half = torch.from_numpy((self._targets**2).sum(1) / 2)
        targets, queries = torch.from_numpy(self._targets), torch.from_numpy(points)
        distances = np.empty((len(points), n_neighbors), dtype=np.float32)
        indices = np.empty((len(points), n_neighbors), dtype=np.int64)
        sizes, centers = np.array([len(own) for own in self._members]), self._lists.cluster_centers_
        least = max(SEARCHED_SHARE * len(targets), n_neighbors + themselves)
        for own, center in zip(by_list, centers, strict=True):
            if len(own) == 0:
                continue
            near = np.argsort(((centers - center) ** 2).sum(1), kind="stable")
            n_searched = int(np.searchsorted(np.cumsum(sizes[near]), least)) + 1
            candidates = np.concatenate([self._members[number] for number in near[:n_searched]])
            chosen = torch.from_numpy(candidates)
            similar, shift = targets[chosen].T.contiguous(), -half[chosen]
            for rows in np.split(own, range(CHUNK, len(own), CHUNK)):
                product = torch.addmm(shift, queries[torch.from_numpy(rows)], similar)
                found = candidates[product.topk(n_neighbors + themselves).indices.numpy()]
                if themselves:
                    found = found[without_itself(found, rows)].reshape(len(rows), n_neighbors)
                # Without the rounding of products.
                apart = np.linalg.norm(self._targets[found] - points[rows][:, None], axis=2)
                order = np.argsort(apart, axis=1, kind="stable")
                indices[rows], distances[rows] = (np.take_along_axis(each, order, 1) for each in (found, apart))
        return distances, indices


class NeighborSearch:
    """Search for nearest neighbours by Euclidean distance among targets that stay the same.

    Exact among up to ``EXACT_TARGETS`` targets; among up to ``LISTED_TARGETS``, in lists; among more, by nearest-neighbour
    descent (Dong et al., WWW 2011). Both find nearly all and the same at each run. What is found for a point never depends
    on the other points.

    Parameters
    ----------
    targets
        ``(m, d)`` points to search among.
    """

    def __init__(self, targets: np.ndarray) -> None:
        self._targets = targets

    @cached_property
    def _exact(self) -> NearestNeighbors | None:
        return NearestNeighbors(algorithm="brute").fit(self._targets) if len(self._targets) <= EXACT_TARGETS else None

    @cached_property
    def _listed(self) -> ListSearch | None:
        return ListSearch(self._targets) if len(self._targets) <= LISTED_TARGETS else None

    @cached_property
    def _index(self) -> Any:
        from pynndescent import NNDescent  # compiles for seconds, and is not needed for few cells

        return NNDescent(
            np.ascontiguousarray(self._targets, dtype=np.float32), n_neighbors=DESCENT_NEIGHBORS, random_state=0
        )

    def among_themselves(self, n_neighbors: int) -> Neighbors:
        """The nearest neighbours of each target among the others."""
        if self._exact is not None:
            return self._neighbors(*self._exact.kneighbors(n_neighbors=n_neighbors))
        if self._listed is not None:
            return self._neighbors(*self._listed.among_themselves(n_neighbors))
        if n_neighbors >= DESCENT_NEIGHBORS:
            raise ScrclValueError(
                f"n_neighbors={n_neighbors} is too large for the approximate search that more than {LISTED_TARGETS:,} cells "
                "need.",
                f"Pass at most {DESCENT_NEIGHBORS - 1}.",
                command="Pass fewer cells.",
            )
        indices, distances = self._index.neighbor_graph
        others = without_itself(indices, np.arange(len(indices)))
        kept = [found[others].reshape(len(found), -1)[:, :n_neighbors] for found in (distances, indices)]
        return self._neighbors(*kept)

    def __call__(self, points: np.ndarray, n_neighbors: int) -> Neighbors:
        """The nearest targets of points ``(n, d)``."""
        if len(points) == 0:
            return self._neighbors(np.empty((0, n_neighbors)), np.empty((0, n_neighbors)))
        if self._exact is not None:
            return self._neighbors(*self._exact.kneighbors(points, n_neighbors))
        if self._listed is not None:
            return self._neighbors(*self._listed(points, n_neighbors))
        indices, distances = self._index.query(
            np.ascontiguousarray(points, dtype=np.float32), n_neighbors, epsilon=DESCENT_EPSILON
        )
        return self._neighbors(distances, indices)

    def _neighbors(self, distances: np.ndarray, indices: np.ndarray) -> Neighbors:
        return Neighbors(indices.astype(np.int64), distances.astype(np.float32), len(self._targets))


def _by_list(labels: np.ndarray, number: int) -> list[np.ndarray]:
    """The points of each of ``number`` lists, from the list ``(n,)`` of each."""
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=number))[:-1])


def without_itself(indices: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Which of the ``k`` nearest points ``(n, k)`` of points ``(n,)``, each among its own, are another: all but one.

    Where points coincide, a point is not always the first of its own neighbours; where many do, it is none of them, and
    the last one goes.
    """
    others = indices != own[:, None]
    others[others.all(1), -1] = False
    return others


def nearest_neighbors(targets: np.ndarray, n_neighbors: int, points: np.ndarray | None = None) -> Neighbors:
    """Find, once, the nearest of targets ``(m, d)`` to points ``(n, d)`` or, without points, to each other target."""
    search = NeighborSearch(targets)
    return search.among_themselves(n_neighbors) if points is None else search(points, n_neighbors)
