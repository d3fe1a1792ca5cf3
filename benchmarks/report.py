"""Tables and a figure from the results of `quality.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from methods import LATENT_RESOLUTIONS, PARTS
from runs import machine
from scores import agreement, interval

mpl.use("agg")
import matplotlib.pyplot as plt

#: The sets in two halves: a default changes only if the mean rises on both.
HALVES = {
    "A": ("baron_mouse", "baron_human1", "worm_neuron", "zheng_pbmc500", "paul15", "zeisel"),
    "B": (
        "mouse_bladder_2100",
        "pbmc_10x_4k_top2000",
        "cellbench_celseq2_5cl",
        "human_kidney_top2000",
        "zheng_pooled400",
        "pdac_a_scrna",
        "li_celllines561",
    ),
}
HALF_OF = {name: half for half, names in HALVES.items() for name in names}

#: Ends the part of a report that the documentation shows first.
DETAILS = "<!-- details -->"


@dataclass
class Row:
    """The figures of one row of a table."""

    by_set: dict[str, str]
    scores: dict[str, str]


Results = dict[tuple[str, str, int], dict[str, Any]]
Clusters = dict[tuple[str, str, str], list[np.ndarray]]

#: Title and meaning of each regime.
REGIMES = {
    "K given": ("Number of clusters given", "The number of scored types is passed to the method."),
    "K unknown": (
        "Number of clusters estimated",
        "By the method. Leiden has the same resolution on all data sets; the best one is chosen by the labels.",
    ),
    "ceiling": ("Best resolution of each data set", "Chosen by the labels, which no user has."),
}
#: Scores of a method: column, mean over data sets, digits.
SCORES = {"NMI": ("NMI", 3), "ACC": ("ACC", 3), "F1": ("F1", 3), "clusters": ("clusters", 1)}


def collect(results: Results) -> tuple[pd.DataFrame, Clusters]:
    """One row for each run and way of finding clusters; and the clusters of all seeds by set, method and way."""
    rows: list[dict[str, Any]] = []
    clusters: Clusters = {}
    for (name, method, seed), result in results.items():
        for way, scores in result["scores"].items():
            regime, label = regime_and_label(method, way)
            cost = {"seconds": result["seconds"], "peak_gb": result["peak_gb"]}
            row = {
                "set": name,
                "method": method,
                "seed": seed,
                "regime": regime,
                "label": label,
                "way": way,
                **cost,
                **scores,
            }
            rows.append(row)
            clusters.setdefault((name, method, way), []).append(np.array(result["labels"][way]))
    return pd.DataFrame(rows), clusters


def regime_and_label(method: str, way: str) -> tuple[str, str]:
    if way.startswith("leiden"):
        return "leiden", f"{method} + Leiden at {way.split()[1]}"
    regime, _, how = way.partition(", ")
    if method == PARTS:
        return "K given", f"SCRCL, {how}"
    return {"given": "K given", "found": "K unknown"}[regime], f"{method} + {how}" if how else method


def add_fixed_resolutions(runs: pd.DataFrame) -> pd.DataFrame:
    """Leiden at a few fixed resolutions and at the best one as methods of K unknown, at the best for each set as ceiling."""
    leiden, parts = runs[runs["regime"] == "leiden"], [runs[runs["regime"] != "leiden"]]
    for method, group in leiden.groupby("method", sort=False):
        best = group.groupby(["label", "set"])["ARI"].mean().groupby("label").mean().idxmax()
        fixed = [f"{method} + Leiden at {resolution}" for resolution in LATENT_RESOLUTIONS]
        parts += [group[group["label"] == label].assign(regime="K unknown") for label in dict.fromkeys([*fixed, best])]
        by_set = group.groupby(["set", "label"])["ARI"].mean().groupby("set").idxmax()
        chosen = [pair in set(by_set) for pair in zip(group["set"], group["label"], strict=True)]
        parts.append(group[chosen].assign(regime="ceiling", label=f"{method} + Leiden, resolution by the labels"))
    return pd.concat(parts, ignore_index=True)


def add_external(runs: pd.DataFrame, path: Path | None) -> pd.DataFrame:
    if path is None:
        return runs
    external = pd.read_csv(path)
    external = external[external["set"].isin(runs["set"])]
    label = external["method"] + " (measured outside)"
    return pd.concat([runs, external.assign(label=label, seed=0).drop(columns=["source"])], ignore_index=True)


def rows_of(runs: pd.DataFrame, clusters: Clusters, ours: pd.Series, names: list[str]) -> dict[str, Row]:
    """For each label the mean and worst seed of the ARI by set, and means over sets of everything else."""
    rows: dict[str, Row] = {}
    for name, group in runs.groupby("label", sort=False):
        by_set = group.groupby("set")
        ari = by_set["ARI"].agg(["mean", "min"]).reindex(names)
        cells = [
            "–" if np.isnan(mean) else f"{mean:.3f}" if group["seed"].nunique() < 2 else f"{mean:.3f} ({worst:.3f})"
            for mean, worst in ari.to_numpy()
        ]
        complete = ari["mean"].notna().all()
        half_of = ari["mean"].groupby([HALF_OF.get(name) for name in names]).mean()
        means = by_set[["ARI", *SCORES, "seconds", "peak_gb"]].mean().mean()
        groups = group[["set", "method", "way"]].drop_duplicates().itertuples(index=False)
        times = (by_set["seconds"].mean() / ours).mean()
        scores = {
            "mean ARI": f"**{means['ARI']:.3f}**" + ("" if complete else f" of {ari['mean'].notna().sum()} sets"),
            **{f"half {half}": number(half_of[half], 3) for half in halves_of(names)},
            "worst seed": number(group.groupby("seed")["ARI"].mean().min(), 3),
            **{column: number(means[key], digits) for key, (column, digits) in SCORES.items()},
            "seeds agree": number(float(np.mean([agreement(clusters.get(tuple(key), [])) for key in groups])), 3),
            "s": number(means["seconds"], 1),
            "GB": number(means["peak_gb"], 2),
            "time of SCRCL": "–" if np.isnan(times) else f"× {times:.1f}",
        }
        rows[str(name)] = Row(dict(zip(names, cells, strict=True)), scores)
    return rows


def halves_of(names: list[str]) -> list[str]:
    return [half for half in HALVES if any(HALF_OF.get(name) == half for name in names)]


def summary(regimes: dict[str, dict[str, Row]], shown: list[list[str]]) -> list[str]:
    """Means of one label of each method, for the regimes that a user has."""
    scores = next(iter(next(iter(regimes.values())).values())).scores
    columns = [key for key in scores if key == "mean ARI" or key.startswith("half")]
    titles = [REGIMES[regime][0].lower() for regime in regimes]
    head = [text for title in titles for text in (title, *columns)]
    lines = ["Mean adjusted Rand index of each method: its own clusters, or the best of its rows below.", ""]
    lines += [row(head), row(["---"] * len(head))]
    for labels in shown:
        parts = zip(labels, regimes.values(), strict=True)
        lines.append(
            row([text for label, rows in parts for text in (label, *(rows[label].scores[c] for c in columns))])
        )
    return [*lines, "", DETAILS, ""]


def details(regime: str, rows: dict[str, Row], differences: list[str]) -> list[str]:
    """All labels of a regime, folded: means over sets, differences, and the ARI with data sets as rows."""
    title, meaning = REGIMES[regime]
    head = ["method", *next(iter(rows.values())).scores]
    means = [row(head), row(["---"] * len(head))]
    means += [row([label, *entry.scores.values()]) for label, entry in rows.items()]
    sets = [row(["data set", *rows]), row(["---"] * (len(rows) + 1))]
    sets += [row([name, *(entry.by_set[name] for entry in rows.values())]) for name in next(iter(rows.values())).by_set]
    lines = folded(f"{title}: all methods and scores", [meaning, "", *means, *differences])
    return [*lines, *folded(f"{title}: ARI by data set, mean (worst seed)", sets)]


def folded(title: str, lines: list[str]) -> list[str]:
    return [f":::{{dropdown}} {title}", "", *lines, "", ":::", ""]


def difference_table(runs: pd.DataFrame, ours: str) -> list[str]:
    """Differences of the ARI to our default, paired by set."""
    mean = runs.groupby(["label", "set"])["ARI"].mean().unstack()
    if ours not in mean.index or len(mean) < 2:
        return []
    head = ["SCRCL minus …", "mean", "95 % interval over sets", "sets won", "worst set"]
    lines = ["", row(head), row(["---"] * len(head))]
    for label in dict.fromkeys(runs["label"]):
        differences = (mean.loc[ours] - mean.loc[label]).dropna()
        if label != ours and len(differences):
            low, high = interval(differences.to_numpy())
            worst = f"{differences.min():+.3f} ({differences.idxmin()})"
            won = f"{(differences > 0).sum()} of {len(differences)}"
            lines.append(row([label, f"{differences.mean():+.3f}", f"{low:+.3f} to {high:+.3f}", won, worst]))
    return lines


def embedding_table(results: Results) -> list[str]:
    """The scores of scib-metrics, means over sets and seeds."""
    rows = [{"method": m, "set": n, **r["embedding"]} for (n, m, _), r in results.items() if r["embedding"]]
    if not rows:
        return []
    frame = pd.DataFrame(rows)
    means = frame.groupby(["method", "set"], sort=False).mean().groupby("method", sort=False).mean()
    lines = [row(["embedding", *means.columns]), row(["---"] * (len(means.columns) + 1))]
    lines += [row([name, *(f"{value:.3f}" for value in values)]) for name, *values in means.itertuples()]
    return folded("Embeddings: bio-conservation by scib-metrics, of the scores that need no batches", lines)


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def number(value: float, digits: int) -> str:
    return "–" if np.isnan(value) else f"{value:.{digits}f}"


def shown(runs: pd.DataFrame) -> dict[str, str]:
    """One label of each method: that of its default, or if it has none the best one."""
    by_set = runs.groupby(["method", "label", "set"], sort=False)["ARI"].mean()
    mean = by_set.groupby(["method", "label"], sort=False).mean()
    methods = map(str, mean.index.unique("method"))
    return {method: str(method if (method, method) in mean.index else mean[method].idxmax()) for method in methods}


def figure(means: dict[str, pd.DataFrame], path: Path) -> None:
    """Mean ARI over seeds with data sets as rows, one panel for each regime that a user has."""
    fig, axes = plt.subplots(1, len(means), figsize=(5.2 * len(means) + 1, 6), sharey=True, squeeze=False)
    for ax, (regime, table) in zip(axes[0], means.items(), strict=True):
        table = pd.concat([table, table.mean().to_frame("mean of its data sets").T])
        positions = np.arange(len(table))
        ax.hlines(positions, 0, 1, color="0.92", lw=1, zorder=0)
        for i, label in enumerate(table.columns):
            first = i == 0
            shape = {"marker": "D" if first else "o", "s": 46 if first else 26, "zorder": 3 if first else 2}
            ax.scatter(table[label], positions, color=f"C{i}", alpha=1 if first else 0.75, label=label, lw=0, **shape)
        ax.set_yticks(positions, table.index)
        ax.axhline(len(table) - 1.5, color="0.6", lw=0.8)
        ax.set(xlim=(0, 1.02), xlabel="adjusted Rand index", title=REGIMES[regime][0])
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
    axes[0][0].invert_yaxis()
    fig.tight_layout()
    fig.savefig(path, dpi=110)
    plt.close(fig)


def write_report(results: Results, path: Path, external: Path | None) -> None:
    runs, clusters = collect(results)
    runs = add_external(add_fixed_resolutions(runs), external)
    ours = runs[runs["method"] == "SCRCL"].groupby("set")["seconds"].mean()
    names = sorted(runs["set"].unique())
    parts = {regime: part for regime in REGIMES if len(part := runs[runs["regime"] == regime])}
    rows = {regime: rows_of(part, clusters, ours, names) for regime, part in parts.items()}
    chosen = {regime: shown(part) for regime, part in parts.items() if regime != "ceiling"}
    in_all = [method for method in next(iter(chosen.values())) if all(method in labels for labels in chosen.values())]
    lines = summary(
        {regime: rows[regime] for regime in chosen}, [[c[method] for c in chosen.values()] for method in in_all]
    )
    for regime, part in parts.items():
        lines += details(regime, rows[regime], difference_table(part, "SCRCL"))
    lines += embedding_table(results)
    seeds = sorted({seed for _, _, seed in results})
    lines += [f"Seeds {seeds[0]} to {seeds[-1]}. {machine(results=results.values())}.", ""]
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".md").write_text("\n".join(lines))
    by_set = {
        regime: parts[regime].groupby(["set", "label"])["ARI"].mean().unstack()[list(labels.values())]
        for regime, labels in chosen.items()
    }
    figure(by_set, path.with_suffix(".png"))
    print("\n".join(lines))
