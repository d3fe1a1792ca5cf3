"""The methods that are compared. Each takes counts without labels, a number of clusters and a seed."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

RESOLUTIONS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
#: Resolutions at which the latent space of SCRCL is clustered, and that are reported for every method.
LATENT_RESOLUTIONS = (0.1, 0.3, 1.0)


class Found(NamedTuple):
    """The result of a method.

    `clusters` holds labels of all cells by clustering: "given" and "given, …" with the number of
    clusters given, "found" where the method decided, "leiden …" at a resolution. `tree` is what `splits.py` reads of SCRCL.
    """

    embedding: np.ndarray
    clusters: dict[str, np.ndarray]
    tree: dict[str, Any] = {}


Method = Callable[[ad.AnnData, int, int], Found]


def run_scrcl(
    adata: ad.AnnData,
    n_clusters: int,
    seed: int,
    train: dict[str, Any] | None = None,
    setup: dict[str, Any] | None = None,
    **options: Any,
) -> Found:
    """SCRCL with default settings, but for what is passed to `setup_anndata`, the model and `train`."""
    model = trained(adata, seed, train, setup, **options)
    clusters = {
        "given": model.get_clusters(n_clusters=n_clusters, seed=seed),
        "given, refined": model.get_clusters(n_clusters=n_clusters, seed=seed, representation="refined"),
        "found": model.get_clusters(seed=seed),
    }
    latent = model.get_latent_representation()
    others = cluster_space(latent, n_clusters, seed, LATENT_RESOLUTIONS).clusters
    ours = {way: labels.to_numpy(str) for way, labels in clusters.items()}
    return Found(latent, ours | others, describe_tree(model, seed))


def describe_tree(model: Any, seed: int) -> dict[str, Any]:
    """The tree of clusters, and Leiden communities of the unweighted nearest-neighbour graph of the latent space."""
    nested = model.get_cluster_tree(seed=seed, evidence=False).nested
    communities = {
        str(resolution): model.get_clusters(method="leiden", resolution=resolution, seed=seed).cat.codes.tolist()
        for resolution in RESOLUTIONS
    }
    return {
        "leaves": nested.leaves.labels.tolist(),
        "children": nested.linkage[:, :2].astype(int).tolist(),
        "connectivity": nested.connectivity.tolist(),
        "leiden": communities,
    }


def trained(
    adata: ad.AnnData,
    seed: int,
    train: dict[str, Any] | None = None,
    setup: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    import scvi

    import scrcl

    scvi.settings.seed = seed
    scrcl.SCRCL.setup_anndata(adata, **(setup or {}))
    model = scrcl.SCRCL(adata, **options)
    model.train(enable_progress_bar=False, **(train or {}))
    return model


def run_parts(adata: ad.AnnData, n_clusters: int, seed: int) -> Found:
    """What is left of the consensus when a part of it is taken away. Reads what is private to the model."""
    from scrcl.cluster.consensus import Ensemble, clustered_cells
    from scrcl.cluster.trees import N_REPEATS

    model = trained(adata, seed)
    results, view = model._results, ("aligned", None)
    cells = clustered_cells(adata.n_obs, seed)
    latent, spaces, features = (
        results.latent(view),
        results.spaces(view, cells),
        model._reference.linkage_features(None, cells),
    )

    def cut(spaces: list[np.ndarray], features: list[np.ndarray]) -> np.ndarray:
        return Ensemble.build(latent, cells, spaces, features, seed, N_REPEATS).cut(n_clusters)[0].labels

    clusters = {f"given, {name} only": cut([space], features) for name, space in zip(SPACES, spaces, strict=True)}
    ensemble = Ensemble.build(latent, cells, spaces, features, seed, N_REPEATS)
    kinds = {"trees": replace(ensemble, spaces=[]), "no trees": replace(ensemble, trees=[])}
    clusters |= {f"given, {name}": kind.cut(n_clusters)[0].labels for name, kind in kinds.items()}
    refined = {"n_clusters": n_clusters, "representation": "refined", "seed": seed}
    clusters["given, refined"] = model.get_clusters(**refined).to_numpy(str)
    clusters["given, refined, k-means"] = model.get_clusters(**refined, method="kmeans").to_numpy(str)
    return Found(latent, clusters)


def run_on_pca(adata: ad.AnnData, n_clusters: int, seed: int) -> Found:
    """SCRCL with the standard principal components as features."""
    import scanpy as sc

    genes = standard_genes(adata.copy())
    sc.pp.pca(genes, n_comps=min(50, genes.n_obs - 1), random_state=seed)
    adata.obsm["X_pca"] = genes.obsm["X_pca"]
    return run_scrcl(adata, n_clusters, seed, setup={"features_key": "X_pca"})


def run_paper_protocol(adata: ad.AnnData, n_clusters: int, seed: int) -> Found:
    """The published settings as far as they do not need labels; the last epoch, as choosing one would need them.

    Counts of 2,000 genes as features, a graph by cosine on log-normalised genes, c = K, k-means on the refined views.
    """
    import scvi

    import scrcl
    from scrcl.graph.neighbors import nearest_neighbors

    genes = standard_genes(adata.copy())
    rows = genes.X.toarray()
    graph = nearest_neighbors(rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12), 15).to_sparse()
    adata.obsm["counts"] = genes.layers["counts"].toarray()
    adata.obsp["cosine"] = graph
    adata.uns["cosine"] = {"connectivities_key": "cosine"}
    scvi.settings.seed = seed
    scrcl.SCRCL.setup_anndata(adata, features_key="counts", neighbors_key="cosine")
    model = scrcl.SCRCL(adata, n_hidden=1500, n_refined=n_clusters, temperature=0.1, dropout_rate=0.3)
    weights = {"neighborhood_weight": 100.0, "cross_view_weight": 1.0}
    model.train(500, plan_kwargs={"lr": 1e-4, "weight_decay": 0.1, **weights}, enable_progress_bar=False)
    labels = model.get_clusters(n_clusters=n_clusters, method="kmeans", representation="refined", seed=seed)
    return Found(model.get_latent_representation(representation="refined"), {"given, k-means": labels.to_numpy(str)})


def cluster_space(space: np.ndarray, n_clusters: int, seed: int, resolutions: tuple[float, ...] = RESOLUTIONS) -> Found:
    """K-means, a Gaussian mixture with one covariance on 20 components, and Leiden as scanpy does it."""
    import scanpy as sc
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    leading = PCA(min(20, *space.shape), random_state=seed).fit_transform(space)
    mixture = GaussianMixture(n_clusters, covariance_type="tied", n_init=5, random_state=seed)
    clusters = {
        "given, k-means": KMeans(n_clusters, n_init=20, random_state=seed).fit_predict(space),
        "given, mixture": mixture.fit_predict(leading / leading.std()),
    }
    cells = ad.AnnData(obsm={"X": space}, obs=pd.DataFrame(index=[str(i) for i in range(len(space))]))
    sc.pp.neighbors(cells, use_rep="X", random_state=seed)
    for resolution in resolutions:
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


def run_scvi(adata: ad.AnnData, n_clusters: int, seed: int, name: str = "model.SCVI") -> Found:
    """A model of scvi-tools with its defaults, by its name there."""
    import scvi

    scvi.settings.seed = seed
    genes = standard_genes(adata)
    kind = attrgetter(name)(scvi)
    kind.setup_anndata(genes, layer="counts")
    model = kind(genes)
    model.train(enable_progress_bar=False)
    return cluster_space(model.get_latent_representation(), n_clusters, seed)


def concord_embedding(adata: ad.AnnData, seed: int, batch_key: str | None = None) -> np.ndarray:
    """CONCORD by its own recipe; its embedding is meant to be read by angles, so at unit length."""
    import concord
    import scanpy as sc
    from sklearn.preprocessing import normalize

    genes = concord.ul.select_features(adata, n_top_features=min(2_000, adata.n_vars), flavor="seurat_v3")
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    model = concord.Concord(
        adata, input_feature=genes, domain_key=batch_key, seed=seed, save_dir=None, preload_dense=True
    )
    model.fit_transform(output_key="concord")
    return normalize(adata.obsm["concord"])


def run_concord(adata: ad.AnnData, n_clusters: int, seed: int) -> Found:
    return cluster_space(concord_embedding(adata, seed), n_clusters, seed)


def run_smoothed(adata: ad.AnnData, n_clusters: int, seed: int) -> Found:
    """The features by which neighbours are found, averaged over the cell graph; no network. Reads what is private to the model."""
    import scrcl

    scrcl.SCRCL.setup_anndata(adata)
    return cluster_space(scrcl.SCRCL(adata)._reference.smoothed(), n_clusters, seed)


def without(weight: str) -> Method:
    return partial(run_scrcl, train={"plan_kwargs": {f"{weight}_weight": 0.0}})


#: Packages of peers, which need an environment of their own, beside those of all benchmarks.
PEERS = {"PCA + Harmony": ["harmonypy"], "CONCORD": ["concord-sc"]}
#: What the network reads, by the ways in which embeddings are read.
SMOOTHED = "smoothed features"
#: The spaces of the consensus.
SPACES = ("latent representation", "smoothed features", "refined representation")
#: The method whose ways are several ablations of the readout of one trained model.
PARTS = "SCRCL, parts of the consensus"

#: What is left of SCRCL when a part is taken away or a setting changed.
ABLATIONS: dict[str, Method] = {
    PARTS: run_parts,
    "SCRCL, untrained": partial(run_scrcl, train={"max_epochs": 1, "plan_kwargs": {"lr": 0.0, "weight_decay": 0.0}}),
    "SCRCL, no alignment loss": without("alignment"),
    "SCRCL, no neighborhood loss": without("neighborhood"),
    "SCRCL, no cross-view loss": without("cross_view"),
    "SCRCL, 150 epochs": partial(run_scrcl, train={"max_epochs": 150}),
    "SCRCL, 30 neighbors": partial(run_scrcl, n_neighbors=30),
    "SCRCL, features of PCA": run_on_pca,
}

METHODS: dict[str, Method] = {
    "SCRCL": run_scrcl,
    "PCA": run_pca,
    "scVI": run_scvi,
    "CONCORD": run_concord,
    "JointEmbeddingSCVI": partial(run_scvi, name="external.JointEmbeddingSCVI"),
    "DRVI": partial(run_scvi, name="external.DRVI"),
    SMOOTHED: run_smoothed,
    "paper protocol": run_paper_protocol,
    **ABLATIONS,
}
