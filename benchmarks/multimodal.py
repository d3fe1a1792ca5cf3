"""Agreement of clusters of several modalities with cell types, also with a modality of noise or of permuted cells.

    python benchmarks/multimodal.py --data folder --seeds 5
    python benchmarks/multimodal.py --report        only the table, from earlier runs

A data set is an .h5mu file of raw counts with `obs["cell_type"]` in `--data`, by default `$SCRCL_DATA` or `../shared/data` beside
the repository. The kind of a modality follows from its name: rna, gex, prot, protein, adt, atac, peaks; others need
`--modalities name=kind`. Labels are used for scores and for the number of clusters, and for nothing else. Classes
with fewer than 10 cells, and the class "unknown", are clustered but not scored. Each run is a process of one thread, and its result a file in
`benchmarks/results/multimodal`, so that an interrupted benchmark can be continued.

Noise and permutations differ between seeds. WNN is that of muon, on principal components from scanpy.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from mudata import MuData, read_h5mu
from quality import RESULTS, ROOT, SMALLEST_CLASS, digest
from report import DETAILS, folded, row
from runs import machine, measured_on, read_if_current, run_to_file
from scores import score_clusters

KINDS = {"rna": "rna", "gex": "rna", "prot": "protein", "protein": "protein", "adt": "protein"}
KINDS |= {"atac": "atac", "peaks": "atac"}
NOT_SCORED = ("unknown", "undetermined")
PACKAGES = ("scrcl", "scvi-tools", "torch", "scanpy", "scikit-learn", "mudata", "muon")
N_NOISE = 50

#: Clusters by the way in which they were found, and mean weights of the modalities.
Found = tuple[dict[str, np.ndarray], dict[str, float]]
Method = Callable[[MuData, dict[str, str], int, int], Found]


def run_scrcl(mdata: MuData, kinds: dict[str, str], n_clusters: int, seed: int, **training: Any) -> Found:
    import scvi

    import scrcl

    spaces = {name: "X" for name, kind in kinds.items() if kind == "features"}
    scvi.settings.seed = seed
    scrcl.SCRCL.setup_mudata(mdata, kinds, features_keys=spaces)
    model = scrcl.SCRCL(mdata)
    model.train(enable_progress_bar=False, **training)
    results = {"all modalities": model.get_clusters(n_clusters=n_clusters, seed=seed)}
    results["all modalities, k-means"] = model.get_clusters(n_clusters=n_clusters, seed=seed, method="kmeans")
    results["all modalities, number estimated"] = model.get_clusters(seed=seed)
    for name in kinds:
        results[f"{name} of the model"] = model.get_clusters(n_clusters=n_clusters, seed=seed, modality=name)
    weights = {str(name): float(weight) for name, weight in model.get_modality_weights().mean().items()}
    return {way: labels.to_numpy(str) for way, labels in results.items()}, weights


def run_untrained(mdata: MuData, kinds: dict[str, str], n_clusters: int, seed: int) -> Found:
    training = {"max_epochs": 1, "plan_kwargs": {"lr": 0.0, "weight_decay": 0.0}}
    return run_scrcl(mdata, kinds, n_clusters, seed, **training)


def run_alone(mdata: MuData, kinds: dict[str, str], n_clusters: int, seed: int) -> Found:
    """Each modality in a model of its own; RNA as AnnData."""
    import scvi

    import scrcl

    clusters = {}
    for name, kind in kinds.items():
        if kind != "rna":
            clusters[name] = run_scrcl(mdata, {name: kind}, n_clusters, seed)[0]["all modalities"]
            continue
        adata = mdata[name].copy()
        scvi.settings.seed = seed
        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata)
        model.train(enable_progress_bar=False)
        clusters[name] = model.get_clusters(n_clusters=n_clusters, seed=seed).to_numpy(str)
    return clusters, {}


def with_noise(method: Method) -> Method:
    """A further modality of independent normal numbers."""

    def run(mdata: MuData, kinds: dict[str, str], n_clusters: int, seed: int) -> Found:
        noise = np.random.default_rng(seed).normal(size=(mdata.n_obs, N_NOISE))
        cells = pd.DataFrame(index=mdata.obs_names)
        modalities = {name: mdata[name] for name in kinds}
        modalities["noise"] = ad.AnnData(np.zeros((mdata.n_obs, 1), np.float32), obs=cells, obsm={"X": noise})
        return method(MuData(modalities), kinds | {"noise": "features"}, n_clusters, seed)

    return run


def with_noise_counts(mdata: MuData, kinds: dict[str, str], n_clusters: int, seed: int) -> Found:
    """A further modality of proteins whose counts are drawn with the same rates for all cells."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(2, 50, size=N_NOISE), size=(mdata.n_obs, N_NOISE)).astype(np.float32)
    names = pd.DataFrame(index=[f"noise{i}" for i in range(N_NOISE)])
    noise = ad.AnnData(counts, obs=pd.DataFrame(index=mdata.obs_names), var=names)
    modalities = {name: mdata[name] for name in kinds} | {"noise": noise}
    return run_scrcl(MuData(modalities), kinds | {"noise": "protein"}, n_clusters, seed)


