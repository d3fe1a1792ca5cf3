"""Names of clusters: `get_cluster_names` with usual lists of markers, scored by published cell types.

    python benchmarks/names.py
    python benchmarks/names.py --parts levels      without lists, from the markers of cellconsensus (`name_levels.py`)
    python benchmarks/names.py --report            only the tables, from previous runs

The data sets are .h5ad and .h5mu files of counts with `obs["cell_type"]` in `$SCRCL_DATA`, or in `../shared/data` beside
the repository, and `pbmc700`, which scanpy ships. Published types are used for scores and for nothing else: a cluster is
scored if it has at least 10 cells, and more than 60 % of them have the same type. Each group is named from all lists, and
again without the list of its own type, when "none of these" is right. As a control, lists of random genes that
are expressed are named. Each run is a process of one thread, and its result a file in `benchmarks/results/names`.
"""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import name_levels
import numpy as np
import pandas as pd
from methods import trained
from runs import machine, run_to_file

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KNOWN = pd.read_csv(ROOT / "benchmarks" / "known_markers.csv", keep_default_na=False)
PACKAGES = ("scrcl", "scvi-tools", "torch", "anndata", "numpy", "scipy")
NONE = "none of these"
SMALLEST = 10
PURE = 0.6
#: Random lists: how many times, and their sizes.
CONTROLS, CONTROL_SIZES = 10, (1, 2, 3, 5, 10)

