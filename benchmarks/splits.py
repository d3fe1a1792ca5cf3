"""Which clusters are found: one population, mixtures of two, unknown numbers of types, and the evidence for splits.

    python benchmarks/quality.py --methods SCRCL     first: `number` and `subsamples` read its runs
    python benchmarks/splits.py
    python benchmarks/splits.py --parts null --draws 20
    python benchmarks/splits.py --report             only the tables, from earlier runs

Labels score the results, and set the number of clusters where it says so. Each part is a process of one thread; each run in
it is a file in `benchmarks/results/splits`, and is repeated if the data or the source of SCRCL have changed.

- populations: single cell lines and single sorted types, each a data set of its own; whole if one cluster is found.
- null: draws of one population, from a model with the overdispersion and the correlation of the genes of the same cells.
- mixtures: two lines or sorted types; found if a cluster has an F1 above 0.8 for the smaller part.
- number: adjusted Rand index (ARI) with the published types, the number of types unknown.
- subsamples: clusters of 80 % of the cells, compared with those of all cells.
- pvalues: p-values of splits of draws of one population, and of mixtures at the true split.
- seconds: processor seconds of `train()` and of `get_cluster_tree()`.
"""

import argparse
import json
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from methods import RESOLUTIONS, cluster_space, standard_genes, trained
from populations import DATA, SETS, SHARES, Mixture, mixtures, null_draws, populations
from quality import PACKAGES, RESULTS, ROOT, SMALLEST_CLASS, UNSCORED, digest, read_result
from report import DETAILS, HALF_OF, HALVES, folded, row
from runs import machine, read_if_current, run_to_file
from sklearn.metrics import adjusted_rand_score

FOLDER = RESULTS / "splits"
STANDARD_RESOLUTIONS = (0.1, 0.3, 1.0)
STANDARD = [f"PCA + Leiden at {resolution}" for resolution in STANDARD_RESOLUTIONS]
SUBSAMPLED_SHARE, SUBSAMPLE_SEEDS = 0.8, range(3)
MIN_F1 = 0.8
N_DRAWS = 100
Item = tuple[str, Callable[[], dict[str, Any]]]


def cells_of(counts: sp.csr_array) -> ad.AnnData:
    return ad.AnnData(sp.csr_matrix(counts, dtype=np.float32))