def permuted(method: Method, name: str) -> Method:
    """The cells of one modality in a random order, under the names of others."""

    def run(mdata: MuData, kinds: dict[str, str], n_clusters: int, seed: int) -> Found:
        modalities = {other: mdata[other].copy() for other in kinds}
        modalities[name].X = modalities[name].X[np.random.default_rng(seed).permutation(mdata.n_obs)]
        return method(MuData(modalities), kinds, n_clusters, seed)

    return run


def spaces(mdata: MuData, kinds: dict[str, str], seed: int) -> dict[str, np.ndarray]:
    """What people compute of each modality: components of log-normalised counts, and centred log-ratios."""
    import scanpy as sc

    results = {}
    for name, kind in kinds.items():
        adata = mdata[name].copy()
        if kind == "protein":
            counts = adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X
            ratios = np.log1p(counts / np.exp(np.log1p(counts).mean(0)))
            results[name] = (ratios - ratios.mean(0)) / np.maximum(ratios.std(0), 1e-6)
            continue
        if kind == "features":
            results[name] = adata.obsm["X"]
            continue
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
        sc.pp.highly_variable_genes(adata, n_top_genes=min(2_000, adata.n_vars))
        adata = adata[:, adata.var["highly_variable"]].copy()
        sc.pp.pca(adata, n_comps=min(50, *(size - 1 for size in adata.shape)), random_state=seed)
        results[name] = adata.obsm["X_pca"]
    return results


def run_concatenated(mdata: MuData, kinds: dict[str, str], n_clusters: int, seed: int) -> Found:
    """K-means on the modalities side by side, each of unit total variance."""
    from sklearn.cluster import KMeans

    parts = [space / np.sqrt(space.var(0).sum()) for space in spaces(mdata, kinds, seed).values()]
    labels = KMeans(n_clusters, n_init=20, random_state=seed).fit_predict(np.concatenate(parts, 1))
    return {"k-means": labels}, {}


def run_wnn(mdata: MuData, kinds: dict[str, str], n_clusters: int, seed: int) -> Found:
    """Leiden on muon's weighted-nearest-neighbour graph: at resolution 1, and at one that gives K clusters."""
    import muon
    import scanpy as sc

    modalities = {
        name: ad.AnnData(space, obs=pd.DataFrame(index=mdata.obs_names))
        for name, space in spaces(mdata, kinds, seed).items()
    }
    for adata in modalities.values():
        adata.X = np.ascontiguousarray(adata.X / np.maximum(np.linalg.norm(adata.X, axis=1, keepdims=True), 1e-12))
        sc.pp.neighbors(adata, n_neighbors=20, use_rep="X", random_state=seed)
    joint = MuData(modalities)
    muon.pp.neighbors(joint, key_added="wnn", random_state=seed)
    cells = ad.AnnData(np.zeros((mdata.n_obs, 1)), obs=pd.DataFrame(index=mdata.obs_names))

    def leiden(resolution: float) -> np.ndarray:
        options = {"flavor": "igraph", "n_iterations": -1, "directed": False, "random_state": seed}
        sc.tl.leiden(cells, resolution, adjacency=joint.obsp["wnn_connectivities"], **options)
        return cells.obs["leiden"].to_numpy(str)

    low, high = 0.0, 2.0
    best = leiden(high)
    for _ in range(15):
        middle = (low + high) / 2
        labels = leiden(middle)
        number = len(np.unique(labels))
        if abs(number - n_clusters) <= abs(len(np.unique(best)) - n_clusters):
            best = labels
        low, high = (middle, high) if number < n_clusters else (low, middle)
    weights = {name: float(joint.obs[f"{name}:mod_weight"].mean()) for name in kinds}
    return {"Leiden, resolution for the number": best, "Leiden at 1.0": leiden(1.0)}, weights


def methods(kinds: Iterable[str]) -> dict[str, Method]:
    results: dict[str, Method] = {
        "SCRCL": run_scrcl,
        "SCRCL, untrained": run_untrained,
        "SCRCL, one modality": run_alone,
        "SCRCL, noise counts added": with_noise_counts,
        "PCA and CLR": run_concatenated,
        "WNN": run_wnn,
    }
    for name in ("SCRCL", "PCA and CLR", "WNN"):
        results[f"{name}, noise added"] = with_noise(results[name])
        results |= {f"{name}, {other} permuted": permuted(results[name], other) for other in kinds}
    return results


def work(path: Path, kinds: dict[str, str], method: str, seed: int) -> dict[str, Any]:
    """One run in this process."""
    warnings.simplefilter("ignore")
    read = read_h5mu(path)
    truth = read.obs["cell_type"].to_numpy(dtype=str)
    classes, sizes = np.unique(truth, return_counts=True)
    classes = classes[(sizes >= SMALLEST_CLASS) & ~np.isin(classes, NOT_SCORED)]
    scored = np.isin(truth, classes)
    cells = pd.DataFrame(index=read.obs_names)  # no label goes any further
    bare = MuData({name: ad.AnnData(read[name].X, obs=cells.copy(), var=read[name].var[[]].copy()) for name in kinds})
    start = time.perf_counter()
    clusters, weights = methods(kinds)[method](bare, kinds, len(classes), seed)
    return {
        **inputs(path, method),
        "seconds": time.perf_counter() - start,
        "cells": read.n_obs,
        "classes": len(classes),
        "scores": {way: score_clusters(truth[scored], labels[scored]) for way, labels in clusters.items()},
        "weights": weights,
        **measured_on(PACKAGES),
    }


