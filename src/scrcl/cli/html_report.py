"""The report of a run: one self-contained HTML file, or the same as PDF."""

import re
from collections.abc import Iterator
from datetime import date
from functools import partial
from importlib.resources import files
from pathlib import Path

import jinja2
import matplotlib as mpl
import pandas as pd
from anndata import AnnData
from markupsafe import Markup, escape
from mudata import MuData

from scrcl.cluster.cluster_tree import ClusterTree
from scrcl.cluster.tree import MAX_CONNECTIVITY
from scrcl.data.columns import read_labels
from scrcl.labels.report import LabelReport
from scrcl.model.scrcl import SCRCL
from scrcl.reference.batch_report import BatchReport
from scrcl.utils import keys
from scrcl.utils.names import as_groups
from scrcl.utils.words import counted, listed

from .config import RunConfig
from .errors import UserError
from .report_figures import (
    MAX_MAPPED,
    colors_of,
    draw_map,
    draw_markers,
    draw_number,
    draw_slices,
    draw_tree,
    map_points,
)
from .summary import N_MARKERS, Summary
from .symbols import symbols_of, with_symbols

#: The context in which a dollar in the name of a type is no formula.
plain_text = partial(mpl.rc_context, {"text.parse_math": False})
#: Labels with a lower probability are said to be doubtful, and so many are shown.
DOUBT, N_DOUBTFUL = 0.1, 10
#: A type with fewer labelled cells is said to have few.
FEW_LABELLED = 10
#: Marker genes of a new type that are named.
N_NEW_GENES = 5
#: Parts of a cluster that are named, at least.
MIN_PART = 0.05
#: Genes that are shown of each name.
N_NAMED = 5
#: Share of the cells of a cluster above which their type names it, and the name of other clusters.
MAJORITY, MIXED = 0.5, "several types"


def check_report(path: Path) -> None:
    """Refuse a PDF that could not be made in the end."""
    if path.suffix.lower() != ".pdf":
        return
    try:
        import weasyprint  # noqa: F401
    except (ImportError, OSError) as error:  # it, or the libraries that it draws with
        raise UserError(
            f"--report {path} needs WeasyPrint, and its library Pango.",
            "Install it, `pip install 'scrcl[pdf]'`, or name an .html file and print it from a browser.",
        ) from error


def write_report(
    page: Path, config: RunConfig, summary: Summary, data: AnnData | MuData, markers: pd.DataFrame | None, model: SCRCL
) -> None:
    """Write the report.

    Parameters
    ----------
    page
        File to write, which gets its name later.
    config
        The options; ``report`` has the name, whose ending gives the format.
    summary, data, markers
        What is shown.
    model
        The model, for the reports on labels and batches.
    """
    mpl.use("Agg")
    symbols = symbols_of(data, config.gene_symbols)
    shown = summary.tree if summary.tree is None or not symbols else with_symbols(summary.tree, symbols)
    if markers is not None and len(markers):
        markers = markers.assign(gene=markers["gene"].map(lambda gene: symbols.get(gene, gene)))
    clusters = data.obs[keys.CLUSTERS_KEY]
    colors = colors_of(clusters)
    labels = model.get_label_report(seed=config.seed) if summary.types is not None else None
    markers_of = {
        cluster.name: [symbols.get(gene, gene) for gene in cluster.markers or ()] for cluster in summary.clusters
    }
    with plain_text():
        figures, maps, batch_colors = _figures(config, summary, shown, data, markers, colors)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["code"] = _code
    template = environment.from_string(files(__package__).joinpath("html_report.html").read_text(encoding="utf-8"))
    html = template.render(
        summary=summary,
        title=f"{counted(len(summary.clusters), summary.kind)} in {Path(summary.input).name}",
        what=summary.kind,
        date=date.today().isoformat(),
        figures=figures,
        maps=maps,
        colors=colors,
        batch_colors=batch_colors,
        batch_text=None if not config.batch_keys else _say(model.get_batch_report(seed=config.seed)),
        largest=max(cluster.share for cluster in summary.clusters),
        n_markers=N_MARKERS,
        markers_of=markers_of,
        n_slices=0 if config.sample_key is None else data.obs[config.sample_key].nunique(),
        n_mapped=min(MAX_MAPPED, data.n_obs),
        others=summary.other_numbers(),
        splits=_splits(shown),
        own_names=summary.tree is not None and not summary.tree.cut().eq(clusters.astype(str)).all(),
        bound=MAX_CONNECTIVITY,
        minutes=sum(summary.seconds.values()) / 60,
        names=list(_names(config, summary, data, labels)),
        qualities=summary.quality,
        quality_columns=list(summary.quality[""]) if summary.quality else [],
        parameters={name: _setting(value) for name, value in summary.parameters.items() if value != ""},
        notes=[note for note in summary.notes if not note.startswith(tuple(summary.caveats))],
        **_types(data, labels, markers_of),
    )
    if config.report is not None and config.report.suffix.lower() == ".pdf":
        import weasyprint

        weasyprint.HTML(string=html).write_pdf(str(page))
    else:
        page.write_text(html, encoding="utf-8")


