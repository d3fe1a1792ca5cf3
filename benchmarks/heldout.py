"""New cells: agreement of their clusters with those of a full model, and detection of types that were left out.

    python benchmarks/heldout.py                      all labelled data sets of the folder
    python benchmarks/heldout.py --sets baron_mouse

Held out: a model of 80 % of the cells assigns the other 20 %. Their clusters are compared with those of a model of all
cells, and with the labels; the number of clusters is given. Left out: a model is trained without one cell type and without a
fifth of the other cells, and applied to both; whether `excess` of `get_mapping_quality` is higher for the new type (AUROC),
and which share of each is flagged at 5 %. The largest types are left out, one at a time.
"""

import argparse
import os
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import scvi
from quality import SMALLEST_CLASS, available_sets
from sklearn.metrics import adjusted_rand_score, roc_auc_score

import scrcl

RESULTS = Path(__file__).parent / "results"
LEFT_OUT = 4


def fit(adata: ad.AnnData, seed: int) -> scrcl.SCRCL:
    scvi.settings.seed = seed
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return model


def hold_out(adata: ad.AnnData, truth: np.ndarray, seed: int) -> list[float]:
    """Agreement with training on all, of the cells placed and of the others; ARI of both models with the labels."""
    classes, sizes = np.unique(truth, return_counts=True)
    scored = np.isin(truth, classes[sizes >= SMALLEST_CLASS])
    n_clusters = int((sizes >= SMALLEST_CLASS).sum())
    out = np.random.default_rng(seed).random(len(truth)) < 0.2
    all_clusters = fit(adata.copy(), seed).get_clusters(n_clusters=n_clusters, seed=seed).to_numpy()
    model = fit(adata[~out].copy(), seed)
    trained = model.get_clusters(n_clusters=n_clusters, seed=seed).to_numpy()
    placed = model.get_clusters(adata[out].copy(), n_clusters=n_clusters, seed=seed).to_numpy()
    evaluated = scored[out]
    return [
        adjusted_rand_score(all_clusters[out], placed),
        adjusted_rand_score(all_clusters[~out], trained),
        adjusted_rand_score(truth[out][evaluated], all_clusters[out][evaluated]),
        adjusted_rand_score(truth[out][evaluated], placed[evaluated]),
    ]


def leave_out(adata: ad.AnnData, truth: np.ndarray, kind: str, seed: int) -> list[float]:
    """AUROC of the type left out against held-out cells of the others, and the share of each that is flagged."""
    new = truth == kind
    kept = ~new & (np.random.default_rng(seed).random(len(truth)) < 0.2)
    model = fit(adata[~new & ~kept].copy(), seed)
    quality = model.get_mapping_quality(adata[new | kept].copy(), n_clusters=2)
    is_new = new[new | kept]
    return [
        roc_auc_score(is_new, quality["excess"]),
        quality.loc[is_new, "outlier"].mean(),
        quality.loc[~is_new, "outlier"].mean(),
    ]


def main(arguments: argparse.Namespace) -> str:
    lines = [
        "Mean over seeds (worst seed); types left out: one seed.",
        "",
        "| set | agreement of placed cells | of the other cells | ARI, trained on all | ARI, placed |"
        " types left out: AUROC | lowest | flagged | others flagged |",
        "|---" * 9 + "|",
    ]
    rows = []
    for name in arguments.sets or available_sets(arguments.data):
        adata = ad.read_h5ad(arguments.data / f"{name}.h5ad")
        truth = adata.obs["cell_type"].to_numpy(dtype=str)
        adata = ad.AnnData(adata.X, var=adata.var[[]])  # no label goes any further
        kinds, sizes = np.unique(truth, return_counts=True)
        largest = kinds[np.argsort(-sizes)][:LEFT_OUT]
        held = np.array([hold_out(adata, truth, seed) for seed in range(arguments.seeds)])
        left = np.array([leave_out(adata, truth, kind, 0) for kind in largest])
        types = [left[:, 0].mean(), left[:, 0].min(), *left[:, 1:].mean(0)]
        rows.append(np.column_stack([held, np.tile(types, (len(held), 1))]))
        lines.append(f"| {name} | {_cells(rows[-1])} |")
        print(lines[-1], file=sys.stderr, flush=True)
    lines.append(f"| **mean** | {_cells(np.mean(rows, axis=0))} |")
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("scrcl", "scvi-tools", "torch", "scikit-learn", "numpy")
    )
    lines += ["", f"{arguments.seeds} seeds, Python {platform.python_version()}, {packages}, {os.cpu_count()} cores."]
    return "\n".join(lines) + "\n"


def _cells(values: np.ndarray) -> str:
    """Cells of a row of the table, from values by seed; the first four have a worst seed."""
    worst = [f" ({value:.3f})" for value in values.min(0)[:4]] + [""] * (values.shape[1] - 4)
    return " | ".join(f"{mean:.3f}{least}" for mean, least in zip(values.mean(0), worst, strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SCRCL_DATA", "../shared/data")))
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    warnings.simplefilter("ignore")
    text = main(parser.parse_args())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "heldout.md").write_text(text)
    print(text)
