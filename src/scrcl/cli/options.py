"""The options, and what can be refused before anything is imported that takes time."""

import argparse
import os
import re
import tempfile
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

from .errors import UserError

#: Ways to cluster, and kinds of modalities that hold counts; as the model has them.
METHODS = ("consensus", "kmeans", "leiden")
KINDS = ("rna", "protein", "atac")
#: How the files that are written are called.
SUFFIXES = {"-o": (".h5ad", ".h5mu"), "--markers": (".csv",), "--report": (".html", ".pdf")}
#: What messages about paths call the input.
INPUT = "the input"

#: What a matrix of 10x is called in its folder.
MATRIX = ("matrix.mtx.gz", "matrix.mtx")
TABLES = (".csv", ".tsv", ".txt")
STORES = (".h5ad", ".h5mu", ".h5", ".zarr", ".zip", ".loom", ".hdf5")
#: What --layer raw reads, where no layer has this name.
RAW = "the counts and genes that AnnData keeps in .raw"
KNOWN = (
    "an .h5ad or .h5mu file, a .zarr folder, an .h5 file or a folder of 10x (with matrix.mtx.gz), or a table: .csv or .tsv, "
    "maybe .gz"
)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments; ends the process where they are wrong."""
    parser = argparse.ArgumentParser(prog="scrcl", description="Find cell types in single-cell counts without labels.")
    parser.add_argument("--version", action="version", version=f"scrcl {version('scrcl')}")
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="find cell types in a file of counts", allow_abbrev=False)
    run.add_argument("input", type=Path, help=f"raw counts of all genes: {KNOWN}")
    run.add_argument(
        "-o", "--output", type=Path, required=True, help=".h5ad file to write; .h5mu of several modalities"
    )
    run.add_argument(
        "--layer", help=f"layer that holds the counts, or raw ({RAW}; default: X); of modalities: rna=counts,prot=raw"
    )
    run.add_argument("--raw", dest="layer", action="store_const", const="raw", help="the same as --layer raw")
    run.add_argument(
        "--modalities",
        type=_modalities,
        metavar="NAME=KIND,...",
        help=f"modalities of an .h5mu file to use, and their kinds: {', '.join(KINDS)}; e.g. rna=rna,prot=protein",
    )
    run.add_argument("--transpose", action="store_true", help="the table has genes in rows and cells in columns")
    run.add_argument("--spatial-key", metavar="KEY", help="obsm that holds coordinates, to find domains in space")
    run.add_argument("--sample-key", metavar="KEY", help="obs column of the slice of each cell (default: one slice)")
    run.add_argument(
        "--batch-key", metavar="KEY", help="obs column of the batch of each cell, whose effect is corrected"
    )
    run.add_argument(
        "--labels-key", metavar="KEY", help="obs column of types, known for some cells, to learn from and to complete"
    )
    run.add_argument(
        "--unlabeled-category", metavar="NAME", help="what --labels-key has for a cell without a label; maybe nothing"
    )
    run.add_argument("--save-model", type=Path, metavar="DIR", help="folder for the trained model, for scrcl predict")

    predict = commands.add_parser(
        "predict", help="find the clusters of further cells by a saved model, and their types", allow_abbrev=False
    )
    predict.add_argument("model", type=Path, help="folder of a model that scrcl run --save-model wrote")
    predict.add_argument("input", type=Path, help=f"raw counts of further cells, with the same genes: {KNOWN}")
    predict.add_argument(
        "-o", "--output", type=Path, required=True, help=".h5ad file to write; .h5mu of several modalities"
    )
    predict.add_argument("--layer", help=f"layer that holds the counts, X, or raw ({RAW}; default: as for the model)")
    predict.add_argument("--raw", dest="layer", action="store_const", const="raw", help="the same as --layer raw")
    predict.add_argument("--transpose", action="store_true", help="the table has genes in rows and cells in columns")
    predict.add_argument(
        "--alpha",
        type=_share,
        default=0.01,
        metavar="SHARE",
        help="share of cells like those of the model that may come out as outliers, and unassigned (default: 0.01)",
    )
    predict.add_argument("--json", action="store_true", help="print the results in JSON instead of a table")
    predict.add_argument("--overwrite", action="store_true", help="replace files that exist")
    predict.set_defaults(markers=None, report=None, plots=None, save_model=None, resolution=None, sample_key=None)

    demo = commands.add_parser(
        "demo", help="the same on 700 PBMC that scanpy ships, compared with their annotation", allow_abbrev=False
    )
    demo.add_argument("-o", "--output", type=Path, help=".h5ad file to write (default: scrcl-demo.h5ad, replaced)")
    demo.set_defaults(input=None, layer=None, modalities=None, transpose=False)
    demo.set_defaults(spatial_key=None, sample_key=None, batch_key=None)
    demo.set_defaults(labels_key=None, unlabeled_category=None, save_model=None)

    for command in (run, demo):
        command.add_argument("--n-clusters", type=_whole(2), metavar="K", help="number of clusters (default: found)")
        command.add_argument(
            "--method", choices=METHODS, default=METHODS[0], help="how to cluster (default: consensus)"
        )
        command.add_argument("--resolution", type=_resolution, help="of --method leiden: more gives more clusters")
        command.add_argument("--epochs", type=_whole(1), metavar="N", help="number of training epochs")
        command.add_argument("--batch-size", type=_whole(1), metavar="N", help="cells of a batch of training")
        command.add_argument("--device", type=_device, default="auto", help="auto (default), cpu, cuda, or cuda:N")
        command.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="seed (default: 0)")
        command.add_argument("--plots", type=Path, metavar="DIR", help="folder for plots, made if need be")
        command.add_argument(
            "--markers", type=Path, metavar="FILE", help=".csv file for the marker genes of the clusters"
        )
        command.add_argument(
            "--report", type=Path, metavar="FILE", help=".html or .pdf page of the results, to pass on"
        )
        command.add_argument("--json", action="store_true", help="print the results in JSON instead of a table")
        command.add_argument("--overwrite", action="store_true", help="replace files that exist")
    arguments = parser.parse_args(argv)
    if arguments.resolution is not None and (arguments.method != "leiden" or arguments.n_clusters is not None):
        parser.error("--resolution is used by --method leiden without --n-clusters only")
    if arguments.sample_key is not None and arguments.spatial_key is None:
        parser.error("--sample-key tells of cells in space. Name their coordinates, too: --spatial-key spatial")
    if getattr(arguments, "unlabeled_category", None) is not None and arguments.labels_key is None:
        parser.error("--unlabeled-category tells of labels. Name them, too: --labels-key cell_type")
    arguments.replace_output = arguments.overwrite or arguments.output is None
    arguments.output = arguments.output or Path("scrcl-demo.h5ad")
    return arguments


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
        return int(text)

    return read


def _resolution(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to below 1, not {text!r}")
    return value


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        hint = ", which has no sparse products" if text == "mps" else ""
        raise argparse.ArgumentTypeError(f"must be auto, cpu, cuda, or cuda:N, not {text!r}{hint}")
    return text


def _modalities(text: str) -> dict[str, str]:
    found = pairs(text)
    if found is None or not set(found.values()) <= set(KINDS):
        raise argparse.ArgumentTypeError(
            f"must name modalities and their kinds, which are {', '.join(KINDS)}, as in rna=rna,prot=protein; not {text!r}"
        )
    return found


def pairs(text: str) -> dict[str, str] | None:
    """Read ``a=b,c=d``; ``None`` if it is something else."""
    parts = [part.strip().partition("=") for part in text.split(",")]
    return {name: value for name, _, value in parts} if all(name and value for name, _, value in parts) else None


def check_paths(arguments: argparse.Namespace) -> None:
    """Refuse, before any work is done, what could not be read or written in the end."""
    source, output = arguments.input, arguments.output
    if source is not None:
        _check_input(source, arguments)
    files = {"-o": output, "--markers": arguments.markers, "--report": arguments.report}
    folders = {"--plots": arguments.plots, "--save-model": arguments.save_model}
    _check_apart({INPUT: source, **files, **folders}, folders)
    for option, path in files.items():
        if path is None:
            continue
        _check_output(path, arguments.replace_output if option == "-o" else arguments.overwrite, option)
    if arguments.save_model is not None and os.path.lexists(arguments.save_model) and not arguments.overwrite:
        raise UserError(
            f"{arguments.save_model} exists already. Name another folder after --save-model, or pass --overwrite to replace "
            "the model in it."
        )
    for option, path in folders.items():
        if path is not None:
            _check_folder(path, option)


def _check_apart(paths: dict[str, Path | None], folders: Collection[str]) -> None:
    """Refuse options that name the same file or folder, or something inside of what will be a file."""
    named = {option: path for option, path in paths.items() if path is not None}
    for (other, earlier), (option, path) in combinations(named.items(), 2):
        kind = "folder" if option in folders else "file"
        if _same(earlier, path):
            if other == INPUT:
                raise UserError(f"{path} is the input, which is never overwritten. Name another {kind} after {option}.")
            raise UserError(f"{option} names the file of {other}, {path}. Name another {kind}.")
        if other not in (INPUT, *folders) and earlier.resolve() in path.resolve().parents:
            raise UserError(f"{option} {path} is inside {earlier}, the file of {other}. Name another {kind}.")


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are of one thing, by whatever name or link."""
    if one.exists() and other.exists():
        return os.path.samefile(one, other)
    return one.resolve() == other.resolve()


