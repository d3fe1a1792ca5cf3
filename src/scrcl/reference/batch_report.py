"""Report on batches: effects before and after correction, and clusters of one batch."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scrcl.graph.mutual_neighbors import mixing, sample_of_each
from scrcl.utils.display import Displayed
from scrcl.utils.words import counted

from .batches import MAX_EVALUATED_CELLS, Batches, mean_mixing

#: Share of a batch in a cluster, relative to the sizes of the batches, from which the cluster counts as of this batch only.
MIN_SHARE = 0.95


@dataclass(frozen=True, repr=False)
class BatchReport(Displayed):
    """Effects of batches on the cells of a model, and their correction.

    Mixing is the share of the nearest cells that are of another batch, relative to the share of all cells that are: 0 for none,
    1 if batches were random.

    Parameters
    ----------
    corrected
        Names of the modalities in which an effect was found and corrected. Modalities without an effect are not changed.
    batches
        Data frame by batch. ``cells``: their number; ``separation``: distance of its cells from their mutual neighbours in other
        batches relative to the distance among them, in the uncorrected features, the largest of several modalities; an effect
        above 1.05 is corrected; ``before`` and ``after``: mixing in the uncorrected features, the least of several modalities,
        and in the latent space; ``mutual_neighbors``: share of its cells that the cell graph joins
        to a cell of another batch.
    clusters
        Data frame by cluster. ``cells``; ``mixing`` in the latent space; ``only_in``: the batch that nearly all of the
        cluster is from, counting batches as if they were of one size, or missing; and the share of each batch's cells that
        the cluster has.
    conditions
        Data frame by condition, if conditions are protected. ``cells``; ``before`` and ``after``: mixing with the other
        conditions, which a correction of batches should leave as it was.
    """

    corrected: list[str]
    batches: pd.DataFrame
    clusters: pd.DataFrame
    conditions: pd.DataFrame | None = None

    def _display(self) -> tuple[str, pd.DataFrame]:
        corrected = (
            f"an effect is corrected in {', '.join(self.corrected)}" if self.corrected else "no effect is corrected"
        )
        if self.conditions is not None:
            corrected += f"; {counted(len(self.conditions), 'condition')} kept"
        single = self.clusters["only_in"].dropna()
        only = "; ".join(f"cluster {name} is only in {batch}" for name, batch in single.items())
        return (
            f"BatchReport: {counted(len(self.batches), 'batch', 'batches')}; {corrected}{f'; {only}' if only else ''}",
            self.batches,
        )


def report_batches(
    batches: Batches, adjacency: sp.csr_array, points: np.ndarray, clusters: pd.Series, n_neighbors: int
) -> BatchReport:
    """Measure effects of batches on ``n`` cells.

    ``points`` ``(n, d)`` are the latent representation, ``adjacency`` ``(n, n)`` is the cell graph, and ``clusters`` ``(n,)``
    are categorical. Mixing is measured among ``n_neighbors`` neighbours, with many cells on a sample of each batch.
    """
    codes, number = batches.codes, batches.n_reference
    names = pd.Index(batches.names[:number], name="batch")
    evaluated = sample_of_each(codes, MAX_EVALUATED_CELLS)
    after = pd.Series(mixing(points[evaluated], codes[evaluated], n_neighbors))
    edges = adjacency.tocoo()
    between = np.zeros(len(codes), dtype=bool)
    between[edges.row[codes[edges.row] != codes[edges.col]]] = True
    by_batch = pd.DataFrame(
        {
            "cells": np.bincount(codes),
            "separation": np.max([apart[:number] for apart in batches.separation.values()], axis=0),
            "before": np.min([free[:number] for free in batches.mixing.values()], axis=0),
            "after": after.groupby(codes[evaluated]).mean().to_numpy(),
            "mutual_neighbors": np.bincount(codes, between) / np.bincount(codes),
        },
        index=names,
    )
    fractions = pd.crosstab(clusters.to_numpy(), codes, normalize="columns")
    fractions = fractions.reindex(index=clusters.cat.categories, columns=range(number), fill_value=0.0)
    fractions.columns = names
    relative = fractions.div(fractions.sum(axis=1), axis=0)
    only = relative.idxmax(axis=1).where((relative.max(axis=1) >= MIN_SHARE) & (number > 1))
    by_cluster = pd.DataFrame(
        {
            "cells": clusters.value_counts().reindex(fractions.index),
            "mixing": after.groupby(clusters.to_numpy()[evaluated]).mean().reindex(fractions.index),
            "only_in": only,
        }
    ).join(fractions)
    by_cluster.index.name = "cluster"
    by_condition = None
    if batches.conditions is not None:
        of_cells = batches.conditions.codes
        by_condition = pd.DataFrame(
            {
                "cells": np.bincount(of_cells),
                "before": np.min(list(batches.conditions.mixing.values()), axis=0),
                "after": mean_mixing(
                    points[evaluated], of_cells[evaluated], len(batches.conditions.names), n_neighbors
                ),
            },
            index=pd.Index(batches.conditions.names, name="condition"),
        )
    return BatchReport(batches.corrected_modalities, by_batch, by_cluster, by_condition)
