"""Marker genes of SCRCL and of the Wilcoxon test, scored by markers known from the literature.

    python benchmarks/markers.py
    python benchmarks/markers.py --report            only the tables, from earlier runs

The known markers, with their sources, are in `benchmarks/known_markers.csv`. The data sets are .h5ad files of counts with
`obs["cell_type"]` in `$SCRCL_DATA`, or in `../shared/data` beside the repository, and `pbmc700`, which scanpy ships.
Labels determine which cluster is the right one for a known marker, and nothing else. Types with fewer than 10 cells, and
types without known markers in the table, are not scored. All methods have the same genes, those that the model keeps.
Each run is a process of one thread, and its result a file in `benchmarks/results/markers`.
"""

import argparse
import json
import os
import sys
import time
import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from methods import trained
from report import folded
from runs import machine, run_to_file

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KNOWN = pd.read_csv(ROOT / "benchmarks" / "known_markers.csv", keep_default_na=False)
ORGANISM = {"baron_mouse": "mouse", "zheng_pbmc500": "human", "pbmc700": "human"}
SMALLEST_TYPE = 10
PACKAGES = ("scrcl", "scvi-tools", "torch", "anndata", "scanpy", "scikit-learn", "numpy", "scipy")

#: Scores by group and gene.
Scores = pd.DataFrame


