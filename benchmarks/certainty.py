"""Calibration of cluster probabilities, of the mixture and of the consensus, and detection of doublets and new types.

    python benchmarks/certainty.py --seeds 5
    python benchmarks/certainty.py --report       only the tables and the figure, from earlier runs

A cell is wrong if it does not have the most frequent type of its cluster. The number of clusters is the number of scored
classes ("given") or estimated ("found"). Labels are used for scores and to simulate doublets, and for nothing else. Each run
is a process of one thread, and its result a file. The other scores are compared with the first seed only.

- cells: whether wrong cells are less certain (AUROC), and whether the share of right cells in each of ten bins of
  probability equals the probability (expected calibration error).
- doublets: for each 20 training cells, one doublet is added, the sum of the counts of two cells of different types; how well
  the doublet score, the mixture and the consensus detect them (AUROC).
- left out: a model is trained without one of the two largest types and without a fifth of the other cells, and applied to
  both; whether the new type has higher outlier scores, and higher `excess` of `get_mapping_quality` (AUROC).
"""

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import scipy.sparse as sp
from approaches import approaches
from heldout import fit
from quality import RESULTS, SMALLEST_CLASS, UNSCORED
from report import DETAILS, HALF_OF, folded
from runs import machine, run_to_file
from sklearn.metrics import roc_auc_score

from scrcl.model.certainty import CertaintyMethod
from scrcl.pl._certainty import is_majority

mpl.use("agg")
import matplotlib.pyplot as plt

N_BINS = 10
METHODS: tuple[CertaintyMethod, ...] = ("consensus", "mixture")
KINDS = ("cells", "doublets", "left0", "left1")
DOUBLETS = 0.05
PACKAGES = ("scrcl", "scvi-tools", "torch", "scikit-learn", "numpy")


def read(path: Path) -> tuple[ad.AnnData, np.ndarray, np.ndarray]:
    """Counts without labels, the types, and the classes that are scored."""
    adata = ad.read_h5ad(path)
    types = adata.obs["cell_type"].to_numpy(dtype=str)
    names, sizes = np.unique(types, return_counts=True)
    classes = names[(sizes >= SMALLEST_CLASS) & ~np.isin(names, UNSCORED)]
    return ad.AnnData(sp.csr_matrix(adata.X), var=adata.var[[]]), types, classes


def auroc(positive: np.ndarray, score: np.ndarray) -> float:
    return float(roc_auc_score(positive, score)) if positive.any() and not positive.all() else np.nan


