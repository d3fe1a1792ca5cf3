"""A hash of the data that a model reads, to detect whether they have changed."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import joblib
import numpy as np
import pandas as pd
import scipy.sparse as sp

from .sources import Source


def fingerprint(names: pd.Index, sources: Mapping[str, Source], others: Iterable[object]) -> str | None:
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
    parts = [*others]
    for source in sources.values():
        # Beside an embedding, the counts are not read.
        counts = None if source.embedding is not None or source.counts is None else source.counts.matrix
        parts += [source.names, source.embedding, counts]
    try:
        return joblib.hash([_content(part) for part in (names, *parts)])
    except _UnknownError:
        return None


class _UnknownError(Exception):
    """An object whose changes cannot be detected."""


def _content(value: Any) -> object:
    """What joblib hashes in place of a value."""
    if value is None or isinstance(value, np.ndarray):
        return value
    if isinstance(value, pd.Index):
        return pd.util.hash_array(value.to_numpy(dtype=object))
    if sp.issparse(value):
        return value.data, value.indices, value.indptr
    if hasattr(value, "dask"):
        return value.name
    path = _file_of(value)
    at = os.stat(path)
    return path, at.st_size, at.st_mtime_ns, value.shape


def _file_of(value: object) -> str:
    """The file of an array of HDF5, be it dense or one that anndata reads as sparse."""
    file = getattr(getattr(value, "group", value), "file", None)
    path = getattr(file, "filename", None)
    # One that is open for writing may change before the file does.
    if path is None or getattr(file, "mode", None) != "r" or not os.path.isfile(path):
        raise _UnknownError
    return str(path)
