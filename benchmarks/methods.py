"""The methods that are compared. Each takes counts without labels, a number of clusters and a seed."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

RESOLUTIONS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)


class Found(NamedTuple):
    """What a method found.

    `clusters` holds labels of all cells by the way in which they were found: "given" and "given, …" with the number of
    clusters given, "found" where the method decided, "leiden …" at a resolution.
    """

    embedding: np.ndarray
    clusters: dict[str, np.ndarray]


Method = Callable[[ad.AnnData, int, int], Found]


def run_scrcl(
    adata: ad.AnnData, n_clusters: int, seed: int, train: dict[str, Any] | None = None, **options: Any
) -> Found:
    """SCRCL with default settings, but for what is passed to `train` and to `get_clusters`."""
    import scvi

    import scrcl

    scvi.settings.seed = seed
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata)
    model.train(enable_progress_bar=False, **(train or {}))
    ways: dict[str, dict[str, Any]] = {
        "given": {"n_clusters": n_clusters},
        "given, k-means": {"n_clusters": n_clusters, "method": "kmeans"},
        "found": {},
    }
    clusters = {
        way: model.get_clusters(seed=seed, **arguments, **options).to_numpy(dtype=str)
        for way, arguments in ways.items()
    }
    return Found(model.get_latent_representation(**options), clusters)


def cluster_space(space: np.ndarray, n_clusters: int, seed: int) -> Found:
    """K-means, and Leiden over a grid of resolutions as scanpy does it."""
    import scanpy as sc
    from sklearn.cluster import KMeans

    clusters = {"given, k-means": KMeans(n_clusters, n_init=20, random_state=seed).fit_predict(space)}
    cells = ad.AnnData(obsm={"X": space}, obs=pd.DataFrame(index=[str(i) for i in range(len(space))]))
    sc.pp.neighbors(cells, use_rep="X", random_state=seed)
    for resolution in RESOLUTIONS:
        sc.tl.leiden(cells, resolution=resolution, flavor="igraph", n_iterations=2, random_state=seed)
        clusters[f"leiden {resolution}"] = cells.obs["leiden"].to_numpy(dtype=str)
    return Found(space, clusters)


def standard_genes(adata: ad.AnnData) -> ad.AnnData:
    """The standard preparation: log-normalised values, 2,000 highly variable genes, counts kept."""
    import scanpy as sc

    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=min(2_000, adata.n_vars))
    return adata[:, adata.var["highly_variable"]].copy()


def run_pca(adata: ad.AnnData, n_clusters: int, seed: int) -> Found:
    import scanpy as sc

    genes = standard_genes(adata)
    sc.pp.pca(genes, n_comps=min(50, genes.n_obs - 1), random_state=seed)
    return cluster_space(genes.obsm["X_pca"], n_clusters, seed)


def run_scvi(adata: ad.AnnData, n_clusters: int, seed: int) -> Found:
    import scvi

    scvi.settings.seed = seed
    genes = standard_genes(adata)
    scvi.model.SCVI.setup_anndata(genes, layer="counts")
    model = scvi.model.SCVI(genes)
    model.train(enable_progress_bar=False)
    return cluster_space(model.get_latent_representation(), n_clusters, seed)


#: What is left of SCRCL when a part is taken away.
ABLATIONS: dict[str, Method] = {
    "SCRCL, untrained": partial(run_scrcl, train={"max_epochs": 1, "plan_kwargs": {"lr": 0.0, "weight_decay": 0.0}}),
    "SCRCL, no neighborhood loss": partial(run_scrcl, train={"plan_kwargs": {"neighborhood_weight": 0.0}}),
    "SCRCL, no cross-view loss": partial(run_scrcl, train={"plan_kwargs": {"cross_view_weight": 0.0}}),
    "SCRCL, 150 epochs": partial(run_scrcl, train={"max_epochs": 150}),
    "SCRCL, refined": partial(run_scrcl, representation="refined"),
}

METHODS: dict[str, Method] = {
    "SCRCL": run_scrcl,
    "PCA": run_pca,
    "scVI": run_scvi,
    **ABLATIONS,
}