def _setting(value: object) -> object:
    """A setting as it is shown: lists, and the kinds of modalities, in words."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {kind}" for name, kind in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _code(text: str) -> Markup:
    """Text in which code is between backticks."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _figures(
    config: RunConfig,
    summary: Summary,
    tree: ClusterTree | None,
    data: AnnData | MuData,
    markers: pd.DataFrame | None,
    colors: dict[str, str],
) -> tuple[dict[str, str], dict[str, object], dict[str, dict[str, str]]]:
    """Figures and maps by name, and the colours of the batches."""
    figures = {}
    if summary.estimate is not None:
        figures["number"] = draw_number(summary.estimate, summary.kind)
    if tree is not None:
        figures["tree"] = draw_tree(tree)
    if markers is not None and len(markers):
        figures["markers"] = draw_markers(markers)
    rows, points = map_points(data.obsm[keys.LATENT_KEY])
    obs = data.obs.iloc[rows]
    maps: dict[str, object] = {"clusters": draw_map(points, obs[keys.CLUSTERS_KEY], colors, tagged=True)}
    if summary.types is not None:
        types = data.obs[keys.TYPES_KEY]
        named = types.astype(str).where(types.notna())
        maps["types"] = draw_map(points, named.iloc[rows], colors_of(named))
    batch_colors = {composition.key: colors_of(pd.Series(composition.names)) for composition in summary.compositions}
    maps["batches"] = {
        key: draw_map(points, pd.Series(as_groups(obs[key])), batch_colors[key])
        for key in batch_colors
        if key in config.batch_keys
    }
    if config.spatial_key is not None:
        maps["slices"] = draw_slices(data, config.spatial_key, config.sample_key, colors)
    return figures, maps, batch_colors


def _splits(tree: ClusterTree | None) -> list[dict[str, object]]:
    """The splits that are drawn, the highest first."""
    return [] if tree is None else tree.first_splits.reset_index().to_dict("records")  # type: ignore[return-value]


def _names(
    config: RunConfig, summary: Summary, data: AnnData | MuData, labels: LabelReport | None
) -> Iterator[dict[str, str]]:
    """A name for each cluster, and why."""
    clusters = data.obs[keys.CLUSTERS_KEY].astype(str)
    if labels is None and summary.names:
        for row in summary.names:
            genes = ", ".join(str(row["genes"]).split(", ")[:N_NAMED])
            why = f"{row['best']} by {genes}" if genes else ""
            yield {
                "cluster": str(row["cluster"]),
                "name": str(row["name"]),
                "why": f"{why}. {row['reason']}".strip(". "),
            }
    elif labels is not None:
        types = pd.crosstab(clusters, data.obs[keys.TYPES_KEY].astype(str), normalize="index")
        assert config.labels_key is not None  # there are labels
        given = pd.Series(read_labels(data, config.labels_key, config.unlabeled_category), clusters.index, object)
        counts = pd.crosstab(clusters[given.notna()], given[given.notna()])
        for cluster in summary.clusters:
            shares = types.loc[[cluster.name]].iloc[0]
            name, share = str(shares.idxmax()), float(shares.max())
            why = f"{name} is predicted for {share:.0%} of its cells"
            if cluster.name in counts.index:
                of_labelled = counts.loc[[cluster.name]].iloc[0]
                n_labelled = int(of_labelled.sum())
                why += (
                    f"; {of_labelled.max() / n_labelled:.0%} of its {counted(n_labelled, 'labelled cell')} "
                    f"{'is' if n_labelled == 1 else 'are'} labelled {of_labelled.idxmax()}"
                )
            yield {"cluster": cluster.name, "name": name if share > MAJORITY else MIXED, "why": why}
    elif summary.agreement is not None:
        for number, published in summary.agreement.types.items():
            name, share = next(iter(published.items()))
            why = ", ".join(f"{name} {share:.0%}" for name, share in published.items())
            yield {
                "cluster": number,
                "name": name if share > MAJORITY else MIXED,
                "why": f"published annotation: {why}",
            }


