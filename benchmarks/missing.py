"""Cells that lack some of the genes of a model: how far results agree with those from all genes.

    python benchmarks/missing.py
    python benchmarks/missing.py --report          only the table, from previous runs

Half of the cells of each data set, drawn at random, are the model, with their published types as labels. The others are asked for
with all genes, and again without a share of the genes, drawn at random from all: the share of cells with the same cluster and
the same predicted type, the accuracy of the types, and the median correlation of the latent representations. Each run is a process of
one thread, and its result a file in `benchmarks/results/missing`.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from methods import trained
from name_levels import read
from runs import machine, run_to_file

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
SETS = ["baron_human1", "zheng_pbmc500", "kang_ifnb", "baron_mouse", "cite_pbmc_inhouse", "pdac_a_scrna"]
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.45)
FIGURES = ("cluster", "type", "accuracy", "latent")
PACKAGES = ("scrcl", "scvi-tools", "torch", "anndata", "numpy")


def work(name: str, seed: int) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    adata, truth = read(name)
    adata.obs["type"] = truth
    rng = np.random.default_rng(seed)
    inside = rng.permutation(adata.n_obs) < adata.n_obs // 2
    reference, query = adata[inside].copy(), adata[~inside].copy()
    del query.obs["type"]
    setup = {"labels_key": "type", "unlabeled_category": "unknown"}
    model = trained(reference, seed, setup=setup | ({"batch_key": "batch"} if "batch" in adata.obs else {}))
    order, rows = rng.permutation(adata.n_vars), []
    clusters, types = model.get_clusters(query).to_numpy(str), model.predict(query, alpha=0).to_numpy(str)
    latent = model.get_latent_representation(query)
    for share in (0.0, *SHARES):
        part = query[:, np.sort(order[round(share * adata.n_vars) :])].copy()
        found = model.predict(part, alpha=0).to_numpy(str)
        latent_found = model.get_latent_representation(part)
        correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(latent, latent_found, strict=True)]
        rows.append(
            {
                "share": share,
                "cluster": float((model.get_clusters(part).to_numpy(str) == clusters).mean()),
                "type": float((found == types).mean()),
                "accuracy": float((found == truth[~inside])[truth[~inside] != "unknown"].mean()),
                "latent": float(np.median(correlations)),
            }
        )
    return {"rows": rows}


def result_file(name: str, seed: int) -> Path:
    return RESULTS / "missing" / name / f"{seed}.json"


def report(names: list[str], seeds: int) -> str:
    files = [(name, result_file(name, seed)) for name in names for seed in range(seeds)]
    runs = [(name, json.loads(file.read_text())["rows"]) for name, file in files if file.exists()]
    table = pd.DataFrame([{"set": name, **row} for name, rows in runs for row in rows])
    lines = [
        "Cells without a share of all genes, relative to the same cells with all: means over data sets, and the lowest of a set.",
        "",
        "| genes missing | same cluster | lowest | same type | lowest | accuracy of types | latent correlation |",
        "|---|---|---|---|---|---|---|",
    ]
    for share, part in table.groupby("share"):
        of_sets = part.groupby("set")[list(FIGURES)].mean()
        mean, lowest = of_sets.mean(), of_sets.min()
        lines.append(
            f"| {share:.0%} | {mean['cluster']:.3f} | {lowest['cluster']:.3f} | {mean['type']:.3f} | {lowest['type']:.3f} | "
            f"{mean['accuracy']:.3f} | {mean['latent']:.3f} |"
        )
    lines += [
        "",
        f"Data sets: {', '.join(dict.fromkeys(name for name, _ in runs))}; {len(runs)} runs. {machine(PACKAGES)}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work[0], int(arguments.work[1]))))
        return
    todo = [(n, s) for s in range(arguments.seeds) for n in arguments.sets if not result_file(n, s).exists()]
    for name, seed in [] if arguments.report else todo:
        print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
        run_to_file(result_file(name, seed), [__file__, "--work", name, str(seed)])
    text = report(arguments.sets, arguments.seeds)
    (RESULTS / "missing.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
