"""Several slices in one model, with and without correction of batches, and a slice that the model has never seen.

    python benchmarks/spatial_joint.py

Writes `benchmarks/results/spatial_joint.md`. Labels are used for scores and for the number of domains, and for nothing else.
"""

import argparse
import os
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
from methods import trained
from quality import RESULTS, ROOT, SMALLEST_CLASS
from report import row
from sklearn.metrics import adjusted_rand_score

#: Sections of one tissue; the breast tumours are of several patients.
GROUPS = {
    "prefrontal cortex (STARmap)": ["starmap_mpfc_BZ5", "starmap_mpfc_BZ9"],
    "breast tumours (ST)": ["her2st_A1", "her2st_B1", "her2st_G2", "her2st_H1"],
}
IN_SPACE = {"spatial_key": "spatial", "sample_key": "slice"}


def read(data: Path, name: str) -> tuple[ad.AnnData, np.ndarray]:
    """Counts and positions of a slice, and its domains, "" where a cell is not scored."""
    adata = ad.read_h5ad(data / f"{name}.h5ad")
    truth = adata.obs["domain"].astype(object).fillna("").to_numpy(str)
    truth[truth == "undetermined"] = ""
    bare = ad.AnnData(adata.X, var=adata.var[[]], obsm={"spatial": np.asarray(adata.obsm["spatial"], dtype=float)})
    bare.obs_names = [f"{name}-{number}" for number in range(adata.n_obs)]
    bare.obs["slice"] = name
    return bare, truth


def agreement(truth: np.ndarray, labels: np.ndarray) -> float:
    return float(adjusted_rand_score(truth[truth != ""], labels[truth != ""]))


def run_together(slices: list[ad.AnnData], truths: list[np.ndarray], n_clusters: int, correct: bool) -> list[str]:
    both, truth = ad.concat(slices), np.concatenate(truths)
    names = both.obs["slice"].to_numpy(str)
    model = trained(both, 0, None, IN_SPACE | ({"batch_key": "slice"} if correct else {}))
    found = model.get_clusters(n_clusters=n_clusters).to_numpy(str)
    each = [agreement(truth[names == name], found[names == name]) for name in dict.fromkeys(names)]
    scores = [agreement(truth, found), float(np.mean(each)), float(adjusted_rand_score(names, found))]
    return [f"{score:.2f}" for score in scores]


def run_unseen(slices: list[ad.AnnData], truths: list[np.ndarray], n_clusters: int) -> list[str]:
    """Mean over the slices: trained on the others, its cells join their domains."""
    scores = []
    for number, (new, truth) in enumerate(zip(slices, truths, strict=True)):
        others = [place for place in range(len(slices)) if place != number]
        reference = ad.concat([slices[place] for place in others])
        setup = IN_SPACE | ({"batch_key": "slice"} if len(others) > 1 else {})
        model = trained(reference, 0, None, setup)
        placed = model.get_clusters(new, n_clusters=n_clusters).to_numpy(str)
        known = model.get_clusters(n_clusters=n_clusters).to_numpy(str)
        joint = agreement(
            np.concatenate([*[truths[place] for place in others], truth]), np.concatenate([known, placed])
        )
        scores.append([joint, agreement(truth, placed)])
    return [*(f"{score:.2f}" for score in np.mean(scores, axis=0)), "–"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = [row(["slices", "way", "ARI of all cells", "mean ARI of a slice", "ARI with slices"]), row(["---"] * 5)]
    for title, names in GROUPS.items():
        slices, truths = map(list, zip(*(read(arguments.data, name) for name in names), strict=True))
        domains, sizes = np.unique(np.concatenate(truths), return_counts=True)
        n_clusters = int(((sizes >= SMALLEST_CLASS) & (domains != "")).sum())
        ways = {
            "together": run_together(slices, truths, n_clusters, correct=False),
            "together, `batch_key`": run_together(slices, truths, n_clusters, correct=True),
            "each never seen": run_unseen(slices, truths, n_clusters),
        }
        lines += [row([title, way, *scores]) for way, scores in ways.items()]
    (RESULTS / "spatial_joint.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
