"""One run of a method for spatial domains that has an environment of its own; `spatial.py` calls it.

    python -m venv other && other/bin/pip install "torch==2.13.0" pybanksy nichepca cosmim "cellcharter[transcriptomics]"
    other/bin/python benchmarks/spatial_external.py Banksy counts.h5ad 7 0 labels.csv

Each method runs with its defaults, except for the number of domains, which is given: the resolution of Leiden is searched for it.
"""

import argparse
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc

N_GENES, N_COMPONENTS = 2000, 20
#: Steps of the search for the resolution.
N_STEPS = 25


def leiden_with(adata: ad.AnnData, n_clusters: int, seed: int) -> np.ndarray:
    """Leiden communities at the resolution that gives the number of clusters, or the nearest one; for 0 the default resolution."""
    if n_clusters == 0:
        sc.tl.leiden(adata, random_state=seed, flavor="igraph", n_iterations=2)
        return adata.obs["leiden"].to_numpy(str)
    low, high, best = 0.0, 4.0, np.zeros(adata.n_obs, dtype=int).astype(str)
    for _ in range(N_STEPS):
        middle = (low + high) / 2
        sc.tl.leiden(adata, resolution=middle, random_state=seed, flavor="igraph", n_iterations=2)
        found = adata.obs["leiden"].to_numpy(str)
        number = len(np.unique(found))
        if abs(number - n_clusters) < abs(len(np.unique(best)) - n_clusters):
            best = found
        if number == n_clusters:
            break
        low, high = (middle, high) if number < n_clusters else (low, middle)
    return best


def variable_genes(normalized: ad.AnnData) -> np.ndarray:
    """Mask of the genes that vary most, of all if there are few."""
    if normalized.n_vars <= N_GENES:
        return np.ones(normalized.n_vars, dtype=bool)
    logarithms = sc.pp.log1p(normalized, copy=True)
    sc.pp.highly_variable_genes(logarithms, n_top_genes=N_GENES)
    return logarithms.var["highly_variable"].to_numpy()


def neighbors_of(adata: ad.AnnData, basis: str, number: int, seed: int) -> None:
    sc.pp.neighbors(adata, n_neighbors=min(number, adata.n_obs - 1), use_rep=basis, random_state=seed)


def run_banksy(adata: ad.AnnData, n_clusters: int, seed: int) -> np.ndarray:
    """Lambda 0.8 for domains, 15 neighbours, 20 components and 50 neighbours of Leiden, as in its tutorials."""
    from banksy.embed_banksy import generate_banksy_matrix
    from banksy.initialize_banksy import initialize_banksy

    sc.pp.normalize_total(adata)
    adata = adata[:, variable_genes(adata)].copy()
    adata.X = adata.X.toarray()
    points = adata.obsm["spatial"]
    adata.obs["x"], adata.obs["y"] = points.T
    adata.obsm["coord_xy"] = points
    keys = ("x", "y", "coord_xy")
    quiet = dict.fromkeys(("plt_edge_hist", "plt_nbr_weights", "plt_agf_angles", "plt_theta"), False)
    parts = initialize_banksy(adata, keys, 15, nbr_weight_decay="scaled_gaussian", max_m=1, **quiet)
    _, matrix = generate_banksy_matrix(adata, parts, [0.8], 1, verbose=False)
    number = min(N_COMPONENTS, matrix.n_obs - 1)
    sc.pp.pca(matrix, n_comps=number, random_state=seed)
    neighbors_of(matrix, "X_pca", 50, seed)
    return leiden_with(matrix, n_clusters, seed)


def run_nichepca(adata: ad.AnnData, n_clusters: int, seed: int) -> np.ndarray:
    import nichepca

    nichepca.wf.nichepca(adata, knn=25)
    neighbors_of(adata, "X_npca", 15, seed)
    return leiden_with(adata, n_clusters, seed)


def run_cosmim(adata: ad.AnnData, n_clusters: int, seed: int) -> np.ndarray:
    import cosmim

    adata.obs["number"] = np.arange(adata.n_obs)
    found = cosmim.run(adata, max_labels=n_clusters, random_state=seed)
    labels = np.full(adata.n_obs, "", dtype=object)
    labels[found.obs["number"].to_numpy()] = found.obs["cosmim"].to_numpy(str)
    return labels.astype(str)


def run_cellcharter(adata: ad.AnnData, n_clusters: int, seed: int) -> np.ndarray:
    """The latent space of scVI, aggregated over three layers of a Delaunay graph, as in its tutorial for transcriptomics.

    Of many genes those that vary most, as in the tutorials of scVI.
    """
    import cellcharter
    import scvi
    import squidpy

    scvi.settings.seed = seed
    adata.obs["number"] = np.arange(adata.n_obs)
    labels = np.full(adata.n_obs, "", dtype=object)
    sc.pp.filter_genes(adata, min_counts=3)
    sc.pp.filter_cells(adata, min_counts=3)
    adata = adata[:, variable_genes(sc.pp.normalize_total(adata, copy=True))].copy()
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata)
    model.train(early_stopping=True, enable_progress_bar=False)
    adata.obsm["X_scVI"] = model.get_latent_representation().astype(np.float32)
    squidpy.gr.spatial_neighbors(adata, coord_type="generic", delaunay=True)
    cellcharter.gr.remove_long_links(adata)
    cellcharter.gr.aggregate_neighbors(adata, n_layers=3, use_rep="X_scVI")
    mixture = cellcharter.tl.Cluster(n_clusters, random_state=seed)
    mixture.fit(adata, use_rep="X_cellcharter")
    labels[adata.obs["number"].to_numpy()] = np.asarray(mixture.predict(adata, use_rep="X_cellcharter")).astype(str)
    return labels.astype(str)


METHODS = {"Banksy": run_banksy, "NichePCA": run_nichepca, "CoSMIM": run_cosmim, "CellCharter": run_cellcharter}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("method", choices=list(METHODS))
    parser.add_argument("data")
    parser.add_argument("n_clusters", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("output")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    adata = ad.read_h5ad(arguments.data)
    names = adata.obs_names  # methods may drop cells
    labels = METHODS[arguments.method](adata, arguments.n_clusters, arguments.seed)
    pd.Series(labels, index=names, name="domain").to_csv(arguments.output)


if __name__ == "__main__":
    main()
