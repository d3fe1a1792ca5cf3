"""Plots of the confidence of clusters."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from scrcl.data.columns import read_column
from scrcl.utils import keys
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.words import counted

from ._maps import kept_umap

#: Bounds of the bins of probability in which cells are counted, and their colours.
BOUNDS = (0.0, 0.5, 0.7, 0.9, 1.0)
COLORS = ("#b2182b", "#f4a582", "#9dbbd9", "#2f5d8c")
#: Cells with at least this outlier score are marked by a ring.
OUTLYING = 3.0
#: Bins of a reliability diagram.
N_BINS = 10


def certainty(
    adata: AnnData | MuData, report: pd.DataFrame, labels_key: str | None = None, basis: str = keys.LATENT_KEY
) -> list[Axes]:
    """Plot the confidence of the clusters of cells.

    The first panel is a UMAP of cells by the probability of their cluster, with a ring around cells that are far from all
    clusters; the second has the distribution of this probability in each cluster. If types are known, a third panel is a
    reliability diagram: the share of cells that have the most frequent type of their cluster, by probability.

    Parameters
    ----------
    adata
        Data with the latent representation.
    report
        The result of :meth:`scrcl.SCRCL.get_cell_report` for these cells.
    labels_key
        Key of ``adata.obs`` of known types; cells without a type are left out of the diagram.
    basis
        Key of ``adata.obsm`` of the latent representation.

    Returns
    -------
    The axes, one for each panel.

    Raises
    ------
    ValueError
        If the report has other cells or lacks a column.
    KeyError
        If a key is missing.

    Examples
    --------
    >>> axes = scrcl.pl.certainty(adata, model.get_cell_report())
    """
    missing = [name for name in ("cluster", "probability", "outlier_score") if name not in report]
    if missing:
        raise ScrclValueError(f"report has no column {missing[0]!r}.", "Pass the result of `model.get_cell_report()`.")
    if not report.index.equals(adata.obs_names):
        raise ScrclValueError("report has other cells than adata.", "Pass `model.get_cell_report(adata)`.")
    types = None if labels_key is None else read_column(adata, labels_key, "labels_key")
    points = kept_umap(adata, basis)
    number = 2 if types is None else 3
    axes = list(plt.subplots(1, number, figsize=(4.6 * number, 4), layout="constrained")[1])
    _map(axes[0], points, report)
    _shares(axes[1], report)
    if types is not None:
        is_right = is_majority(report["cluster"].to_numpy(), types)
        _reliability(axes[2], report[["probability"]].assign(is_majority=is_right).dropna())
    return axes


def _map(ax: Axes, points: np.ndarray, report: pd.DataFrame) -> None:
    """Cells by probability, the uncertain ones on top."""
    order = np.argsort(-report["probability"].to_numpy(), kind="stable")
    size = float(np.clip(12_000 / len(points), 2, 25))
    cells = AnnData(obs=report[["probability"]].iloc[order], obsm={"UMAP": points[order]})
    options = {"size": size, "vmin": 0, "vmax": 1, "cmap": "RdYlBu", "sort_order": False, "colorbar_loc": None}
    sc.pl.embedding(cells, "UMAP", color="probability", ax=ax, show=False, **options)
    ax.figure.colorbar(ax.collections[0], ax=ax, label="probability of the cluster", shrink=0.7)
    outlying = points[report["outlier_score"].to_numpy() >= OUTLYING]
    ax.scatter(outlying[:, 0], outlying[:, 1], s=3 * size, facecolors="none", edgecolors="black", lw=0.6)
    ax.set_title(f"{counted(len(outlying), 'cell')} far from all clusters")


def _shares(ax: Axes, report: pd.DataFrame) -> None:
    """Shares of the cells of each cluster in the bins of probability."""
    labels = [f"{low:.1f} to {high:.1f}" for low, high in pairwise(BOUNDS)]
    bins = pd.cut(report["probability"], BOUNDS, labels=labels, include_lowest=True)
    table = pd.crosstab(report["cluster"], bins, dropna=False, normalize="index")
    table.plot.barh(ax=ax, stacked=True, color=dict(zip(labels, COLORS, strict=True)), width=0.8)
    ax.invert_yaxis()
    ax.set(xlabel="share of cells", ylabel="cluster", xlim=(0, 1))
    ax.legend(title="probability", frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def _reliability(ax: Axes, cells: pd.DataFrame) -> None:
    """Share of cells that have the most frequent type of their cluster, by probability."""
    bins = cells.groupby((cells["probability"] * N_BINS).astype(int).clip(upper=N_BINS - 1))
    counts, means = bins.size(), bins.mean()
    probability, share = means["probability"], means["is_majority"]
    ax.plot([0, 1], [0, 1], color="0.7", ls="--", lw=1)
    ax.plot(probability, share, color=COLORS[-1], lw=1.2)
    ax.scatter(probability, share, s=10 + 190 * counts / counts.max(), color=COLORS[-1])
    error = float(np.average((probability - share).abs(), weights=counts))
    ax.set(
        xlabel="probability of the cluster",
        ylabel="share of its most frequent type",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
        title=f"expected calibration error {error:.2f}",
    )
    ax.spines[["top", "right"]].set_visible(False)


def is_majority(clusters: np.ndarray, labels: pd.Series) -> np.ndarray:
    """Whether each cell has the most frequent type of its cluster: 1 or 0, and NaN for cells without a type."""
    known = labels.notna().to_numpy()
    types = labels[known].astype(str)
    result = np.full(len(labels), np.nan)
    result[known] = types == types.groupby(clusters[known]).transform(lambda members: members.mode()[0])
    return result
