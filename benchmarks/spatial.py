"""Agreement of clusters with spatial domains: SCRCL and smoothing without training.

    python benchmarks/spatial.py --sets starmap_mpfc_BZ5 --seeds 5
    python benchmarks/spatial.py --ablations             variants of SCRCL, each with one part changed
    python benchmarks/spatial.py --report                only the tables, from earlier runs

Banksy, NichePCA, CoSMIM and CellCharter have an environment of their own, see `spatial_external.py`: name its Python in `$SPATIAL_PYTHON`.

A data set is an .h5ad file of counts with `obs["domain"]` and `obsm["spatial"]` in `--data`, by default `$SCRCL_DATA` or
`../shared/data` beside the repository. Labels are used for scores and for the number of clusters, and for nothing else.
Domains with fewer than 10 cells, and those named by `--not-scored`, are clustered but not scored. All methods on a data set
with a seed run in one process of one thread, and their results are files in `benchmarks/results/spatial`, so that an
interrupted benchmark can be continued; a run is repeated if the data or, for SCRCL, its source have changed.

CHAOS is the mean distance of a cell to the nearest cell of the same cluster, in standardised coordinates; PAS is the share
of cells for which most of the 10 nearest cells are in other clusters. Both are small if domains are coherent, whether they
are right or not.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from methods import standard_genes, trained
from quality import RESULTS, ROOT, SMALLEST_CLASS, digest
from report import DETAILS, folded, number, row
from runs import machine, measured_on, read_if_current, run_to_file
from scipy.sparse.linalg import splu
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

PACKAGES = ("scrcl", "scvi-tools", "torch", "scanpy", "scikit-learn", "numpy", "scipy")
#: The sets in two halves: a default changes only if the mean rises on both.
HALVES = {
    "A": ["dlpfc_151510_500g", "her2st_A1", "starmap_mpfc_BZ9", "st_mob_rep11"],
    "B": ["osmfish_sscortex", "starmap_mpfc_BZ5", "her2st_H1", "her2st_B1", "her2st_G2"],
}
N_SPATIAL = 6
STRENGTH = 10.0

#: Labels beside the way in which they were found.
Results = Iterator[tuple[str, np.ndarray]]
Method = Callable[[ad.AnnData, int, int], Results]


def run_scrcl(
    adata: ad.AnnData,
    n_clusters: int,
    seed: int,
    train: dict[str, Any] | None = None,
    parts: bool = False,
    **options: Any,
) -> Results:
    """SCRCL with its spatial default, but for what is passed to the model and `train`; on demand what its parts give."""
    model = trained(adata, seed, train, {"spatial_key": "spatial"}, **options)
    find = partial(model.get_clusters, n_clusters=n_clusters, seed=seed)
    yield "", find().to_numpy(str)
    yield "number found", model.get_clusters(seed=seed).to_numpy(str)
    if parts:
        yield "majority of 20", find(n_majority=20).to_numpy(str)
        ensemble = model._results._ensemble(("aligned", None), seed, n_clusters)
        yield from consensus_of_parts(ensemble, adata.obsm["spatial"][ensemble.cells], n_clusters)


def consensus_of_parts(ensemble: Any, points: np.ndarray, n_clusters: int) -> Results:
    """The consensus of some of its members, with other weights, or with more of them. Reads what is private to the model."""
    n_trees, n_spaces = len(ensemble.trees), len(ensemble.spaces)
    n_views = (
        n_spaces - 1
    ) // 2  # of log counts, then as many of standardised genes; the first space is the latent space
    covariances = [covariance_view(ensemble.spaces[own], points) for own in (1, 1 + n_views)]
    more = replace(ensemble, trees=[], spaces=covariances)
    members = np.column_stack([found.members(n_clusters)[0] for found in (ensemble, more)])
    # After the trees two linkages in each space, then k-means and a mixture in each.
    kinds, space = ["trees"] * n_trees, [-1] * n_trees
    for spaces in (range(n_spaces), range(n_spaces, n_spaces + 2)):
        kinds += ["ward", "average"] * len(spaces) + ["k-means", "mixture"] * len(spaces)
        space += [*np.repeat(spaces, 2)] * 2
    kind, of = np.array(kinds), np.array(space)
    default = of < n_spaces
    parts: dict[str, np.ndarray] = {
        "nothing trained": default & (of > 0),
        "latent space and trees only": of <= 0,
        "no trees": default & (of >= 0),
        "log counts only": (of > 0) & (of <= n_views),
        "standardised genes only": default & (of > n_views),
        "linkages only": default & np.isin(kind, ["ward", "average"]),
        "k-means and mixtures only": default & np.isin(kind, ["k-means", "mixture"]),
        "latent space × 3": default * np.where(of == 0, 3, 1),
        "trees × 2": default * np.where(kind == "trees", 2, 1),
        "average linkage × 0.5": default * np.where(kind == "average", 0.5, 1),
        "with covariances": np.ones(len(of)),
    }
    for name, factor in parts.items():
        kept = factor > 0
        _, group, sizes = np.unique(kind[kept], return_inverse=True, return_counts=True)
        some = (members[:, kept], factor[kept] / sizes[group])
        with patch.object(type(ensemble), "members", return_value=some):
            yield name, ensemble.cut(n_clusters)[0].labels.astype(str)


def covariance_view(space: np.ndarray, points: np.ndarray, n_components: int = 10, n_neighbors: int = 15) -> np.ndarray:
    """Means and covariances of leading components around each cell, as CoSMIM of genes; both have the same weight."""
    neighbors = NearestNeighbors(n_neighbors=n_neighbors).fit(points).kneighbors(points, return_distance=False)
    around = space[neighbors][:, :, :n_components]
    mean = around.mean(1)
    upper = np.triu_indices(mean.shape[1])
    covariance = (np.einsum("mkd,mke->mde", around, around) / n_neighbors - mean[:, :, None] * mean[:, None])[:, *upper]
    view = np.concatenate([part / part.std(0) / np.sqrt(part.shape[1]) for part in (mean, covariance)], 1)
    components = PCA(min(20, *view.shape), random_state=0).fit_transform(view)
    return components / np.sqrt((components**2).sum(1).mean())


def run_not_spatial(adata: ad.AnnData, n_clusters: int, seed: int) -> Results:
    yield "", trained(adata, seed).get_clusters(n_clusters=n_clusters, seed=seed).to_numpy(str)


def run_external(adata: ad.AnnData, n_clusters: int, seed: int, method: str) -> Results:
    """A method in the environment of `$SPATIAL_PYTHON`, see `spatial_external.py`."""
    script = Path(__file__).parent / "spatial_external.py"
    with tempfile.TemporaryDirectory() as folder:
        data, output = Path(folder) / "counts.h5ad", Path(folder) / "labels.csv"
        adata.write_h5ad(data)
        command = [os.environ["SPATIAL_PYTHON"], script, method, data, n_clusters, seed, output]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run([str(part) for part in command], check=True, env=environment, stdout=subprocess.DEVNULL)
        yield "", pd.read_csv(output, dtype=str)["domain"].fillna("").to_numpy(str)


def run_pca(adata: ad.AnnData, n_clusters: int, seed: int, smooth: str, standardized: bool = False) -> Results:
    """Principal components smoothed over the graph of the 6 nearest cells, then k-means. Independent of SCRCL."""
    import scanpy as sc

    points = adata.obsm["spatial"]
    genes = standard_genes(adata)
    if standardized:
        sc.pp.scale(genes)
    sc.pp.pca(genes, n_comps=min(50, genes.n_obs - 1, genes.n_vars - 1), random_state=seed)
    graph = NearestNeighbors(n_neighbors=N_SPATIAL).fit(points).kneighbors_graph()
    graph = sp.csc_matrix(graph.maximum(graph.T))
    n = graph.shape[0]
    scale = sp.diags(1 / (graph.sum(1).A1 + 1))
    mean = scale @ (graph + sp.eye(n))
    if smooth == "diffused":
        smoothed = splu(sp.csc_matrix(sp.eye(n) + STRENGTH * (sp.eye(n) - mean))).solve(
            genes.obsm["X_pca"].astype(float)
        )
    else:
        smoothed = mean @ genes.obsm["X_pca"]
    yield "", KMeans(n_clusters, n_init=20, random_state=seed).fit_predict(smoothed).astype(str)


METHODS: dict[str, Method] = {
    "SCRCL": partial(run_scrcl, parts=True),
    "diffused PCA": partial(run_pca, smooth="diffused"),
    "diffused PCA, standardised": partial(run_pca, smooth="diffused", standardized=True),
    "neighbor-mean PCA": partial(run_pca, smooth="mean"),
    "Banksy": partial(run_external, method="Banksy"),
    "NichePCA": partial(run_external, method="NichePCA"),
    "CoSMIM": partial(run_external, method="CoSMIM"),
    "CellCharter": partial(run_external, method="CellCharter"),
    "SCRCL, not spatial": run_not_spatial,
}
ABLATIONS: dict[str, Method] = {
    "SCRCL, untrained": partial(run_scrcl, train={"max_epochs": 1, "plan_kwargs": {"lr": 0.0, "weight_decay": 0.0}}),
    "SCRCL, no smoothing": partial(run_scrcl, spatial_smoothing=0.0),
    "SCRCL, smoothing 10": partial(run_scrcl, spatial_smoothing=10.0),
    "SCRCL, smoothing 5": partial(run_scrcl, spatial_smoothing=5.0),
    "SCRCL, smoothing 20": partial(run_scrcl, spatial_smoothing=20.0),
    "SCRCL, joined with similar cells": partial(run_scrcl, spatial_mode="join"),
    "SCRCL, Delaunay": partial(run_scrcl, spatial_graph="delaunay"),
    "SCRCL, 12 neighbors in space": partial(run_scrcl, n_spatial_neighbors=12),
}
ALL = {**METHODS, **ABLATIONS}
#: Ways of SCRCL that are results of its own; the others are results of its parts.
WAYS = ("", "number found", "majority of 20")
#: Methods whose results do not depend on the source of SCRCL.
RIVALS = (
    "diffused PCA",
    "diffused PCA, standardised",
    "neighbor-mean PCA",
    "Banksy",
    "NichePCA",
    "CoSMIM",
    "CellCharter",
)


def cpu_seconds() -> float:
    """Seconds of the processor in this process and those that it has run, which other work on the machine does not change."""
    return sum(os.times()[:4])


def score(truth: np.ndarray, scored: np.ndarray, points: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Agreement with the domains, and continuity, of the cells that have a label."""
    there = labels != ""
    both = there & scored
    return {
        "ARI": float(adjusted_rand_score(truth[both], labels[both])),
        "CHAOS": chaos(points[there], labels[there]),
        "PAS": pas(points[there], labels[there]),
    }


