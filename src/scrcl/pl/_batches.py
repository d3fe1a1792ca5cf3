"""Plots of batches."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from ._maps import umap_coordinates


def batches(model: Any, n_clusters: int | None = None, seed: int = 0) -> np.ndarray:
    """Plot cells by batch before and after correction, and how freely batches mix in each cluster.

    Of many cells, some of each batch are drawn.

    Parameters
    ----------
    model
        A trained :class:`~scrcl.SCRCL` with a ``batch_key``, and with its data.
    n_clusters, seed
        Clusters, as in :meth:`scrcl.SCRCL.get_clusters`.

    Returns
    -------
    The three axes.

    Raises
    ------
    ValueError
        If the model knows no batches, or has not the data that it was built on.

    Examples
    --------
    >>> scrcl.SCRCL.setup_anndata(donors, batch_key="donor")
    >>> model = scrcl.SCRCL(donors)
    >>> model.train(max_epochs=2)
    >>> axes = scrcl.pl.batches(model)
    """
    report = model.get_batch_report(n_clusters=n_clusters, seed=seed)
    names, codes, before, after = model.get_batch_spaces()
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for ax, space, title, key in zip(
        axes, (before, after), ("as measured", "latent space"), ("before", "after"), strict=False
    ):
        x, y = umap_coordinates(space, seed).T
        order = np.random.default_rng(seed).permutation(len(x))  # no batch on top
        colors = plt.get_cmap("tab20" if len(names) > 10 else "tab10")(codes % 20)
        ax.scatter(x[order], y[order], s=max(1.0, min(20.0, 2e4 / len(x))), c=colors[order], lw=0)
        ax.set(title=f"{title}: mixing {report.batches[key].mean():.2f}", xticks=[], yticks=[])
    for number, name in enumerate(names):
        axes[0].scatter([], [], color=plt.get_cmap("tab20" if len(names) > 10 else "tab10")(number % 20), label=name)
    axes[0].legend(frameon=False, fontsize=8)
    clusters = report.clusters
    colors = ["#e45756" if isinstance(only, str) else "#4c78a8" for only in clusters["only_in"]]
    bars = axes[2].barh(clusters.index.astype(str), clusters["mixing"], color=colors)
    alone = [f"only {only}" if isinstance(only, str) else "" for only in clusters["only_in"]]
    axes[2].bar_label(bars, alone, padding=3, fontsize=8)
    axes[2].axvline(1, color="0.3", ls=":")
    axes[2].invert_yaxis()
    axes[2].set(xlabel="mixing (1: as by chance)", ylabel="cluster")
    axes[2].spines[["top", "right"]].set_visible(False)
    return axes