BLOOD = {
    "T cell": ["CD3D", "CD3E", "CD2", "TRAC", "IL7R"],
    "NK cell": ["NKG7", "GNLY", "KLRD1", "KLRF1", "PRF1"],
    "B cell": ["MS4A1", "CD79A", "CD79B", "CD19", "BANK1"],
    "CD14 monocyte": ["CD14", "LYZ", "S100A8", "S100A9", "VCAN"],
    "CD16 monocyte": ["FCGR3A", "MS4A7", "CDKN1C", "LST1"],
    "dendritic cell": ["FCER1A", "CD1C", "CLEC10A", "CST3"],
    "plasmacytoid dendritic cell": ["LILRA4", "CLEC4C", "IL3RA", "TCF4"],
    "platelet": ["PPBP", "PF4", "GP9", "ITGA2B"],
    "progenitor": ["CD34", "SPINK2", "CYTL1", "PRSS57"],
    "plasma cell": ["MZB1", "JCHAIN", "SDC1", "TNFRSF17"],
    "erythrocyte": ["HBB", "HBA1", "HBA2", "ALAS2"],
}
PANCREAS = {
    "alpha": ["GCG", "TTR", "IRX2", "ARX", "LOXL4"],
    "beta": ["INS", "IAPP", "MAFA", "DLK1", "ADCYAP1"],
    "delta": ["SST", "HHEX", "RBP4", "LEPR"],
    "gamma": ["PPY", "AQP3", "MEIS2", "ETV1"],
    "epsilon": ["GHRL", "PHGR1", "ANXA13", "ACSL1"],
    "acinar": ["PRSS1", "CPA1", "CELA3A", "PNLIP", "CTRB1"],
    "ductal": ["KRT19", "KRT7", "SOX9", "CFTR", "SPP1"],
    "endothelial": ["PECAM1", "CDH5", "KDR", "PLVAP", "VWF"],
    "quiescent stellate": ["RGS5", "PDGFRB", "NOTCH3", "CSPG4", "NDUFA4L2"],
    "activated stellate": ["PDGFRA", "COL1A1", "COL3A1", "DCN", "LUM"],
    "macrophage": ["CD68", "C1QA", "C1QB", "C1QC", "CSF1R", "CD163"],
    "mast": ["TPSAB1", "TPSB2", "CPA3", "KIT", "MS4A2"],
    "T cell": ["CD3D", "CD3E", "CD2", "TRAC", "IL7R"],
    "Schwann": ["SOX10", "PLP1", "MPZ", "CDH19", "S100B"],
    "B cell": ["MS4A1", "CD79A", "CD79B", "CD19", "BANK1"],
}
TUMOUR = {
    "acinar": PANCREAS["acinar"],
    "endothelial": PANCREAS["endothelial"],
    "macrophage": PANCREAS["macrophage"],
    "mast": PANCREAS["mast"],
    "T cell": PANCREAS["T cell"],
    "Schwann": PANCREAS["Schwann"],
    "ductal": ["KRT19", "KRT7", "CFTR", "MUC1", "EPCAM", "SOX9"],
    "NK cell": BLOOD["NK cell"],
    "plasmacytoid dendritic cell": ["LILRA4", "CLEC4C", "IL3RA", "TCF4", "GZMB", "JCHAIN"],
    "dendritic cell": BLOOD["dendritic cell"],
    "erythrocyte": BLOOD["erythrocyte"],
    "fibroblast": ["COL1A1", "COL1A2", "DCN", "LUM", "PDGFRA"],
    "tuft": ["POU2F3", "TRPM5", "SH2D6", "DCLK1", "AVIL"],
    "endocrine": ["CHGA", "INS", "GCG", "SST"],
}
#: The lists of each data set, and the published types that each name stands for.
SETS: dict[str, tuple[dict[str, list[str]], dict[str, list[str]]]] = {
    "cite_pbmc_inhouse": (
        BLOOD,
        {
            "T cell": ["CD4+ T cells", "CD8+ T cells"],
            "NK cell": ["NK cells"],
            "CD14 monocyte": ["CD14+ monocytes"],
            "B cell": ["B cells"],
            "CD16 monocyte": ["CD16+ monocytes"],
        },
    ),
    "kang_ifnb": (
        BLOOD,
        {
            "T cell": ["CD4 Naive T", "CD4 Memory T", "CD8 T", "activated T"],
            "CD14 monocyte": ["CD14 Mono"],
            "CD16 monocyte": ["CD16 Mono"],
            "B cell": ["B", "activated B"],
            "NK cell": ["NK"],
            "platelet": ["MK"],
            "dendritic cell": ["DC"],
            "plasmacytoid dendritic cell": ["pDC"],
        },
    ),
    "zheng_pbmc500": (BLOOD, {"T cell": ["regulatory T"], "B cell": ["bcell"], "NK cell": ["cd56_NK"]}),
    "pbmc700": (
        BLOOD,
        {
            "CD14 monocyte": ["CD14+ Monocyte"],
            "B cell": ["CD19+ B"],
            "progenitor": ["CD34+"],
            "T cell": [
                "CD4+/CD25 T Reg",
                "CD4+/CD45RA+/CD25- Naive T",
                "CD4+/CD45RO+ Memory",
                "CD8+ Cytotoxic T",
                "CD8+/CD45RA+ Naive Cytotoxic",
            ],
            "NK cell": ["CD56+ NK"],
            "dendritic cell": ["Dendritic"],
        },
    ),
    "baron_human1": (
        PANCREAS,
        {
            "alpha": ["alpha"],
            "beta": ["beta"],
            "delta": ["delta"],
            "gamma": ["gamma"],
            "epsilon": ["epsilon"],
            "acinar": ["acinar"],
            "ductal": ["ductal"],
            "endothelial": ["endothelial"],
            "macrophage": ["macrophage"],
            "mast": ["mast"],
            "quiescent stellate": ["quiescent_stellate"],
            "activated stellate": ["activated_stellate"],
            "Schwann": ["schwann"],
            "T cell": ["t_cell"],
        },
    ),
    "pdac_a_scrna": (
        TUMOUR,
        {
            "ductal": [
                "Ductal_CRISP3_high-centroacinar_like",
                "Ductal_terminal_ductal_like",
                "Ductal_MHC_Class_II",
                "Ductal_APOL1_high-hypoxic",
            ],
            "T cell": ["T_cells_&_NK_cells"],
            "erythrocyte": ["RBCs"],
            "mast": ["Mast_cells"],
            "acinar": ["Acinar_cells"],
            "plasmacytoid dendritic cell": ["pDCs"],
            "endothelial": ["Endothelial_cells"],
            "macrophage": ["Macrophages_A", "Macrophages_B"],
            "fibroblast": ["Fibroblasts"],
            "endocrine": ["Endocrine_cells"],
            "tuft": ["Tuft_cells"],
        },
    ),
}
#: Data sets that are also named from the lists of fine types in `known_markers.csv`.
FINE = {"zheng_pbmc500": "human", "pbmc700": "human", "baron_mouse": "mouse"}