def chaos(points: np.ndarray, labels: np.ndarray) -> float:
    points = (points - points.mean(0)) / points.std(0)
    total = 0.0
    for label in np.unique(labels):
        members = points[labels == label]
        if len(members) > 1:
            total += NearestNeighbors(n_neighbors=1).fit(members).kneighbors()[0].sum()
    return float(total / len(points))


def pas(points: np.ndarray, labels: np.ndarray, n_neighbors: int = 10) -> float:
    neighbors = NearestNeighbors(n_neighbors=n_neighbors).fit(points).kneighbors(return_distance=False)
    return float(((labels[neighbors] != labels[:, None]).sum(1) > n_neighbors / 2).mean())


def available_sets(data: Path) -> list[str]:
    names = []
    for path in sorted(data.glob("*.h5ad")):
        adata = ad.read_h5ad(path, backed="r")
        if "domain" in adata.obs and "spatial" in adata.obsm:
            names.append(path.stem)
    return names


def inputs(path: Path, method: str, not_scored: list[str]) -> dict[str, Any]:
    """What a result depends on."""
    source = digest(*sorted((ROOT / "src").rglob("*.py"))) if method not in RIVALS else ""
    return {"data": digest(path), "source": source, "not_scored": not_scored}


def work(path: Path, method: str, seed: int, not_scored: list[str]) -> dict[str, Any]:
    """One run in this process."""
    adata = ad.read_h5ad(path)
    truth = adata.obs["domain"].astype(object).fillna("").to_numpy(dtype=str)
    names, sizes = np.unique(truth, return_counts=True)
    names = names[(sizes >= SMALLEST_CLASS) & ~np.isin(names, [*not_scored, ""])]
    points = np.asarray(adata.obsm["spatial"], dtype=float)
    bare = ad.AnnData(adata.X, var=adata.var[[]], obsm={"spatial": points})  # no label goes any further
    for package in ("scanpy", "scvi", "scrcl.model"):
        import_module(package)  # not timed
    start, seconds, scores = cpu_seconds(), 0.0, {}
    for way, labels in ALL[method](bare, len(names), seed):
        seconds = seconds or cpu_seconds() - start
        scores[way] = score(truth, np.isin(truth, names), points, labels)
    return {
        **inputs(path, method, not_scored),
        "CPU seconds": seconds,
        "cells": adata.n_obs,
        "genes": adata.n_vars,
        "domains": len(names),
        "scores": scores,
        **measured_on(PACKAGES),
    }


