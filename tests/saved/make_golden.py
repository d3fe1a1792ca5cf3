"""Record what the package gives on small simulated data, so that a change of its inside is seen.

python -m tests.saved.make_golden
"""

from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd
import scanpy as sc
import scvi

import scrcl
from tests.helpers import simulate

FILE = Path(__file__).parent / "golden.npz"
SMALL: dict[str, Any] = {"n_hidden": 16, "n_refined": 8, "n_components": 10}


def train(data: Any, setup: dict[str, Any], **options: Any) -> scrcl.SCRCL:
    scvi.settings.seed = 0
    several = isinstance(data, mudata.MuData)
    (scrcl.SCRCL.setup_mudata if several else scrcl.SCRCL.setup_anndata)(data, **setup)
    model = scrcl.SCRCL(data, **SMALL, **options)
    model.train(5, accelerator="cpu", enable_progress_bar=False)
    return model


def in_space(seed: int = 0) -> Any:
    adata = scrcl.datasets.layered_tissue(n_cells=120, n_slices=2, n_genes=40, seed=seed)
    adata.obs_names_make_unique()
    return adata


def several(seed: int = 0) -> mudata.MuData:
    """RNA, and proteins that follow its first genes."""
    rna = simulate(seed=seed)
    counts = np.random.default_rng(seed).poisson(rna.X[:, 5::12].toarray() * 10 + 3).astype(np.float32)
    names = pd.DataFrame(index=[f"protein{i}" for i in range(counts.shape[1])])
    return mudata.MuData({"rna": rna, "prot": sc.AnnData(counts, obs=rna.obs[[]].copy(), var=names)})


def embedded(seed: int = 0) -> Any:
    adata = simulate(seed=seed)
    normalized = sc.pp.log1p(sc.pp.normalize_total(adata, copy=True), copy=True)
    # One fixed projection for all data.
    axes = np.random.default_rng(0).normal(size=(adata.n_vars, 12))
    adata.obsm["X_own"] = (normalized.X @ axes).astype(np.float32)
    return adata


def models() -> dict[str, tuple[scrcl.SCRCL, Any]]:
    """Trained models, and further data for each."""
    kinds = {"rna": "rna", "prot": "protein"}
    return {
        "anndata": (train(simulate(), {}), simulate(40, seed=7)),
        "embedding": (train(embedded(), {"features_key": "X_own"}), embedded(7)),
        "space": (train(in_space(), {"spatial_key": "spatial", "sample_key": "slice"}), in_space(7)),
        "mudata": (train(several(), {"modalities": kinds}), several(7)),
    }


def results(name: str, model: scrcl.SCRCL, new: Any) -> dict[str, np.ndarray]:
    """Everything that a model says."""
    found: dict[str, Any] = {
        "features": model.adata.obsm["X_scrcl_features"],
        "graph": model.adata.obsp["scrcl_connectivities"].indices,
        "loss": model.history["train_loss"].to_numpy(dtype=float),
        "latent": model.get_latent_representation(),
        "refined": model.get_latent_representation(representation="refined"),
        "new": model.get_latent_representation(new),
        "clusters": model.get_clusters(n_clusters=3).to_numpy(str),
        "clusters found": model.get_clusters().to_numpy(str),
        "clusters of new": model.get_clusters(new, n_clusters=3).to_numpy(str),
        "k-means": model.get_clusters(n_clusters=4, method="kmeans").to_numpy(str),
        "leiden": model.get_clusters(method="leiden").to_numpy(str),
        "leiden given": model.get_clusters(n_clusters=4, method="leiden").to_numpy(str),
        "probabilities": model.get_cluster_probabilities(n_clusters=3, method="consensus").to_numpy(),
        "probabilities of new": model.get_cluster_probabilities(new, n_clusters=3, method="consensus").to_numpy(),
        "number": model.estimate_n_clusters().curve.to_numpy(dtype=float),
        "gene embedding": model.get_gene_embedding().to_numpy(),
        "modules": model.get_gene_modules(n_modules=3).cat.codes.to_numpy(),
        "associations": model.get_cell_gene_associations(genes=list(model.get_gene_embedding().index[:5])).to_numpy(),
    }
    markers = model.get_marker_genes(n_permutations=20, n_top=10)
    found |= {"markers": markers["gene"].to_numpy(str), "scores": markers["score"].to_numpy()}
    found["p-values"] = markers["pvalue"].to_numpy()
    lists = {str(group): rows["gene"].tolist() for group, rows in markers.groupby("group", observed=True)}
    found["names"] = model.get_cluster_names(lists)["name"].to_numpy(str)
    if name != "space":
        quality = model.get_mapping_quality(new, n_clusters=3)
        found["quality"] = quality[["confidence", "distance", "excess", "pvalue"]].to_numpy(dtype=float)
    if name == "mudata":
        found["weights"] = model.get_modality_weights(new).to_numpy()
        found["of proteins"] = model.get_latent_representation(modality="prot")
        found["clusters by proteins"] = model.get_clusters(n_clusters=3, modality="prot").to_numpy(str)
    return {key: np.asarray(value) for key, value in found.items()}


if __name__ == "__main__":
    every = {
        f"{name}/{key}": value if value.dtype.kind in "US" else value.astype(np.float32)
        for name, (model, new) in models().items()
        for key, value in results(name, model, new).items()
    }
    np.savez_compressed(FILE, allow_pickle=False, **every)
