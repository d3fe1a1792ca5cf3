"""Plots of how sure the clusters of cells are."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from scrcl.data.sources import read_column
from scrcl.utils import keys
from scrcl.utils.checks import check_key

from ._maps import kept_umap

#: Bounds of the probability by which cells are counted, and colours from uncertain to certain.
BOUNDS = (0.0, 0.5, 0.7, 0.9, 1.0)
COLORS = ("#b2182b", "#f4a582", "#9dbbd9", "#2f5d8c")
#: Outlier score from which on a cell is ringed.
OUTLYING = 3.0
#: Bins of a reliability diagram.
N_BINS = 10


def certainty(
    adata: AnnData | MuData, report: pd.DataFrame, labels_key: str | None = None, basis: str = keys.LATENT_KEY
) -> list[Axes]:
    """Plot how sure the clusters of cells are.

    On a UMAP, cells by the probability of their cluster, with a ring around those that are far from all clusters; beside it, how
    many cells of each cluster are how certain. Of cells whose types are known, a third panel is a reliability diagram: in
    each bin of probability, the share of cells that are of the most frequent type of their cluster.

    Parameters
    ----------
    adata
        Data with the latent representation.
    report
        What :meth:`scrcl.SCRCL.get_cell_report` returned for these cells.
    labels_key
        Key of ``adata.obs`` of known types; cells without are left out of the diagram.
    basis
        Key of ``adata.obsm`` of the latent representation.

    Returns
    -------
    The axes, one for each panel.

    Raises
    ------
    ValueError
        If the report is of other cells, or has other columns.
    KeyError
        If a key is missing.

    Examples
    --------
    >>> axes = scrcl.pl.certainty(adata, model.get_cell_report())
    """
    missing = [name for name in ("cluster", "probability", "outlier_score") if name not in report]
    if missing:
        raise ValueError(f"report has no column {missing[0]!r}. Pass what `model.get_cell_report()` returned.")
    if not report.index.equals(adata.obs_names):
        raise ValueError("report is of other cells than adata. Pass `model.get_cell_report(adata)`.")
    if labels_key is not None:
        check_key(labels_key, adata.obs, "labels_key", "adata.obs")
    points = kept_umap(adata, basis)
    number = 2 if labels_key is None else 3
    axes = list(plt.subplots(1, number, figsize=(4.6 * number, 4), layout="constrained")[1])
    _map(axes[0], points, report)
    _counts(axes[1], report)
    if labels_key is not None:
        right = is_majority(report["cluster"].to_numpy(), read_column(adata.obs, labels_key, "adata.obs"))
        _reliability(axes[2], report["probability"].to_numpy(), right)
    return axes


def _map(ax: Axes, points: np.ndarray, report: pd.DataFrame) -> None:
    """Cells by probability, the uncertain ones on top."""
    order = np.argsort(-report["probability"].to_numpy(), kind="stable")
    size = float(np.clip(12_000 / len(points), 2, 25))
    drawn = ax.scatter(
        points[order, 0],
        points[order, 1],
        c=report["probability"].to_numpy()[order],
        s=size,
        vmin=0,
        vmax=1,
        cmap="RdYlBu",
        lw=0,
    )
    outlying = points[report["outlier_score"].to_numpy() >= OUTLYING]
    ax.scatter(outlying[:, 0], outlying[:, 1], s=3 * size, facecolors="none", edgecolors="black", lw=0.6)
    ax.set(xticks=[], yticks=[], xlabel="UMAP1", ylabel="UMAP2", title=f"{len(outlying):,} cells far from all clusters")
    ax.figure.colorbar(drawn, ax=ax, label="probability of the cluster", shrink=0.7)


def _counts(ax: Axes, report: pd.DataFrame) -> None:
    """Shares of the cells of each cluster that are how certain."""
    level = pd.cut(report["probability"], BOUNDS, include_lowest=True)
    table = pd.crosstab(report["cluster"], level, dropna=False, normalize="index")
    left = np.zeros(len(table))
    for number, color in enumerate(COLORS):
        bounds, share = level.cat.categories[number], table.iloc[:, number].to_numpy()
        low, high = max(bounds.left, 0), bounds.right
        ax.barh(table.index.astype(str), share, left=left, color=color, label=f"{low:.1f} to {high:.1f}")
        left += share
    ax.invert_yaxis()
    ax.set(xlabel="share of cells", ylabel="cluster", xlim=(0, 1))
    ax.legend(title="probability", frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def _reliability(ax: Axes, probability: np.ndarray, right: np.ndarray) -> None:
    """Share of cells that are right, by probability."""
    known = ~np.isnan(right)
    bins = np.minimum((probability[known] * N_BINS).astype(int), N_BINS - 1)
    counts = np.bincount(bins, minlength=N_BINS)
    filled = np.flatnonzero(counts)
    mean, share = (
        np.bincount(bins, values, N_BINS)[filled] / counts[filled] for values in (probability[known], right[known])
    )
    ax.plot([0, 1], [0, 1], color="0.7", ls="--", lw=1)
    ax.plot(mean, share, color=COLORS[-1], lw=1.2)
    ax.scatter(mean, share, s=10 + 190 * counts[filled] / np.max(counts), color=COLORS[-1])
    error = float(np.average(np.abs(mean - share), weights=counts[filled]))
    ax.set(
        xlabel="probability of the cluster",
        ylabel="share of its most frequent type",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
        title=f"expected calibration error {error:.2f}",
    )
    ax.spines[["top", "right"]].set_visible(False)


def is_majority(clusters: np.ndarray, labels: pd.Series) -> np.ndarray:
    """Whether each cell is of the most frequent type of its cluster: 1 or 0, and NaN for cells without a type."""
    types = labels.astype(object).to_numpy()
    known = labels.notna().to_numpy()
    found = np.full(len(types), np.nan)
    for cluster in np.unique(clusters):
        members = (clusters == cluster) & known
        if members.any():
            names, sizes = np.unique(types[members].astype(str), return_counts=True)
            found[members] = types[members].astype(str) == names[np.argmax(sizes)]
    return found
