"""Save models of this version, and their results; later versions must load them and give the same.

python -m tests.saved.make_model
"""

from pathlib import Path
from typing import Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import scvi

import scrcl

FOLDER = Path(__file__).parent / "model_0.2"
#: Arguments of the setup by kind of data.
SETUPS: dict[str, dict[str, Any]] = {
    "anndata": {},
    "embedding": {"features_key": "X_own"},
    "space": {"spatial_key": "spatial", "sample_key": "slice"},
    "batches": {"batch_key": "batch", "labels_key": "label", "unlabeled_category": "unknown"},
    "mudata": {"modalities": {"rna": "rna", "prot": "protein", "atac": "atac"}},
}


def draw(n_cells: int, seed: int) -> dict[str, np.ndarray]:
    """Cells of three types in two batches and two slices, as plain arrays."""
    rng = np.random.default_rng(seed)
    types, batches = rng.integers(3, size=n_cells), np.arange(n_cells) % 2
    programs = np.kron(np.eye(3), np.ones(12)) * 6 + 0.5  # (3, 36)
    return {
        "counts": rng.poisson(programs[types] * np.where(batches, 1.0, rng.uniform(0.5, 2, 36)[:, None]).T),
        "proteins": rng.poisson(programs[types, ::6] * 8 + 2),
        "peaks": rng.poisson(programs[types, ::3] / 4),
        "embedding": (programs[types, ::9] + rng.normal(size=(n_cells, 4))).astype(np.float32),
        "positions": np.stack([types * 4 + rng.uniform(0, 4, n_cells), rng.uniform(0, 8, n_cells)], 1),
        "batches": np.array(["a", "b"])[batches],
        "labels": np.where(rng.uniform(size=n_cells) < 0.8, np.array(["T", "B", "NK"])[types], "unknown"),
    }


def as_data(kind: str, arrays: dict[str, np.ndarray]) -> ad.AnnData | mudata.MuData:
    """AnnData or MuData of these arrays, as a kind of setup needs them."""
    cells = pd.Index([f"cell{i}" for i in range(len(arrays["counts"]))])

    def modality(counts: np.ndarray, prefix: str) -> ad.AnnData:
        names = pd.DataFrame(index=[f"{prefix}{i}" for i in range(counts.shape[1])])
        return ad.AnnData(counts.astype(np.float32), pd.DataFrame(index=cells), names)

    adata = modality(arrays["counts"], "gene")
    if kind == "mudata":
        prot, atac = modality(arrays["proteins"], "protein"), modality(arrays["peaks"], "peak")
        return mudata.MuData({"rna": adata, "prot": prot, "atac": atac})
    adata.obs = adata.obs.assign(slice=arrays["batches"], batch=arrays["batches"], label=arrays["labels"])
    adata.obsm = {"X_own": arrays["embedding"], "spatial": arrays["positions"]}
    return adata


def results(kind: str, model: scrcl.SCRCL, data: Any, new: Any) -> dict[str, np.ndarray]:
    """What a model finds for its own cells and for new ones."""
    found: dict[str, Any] = {
        "loss": model.history["train_loss"],
        "gene embedding": model.get_gene_embedding(),
        "probabilities": model.get_cluster_probabilities(data, n_clusters=3),
    }
    for name, cells in (("own", data), ("new", new)):
        found |= {
            f"{name} aligned": model.get_latent_representation(cells),
            f"{name} refined": model.get_latent_representation(cells, representation="refined"),
            f"{name} clusters": model.get_clusters(cells, n_clusters=3, method="kmeans"),
            f"{name} associations": model.get_cell_gene_associations(cells),
        }
    if kind == "batches":
        found |= {f"labels {name}": table for name, table in model.predict(new, soft=True).items()}
    if kind == "mudata":
        found["weights"] = model.get_modality_weights(new)
    return {name: np.asarray(value) for name, value in found.items()}


if __name__ == "__main__":
    for kind, setup in SETUPS.items():
        scvi.settings.seed = 0
        own, new = draw(60, 0), draw(24, 1)
        data = as_data(kind, own)
        (scrcl.SCRCL.setup_mudata if kind == "mudata" else scrcl.SCRCL.setup_anndata)(data, **setup)
        model = scrcl.SCRCL(data, n_hidden=8, n_refined=4, n_components=5, n_neighbors=8)
        model.train(3, accelerator="cpu", enable_progress_bar=False)
        found = results(kind, model, data, as_data(kind, new))
        model.save(FOLDER / kind, overwrite=True)
        np.savez_compressed(
            FOLDER / kind / "results.npz",
            allow_pickle=False,
            **{f"own/{name}": array for name, array in own.items()},
            **{f"new/{name}": array for name, array in new.items()},
            **{
                f"results/{name}": array.astype(str) if array.dtype == object else array
                for name, array in found.items()
            },
        )