def divide(counts: sp.csr_array, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Clusters of each method, and the highest split of the tree."""
    adata = cells_of(counts)
    standard = leiden_on_pca(adata.copy(), STANDARD_RESOLUTIONS, seed)
    model = trained(adata, seed)
    found = model.get_clusters(seed=seed).cat.codes.to_numpy()
    splits = model.get_cluster_tree(seed=seed, evidence=False).splits
    first = {"connectivity": splits["connectivity"].iloc[:3].tolist(), "n_right": splits["n_right"].iloc[:3].tolist()}
    return {"SCRCL": found} | standard, first


def leiden_on_pca(adata: ad.AnnData, resolutions: tuple[float, ...], seed: int) -> dict[str, np.ndarray]:
    import scanpy as sc

    genes = standard_genes(adata)
    sc.pp.pca(genes, n_comps=min(50, genes.n_obs - 1), random_state=seed)
    sc.pp.neighbors(genes, random_state=seed)
    for resolution in resolutions:
        name = f"PCA + Leiden at {resolution}"
        sc.tl.leiden(genes, resolution, key_added=name, flavor="igraph", n_iterations=2, random_state=seed)
    return {name: genes.obs[name].to_numpy(dtype=str) for name in genes.obs if name.startswith("PCA + Leiden")}


def count(counts: sp.csr_array) -> dict[str, Any]:
    clusters, first = divide(counts)
    return {"cells": counts.shape[0], "clusters": {m: len(np.unique(c)) for m, c in clusters.items()}, **first}


def best_f1(clusters: np.ndarray, part: np.ndarray) -> float:
    """The largest F1 of a cluster for a part of the cells."""
    table = pd.crosstab(clusters, part)
    return float((2 * table[True] / (table.sum(axis=1) + part.sum())).max())


def separate(mixture: Mixture) -> dict[str, Any]:
    clusters, first = divide(mixture.counts)
    return {
        "share": mixture.share,
        "cells": len(mixture.part),
        "smaller": int(mixture.part.sum()),
        "F1": {method: best_f1(labels, mixture.part) for method, labels in clusters.items()},
        "clusters": {method: len(np.unique(labels)) for method, labels in clusters.items()},
        **first,
    }


def read(name: str) -> tuple[ad.AnnData, np.ndarray, np.ndarray]:
    """Counts without labels, the published types, and whether cells are scored."""
    adata = ad.read_h5ad(DATA / f"{name}.h5ad")
    types = adata.obs["cell_type"].to_numpy(dtype=str)
    names, sizes = np.unique(types, return_counts=True)
    scored = np.isin(types, names[(sizes >= SMALLEST_CLASS) & ~np.isin(names, UNSCORED)])
    return ad.AnnData(sp.csr_matrix(adata.X), var=adata.var[[]]), types, scored


def standard(name: str) -> dict[str, Any]:
    """ARI of Leiden on PCA at each resolution, and of scanpy's dendrogram of its clusters at 1.0, cut at the number of types."""
    import scanpy as sc
    from scipy.cluster.hierarchy import fcluster

    adata, types, scored = read(name)
    genes = standard_genes(adata)
    sc.pp.pca(genes, n_comps=min(50, genes.n_obs - 1), random_state=0)
    leiden = cluster_space(genes.obsm["X_pca"], 2, 0).clusters
    genes.obs["leiden"] = pd.Categorical(leiden["leiden 1.0"])
    sc.tl.dendrogram(genes, "leiden", use_rep="X_pca")
    linkage = genes.uns["dendrogram_leiden"]["linkage"]
    joined = fcluster(linkage, len(np.unique(types[scored])), "maxclust")[genes.obs["leiden"].cat.codes]
    ari = {str(r): adjusted_rand_score(types[scored], leiden[f"leiden {r}"][scored]) for r in RESOLUTIONS}
    return {"leiden": ari, "dendrogram": adjusted_rand_score(types[scored], joined[scored])}


def subsample(name: str, seed: int) -> dict[str, Any]:
    whole = read_result(DATA / f"{name}.h5ad", "SCRCL", seed, 0)
    if whole is None:
        sys.exit(f"First run: python benchmarks/quality.py --methods SCRCL --sets {name}")
    adata, _, _ = read(name)
    n = adata.n_obs
    rows = np.sort(np.random.default_rng(seed).choice(n, round(SUBSAMPLED_SHARE * n), replace=False))
    part = trained(adata[rows].copy(), seed).get_clusters(seed=seed)
    of_all = np.array(whole["labels"]["found"])
    ari = float(adjusted_rand_score(of_all[rows], part.cat.codes))
    return {"set": name, "seed": seed, "all": len(np.unique(of_all)), "part": int(part.nunique()), "ARI": ari}


def seconds(name: str) -> dict[str, Any]:
    import scvi

    import scrcl

    adata, _, _ = read(name)
    trained(adata[:200].copy(), 0).get_cluster_tree()  # what is imported and compiled once does not count
    scvi.settings.seed = 0
    times = [time.process_time()]
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata)
    times.append(time.process_time())
    model.train(enable_progress_bar=False)
    times.append(time.process_time())
    model.get_clusters()
    times.append(time.process_time())
    tree = model.get_cluster_tree()
    times.append(time.process_time())
    splits = tree.splits
    kept = ["n_left", "n_right", "connectivity", "distance", "pvalue", "stability", "supported", "verdict"]
    table = json.loads(splits[kept].to_json(orient="split"))["data"]
    prepare, train, clusters, evidence = np.diff(times).tolist()
    return {
        "cells": adata.n_obs,
        "prepare": prepare,
        "train": train,
        "clusters": clusters,
        "evidence": evidence,
        "n_splits": len(splits),
        "splits": table,
    }


