"""How well clusters agree with cell types, and at what cost: SCRCL beside what people use today.

    python benchmarks/quality.py --sets baron_mouse --seeds 5
    python benchmarks/quality.py                     all sets of the folder
    python benchmarks/quality.py --report            only the tables, from what was run before

A set is an .h5ad file of counts with `obs["cell_type"]` in `$SCRCL_DATA`, or in `../shared/data` beside the repository.
Labels score, and give K to the methods of the regime "K given"; nothing else. Classes with fewer than 10 cells are not
scored. Each run is a process of one thread, and its result a file in `benchmarks/results/quality`, so that an
interrupted benchmark goes on where it stopped. Regimes are never mixed in one table:

- K given: the number of scored classes is passed to the method.
- K unknown: the method decides.
- ceiling: the best Leiden resolution for each set, chosen by the labels.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, f1_score, normalized_mutual_info_score

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RESOLUTIONS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
SMALLEST_CLASS = 10
PACKAGES = ("scrcl", "scvi-tools", "torch", "scanpy", "scikit-learn", "igraph", "numpy")

#: Labels of all cells by the name of the way in which the clusters were found.
Found = dict[str, np.ndarray]


def data_folder() -> Path:
    return Path(os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")


def available_sets() -> list[str]:
    names = []
    for path in sorted(data_folder().glob("*.h5ad")):
        obs = ad.read_h5ad(path, backed="r").obs
        if "cell_type" in obs and "domain" not in obs:
            names.append(path.stem)
    return names


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
        "kmeans": {"n_clusters": n_clusters, "method": "kmeans"},
        "found": {},
    }
    return {
        way: model.get_clusters(seed=seed, **arguments, **options).to_numpy(dtype=str)
        for way, arguments in ways.items()
    }


def cluster_space(space: np.ndarray, n_clusters: int, seed: int) -> Found:
    """K-means, and Leiden over a grid of resolutions as scanpy does it."""
    import scanpy as sc
    from sklearn.cluster import KMeans

    found: Found = {"given": KMeans(n_clusters, n_init=20, random_state=seed).fit_predict(space)}
    cells = ad.AnnData(obsm={"X": space}, obs=pd.DataFrame(index=[str(i) for i in range(len(space))]))
    sc.pp.neighbors(cells, use_rep="X", random_state=seed)
    for resolution in RESOLUTIONS:
        sc.tl.leiden(cells, resolution=resolution, flavor="igraph", n_iterations=2, random_state=seed)
        found[f"leiden {resolution}"] = cells.obs["leiden"].to_numpy(dtype=str)
    return found


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


Method = Callable[[ad.AnnData, int, int], Found]

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


def accuracy(truth: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Accuracy and macro-F1 after the best one-to-one matching of clusters to classes."""
    table = pd.crosstab(found, truth)
    rows, columns = linear_sum_assignment(-table.to_numpy())
    names = dict(zip(table.index[rows], table.columns[columns], strict=True))
    matched = pd.Series(found).map(names).fillna("unmatched").to_numpy()
    labels = list(np.unique(truth))
    return float((matched == truth).mean()), float(f1_score(truth, matched, labels=labels, average="macro"))


