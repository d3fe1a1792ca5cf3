"""A run, from the file of counts to all that is written. Wiring only."""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypedDict

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import scvi
import torch
from anndata import AnnData
from lightning.pytorch import Callback, Trainer
from matplotlib.axes import Axes
from mudata import MuData

from scrcl import pl
from scrcl.cluster.cluster_tree import ClusterTree
from scrcl.cluster.leiden import RESOLUTION
from scrcl.data.marker_sets import MarkerSets
from scrcl.model.options import Method
from scrcl.model.scrcl import SCRCL, SPATIAL_ARGUMENTS
from scrcl.reference.writing import share
from scrcl.utils import keys
from scrcl.utils.checks import check_n_clusters
from scrcl.utils.progress import begin
from scrcl.utils.words import counted

from .caveats import find_caveats
from .composition import compose, measure, quality
from .config import RunConfig
from .errors import UserError
from .html_report import check_report, plain_text, write_report
from .inputs import Input, read
from .marker_lists import read_sets, records
from .outputs import finish, opened, reserved, write, write_types
from .progress import Phases, quiet
from .summary import Record, Summary, compare, describe_clusters
from .symbols import find_symbols, symbols_column, symbols_of, with_symbols

#: Letters of the name of a picture, at most: in bytes, what file systems allow is several times as long.
MAX_NAME = 50
#: Packages whose versions decide the result.
RECORDED = (
    "scrcl",
    "scvi-tools",
    "torch",
    "anndata",
    "mudata",
    "scanpy",
    "scikit-learn",
    "graspologic-native",
    "numpy",
)
#: Published annotation of the data of the demo.
DEMO_TYPES = "bulk_labels"


class Clustering(TypedDict, total=False):
    """Arguments of the clustering."""

    n_clusters: int | None
    seed: int
    method: Method
    resolution: float


def run(config: RunConfig, phases: Phases) -> Summary:
    """Read, train, cluster, and write what was asked for.

    Parameters
    ----------
    config
        The options.
    phases
        Where progress is shown.
    """
    is_demo = config.input is None
    device = _device(config.device)
    if config.report is not None:
        check_report(config.report)
    attempt = phases.attempt
    caveats: list[str] = []
    with (
        reserved(config.output) as unfinished,
        reserved(config.markers) as table,
        reserved(config.tree) as splits,
        reserved(config.report) as page,
        quiet(phases, caveats, reported=config.report is not None),
        ExitStack() as files,
    ):
        assert unfinished is not None  # there is always an output
        begin("reading")
        sets = None if config.names is None else read_sets(config.names)  # refused before any work
        found = read(config)
        data = files.enter_context(opened(found, config.output, phases))
        check_n_clusters(config.n_clusters, data.n_obs)
        model = _train(config, found, device, phases)
        data.obsm[keys.LATENT_KEY] = model._results.latent(("aligned", None))  # not a copy, as by `share`
        clustering: Clustering = {"n_clusters": config.n_clusters, "seed": config.seed, "method": config.method}
        if config.method == "leiden" and config.n_clusters is None:
            clustering["resolution"] = config.resolution or RESOLUTION
        data.obs[keys.CLUSTERS_KEY] = model.get_clusters(**clustering)
        model.run_ = {"layer": config.layer, "clustering": clustering}
        types = write_types(data, model.predict(), model.predict(soft=True)) if model.knows_labels else None
        named: list[dict[str, object]] = []
        if sets is not None:
            begin("names")
            with attempt("names"):
                named = _names(model, data, sets, config, phases)
        markers = estimate = probabilities = borders = None
        if table is not None or page is not None:
            begin("marker genes")
            with attempt("marker genes"):
                markers = _markers(model, data, config, phases)
        tree = None
        if splits is not None or page is not None:
            begin("evidence")
            with attempt("evidence"):
                tree = _tree(model, data, config)
        quality_of: dict[str, dict[str, float]] = {}
        if page is not None or config.json:
            with attempt("quality of cells"):
                quality_of = _quality(model, data, config.gene_symbols)
            begin("certainty")
            with attempt("number of clusters"):
                estimate = model.estimate_n_clusters(seed=config.seed)
            if config.method == "consensus":
                with attempt("certainty"):
                    probabilities = model.get_cluster_probabilities(n_clusters=config.n_clusters, seed=config.seed)
                    borders = _borders(model, config)
        if config.plots is not None:
            begin("plots")
            types_key = keys.TYPES_KEY if types else None
            names_key = keys.CELL_NAMES_KEY if named else None
            colors = [DEMO_TYPES if is_demo else None, *config.batch_keys, config.condition_key, types_key, names_key]
            _plot(config, model, data, config.plots, [name for name in colors if name is not None], phases)
            phases.wrote(config.plots)
        begin("writing")
        record = _record(config, model, data, clustering.get("resolution"))
        seconds = {name.replace(" ", "_"): round(value, 3) for name, value in phases.seconds.items()}
        data.uns[keys.RUN_KEY] = {**record, "command": config.command, "seconds": seconds}
        write(found, unfinished, config.output)
        finish(unfinished, config.output, phases)
        _write_table(table, config.markers, markers, "marker genes", phases)
        _write_table(splits, config.tree, None if tree is None else tree.splits.reset_index(), "evidence", phases)
        if config.save_model is not None:
            with attempt("model"):
                model.save(config.save_model, overwrite=config.overwrite)
                phases.wrote(config.save_model)
        summary = Summary(
            command=config.command,
            input="700 PBMC that scanpy ships" if is_demo else str(config.input),
            clusters=describe_clusters(data.obs[keys.CLUSTERS_KEY], probabilities, markers),
            n_clusters_given=config.n_clusters is not None,
            estimate=estimate,
            tree=tree,
            notes=phases.notes,
            outputs=_outputs(config, [*phases.written, str(config.report)]),
            seconds=phases.seconds,
            types=types,
            agreement=compare(data.obs[keys.CLUSTERS_KEY], data.obs[DEMO_TYPES]) if is_demo else None,
            missing=phases.missing,
            compositions=compose(data.obs[keys.CLUSTERS_KEY], data.obs, _samples(config)),
            quality=quality_of,
            names=named,
            borders=borders,
            **record,
        )
        summary.caveats = find_caveats(summary, config.method, caveats)
        if page is not None and config.report is not None:
            begin("report")
            with attempt("report"):
                write_report(page, config, summary, data, markers, model)
                finish(page, config.report, phases)
            summary.outputs = _outputs(config, phases.written)
    return summary


