"""Agreement of clusters with cell types, time and memory: SCRCL and other methods.

    python benchmarks/quality.py --sets baron_mouse --seeds 5
    python benchmarks/quality.py                     all data sets of both halves, or of another folder
    python benchmarks/quality.py --report            only the tables and the figure, from earlier runs
    python benchmarks/quality.py --methods CONCORD   in an environment of its own, with `concord-sc`
    python benchmarks/quality.py --methods JointEmbeddingSCVI DRVI --cells 400    with scvi-tools 1.5 or later

A data set is an .h5ad file of counts with `obs["cell_type"]` in `--data`, by default `$SCRCL_DATA` or `../shared/data`
beside the repository; by default, the data sets of both halves that are there. Labels are used for scores and for the given
number of clusters, and for nothing else. Classes with fewer than 10 cells are not scored. Each run is a process of one
thread, and its result a file in `benchmarks/results/quality`, so that an interrupted benchmark can be continued; a run is
repeated if the data or, for SCRCL, its source have changed. There is one table for each way to choose the number of clusters:

- given: the number of scored classes is passed to the method.
- estimated: the method chooses the number.
- upper bound: the best Leiden resolution for each data set, chosen by the labels.
"""

import argparse
import hashlib
import json
import os
import resource
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from methods import ABLATIONS, METHODS, PEERS
from report import HALF_OF, write_report
from runs import measured_on, read_if_current, run_to_file
from scores import score_clusters, score_embedding

from scrcl.utils.sizes import draw

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SMALLEST_CLASS = 10
#: Classes that are none.
UNSCORED = ("undetermined", "unknown", "mixed")
#: Methods whose results do not depend on the source of SCRCL.
RIVALS = ("PCA", "scVI", "CONCORD", "JointEmbeddingSCVI", "DRVI")
PACKAGES = ("scrcl", "scvi-tools", "torch", "scanpy", "scikit-learn", "igraph", "numpy", "scib-metrics")


def available_sets(data: Path) -> list[str]:
    names = []
    for path in sorted(data.glob("*.h5ad")):
        obs = ad.read_h5ad(path, backed="r").obs
        if "cell_type" in obs and "domain" not in obs:
            names.append(path.stem)
    return names


@cache
def digest(*paths: Path) -> str:
    """Checksum of files."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def inputs(path: Path, method: str) -> dict[str, str]:
    """What a result depends on."""
    source = digest(*sorted((ROOT / "src").rglob("*.py"))) if method not in RIVALS else ""
    return {"data": digest(path), "source": source}


def work(path: Path, method: str, seed: int, cells: int) -> dict[str, Any]:
    """One run in this process, on all cells, or on a random draw that is the same for all methods and seeds."""
    warnings.simplefilter("ignore")
    adata = ad.read_h5ad(path)
    if cells:
        adata = adata[np.sort(draw(adata.n_obs, cells, 0))].copy()
    truth = adata.obs["cell_type"].to_numpy(dtype=str)
    classes, sizes = np.unique(truth, return_counts=True)
    classes = classes[(sizes >= SMALLEST_CLASS) & ~np.isin(classes, UNSCORED)]
    scored = np.isin(truth, classes)
    n_clusters = len(classes)
    bare = ad.AnnData(adata.X, var=adata.var[[]])  # no label goes any further
    start = time.process_time()
    embedding, clusters, tree = METHODS[method](bare, n_clusters, seed)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {
        **inputs(path, method),
        "seconds": seconds,
        "peak_gb": peak,
        "cells": adata.n_obs,
        "classes": n_clusters,
        "scores": {way: score_clusters(truth[scored], labels[scored]) for way, labels in clusters.items()},
        "embedding": {} if method in ABLATIONS else score_embedding(truth[scored], embedding[scored]),
        "labels": {way: np.unique(labels, return_inverse=True)[1].tolist() for way, labels in clusters.items()},
        "tree": tree,
        **measured_on((*PACKAGES, *PEERS.get(method, []))),
    }


def result_file(name: str, method: str, seed: int, cells: int) -> Path:
    return (
        RESULTS
        / (f"quality_{cells}" if cells else "quality")
        / name
        / method.replace(", ", "-").replace(" ", "-")
        / f"{seed}.json"
    )


def read_result(path: Path, method: str, seed: int, cells: int) -> dict[str, Any] | None:
    """A result that is there and of these data and this source."""
    return read_if_current(result_file(path.stem, method, seed, cells), inputs(path, method))


def run_all(paths: list[Path], methods: list[str], seeds: int, cells: int, jobs: int) -> None:
    # Seeds outside, so that an interrupted benchmark has all methods side by side.
    runs = [(path, method, seed) for seed in range(seeds) for path in paths for method in methods]
    todo = [run for run in runs if read_result(*run, cells) is None]

    def run(number: int, path: Path, method: str, seed: int) -> None:
        print(f"[{number}/{len(todo)}] {method} on {path.stem}, seed {seed}", file=sys.stderr, flush=True)
        arguments = [__file__, "--work", str(path), method, str(seed), str(cells)]
        run_to_file(result_file(path.stem, method, seed, cells), arguments)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, range(1, len(todo) + 1), *zip(*todo, strict=True)))  # ends with the first that fails


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", nargs="+", help="names of sets (default: all)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["SCRCL", "PCA", "scVI"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cells", type=int, default=0, help="cells drawn from each set (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, of one thread each (default: 1)")
    parser.add_argument("--external", type=Path, help="csv of figures measured elsewhere: method, set, regime, ARI")
    parser.add_argument("--output", default="quality", help="name of the report in benchmarks/results")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        path, method, seed, cells = arguments.work
        print(json.dumps(work(Path(path), method, int(seed), int(cells))))
        return
    available = available_sets(arguments.data)
    names = arguments.sets or [name for name in available if name in HALF_OF] or available
    paths = [arguments.data / f"{name}.h5ad" for name in names]
    missing = [str(path) for path in paths if not path.exists()]
    if missing or not paths:
        sys.exit(f"No {', '.join(missing) or '.h5ad files with a cell_type'} in {arguments.data}. Pass --data.")
    if not arguments.report:
        run_all(paths, arguments.methods, arguments.seeds, arguments.cells, arguments.jobs)
    results = {
        (path.stem, method, seed): result
        for path in paths
        for method in arguments.methods
        for seed in range(arguments.seeds)
        if (result := read_result(path, method, seed, arguments.cells))
    }
    if not results:
        sys.exit("Nothing was run yet with these data and this source.")
    write_report(results, RESULTS / arguments.output, arguments.external)


if __name__ == "__main__":
    main()