def read(name: str) -> tuple[ad.AnnData, np.ndarray]:
    """Counts without any label, and the labels."""
    import scrcl

    if name == "pbmc700":
        adata = scrcl.datasets.pbmc700()
        return ad.AnnData(adata.X, var=adata.var[[]]), adata.obs["bulk_labels"].to_numpy(dtype=str)
    folder = Path(os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")
    path = folder / f"{name}.h5ad"
    if not path.is_file():
        sys.exit(f"{name}.h5ad is not in {folder}. Set SCRCL_DATA to the folder that holds it.")
    adata = ad.read_h5ad(path)
    return ad.AnnData(adata.X, var=adata.var[[]]), adata.obs["cell_type"].to_numpy(dtype=str)


def known_markers(name: str, label: str) -> set[str]:
    table = KNOWN[KNOWN["organism"] == ORGANISM[name]]
    return set(table.loc[[label in labels.split(";") for labels in table["labels"]], "gene"])


def cell_scores(model: Any, adata: ad.AnnData) -> dict[str, np.ndarray]:
    """Cell by gene scores: those of SCRCL, those of other positions of the cells, and the published map."""
    import scvi
    import torch

    import scrcl
    from scrcl.genes.associations import GeneMap
    from scrcl.graph.adjacency import normalized_adjacency
    from scrcl.model.expression import read_expression
    from scrcl.nn.sparse import to_torch

    expression = read_expression(model, adata, np.arange(adata.n_obs))

    def by_position(positions: np.ndarray) -> np.ndarray:
        return GeneMap.fit(positions, expression)(positions)

    reference = model._reference
    with torch.inference_mode():
        propagation = to_torch(normalized_adjacency(reference.adjacency))
        views = model.module.inference(torch.from_numpy(reference.features), propagation)
        to_genes = (model.module.to_genes(views["hidden_1"]) + model.module.to_genes(views["hidden_2"])).numpy()
    embedding = model.get_gene_embedding().to_numpy()
    refined = model.get_latent_representation(representation="refined")
    first, second, _ = np.split(refined, [embedding.shape[1], 2 * embedding.shape[1]], 1)
    both = first + second
    dense = expression.toarray()
    bare = ad.AnnData(adata.X, var=adata.var[[]])
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_anndata(bare)
    plain = scrcl.SCRCL(bare)
    plain.train(1, plan_kwargs={"lr": 0.0, "weight_decay": 0.0}, enable_progress_bar=False)
    return {
        "SCRCL": by_position(refined),
        "H W + b, the nearest": model.get_cell_gene_associations(
            genes=list(reference.genes), method="network"
        ).to_numpy(),
        "H W + b, as trained": to_genes,
        "refined cell · gene embedding": both
        @ (embedding / np.linalg.norm(embedding, axis=1, keepdims=True).clip(1e-9)).T,
        "aligned in place of refined": by_position(model.get_latent_representation()),
        "refined, not trained": by_position(plain.get_latent_representation(representation="refined")),
        "features in place of refined": by_position(reference.features),
        "expression itself": (dense - dense.mean(0)) / np.maximum(dense.std(0), 1e-9),
    }


def contrast(values: np.ndarray, labels: np.ndarray, genes: pd.Index) -> Scores:
    """Mean in each group less the mean in all others."""
    inside = pd.notna(labels)
    groups = pd.unique(labels[inside])
    rows = [values[inside & (labels == g)].mean(0) - values[inside & (labels != g)].mean(0) for g in groups]
    return pd.DataFrame(np.stack(rows), index=groups.astype(str), columns=genes)


def wilcoxon(model: Any, adata: ad.AnnData, groupby: str) -> Scores:
    import scanpy as sc
    import scipy.sparse as sp

    from scrcl.model.expression import read_expression

    expression = read_expression(model, adata, np.arange(adata.n_obs))
    cells = ad.AnnData(
        sp.csr_matrix(expression), obs=adata.obs[[groupby]].copy(), var=pd.DataFrame(index=model._reference.genes)
    )
    cells = cells[cells.obs[groupby].notna()].copy()
    sc.tl.rank_genes_groups(cells, groupby, method="wilcoxon")
    table = sc.get.rank_genes_groups_df(cells, None)
    return table.pivot(index="group", columns="names", values="scores")[model._reference.genes]


def ranked(scores: Scores, group: str) -> list[str]:
    return list(scores.columns[np.argsort(-scores.loc[group].to_numpy(), kind="stable")])


def auroc(scores: Scores, group: str, genes: list[str]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(scores.columns.isin(genes), scores.loc[group]))


def work(name: str, seed: int) -> dict[str, Any]:
    """One run in this process."""
    import scipy.sparse as sp
    from scipy.stats import kstest
    from sklearn.metrics import roc_auc_score

    from scrcl.genes.associations import Groups, permutation_pvalues

    warnings.simplefilter("ignore")
    adata, truth = read(name)
    model = trained(adata, seed)
    sizes = pd.Series(truth).value_counts()
    types = [t for t in sizes.index[sizes >= SMALLEST_TYPE] if known_markers(name, t)]
    adata.obs["found"] = model.get_clusters(seed=seed).astype(str).astype("category")
    large = np.isin(truth, sizes.index[sizes >= SMALLEST_TYPE])
    adata.obs["annotated"] = pd.Categorical(pd.Series(truth).where(large))
    genes = set(model._reference.genes)
    by_cell = cell_scores(model, adata)
    result: dict[str, Any] = {"types": types, "groupings": {}}
    for grouping in ("found", "annotated"):
        start = time.perf_counter()
        table = model.get_marker_genes(groupby=grouping, seed=seed)
        seconds = time.perf_counter() - start
        ours = table.pivot(index="group", columns="gene", values="score")[model._reference.genes]
        ours.index = ours.index.astype(str)
        groups = adata.obs[grouping].astype(object)
        methods = {"SCRCL": ours, "Wilcoxon": wilcoxon(model, adata, grouping)}
        for method, values in by_cell.items():
            methods.setdefault(method, contrast(values, groups.to_numpy(), model._reference.genes))
        right = {t: str(groups[truth == t].value_counts().index[0]) for t in types}
        outside = table.set_index(["group", "gene"])["fraction_out"]
        evaluated = {}
        for method, scores in methods.items():
            rows = []
            for t in types:
                known_genes = known_markers(name, t) & genes
                top = ranked(scores, right[t])[:10]
                hits = [g for g in top if g in known_genes]
                others = ranked(methods["Wilcoxon"], right[t])[:50]
                rows.append(
                    {
                        "known": len(known_genes),
                        "hits": hits,
                        "top": top,
                        "fraction_out": [float(outside[right[t], gene]) for gene in top],
                        "auroc_of_wilcoxon": auroc(scores, right[t], others),
                        "auroc_of_known": auroc(scores, right[t], list(known_genes)) if known_genes else None,
                    }
                )
            evaluated[method] = dict(zip(types, rows, strict=True))
        both = [(ranked(ours, g), ranked(methods["Wilcoxon"], g)) for g in ours.index]
        result["groupings"][grouping] = {
            "seconds": seconds,
            "methods": evaluated,
            "overlap_20": float(np.mean([len(set(a[:20]) & set(b[:20])) / 20 for a, b in both])),
            "auroc_wilcoxon_of_scrcl": float(
                np.mean([auroc(methods["Wilcoxon"], g, a[:50]) for g, (a, _) in zip(ours.index, both, strict=True)])
            ),
            "top20": {
                method: {g: ranked(methods[method], g)[:20] for g in ours.index} for method in ("SCRCL", "Wilcoxon")
            },
        }
    # How well a known marker, as scored cell by cell, tells the cells of its type from the others.
    result["cells"] = {
        method: {
            t: float(
                np.mean(
                    [
                        roc_auc_score(truth[large] == t, values[large][:, model._reference.genes.get_loc(gene)])
                        for gene in known_markers(name, t) & genes
                    ]
                )
            )
            for t in types
            if known_markers(name, t) & genes
        }
        for method, values in by_cell.items()
    }
    # Null: the expression of each gene permuted over the cells by itself, so that the p-values of a group are
    # independent. Genes in at least 10 cells; of rarer ones few different p-values are possible.
    from scrcl.model.expression import read_expression

    expression = read_expression(model, adata, np.arange(adata.n_obs)).toarray()
    expression = expression[:, (expression > 0).sum(0) >= SMALLEST_TYPE]
    permuted = sp.csr_array(np.random.default_rng(seed).permuted(expression, axis=0))
    clusters = Groups(adata.obs["found"].cat.codes.to_numpy(np.int64), adata.obs["found"].nunique())
    refined = model.get_latent_representation(representation="refined")
    pvalues = permutation_pvalues(refined, permuted, clusters, 1000, seed + 1000)
    result["null"] = [
        {"ks": float(kstest(values, "uniform").pvalue), "below_05": float((values < 0.05).mean())} for values in pvalues
    ]
    return result


def result_file(name: str, seed: int) -> Path:
    return RESULTS / "markers" / name / f"{seed}.json"


def run_all(names: list[str], seeds: int) -> None:
    todo = [(n, s) for s in range(seeds) for n in names if not result_file(n, s).exists()]
    for number, (name, seed) in enumerate(todo, 1):
        print(f"[{number}/{len(todo)}] {name}, seed {seed}", file=sys.stderr, flush=True)
        run_to_file(result_file(name, seed), [__file__, "--work", name, str(seed)])


def jaccard(runs: list[dict[str, Any]], grouping: str, method: str) -> list[float]:
    """Of each group in one run, the Jaccard index of its top 20 with the most similar top 20 of another run."""
    values = []
    for a, b in combinations(runs, 2):
        tops = [[set(top) for top in run["groupings"][grouping]["top20"][method].values()] for run in (a, b)]
        for left, right in (tops, tops[::-1]):
            values += [max(len(x & y) / len(x | y) for y in right) for x in left]
    return values


def spread(values: list[float], digits: int = 2) -> str:
    """Mean and worst."""
    return f"{np.mean(values):.{digits}f} ({np.min(values):.{digits}f})"


#: Groupings, and what tables call them.
TITLES = {"found": "clusters of SCRCL", "annotated": "published cell types"}


def known_in_top_ten(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines of the table of known markers, for each grouping."""
    folds: list[str] = []
    for grouping, title in TITLES.items():
        lines = ["Share of types with at least one known marker in the top 10 of the right group; with at least two."]
        lines += ["AUROC of each score for the 50 best genes of Wilcoxon, and for the known markers.", ""]
        lines += [
            "| set | score | at least one | at least two | AUROC, Wilcoxon's | AUROC, known |",
            "|---|---|---|---|---|---|",
        ]
        for name, seeds in runs.items():
            for method in seeds[0]["groupings"][grouping]["methods"]:
                evaluated = [list(run["groupings"][grouping]["methods"][method].values()) for run in seeds]
                one = [float(np.mean([len(t["hits"]) >= 1 for t in run])) for run in evaluated]
                two = [float(np.mean([len(t["hits"]) >= 2 for t in run])) for run in evaluated]
                theirs = [float(np.mean([t["auroc_of_wilcoxon"] for t in run])) for run in evaluated]
                known_genes = [float(np.mean([t["auroc_of_known"] for t in run if t["known"]])) for run in evaluated]
                cells = [spread(one), spread(two), spread(theirs, 3), spread(known_genes, 3)]
                lines.append(f"| {name}, {len(seeds[0]['types'])} types | {method} | " + " | ".join(cells) + " |")
        folds += folded(f"Known markers in the top 10, {title}", lines)
    return folds


def cell_by_cell(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines of the table of scores in single cells."""
    lines: list[str] = []
    lines += ["### Known markers cell by cell", ""]
    lines += ["AUROC of the scores of a known marker for the cells of its type, mean over markers and types.", ""]
    methods = list(next(iter(runs.values()))[0]["cells"])
    lines += ["| set | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for name, seeds in runs.items():
        values = [[float(np.mean(list(run["cells"][method].values()))) for run in seeds] for method in methods]
        lines.append(f"| {name} | " + " | ".join(spread(v, 3) for v in values) + " |")
    return lines


def beside_wilcoxon(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines of the table that compares with Wilcoxon's test."""
    lines: list[str] = []
    lines += ["", "### SCRCL and Wilcoxon", ""]
    lines += ["Where the two top tens of a type differ, the known markers among the genes that only one of them names,"]
    lines += ["and the mean fraction of the cells outside the group that express these genes."]
    lines += [
        "",
        "| set | groups | same of top 20 | AUROC of Wilcoxon for the 50 best of SCRCL | known, only SCRCL | known, only Wilcoxon | outside, only SCRCL | outside, only Wilcoxon |",
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for name, seeds in runs.items():
        for grouping, title in TITLES.items():
            ours_only, theirs_only, differ = 0, 0, 0
            outside: list[list[float]] = [[], []]
            for run in seeds:
                methods = run["groupings"][grouping]["methods"]
                for t in run["types"]:
                    ours, theirs = methods["SCRCL"][t], methods["Wilcoxon"][t]
                    for fractions, (a, b) in zip(outside, ((ours, theirs), (theirs, ours)), strict=True):
                        pairs = zip(a["top"], a["fraction_out"], strict=True)
                        fractions += [fraction for gene, fraction in pairs if gene not in b["top"]]
                    differ += len(set(ours["top"]) - set(theirs["top"]))
                    ours_only += len(set(ours["hits"]) - set(theirs["hits"]))
                    theirs_only += len(set(theirs["hits"]) - set(ours["hits"]))
            overlap = spread([run["groupings"][grouping]["overlap_20"] for run in seeds])
            back = spread([run["groupings"][grouping]["auroc_wilcoxon_of_scrcl"] for run in seeds], 3)
            lines.append(
                f"| {name} | {title} | {overlap} | {back} | {ours_only} of {differ} | {theirs_only} of {differ} | "
                + " | ".join(f"{np.mean(values):.2f}" for values in outside)
                + " |"
            )
    return lines


def missed_types(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines of the list of types whose markers are missed."""
    lines: list[str] = []
    lines += ["", "### Types whose markers are missed", ""]
    for name, seeds in runs.items():
        for grouping, title in TITLES.items():
            missed: dict[str, int] = {}
            for run in seeds:
                for t, judged_type in run["groupings"][grouping]["methods"]["SCRCL"].items():
                    if not judged_type["hits"]:
                        missed[t] = missed.get(t, 0) + 1
            without_hits = ", ".join(f"{t} ({count} of {len(seeds)} seeds)" for t, count in missed.items()) or "none"
            lines.append(f"- {name}, {title}: {without_hits}")
    return lines


def stability(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines of the table of stability, calibration and time."""
    lines: list[str] = []
    lines += ["", "### Stability, calibration and time", ""]
    lines += [
        "Jaccard index of the top 20 between seeds (mean over groups, worst group). P-values of permuted expression:"
    ]
    lines += [
        "share below 0.05, and share of groups with a Kolmogorov-Smirnov p-value for uniformity below 0.05. Seconds"
    ]
    lines += ["for the markers of the clusters with 1,000 permutations.", ""]
    lines += [
        "| set | Jaccard, clusters | Jaccard, published types | Wilcoxon, clusters | below 0.05 | not uniform | s |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, seeds in runs.items():
        stable = [
            spread(values) if values else "–"
            for values in (
                jaccard(seeds, "found", "SCRCL"),
                jaccard(seeds, "annotated", "SCRCL"),
                jaccard(seeds, "found", "Wilcoxon"),
            )
        ]
        null = [group for run in seeds for group in run["null"]]
        below = float(np.mean([group["below_05"] for group in null]))
        rejected = sum(group["ks"] < 0.05 for group in null)
        seconds = float(np.mean([run["groupings"]["found"]["seconds"] for run in seeds]))
        lines.append(
            f"| {name} | " + " | ".join(stable) + f" | {below:.3f} | {rejected} of {len(null)} | {seconds:.1f} |"
        )
    return lines


def report(names: list[str], seeds: int) -> str:
    runs = {
        n: [json.loads(result_file(n, s).read_text()) for s in range(seeds) if result_file(n, s).exists()]
        for n in names
    }
    runs = {n: of_set for n, of_set in runs.items() if of_set}
    lines = ["Mean over seeds (worst seed).", ""]
    for section in (known_in_top_ten, cell_by_cell, beside_wilcoxon, missed_types, stability):
        lines += section(runs)
    lines += [
        "",
        f"Seeds 0 to {seeds - 1}. {machine(PACKAGES)}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=ORGANISM, default=list(ORGANISM))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work[0], int(arguments.work[1]))))
        return
    if not arguments.report:
        run_all(arguments.sets, arguments.seeds)
    text = report(arguments.sets, arguments.seeds)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "markers.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