def _device(name: str) -> tuple[str, list[int] | Literal["auto"]]:
    """The arguments ``accelerator`` and ``devices`` of Lightning."""
    kind, _, number = name.partition(":")
    if kind == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= n_devices:
            raise UserError(
                f"--device {name} does not exist: PyTorch finds {counted(n_devices, 'CUDA device')}.",
                "Pass --device cpu.",
            )
        return "gpu", [int(number or 0)]
    return kind, "auto"


def _train(config: RunConfig, found: Input, device: tuple[str, list[int] | Literal["auto"]], phases: Phases) -> SCRCL:
    scvi.settings.seed = config.seed
    (SCRCL.setup_mudata if isinstance(found.data, MuData) else SCRCL.setup_anndata)(found.data, **found.setup)
    model = SCRCL(found.data)
    share(found.data, model._reference)
    model.train(
        config.epochs,
        batch_size=config.batch_size,
        enable_progress_bar=False,
        callbacks=[_OnBatch(phases)],
        accelerator=device[0],
        devices=device[1],
    )
    if model.trainer.interrupted:
        raise KeyboardInterrupt
    return model


class _OnBatch(Callback):
    """Shows how many minibatches of training are done."""

    def __init__(self, phases: Phases) -> None:
        self._phases = phases

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        n_batches = int(trainer.max_epochs or 0) * int(trainer.num_training_batches)
        self._phases.advance(trainer.global_step, n_batches)


def _markers(model: SCRCL, data: AnnData | MuData, config: RunConfig, phases: Phases) -> pd.DataFrame:
    """Marker genes of the clusters; none where there is only one cluster."""
    if data.obs[keys.CLUSTERS_KEY].nunique() < 2:
        phases.note("There is only one cluster, so there are no marker genes.")
        return pd.DataFrame()
    return model.get_marker_genes(data, keys.CLUSTERS_KEY, seed=config.seed, gene_symbols=config.gene_symbols)


def _tree(model: SCRCL, data: AnnData | MuData, config: RunConfig) -> ClusterTree:
    """The tree of clusters, with the names of genes that are asked for."""
    tree = model.get_cluster_tree(seed=config.seed)
    return tree if config.gene_symbols is None else with_symbols(tree, symbols_of(data, config.gene_symbols))


def _borders(model: SCRCL, config: RunConfig) -> pd.DataFrame | None:
    """How adjacent domains are separated, in space."""
    if config.spatial_key is None:
        return None
    return model.get_domain_borders(n_clusters=config.n_clusters, seed=config.seed)


def _names(
    model: SCRCL, data: AnnData | MuData, sets: MarkerSets, config: RunConfig, phases: Phases
) -> list[dict[str, object]]:
    """Names of the clusters from marker genes; none where there is only one cluster."""
    if data.obs[keys.CLUSTERS_KEY].nunique() < 2:
        phases.note("There is only one cluster, so it has no name: markers are compared between clusters.")
        return []
    symbols = config.gene_symbols if isinstance(data, MuData) else symbols_column(data.var, config.gene_symbols)
    groupby, key = keys.CLUSTERS_KEY, keys.CELL_NAMES_KEY
    return records(model.get_cluster_names(sets, data, groupby, seed=config.seed, key_added=key, gene_symbols=symbols))


