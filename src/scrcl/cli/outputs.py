"""Writing of files, whole or not at all, and finding first what could not be written in the end."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.io import write_elem
from mudata import MuData

from scrcl.utils import keys

from .errors import UserError, as_message
from .inputs import Input
from .progress import Phases

#: Settings of anndata by which it writes whatever it reads; some versions have them.
SETTINGS = {"allow_write_nullable_strings": True, "disallow_forward_slash_in_h5ad": False}
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


class Extras:
    """What is made beside the output: a failure is reported, and costs nothing else.

    Parameters
    ----------
    phases
        Where failures are shown as they come.
    source
        The input, for messages.
    """

    def __init__(self, phases: Phases, source: Path | None) -> None:
        #: What could not be made, and why.
        self.missing: dict[str, str] = {}
        self._phases, self._source = phases, source

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Make something inside; if it fails, the block ends there."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (whatever it is, the output must not be lost)
            self.missing[what] = as_message(error, self._source)
            self._phases.show(f"error: {what}: {self.missing[what]}")


def write_types(data: AnnData | MuData, types: pd.Series, probabilities: pd.DataFrame) -> dict[str, int]:
    """Write types of cells and how probable each is to the data, and count the cells of each, the most frequent first."""
    data.obs[keys.TYPES_KEY] = types
    data.obs[keys.TYPES_CONFIDENCE_KEY] = probabilities.max(axis=1)
    return count(types)


def count(names: pd.Series) -> dict[str, int]:
    """Cells of each type or cluster, the most frequent first."""
    return {str(name): int(size) for name, size in names.value_counts().items() if size}


def check_writable(found: Input, output: Path) -> None:
    """Refuse data that the output could not hold: write all but the large matrices to a file in memory.

    Raises
    ------
    UserError
        If the name of the output does not fit the data, something in them cannot be written, or there is no room.
    """
    data = found.data
    several = isinstance(data, MuData)
    if several != (output.suffix.lower() == ".h5mu"):
        wanted = ".h5mu, as the input has several modalities" if several else ".h5ad, as the input has one modality"
        raise UserError(f"-o {output} must end in {wanted}.")
    if found.copied is not None:
        size, free = found.copied.stat().st_size, shutil.disk_usage(output.parent).free
        if free < size:
            raise UserError(
                f"{output} cannot be written: it needs more than {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free. "
                "Free space there, or name an output elsewhere."
            )
    else:
        data.strings_to_categoricals()  # as anndata does when it writes
    with _as_read(), h5py.File("check", "w", driver="core", backing_store=False) as file:
        for place, key, value in _elements(data, found.copied is not None):
            cause = _cause(file, place, key, value)
            if cause is None:
                continue
            slot = f"{place}/{key}".strip("/")
            bad = [column for column in value if _cause(file, place, key, value[[column]])] if _is_frame(value) else []
            column = f", column {bad[0]!r}," if bad else ""
            raise UserError(
                f"{slot}{column} cannot be written to {output}: {cause}. Convert it to numbers or text in the input, or "
                "remove it there."
            )


def write(found: Input, unfinished: Path, output: Path) -> None:
    """Write the results, beside all that the file holds of which the output is a copy."""
    data = found.data
    try:
        with _as_read():
            for each in [data, *data.mod.values()] if isinstance(data, MuData) else [data]:
                each.obs, each.var = _as_written(each.obs), _as_written(each.var)
            if isinstance(data, MuData):
                data.write_h5mu(unfinished)
            elif found.copied is None:
                data.write_h5ad(unfinished)
            else:
                _write_into_copy(data, found.copied, unfinished)
    except Exception as error:
        reason = getattr(error, "strerror", None) or _first_line(error)
        raise UserError(
            f"{output} cannot be written: {reason}. Free space there, or name an output elsewhere. Nothing is left of it."
        ) from error


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
def _as_read() -> Iterator[None]:
    """Write whatever anndata reads."""
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


def _elements(data: AnnData | MuData, copied: bool) -> Iterator[tuple[str, str, Any]]:
    """Place, name and value of all that is written, with one row in the place of matrices."""
    of_modalities = data.mod if isinstance(data, MuData) else {}
    for prefix, each in [("", data), *((f"mod/{name}/", of) for name, of in of_modalities.items())]:
        for name in ("obs", "var"):
            yield prefix, name, _as_written(getattr(each, name))
        for name in ("obsm", "varm", "obsp", "varp", "uns"):
            for key, value in getattr(each, name).items():
                yield f"{prefix}{name}", key, _row(value) if name != "uns" else value
        if not copied and not isinstance(each, MuData):
            for key, value in each.layers.items():
                if key is not None:  # newer anndata lists X there
                    yield f"{prefix}layers", key, _row(value)
            if each.X is not None:
                yield prefix, "X", _row(each.X)
            if each.raw is not None:
                yield f"{prefix}raw", "var", each.raw.var


def _row(value: Any) -> Any:
    """The first row of numbers; all of what may hold objects of several types."""
    numbers = sp.issparse(value) or (isinstance(value, np.ndarray) and value.dtype.kind in "biufc")
    return value[:1] if numbers else value


def _cause(file: h5py.File, place: str, key: str, value: Any) -> str | None:
    """Why something cannot be written; ``None`` if it can."""
    try:
        write_elem(file.require_group(place or "/"), key, value)
    except Exception as error:  # noqa: BLE001 (those of anndata are of many kinds)
        return _first_line(error)
    return None


def _is_frame(value: Any) -> bool:
    return isinstance(value, pd.DataFrame)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
