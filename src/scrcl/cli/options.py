"""The commands and their options. Reading them imports nothing that takes time."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from .config import NamesConfig, PredictConfig, RunConfig

Command = TypeVar("Command", bound=Callable[..., object])

#: Ways to cluster, and kinds of modalities that hold counts; as the model has them.
METHODS = ("consensus", "kmeans", "leiden")
KINDS = ("rna", "protein", "atac")
#: What --layer raw reads, where no layer has this name.
RAW = "the counts and genes that AnnData keeps in .raw"
#: The formats that are read.
FORMATS = (
    "an .h5ad or .h5mu file, a .zarr folder, an .h5 file or a folder of 10x (with matrix.mtx.gz), or a table: .csv or .tsv, "
    "optionally .gz"
)


class Number(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        number = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class UserPath(click.Path):
    """A path, in which a leading ``~`` is the home of its user."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Read it."""
        if "://" in str(value):
            self.fail(f"{value} is an address, not a file. Download it first, and name the file.", param, ctx)
        return Path(os.path.expanduser(str(super().convert(value, param, ctx))))


class Device(click.ParamType):
    """Where to train."""

    name = "device"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it."""
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            hint = ", as PyTorch has no compressed sparse matrices on Apple GPUs" if value == "mps" else ""
            self.fail(f"{value!r} is not auto, cpu, cuda or cuda:N{hint}.", param, ctx)
        return str(value)


class Modalities(click.ParamType):
    """Names of modalities and their kinds."""

    name = "name=kind,..."

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        """Read them."""
        found = pairs(value)
        if found is None or not set(found.values()) <= set(KINDS):
            example = "for example rna=rna,prot=protein"
            self.fail(f"{value!r} does not give each modality a kind ({', '.join(KINDS)}), {example}.", param, ctx)
        return found


def pairs(text: str) -> dict[str, str] | None:
    """Read ``a=b,c=d``; ``None`` if it is something else."""
    parts = [part.strip().partition("=") for part in text.split(",")]
    return {name: value for name, _, value in parts} if all(name and value for name, _, value in parts) else None


def _options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Options that several commands share."""
    return lambda command: reduce(lambda decorated, decorate: decorate(decorated), reversed(decorators), command)


