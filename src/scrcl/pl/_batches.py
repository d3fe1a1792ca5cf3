"""Plots of batches."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes

from scrcl.model.scrcl import SCRCL

from ._maps import umap_coordinates


def batches(model: SCRCL, n_clusters: int | None = None, seed: int = 0) -> list[Axes]:
    """Plot cells by batch before and after correction, and the mixing of batches in each cluster.

    If there are many cells, a sample of each batch is drawn.

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
        If the model has no batches, or was loaded without its data.

    Examples
    --------
    >>> scrcl.SCRCL.setup_anndata(donors, batch_key="donor")
    >>> model = scrcl.SCRCL(donors)
    >>> model.train(max_epochs=2)
    >>> axes = scrcl.pl.batches(model)
    """
    report = model.get_batch_report(n_clusters=n_clusters, seed=seed)
    names, codes, before, after = model.get_batch_spaces()
    axes = list(plt.subplots(1, 3, figsize=(13, 4), layout="constrained")[1])
    order = np.random.default_rng(seed).permutation(len(codes))  # so that no batch hides the others
    batches = pd.Categorical(np.take(names, codes[order]), names)
    cells = AnnData(obs=pd.DataFrame({"batch": batches}, index=order.astype(str)))
    for ax, space, title, key, legend in (
        (axes[0], before, "as measured", "before", "best"),
        (axes[1], after, "latent space", "after", None),
    ):
        cells.obsm["UMAP"] = umap_coordinates(space, seed)[order]
        title = f"{title}: mixing {report.batches[key].mean():.2f}"
        sc.pl.embedding(cells, "UMAP", color="batch", title=title, legend_loc=legend, show=False, ax=ax)
    clusters, single = report.clusters, report.clusters["only_in"].notna()
    bars = axes[2].barh(clusters.index.astype(str), clusters["mixing"], color=np.where(single, "#e45756", "#4c78a8"))
    axes[2].bar_label(bars, ("only " + clusters["only_in"].astype(str)).where(single, ""), padding=3, fontsize=8)
    axes[2].axvline(1, color="0.3", ls=":")
    axes[2].invert_yaxis()
    axes[2].set(xlabel="mixing (1: as expected by chance)", ylabel="cluster")
    axes[2].spines[["top", "right"]].set_visible(False)
    return axes