def lists_of(name: str) -> dict[str, tuple[dict[str, list[str]], dict[str, list[str]]]]:
    """The kinds of lists of a data set, each with the names that are right for each published type."""
    results = {}
    if name in SETS:
        lists, stands_for = SETS[name]
        types = {label for labels in stands_for.values() for label in labels}
        results["broad"] = lists, {t: [n for n, labels in stands_for.items() if t in labels] for t in types}
    if name in FINE:
        table = KNOWN[KNOWN["organism"] == FINE[name]]
        right: dict[str, list[str]] = {}
        for kind, labels in table[["cell_type", "labels"]].drop_duplicates().itertuples(index=False):
            for label in filter(None, labels.split(";")):
                right.setdefault(label, []).append(kind)
        results["fine"] = {str(kind): list(part["gene"]) for kind, part in table.groupby("cell_type")}, right
    return results


def read(name: str) -> tuple[ad.AnnData, np.ndarray]:
    """Counts without any label, and the labels."""
    import mudata

    import scrcl

    if name == "pbmc700":
        adata = scrcl.datasets.pbmc700()
        return ad.AnnData(adata.X, var=adata.var[[]]), adata.obs["bulk_labels"].to_numpy(dtype=str)
    folder = Path(os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")
    path = next((p for p in (folder / f"{name}.h5ad", folder / f"{name}.h5mu") if p.is_file()), None)
    if path is None:
        sys.exit(f"{name} is not in {folder}. Set SCRCL_DATA to the folder that holds it.")
    adata = ad.read_h5ad(path) if path.suffix == ".h5ad" else mudata.read_h5mu(path).mod["rna"]
    return ad.AnnData(adata.X, var=adata.var[[]]), adata.obs["cell_type"].to_numpy(dtype=str)


def work(name: str, seed: int) -> dict[str, Any]:
    """One run in this process."""
    warnings.simplefilter("ignore")
    adata, truth = read(name)
    model = trained(adata, seed)
    adata.obs["clusters"] = model.get_clusters(seed=seed).astype(str).astype("category")
    adata.obs["published types"] = pd.Categorical(truth)
    rows = []
    for kind, (lists, right) in lists_of(name).items():
        for grouping in ("clusters", "published types"):
            table = model.get_cluster_names(lists, groupby=grouping, seed=seed)
            confidence = table["confidence"].astype(float)
            of_group = pd.Series(truth).groupby(adata.obs[grouping].to_numpy(str))
            withheld: dict[str, pd.DataFrame] = {}
            for group, types in of_group:
                share = types.value_counts(normalize=True)
                right_names = [n for n in right.get(str(share.index[0]), []) if table.attrs["used"][n]]
                if len(types) < SMALLEST or share.iloc[0] <= PURE or not right_names:
                    continue
                key = " ".join(right_names)
                if key not in withheld:
                    others = {n: genes for n, genes in lists.items() if n not in right_names}
                    withheld[key] = model.get_cluster_names(others, groupby=grouping, seed=seed)
                rows.append(
                    {
                        "lists": kind,
                        "grouping": grouping,
                        "group": str(group),
                        "type": share.index[0],
                        "name": table.loc[str(group), "name"],
                        "right": bool(table.loc[str(group), "name"] in right_names),
                        "confidence": confidence[str(group)],
                        "name_without": withheld[key].loc[str(group), "name"],
                    }
                )
    rng = np.random.default_rng(seed)
    expressed = adata.var_names[np.asarray((adata.X > 0).sum(0)).ravel() >= SMALLEST]
    controls = []
    for number in range(CONTROLS):
        random = {str(size): list(rng.choice(expressed, size, replace=False)) for size in CONTROL_SIZES}
        controls += (model.get_cluster_names(random, groupby="clusters", seed=number)["name"] == NONE).tolist()
    return {"names": rows, "control": float(np.mean(controls))}


def result_file(name: str, seed: int) -> Path:
    return RESULTS / "names" / name / f"{seed}.json"


def report(names: list[str], seeds: int) -> str:
    runs = {
        n: [json.loads(result_file(n, s).read_text()) for s in range(seeds) if result_file(n, s).exists()]
        for n in names
    }
    runs = {n: results for n, results in runs.items() if results}
    lines = [
        "Groups with the right name, without a name and with a wrong name, over all seeds; the same with the list of their own",
        'type withheld, where "none of these" is right; mean confidence of right and wrong names; and the share of clusters that',
        f'are "none of these" with {len(CONTROL_SIZES)} lists of {min(CONTROL_SIZES)} to {max(CONTROL_SIZES)} random genes.',
        "",
        "| data set | lists | groups | right | none | wrong | none, list withheld | confidence, right / wrong | none, random lists |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    notes: dict[str, int] = {}
    total = np.zeros(4)
    for name, results in runs.items():
        table = pd.DataFrame([row for run in results for row in run["names"]])
        control = np.mean([run["control"] for run in results])
        for (kind, grouping), part in table.groupby(["lists", "grouping"]):
            wrong = ~part["right"] & (part["name"] != NONE)
            none = part["name_without"] == NONE
            total += [part["right"].sum(), wrong.sum(), none.sum(), len(part)]
            sure = [part.loc[chosen, "confidence"].mean() for chosen in (part["right"], wrong)]
            shown = " / ".join("–" if np.isnan(value) else f"{value:.2f}" for value in sure)
            lines.append(
                f"| {name} | {kind} | {grouping} | {part['right'].sum()} | {(part['name'] == NONE).sum()} | {wrong.sum()} | "
                f"{none.sum()} of {len(part)} | {shown} | {control:.3f} |"
            )
            for row in part.itertuples():
                what = f"{name}, {kind} lists, {grouping}: {row.type}"
                if not row.right:
                    notes[f"{what}: {row.name}"] = notes.get(f"{what}: {row.name}", 0) + 1
                if row.name_without != NONE:
                    key = f"{what}, its list withheld: {row.name_without}"
                    notes[key] = notes.get(key, 0) + 1
    right, wrong_names, none_without, n = total
    lines += [
        "",
        f"Over all rows: {right / n:.1%} right, {wrong_names / n:.1%} wrong, {1 - (right + wrong_names) / n:.1%} without a name; "
        f"{none_without / n:.1%} none of these with the list withheld.",
        "",
        *(f"- {what} ({count}×)" for what, count in notes.items()),
    ]
    lines += [
        "",
        f"Seeds 0 to {max(len(results) for results in runs.values()) - 1}. {machine(PACKAGES)}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    all_sets = list(dict.fromkeys([*SETS, *FINE]))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=("lists", "levels"), default=("lists", "levels"))
    parser.add_argument("--sets", nargs="+", choices=all_sets, default=all_sets)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work[0], int(arguments.work[1]))))
        return
    if "levels" in arguments.parts:
        name_levels.main(
            [name for name in arguments.sets if name in name_levels.SETS], arguments.seeds, arguments.report
        )
    if "lists" not in arguments.parts:
        return
    if not arguments.report:
        todo = [(n, s) for s in range(arguments.seeds) for n in arguments.sets if not result_file(n, s).exists()]
        for number, (name, seed) in enumerate(todo, 1):
            print(f"[{number}/{len(todo)}] {name}, seed {seed}", file=sys.stderr, flush=True)
            run_to_file(result_file(name, seed), [__file__, "--work", name, str(seed)])
    text = report(arguments.sets, arguments.seeds)
    (RESULTS / "names.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