def _check_folder(path: Path, option: str) -> None:
    """Refuse a folder that cannot be made or written to."""
    made = path
    while not os.path.lexists(made) and made != made.parent:
        made = made.parent
    # A model is written beside its folder, and then takes its place there.
    beside = [path.parent] if option == "--save-model" and made == path else []
    for folder in (made, *beside):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            where = "" if folder == path else f" {folder} is in its way:"
            raise UserError(
                f"{option} {path}: the folder cannot be made or written to:{where} {error.strerror}. Name another folder."
            ) from error


def suffix(path: Path) -> str:
    """What a file is called at the end, without ``.gz``."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _check_input(source: Path, arguments: argparse.Namespace) -> None:
    if not source.exists():
        raise UserError(f"{source} does not exist. Name {KNOWN}.")
    is_table = source.is_file() and suffix(source) in TABLES
    if source.is_dir():
        names = sorted(path.name for path in source.iterdir())
        is_zarr = bool({".zgroup", "zarr.json"} & set(names))
        if not is_zarr and not any(name.endswith(MATRIX) for name in names):
            inside = [name for name in names if "feature_bc_matrix" in name]
            mend = f"Name what is in it: {source / inside[0]}." if inside else f"Name {KNOWN}."
            raise UserError(
                f"The folder {source} holds neither a matrix of 10x (matrix.mtx.gz) nor a zarr store. {mend}"
            )
    elif not is_table and suffix(source) not in STORES:
        mend = f"Name the folder it is in: {source.parent}." if suffix(source) == ".mtx" else f"Name {KNOWN}."
        raise UserError(f"{source} is of no kind that is read. {mend}")
    if arguments.transpose and not is_table:
        raise UserError(f"--transpose is for tables, but {source} is none. Leave it out.")


def _check_output(output: Path, overwrite: bool, option: str) -> None:
    if output.is_dir():
        raise UserError(f"{output} is a folder. Name a file in it after {option}.")
    if output.suffix.lower() not in SUFFIXES[option]:
        raise UserError(f"{option} {output} must end in {' or '.join(SUFFIXES[option])}.")
    if os.path.lexists(output) and not overwrite:
        raise UserError(
            f"{output} exists already. Name another file after {option}, or pass --overwrite to replace it."
        )
