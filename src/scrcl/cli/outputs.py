"""Writing of files, whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import pandas as pd
from anndata import AnnData
from anndata.io import write_elem
from mudata import MuData

from scrcl.utils import keys

from .errors import UserError


@contextmanager
def writable(output: Path | None) -> Iterator[Path | None]:
    """A file beside the output that takes its place when all is written, and goes when anything fails."""
    if output is None:
        yield None
        return
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


def write_types(data: AnnData | MuData, types: pd.Series, probabilities: pd.DataFrame) -> dict[str, int]:
    """Write types of cells and how probable each is to the data, and count the cells of each, the most frequent first."""
    data.obs[keys.TYPES_KEY] = types
    data.obs[keys.TYPES_CONFIDENCE_KEY] = probabilities.max(axis=1)
    return {str(name): int(size) for name, size in types.value_counts().items() if size}


def write(data: AnnData | MuData, copied: Path | None, unfinished: Path, output: Path) -> None:
    """Write the results, beside all that the file holds of which the output is a copy."""
    try:
        if isinstance(data, MuData):
            data.write_h5mu(unfinished)
        elif copied is None:
            data.write_h5ad(unfinished)
        else:
            _write_into_copy(data, copied, unfinished)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{output} cannot be written: {getattr(error, 'strerror', None) or error}. Free space there, or name an output "
            "elsewhere. Nothing is left of it."
        ) from error


def _write_into_copy(data: AnnData, copied: Path, unfinished: Path) -> None:
    shutil.copyfile(copied, unfinished)
    with h5py.File(unfinished, "r+") as file:
        write_elem(file, "obs", data.obs)
        write_elem(file, "var", data.var)
        for name in ("obsm", "obsp", "varm", "varp", "uns"):
            group = file.require_group(name)
            for key, value in getattr(data, name).items():
                write_elem(group, key, value)