def halves(counts: sp.csr_array, how: str) -> np.ndarray:
    """Two clusters of cells: `(m,)` whether a cell is in the first. Leiden's is the smallest at the lowest resolution with several."""
    import igraph
    from sklearn.cluster import AgglomerativeClustering, KMeans
    from sklearn.decomposition import PCA
    from sklearn.neighbors import kneighbors_graph

    genes = standard_genes(cells_of(counts))
    space = PCA(10, random_state=0).fit_transform(genes.X.toarray())
    if how == "k-means":
        return KMeans(2, n_init=5, random_state=0).fit_predict(space) == 0
    if how == "Ward":
        return AgglomerativeClustering(2).fit_predict(space) == 0
    edges = sp.triu(kneighbors_graph(space, 15) + kneighbors_graph(space, 15).T).tocoo()
    graph = igraph.Graph(len(space), list(zip(edges.row, edges.col, strict=True)))
    igraph.set_random_number_generator(random.Random(0))
    for resolution in RESOLUTIONS:
        membership = np.array(graph.community_leiden("modularity", resolution=resolution, n_iterations=5).membership)
        if membership.max() > 0:
            break
    return membership == np.argmin(np.bincount(membership))


def pvalue(counts: sp.csr_array, side: np.ndarray) -> dict[str, Any]:
    from scrcl.cluster.null import split_pvalue

    return {"p": split_pvalue(counts, side), "smaller": int(min(side.sum(), (~side).sum()))}


def null_pvalue(counts: sp.csr_array, how: str) -> dict[str, Any]:
    return {"how": how, **pvalue(counts, halves(counts, how))}


def mixture_pvalue(mixture: Mixture) -> dict[str, Any]:
    return {"how": "true", "share": mixture.share, **pvalue(mixture.counts, mixture.part)}


def file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def items(part: str, sets: list[str], draws: int) -> Iterator[Item]:
    """Name and computation of each run of a part."""
    if part == "subsamples":
        yield from ((f"{name} {seed}", partial(subsample, name, seed)) for name in sets for seed in SUBSAMPLE_SEEDS)
        return
    if part in ("number", "seconds"):
        of_set = {"number": standard, "seconds": seconds}[part]
        yield from ((name, partial(of_set, name)) for name in sets)
        return
    whole = populations()
    if part == "populations":
        yield from ((item.name, partial(count, item.counts)) for item in whole)
    elif part == "null":
        yield from ((str(number), partial(count, item.counts)) for number, item in enumerate(null_draws(whole, draws)))
    elif part == "pvalues":
        ways = ("k-means", "Ward", "Leiden")
        for number, item in enumerate(null_draws(whole, draws, seed=1)):
            yield f"null {number}", partial(null_pvalue, item.counts, ways[number // len(whole) % len(ways)])
    of_mixture = {"mixtures": separate, "pvalues": mixture_pvalue}
    for share in SHARES if part in of_mixture else ():
        yield from (
            (f"{share} {mixture.name}", partial(of_mixture[part], mixture)) for mixture in mixtures(whole, share)
        )


PARTS = ("populations", "null", "mixtures", "number", "subsamples", "pvalues", "seconds")


def inputs() -> dict[str, str]:
    """What all results depend on."""
    data = [DATA / f"{name}.h5ad" for name in sorted({*SETS, *HALF_OF}) if (DATA / f"{name}.h5ad").exists()]
    return {"data": digest(*data), "source": digest(*sorted((ROOT / "src").rglob("*.py")))}


def work(part: str, sets: list[str], draws: int) -> None:
    """All runs of a part that are missing, in this process."""
    warnings.simplefilter("ignore")
    for name, compute in items(part, sets, draws):
        file = FOLDER / part / f"{file_name(name)}.json"
        if read_if_current(file, inputs()) is None:
            file.parent.mkdir(parents=True, exist_ok=True)
            result = {**inputs(), "name": name, **compute()}
            file.write_text(json.dumps(result) + "\n")
            print({key: value for key, value in result.items() if key not in ("data", "source", "splits")}, flush=True)


def read_part(part: str) -> list[dict[str, Any]]:
    found = [read_if_current(file, inputs()) for file in sorted((FOLDER / part).glob("*.json"))]
    return [result for result in found if result is not None]


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    texts = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells] for cells in rows]
    return [row(head), row(["---"] * len(head)), *map(row, texts), ""]


