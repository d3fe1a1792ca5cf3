"""Tables and a figure from the results of `quality.py`."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from methods import LATENT_RESOLUTIONS, PARTS
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

Results = dict[tuple[str, str, int], dict[str, Any]]
Clusters = dict[tuple[str, str, str], list[np.ndarray]]

REGIMES = {
    "K given": "The number of scored classes is passed to the method.",
    "K unknown": "The method decides. A fixed resolution of Leiden is the same for all sets; the best one is by the labels.",
    "ceiling": "The best resolution for each set by the labels, which no user has.",
}


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


def main_table(runs: pd.DataFrame, clusters: Clusters, ours: pd.Series) -> list[str]:
    """Mean and worst seed of the ARI by set; means over sets of everything else."""
    names = sorted(runs["set"].unique())
    halves = [half for half in HALVES if any(HALF_OF.get(name) == half for name in names)]
    head = [
        "method",
        *names,
        "mean ARI",
        *(f"half {half}" for half in halves),
        "worst seed",
        "NMI",
        "ACC",
        "F1",
        "clusters",
        "seeds agree",
        "s",
        "GB",
        "time of SCRCL",
    ]
    lines = [row(head), row(["---"] * len(head))]
    for name, group in runs.groupby("label", sort=False):
        label, by_set = str(name), group.groupby("set")
        ari = by_set["ARI"].agg(["mean", "min"]).reindex(names)
        cells = [
            "–" if np.isnan(mean) else f"{mean:.3f}" if group["seed"].nunique() < 2 else f"{mean:.3f} ({worst:.3f})"
            for mean, worst in ari.to_numpy()
        ]
        complete = ari["mean"].notna().all()
        half_of = ari["mean"].groupby([HALF_OF.get(name) for name in names]).mean()
        worst_seed = group.groupby("seed")["ARI"].mean().min()
        means = by_set[["ARI", "NMI", "ACC", "F1", "clusters", "seconds", "peak_gb"]].mean().mean()
        found = group[["set", "method", "way"]].drop_duplicates().itertuples(index=False)
        agree = float(np.mean([agreement(clusters.get(tuple(key), [])) for key in found]))
        times = (by_set["seconds"].mean() / ours).mean()
        lines.append(
            row(
                [
                    label,
                    *cells,
                    f"**{means['ARI']:.3f}**" + ("" if complete else f" of {ari['mean'].notna().sum()} sets"),
                    *(number(half_of[half], 3) for half in halves),
                    number(worst_seed, 3),
                    *(number(means[key], 3) for key in ("NMI", "ACC", "F1")),
                    number(means["clusters"], 1),
                    number(agree, 3),
                    number(means["seconds"], 1),
                    number(means["peak_gb"], 2),
                    "–" if np.isnan(times) else f"× {times:.1f}",
                ]
            )
        )
    return [*lines, ""]


def difference_table(runs: pd.DataFrame, ours: str) -> list[str]:
    """Differences of the ARI to our default, paired by set."""
    mean = runs.groupby(["label", "set"])["ARI"].mean().unstack()
    if ours not in mean.index or len(mean) < 2:
        return []
    head = ["SCRCL less …", "mean", "95 % interval over sets", "sets won", "worst set"]
    lines = [row(head), row(["---"] * len(head))]
    for label in dict.fromkeys(runs["label"]):
        differences = (mean.loc[ours] - mean.loc[label]).dropna()
        if label != ours and len(differences):
            low, high = interval(differences.to_numpy())
            worst = f"{differences.min():+.3f} ({differences.idxmin()})"
            won = f"{(differences > 0).sum()} of {len(differences)}"
            lines.append(row([label, f"{differences.mean():+.3f}", f"{low:+.3f} to {high:+.3f}", won, worst]))
    return [*lines, ""]


def embedding_table(results: Results) -> list[str]:
    """The scores of scib-metrics, means over sets and seeds."""
    rows = [{"method": m, "set": n, **r["embedding"]} for (n, m, _), r in results.items() if r["embedding"]]
    if not rows:
        return []
    frame = pd.DataFrame(rows)
    means = frame.groupby(["method", "set"], sort=False).mean().groupby("method", sort=False).mean()
    lines = ["### Embeddings", "", "Bio-conservation by scib-metrics, of the scores that need no batches.", ""]
    lines += [row(["embedding", *means.columns]), row(["---"] * (len(means.columns) + 1))]
    return [*lines, *(row([name, *(f"{value:.3f}" for value in values)]) for name, *values in means.itertuples()), ""]


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def number(value: float, digits: int) -> str:
    return "–" if np.isnan(value) else f"{value:.{digits}f}"


def shown(runs: pd.DataFrame) -> list[str]:
    """One label of each method: that of its default, or where it has none the best one."""
    by_set = runs.groupby(["method", "label", "set"], sort=False)["ARI"].mean()
    mean = by_set.groupby(["method", "label"], sort=False).mean()
    methods = mean.index.unique("method")
    return [str(method if (method, method) in mean.index else mean[method].idxmax()) for method in methods]


def figure(runs: pd.DataFrame, path: Path) -> None:
    """ARI of every seed by set, and the mean over seeds, for the two regimes that a user has."""
    regimes = [regime for regime in ("K given", "K unknown") if (runs["regime"] == regime).any()]
    names = sorted(runs["set"].unique())
    fig, axes = plt.subplots(1, len(regimes), figsize=(6.5 * len(regimes), 4.8), sharey=True, squeeze=False)
    for ax, regime in zip(axes[0], regimes, strict=True):
        part = runs[runs["regime"] == regime]
        labels = shown(part)
        for i, label in enumerate(labels):
            group = part[part["label"] == label]
            offset = 0.7 * ((i + 0.5) / len(labels) - 0.5)
            ax.scatter(group["set"].map(names.index) + offset, group["ARI"], s=8, alpha=0.4, color=f"C{i}", lw=0)
            means = group.groupby("set")["ARI"].mean()
            at = np.array([names.index(name) for name in means.index]) + offset
            ax.scatter(at, means, s=45, marker="_", lw=2, color=f"C{i}", label=f"{label} ({means.mean():.2f})")
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
        ax.set(ylim=(0, 1.02))
        ax.legend(title=regime, frameon=False, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    axes[0][0].set_ylabel("ARI")
    fig.tight_layout()
    fig.savefig(path, dpi=110)
    plt.close(fig)


def write_report(results: Results, path: Path, external: Path | None) -> None:
    runs, clusters = collect(results)
    runs = add_external(add_fixed_resolutions(runs), external)
    ours = runs[runs["method"] == "SCRCL"].groupby("set")["seconds"].mean()
    lines = []
    for regime, meaning in REGIMES.items():
        part = runs[runs["regime"] == regime]
        if len(part):
            lines += [f"### {regime}", "", f"{meaning} ARI by set: mean (worst seed).", ""]
            lines += main_table(part, clusters, ours) + difference_table(part, "SCRCL")
    lines += embedding_table(results)
    seeds = sorted({seed for _, _, seed in results})
    some = next(iter(results.values()))
    versions = ", ".join(f"{package} {version}" for package, version in some["versions"].items())
    lines += [f"Seeds {seeds[0]} to {seeds[-1]}. One thread of {some['machine']}; {versions}.", ""]
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".md").write_text("\n".join(lines))
    figure(runs, path.with_suffix(".png"))
    print("\n".join(lines))
