"""How strong the effect of batches was, what is left of it, and which clusters are of one batch only."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scrcl.graph.mutual_neighbors import mixing, sample_of_each

from .batches import MAX_EVALUATED_CELLS, Batches

#: Share of a cluster, relative to the sizes of the batches, from which on it is of one batch only.
ONLY = 0.95


@dataclass(frozen=True)
class BatchReport:
    """What batches did to the cells of a model, and what was done about it.

    Mixing says how freely cells are among those of other batches: the share of their nearest cells that are of another
    batch, relative to the share of all cells that are. 0: not at all. 1: as if batches were drawn at random.

    Parameters
    ----------
    corrected
        Names of the modalities in which an effect was found and corrected. Of a modality in which no batch lies apart,
        nothing is changed.
    batches
        Data frame by batch. ``cells``; ``separation``: by the expression as measured, how much farther its cells are from
        their counterparts in other batches than from each other, of several modalities where it is most, 1 for no more, and
        above 1.05 an effect that is corrected; ``before`` and ``after``: mixing by the expression as measured, of several
        modalities where it is least, and in the latent space; ``mutual_neighbors``: share of its cells that the cell graph joins
        to a cell of another batch.
    clusters
        Data frame by cluster. ``cells``; ``mixing`` in the latent space; ``only_in``: the batch that nearly all of the
        cluster is from, counting batches as if they were of one size, or missing; and the share of each batch's cells that
        the cluster has.
    """

    corrected: list[str]
    batches: pd.DataFrame
    clusters: pd.DataFrame


def report_batches(
    batches: Batches, adjacency: sp.csr_array, points: np.ndarray, clusters: pd.Series, n_neighbors: int
) -> BatchReport:
    """Describe what batches do to cells.

    Parameters
    ----------
    batches
        The batches of the ``n`` cells.
    adjacency
        ``(n, n)`` cell graph.
    points
        ``(n, d)`` latent representation. Of many cells, mixing is judged on some of each batch.
    clusters
        ``(n,)`` categorical.
    n_neighbors
        Neighbours by which mixing is judged.
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
    shares = pd.crosstab(clusters.to_numpy(), codes, normalize="columns")
    shares = shares.reindex(index=clusters.cat.categories, columns=range(number), fill_value=0.0)
    shares.columns = names
    relative = shares.div(shares.sum(axis=1), axis=0)
    only = relative.idxmax(axis=1).where((relative.max(axis=1) >= ONLY) & (number > 1))
    by_cluster = pd.DataFrame(
        {
            "cells": clusters.value_counts().reindex(shares.index),
            "mixing": after.groupby(clusters.to_numpy()[evaluated]).mean().reindex(shares.index),
            "only_in": only,
        }
    ).join(shares)
    by_cluster.index.name = "cluster"
    return BatchReport(batches.corrected_modalities, by_batch, by_cluster)