def inputs(path: Path, method: str) -> dict[str, str]:
    """What a result depends on."""
    source = digest(*sorted((ROOT / "src").rglob("*.py"))) if method.startswith("SCRCL") else ""
    return {"data": digest(path), "source": source}


def result_file(path: Path, method: str, seed: int) -> Path:
    return RESULTS / "multimodal" / path.stem / method.replace(", ", "-").replace(" ", "-") / f"{seed}.json"


def read_result(path: Path, method: str, seed: int) -> dict[str, Any] | None:
    return read_if_current(result_file(path, method, seed), inputs(path, method))


#: Rows of the table that comes first.
FIRST = (
    "SCRCL, all modalities",
    "SCRCL, untrained, all modalities",
    "SCRCL, one modality, rna",
    "SCRCL, one modality, prot",
    "PCA and CLR, k-means",
    "WNN, Leiden, resolution for the number",
)


def write_report(results: dict[Path, pd.DataFrame], any_result: dict[str, Any], seeds: int) -> None:
    lines: list[str] = []
    folds: list[str] = []
    for path, runs in results.items():
        names = [str(column) for column in runs if str(column).startswith("weight of ")]
        head = ["method", "clusters by", "ARI", "worst seed", "NMI", "clusters", "s", *names]
        table = {"": [row(head), row(["---"] * len(head))]}
        for (method, way), group in runs.groupby(["method", "way"], sort=False):
            weights = ["–" if group[name].isna().all() else f"{group[name].mean():.2f}" for name in names]
            cells = [str(method), str(way), f"{group['ARI'].mean():.3f}", f"{group['ARI'].min():.3f}"]
            cells += [f"{group['NMI'].mean():.3f}", f"{group['clusters'].mean():.1f}", f"{group['seconds'].mean():.1f}"]
            table[f"{method}, {way}"] = [row([*cells, *weights])]
        first = [line for key in ("", *FIRST) for line in table.get(key, [])]
        lines += [f"{path.stem}: {runs['cells'].iloc[0]:,} cells, {runs['classes'].iloc[0]} types.", "", *first, ""]
        folds += folded(f"{path.stem}: all rows", [line for part in table.values() for line in part])
    lines += [DETAILS, "", *folds, f"Seeds 0 to {seeds - 1}. {machine(results=[any_result])}.", ""]
    (RESULTS / "multimodal.md").write_text("\n".join(lines))
    print("\n".join(lines))


def kinds_of(path: Path, kinds_by_name: dict[str, str]) -> dict[str, str]:
    import h5py

    with h5py.File(path) as file:
        names = list(file["mod"])
    kinds = {name: kinds_by_name.get(name) or KINDS.get(name.lower()) for name in names}
    named_kinds = {name: kind for name, kind in kinds.items() if kind}
    return dict(sorted(named_kinds.items(), key=lambda item: item[1] != "rna"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--methods", nargs="+", help="some of the methods (default: all)")
    parser.add_argument("--modalities", nargs="+", default=[], metavar="NAME=KIND")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    kinds_by_name = dict(pair.split("=", 1) for pair in arguments.modalities)
    if arguments.work:
        path, method, seed = arguments.work
        print(json.dumps(work(Path(path), kinds_of(Path(path), kinds_by_name), method, int(seed))))
        return
    paths = sorted(arguments.data.glob("*.h5mu"))
    if not paths:
        sys.exit(f"No .h5mu files in {arguments.data}. Pass --data.")
    results: dict[Path, pd.DataFrame] = {}
    any_result: dict[str, Any] = {}
    for path in paths:
        kinds = kinds_of(path, kinds_by_name)
        rows = []
        for method in arguments.methods or methods(kinds):
            for seed in range(arguments.seeds):
                if not arguments.report and read_result(path, method, seed) is None:
                    print(f"{method} on {path.stem}, seed {seed}", file=sys.stderr, flush=True)
                    command = [__file__, "--work", str(path), method, str(seed)]
                    command += ["--modalities", *arguments.modalities] if arguments.modalities else []
                    run_to_file(result_file(path, method, seed), command)
                if result := read_result(path, method, seed):
                    any_result = result
                    about = {key: result[key] for key in ("seconds", "cells", "classes")}
                    about |= {f"weight of {name}": weight for name, weight in result["weights"].items()}
                    rows += [
                        {"method": method, "way": way, **about, **scores} for way, scores in result["scores"].items()
                    ]
        if rows:
            results[path] = pd.DataFrame(rows)
    if not results:
        sys.exit("Nothing was run yet with these data and this source.")
    write_report(results, any_result, arguments.seeds)


if __name__ == "__main__":
    main()
