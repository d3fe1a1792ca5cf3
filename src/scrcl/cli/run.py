"""A run, from the file of counts to all that is written. Wiring only."""

import argparse
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import scvi
import torch
from anndata import AnnData
from lightning.pytorch import Callback
from matplotlib.axes import Axes
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
from .outputs import writable, write, write_types
from .progress import Phases

#: Levels of the loggers of the libraries while the command runs.
LOG_LEVELS = {
    "lightning.pytorch": logging.ERROR,
    "lightning.pytorch.utilities.rank_zero": logging.ERROR,
    "lightning.fabric.utilities.seed": logging.ERROR,
    "scvi": logging.WARNING,
}
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
    device = _device(arguments.device)
    if arguments.report is not None:
        from .page import check_page

        check_page(arguments.report)
    notes: list[str] = []
    with (
        writable(arguments.output) as unfinished,
        writable(arguments.markers) as table,
        writable(arguments.report) as page,
        quiet(arguments.input, phases, notes),
        listening(phases),
    ):
        assert unfinished is not None  # there is always an output
        begin("reading")
        found = _read(arguments)
        for note in found.notes:
            phases.note(f"note: {note}")
            notes.append(note)
        data = found.data
        check_n_clusters(arguments.n_clusters, data.n_obs, "--n-clusters")
        model = _train(arguments, found, device, phases)
        data.obsm[keys.LATENT_KEY] = model._results.latent(("aligned", None))  # not a copy, as by `share`
        chosen = {"n_clusters": arguments.n_clusters, "seed": arguments.seed}
        data.obs[keys.CLUSTERS_KEY] = model.get_clusters(
            method=arguments.method, resolution=arguments.resolution or RESOLUTION, **chosen
        )
        types = None
        if model.knows_labels:
            types = write_types(data, model.predict(), model.predict(soft=True))
        wanted = arguments.report is not None or arguments.json
        markers = pd.DataFrame()
        if table is not None or page is not None:
            begin("marker genes")
            markers = _markers(model, data, arguments.seed, phases)
        if table is not None:
            markers.to_csv(table, index=False)
        estimate = probabilities = None
        if wanted:
            begin("certainty")
            estimate = model.estimate_n_clusters(seed=arguments.seed)
            if arguments.method == "consensus":
                probabilities = model.get_cluster_probabilities(**chosen)
        space = (arguments.spatial_key, arguments.sample_key)
        if arguments.plots is not None:
            begin("plots")
            annotations = ["bulk_labels"] if is_demo else []
            annotations += [arguments.batch_key] if arguments.batch_key is not None else []
            annotations += [keys.TYPES_KEY] if types is not None else []
            _plot(model, data, arguments.plots, annotations, *space)
        record = _record(arguments, model, data)
        findings = Findings(
            command=command,
            input="700 PBMC that scanpy ships" if is_demo else str(arguments.input),
            clusters=describe_clusters(data.obs[keys.CLUSTERS_KEY], probabilities, markers),
            n_clusters_given=arguments.n_clusters is not None,
            estimate=estimate,
            notes=notes,
            outputs=_outputs(arguments),
            seconds=phases.seconds,
            types=types,
            agreement=compare(data.obs[keys.CLUSTERS_KEY], data.obs["bulk_labels"]) if is_demo else None,
            **record,
        )
        findings.doubts = find_doubts(findings, arguments.method)
        if page is not None:
            from .page import write_page

            begin("report")
            write_page(page, arguments.report, findings, model, data, markers, space)
        begin("writing")
        seconds = {name.replace(" ", "_"): round(value, 3) for name, value in phases.seconds.items()}
        data.uns[keys.RUN_KEY] = {**record, "command": command, "seconds": seconds}
        write(data, found.copied, unfinished, arguments.output)
        if arguments.save_model is not None:
            model.save(arguments.save_model, overwrite=arguments.overwrite)
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
    return read(
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


def _train(arguments: argparse.Namespace, found: Input, device: dict[str, Any], phases: Phases) -> SCRCL:
    of_several = isinstance(found.data, MuData)
    if of_several != (arguments.output.suffix == ".h5mu"):
        wanted = ".h5mu, as the input has several modalities" if of_several else ".h5ad"
        raise UserError(f"-o {arguments.output} must end in {wanted}.")
    scvi.settings.seed = arguments.seed
    (SCRCL.setup_mudata if of_several else SCRCL.setup_anndata)(found.data, **found.setup)
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
        told = isinstance(message, ScrclWarning)
        text = message.as_command(str(source or "the data")) if told else translate(str(message), source)
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


def _plot(
    model: SCRCL,
    data: AnnData | MuData,
    folder: Path,
    annotations: Sequence[str],
    spatial_key: str | None,
    sample_key: str | None,
) -> None:
    mpl.use("Agg")
    for name, axes in (
        ("history", pl.history(model)),
        ("umap", pl.umap(data)),
        ("cluster_sizes", pl.cluster_sizes(data)),
        *((f"umap_{name}", pl.umap(data, color=name)) for name in annotations),
        *(() if spatial_key is None else _maps(data, spatial_key, sample_key)),
    ):
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")


def _maps(data: AnnData | MuData, spatial_key: str, sample_key: str | None) -> Iterator[tuple[str, Axes]]:
    """A map of each slice, with a name for its file."""
    samples = None if sample_key is None else data.obs[sample_key].astype(str)
    for sample in [None] if samples is None else samples.unique():
        part = data if sample is None else data[samples == sample]
        name = "spatial" if sample is None else re.sub(r"[^\w.-]+", "_", f"spatial_{sample}")
        axes = pl.spatial(part, spatial_key=spatial_key, sample_key=sample_key)
        assert isinstance(axes, Axes)  # of one slice
        yield name, axes


def _outputs(arguments: argparse.Namespace) -> dict[str, str]:
    names = ("output", "markers", "report", "plots", "save_model")
    written = {name: getattr(arguments, name) for name in names}
    return {name: str(path) for name, path in written.items() if path is not None}


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
