"""The command line: ``scrcl run`` and ``scrcl demo``."""

import argparse
import logging
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import matplotlib as mpl
import pandas as pd
import scvi
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset, write_elem
from lightning.pytorch import Callback
from matplotlib.axes import Axes
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from . import datasets, pl
from .model.scrcl import SCRCL
from .utils import keys
from .utils.checks import check_key, check_n_clusters
from .utils.progress import begin, listening

#: Results go to standard output; progress and errors to standard error.
results, console = Console(), Console(stderr=True)

#: Packages whose versions decide the result.
RECORDED = ("scrcl", "scvi-tools", "torch", "anndata", "scanpy", "scikit-learn", "igraph", "numpy")


class UserError(Exception):
    """Something that the user can mend; shown without a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments; those of the process by default.

    Returns
    -------
    Exit status: 0 success, 1 an error that is explained on standard error, 2 wrong usage, 130 interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        _run(arguments)
    except (UserError, ValueError, KeyError, TypeError, OSError, MemoryError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        console.print(f"[bold red]error:[/] {type(error).__name__ if not str(message) else ''}", end="")
        console.print(str(message), markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted. Nothing was written.")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scrcl", description="Find cell types in single-cell counts without labels.")
    parser.add_argument("--version", action="version", version=f"scrcl {version('scrcl')}")
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="find cell types in an .h5ad file of counts")
    run.add_argument("input", type=Path, help="cells by genes, raw counts of all genes")
    run.add_argument("-o", "--output", type=Path, required=True, help=".h5ad file to write")
    run.add_argument("--layer", help="layer that holds the counts (default: X)")
    run.add_argument("--spatial-key", metavar="KEY", help="obsm that holds coordinates, to find domains in space")
    run.add_argument("--sample-key", metavar="KEY", help="obs column of the slice of each cell (default: one slice)")

    demo = commands.add_parser("demo", help="the same on 700 PBMC that scanpy ships, compared with their annotation")
    demo.add_argument("-o", "--output", type=Path, help=".h5ad file to write (default: scrcl-demo.h5ad, replaced)")

    for command in (run, demo):
        command.add_argument("--n-clusters", type=int, help="number of clusters (default: found)")
        command.add_argument("--epochs", type=int, help="number of training epochs")
        command.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
        command.add_argument("--plots", type=Path, metavar="DIR", help="folder for plots, made if need be")
        command.add_argument(
            "--markers", type=Path, metavar="FILE", help=".csv file for the marker genes of the clusters"
        )
        command.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    is_demo = arguments.command == "demo"
    source: Path | None = None if is_demo else arguments.input
    output = arguments.output or Path("scrcl-demo.h5ad")
    _check_paths(source, output, arguments.plots, arguments.overwrite or arguments.output is None)
    if arguments.markers:
        _check_paths(source, arguments.markers, None, arguments.overwrite)
        if arguments.markers.resolve() == output.resolve():
            raise UserError(f"--markers names the output, {output}. Name another file.")

    table = _writable(arguments.markers) if arguments.markers else nullcontext()
    stages = _Stages()
    with _writable(output) as unfinished, table as unfinished_table, _quiet(), stages, listening(stages):
        begin("reading")
        space = {} if is_demo else {"spatial_key": arguments.spatial_key, "sample_key": arguments.sample_key}
        adata = datasets.pbmc700() if source is None else _read(source, arguments.layer, arguments.spatial_key)
        check_n_clusters(arguments.n_clusters, adata.n_obs, "--n-clusters")
        scvi.settings.seed = arguments.seed
        SCRCL.setup_anndata(adata, **space)
        model = SCRCL(adata)
        model.train(arguments.epochs, enable_progress_bar=False, callbacks=[_OnBatch(stages)])
        if model.trainer.interrupted:
            raise KeyboardInterrupt
        adata.obsm[keys.LATENT_KEY] = model.get_latent_representation()
        adata.obs[keys.CLUSTERS_KEY] = model.get_clusters(n_clusters=arguments.n_clusters, seed=arguments.seed)
        if unfinished_table:
            begin("marker genes")
            _markers(model, adata, arguments.seed).to_csv(unfinished_table, index=False)
        if arguments.plots:
            begin("plots")
            _plot(model, adata, arguments.plots, ["bulk_labels"] if is_demo else [], **space)
        begin("writing")
        adata.uns[keys.RUN_KEY] = _record(arguments, model, adata, stages.seconds)
        _write(adata, source, unfinished, output)

    _report(adata, stages.seconds, output)
    if is_demo:
        _compare(adata)


def _check_paths(source: Path | None, output: Path, plots: Path | None, overwrite: bool) -> None:
    """Refuse, before any work is done, what could not be read or written in the end."""
    if source is not None:
        if not source.is_file():
            raise UserError(f"{source} is not a file. Name an .h5ad file of counts.")
        if output.exists() and os.path.samefile(source, output):
            raise UserError(f"{output} is the input, which is never overwritten. Name another output.")
    if output.is_dir():
        raise UserError(f"{output} is a folder. Name a file in it: -o {output / 'out.h5ad'}.")
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists already. Name another output, or pass --overwrite to replace it.")
    if plots is not None:
        try:
            plots.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"The folder {plots} for plots cannot be made: {error.strerror}.") from error


@contextmanager
def _writable(output: Path) -> Iterator[Path]:
    """A file beside the output that takes its place when all is written, and goes when anything fails."""
    try:
        handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.", suffix=".unfinished")
    except OSError as error:
        raise UserError(
            f"{output} cannot be written: {error.strerror}. Name an output in a folder of yours."
        ) from error
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        umask = os.umask(0)
        os.umask(umask)
        unfinished.chmod(0o666 & ~umask)
        os.replace(unfinished, output)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the chatter of the libraries out of the progress display."""
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("scvi").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", message=".* of memory, but")
        yield