PATH = UserPath()
_output_option = click.option(
    "-o", "--output", type=PATH, required=True, help=".h5ad file to write; .h5mu for several modalities."
)
_symbols_option = click.option(
    "--gene-symbols", metavar="KEY", help="var column of the symbols of genes, for markers, names and the report."
)
_modalities_option = click.option(
    "--modalities",
    type=Modalities(),
    help=f"Modalities of an .h5mu file to use, and their kinds ({', '.join(KINDS)}), for example rna=rna,prot=protein.",
)
_input_options = _options(
    click.option(
        "--layer",
        help=f"Layer that holds the counts, or raw ({RAW}), or X; for several modalities, rna=counts,prot=raw. Default: X "
        "for run, the layer of the model for predict.",
    ),
    click.option("--raw", is_flag=True, help="The same as --layer raw."),
    click.option("--transpose", is_flag=True, help="The table has genes in rows and cells in columns."),
)
_analysis_options = _options(
    click.option("--n-clusters", type=click.IntRange(2), help="Number of clusters. Default: estimated."),
    click.option(
        "--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True, help="Clustering method."
    ),
    click.option(
        "--resolution", type=Number(0, min_open=True), help="Resolution of --method leiden: higher gives more clusters."
    ),
    click.option("--epochs", type=click.IntRange(1), help="Number of training epochs."),
    click.option("--batch-size", type=click.IntRange(1), help="Cells in a minibatch of training."),
    click.option("--device", type=Device(), default="auto", show_default=True, help="auto, cpu, cuda, or cuda:N."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed."),
    click.option("--plots", type=PATH, help="Folder for plots."),
    click.option("--markers", type=PATH, help=".csv file for the marker genes of the clusters."),
    click.option(
        "--tree", type=PATH, help=".csv file for the tree of clusters, with the evidence that each split is real."
    ),
    click.option(
        "--names", metavar="MARKERS", help="Name the clusters: cellconsensus, or a file of lists, as scrcl names has."
    ),
    click.option("--report", type=PATH, help=".html or .pdf file for a report of the results."),
)
_shared_options = _options(
    click.option("--json", is_flag=True, help="Print the results in JSON instead of tables."),
    click.option("--overwrite", is_flag=True, help="Replace files that exist."),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("scrcl"), prog_name="scrcl", message="%(prog)s %(version)s")
def commands() -> None:
    """Find cell types in single-cell counts without labels."""


@commands.command()
@click.argument("input", type=PATH, help=f"Raw counts of all genes: {FORMATS}.")
@_output_option
@_input_options
@_modalities_option
@click.option("--spatial-key", metavar="KEY", help="obsm key of coordinates, to find spatial domains.")
@click.option("--sample-key", metavar="KEY", help="obs column of the slice of each cell. Default: one slice.")
@click.option(
    "--batch-key",
    metavar="KEY",
    multiple=True,
    callback=lambda context, option, keys: keys[0] if len(keys) == 1 else list(keys) or None,
    help="obs column of the batch of each cell, whose effect is corrected. Repeat it for several columns.",
)
@click.option("--condition-key", metavar="KEY", help="obs column of conditions, whose effect is not corrected.")
@click.option(
    "--labels-key", metavar="KEY", help="obs column of types, known for some cells, to learn from and to predict."
)
@click.option("--unlabeled-category", metavar="NAME", help="Value of --labels-key for cells without a label.")
@_symbols_option
@click.option("--save-model", type=PATH, help="Folder for the trained model, for scrcl predict.")
@_analysis_options
@_shared_options
def run(**options: Any) -> RunConfig:
    """Find cell types in a file of counts."""
    return RunConfig(**options)


@commands.command()
@click.option("-o", "--output", type=PATH, help=".h5ad file to write. Default: scrcl-demo.h5ad, which is replaced.")
@_analysis_options
@_shared_options
def demo(output: Path | None, **options: Any) -> RunConfig:
    """Run on 700 PBMC that scanpy ships, and compare with their annotation."""
    return RunConfig(input=None, output=output or Path("scrcl-demo.h5ad"), replace_output=output is None, **options)


@commands.command()
@click.argument("model", type=PATH, help="Folder of a model that scrcl run --save-model wrote.")
@click.argument("input", type=PATH, help=f"Raw counts of new cells, with the same genes: {FORMATS}.")
@_output_option
@_input_options
@click.option(
    "--alpha",
    type=Number(0, 1, max_open=True),
    default=0.01,
    show_default=True,
    help="Expected share of outliers, which stay unassigned, among cells like the cells of the model.",
)
@_shared_options
def predict(**options: Any) -> PredictConfig:
    """Find clusters, and types if it learned any, of new cells by a saved model."""
    return PredictConfig(**options)


@commands.command()
@click.argument("input", type=PATH, help="File with counts and clusters, such as what scrcl run wrote.")
@click.option(
    "--markers",
    required=True,
    help="Marker genes: cellconsensus, or a .json file of a dictionary of lists, a .gmt file, or a .csv file with columns source "
    "and target.",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    help=".h5ad file to write, with the names of cells in obs; .h5mu for several modalities.",
)
@click.option("--table", type=PATH, help=".csv file for the names of clusters, with their evidence.")
@click.option("--groupby", metavar="KEY", default="scrcl", show_default=True, help="obs column of the clusters.")
@click.option("--layer", help=f"Layer that holds the counts, or raw ({RAW}), or X. Default: that of scrcl run, or X.")
@click.option("--raw", is_flag=True, help="The same as --layer raw.")
@_modalities_option
@_symbols_option
@click.option(
    "--orthologs", type=PATH, help=".csv file with the genes of two organisms, if the markers are of another."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed.")
@_shared_options
def names(**options: Any) -> NamesConfig:
    """Name the clusters of a file from marker genes."""
    return NamesConfig(**options)


def _checked(config: RunConfig | PredictConfig | NamesConfig) -> RunConfig | PredictConfig | NamesConfig:
    """Refuse options that do not go together, and resolve ``raw``."""
    if config.raw and config.layer not in (None, "raw"):
        raise click.UsageError(f"--raw is the same as --layer raw. Pass either --raw or --layer {config.layer}.")
    layer = "raw" if config.raw else config.layer
    if isinstance(config, PredictConfig | NamesConfig):
        return replace(config, layer=layer)
    if config.sample_key is not None and config.spatial_key is None:
        raise click.UsageError("--sample-key requires coordinates. Pass --spatial-key spatial, too.")
    if config.condition_key is not None and config.batch_key is None:
        raise click.UsageError("--condition-key requires batches. Pass --batch-key donor, too.")
    if config.unlabeled_category is not None and config.labels_key is None:
        raise click.UsageError("--unlabeled-category requires labels. Pass --labels-key cell_type, too.")
    if config.resolution is not None and (config.method != "leiden" or config.n_clusters is not None):
        raise click.UsageError("--resolution requires --method leiden without --n-clusters.")
    return replace(config, layer=None if layer == "X" else layer)


def parse(argv: Sequence[str]) -> RunConfig | PredictConfig | NamesConfig:
    """Read the arguments; ends the process where they are wrong, or ask for help or the version."""
    try:
        config = commands.main(list(argv), prog_name="scrcl", standalone_mode=False)
        if not isinstance(config, RunConfig | PredictConfig | NamesConfig):
            sys.exit(0)
        return replace(_checked(config), command=shlex.join(["scrcl", *argv]))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
