"""Estimate of the number of clusters, over plain arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from .consensus import Ensemble
from .leiden import count_communities

#: Resolutions at which communities are counted.
RESOLUTIONS = (0.05, 0.1, 0.2)
#: Least length of the curve, in clusters.
MIN_CURVE_CLUSTERS = 20


@dataclass(frozen=True)
class NumberOfClusters:
    """An estimate of the number of clusters, with the evidence for other numbers.

    Parameters
    ----------
    best
        The estimate: the largest of the votes, or 1.
    runner_ups
        Other numbers that have votes, nearest to the estimate first.
    evidence
        The curve, or a function that computes it.
    """

    best: int
    runner_ups: list[int]
    evidence: pd.DataFrame | Callable[[], pd.DataFrame] = field(repr=False, compare=False)

    @cached_property
    def curve(self) -> pd.DataFrame:
        """Data frame by number of clusters ``n_clusters``.

        ``votes``: number of Leiden clusterings, of the latent representation and of the smoothed features at three low
        resolutions, with this number of communities. ``distance``: mean distance of the two clusters that would be joined
        next, 0 for equal profiles, 1 for unrelated ones and above 1 for opposite ones, corrected for noise.
        ``agreement``: mean adjusted Rand index between pairs of trees of different micro-clusters; low if the clusters
        are poorly supported. The trees take longer than the estimate, so the curve is computed when it is first read.
        """
        return self.evidence() if callable(self.evidence) else self.evidence

    def __getstate__(self) -> dict[str, object]:
        # The function belongs to a model, and is not saved.
        return {"best": self.best, "runner_ups": self.runner_ups, "evidence": self.curve}


def estimate_number(votes: list[int], ensemble: Callable[[], Ensemble]) -> NumberOfClusters:
    """Estimate the number of clusters, with the evidence for each number.

    Parameters
    ----------
    votes
        Numbers of communities, from :func:`count_votes`.
    ensemble
        Function that returns the trees of the same cells, for the curve.
    """
    best = choose_number(votes)
    others = sorted(set(votes) - {best}, key=lambda number: (abs(number - best), number))
    return NumberOfClusters(best, others, lambda: _curve(votes, ensemble()))


def _curve(votes: list[int], ensemble: Ensemble) -> pd.DataFrame:
    numbers = range(1, min(max(MIN_CURVE_CLUSTERS, 2 * max(votes)), len(ensemble.cells)) + 1)
    return pd.DataFrame(
        {
            "votes": [votes.count(number) for number in numbers],
            "distance": [ensemble.distance(number) for number in numbers],
            "agreement": [ensemble.agreement(number) for number in numbers],
        },
        index=pd.Index(numbers, name="n_clusters"),
    )


def choose_number(votes: list[int]) -> int:
    """The largest of the votes, or 1 if at least half of them are 1.

    Too few clusters are worse than too many: with too many, the consensus separates small groups from large types; with too
    few, two types are in one cluster.
    """
    return max(votes) if np.median(votes) >= 2 else 1


def count_votes(representations: Sequence[np.ndarray], seed: int) -> list[int]:
    """Numbers of Leiden communities at low resolutions.

    Parameters
    ----------
    representations
        ``(n, d)`` arrays whose nearest-neighbour graphs are clustered.
    seed
        Seed of Leiden.
    """
    return [number for points in representations for number in count_communities(points, RESOLUTIONS, seed)]