def _quality(model: SCRCL, data: AnnData | MuData, gene_symbols: str | None) -> dict[str, dict[str, float]]:
    """Quality of the cells of each cluster, by the first modality with counts."""
    for name, source in model._sources(data).items():
        if source.counts is not None:
            var = data.mod[name].var if isinstance(data, MuData) else data.var
            symbols = find_symbols(var, gene_symbols)
            genes = pd.Index([symbols.get(gene, gene) for gene in var.index.astype(str)])
            return quality(measure(source.counts, genes, data.obs), data.obs[keys.CLUSTERS_KEY])
    return {}


def _samples(config: RunConfig) -> dict[str, bool]:
    """Columns of batches and samples, and whether their effect is corrected."""
    others = [key for key in (config.sample_key, config.condition_key) if key is not None]
    return dict.fromkeys(others, False) | dict.fromkeys(config.batch_keys, True)


def _write_table(
    unfinished: Path | None, output: Path | None, table: pd.DataFrame | None, what: str, phases: Phases
) -> None:
    """Write a table that was asked for and could be made."""
    if unfinished is not None and output is not None and table is not None:
        with phases.attempt(what):
            table.to_csv(unfinished, index=False)
            finish(unfinished, output, phases)


def _plot(
    config: RunConfig,
    model: SCRCL,
    data: AnnData | MuData,
    folder: Path,
    colors: Sequence[str],
    phases: Phases,
) -> None:
    """Write each plot that can be made."""
    mpl.use("Agg")
    plots: list[tuple[str, Callable[[], Axes | list[Axes]]]] = [
        ("history", partial(pl.history, model)),
        ("umap", partial(pl.umap, data)),
        ("cluster_sizes", partial(pl.cluster_sizes, data)),
        *((f"umap_{name}", partial(pl.umap, data, color=name)) for name in colors),
    ]
    if config.spatial_key is not None:
        map_of = partial(pl.spatial, spatial_key=config.spatial_key, sample_key=config.sample_key)
        if config.sample_key is None:
            plots.append(("spatial", partial(map_of, data)))
        else:
            samples = data.obs[config.sample_key].astype(str)
            plots += [(f"spatial_{name}", partial(map_of, data[samples == name])) for name in samples.unique()]
    for name, (_, draw) in zip(file_names([name for name, _ in plots]), plots, strict=True):
        with phases.attempt(f"plot {name}.png"), plain_text():
            folder.mkdir(parents=True, exist_ok=True)
            draw()
            plt.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")
            plt.close()


def file_names(names: Sequence[str]) -> list[str]:
    """A name for a file for each of some names, no two the same, on any file system."""
    chosen: dict[str, str] = {}
    for name in names:
        short = unique = re.sub(r"[^\w.-]+", "_", name)[:MAX_NAME]
        number = 1
        while unique.casefold() in chosen:
            number += 1
            unique = f"{short}_{number}"
        chosen[unique.casefold()] = unique
    return list(chosen.values())


def _outputs(config: RunConfig, written: Sequence[str]) -> dict[str, str]:
    """What was asked for and is written."""
    asked = {
        name: str(getattr(config, name)) for name in ("output", "markers", "tree", "report", "plots", "save_model")
    }
    return {name: path for name, path in asked.items() if path in written}


def _record(config: RunConfig, model: SCRCL, data: AnnData | MuData, resolution: float | None) -> Record:
    """What was run, in a form that .h5ad can hold."""
    unused = [] if config.spatial_key is not None else list(SPATIAL_ARGUMENTS.values())
    given = {
        name: value
        for name, value in model.init_params_["non_kwargs"].items()
        if value is not None and name not in (*unused, "gene_network_mode")
    }
    parameters = {
        **given,
        "epochs": len(model.history["train_loss"]),
        "method": config.method,
        "n_clusters": config.n_clusters or "found",
        **({} if resolution is None else {"resolution": resolution}),
        "batch_size": config.batch_size or "by size",
        "device": config.device,
        "layer": config.layer or "X",
    }
    columns = ("spatial_key", "sample_key", "batch_key", "condition_key", "labels_key", "unlabeled_category")
    for name in (*columns, "gene_symbols"):
        value = getattr(config, name) or ""
        parameters[name] = value if isinstance(value, str) else ", ".join(value)
    sizes = {"cells": data.n_obs, "clusters": int(data.obs[keys.CLUSTERS_KEY].nunique())}
    if config.modalities is not None:
        parameters["modalities"] = config.modalities
        sizes |= {name: data.mod[name].n_vars for name in config.modalities}
    else:
        sizes |= {"genes": data.n_vars, "genes_kept": int(data.var[keys.GENES_KEY].sum())}
    return {
        "versions": {name: version(name) for name in RECORDED},
        "parameters": parameters,
        "seed": config.seed,
        "sizes": sizes,
    }
