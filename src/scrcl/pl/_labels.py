"""Plots of cell types that were learned from labels."""

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from scrcl.model.scrcl import SCRCL


def confusion(model: SCRCL, ax: Axes | None = None) -> Axes:
    """Plot the types that are predicted for labelled cells from the labels of other cells, as shares of the cells of each label.

    Parameters
    ----------
    model
        A trained :class:`~scrcl.SCRCL` with a ``labels_key``, and with its data.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If the model has no labels.

    Examples
    --------
    >>> scrcl.SCRCL.setup_anndata(annotated, labels_key="annotation", unlabeled_category="Unknown")
    >>> model = scrcl.SCRCL(annotated)
    >>> model.train(max_epochs=2)
    >>> ax = scrcl.pl.confusion(model)
    """
    counts = model.get_label_report().confusions
    sizes = counts.sum(axis=1)
    shares = counts.div(sizes.clip(lower=1), axis=0).to_numpy()
    if ax is None:
        _, ax = plt.subplots(figsize=(2.5 + 0.4 * shares.shape[1], 1.8 + 0.35 * shares.shape[0]), layout="constrained")
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            ax.text(
                column, row, f"{share:.0%}", ha="center", va="center", fontsize=7, color="w" if share > 0.6 else "k"
            )
    ax.set_xticks(range(len(counts.columns)), counts.columns, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(counts)), [f"{name} ({size:,})" for name, size in zip(counts.index, sizes, strict=True)])
    ax.set(xlabel="predicted from the labels of other cells", ylabel="label (cells)")
    ax.figure.colorbar(image, ax=ax, label="share of the label")
    return ax


def confidence(model: SCRCL, adata: AnnData | MuData | None = None, ax: Axes | None = None) -> Axes:
    """Plot the probabilities of the predicted types, by type: median, quartiles, and the quantiles of 5 % and 95 %.

    Parameters
    ----------
    model
        A trained :class:`~scrcl.SCRCL` with a ``labels_key``.
    adata
        Cells, as in :meth:`scrcl.SCRCL.predict`; the cells of the model by default.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If the model has no labels.

    Examples
    --------
    >>> scrcl.SCRCL.setup_anndata(annotated, labels_key="annotation", unlabeled_category="Unknown")
    >>> model = scrcl.SCRCL(annotated)
    >>> model.train(max_epochs=2)
    >>> ax = scrcl.pl.confidence(model)
    """
    types, best = model.predict(adata), model.predict(adata, soft=True).max(axis=1)
    quantiles = best.groupby(types, observed=True).quantile(np.array([0.05, 0.25, 0.5, 0.75, 0.95])).unstack()
    sizes = types.value_counts()[quantiles.index]
    if ax is None:
        _, ax = plt.subplots(figsize=(5, 1 + 0.3 * len(sizes)), layout="constrained")
    positions = np.arange(len(sizes))
    ax.hlines(positions, quantiles[0.05], quantiles[0.95], color="#9dbbd9", lw=1.5)
    ax.hlines(positions, quantiles[0.25], quantiles[0.75], color="#9dbbd9", lw=7)
    ax.plot(quantiles[0.5], positions, "o", color="#2f5d8c", ms=5)
    ax.set_yticks(positions, [f"{name} ({size:,})" for name, size in sizes.items()])
    ax.invert_yaxis()
    ax.set(xlabel="probability of the type", ylabel="predicted type (cells)", xlim=(0, 1.02))
    ax.spines[["top", "right"]].set_visible(False)
    return ax
