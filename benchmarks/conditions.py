"""Conditions: tests with cells and with donors as replicates, and what remains of a condition where batches are corrected.

    python benchmarks/conditions.py            needs pydeseq2
    python benchmarks/conditions.py --protect

The control cells of `kang_ifnb.h5ad` are from eight donors, and nothing was done to any. In each of ten draws, four donors at random
are called "treated". Genes are tested within a published cell type by scanpy's Wilcoxon test of cells, and by PyDESeq2 on the
sums of `SCRCL.get_pseudobulk`, each with its defaults. Every gene found is a false positive.

With `--protect`, all cells of `kang_ifnb.h5ad` are divided among four simulated donors, of whose cells 20, 40, 60 and 80 % are
stimulated, and each donor loses a share of the counts of each gene at random. The mixing of donors and of conditions is that among
the 15 nearest cells of the same published type in the latent space: 0 for none, 1 for that of random cells.
"""

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scanpy as sc
import scipy.sparse as sp
import scvi
from runs import machine
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.graph.mutual_neighbors import mixing

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
TYPES = ("CD4 T cells", "CD14+ Monocytes", "B cells")
N_DRAWS, ALPHA = 10, 0.05
#: Genes that are tested are counted in at least this share of the cells.
EXPRESSED = 0.1
#: Shares of stimulated cells of the simulated donors, the spread of their effect, and the least cells of a scored type.
SHARES, EFFECT, SMALLEST = (0.2, 0.4, 0.6, 0.8), 1.0, 30
SETUPS: dict[str, dict[str, Any]] = {
    "no correction": {},
    "`batch_key='donor'`": {"batch_key": "donor"},
    "`batch_key='donor'`, `condition_key='stimulation'`": {"batch_key": "donor", "condition_key": "stimulation"},
    "`batch_key='stimulation'`": {"batch_key": "stimulation"},
    "`batch_key=['donor', 'stimulation']`": {"batch_key": ["donor", "stimulation"]},
}


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
    return (
        "\n".join([*head, *rows])
        + f"\n\nAdjusted p-values below {ALPHA}, in {N_DRAWS} draws. {machine(('scrcl', 'scanpy', 'pydeseq2'))}.\n"
    )


def with_donors(adata: ad.AnnData, seed: int) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    stimulated = (adata.obs["batch"] == "stim").to_numpy()
    chances = np.where(stimulated[:, None], SHARES, 1 - np.array(SHARES))
    donors = np.array([rng.choice(len(SHARES), p=row / row.sum()) for row in chances])
    kept = np.exp(EFFECT * (rng.normal(size=(len(SHARES), adata.n_vars)) - 1)).clip(0, 1)
    counts = sp.csr_matrix(adata.X).tocoo()
    values = rng.binomial(counts.data.astype(int), kept[donors[counts.row], counts.col])
    thinned = sp.csr_matrix((values.astype(np.float32), (counts.row, counts.col)), shape=counts.shape)
    thinned.eliminate_zeros()
    obs = adata.obs[["cell_type"]].assign(
        donor=[f"donor{number}" for number in donors], stimulation=adata.obs["batch"].astype(str)
    )
    found = ad.AnnData(thinned, obs=obs, var=adata.var[[]])
    return found[found.X.sum(1).A1 > 0].copy()


def protect(path: Path, seeds: int) -> str:
    warnings.simplefilter("ignore")
    measured = ad.read_h5ad(path)
    figures: dict[str, list[list[float]]] = {}
    for seed in range(seeds):
        adata = with_donors(measured, seed)
        none = ad.AnnData(measured.X, obs=adata.obs.reindex(measured.obs_names), var=measured.var[[]])
        runs: dict[str, tuple[ad.AnnData, dict[str, Any]]] = {
            "no effect of donors, no correction": (none[adata.obs_names].copy(), {})
        }
        runs |= {name: (adata.copy(), setup) for name, setup in SETUPS.items()}
        types = adata.obs["cell_type"].value_counts()
        scored = adata.obs["cell_type"].isin(types.index[types >= SMALLEST]).to_numpy()
        n_clusters = int((types >= SMALLEST).sum())
        for name, (cells, setup) in runs.items():
            scvi.settings.seed = seed
            scrcl.SCRCL.setup_anndata(cells, **setup)
            model = scrcl.SCRCL(cells)
            model.train(enable_progress_bar=False)
            latent, row = model.get_latent_representation(), []
            for key in ("donor", "stimulation"):
                codes = np.unique(cells.obs[key], return_inverse=True)[1]
                of_types = [
                    mixing(latent[rows], np.unique(codes[rows], return_inverse=True)[1], 15)
                    for kind in types.index[types >= SMALLEST]
                    if (rows := np.flatnonzero(cells.obs["cell_type"] == kind)).size
                ]
                row.append(float(np.concatenate(of_types).mean()))
            clusters = model.get_clusters(n_clusters=n_clusters, seed=seed)
            row.append(adjusted_rand_score(cells.obs["cell_type"][scored], clusters[scored]))
            figures.setdefault(name, []).append(row)
            print(name, row, flush=True)
    head = ["| setup | mixing of donors | mixing of conditions | ARI of types |", "| --- | --- | --- | --- |"]
    lines = [
        f"| {name} | " + " | ".join(f"{v:.2f}" for v in np.mean(all_, axis=0)) + " |" for name, all_ in figures.items()
    ]
    note = f"{measured.n_obs:,} cells, mean of {seeds} seeds. {machine(['scrcl'])}."
    return "\n".join([*head, *lines]) + f"\n\n{note}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--protect", action="store_true", help="correct donors, and keep the condition")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    path = arguments.data / "kang_ifnb.h5ad"
    text = protect(path, arguments.seeds) if arguments.protect else main(path)
    (RESULTS / ("protected.md" if arguments.protect else "conditions.md")).write_text(text)
    print(text)
