"""How many clusters there are, from several kinds of evidence, over plain arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from .consensus import Ensemble
from .leiden import count_communities

#: Resolutions at which communities are counted.
RESOLUTIONS = (0.05, 0.1, 0.2)
#: Clusters up to which the curve goes at least.
CURVE_UP_TO = 20


@dataclass(frozen=True)
class NumberOfClusters:
    """An estimate of the number of clusters, with what speaks for other numbers.

    Parameters
    ----------
    best
        The estimate: the largest of the votes, or 1.
    runner_ups
        Other numbers that votes were cast for, nearest to the estimate first.
    evidence
        The curve, or what finds it when it is first asked for.
    """

    best: int
    runner_ups: list[int]
    evidence: pd.DataFrame | Callable[[], pd.DataFrame] = field(repr=False, compare=False)

    @cached_property
    def curve(self) -> pd.DataFrame:
        """Data frame by number of clusters ``n_clusters``.

        ``votes``: how many of the Leiden clusterings, of the latent representation and of the smoothed features at three low
        resolutions, have this number of communities. ``distance``: mean distance of the two clusters that would be joined
        next, 0 for the same profile, 1 for unrelated ones, corrected for noise; above 1 for opposite ones. ``agreement``:
        mean adjusted Rand index between trees of different micro-clusters, two at a time; low where the data do not
        determine the clusters. Growing the trees takes longer than the estimate, so that it is found when it is first read.
        """
        return self.evidence() if callable(self.evidence) else self.evidence

    def __getstate__(self) -> dict[str, Any]:
        # What finds the curve belongs to a model, and is left behind.
        return {"best": self.best, "runner_ups": self.runner_ups, "evidence": self.curve}


def estimate_number(votes: list[int], ensemble: Callable[[], Ensemble]) -> NumberOfClusters:
    """Estimate the number of clusters, with the evidence for each number.

    Parameters
    ----------
    votes
        Numbers of communities, from :func:`cast_votes`.
    ensemble
        Gives trees over the same cells, for the curve.
    """
    best = choose_number(votes)
    others = sorted(set(votes) - {best}, key=lambda number: (abs(number - best), number))
    return NumberOfClusters(best, others, lambda: _curve(votes, ensemble()))


def _curve(votes: list[int], ensemble: Ensemble) -> pd.DataFrame:
    numbers = range(1, min(max(CURVE_UP_TO, 2 * max(votes)), len(ensemble.cells)) + 1)
    return pd.DataFrame(
        {
            "votes": [votes.count(number) for number in numbers],
            "distance": [ensemble.distance(number) for number in numbers],
            "agreement": [ensemble.agreement(number) for number in numbers],
        },
        index=pd.Index(numbers, name="n_clusters"),
    )


def choose_number(votes: list[int]) -> int:
    """The largest of the votes, or 1 where at least half of them are 1.

    Too few clusters cost more than too many: the tree of the consensus is cut where small groups come off large types,
    while two types that share a cluster are lost.
    """
    return max(votes) if np.median(votes) >= 2 else 1


def cast_votes(representations: Sequence[np.ndarray], seed: int) -> list[int]:
    """Numbers of Leiden communities at low resolutions.

    Parameters
    ----------
    representations
        ``(n, d)`` arrays whose nearest-neighbour graphs are divided.
    seed
        Seed of Leiden.
    """
    return [number for points in representations for number in count_communities(points, RESOLUTIONS, seed)]