def score(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    exact, f1 = accuracy(truth, found)
    return {
        "ARI": float(adjusted_rand_score(truth, found)),
        "NMI": float(normalized_mutual_info_score(truth, found)),
        "ACC": exact,
        "F1": f1,
        "clusters": len(np.unique(found)),
    }


def work(name: str, method: str, seed: int) -> dict[str, Any]:
    """One run in this process."""
    warnings.simplefilter("ignore")
    adata = ad.read_h5ad(data_folder() / f"{name}.h5ad")
    truth = adata.obs["cell_type"].to_numpy(dtype=str)
    classes, sizes = np.unique(truth, return_counts=True)
    scored = np.isin(truth, classes[sizes >= SMALLEST_CLASS])
    n_clusters = int((sizes >= SMALLEST_CLASS).sum())
    bare = ad.AnnData(adata.X, var=adata.var[[]])  # no label goes any further
    start = time.perf_counter()
    found = METHODS[method](bare, n_clusters, seed)
    return {
        "seconds": time.perf_counter() - start,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "cells": adata.n_obs,
        "classes": n_clusters,
        "scores": {way: score(truth[scored], labels[scored]) for way, labels in found.items()},
        "labels": {way: labels.tolist() for way, labels in found.items() if way in ("given", "found")},
        "versions": {package: version(package) for package in PACKAGES},
    }


def result_file(name: str, method: str, seed: int) -> Path:
    return RESULTS / "quality" / name / method.replace(", ", "-").replace(" ", "-") / f"{seed}.json"


def run_all(names: list[str], methods: list[str], seeds: int) -> None:
    # Seeds outside, so that an interrupted benchmark has all methods side by side.
    todo = [(n, m, s) for s in range(seeds) for n in names for m in methods if not result_file(n, m, s).exists()]
    for number, (name, method, seed) in enumerate(todo, 1):
        print(f"[{number}/{len(todo)}] {method} on {name}, seed {seed}", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--work", name, method, str(seed)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{method} on {name} failed:\n{done.stderr}")
        path = result_file(name, method, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(done.stdout.splitlines()[-1] + "\n")


def collect(names: list[str], methods: list[str], seeds: int) -> pd.DataFrame:
    """One row for each run and way of finding the clusters."""
    rows = []
    for name in names:
        for method in methods:
            for seed in range(seeds):
                path = result_file(name, method, seed)
                if path.exists():
                    result = json.loads(path.read_text())
                    cost = {key: result[key] for key in ("seconds", "peak_gb")}
                    for way, scores in result["scores"].items():
                        rows.append({"set": name, "method": method, "seed": seed, "way": way, **cost, **scores})
    return pd.DataFrame(rows)


def table(runs: pd.DataFrame, title: str, ours: pd.Series) -> list[str]:
    """Mean and worst seed of the ARI by set; means over sets of the other scores and the costs.

    `ours` are the seconds of SCRCL by set, to which the times are compared.
    """
    names = sorted(runs["set"].unique())
    lines = [f"### {title}", "", "ARI, mean (worst seed).", ""]
    lines += ["| method | " + " | ".join(names) + " | mean ARI | NMI | ACC | F1 | s | GB | time of SCRCL |"]
    lines += ["|---" * (len(names) + 8) + "|"]
    for label, group in runs.groupby("label", sort=False):
        by_set = group.groupby("set")
        ari = by_set["ARI"].agg(["mean", "min"]).reindex(names)
        cells = ["–" if np.isnan(mean) else f"{mean:.3f} ({worst:.3f})" for mean, worst in ari.to_numpy()]
        means = by_set[["ARI", "NMI", "ACC", "F1", "seconds", "peak_gb"]].mean().mean()
        times = (by_set["seconds"].mean() / ours).mean()
        lines.append(
            f"| {label} | "
            + " | ".join(cells)
            + f" | **{means['ARI']:.3f}** | {means['NMI']:.3f} | {means['ACC']:.3f} | "
            f"{means['F1']:.3f} | {means['seconds']:.1f} | {means['peak_gb']:.2f} | × {times:.1f} |"
        )
    return [*lines, ""]


def report(names: list[str], methods: list[str], seeds: int) -> str:
    runs = collect(names, methods, seeds)
    if runs.empty:
        sys.exit("Nothing was run yet.")
    leiden = runs[runs["way"].str.startswith("leiden")]
    given = runs[runs["way"].isin(["given", "kmeans"])]
    plain = (given["way"] == "kmeans") | ~given["method"].str.startswith("SCRCL")
    given = given.assign(label=given["method"] + np.where(plain, " + k-means", ""))
    unknown = [runs[runs["way"] == "found"].assign(label=lambda r: r["method"])]
    ceiling = []
    for method, group in leiden.groupby("method", sort=False):
        best = group.groupby(["way", "set"])["ARI"].mean().groupby("way").mean().idxmax()
        unknown.append(group[group["way"] == "leiden 1.0"].assign(label=f"{method} + Leiden at 1.0"))
        unknown.append(
            group[group["way"] == best].assign(label=f"{method} + Leiden at its best fixed {str(best).split()[1]}")
        )
        ways = group.groupby(["set", "way"])["ARI"].mean().groupby("set").idxmax()
        chosen = group[[(s, w) in set(ways) for s, w in zip(group["set"], group["way"], strict=True)]]
        ceiling.append(chosen.assign(label=f"{method} + Leiden, resolution by the labels"))
    ours = runs[runs["method"] == "SCRCL"].groupby("set")["seconds"].mean()
    lines = table(given, "K given", ours) + table(pd.concat(unknown), "K unknown", ours)
    if ceiling:
        lines += table(pd.concat(ceiling), "Ceiling", ours)
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    lines += [
        f"Seeds 0 to {seeds - 1}. One thread of {os.cpu_count()} cores, Python {platform.python_version()}; {versions}."
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="+", help="names of sets (default: all)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["SCRCL", "PCA", "scVI"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", default="quality", help="name of the report in benchmarks/results")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        name, method, seed = arguments.work
        print(json.dumps(work(name, method, int(seed))))
        return
    names = arguments.sets or available_sets()
    if not names:
        sys.exit(f"No .h5ad files with obs['cell_type'] in {data_folder()}. Set SCRCL_DATA to a folder of them.")
    if not arguments.report:
        run_all(names, arguments.methods, arguments.seeds)
    text = report(names, arguments.methods, arguments.seeds)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{arguments.output}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
