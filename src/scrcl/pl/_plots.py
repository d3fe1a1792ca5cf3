"""Plots of training and of what the model found."""

import warnings
import zlib
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from scrcl.cluster.number import NumberOfClusters
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.utils import keys
from scrcl.utils.checks import check_key


def history(model: Any, ax: Axes | None = None) -> Axes:
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
        If there is no history, as the model is not trained.
    """
    curves: Mapping[str, pd.DataFrame] | None = getattr(model, "history", model)
    if not curves:
        raise ValueError("model has no training history. Train it first: `model.train()`.")
    ax = _axes(ax)
    for name, curve in curves.items():
        if "loss" not in name:  # a learning rate, say
            continue
        values = curve.iloc[:, 0].to_numpy(dtype=float)
        start = values[0] if values[0] != 0 else 1.0
        label = name.removesuffix("_train").replace("_", " ")
        ax.plot(curve.index + 1, values / start, label=label, lw=2.5 if name == "train_loss" else 1.2)
    ax.set(xlabel="epoch", ylabel="loss relative to the first epoch")
    ax.legend(frameon=False)
    return ax


def n_clusters(estimate: NumberOfClusters, ax: Axes | None = None) -> Axes:
    """Plot the evidence for each number of clusters.

    Parameters
    ----------
    estimate
        What :meth:`scrcl.SCRCL.estimate_n_clusters` returned.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    The axes.
    """
    ax = _axes(ax)
    curve = estimate.curve
    ax.bar(curve.index, curve["votes"] / max(curve["votes"].max(), 1), color="0.85", label="votes")
    ax.plot(curve.index, curve["distance"], marker=".", label="distance of the next two")
    ax.plot(curve.index, curve["agreement"], marker=".", label="agreement")
    ax.axvline(estimate.best, color="0.3", ls=":", label=f"estimate: {estimate.best}")
    ax.set(xlabel="number of clusters", ylabel="evidence", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False)
    return ax


def umap(
    adata: AnnData, color: str = keys.CLUSTERS_KEY, basis: str = keys.LATENT_KEY, ax: Axes | None = None, **kwargs: Any
) -> Axes:
    """Plot a UMAP of the latent space.

    The map is computed on the first call, kept in ``adata.obsm["X_scrcl_umap"]``, and computed anew when the latent
    representation has changed.

    Parameters
    ----------
    adata
        Data with the latent representation.
    color
        Key of ``adata.obs`` to colour cells by.
    basis
        Key of ``adata.obsm`` of the latent representation.
    ax
        Axes to draw on; new ones by default.
    **kwargs
        Passed to :func:`scanpy.pl.embedding`.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If ``color`` or ``basis`` is missing.
    """
    check_key(color, adata.obs, "color", "adata.obs")
    check_key(basis, adata.obsm, "basis", "adata.obsm")
    latent = np.ascontiguousarray(adata.obsm[basis])
    source = zlib.crc32(latent.tobytes())
    if keys.UMAP_KEY not in adata.obsm or adata.uns.get(keys.UMAP_SOURCE_KEY) != source:
        adata.obsm[keys.UMAP_KEY] = umap_coordinates(latent)
        adata.uns[keys.UMAP_SOURCE_KEY] = source
    return _embedding(adata, keys.UMAP_KEY, color, ax, kwargs)


def spatial(
    adata: AnnData, color: str = keys.CLUSTERS_KEY, spatial_key: str = "spatial", ax: Axes | None = None, **kwargs: Any
) -> Axes:
    """Plot a map of the cells of a slice.

    Parameters
    ----------
    adata
        Cells of one slice; of several, take one: ``adata[adata.obs["slice"] == "a"]``.
    color
        Key of ``adata.obs``, or name of a gene, to colour cells by.
    spatial_key
        Key of ``adata.obsm`` of the coordinates, of which the first two are drawn, on the same scale. In images the second
        one points down: ``ax.invert_yaxis()``.
    ax
        Axes to draw on; new ones by default.
    **kwargs
        Passed to :func:`scanpy.pl.embedding`, such as ``size``.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If ``color`` or ``spatial_key`` is missing.
    """
    if color not in adata.var_names:
        check_key(color, adata.obs, "color", "adata.obs")
    check_key(spatial_key, adata.obsm, "spatial_key", "adata.obsm")
    ax = _embedding(adata, spatial_key, color, ax, kwargs)
    ax.set_aspect("equal")
    return ax


def _embedding(adata: AnnData, basis: str, color: str, ax: Axes | None, options: dict[str, Any]) -> Axes:
    """Draw cells by the coordinates in ``obsm[basis]``; the options of the user come before the defaults."""
    defaults = {"show": False, "ax": _axes(ax), "frameon": False, "title": color}
    return sc.pl.embedding(adata, basis, color=color, **{**defaults, **options})


def umap_coordinates(latent: np.ndarray, seed: int = 0) -> np.ndarray:
    """Two-dimensional UMAP coordinates ``(n, 2)`` of a latent representation ``(n, d)``, float32."""
    from umap import UMAP

    n_neighbors = min(15, len(latent) - 1)
    found = nearest_neighbors(latent, n_neighbors)
    itself = np.arange(len(latent))[:, None]
    # UMAP counts a point as its own nearest neighbour.
    indices = np.concatenate([itself, found.indices], 1)
    distances = np.concatenate([np.zeros_like(itself, dtype=np.float32), found.distances], 1)
    mapper = UMAP(n_neighbors=n_neighbors + 1, random_state=seed, n_jobs=1, precomputed_knn=(indices, distances, None))
    with warnings.catch_warnings():
        # New points will not be mapped, so that UMAP's search index is not missed.
        warnings.filterwarnings("ignore", message="precomputed_knn", category=UserWarning)
        return mapper.fit_transform(latent).astype(np.float32)


def cluster_sizes(adata: AnnData, key: str = keys.CLUSTERS_KEY, ax: Axes | None = None) -> Axes:
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
    """
    check_key(key, adata.obs, "key", "adata.obs")
    sizes = adata.obs[key].value_counts()
    ax = _axes(ax)
    bars = ax.barh(sizes.index.astype(str), sizes.to_numpy(), color="#4c78a8")
    ax.bar_label(bars, [f"{size:,}" for size in sizes], padding=3)
    ax.invert_yaxis()
    ax.set(xlabel="cells", ylabel=key)
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(x=0.12)
    return ax


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots(layout="constrained")[1] if ax is None else ax