def _types(data: AnnData | MuData, labels: LabelReport | None, markers_of: dict[str, list[str]]) -> dict[str, object]:
    """What is said of types that were learned from labels."""
    if labels is None:
        return {"types": None, "new": [], "label_caveats": []}
    types = data.obs[keys.TYPES_KEY].astype(str)
    probability = data.obs[keys.TYPES_CONFIDENCE_KEY].groupby(types.to_numpy()).mean()
    sizes = types.value_counts()
    new = []
    for name in sizes.index.difference(labels.confusions.index, sort=False):
        parts = data.obs.loc[(types == name).to_numpy(), keys.CLUSTERS_KEY].astype(str).value_counts(normalize=True)
        large = parts[parts >= MIN_PART] if (parts >= MIN_PART).any() else parts[:1]
        new.append(
            {
                "name": name,
                "cells": int(sizes[name]),
                "clusters": ", ".join(f"{cluster} ({share:.0%})" for cluster, share in large.items()),
                "genes": ", ".join(markers_of[str(parts.index[0])][:N_NEW_GENES]),
            }
        )
    wrong = labels.cells[(labels.cells["probability"] < DOUBT) & (labels.cells["label"] != labels.cells["predicted"])]
    caveats = []
    given = labels.cells["label"].astype(object).value_counts()
    few = [f"{name} ({counted(int(size), 'cell')})" for name, size in given.items() if size < FEW_LABELLED]
    if few:
        caveats.append(
            f"Few cells are labelled {listed(few, N_DOUBTFUL)}: predictions of {'this type' if len(few) == 1 else 'these types'} "
            "are uncertain, and cannot be checked well."
        )
    if new:
        sizes_of_new = sum(sizes[group["name"]] for group in new)
        unlike = "is unlike" if sizes_of_new == 1 else "are unlike"
        caveats.append(f"{counted(sizes_of_new, 'cell')} in {counted(len(new), 'group')} {unlike} all labelled cells.")
    if len(wrong):
        share = f"{len(wrong):,} of {counted(len(labels.cells), 'label')} {'is' if len(wrong) == 1 else 'are'}"
        caveats.append(f"{share} contradicted by the data and the labels of other cells.")
    return {
        "label_caveats": caveats,
        "types": [
            {"name": name, "cells": int(size), "share": size / len(types), "probability": probability[name]}
            for name, size in sizes.items()
        ],
        "n_labelled": len(labels.cells),
        "new": new,
        "confusions": labels.by_label().reset_index().to_dict("records"),
        "doubtful": wrong.head(N_DOUBTFUL).rename_axis("cell").reset_index().to_dict("records"),
        "n_doubtful": len(wrong),
        "doubt": DOUBT,
    }


def _say(report: BatchReport) -> str:
    """The correction of batches in a sentence."""
    before, after = report.batches["before"].mean(), report.batches["after"].mean()
    found = (
        f"An effect was found and corrected in {', '.join(report.corrected)}"
        if report.corrected
        else ("No effect was found, so nothing was corrected")
    )
    return f"{found}. Mixing of batches among similar cells: {before:.2f} before, {after:.2f} after (1: as by chance)."