def result_file(name: str, method: str, seed: int) -> Path:
    return RESULTS / "spatial" / name / method.replace(", ", "-").replace(" ", "-") / f"{seed}.json"


def read_result(path: Path, method: str, seed: int, not_scored: list[str]) -> dict[str, Any] | None:
    """A result that is there and of these data and this source."""
    return read_if_current(result_file(path.stem, method, seed), inputs(path, method, not_scored))


def table(runs: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Means of each way over all sets, and over the sets of each half; and the ARI by set. With the worst seed, if there are several."""
    ways, names = list(dict.fromkeys(runs["label"])), sorted(runs["set"].unique())
    parts = {"mean ARI": names} | {f"half {title}": [n for n in half if n in names] for title, half in HALVES.items()}
    others = {"CHAOS": 3, "PAS": 3, "CPU seconds": 1}  # and their digits
    columns = [*parts, *others]
    lines = [row(["", *columns]), row(["---"] * (len(columns) + 1))]
    sets = [row(["data set", *ways]), row(["---"] * (len(ways) + 1))]
    by_seed = runs.pivot_table(index=["label", "seed"], columns="set", values="ARI")
    means = runs.groupby("label")[list(others)].mean()
    for way in ways:
        ari = by_seed.loc[way].reindex(columns=names)
        of_parts = [mean_and_worst(ari[part].mean(axis=1, skipna=False)) for part in parts.values()]
        rest = [number(float(means[column][way]), digits) for column, digits in others.items()]
        lines.append(row([way, *of_parts, *rest]))
    for name in names:
        cells = [mean_and_worst(by_seed.loc[way].reindex(columns=names)[name]) for way in ways]
        sets.append(row([name, *cells]))
    return lines, sets


def mean_and_worst(ari: pd.Series) -> str:
    """Mean over seeds, and the lowest in brackets."""
    return number(ari.mean(), 3) + (f" ({number(ari.min(), 3)})" if len(ari) > 1 else "")


def seeds_of(runs: pd.DataFrame) -> list[str]:
    """Which seeds the methods were run with."""
    by_seeds: dict[str, list[str]] = {}
    for method, group in runs.groupby("method", sort=False):
        by_seeds.setdefault(", ".join(map(str, sorted(group["seed"].unique()))), []).append(str(method))
    if len(by_seeds) == 1:
        return [f"Seeds {next(iter(by_seeds))}."]
    return ["; ".join(f"{', '.join(methods)}: seeds {seeds}" for seeds, methods in by_seeds.items()) + "."]


def write_report(results: dict[tuple[str, str, int], dict[str, Any]], path: Path) -> None:
    runs = pd.DataFrame(
        {
            "set": name,
            "seed": seed,
            "method": method,
            "way": way,
            "label": f"{method}, {way}" if way else method,
            "CPU seconds": result["CPU seconds"] if way == "" else np.nan,
            **scores,
        }
        for (name, method, seed), result in results.items()
        for way, scores in result["scores"].items()
    )
    own, default = runs["way"].isin(WAYS), runs["label"] == "SCRCL"
    tables = {
        "": runs[runs["method"].isin(METHODS) & own],
        "Parts of the consensus": runs[(runs["method"] == "SCRCL") & (~own | default)],
        "Variants": runs[(runs["method"].isin(ABLATIONS) & own) | default],
    }
    lines = ["Mean ARI with the number of domains given; in brackets the worst of several seeds.", ""]
    for title, part in tables.items():
        if part["label"].nunique() < 2:
            continue
        lines += [f"### {title}", ""] if title else []
        means, sets = table(part)
        lines += [*means, "", *seeds_of(part), "", DETAILS, ""]
        lines += folded("ARI by data set, mean (worst seed)", sets)
    sizes = {
        name: f"{r['cells']:,} cells, {r['genes']:,} genes, {r['domains']} domains"
        for (name, _, _), r in results.items()
    }
    lines += ["; ".join(f"{name}: {size}" for name, size in sorted(sizes.items())) + ".", ""]
    lines += [f"{machine(results=results.values())}.", ""]
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".md").write_text("\n".join(lines))
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", nargs="+", help="names of sets (default: all)")
    parser.add_argument("--methods", nargs="+", choices=ALL, default=list(METHODS))
    parser.add_argument("--ablations", action="store_true", help="run the ablations in place of the methods")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--not-scored", nargs="*", default=["undetermined"], help="values of domain that are none")
    parser.add_argument("--output", default="spatial", help="name of the report in benchmarks/results")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        path, seed = Path(arguments.work[0]), int(arguments.work[1])
        warnings.simplefilter("ignore")
        print(json.dumps({method: work(path, method, seed, arguments.not_scored) for method in arguments.methods}))
        return
    names = arguments.sets or available_sets(arguments.data)
    paths = [arguments.data / f"{name}.h5ad" for name in names]
    missing = [str(path) for path in paths if not path.exists()]
    if missing or not paths:
        sys.exit(
            f"No {', '.join(missing) or '.h5ad files with a domain and coordinates'} in {arguments.data}. Pass --data."
        )
    if not arguments.report:
        methods = list(ABLATIONS) if arguments.ablations else arguments.methods
        # Seeds outside, so that an interrupted benchmark has all methods side by side.
        for seed, path in itertools.product(range(arguments.seeds), paths):
            todo = [name for name in methods if read_result(path, name, seed, arguments.not_scored) is None]
            if todo:
                print(f"{path.stem}, seed {seed}: {', '.join(todo)}", file=sys.stderr, flush=True)
                options = ["--not-scored", *arguments.not_scored, "--methods", *todo, "--work", str(path), str(seed)]
                together = result_file(path.stem, "together", seed)
                run_to_file(together, [__file__, *options])
                for name, result in json.loads(together.read_text()).items():
                    file = result_file(path.stem, name, seed)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(json.dumps(result) + "\n")
                together.unlink()
    results = {
        (path.stem, method, seed): result
        for path in paths
        for method in ALL
        for seed in range(100)
        if result_file(path.stem, method, seed).exists()
        and (result := read_result(path, method, seed, arguments.not_scored))
    }
    if not results:
        sys.exit("Nothing was run yet with these data and this source.")
    write_report(results, RESULTS / arguments.output)


if __name__ == "__main__":
    main()