def judge(probability: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """AUROC of wrong cells, and for each bin the number of cells, their mean probability and the share that is right."""
    bins = np.minimum((probability * N_BINS).astype(int), N_BINS - 1)
    totals = [np.bincount(bins, weights, N_BINS).tolist() for weights in (None, probability, right)]
    return {"AUROC": auroc(right == 0, -probability), "bins": totals, "ECE": calibration_error(np.array(totals))}


def calibration_error(bins: np.ndarray) -> float:
    """Expected calibration error, from the sums in each bin ``(3, N_BINS)``."""
    return float(np.abs(bins[1] - bins[2]).sum() / bins[0].sum())


def cells(path: Path, seed: int) -> dict[str, Any]:
    adata, types, classes = read(path)
    start = time.perf_counter()
    model = fit(adata, seed)
    result: dict[str, Any] = {"training": time.perf_counter() - start, "wrong": {}}
    labels = pd.Series(types).where(np.isin(types, classes))
    for regime, n_clusters in (("given", len(classes)), ("found", None)):
        clusters = model.get_clusters(n_clusters=n_clusters, seed=seed)
        right = is_majority(clusters.to_numpy(), labels)
        scored, codes = ~np.isnan(right), clusters.cat.codes.to_numpy()
        result["wrong"][regime] = float(1 - right[scored].mean())
        for method in METHODS:
            start = time.perf_counter()
            table = model.get_cluster_probabilities(n_clusters=n_clusters, seed=seed, method=method).to_numpy()
            seconds = time.perf_counter() - start
            assigned = table[np.arange(len(codes)), codes].astype(np.float64)
            result[f"{regime} {method}"] = judge(assigned[scored], right[scored]) | {"seconds": seconds}
        if seed == 0:  # the others take most of the time
            others = approaches(model, adata, codes.astype(np.int64), seed)
            rest = {name: auroc(right[scored] == 0, -score[scored]) for name, score in others.items()}
            result[f"{regime} others"] = rest
    return result


def doublets(path: Path, seed: int) -> dict[str, Any]:
    adata, types, classes = read(path)
    rng = np.random.default_rng(seed)
    typed = np.flatnonzero(np.isin(types, classes))
    first = rng.choice(typed, int(DOUBLETS * adata.n_obs))
    second = np.array([rng.choice(typed[types[typed] != types[cell]]) for cell in first])
    together = ad.AnnData(sp.vstack([adata.X, adata.X[first] + adata.X[second]]).tocsr(), var=adata.var)
    made = np.arange(together.n_obs) >= adata.n_obs
    model = fit(together, seed)
    report = model.get_cell_report(n_clusters=len(classes), seed=seed)
    table = model.get_cluster_probabilities(n_clusters=len(classes), seed=seed, method="consensus").to_numpy()
    assigned = table[np.arange(len(table)), report["cluster"].cat.codes]
    scores = {
        "doublet score": report["doublet_score"],
        "probability": -report["probability"],
        "consensus": -pd.Series(assigned),
    }
    return {name: auroc(made, score.to_numpy()) for name, score in scores.items()}


def left_out(path: Path, seed: int, rank: int) -> dict[str, Any]:
    adata, types, classes = read(path)
    names, sizes = np.unique(types, return_counts=True)
    new = types == names[np.argsort(-sizes)][rank]
    kept = ~new & (np.random.default_rng(seed).random(len(types)) < 0.2)
    model = fit(adata[~new & ~kept].copy(), seed)
    query, n_clusters = adata[new | kept].copy(), max(len(classes) - 1, 2)
    report = model.get_cell_report(query, n_clusters=n_clusters, seed=seed)
    excess = model.get_mapping_quality(query, n_clusters=n_clusters, seed=seed)["excess"]
    is_new = new[new | kept]
    return {
        "outlier score": auroc(is_new, report["outlier_score"].to_numpy()),
        "excess": auroc(is_new, excess.to_numpy()),
    }


def work(path: Path, kind: str, seed: int) -> dict[str, Any]:
    """One run in this process."""
    warnings.simplefilter("ignore")
    if kind == "cells":
        return cells(path, seed)
    return doublets(path, seed) if kind == "doublets" else left_out(path, seed, int(kind.removeprefix("left")))


def result_file(name: str, kind: str, seed: int) -> Path:
    return RESULTS / "certainty" / name / kind / f"{seed}.json"


def collect(names: list[str], seeds: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """One row for each set, the mean over its seeds; and the sums in each bin over all sets, each set counting the same."""
    rows, bins = (
        {},
        {f"{regime} {method}": np.zeros((3, N_BINS)) for regime in ("given", "found") for method in METHODS},
    )
    for name in names:
        row: dict[str, list[float]] = {}
        for kind in KINDS:
            files = [result_file(name, kind, seed) for seed in range(seeds)]
            for result in (json.loads(file.read_text()) for file in files if file.exists()):
                if kind == "cells":
                    row.setdefault("wrong", []).append(result["wrong"]["given"])
                    row.setdefault("training (s)", []).append(result["training"])
                    row.setdefault("mixture (s)", []).append(result["given mixture"]["seconds"])
                    for way, totals in bins.items():
                        row.setdefault(f"AUROC, {way}", []).append(result[way]["AUROC"])
                        row.setdefault(f"ECE, {way}", []).append(result[way]["ECE"])
                        sums = np.array(result[way]["bins"])
                        totals += sums / sums[0].sum()
                elif kind == "doublets":
                    for score, value in result.items():
                        row.setdefault(f"doublets, {score}", []).append(value)
                else:
                    for score, value in result.items():
                        row.setdefault(f"left out, {score}", []).append(value)
        if row:
            rows[name] = {column: float(np.nanmean(values)) for column, values in row.items()}
    return pd.DataFrame(rows).T, bins


def collect_others(names: list[str]) -> pd.DataFrame:
    """AUROC of the other ways, by set; the number of clusters given, and found; the first seed."""
    values: dict[tuple[str, str], dict[str, float]] = {}
    names_of = {"mixture": "**the mixture**", "consensus": "consensus"}
    for name in names:
        file = result_file(name, "cells", 0)
        result = json.loads(file.read_text()) if file.exists() else {}
        for regime in ("given", "found") if result else ():
            ours = {shown: result[f"{regime} {method}"]["AUROC"] for method, shown in names_of.items()}
            for way, value in (result[f"{regime} others"] | ours).items():
                values.setdefault((way, regime), {})[name] = value
    return pd.DataFrame(values).T


REGIME_OF = {"found": "estimated"}


def means_by_half(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the sets of each half and over all; sets without wrong cells are left out."""
    halves = pd.Series({name: HALF_OF.get(name, "") for name in table.index})
    means = {f"**half {half}**": table[halves == half].mean() for half in ("A", "B")} | {"**all**": table.mean()}
    return pd.DataFrame(means).T


def markdown(table: pd.DataFrame, corner: str) -> list[str]:
    lines = [f"| {corner} | " + " | ".join(map(str, table.columns)) + " |", "|---" * (1 + table.shape[1]) + "|"]
    for name, row in table.iterrows():
        values = [f"{value:.1f}" if "(s)" in str(column) else f"{value:.3f}" for column, value in row.items()]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return lines


def report(names: list[str], seeds: int) -> str:
    table, bins = collect(names, seeds)
    others = collect_others(names)
    halves = means_by_half(others.T).T
    halves["lowest"] = others.min(axis=1)
    by_regime: Any = halves.unstack()
    by_regime = by_regime.swaplevel(axis=1).sort_index(axis=1, level=0, ascending=False, sort_remaining=False)
    by_regime.columns = [f"{half}, {REGIME_OF.get(regime, regime)}" for regime, half in by_regime.columns]
    halves = by_regime
    halves = halves.sort_values("**all**, given", ascending=False)
    draw(bins, RESULTS / "certainty.png")
    table = table.rename(columns=lambda column: str(column).replace("found ", "estimated "))
    means = means_by_half(table)
    wrong = [column for column in map(str, table.columns) if column.startswith(("wrong", "AUROC", "ECE"))]
    title = "Cells in a wrong cluster, with the number of clusters given and estimated"
    lines = [f"{title}; `wrong` is their share with the number given.", "", *markdown(means[wrong], ""), ""]
    lines += [
        "Doublets and types left out, AUROC; and seconds.",
        "",
        *markdown(means.drop(columns=wrong), ""),
        "",
        DETAILS,
        "",
    ]
    lines += folded(f"{title}, by data set", markdown(table[wrong], "data set"))
    lines += folded("Doublets and types left out, by data set", markdown(table.drop(columns=wrong), "data set"))
    lines += folded("Other approaches: AUROC for wrong cells by half, the first seed", markdown(halves, "by"))
    counted = {kind: seeds_of(names, kind) for kind in KINDS}
    of_kinds = ", ".join(f"{kind}: {number}" for kind, number in counted.items())
    return "\n".join([*lines, f"Seeds of all sets: {of_kinds}. {machine(PACKAGES)}."]) + "\n"


def seeds_of(names: list[str], kind: str) -> int:
    """How many seeds were run of all sets."""
    return min(len(list(result_file(name, kind, 0).parent.glob("*.json"))) for name in names)


def draw(bins: dict[str, np.ndarray], path: Path) -> None:
    """Reliability diagrams, each set counting the same."""
    _, axes = plt.subplots(1, 2, figsize=(8, 4), sharey=True, layout="constrained")
    for ax, regime, title in zip(axes, ("given", "found"), ("number of clusters given", "found"), strict=True):
        ax.plot([0, 1], [0, 1], color="0.7", ls="--", lw=1)
        for method, color in zip(METHODS, ("0.55", "#2f5d8c"), strict=True):
            counts, mean, share = bins[f"{regime} {method}"][:, bins[f"{regime} {method}"][0] > 0]
            ax.plot(mean / counts, share / counts, color=color, label=method)
            ax.scatter(mean / counts, share / counts, s=10 + 190 * counts / counts.max(), color=color)
        ax.set(xlabel="probability of the cluster", title=title)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylabel="share of cells that are right")
    axes[0].legend(frameon=False)
    plt.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SCRCL_DATA", "../shared/data")))
    parser.add_argument("--sets", nargs="+", default=list(HALF_OF))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        path, kind, seed = arguments.work
        print(json.dumps(work(Path(path), kind, int(seed))))
        return
    if not arguments.report:
        for seed in range(arguments.seeds):
            for name in arguments.sets:
                for kind in arguments.kinds:
                    file = result_file(name, kind, seed)
                    if not file.exists():
                        print(f"{name}, {kind}, seed {seed}", file=sys.stderr, flush=True)
                        run_to_file(file, [__file__, "--work", str(arguments.data / f"{name}.h5ad"), kind, str(seed)])
    text = report(arguments.sets, arguments.seeds)
    (RESULTS / "certainty.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