def found_table() -> list[str]:
    """Populations, draws and mixtures by method."""
    parts = {part: read_part(part) for part in ("populations", "null", "mixtures")}
    head, cells = ["method"], {method: [method] for method in ("SCRCL", *STANDARD)}
    for part, title in (("populations", "populations whole"), ("null", "draws of one population whole")):
        head.append(title)
        for method, texts in cells.items():
            whole = sum(result["clusters"][method] == 1 for result in parts[part])
            texts.append(f"{whole} of {len(parts[part])}")
    for share in SHARES:
        head.append(f"mixtures {round(100 * share)} / {round(100 - 100 * share)}")
        chosen = [result for result in parts["mixtures"] if result["share"] == share]
        for method, texts in cells.items():
            texts.append(f"{sum(result['F1'][method] > MIN_F1 for result in chosen)} of {len(chosen)}")
    return table(head, list(cells.values()))


def cuts(tree: dict[str, Any]) -> Iterator[np.ndarray]:
    """Clusters of the cells at each number of them, from the leaves to one cluster."""
    labels = np.array(tree["leaves"])
    yield labels
    for number, (a, b) in enumerate(tree["children"]):
        labels = np.where(np.isin(labels, (a, b)), len(tree["children"]) + 1 + number, labels)
        yield labels


def split_by_labels(tree: dict[str, Any], types: np.ndarray, scored: np.ndarray) -> float:
    """ARI if each split, from the lowest one on, is joined unless that lowers the ARI."""
    labels, n_leaves = np.array(tree["leaves"])[scored], len(tree["children"]) + 1
    below = {leaf: {leaf} for leaf in range(n_leaves)}
    best = adjusted_rand_score(types[scored], labels)
    for number, (a, b) in enumerate(tree["children"]):
        below[n_leaves + number] = below[a] | below[b] | {n_leaves + number}
        joined = np.where(np.isin(labels, list(below[n_leaves + number])), n_leaves + number, labels)
        score = adjusted_rand_score(types[scored], joined)
        if score >= best:
            best, labels = score, joined
    return best


def number_runs(sets: list[str], seeds: int) -> pd.DataFrame:
    """ARI by row of the table, data set and seed."""
    rows = []
    for name in sets:
        _, types, scored = read(name)
        n_types = len(np.unique(types[scored]))
        for result in read_part("number"):
            if result["name"] == name:
                for resolution, ari in result["leiden"].items():
                    rows.append((f"PCA + Leiden at {resolution}", name, 0, ari))
                rows.append(("scanpy's dendrogram on PCA, number given", name, 0, result["dendrogram"]))
        for seed in range(seeds):
            of_scrcl = read_result(DATA / f"{name}.h5ad", "SCRCL", seed, 0)
            if of_scrcl is None:
                continue
            tree = of_scrcl["tree"]
            scored_types = types[scored]
            by_number = {len(np.unique(c)): adjusted_rand_score(scored_types, c[scored]) for c in cuts(tree)}
            ours = {
                "SCRCL": of_scrcl["scores"]["found"]["ARI"],
                "SCRCL, number given": of_scrcl["scores"]["given"]["ARI"],
                "tree of SCRCL, number given": by_number.get(n_types, by_number[max(by_number)]),
                "tree of SCRCL, best number by the labels": max(by_number.values()),
                "tree of SCRCL, each split by the labels": split_by_labels(tree, types, scored),
            }
            for resolution, labels in tree["leiden"].items():
                ari = adjusted_rand_score(scored_types, np.array(labels)[scored])
                ours[f"X_scrcl + Leiden at {resolution}"] = ari
            rows += [(label, name, seed, ari) for label, ari in ours.items()]
    return pd.DataFrame(rows, columns=["label", "set", "seed", "ARI"])


