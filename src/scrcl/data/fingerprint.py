"""A hash of the data that a model reads, to detect whether they have changed."""

import os
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .sources import Source


def fingerprint(names: pd.Index, sources: Mapping[str, Source], others: Iterable[object]) -> bytes | None:
    """A hash that changes when any data of the cells do.

    Arrays in memory are hashed by their values, files by name, size and time of modification, and dask arrays by their names,
    which identify their computation.

    Parameters
    ----------
    names
        Names of the cells.
    sources
        The data of each modality.
    others
        Further arrays, sparse matrices, or ``None``.

    Returns
    -------
    The hash; ``None`` if the data contain an object of any other kind.
    """
    digest = blake2b(digest_size=16)
    try:
        _add(digest, names)
        for source in sources.values():
            _add(digest, source.names)
            _add(digest, source.embedding)
            # Of an embedding, the counts are not read.
            _add(digest, None if source.embedding is not None or source.counts is None else source.counts.matrix)
        for other in others:
            _add(digest, other)
    except _UnknownError:
        return None
    return digest.digest()


class _UnknownError(Exception):
    """An object whose changes cannot be detected."""


def _add(digest: Any, value: Any) -> None:
    """Add a value of any kind."""
    if value is None:
        digest.update(b"none")
    elif isinstance(value, pd.Index):
        digest.update(pd.util.hash_array(value.to_numpy(dtype=object)).tobytes())
    elif sp.issparse(value):
        for part in (value.data, value.indices, value.indptr):
            _add(digest, part)
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.shape} {value.dtype}".encode())
        if value.dtype.kind == "O":
            digest.update(pd.util.hash_array(value.ravel().astype(str).astype(object)).tobytes())
        else:
            digest.update(np.ascontiguousarray(value).view(np.uint8))
    elif hasattr(value, "dask"):
        digest.update(str(value.name).encode())
    else:
        path = _file_of(value)
        at = os.stat(path)
        digest.update(f"{path} {at.st_size} {at.st_mtime_ns} {value.shape}".encode())


def _file_of(value: Any) -> str:
    """The file of an array of HDF5, be it dense or one that anndata reads as sparse."""
    file = getattr(getattr(value, "group", value), "file", None)
    path = getattr(file, "filename", None)
    # One that is open for writing may change before the file does.
    if path is None or getattr(file, "mode", None) != "r" or not os.path.isfile(path):
        raise _UnknownError
    return str(path)
