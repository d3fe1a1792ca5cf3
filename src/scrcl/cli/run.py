"""A run, from the file of counts to all that is written. Wiring only."""

import argparse
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import scvi
import torch
from anndata import AnnData
from lightning.pytorch import Callback
from mudata import MuData

from scrcl import datasets, pl
from scrcl.cluster.leiden import RESOLUTION
from scrcl.model.scrcl import SCRCL
from scrcl.reference.writing import share
from scrcl.utils import keys
from scrcl.utils.checks import check_n_clusters
from scrcl.utils.errors import ScrclWarning
from scrcl.utils.progress import begin, listening

from .errors import UserError, translate
from .findings import Findings, compare, describe_clusters, find_doubts
from .inputs import Input, read
from .outputs import Extras, check_writable, finish, reserved, write, write_types
from .progress import Phases

#: Levels of the loggers of the libraries while the command runs.
LOG_LEVELS = {
    "lightning.pytorch": logging.ERROR,
    "lightning.pytorch.utilities.rank_zero": logging.ERROR,
    "lightning.fabric.utilities.seed": logging.ERROR,
    "scvi": logging.WARNING,
}
#: Letters of the name of a picture, at most: in bytes, what file systems allow is several times as long.
MAX_NAME = 50
#: Packages whose versions decide the result.
RECORDED = ("scrcl", "scvi-tools", "torch", "anndata", "mudata", "scanpy", "scikit-learn", "igraph", "numpy")


def run(arguments: argparse.Namespace, command: str, phases: Phases) -> Findings:
    """Read, train, cluster, and write what was asked for.

    Parameters
    ----------
    arguments
        What :func:`scrcl.cli.options.parse` read.
    command
        What was typed.
    phases
        Told of the phases.
    """
    is_demo = arguments.command == "demo"
    space = (arguments.spatial_key, arguments.sample_key)
    device = _device(arguments.device)
    if arguments.report is not None:
        from .page import check_page

        check_page(arguments.report)
    notes: list[str] = []
    extras = Extras(phases, arguments.input)
    attempt = extras.attempt
    with (
        reserved(arguments.output) as unfinished,
        reserved(arguments.markers) as table,
        reserved(arguments.report) as page,
        quiet(arguments.input, phases, notes),
        listening(phases),
        ExitStack() as files,
    ):
        assert unfinished is not None  # there is always an output
        begin("reading")
        found = files.enter_context(_read(arguments))
        for note in found.notes:
            phases.note(f"note: {note}")
            notes.append(note)
        data = found.data
        check_n_clusters(arguments.n_clusters, data.n_obs, "--n-clusters")
        check_writable(found, arguments.output)
        model = _train(arguments, found, device, phases)
        data.obsm[keys.LATENT_KEY] = model._results.latent(("aligned", None))  # not a copy, as by `share`
        chosen = {"n_clusters": arguments.n_clusters, "seed": arguments.seed}
        clustering = {**chosen, "method": arguments.method}
        if arguments.method == "leiden" and arguments.n_clusters is None:
            clustering["resolution"] = arguments.resolution or RESOLUTION
        data.obs[keys.CLUSTERS_KEY] = model.get_clusters(**clustering)
        model.run_ = {"layer": arguments.layer, "clustering": clustering}
        types = None
        if model.knows_labels:
            types = write_types(data, model.predict(), model.predict(soft=True))
        markers = estimate = probabilities = None
        if table is not None or page is not None:
            begin("marker genes")
            markers = attempt("marker genes", _markers, model, data, arguments.seed, phases)
        if arguments.report is not None or arguments.json:
            begin("certainty")
            estimate = attempt("number of clusters", model.estimate_n_clusters, seed=arguments.seed)
            if arguments.method == "consensus":
                probabilities = attempt("certainty", model.get_cluster_probabilities, **chosen)
        if arguments.plots is not None:
            begin("plots")
            annotations = ["bulk_labels"] if is_demo else []
            annotations += [arguments.batch_key] if arguments.batch_key is not None else []
            annotations += [keys.TYPES_KEY] if types is not None else []
            _plot(model, data, arguments.plots, annotations, *space, extras, phases)
        begin("writing")
        record = _record(arguments, model, data)
        seconds = {name.replace(" ", "_"): round(value, 3) for name, value in phases.seconds.items()}
        data.uns[keys.RUN_KEY] = {**record, "command": command, "seconds": seconds}
        write(found, unfinished, arguments.output)
        finish(unfinished, arguments.output, phases)
        if table is not None and markers is not None:
            attempt("marker genes", _write_markers, markers, table, arguments.markers, phases)
        if arguments.save_model is not None:
            attempt("model", _save, model, arguments.save_model, arguments.overwrite, phases)
        findings = Findings(
            command=command,
            input="700 PBMC that scanpy ships" if is_demo else str(arguments.input),
            clusters=describe_clusters(data.obs[keys.CLUSTERS_KEY], probabilities, markers),
            n_clusters_given=arguments.n_clusters is not None,
            estimate=estimate,
            notes=notes,
            outputs=_outputs(arguments, [*phases.written, str(arguments.report)]),
            seconds=phases.seconds,
            types=types,
            agreement=compare(data.obs[keys.CLUSTERS_KEY], data.obs["bulk_labels"]) if is_demo else None,
            missing=extras.missing,
            **record,
        )
        findings.doubts = find_doubts(findings, arguments.method)
        if page is not None:
            begin("report")
            attempt("report", _write_page, page, arguments.report, phases, findings, model, data, markers, space)
            findings.outputs = _outputs(arguments, phases.written)
    return findings