def number_tables(sets: list[str], seeds: int) -> tuple[list[str], list[str]]:
    runs = number_runs(sets, seeds)
    by_set = runs.groupby(["label", "set"])["ARI"].mean().unstack().reindex(columns=sets)
    means = by_set.mean(axis=1)
    kinds = [means[means.index.str.startswith(kind)] for kind in ("X_scrcl + Leiden", "PCA + Leiden")]
    best = [ari.idxmax() for ari in kinds if len(ari)]
    trees = [label for label in by_set.index if label.startswith(("SCRCL", "tree", "scanpy"))]
    unknown = ["SCRCL", *best]
    rest = [label for label in dict.fromkeys(runs["label"]) if label in trees and label != "SCRCL"]

    def cells(label: str) -> list[Any]:
        chosen = runs[runs["label"] == label]
        worst = chosen.groupby("seed")["ARI"].mean().min()
        of_half = [
            float(chosen[chosen["set"].isin(HALVES[half])].groupby("set")["ARI"].mean().mean()) for half in HALVES
        ]
        shown = f"{label}, its best resolution" if label in best else label
        return [shown, float(means[label]), *of_half, float(worst), chosen["seed"].nunique()]

    head = ["clusters", "mean ARI", *(f"half {half}" for half in HALVES), "worst seed", "seeds"]
    summary = table(head, [cells(label) for label in [*unknown, *rest]])
    others = [label for label in by_set.index if label not in {*unknown, *rest}]
    details = folded(
        "Leiden at other resolutions",
        table(head, [cells(label) for label in sorted(others, key=lambda x: (x.split()[0], float(x.split()[-1])))]),
    )
    shown = [*unknown, *rest]
    lines = table(
        ["data set", *shown],
        [[name, *(float(by_set.loc[label, name]) for label in shown)] for name in sets],
    )
    return summary, [*details, *folded("ARI by data set, mean of seeds", lines)]


def subsample_tables() -> tuple[list[str], list[str]]:
    results = read_part("subsamples")
    if not results:
        return [], []
    runs = pd.DataFrame(results).assign(difference=lambda frame: abs(frame["all"] - frame["part"]))
    means = runs.groupby("set")[["all", "part", "difference", "ARI"]].mean()
    summary = (
        f"{round(100 * SUBSAMPLED_SHARE)} % of the cells of {len(means)} data sets, {runs['seed'].nunique()} seeds: the number "
        f"of clusters differs by {means['difference'].mean():.2f} in the mean, by at most 1 on "
        f"{(means['difference'] <= 1).sum()} of them, and the ARI with the clusters of all cells is {means['ARI'].mean():.3f} in "
        f"the mean, {runs.groupby('seed')['ARI'].mean().min():.3f} with the worst seed, {means['ARI'].min():.3f} on the worst set."
    )
    rows = [
        [name, f"{mean['all']:.1f}", f"{mean['part']:.1f}", f"{mean['difference']:.1f}", mean["ARI"]]
        for name, mean in means.iterrows()
    ]
    head = ["data set", "clusters of all cells", "of 80 %", "difference", "ARI of both"]
    return [summary, ""], folded("Subsamples by data set", table(head, rows))


def pvalue_table() -> list[str]:
    results = read_part("pvalues")
    rows = []
    groups = {f"null: {how}": [r for r in results if r["how"] == how] for how in ("k-means", "Ward", "Leiden")}
    groups["null: all"] = [r for r in results if r["how"] != "true"]
    for share in SHARES:
        chosen = [r for r in results if r.get("share") == share]
        groups[f"mixtures {round(100 * share)} / {round(100 - 100 * share)}"] = chosen
    for label, chosen in groups.items():
        if chosen:
            p = np.array([r["p"] for r in chosen])
            rows.append(
                [label, len(p), *(f"{(p < alpha).mean():.3f}" for alpha in (0.05, 0.01)), f"{np.median(p):.3f}"]
            )
    return table(["splits", "number", "p < 0.05", "p < 0.01", "median p"], rows)