class _Stages:
    """The phases of a run: a progress bar for each, and the seconds it took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._present: tuple[str, TaskID, float] | None = None

    def __enter__(self) -> "_Stages":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end()
        self._progress.stop()

    def begin(self, phase: str) -> None:
        if self._present is None or self._present[0] != phase:
            self._end()
            self._present = phase, self._progress.add_task(phase, total=None), time.perf_counter()

    def advance(self, done: int, total: int) -> None:
        if self._present is not None:
            self._progress.update(self._present[1], total=total, completed=done)

    def _end(self) -> None:
        if self._present is not None:
            phase, task, start = self._present
            self.seconds[phase] = self.seconds.get(phase, 0) + time.perf_counter() - start
            total = self._progress.tasks[task].total or 1
            self._progress.update(task, total=total, completed=total)
            self._present = None


class _OnBatch(Callback):
    """Tells how many batches of training are done."""

    def __init__(self, stages: _Stages) -> None:
        self._stages = stages

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self._stages.advance(trainer.global_step, int(trainer.max_epochs * trainer.num_training_batches))


def _read(path: Path, layer: str | None, spatial_key: str | None) -> AnnData:
    """Everything that a run needs of a file; the counts stay there and are read in blocks, as ``X``."""
    try:
        file = h5py.File(path, "r")
        if layer is not None:
            check_key(layer, file["layers"], "layer", f"the layers of {path}")
        element = file["X" if layer is None else f"layers/{layer}"]
        counts = element if isinstance(element, h5py.Dataset) else sparse_dataset(element)
        if getattr(counts, "format", "csr") == "csc":
            counts = read_elem(element)
        adata = AnnData(counts, obs=read_elem(file["obs"]), var=read_elem(file["var"]))
        if spatial_key is not None:
            check_key(spatial_key, file["obsm"], "--spatial-key", f"obsm of {path}")
            adata.obsm[spatial_key] = read_elem(file["obsm"][spatial_key])
        return adata
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        if isinstance(error, KeyError) and not (layer is None and spatial_key is None):
            raise
        raise UserError(f"{path} cannot be read as an .h5ad file: {error}") from error


def _write(adata: AnnData, source: Path | None, unfinished: Path, output: Path) -> None:
    """Write the results, beside all that the source holds."""
    try:
        if source is None:
            adata.write_h5ad(unfinished)
            return
        shutil.copyfile(source, unfinished)
        with h5py.File(unfinished, "r+") as file:
            write_elem(file, "obs", adata.obs)
            write_elem(file, "var", adata.var)
            for name in ("obsm", "obsp", "varm", "varp", "uns"):
                group = file.require_group(name)
                for key, value in getattr(adata, name).items():
                    write_elem(group, key, value)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{output} cannot be written: {error}. Free space there, or name an output elsewhere. Nothing is left of it."
        ) from error


def _markers(model: SCRCL, adata: AnnData, seed: int) -> pd.DataFrame:
    """Marker genes of the clusters; none where there is only one cluster."""
    if adata.obs[keys.CLUSTERS_KEY].nunique() < 2:
        console.print("There is only one cluster, so there are no marker genes.")
        return pd.DataFrame()
    return model.get_marker_genes(adata, keys.CLUSTERS_KEY, seed=seed)


def _plot(
    model: SCRCL,
    adata: AnnData,
    folder: Path,
    annotations: Sequence[str],
    spatial_key: str | None = None,
    sample_key: str | None = None,
) -> None:
    mpl.use("Agg")
    for name, axes in (
        ("history", pl.history(model)),
        ("umap", pl.umap(adata)),
        ("cluster_sizes", pl.cluster_sizes(adata)),
        *((f"umap_{name}", pl.umap(adata, color=name)) for name in annotations),
        *(() if spatial_key is None else _maps(adata, spatial_key, sample_key)),
    ):
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")


def _maps(adata: AnnData, spatial_key: str, sample_key: str | None) -> Iterator[tuple[str, Axes]]:
    """A map of each slice, with a name for its file."""
    if sample_key is None:
        yield "spatial", pl.spatial(adata, spatial_key=spatial_key)
        return
    samples = adata.obs[sample_key].astype(str)
    for sample in samples.unique():
        name = re.sub(r"[^\w.-]+", "_", f"spatial_{sample}")
        yield name, pl.spatial(adata[samples == sample], spatial_key=spatial_key)


def _record(arguments: argparse.Namespace, model: SCRCL, adata: AnnData, seconds: dict[str, float]) -> dict[str, Any]:
    """What was run, in a form that .h5ad can hold."""
    given = {name: value for name, value in model.init_params_["non_kwargs"].items() if value is not None}
    parameters = {**given, "epochs": len(model.history["train_loss"])}
    parameters["n_clusters"] = arguments.n_clusters or "found"
    parameters["layer"] = getattr(arguments, "layer", None) or "X"
    parameters["spatial_key"] = getattr(arguments, "spatial_key", None) or ""
    parameters["sample_key"] = getattr(arguments, "sample_key", None) or ""
    return {
        "versions": {name: version(name) for name in RECORDED},
        "parameters": parameters,
        "seed": arguments.seed,
        "sizes": {
            "cells": adata.n_obs,
            "genes": adata.n_vars,
            "genes_kept": int(adata.var[keys.GENES_KEY].sum()),
            "clusters": adata.obs[keys.CLUSTERS_KEY].nunique(),
        },
        "seconds": {name.replace(" ", "_"): round(value, 3) for name, value in seconds.items()},
    }


def _report(adata: AnnData, seconds: dict[str, float], output: Path) -> None:
    clusters = Table(title=f"{adata.n_obs:,} cells, {adata.obs[keys.CLUSTERS_KEY].nunique()} clusters")
    for column in ("cluster", "cells", "share"):
        clusters.add_column(column, justify="right")
    for name, size in adata.obs[keys.CLUSTERS_KEY].value_counts().items():
        clusters.add_row(str(name), f"{size:,}", f"{size / adata.n_obs:.1%}")
    results.print(clusters)
    total = sum(seconds.values())
    results.print(f"{total:.1f} s: " + ", ".join(f"{name} {value / total:.0%}" for name, value in seconds.items()))
    results.print(f"Written to {output}: obsm['{keys.LATENT_KEY}'], obs['{keys.CLUSTERS_KEY}'], uns['{keys.RUN_KEY}']")


def _compare(adata: AnnData) -> None:
    """Compare the clusters of the demo with the published annotation."""
    found, published = adata.obs[keys.CLUSTERS_KEY], adata.obs["bulk_labels"]
    counts = pd.crosstab(found, published)
    table = Table(title="Clusters against the published annotation, which the model never saw")
    table.add_column("cluster", justify="right")
    table.add_column("cells", justify="right")
    table.add_column("most frequent published types")
    for name, row in counts.iterrows():
        top = row.sort_values(ascending=False).head(3)
        listed = ", ".join(f"{kind} {size / row.sum():.0%}" for kind, size in top.items() if size)
        table.add_row(str(name), str(row.sum()), listed)
    results.print(table)
    results.print(
        f"Agreement: adjusted Rand index {adjusted_rand_score(published, found):.2f}, "
        f"normalised mutual information {normalized_mutual_info_score(published, found):.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