def _device(name: str) -> dict[str, Any]:
    """Where to train, as Lightning has it."""
    kind, _, number = name.partition(":")
    if kind == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= there:
            raise UserError(f"--device {name} is not there: PyTorch finds {there} of them. Take --device cpu.")
        return {"accelerator": "gpu", "devices": [int(number or 0)]}
    return {"accelerator": kind}


def _read(arguments: argparse.Namespace) -> Input:
    if arguments.input is None:
        return Input(datasets.pbmc700())
    found = read(
        arguments.input,
        arguments.layer,
        arguments.modalities,
        arguments.transpose,
        arguments.spatial_key,
        arguments.sample_key,
        arguments.batch_key,
        arguments.labels_key,
        arguments.unlabeled_category,
    )
    if arguments.layer is not None and found.copied is not None:
        # What was read from the layer is X here; the model is to look for it where it is in the file.
        found.data.layers[arguments.layer] = found.data.X
        found.setup["layer"] = arguments.layer
    return found


def _train(arguments: argparse.Namespace, found: Input, device: dict[str, Any], phases: Phases) -> SCRCL:
    scvi.settings.seed = arguments.seed
    (SCRCL.setup_mudata if isinstance(found.data, MuData) else SCRCL.setup_anndata)(found.data, **found.setup)
    model = SCRCL(found.data)
    share(found.data, model._reference)
    model.train(
        arguments.epochs,
        batch_size=arguments.batch_size,
        enable_progress_bar=False,
        callbacks=[_OnBatch(phases)],
        **device,
    )
    if model.trainer.interrupted:
        raise KeyboardInterrupt
    return model


