"""Integration of batches: SCRCL with batches and other methods, scored for mixing of batches and separation of types.

    python benchmarks/batches.py                     six data sets, three seeds
    python benchmarks/batches.py --sets kang_ifnb --methods PCA "SCRCL with batches" --seeds 1
    python benchmarks/batches.py --report            only the tables, from earlier runs
    python benchmarks/batches.py --methods CONCORD   in an environment of its own, with `concord-sc`

A data set is an .h5ad file of counts with `obs["cell_type"]` and `obs["batch"]` in `--data`. Labels are used for scores and
for the number of clusters, and for nothing else. Classes with fewer than 10 cells are not scored. Each run is a process of
one thread, and its result a file in `benchmarks/results/batches`; a run is repeated if the data or, for SCRCL, its source
have changed.

- number of clusters given, estimated: adjusted Rand index, by k-means with the given number and by Leiden at its default resolution, and by the clusters of
  SCRCL itself.
- bio-conservation, batch correction, total: scib-metrics, its default table, not rescaled; the total is 0.6 of the first plus 0.4 of the second.
- transfer: types of the largest batch are transferred to the cells of the others by the 15 nearest cells in the embedding;
  only cells of types that the largest batch has are scored.
"""

import argparse
import json
import os
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from methods import PEERS, Found, Method, cluster_space, concord_embedding, standard_genes, trained
from quality import PACKAGES, RESULTS, ROOT, SMALLEST_CLASS, digest
from report import DETAILS, folded, row
from runs import machine, measured_on, read_if_current, run_to_file
from scores import score_clusters
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier

HALVES = {
    "A": ["cellbench_5cl_2tech", "cellbench_3cl_2batches", "cellhash_4lines"],
    "B": ["baron_human_mouse", "kang_ifnb", "cellbench_3cl_3tech"],
}
NEIGHBORS = 15
#: What is reported of a run, in this order.
FIGURES = {
    "given": "ARI, number given",
    "given, k-means": "ARI, k-means, number given",
    "found": "ARI, number estimated",
    "Bio conservation": "bio-conservation",
    "Batch correction": "batch correction",
    "Total": "scib total",
    "accuracy": "transfer accuracy",
    "f1": "transfer F1",
    "seconds": "s",
}


def components(adata: ad.AnnData, seed: int) -> np.ndarray:
    import scanpy as sc

    genes = standard_genes(adata.copy())
    sc.pp.pca(genes, n_comps=min(50, genes.n_obs - 1), random_state=seed)
    return genes.obsm["X_pca"]


def cluster(space: np.ndarray, n_clusters: int, seed: int) -> Found:
    return cluster_space(space, n_clusters, seed, (1.0,))


def run_pca(adata: ad.AnnData, n_clusters: int, seed: int) -> Found:
    return cluster(components(adata, seed), n_clusters, seed)


def run_harmony(adata: ad.AnnData, n_clusters: int, seed: int) -> Found:
    import harmonypy

    results = harmonypy.run_harmony(components(adata, seed), adata.obs, "batch", random_state=seed, verbose=False)
    space = np.asarray(results.Z_corr)
    return cluster(space if len(space) == adata.n_obs else space.T, n_clusters, seed)


def run_scvi(adata: ad.AnnData, n_clusters: int, seed: int) -> Found:
    import scvi

    scvi.settings.seed = seed
    genes = standard_genes(adata.copy())
    scvi.model.SCVI.setup_anndata(genes, layer="counts", batch_key="batch")
    model = scvi.model.SCVI(genes)
    model.train(enable_progress_bar=False)
    return cluster(model.get_latent_representation(), n_clusters, seed)


def run_concord(adata: ad.AnnData, n_clusters: int, seed: int) -> Found:
    return cluster(concord_embedding(adata, seed, "batch"), n_clusters, seed)


def run_scrcl(adata: ad.AnnData, n_clusters: int, seed: int, batch_key: str | None = None) -> Found:
    model = trained(adata, seed, setup={"batch_key": batch_key})
    latent = model.get_latent_representation()
    ours = {"given": model.get_clusters(n_clusters=n_clusters, seed=seed), "found": model.get_clusters(seed=seed)}
    by_others = cluster(latent, n_clusters, seed).clusters
    return Found(latent, by_others | {way: labels.to_numpy(str) for way, labels in ours.items()})


METHODS: dict[str, Method] = {
    "PCA": run_pca,
    "PCA + Harmony": run_harmony,
    "scVI": run_scvi,
    "CONCORD": run_concord,
    "SCRCL": run_scrcl,
    "SCRCL with batches": partial(run_scrcl, batch_key="batch"),
}


def transfer(embedding: np.ndarray, truth: np.ndarray, batches: np.ndarray) -> dict[str, float]:
    names, sizes = np.unique(batches, return_counts=True)
    source = batches == names[np.argmax(sizes)]
    target = ~source & np.isin(truth, truth[source])
    knn = KNeighborsClassifier(NEIGHBORS).fit(embedding[source], truth[source])
    predicted = knn.predict(embedding[target])
    return {
        "accuracy": float((predicted == truth[target]).mean()),
        "f1": float(f1_score(truth[target], predicted, average="macro")),
    }


def score_integration(embedding: np.ndarray, unintegrated: np.ndarray, obs: pd.DataFrame) -> dict[str, float]:
    """The default table of scib-metrics."""
    from scib_metrics.benchmark import Benchmarker

    cells = ad.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs, obsm={"found": embedding, "X_pca": unintegrated})
    benchmarker = Benchmarker(
        cells, "batch", "cell_type", ["found"], pre_integrated_embedding_obsm_key="X_pca", progress_bar=False
    )
    benchmarker.benchmark()
    return {name: float(value) for name, value in benchmarker.get_results(min_max_scale=False).loc["found"].items()}


