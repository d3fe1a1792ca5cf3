"""Borders of domains in simulated regions and gradients, and in real slices beside the number of domains that is found.

    python benchmarks/borders.py

Writes `benchmarks/results/borders.md`. Labels are used for scores, and for the borders of annotated domains only.
"""

import argparse
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from methods import trained
from quality import RESULTS, ROOT
from report import row
from sklearn.metrics import adjusted_rand_score
from spatial import HALVES

#: Seeds, cells, genes and zones of a simulated tissue.
SEEDS, N_CELLS, N_GENES, N_ZONES = range(5), 800, 60, 3
IN_SPACE = {"spatial_key": "spatial"}
#: How often the genes of a zone, or of a cell type, are found there.
FOLD_CHANGES = (1.5, 2.0)


def simulate(kind: str, mixed: bool, fold_change: float, seed: int) -> ad.AnnData:
    """Three zones from left to right, which differ by a border, change gradually, or do not differ.

    The expression of the cells changes, or, if they are mixed, the shares of three cell types.
    """
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 30, size=(N_CELLS, 2))
    across = points[:, 0] / 30
    place = (across * N_ZONES).astype(int) if kind == "regions" else across * (N_ZONES - 1)
    shares = np.maximum(1 - np.abs(place[:, None] - np.arange(N_ZONES)), 0)
    if kind == "no zones":
        shares = np.full((N_CELLS, N_ZONES), 1 / N_ZONES)
    profiles = np.ones((N_ZONES, N_GENES))
    for number, genes in enumerate(np.array_split(np.arange(N_GENES), N_ZONES)):
        profiles[number, genes] = fold_change
    if mixed:
        shares = 0.15 + 0.55 * shares
        types = (rng.random((N_CELLS, 1)) > (shares / shares.sum(1, keepdims=True)).cumsum(1)[:, :-1]).sum(1)
        shares, profiles = np.eye(N_ZONES)[types], profiles**2
    counts = rng.poisson(np.random.default_rng(100).gamma(2.0, 0.5, N_GENES) * (shares @ profiles))
    counts[:, 0] = np.maximum(counts[:, 0], 1)
    return ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), obsm={"spatial": points})


def describe(sharpness: Iterable[float], verdicts: Iterable[str]) -> list[str]:
    """Number of pairs that are compared, the deciles of their sharpness, and the share of each verdict."""
    values, found = np.array(list(sharpness)), np.array(list(verdicts))
    differ = values[np.isin(found, ["border", "continuum"])]
    low, middle, high = np.quantile(differ, [0.1, 0.5, 0.9]) if len(differ) else (np.nan,) * 3
    shares = (
        [f"{(found == verdict).mean():.0%}" for verdict in ("border", "continuum", "none")] if len(found) else ["–"] * 3
    )
    return [str(len(found)), f"{middle:.2f} ({low:.2f} to {high:.2f})" if len(differ) else "–", *shares]


def compared(borders: pd.DataFrame) -> pd.DataFrame:
    return borders[borders["verdict"] != "unclear"]


def run_simulated() -> list[str]:
    lines = [
        row(
            [
                "simulated",
                "pairs",
                "sharpness: median (10 % to 90 %)",
                "border",
                "continuum",
                "none",
                "domains by borders",
            ]
        ),
        row(["---"] * 7),
    ]
    for kind in ("regions", "gradient", "no zones"):
        for mixed in (False, True):
            tables, numbers = [], []
            for fold_change in FOLD_CHANGES:
                for seed in SEEDS:
                    tissue = simulate(kind, mixed, fold_change, seed)
                    model = trained(tissue, seed, {"max_epochs": 10}, IN_SPACE)
                    tables.append(compared(model.get_domain_borders(n_clusters=N_ZONES)))
                    numbers.append(model.get_cluster_tree(evidence=False).n_clusters)
            table = pd.concat(tables)
            counted = ", ".join(f"{n} in {numbers.count(n)}" for n in sorted(set(numbers)))
            name = f"{kind}, {'mixtures of types' if mixed else 'cells differ'}"
            lines.append(row([name, *describe(table["sharpness"], table["verdict"]), counted]))
    return lines


def run_slices(data: Path) -> list[str]:
    from scrcl.cluster.borders import domain_borders

    lines = [
        row(
            [
                "slice",
                "domains",
                "pairs",
                "sharpness: median (10 % to 90 %)",
                "border",
                "continuum",
                "none",
                "number",
                "ARI",
            ]
        ),
        row(["---"] * 9),
    ]
    for name in [name for half in HALVES.values() for name in half]:
        adata = ad.read_h5ad(data / f"{name}.h5ad")
        truth = adata.obs["domain"].astype(object).fillna("").to_numpy(str)
        truth[truth == "undetermined"] = ""
        bare = ad.AnnData(adata.X, var=adata.var[[]], obsm={"spatial": np.asarray(adata.obsm["spatial"], dtype=float)})
        model = trained(bare, 0, None, IN_SPACE)
        reference, scored = model._reference, truth != ""
        _, codes = np.unique(truth, return_inverse=True)
        annotated = [
            border
            for a, b, _, border in domain_borders(reference.spatial.slices, reference.unsmoothed(None), codes)
            if border.verdict != "unclear" and (scored[codes == a].all() and scored[codes == b].all())
        ]
        figures = describe([border.sharpness for border in annotated], [border.verdict for border in annotated])
        lines.append(row([name, "annotated", *figures, str(len(np.unique(truth[scored]))), "–"]))
        clusters, tree = model.get_clusters(), model.get_cluster_tree(evidence=False)
        found = compared(model.get_domain_borders())
        for title, labels, figures in (
            ("found", clusters, describe(found["sharpness"], found["verdict"])),
            ("by borders", tree.cut(), ["–"] * 5),
        ):
            score = adjusted_rand_score(truth[scored], labels.to_numpy(str)[scored])
            lines.append(row([name, title, *figures, str(labels.nunique()), f"{score:.2f}"]))
        print("\n".join(lines[-3:]), flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = [*run_simulated(), "", *run_slices(arguments.data)]
    (RESULTS / "borders.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
