"""What clusters consist of: their cells by batch and sample, and the quality of these cells."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scrcl.data.columns import SAMPLE_COLUMNS
from scrcl.data.counts import Counts
from scrcl.reference.batch_report import MIN_SHARE
from scrcl.utils.names import as_groups

#: Most batches or samples that are shown, of columns that the options do not name, and of those that they name.
MAX_GUESSED, MAX_NAMED = 30, 100
#: Columns of ``obs`` with a score of doublets.
DOUBLET_COLUMNS = ("doublet_score", "doublet_scores", "scrublet_score", "scDblFinder.score", "predicted_doublet")
#: Beginnings of the names of mitochondrial genes.
MITOCHONDRIAL = ("mt-", "mt:")


@dataclass
class Composition:
    """Cells of each cluster by batch or sample.

    ``shares`` has the share of each batch in each cluster, as if all batches had the same number of cells. ``only_in`` has the
    batch that nearly all cells of a cluster are from.
    """

    key: str
    corrected: bool
    shares: dict[str, dict[str, float]]
    only_in: dict[str, str]

    @property
    def names(self) -> list[str]:
        """The batches."""
        return list(next(iter(self.shares.values())))


def compose(clusters: pd.Series, obs: pd.DataFrame, keys: dict[str, bool]) -> list[Composition]:
    """Cells of each cluster by batch and sample.

    Parameters
    ----------
    clusters
        Cluster of each cell.
    obs
        Where the batches are.
    keys
        Columns of batches and samples, and whether their effect is corrected.
    """
    guessed = dict.fromkeys([name for name in SAMPLE_COLUMNS if name in obs], False)
    found = []
    for key, corrected in {**guessed, **keys}.items():
        names = as_groups(obs[key]).remove_unused_categories()
        most = MAX_NAMED if key in keys else min(MAX_GUESSED, len(names) // 2)
        if not 2 <= len(names.categories) <= most:
            continue
        counts = pd.crosstab(clusters.astype(str).to_numpy(), names)
        present = [name for name in clusters.value_counts().index.astype(str) if name in counts.index]
        counts = counts.loc[present]
        relative = counts / counts.sum()
        shares = relative.div(relative.sum(axis=1), axis=0)
        single = shares.idxmax(axis=1)[shares.max(axis=1) >= MIN_SHARE]
        only_in = {str(cluster): str(name) for cluster, name in single.items()}
        found.append(Composition(key, corrected, _nested(shares), only_in))
    return found


def measure(counts: Counts, genes: pd.Index, obs: pd.DataFrame) -> pd.DataFrame:
    """Quality of each cell: its counts, genes that are detected, share of mitochondrial counts and score of a doublet.

    Columns without values in these data are left out.
    """
    mitochondrial = genes.str.casefold().str.startswith(MITOCHONDRIAL)
    parts = [
        np.column_stack([block.sum(1), np.diff(block.indptr), block[:, np.flatnonzero(mitochondrial)].sum(1)])
        for _, block in counts.blocks()
    ]
    total, detected, of_mitochondria = np.concatenate(parts).astype(np.float64).T
    cells = pd.DataFrame({"counts": total, "genes": detected})
    if mitochondrial.any():
        cells["mitochondrial"] = of_mitochondria / np.maximum(total, 1)
    column = next((name for name in DOUBLET_COLUMNS if name in obs), None)
    if column is not None:
        cells["doublet score"] = pd.to_numeric(obs[column], errors="coerce").to_numpy(np.float64)
    return cells


def quality(cells: pd.DataFrame, clusters: pd.Series) -> dict[str, dict[str, float]]:
    """Medians of the cells of each cluster, the largest first, after the medians of all cells, whose name is empty."""
    names = clusters.astype(str).to_numpy()
    medians = cells.groupby(names).median().reindex(pd.Series(names).value_counts().index)
    return {"": _plain(cells.median()), **_nested(medians)}


def _nested(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    return {str(name): _plain(row) for name, row in table.iterrows()}


def _plain(row: pd.Series) -> dict[str, float]:
    return {str(name): float(value) for name, value in row.items()}
