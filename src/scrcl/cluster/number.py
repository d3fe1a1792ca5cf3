"""Number of clusters that the tree of clusters supports, or of domains in space, over plain arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from scrcl.utils.display import Displayed

from .consensus import Ensemble
from .leiden import count_communities
from .tree import MAX_CONNECTIVITY, NestedClusters

#: Factor by which the connectivity that decides is moved to either side for the other numbers.
MARGIN = 1.25
#: Resolution at which communities are counted in space.
RESOLUTION = 0.2


@dataclass(frozen=True, repr=False)
class NumberOfClusters(Displayed):
    """The number of clusters that is supported, with the evidence for other numbers.

    Parameters
    ----------
    best
        Number of clusters of the supported splits of :meth:`scrcl.SCRCL.get_cluster_tree`. In space, the median of the numbers of
        Leiden communities in the latent representation and in the other views of a cell and its surroundings.
    runner_ups
        Other numbers, nearest first: if the line between supported and unsupported splits is moved by a quarter; in space,
        the other numbers of communities.
    evidence
        The curve, or a function that computes it.
    """

    best: int
    runner_ups: list[int]
    evidence: pd.DataFrame | Callable[[], pd.DataFrame] = field(repr=False, compare=False)

    @cached_property
    def curve(self) -> pd.DataFrame:
        """Data frame by number of clusters ``n_clusters``.

        ``connectivity``: the least connectivity up to which splits must be made for so many clusters. ``distance``: mean
        distance of the two clusters that would be joined next, 0 for equal profiles, 1 for unrelated ones and above 1 for
        opposite ones, corrected for noise. ``agreement``: mean adjusted Rand index between pairs of trees of different
        micro-clusters; low if the clusters are poorly supported. The curve is computed when it is first read.
        """
        return self.evidence() if callable(self.evidence) else self.evidence

    def _display(self) -> tuple[str, pd.DataFrame]:
        others = ", ".join(map(str, self.runner_ups))
        support = pd.Series(dict.fromkeys(self.runner_ups, "nearly") | {self.best: "yes"}, name="supported")
        table = support.rename_axis("n_clusters").to_frame().sort_index()
        if "curve" in vars(self) or not callable(self.evidence):  # it takes long to compute
            table = table.join(self.curve)
        return f"NumberOfClusters: {self.best}{f' ({others} nearly as well supported)' if others else ''}", table

    def __getstate__(self) -> dict[str, object]:
        # The function belongs to a model, and is not saved.
        return {"best": self.best, "runner_ups": self.runner_ups, "evidence": self.curve}


def estimate_number(
    tree: NestedClusters, ensemble: Callable[[], Ensemble], votes: Sequence[int] | None = None
) -> NumberOfClusters:
    """The number of clusters that a tree supports, with the evidence for each number.

    Parameters
    ----------
    tree
        The tree of clusters.
    ensemble
        Function that returns the clusterings of the same cells, for the curve.
    votes
        In space, the numbers of communities that decide, from :func:`count_votes`.
    """
    numbers, limits = _numbers(tree)
    if votes is None:
        best, fewer, more = (
            int(numbers[limits < limit].max(initial=1))
            for limit in (MAX_CONNECTIVITY, MAX_CONNECTIVITY / MARGIN, MAX_CONNECTIVITY * MARGIN)
        )
        others = {int(number) for number in numbers if fewer <= number <= more} | {fewer}
    else:
        best, others = choose_number(votes), set(votes)
    runner_ups = sorted(others - {best}, key=lambda number: (abs(number - best), number))
    return NumberOfClusters(best, runner_ups, lambda: _curve(numbers, limits, ensemble()))


def choose_number(votes: Sequence[int]) -> int:
    """The median of the votes, of an even number of them the lower one."""
    return int(np.median(votes))


def count_votes(representations: Sequence[np.ndarray], seed: int) -> list[int]:
    """The number of Leiden communities in each representation, at a low resolution.

    Parameters
    ----------
    representations
        ``(n, d)`` arrays whose nearest-neighbour graphs are clustered.
    seed
        Seed of Leiden.
    """
    return [count_communities(points, (RESOLUTION,), seed)[0] for points in representations]


def _numbers(tree: NestedClusters) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of clusters above 1, increasing, and the connectivity that all their splits are at most at."""
    limits = np.unique(tree.connectivity)
    numbers = np.array([tree.made(tree.connectivity <= limit).sum() + 1 for limit in limits], dtype=np.int64)
    first = np.flatnonzero(np.diff(numbers, prepend=1))
    return numbers[first], limits[first]


def _curve(numbers: np.ndarray, limits: np.ndarray, ensemble: Ensemble) -> pd.DataFrame:
    index = pd.RangeIndex(1, int(numbers.max(initial=1)) + 1, name="n_clusters")
    connectivity = pd.Series(limits, index=numbers).reindex(index, method="bfill").to_numpy(copy=True)
    connectivity[0] = 0.0
    return pd.DataFrame(
        {
            "connectivity": connectivity,
            "distance": [ensemble.distance(number) for number in index],
            "agreement": [ensemble.agreement(number) for number in index],
        },
        index=index,
    )