def inputs(path: Path, method: str) -> dict[str, str]:
    """What a result depends on."""
    ours = digest(*sorted((ROOT / "src").rglob("*.py"))) if method.startswith("SCRCL") else ""
    return {"data": digest(path), "source": ours}


def work(path: Path, method: str, seed: int) -> dict[str, Any]:
    """One run in this process."""
    warnings.simplefilter("ignore")
    adata = ad.read_h5ad(path)
    truth, batches = adata.obs["cell_type"].to_numpy(dtype=str), adata.obs["batch"].to_numpy(dtype=str)
    classes, sizes = np.unique(truth, return_counts=True)
    scored = np.isin(truth, classes[sizes >= SMALLEST_CLASS])
    bare = ad.AnnData(adata.X, obs=pd.DataFrame({"batch": batches}, adata.obs_names), var=adata.var[[]])
    start = time.perf_counter()
    embedding, clusters, _ = METHODS[method](bare.copy(), int((sizes >= SMALLEST_CLASS).sum()), seed)
    seconds = time.perf_counter() - start
    clusters.setdefault("given", clusters["given, k-means"])
    clusters.setdefault("found", clusters["leiden 1.0"])
    obs = pd.DataFrame({"cell_type": pd.Categorical(truth[scored]), "batch": pd.Categorical(batches[scored])})
    obs.index = obs.index.astype(str)
    figures = {way: score_clusters(truth[scored], clusters[way][scored])["ARI"] for way in list(FIGURES)[:3]}
    figures |= score_integration(embedding[scored], components(bare, 0)[scored], obs)
    figures |= transfer(embedding[scored], truth[scored], batches[scored]) | {"seconds": seconds}
    return {
        **inputs(path, method),
        "figures": figures,
        **measured_on((*PACKAGES, *PEERS.get(method, []))),
    }


def result_file(name: str, method: str, seed: int) -> Path:
    return RESULTS / "batches" / name / method.replace(" + ", "-").replace(" ", "-") / f"{seed}.json"


def read_result(path: Path, method: str, seed: int) -> dict[str, Any] | None:
    return read_if_current(result_file(path.stem, method, seed), inputs(path, method))


def tables(runs: pd.DataFrame) -> list[str]:
    """Means over the sets of each half and over all, and by data set some of the scores."""
    methods = list(dict.fromkeys(runs["method"]))
    by_set = runs.groupby(["method", "set"])[list(FIGURES)].mean()
    names = list(dict.fromkeys(runs["set"]))
    parts = {}
    for title, members in {"all": names, **HALVES}.items():
        if there := [name for name in members if name in names]:
            lines = [f"Means over {', '.join(there)}.", ""]
            lines += [row(["method", *FIGURES.values()]), row(["---"] * (len(FIGURES) + 1))]
            for method in methods:
                mean = by_set.loc[method].reindex(there).mean(skipna=False)
                lines.append(
                    row([method, *(f"{mean[key]:.1f}" if key == "seconds" else f"{mean[key]:.3f}" for key in FIGURES)])
                )
            parts[title] = lines
    lines = [*parts.pop("all"), "", DETAILS, ""]
    for half, part in parts.items():
        lines += folded(f"Half {half}", part)
    for key in ("given", "given, k-means", "Total", "accuracy"):
        statistics = runs.groupby(["set", "method"])[key].agg(["mean", "min"])
        part = [row(["data set", *methods]), row(["---"] * (len(methods) + 1))]
        for name in names:
            scores = statistics.loc[name].reindex(methods)
            part.append(row([name, *(f"{mean:.3f} ({worst:.3f})" for mean, worst in scores.to_numpy())]))
        lines += folded(f"{FIGURES[key]}, by data set, mean (worst seed)", part)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", nargs="+", default=[name for half in HALVES.values() for name in half])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--external", type=Path, help="csv of figures measured elsewhere: method, set, seed, and figures"
    )
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        path, method, seed = arguments.work
        print(json.dumps(work(Path(path), method, int(seed))))
        return
    paths = [arguments.data / f"{name}.h5ad" for name in arguments.sets]
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        sys.exit(f"There is no {', '.join(missing)}. Pass --data.")
    runs = [(path, method, seed) for seed in range(arguments.seeds) for path in paths for method in arguments.methods]
    for number, run in enumerate(runs, 1):
        if not arguments.report and read_result(*run) is None:
            path, method, seed = run
            print(f"[{number}/{len(runs)}] {method} on {path.stem}, seed {seed}", file=sys.stderr, flush=True)
            run_to_file(result_file(path.stem, method, seed), [__file__, "--work", str(path), method, str(seed)])
    results = {run: result for run in runs if (result := read_result(*run))}
    if not results:
        sys.exit("Nothing was run yet with these data and this source.")
    frame = pd.DataFrame(
        [
            {"set": path.stem, "method": method, "seed": seed, **r["figures"]}
            for (path, method, seed), r in results.items()
        ]
    )
    if arguments.external is not None:
        frame = pd.concat([frame, pd.read_csv(arguments.external, comment="#")], ignore_index=True)
    lines = [*tables(frame), f"{arguments.seeds} seeds. {machine(results=results.values())}.", ""]
    (RESULTS / "batches.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
