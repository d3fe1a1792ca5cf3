"""Plots of the training history, of the number of clusters, and of their sizes."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from mudata import MuData

from scrcl.cluster.number import NumberOfClusters
from scrcl.cluster.tree import MAX_CONNECTIVITY
from scrcl.data.columns import read_column
from scrcl.model.scrcl import SCRCL
from scrcl.utils import keys
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.words import counted

#: Colours of the estimated number, and of the other numbers near it.
CHOSEN, POSSIBLE = "#2f5d8c", "#9dbbd9"


def history(model: SCRCL | Mapping[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Plot the training history, the total loss and its terms by epoch.

    Each curve is divided by its first value, as the terms differ by orders of magnitude.

    Parameters
    ----------
    model
        A trained :class:`~scrcl.SCRCL`, or its ``history``.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If there is no history, because the model is not trained.

    Examples
    --------
    >>> ax = scrcl.pl.history(model)
    """
    curves: Mapping[str, pd.DataFrame] | None = getattr(model, "history", model)
    if not curves:
        raise ScrclValueError("model has no training history.", "Train it first: `model.train()`.")
    ax = ax or new_axes()
    for name, curve in curves.items():
        if "loss" not in name:  # such as the learning rate
            continue
        values = curve.iloc[:, 0].to_numpy(dtype=float)
        start = values[0] if values[0] != 0 else 1.0
        label = name.removesuffix("_train").replace("_", " ")
        ax.plot(curve.index + 1, values / start, label=label, lw=2.5 if name == "train_loss" else 1.2)
    ax.set(xlabel="epoch", ylabel="loss relative to the first epoch")
    ax.legend(frameon=False)
    return ax


def n_clusters(estimate: NumberOfClusters) -> Axes:
    """Plot the evidence for each number of clusters, each criterion on its own scale.

    The number that is supported is dark, and other numbers near the line are lighter. The dashed line is the connectivity up to
    which splits are supported.

    Parameters
    ----------
    estimate
        The result of :meth:`scrcl.SCRCL.estimate_n_clusters`.

    Returns
    -------
    The axes of the connectivity.

    Examples
    --------
    >>> ax = scrcl.pl.n_clusters(model.estimate_n_clusters())
    """
    curve, best = estimate.curve, estimate.best
    ratios = [1.5, *[1] * (curve.shape[1] - 1)]
    figure, grid = plt.subplots(len(ratios), sharex=True, height_ratios=ratios, layout="constrained", squeeze=False)
    ax = grid[0, 0]
    colors = {**dict.fromkeys(estimate.runner_ups, POSSIBLE), best: CHOSEN}
    for panel, column in zip(grid[:, 0], curve.columns, strict=True):
        panel.plot(curve.index, curve[column], color="0.55", lw=1.2, marker=".")
        for number, color in colors.items():
            panel.plot([number], curve.reindex([number])[column], "o", color=color)
        panel.axvspan(best - 0.5, best + 0.5, color=CHOSEN, alpha=0.12, lw=0, zorder=0)
        panel.set_ylabel(str(column).replace("_", " "))
        panel.yaxis.set_major_locator(MaxNLocator(3))
        panel.spines[["top", "right"]].set_visible(False)
    next_best = ", ".join(map(str, estimate.runner_ups))
    ax.set_title(counted(best, "cluster") + (f" (or {next_best})" if next_best else ""))
    ax.axhline(MAX_CONNECTIVITY, color="0.3", lw=0.8, ls="--")
    ax.set_ylim(0, 1.05 * max(MAX_CONNECTIVITY, min(curve["connectivity"].max(), 6 * MAX_CONNECTIVITY)))
    grid[-1, 0].set_xlabel("number of clusters")
    figure.align_ylabels()
    ax.set_xlim(curve.index[0] - 0.6, curve.index[-1] + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def cluster_sizes(adata: AnnData | MuData, key: str = keys.CLUSTERS_KEY, ax: Axes | None = None) -> Axes:
    """Plot the number of cells in each cluster.

    Parameters
    ----------
    adata
        Data with clusters.
    key
        Key of ``adata.obs`` of the clusters.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If ``key`` is missing.

    Examples
    --------
    >>> ax = scrcl.pl.cluster_sizes(adata)
    """
    sizes = read_column(adata, key, "key").value_counts()
    ax = ax or new_axes()
    bars = ax.barh(sizes.index.astype(str), sizes.to_numpy(), color="#4c78a8")
    ax.bar_label(bars, [f"{size:,}" for size in sizes], padding=3)
    ax.invert_yaxis()
    ax.set(xlabel="cells", ylabel=key)
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(x=0.12)
    return ax


def new_axes() -> Axes:
    """Axes of a new figure."""
    return plt.subplots(layout="constrained")[1]
