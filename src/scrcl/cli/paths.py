"""Checks of paths, before any work: what could not be read, and what could not be written in the end."""

import os
import shlex
import tempfile
from itertools import combinations
from pathlib import Path

from .config import Config, NamesConfig, PredictConfig, RunConfig
from .errors import UserError
from .options import FORMATS

#: Endings of the files that are written, by option.
SUFFIXES = {
    "-o": (".h5ad", ".h5mu"),
    "--markers": (".csv",),
    "--tree": (".csv",),
    "--table": (".csv",),
    "--report": (".html", ".pdf"),
}
#: Name of the file in the folder of a saved model.
MODEL = "model.pt"
#: Names of the matrix in a folder of 10x.
MATRIX = ("matrix.mtx.gz", "matrix.mtx")
TABLES = (".csv", ".tsv", ".txt")
#: What to do with files that are not read, by ending.
REMEDIES = {
    ".mtx": "Name the folder it is in: {folder}.",
    ".rds": "Convert it in R, `anndataR::write_h5ad(object, 'counts.h5ad')`, and name that file.",
    ".h5seurat": "Convert it in R, `SeuratDisk::Convert('file.h5seurat', dest='h5ad')`, and name that file.",
    ".tar": "Unpack it, `tar -xf`, and name what is in it.",
    ".xlsx": "Save it as .csv, and name that file.",
    ".parquet": "Save it as .csv, `pandas.read_parquet(...).to_csv('counts.csv')`, and name that file.",
}
STORES = (".h5ad", ".h5mu", ".h5", ".zarr", ".zip", ".loom", ".hdf5")


def check_paths(config: Config) -> None:
    """Refuse what could not be read or written.

    Raises
    ------
    UserError
        With the option that names it.
    """
    if config.input is not None:
        _check_input(config.input, config.transpose)
    files, folders = _written(config)
    _check_distinct(config.input, files, folders)
    for option, path in files.items():
        _check_output(path, config.overwrite or (option == "-o" and config.replace_output), option)
    for option, path in folders.items():
        if option == "--save-model" and os.path.lexists(path) and not config.overwrite:
            raise UserError(
                f"{path} exists already.",
                "Name another folder after --save-model, or pass --overwrite to replace the model in it.",
            )
        _check_folder(path, option)


def _written(config: Config) -> tuple[dict[str, Path], dict[str, Path]]:
    """Files and folders that are written, by option."""
    files: dict[str, Path | None] = {}
    folders: dict[str, Path | None] = {}
    if isinstance(config, RunConfig | PredictConfig | NamesConfig):
        files["-o"] = config.output
    if isinstance(config, NamesConfig):
        files["--table"] = config.table
    if isinstance(config, RunConfig):
        files |= {"--markers": config.markers, "--tree": config.tree, "--report": config.report}
        folders = {"--plots": config.plots, "--save-model": config.save_model}
    named = [{option: path for option, path in paths.items() if path is not None} for paths in (files, folders)]
    return named[0], named[1]


def _check_distinct(source: Path | None, files: dict[str, Path], folders: dict[str, Path]) -> None:
    """Refuse options that name the same file or folder, or something inside of what will be a file."""
    written = files | folders
    for option, path in written.items():
        if source is not None and _same(source, path):
            raise UserError(f"{path} is the input, which is never overwritten.", f"Name another path after {option}.")
    for (other, earlier), (option, path) in combinations(written.items(), 2):
        kind = "folder" if option in folders else "file"
        if _same(earlier, path):
            raise UserError(f"{option} names the file of {other}, {path}.", f"Name another {kind}.")
        if other in files and earlier.resolve() in path.resolve().parents:
            raise UserError(f"{option} {path} is inside {earlier}, the file of {other}.", f"Name another {kind}.")


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are of the same file, by any name or link."""
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
                f"{option} {path}: the folder cannot be made or written to:{where} {error.strerror}.",
                "Name another folder.",
            ) from error


def suffix(path: Path) -> str:
    """The ending of a name, without ``.gz``."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _check_input(source: Path, transpose: bool) -> None:
    if str(source) == "-" or (source.exists() and not source.is_file() and not source.is_dir()):
        raise UserError(
            f"{source} is a pipe or a device, which is not read, as formats are found in files.",
            f"Write it to a file first, and name that: {FORMATS}.",
        )
    if not source.exists():
        raise UserError(f"{source} does not exist.", f"Name {FORMATS}.")
    is_table = source.is_file() and suffix(source) in TABLES
    if source.suffix.lower() == ".zip" and suffix(source.with_suffix("")) in TABLES:
        raise UserError(
            f"{source} is a zip archive of a table.", f"Unpack it first: `unzip {shlex.quote(str(source))}`."
        )
    if (source / MODEL).is_file():
        raise UserError(
            f"{source} is a saved model, not data.",
            "Name the model first, and then the data: `scrcl predict model/ new.h5ad -o out.h5ad`.",
        )
    if source.is_dir():
        names = sorted(path.name for path in source.iterdir())
        is_zarr = bool({".zgroup", "zarr.json"} & set(names))
        if not is_zarr and not any(name.endswith(MATRIX) for name in names):
            inside = [name for name in names if "feature_bc_matrix" in name]
            other = next((name for name in names if name.endswith((".mtx", ".mtx.gz"))), None)
            if other is not None:
                raise UserError(
                    f"The folder {source} holds a matrix, {other}, but not by the names of 10x.",
                    "Name the three files matrix.mtx, barcodes.tsv (cells) and features.tsv (genes, without a header).",
                )
            raise UserError(
                f"The folder {source} holds neither a matrix of 10x (matrix.mtx.gz) nor a zarr store.",
                f"Name what is in it: {source / inside[0]}." if inside else f"Name {FORMATS}.",
            )
    elif not is_table and suffix(source) not in STORES:
        remedy = REMEDIES.get(suffix(source), f"Name {FORMATS}.").format(folder=source.parent)
        raise UserError(f"{source} is of no format that is read.", remedy)
    if transpose and not is_table:
        raise UserError(f"--transpose is for tables, but {source} is none.", "Leave it out.")


def _check_output(output: Path, overwrite: bool, option: str) -> None:
    if output.is_dir():
        raise UserError(f"{output} is a folder.", f"Name a file in it after {option}.")
    if not os.path.lexists(output.parent):
        raise UserError(
            f"{option} {output}: there is no folder {output.parent}.",
            f"Make it first: `mkdir -p {shlex.quote(str(output.parent))}`.",
        )
    if output.suffix.lower() not in SUFFIXES[option]:
        raise UserError(
            f"{option} {output} has the wrong suffix.", f"Name a file that ends in {' or '.join(SUFFIXES[option])}."
        )
    if os.path.lexists(output) and not overwrite:
        raise UserError(
            f"{output} exists already.", f"Name another file after {option}, or pass --overwrite to replace it."
        )
