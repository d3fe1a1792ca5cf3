"""Cell types from few labels: SCRCL with labels and other methods.

    python benchmarks/labels.py                                    all parts, all data sets, three seeds
    python benchmarks/labels.py --parts few --sets paul15 --methods "SCRCL with labels" --seeds 1
    python benchmarks/labels.py --report                           only the tables, from earlier runs

The data sets are those of `quality.py` and `batches.py`. Labelled cells are drawn at random, by seed, the same for all
methods; at least half of the cells of a type are left for scoring. Each run is a process of one thread, and its result a file
in `benchmarks/results/labels`; a run is repeated if the data or, for SCRCL, its source have changed.

- few: 1, 5 or 20 labelled cells of each type, or four fifths of all cells. Accuracy and macro-F1 on the others. For SCRCL, the
  expected calibration error, and the share of cells that are predicted to have a new type, although all types are labelled;
  these count as wrong.
- new: 20 labelled cells of each type but one, each type with at least 50 cells in turn (at most six, the largest). The share of
  its cells that are predicted to be new, and that of the unlabelled cells of the other types.
- wrong: all cells labelled, a tenth or a fifth of them wrongly. How well the label report ranks the wrong ones (AUROC), and the
  accuracy of the predictions of all cells, beside that with correct labels; the calibration error of the held-out predictions.
- permuted: all cells labelled, the labels permuted among them, so that they are meaningless. The share of labels that the
  label report predicts correctly, and mean and standard deviation of this share by chance, with the same number of
  predictions of each type.
- transfer: the largest batch is labelled; accuracy and macro-F1 on the cells of the others, of types that it has.

For comparison, wrong and permuted labels are also evaluated in the space that was trained with them ("trained space").
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from batches import HALVES as BATCH_HALVES
from batches import components
from methods import standard_genes
from quality import PACKAGES, RESULTS, ROOT, SMALLEST_CLASS, UNSCORED, digest
from report import HALVES, folded, row
from runs import machine, measured_on, read_if_current, run_to_file
from scores import calibration_error
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

#: Labelled cells of each type; 0 stands for four fifths of all cells.
EACH = (1, 5, 20, 0)
NEIGHBORS = 15
#: Shares of wrong labels.
WRONG = (0.1, 0.2)
UNLABELED = "Unknown"
OURS = "SCRCL with labels"
#: The parts, with their sets, and what is reported of each.
SETS = {
    "few": [name for names in HALVES.values() for name in names],
    "new": [name for names in HALVES.values() for name in names],
    "wrong": [name for names in HALVES.values() for name in names],
    "permuted": [name for names in HALVES.values() for name in names],
    "transfer": [name for names in BATCH_HALVES.values() for name in names],
}
FIGURES = {
    "few": ["accuracy", "F1", "calibration error", "called new"],
    "new": ["found", "called new"],
    "wrong": ["AUROC", "AUROC, trained space", "accuracy", "accuracy, correct labels", "calibration error, held out"],
    "permuted": ["held-out accuracy", "chance", "deviation", "trained space"],
    "transfer": ["accuracy", "F1", "unassigned"],
}

Scores = list[dict[str, Any]]
#: Gives a type to each cell from counts, labels (or none) and a seed, maybe with probabilities of the types.
Predictor = Callable[[ad.AnnData, np.ndarray, int], tuple[np.ndarray, pd.DataFrame | None]]


def space_of(method: str, adata: ad.AnnData, seed: int) -> np.ndarray:
    """The space, found without labels, in which others are classified."""
    bare = ad.AnnData(adata.X, obs=adata.obs[["batch"]] if "batch" in adata.obs else None, var=adata.var[[]])
    if method.startswith("SCRCL"):
        return scrcl_model(bare, None, seed).get_latent_representation()
    space = components(bare, seed)
    if "Harmony" in method and "batch" in bare.obs:
        import harmonypy

        space = np.asarray(harmonypy.run_harmony(space, bare.obs, "batch", random_state=seed, verbose=False).Z_corr)
        space = space if len(space) == adata.n_obs else space.T
    return space


def classify(method: str, space: np.ndarray, labels: np.ndarray) -> np.ndarray:
    labelled = labels != UNLABELED
    if len(np.unique(labels[labelled])) == 1:
        return np.full(len(labels), labels[labelled][0])
    model: Any = LogisticRegression(class_weight="balanced", max_iter=1000)
    if "neighbours" in method:
        model = KNeighborsClassifier(min(NEIGHBORS, int(labelled.sum())))
    return model.fit(space[labelled], labels[labelled]).predict(space)


def scrcl_model(adata: ad.AnnData, labels: np.ndarray | None, seed: int) -> Any:
    import scvi

    import scrcl

    scvi.settings.seed = seed
    setup: dict[str, Any] = {"batch_key": "batch"} if "batch" in adata.obs else {}
    if labels is not None:
        adata.obs["annotation"] = labels
        setup |= {"labels_key": "annotation", "unlabeled_category": UNLABELED}
    scrcl.SCRCL.setup_anndata(adata, **setup)
    model = scrcl.SCRCL(adata)
    model.train(enable_progress_bar=False)
    return model


def predict_scrcl(adata: ad.AnnData, labels: np.ndarray, seed: int) -> tuple[np.ndarray, pd.DataFrame | None]:
    model = scrcl_model(adata, labels, seed)
    return model.predict().to_numpy(str), model.predict(soft=True)


def predict_scanvi(adata: ad.AnnData, labels: np.ndarray, seed: int) -> tuple[np.ndarray, pd.DataFrame | None]:
    """Default training: scVI, and scANVI from it."""
    import scvi

    scvi.settings.seed = seed
    adata.obs["annotation"] = labels
    genes = standard_genes(adata.copy())
    scvi.model.SCVI.setup_anndata(genes, layer="counts", batch_key="batch" if "batch" in genes.obs else None)
    model = scvi.model.SCVI(genes)
    model.train(enable_progress_bar=False)
    scanvi = scvi.model.SCANVI.from_scvi_model(model, UNLABELED, labels_key="annotation")
    scanvi.train(enable_progress_bar=False)
    return np.asarray(scanvi.predict()).astype(str), scanvi.predict(soft=True)


#: Methods that classify a space that was found without labels, and those that learn from labels.
SPACES = ("PCA, logistic regression", "PCA + Harmony, 15 neighbours", "SCRCL without labels, logistic regression")
LEARNERS: dict[str, Predictor] = {"scANVI": predict_scanvi, OURS: predict_scrcl}
METHODS = (*SPACES, *LEARNERS)


def draw(truth: np.ndarray, scored: np.ndarray, n_labelled: int, seed: int, without: str = "") -> np.ndarray:
    """Labels of some of the scored cells of each type; of four fifths of them if ``each`` is 0."""
    rng = np.random.default_rng([seed, n_labelled])
    labels = np.full(len(truth), UNLABELED, dtype=object)
    for name in np.unique(truth[scored]):
        rows = rng.permutation(np.flatnonzero(scored & (truth == name)))
        if name != without:
            labels[rows[: min(n_labelled, len(rows) // 2) if n_labelled else 4 * len(rows) // 5]] = name
    return labels


def scores(truth: np.ndarray, predicted: np.ndarray, rest: np.ndarray) -> dict[str, float]:
    names = list(np.unique(truth[rest]))
    return {
        "accuracy": float((predicted == truth)[rest].mean()),
        "F1": float(f1_score(truth[rest], predicted[rest], labels=names, average="macro")),
    }


def is_new(predicted: np.ndarray) -> np.ndarray:
    return np.char.startswith(predicted.astype(str), "new ")


def few(adata: ad.AnnData, truth: np.ndarray, scored: np.ndarray, method: str, seed: int) -> Scores:

    space = space_of(method, adata, seed) if method in SPACES else None
    rows: Scores = []
    for n_labelled in EACH:
        start, labels = time.perf_counter(), draw(truth, scored, n_labelled, seed)
        rest, soft = scored & (labels == UNLABELED), None
        if space is not None:
            predicted = classify(method, space, labels)
        else:
            predicted, soft = LEARNERS[method](adata.copy(), labels, seed)
        figures = {"each": n_labelled, **scores(truth, predicted, rest), "seconds": time.perf_counter() - start}
        if soft is not None:
            codes = soft.columns.get_indexer(pd.Index(truth[rest]))
            figures["calibration error"] = calibration_error(soft.to_numpy()[rest], codes)
            figures["called new"] = float(is_new(predicted[rest]).mean())
        rows.append(figures)
    return rows


def new(adata: ad.AnnData, truth: np.ndarray, scored: np.ndarray, method: str, seed: int) -> Scores:
    kinds, sizes = np.unique(truth[scored], return_counts=True)
    rows: Scores = []
    for held in kinds[np.argsort(-sizes)][: min(6, int((sizes >= 50).sum()))]:
        labels = draw(truth, scored, 20, seed, without=held)
        predicted, _ = LEARNERS[method](adata.copy(), labels, seed)
        of_type, rest = truth == held, scored & (labels == UNLABELED) & (truth != held)
        rows.append(
            {
                "held": held,
                "found": float(is_new(predicted)[of_type].mean()),
                "called new": float(is_new(predicted)[rest].mean()),
            }
        )
    return rows


def held_out_in_trained_space(model: Any) -> np.ndarray:
    """Held-out probabilities as they would be if labels were judged in the space that was trained with them."""
    from scrcl.labels.annotation import annotate

    reference = model._reference
    points = np.concatenate([model.get_latent_representation(), reference.smoothed()], 1)
    return annotate(points, points, reference.labels).held_out


def wrong(adata: ad.AnnData, truth: np.ndarray, scored: np.ndarray, method: str, seed: int) -> Scores:

    kinds, correct = np.unique(truth[scored]), np.where(scored, truth, UNLABELED).astype(object)
    with_correct = float((scrcl_model(adata.copy(), correct, seed).predict().to_numpy(str) == truth)[scored].mean())
    rows: Scores = []
    for share in WRONG:
        rng = np.random.default_rng(seed)
        labels, flipped = correct.copy(), scored & (rng.random(len(truth)) < share)
        for cell in np.flatnonzero(flipped):
            labels[cell] = rng.choice(kinds[kinds != truth[cell]])
        model = scrcl_model(adata.copy(), labels, seed)
        annotation, trained = model._results.annotation, held_out_in_trained_space(model)
        codes = annotation.labels.codes
        doubt = 1 - model.get_label_report(n_clusters=2).cells["probability"].reindex(adata.obs_names)[scored]
        rows.append(
            {
                "cells": f"with {share:.0%} wrong labels",
                "AUROC": float(roc_auc_score(flipped[scored], doubt.fillna(0))),
                "AUROC, trained space": float(roc_auc_score(flipped[scored], 1 - trained[scored, codes[scored]])),
                "accuracy": float((model.predict().to_numpy(str) == truth)[scored].mean()),
                "accuracy, correct labels": with_correct,
                "calibration error, held out": calibration_error(annotation.held_out[scored], codes[scored]),
            }
        )
    return rows


def permuted(adata: ad.AnnData, truth: np.ndarray, scored: np.ndarray, method: str, seed: int) -> Scores:
    labels = np.where(scored, truth, UNLABELED).astype(object)
    labels[scored] = np.random.default_rng(seed).permutation(labels[scored])
    model = scrcl_model(adata.copy(), labels, seed)
    cells = model.get_label_report(n_clusters=2).cells
    in_trained_space = held_out_in_trained_space(model)[scored].argmax(1)
    shares, predicted_shares = (cells[name].value_counts(normalize=True) for name in ("label", "predicted"))
    chance = float((shares * predicted_shares.reindex(shares.index, fill_value=0)).sum())
    return [
        {
            "held-out accuracy": float((cells["label"] == cells["predicted"]).mean()),
            "chance": chance,
            "trained space": float((in_trained_space == model._results.annotation.labels.codes[scored]).mean()),
            "deviation": float(np.sqrt(chance * (1 - chance) / len(cells))),
        }
    ]


def transfer(adata: ad.AnnData, truth: np.ndarray, scored: np.ndarray, method: str, seed: int) -> Scores:
    batches = adata.obs["batch"].to_numpy(dtype=str)
    names, sizes = np.unique(batches, return_counts=True)
    source = batches == names[np.argmax(sizes)]
    target = scored & ~source & np.isin(truth, truth[source & scored])
    labels = np.where(source & scored, truth, UNLABELED).astype(object)
    if method in SPACES:
        return [scores(truth, classify(method, space_of(method, adata, seed), labels), target)]
    predicted, _ = LEARNERS[method](adata.copy(), labels, seed)
    rows: Scores = [{"cells": "in the model", **scores(truth, predicted, target)}]
    if method == OURS:
        model = scrcl_model(adata[source].copy(), labels[source], seed)
        query = adata[~source].copy()
        for alpha in (0.0, 0.01):
            carried = np.full(len(truth), "", dtype=object)
            carried[~source] = model.predict(query, alpha=alpha).to_numpy(str)
            unassigned = float((carried[target] == "unassigned").mean())
            cells = f"never seen, alpha {alpha:g}"
            rows.append({"cells": cells, **scores(truth, carried, target), "unassigned": unassigned})
    return rows


PARTS = {"few": few, "new": new, "wrong": wrong, "permuted": permuted, "transfer": transfer}
#: Methods of each part: new types and wrong labels are told by the model alone.
OF_PART = {"few": METHODS, "new": (OURS,), "wrong": (OURS,), "permuted": (OURS,), "transfer": METHODS}


def inputs(path: Path, method: str) -> dict[str, str]:
    """What a result depends on."""
    ours = digest(*sorted((ROOT / "src").rglob("*.py"))) if method.startswith("SCRCL") else ""
    return {"data": digest(path), "source": ours}


def work(part: str, path: Path, method: str, seed: int) -> dict[str, Any]:
    """One run in this process."""
    warnings.simplefilter("ignore")
    adata = ad.read_h5ad(path)
    truth = adata.obs["cell_type"].to_numpy(dtype=str)
    kinds, sizes = np.unique(truth, return_counts=True)
    scored = np.isin(truth, kinds[(sizes >= SMALLEST_CLASS) & ~np.isin(kinds, UNSCORED)])
    obs = pd.DataFrame(index=adata.obs_names)
    if part == "transfer":
        obs["batch"] = adata.obs["batch"].to_numpy(dtype=str)
    bare = ad.AnnData(adata.X, obs=obs, var=adata.var[[]])
    return {
        **inputs(path, method),
        "figures": PARTS[part](bare, truth, scored, method, seed),
        **measured_on(PACKAGES),
    }


Run = tuple[str, Path, str, int]


def result_file(part: str, path: Path, method: str, seed: int) -> Path:
    folder = "".join(letter if letter.isalnum() else "-" for letter in method)
    return RESULTS / "labels" / part / path.stem / folder / f"{seed}.json"


def read_result(run: Run) -> dict[str, Any] | None:
    return read_if_current(result_file(*run), inputs(run[1], run[2]))


def tables(part: str, frame: pd.DataFrame) -> list[str]:
    """Means over the sets, and over those of each half, of each method; and the first figure by set."""
    halves = BATCH_HALVES if part == "transfer" else HALVES
    figures = [name for name in FIGURES[part] if name in frame]
    frame = frame.assign(method=frame["method"] + frame.get("cells", pd.Series("", frame.index)).fillna("").map(_of))
    titles = {
        "few": "Few labels",
        "new": "A type without a label",
        "wrong": "Wrong labels",
        "permuted": "Permuted labels",
        "transfer": "Transfer",
    }
    lines = [f"### {titles[part]}", "", "Mean over the sets (half A / half B).", ""]
    for n_labelled in sorted(frame["each"].unique(), key=EACH.index) if part == "few" else [None]:
        part_frame = frame if n_labelled is None else frame[frame["each"] == n_labelled]
        if n_labelled is not None:
            few_cells = f"{n_labelled:g} labelled {'cell' if n_labelled == 1 else 'cells'} of each type"
            lines += [f"{few_cells if n_labelled else 'Four fifths of all cells labelled'}:", ""]
        by_set = part_frame.groupby(["method", "set"], sort=False)[figures].mean()
        methods = list(dict.fromkeys(part_frame["method"]))
        lines += [row(["method", "sets", *figures]), row(["---"] * (len(figures) + 2))]
        for method in methods:
            of_method = by_set.loc[method]
            cells = [_mean_and_halves(of_method[figure], halves) for figure in figures]
            lines.append(row([method, str(len(of_method)), *cells]))
        values = by_set[figures[0]].unstack("method")[methods]
        sets = [row(["data set", *methods]), row(["---"] * (len(methods) + 1))]
        for name in dict.fromkeys(part_frame["set"]):
            sets.append(row([name, *("" if np.isnan(value) else f"{value:.3f}" for value in values.loc[name])]))
        lines += ["", *folded(f"{figures[0]} by data set", sets)]
    return lines


def _mean_and_halves(values: pd.Series, halves: dict[str, Any]) -> str:
    if values.isna().all():
        return ""
    parts = [values.reindex(values.index.intersection(pd.Index(members))).mean() for members in halves.values()]
    return f"{values.mean():.3f} ({' / '.join(f'{part:.3f}' for part in parts)})"


def _of(cells: str) -> str:
    return f", cells {cells}" if cells else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SCRCL_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sets", nargs="+", help="names of sets (default: all of the part)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin no further run after that")
    parser.add_argument("--output", type=Path, default=RESULTS / "labels.md", help="file of the tables")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        part, path, method, seed = arguments.work
        print(json.dumps(work(part, Path(path), method, int(seed))))
        return
    runs: list[Run] = [
        (part, arguments.data / f"{name}.h5ad", method, seed)
        for seed in range(arguments.seeds)
        for part in arguments.parts
        for name in arguments.sets or SETS[part]
        for method in arguments.methods
        if name in SETS[part] and method in OF_PART[part]
    ]
    missing = sorted({str(run[1]) for run in runs if not run[1].exists()})
    if missing:
        sys.exit(f"There is no {', '.join(missing)}. Pass --data.")
    start = time.monotonic()
    for number, run in enumerate(runs, 1):
        if arguments.report or read_result(run) is not None:
            continue
        if time.monotonic() - start > 60 * arguments.minutes:
            sys.exit(3)
        part, path, method, seed = run
        print(f"[{number}/{len(runs)}] {part}: {method} on {path.stem}, draw {seed}", file=sys.stderr, flush=True)
        run_to_file(result_file(*run), [__file__, "--work", part, str(path), method, str(seed)])
    results = {run: result for run in runs if (result := read_result(run))}
    if not results:
        sys.exit("Nothing was run yet with these data and this source.")
    lines: list[str] = []
    for part in arguments.parts:
        rows = [
            {"set": run[1].stem, "method": run[2], "seed": run[3], **figures}
            for run, result in results.items()
            if run[0] == part
            for figures in result["figures"]
        ]
        if rows:
            lines += tables(part, pd.DataFrame(rows))
    lines += [f"{arguments.seeds} draws. {machine(results=results.values())}.", ""]
    arguments.output.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
