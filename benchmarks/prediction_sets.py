"""Prediction sets: whether they contain the true type as often as they should, and how large they are.

    python benchmarks/prediction_sets.py
    python benchmarks/prediction_sets.py --parts same --sets paul15 --seeds 1
    python benchmarks/prediction_sets.py --report             only the table, from previous runs

- same: the data sets of `quality.py`, with 20 labelled cells of each type, or half of its cells if these are fewer, drawn at random
  by seed. Sets at `alpha=0.1` of all other cells with a type: the share that contains the true type, over cells, and over types with
  the same weight; the mean size, and the share of sets of one type and of none.
- transfer: the data sets of `batches.py`. The largest batch is labelled, 20 cells of each type; the same of the cells of the other
  batches, of types that it has.

Sets depend on features and labels, not on training, so the models are trained for one epoch. Each run is a process of one thread, and
its result a file in `benchmarks/results/prediction_sets`.
"""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from batches import HALVES as BATCH_HALVES
from labels import UNLABELED, draw
from quality import RESULTS, ROOT, SMALLEST_CLASS, UNSCORED
from report import HALVES
from runs import machine, run_to_file

ALPHA, EACH = 0.1, 20
SETS = {
    "same": [name for names in HALVES.values() for name in names],
    "transfer": [name for names in BATCH_HALVES.values() for name in names],
}
HALF_OF = {name: half for halves in (HALVES, BATCH_HALVES) for half, names in halves.items() for name in names}
FIGURES = ("coverage", "coverage of types", "size", "one type", "empty")
PACKAGES = ("scrcl", "scvi-tools", "torch", "scikit-learn", "numpy")


def work(part: str, name: str, seed: int) -> dict[str, Any]:
    """One run in this process."""
    import scvi

    import scrcl

    warnings.simplefilter("ignore")
    folder = Path(os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")
    adata = ad.read_h5ad(folder / f"{name}.h5ad")
    truth = adata.obs["cell_type"].to_numpy(str)
    kinds, sizes = np.unique(truth, return_counts=True)
    scored = np.isin(truth, kinds[(sizes >= SMALLEST_CLASS) & ~np.isin(kinds, UNSCORED)])
    labelled, setup = scored, {}
    if part == "transfer":
        batches, n_cells = np.unique(adata.obs["batch"].to_numpy(str), return_counts=True)
        labelled = scored & (adata.obs["batch"].to_numpy(str) == batches[n_cells.argmax()])
        setup = {"batch_key": "batch"}
    labels = draw(truth, labelled, EACH, seed)
    obs = adata.obs[["batch"]].copy() if part == "transfer" else pd.DataFrame(index=adata.obs_names)
    bare = ad.AnnData(adata.X, obs=obs.assign(annotation=labels), var=adata.var[[]])
    scvi.settings.seed = seed
    scrcl.SCRCL.setup_anndata(bare, labels_key="annotation", unlabeled_category=UNLABELED, **setup)
    model = scrcl.SCRCL(bare)
    model.train(1, enable_progress_bar=False)
    sets = model.predict(return_sets=True, alpha=ALPHA)
    known = np.isin(truth, list(sets.columns))
    rest = scored & known & (labels == UNLABELED) & (~labelled if part == "transfer" else True)
    size = sets.sum(axis=1).to_numpy()
    covered = sets.to_numpy()[np.arange(len(truth)), np.maximum(sets.columns.get_indexer(truth), 0)]
    return {
        "coverage": float(covered[rest].mean()),
        "coverage of types": float(pd.Series(covered[rest]).groupby(truth[rest]).mean().mean()),
        "size": float(size[rest].mean()),
        "one type": float((size[rest] == 1).mean()),
        "empty": float((size[rest] == 0).mean()),
    }


def result_file(part: str, name: str, seed: int) -> Path:
    return RESULTS / "prediction_sets" / part / name / f"{seed}.json"


def report(parts: list[str], names: list[str] | None, seeds: int) -> str:
    lines = [f"Sets at alpha {ALPHA}: the share that contains the true type should be {1 - ALPHA:.2f}.", ""]
    n_runs = 0
    for part in parts:
        files = [(n, result_file(part, n, s)) for n in SETS[part] if n in (names or SETS[part]) for s in range(seeds)]
        table = pd.DataFrame([{"set": name, **json.loads(file.read_text())} for name, file in files if file.exists()])
        if table.empty:
            continue
        n_runs += len(table)
        of_sets = table.groupby("set", sort=False)[list(FIGURES)].mean()
        halves = pd.Series({name: HALF_OF[name] for name in of_sets.index})
        rows = {"mean": of_sets.mean(), **{f"half {half}": of_sets[halves == half].mean() for half in "AB"}}
        rows |= {str(name): values for name, values in of_sets.iterrows()}
        title = "Cells of the same data" if part == "same" else "Cells of batches without a label"
        lines += [f"### {title}", "", f"| data set | {' | '.join(FIGURES)} |", "|---" * (len(FIGURES) + 1) + "|"]
        lines += [f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |" for name, values in rows.items()]
        lines.append("")
    lines.append(f"{n_runs} runs. {machine(PACKAGES)}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--sets", nargs="+", help="names of data sets (default: all of the part)")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work[0], arguments.work[1], int(arguments.work[2]))))
        return
    for seed in range(arguments.seeds):
        for part in arguments.parts:
            for name in [name for name in SETS[part] if name in (arguments.sets or SETS[part])]:
                file = result_file(part, name, seed)
                if not arguments.report and not file.exists():
                    print(f"{part}: {name}, draw {seed}", file=sys.stderr, flush=True)
                    run_to_file(file, [__file__, "--work", part, name, str(seed)])
    text = report(arguments.parts, arguments.sets, arguments.seeds)
    (RESULTS / "prediction_sets.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
