"""Writing of files, whole or not at all, and finding first what could not be written in the end."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anndata as ad
import h5py
import pandas as pd
from anndata import AnnData
from anndata.io import write_elem
from mudata import MuData

from scrcl.utils import keys

from .errors import UserError
from .inputs import Input
from .progress import Phases

#: Settings of anndata by which it writes all that it reads; some versions have them.
SETTINGS = {"allow_write_nullable_strings": True, "disallow_forward_slash_in_h5ad": False}
NO_SPACE = "Free space there, or name an output elsewhere."
#: Name that a file of anndata has for the names of cells and genes, so that no column can have it.
RESERVED = "_index"


@contextmanager
def reserved(output: Path | None) -> Iterator[Path | None]:
    """A file beside the output, for :func:`finish`; it goes in the end if it has not become the output."""
    if output is None:
        yield None
        return
    try:
        handle, name = tempfile.mkstemp(dir=output.parent, prefix=".scrcl.", suffix=".unfinished")
    except OSError as error:
        raise UserError(
            f"{output} cannot be written: {error.strerror}.", "Name an output in a folder that you can write to."
        ) from error
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)


def finish(unfinished: Path, output: Path, phases: Phases) -> None:
    """Put a file that is written to its end in the place of the output."""
    umask = os.umask(0)
    os.umask(umask)
    unfinished.chmod(0o666 & ~umask)
    os.replace(unfinished, output)
    phases.wrote(output)


def write_types(data: AnnData | MuData, types: pd.Series, probabilities: pd.DataFrame) -> dict[str, int]:
    """Write types of cells and how probable each is to the data, and count the cells of each, the most frequent first."""
    data.obs[keys.TYPES_KEY] = types
    data.obs[keys.TYPES_CONFIDENCE_KEY] = probabilities.max(axis=1)
    return count(types)


def count(names: pd.Series) -> dict[str, int]:
    """Cells of each type or cluster, the most frequent first."""
    return {str(name): int(size) for name, size in names.value_counts().items() if size}


@contextmanager
def opened(found: Input, output: Path | None, phases: Phases) -> Iterator[AnnData | MuData]:
    """The cells of an input, whose notes are shown; refuses what the output could not hold, and closes the file in the end."""
    with found:
        phases.note(*found.notes)
        if output is not None:
            check_writable(found, output)
        yield found.data


def check_writable(found: Input, output: Path) -> None:
    """Refuse data that the output could not hold: write all but the matrices to a file in memory.

    Raises
    ------
    UserError
        If the name of the output does not fit the data, something in them cannot be written, or there is no room.
    """
    data = found.data
    several = isinstance(data, MuData)
    if several != (output.suffix.lower() == ".h5mu"):
        wanted = ".h5mu, as the input has several modalities" if several else ".h5ad, as the input has one modality"
        raise UserError(f"-o {output} does not fit the input.", f"Name a file that ends in {wanted}.")
    if found.copied is not None:
        size, free = found.copied.stat().st_size, shutil.disk_usage(output.parent).free
        if free < size:
            raise UserError(
                f"{output} cannot be written: it needs more than {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free.",
                NO_SPACE,
            )
    else:
        data.strings_to_categoricals()  # as anndata does when it writes
    modalities = data.mod.items() if isinstance(data, MuData) else ()
    content = {"data": _tables(data), **{f"mod/{name}": _tables(modality) for name, modality in modalities}}
    try:
        with _all_allowed(), h5py.File("check", "w", driver="core", backing_store=False) as file:
            for name, tables in content.items():
                write_elem(file, name, tables)
    except Exception as error:
        raise UserError(
            f"{output} cannot be written: {_cause(error)}.",
            "Convert this entry to numbers or text in the input, or remove it there.",
        ) from error


def _tables(data: AnnData | MuData) -> dict[str, object]:
    """The entries that may hold objects of several types."""
    tables: dict[str, object] = {"obs": _as_written(data.obs), "var": _as_written(data.var), "uns": dict(data.uns)}
    for name in ("obsm", "varm"):
        tables[name] = {key: value for key, value in getattr(data, name).items() if isinstance(value, pd.DataFrame)}
    raw = getattr(data, "raw", None)
    return tables if raw is None else {**tables, "raw": {"var": raw.var}}


def write(found: Input, unfinished: Path, output: Path) -> None:
    """Write the results, beside all that the file holds of which the output is a copy."""
    data = found.data
    try:
        with _all_allowed():
            for part in [data, *data.mod.values()] if isinstance(data, MuData) else [data]:
                part.obs, part.var = _as_written(part.obs), _as_written(part.var)
            if isinstance(data, MuData):
                data.write_h5mu(unfinished)
            elif found.copied is None:
                data.write_h5ad(unfinished)
            else:
                _write_into_copy(data, found.copied, unfinished)
    except Exception as error:
        raise UserError(f"{output} cannot be written: {_cause(error)}.", NO_SPACE) from error


def _write_into_copy(data: AnnData, copied: Path, unfinished: Path) -> None:
    shutil.copyfile(copied, unfinished)
    with h5py.File(unfinished, "r+") as file:
        write_elem(file, "obs", data.obs)
        write_elem(file, "var", data.var)
        for name in ("obsm", "obsp", "varm", "varp", "uns"):
            earlier = file.get(name)
            if isinstance(earlier, h5py.Dataset):  # before anndata 0.7, one table of all
                fields = earlier[()]
                del file[name]
                for key in fields.dtype.names or ():
                    write_elem(file.require_group(name), key, fields[key])
            group = file.require_group(name)
            for key, value in getattr(data, name).items():
                write_elem(group, key, value)


@contextmanager
def _all_allowed() -> Iterator[None]:
    """Settings of anndata by which it writes all that it reads."""
    known = {name: value for name, value in SETTINGS.items() if hasattr(ad.settings, name)}
    with ad.settings.override(**known), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _as_written(frame: pd.DataFrame) -> pd.DataFrame:
    """A table with names of columns that a file can hold."""
    if RESERVED in frame:
        name = "index"
        while name in frame:
            name += "_"
        frame = frame.rename(columns={RESERVED: name})
    if frame.index.name in frame and not (frame.index == frame[frame.index.name]).all():
        frame = frame.rename_axis(index=None)
    return frame


def _cause(error: Exception) -> str:
    """The first line of an error, and the entry that anndata names in its notes."""
    lines = [
        getattr(error, "strerror", None) or str(error).strip() or type(error).__name__,
        *getattr(error, "__notes__", []),
    ]
    return "; ".join(line.splitlines()[0].rstrip(".") for line in lines)
