"""Genes that seem to differ between conditions where none does: cells as replicates, and donors as replicates.

    python benchmarks/conditions.py        needs pydeseq2

The control cells of `kang_ifnb.h5ad` are from eight donors, and nothing was done to any. In each of ten draws, four donors at random
are called "treated". Genes are tested within a published cell type by scanpy's Wilcoxon test of cells, and by PyDESeq2 on the
sums of `SCRCL.get_pseudobulk`, each with its defaults. Every gene found is a false positive.
"""

import argparse
import os
import warnings
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import scanpy as sc

import scrcl

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
TYPES = ("CD4 T cells", "CD14+ Monocytes", "B cells")
N_DRAWS, ALPHA = 10, 0.05
#: Genes that are tested are counted in at least this share of the cells.
EXPRESSED = 0.1


def by_cells(cells: ad.AnnData) -> int:
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.tl.rank_genes_groups(cells, "condition", groups=["treated"], reference="control", method="wilcoxon")
    return int((sc.get.rank_genes_groups_df(cells, "treated")["pvals_adj"] < ALPHA).sum())


def by_donors(sums: ad.AnnData) -> int:
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.ds import DeseqStats

    fitted = DeseqDataSet(adata=sums, design="~condition", quiet=True)
    fitted.deseq2()
    tested = DeseqStats(fitted, contrast=["condition", "treated", "control"], quiet=True)
    tested.summary()
    return int((tested.results_df["padj"] < ALPHA).sum())


def main(path: Path) -> str:
    warnings.simplefilter("ignore")
    adata = ad.read_h5ad(path)
    adata = adata[(adata.obs["batch"] == "ctrl") & (adata.obs["donor_ctrl"] != "NA")].copy()
    donors = sorted(adata.obs["donor_ctrl"].unique())
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata)
    rng = np.random.default_rng(0)
    draws = [set(rng.choice(donors, len(donors) // 2, replace=False)) for _ in range(N_DRAWS)]
    rows = []
    for kind in TYPES:
        cells = adata[adata.obs["cell_type_authors"] == kind]
        genes = cells.var_names[np.asarray((cells.X > 0).mean(0)).ravel() >= EXPRESSED]
        found: dict[str, list[int]] = {"cells": [], "donors": []}
        for treated in draws:
            adata.obs["condition"] = np.where(adata.obs["donor_ctrl"].isin(treated), "treated", "control")
            sums = model.get_pseudobulk("donor_ctrl", groupby="cell_type_authors", min_cells=5)
            sums = sums[sums.obs["cell_type_authors"] == kind, genes].copy()
            found["donors"].append(by_donors(sums))
            found["cells"].append(by_cells(adata[cells.obs_names, genes].copy()))
        some = [sum(number > 0 for number in numbers) for numbers in found.values()]
        rows.append(
            f"| {kind} | {cells.n_obs} | {sums.n_obs} | {len(genes)} | {np.mean(found['cells']):.1f} ({max(found['cells'])}) "
            f"| {some[0]} of {N_DRAWS} | {np.mean(found['donors']):.1f} ({max(found['donors'])}) | {some[1]} of {N_DRAWS} |"
        )
        print(rows[-1], flush=True)
    head = [
        "| type | cells | donors | genes | found by cells, mean (most) | draws with any | found by donors, mean (most) | draws with any |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in ("scrcl", "scanpy", "pydeseq2"))
    return "\n".join([*head, *rows]) + f"\n\nAdjusted p-values below {ALPHA}, in {N_DRAWS} draws; {versions}.\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")
    text = main(parser.parse_args().data / "kang_ifnb.h5ad")
    (RESULTS / "conditions.md").write_text(text)
    print(text)