@contextmanager
def quiet(source: Path | None, phases: Phases, notes: list[str]) -> Iterator[None]:
    """Keep the chatter of the libraries out of the progress display; our own warnings become notes."""
    before = {name: logging.getLogger(name).level for name in LOG_LEVELS}
    for name, level in LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)

    def note(message: Warning | str, *_: Any) -> None:
        if isinstance(message, ScrclWarning):
            text = message.as_command(str(source or "the data"))
        else:
            text = translate(str(message), source)
        if text not in notes:
            notes.append(text)
            phases.note(f"note: {text}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning, module=r"scrcl\.(?!cli|pl)")
        warnings.showwarning = note  # type: ignore[assignment]
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


class _OnBatch(Callback):
    """Tells how many batches of training are done."""

    def __init__(self, phases: Phases) -> None:
        self._phases = phases

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self._phases.advance(trainer.global_step, int(trainer.max_epochs * trainer.num_training_batches))


def _markers(model: SCRCL, data: AnnData | MuData, seed: int, phases: Phases) -> pd.DataFrame:
    """Marker genes of the clusters; none where there is only one cluster."""
    if data.obs[keys.CLUSTERS_KEY].nunique() < 2:
        phases.note("note: There is only one cluster, so there are no marker genes.")
        return pd.DataFrame()
    return model.get_marker_genes(data, keys.CLUSTERS_KEY, seed=seed)


def _write_markers(markers: pd.DataFrame, table: Path, output: Path, phases: Phases) -> None:
    markers.to_csv(table, index=False)
    finish(table, output, phases)


def _save(model: SCRCL, folder: Path, overwrite: bool, phases: Phases) -> None:
    model.save(folder, overwrite=overwrite)
    phases.written.append(str(folder))


def _write_page(page: Path, output: Path, phases: Phases, *content: Any) -> None:
    from .page import write_page

    write_page(page, output, *content)
    finish(page, output, phases)


def _plot(
    model: SCRCL,
    data: AnnData | MuData,
    folder: Path,
    annotations: Sequence[str],
    spatial_key: str | None,
    sample_key: str | None,
    extras: Extras,
    phases: Phases,
) -> None:
    """Write each plot that can be made."""
    mpl.use("Agg")
    plots: list[tuple[str, Callable[[], Any]]] = [
        ("history", partial(pl.history, model)),
        ("umap", partial(pl.umap, data)),
        ("cluster_sizes", partial(pl.cluster_sizes, data)),
        *((f"umap_{name}", partial(pl.umap, data, color=name)) for name in annotations),
    ]
    if spatial_key is not None:
        samples = None if sample_key is None else data.obs[sample_key].astype(str)
        for sample in [None] if samples is None else samples.unique():
            cells = None if samples is None else samples == sample
            name = "spatial" if sample is None else f"spatial_{sample}"
            plots.append((name, partial(_map, data, cells, spatial_key, sample_key)))
    for name, (_, draw) in zip(file_names([name for name, _ in plots]), plots, strict=True):
        extras.attempt(f"plot {name}.png", _write_plot, draw, folder / f"{name}.png")
    phases.written.append(str(folder))


def _write_plot(draw: Callable[[], Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A dollar in the name of a type is no formula.
    with mpl.rc_context({"text.parse_math": False}):
        figure = draw().get_figure(root=True)
        figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def _map(data: AnnData | MuData, cells: pd.Series | None, spatial_key: str, sample_key: str | None) -> Any:
    """A map of one slice."""
    return pl.spatial(data if cells is None else data[cells], spatial_key=spatial_key, sample_key=sample_key)


def file_names(names: Sequence[str]) -> list[str]:
    """A name for a file for each of some names, no two the same, on any file system."""
    chosen: list[str] = []
    taken: set[str] = set()
    for name in names:
        short = re.sub(r"[^\w.-]+", "_", name)[:MAX_NAME]
        number, unique = 1, short
        while unique.casefold() in taken:
            number += 1
            unique = f"{short}_{number}"
        taken.add(unique.casefold())
        chosen.append(unique)
    return chosen


def _outputs(arguments: argparse.Namespace, written: Sequence[str]) -> dict[str, str]:
    """What was asked for and is written."""
    names = ("output", "markers", "report", "plots", "save_model")
    asked = {name: str(getattr(arguments, name)) for name in names}
    return {name: path for name, path in asked.items() if path in written}


def _record(arguments: argparse.Namespace, model: SCRCL, data: AnnData | MuData) -> dict[str, Any]:
    """What was run, in a form that .h5ad can hold."""
    given = {name: value for name, value in model.init_params_["non_kwargs"].items() if value is not None}
    parameters = {**given, "epochs": len(model.history["train_loss"]), "method": arguments.method}
    parameters["n_clusters"] = arguments.n_clusters or "found"
    if arguments.method == "leiden" and arguments.n_clusters is None:
        parameters["resolution"] = arguments.resolution or RESOLUTION
    parameters["batch_size"] = arguments.batch_size or "by size"
    parameters["device"] = arguments.device
    parameters["layer"] = arguments.layer or "X"
    parameters["spatial_key"], parameters["sample_key"] = arguments.spatial_key or "", arguments.sample_key or ""
    parameters["batch_key"] = arguments.batch_key or ""
    parameters["labels_key"] = arguments.labels_key or ""
    parameters["unlabeled_category"] = arguments.unlabeled_category or ""
    sizes = {"cells": data.n_obs, "genes": data.n_vars, "clusters": int(data.obs[keys.CLUSTERS_KEY].nunique())}
    if isinstance(data, MuData):
        parameters["modalities"] = arguments.modalities
        del sizes["genes"]
        sizes |= {name: data.mod[name].n_vars for name in arguments.modalities}
    else:
        sizes["genes_kept"] = int(data.var[keys.GENES_KEY].sum())
    return {
        "versions": {name: version(name) for name in RECORDED},
        "parameters": parameters,
        "seed": arguments.seed,
        "sizes": sizes,
    }