def seconds_tables() -> tuple[list[str], list[str]]:
    results = read_part("seconds")
    if not results:
        return [], []
    total = [r["clusters"] + r["evidence"] for r in results]
    ratio = np.array([t / r["train"] for t, r in zip(total, results, strict=True)])
    rows = [
        [
            r["name"],
            r["cells"],
            r["n_splits"],
            *(f"{r[phase]:.1f}" for phase in ("prepare", "train", "clusters", "evidence")),
            f"{r['evidence'] / r['train']:.2f}",
            f"{q:.2f}",
        ]
        for r, q in zip(results, ratio, strict=True)
    ]
    head = ["data set", "cells", "splits", "SCRCL()", "train()", "get_clusters()", "evidence"]
    head += ["evidence relative to train()", "both relative to train()"]
    evidence, train, prepare = (sum(r[phase] for r in results) for phase in ("evidence", "train", "prepare"))
    summary = (
        f"Of {len(results)} data sets together, `SCRCL()` takes {prepare:.0f} processor seconds, `train()` {train:.0f}, "
        f"`get_clusters()` {sum(total) - evidence:.0f} and the evidence of `get_cluster_tree()` {evidence:.0f}. Clusters and evidence "
        f"take longer than `train()` on {(ratio > 1).sum()} data sets, in the mean {ratio.mean():.2f} times as long."
    )
    return [summary, ""], folded("Processor seconds by data set", table(head, rows))


def single_table(part: str) -> list[str]:
    """Clusters found in each population, or among draws the number of each count."""
    results = read_part(part)
    methods = ["SCRCL", *STANDARD]
    if part == "populations":
        head = ["population", "cells", *methods, "lowest connectivity of the three highest splits"]
        rows = [
            [
                r["name"],
                r["cells"],
                *(r["clusters"][m] for m in methods),
                min(r["connectivity"]) if r["connectivity"] else "no split",
            ]
            for r in results
        ]
        return folded("Clusters found in single populations", table(head, rows))
    head = ["mixture", "cells", "smaller part", *(f"F1, {m}" for m in methods)]
    rows = [
        [
            f"{round(100 * r['share'])} %: {r['name'].partition(' ')[2]}",
            r["cells"],
            r["smaller"],
            *(r["F1"][m] for m in methods),
        ]
        for r in sorted(results, key=lambda r: (r["share"], r["name"]))
    ]
    return folded("Mixtures", table(head, rows))


def write_report(sets: list[str], seeds: int) -> None:
    summary, details = number_tables(sets, seeds)
    subsamples, subsample_details = subsample_tables()
    spent, spent_details = seconds_tables()
    lines = ["Populations left whole, and mixtures found.", "", *found_table()]
    lines += ["ARI with the published types, by half of the data sets.", "", *summary]
    lines += ["Splits whose p-value is below a bound.", "", *pvalue_table(), *subsamples, *spent, DETAILS, ""]
    lines += [*single_table("populations"), *single_table("mixtures"), *details, *subsample_details, *spent_details]
    lines += [f"{machine(PACKAGES)}.", ""]
    (RESULTS / "splits.md").write_text("\n".join(lines))
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sets", nargs="+", default=list(HALF_OF))
    parser.add_argument("--draws", type=int, default=N_DRAWS, help="draws of one population (default: 100)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of `quality.py` to read (default: 5)")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        for part in arguments.parts:
            work(part, arguments.sets, arguments.draws)
        return
    if not arguments.report:
        for part in arguments.parts:
            command = [__file__, "--work", "--parts", part, "--draws", str(arguments.draws), "--sets", *arguments.sets]
            run_to_file(FOLDER / f"{part}.log", command)
    write_report(arguments.sets, arguments.seeds)


if __name__ == "__main__":
    main()
