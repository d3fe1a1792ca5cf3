"""Nearest neighbours of points, exact or by descent."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.neighbors import NearestNeighbors

#: Targets up to which neighbours are searched for exactly. Compiling the approximate search takes longer than that.
EXACT_TARGETS = 50_000
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


class NeighborSearch:
    """Search for nearest neighbours by Euclidean distance among targets that stay the same.

    Exact among up to ``EXACT_TARGETS`` targets. Among more, nearest-neighbour descent (Dong et al., WWW 2011), which finds
    nearly all and the same at each run. What is found for a point never depends on the other points.

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
    def _index(self) -> Any:
        from pynndescent import NNDescent  # compiles for seconds, and is not needed for few cells

        return NNDescent(
            np.ascontiguousarray(self._targets, dtype=np.float32), n_neighbors=DESCENT_NEIGHBORS, random_state=0
        )

    def among_themselves(self, n_neighbors: int) -> Neighbors:
        """The nearest neighbours of each target among the others."""
        if self._exact is not None:
            return self._neighbors(*self._exact.kneighbors(n_neighbors=n_neighbors))
        if n_neighbors >= DESCENT_NEIGHBORS:
            raise ValueError(
                f"n_neighbors={n_neighbors} is too many for the approximate search that more than {EXACT_TARGETS:,} cells "
                f"need. Take at most {DESCENT_NEIGHBORS - 1}."
            )
        indices, distances = self._index.neighbor_graph
        others = without_itself(indices)
        kept = [found[others].reshape(len(found), -1)[:, :n_neighbors] for found in (distances, indices)]
        return self._neighbors(*kept)

    def __call__(self, points: np.ndarray, n_neighbors: int) -> Neighbors:
        """The nearest targets of points ``(n, d)``."""
        if len(points) == 0:
            return self._neighbors(np.empty((0, n_neighbors)), np.empty((0, n_neighbors)))
        if self._exact is not None:
            return self._neighbors(*self._exact.kneighbors(points, n_neighbors))
        indices, distances = self._index.query(
            np.ascontiguousarray(points, dtype=np.float32), n_neighbors, epsilon=DESCENT_EPSILON
        )
        return self._neighbors(distances, indices)

    def _neighbors(self, distances: np.ndarray, indices: np.ndarray) -> Neighbors:
        return Neighbors(indices.astype(np.int64), distances.astype(np.float32), len(self._targets))


def without_itself(indices: np.ndarray) -> np.ndarray:
    """Which of its ``k`` nearest points ``(n, k)``, itself among them, are another: all but one, ``(n, k)``.

    Where points coincide, a point is not always the first of its own neighbours; where many do, it is none of them, and
    the last one goes.
    """
    others = indices != np.arange(len(indices))[:, None]
    others[others.all(1), -1] = False
    return others


def nearest_neighbors(targets: np.ndarray, n_neighbors: int, points: np.ndarray | None = None) -> Neighbors:
    """Find, once, the nearest of targets ``(m, d)`` to points ``(n, d)`` or, without points, to each other target."""
    search = NeighborSearch(targets)
    return search.among_themselves(n_neighbors) if points is None else search(points, n_neighbors)
