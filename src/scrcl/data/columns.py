"""Columns of ``obs``: groups, batches and labels of cells."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scrcl.utils.checks import check_key
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.names import as_name, as_names
from scrcl.utils.words import counted

#: Columns of ``obs`` that name batches or samples in many data sets, and others that name slices.
SAMPLE_COLUMNS = ("batch", "sample", "sample_id", "donor", "donor_id", "patient", "orig.ident", "library", "library_id")
SLICE_COLUMNS = ("slice", "slice_id", "section", "section_id", "slide", "slide_id", *SAMPLE_COLUMNS)
#: Between the names of a batch in several columns.
BETWEEN_NAMES = " | "


def read_column(data: AnnData | MuData, key: str, argument: str) -> pd.Series:
    """A column of ``obs``, in memory, of the name that is passed as an argument.

    Raises
    ------
    KeyError
        If there is none.
    ValueError
        If several have this name.
    """
    table, where = data.obs, f"{'mdata' if isinstance(data, MuData) else 'adata'}.obs"
    check_key(key, table, argument, where)
    column = table[key] if isinstance(table, pd.DataFrame) else table[[key]].to_memory()[key]
    if isinstance(column, pd.DataFrame):
        raise ScrclValueError(
            f"{where}[{key!r}] is the name of {column.shape[1]} columns.",
            "Give each column a name of its own.",
            where=f"{where}[{key!r}]",
        )
    return column


def read_batches(data: AnnData | MuData, key: str | Sequence[str], argument: str = "batch_key") -> np.ndarray:
    """Name ``(n,)`` of the batch of each cell; the combination of names, where there are several keys.

    Raises
    ------
    KeyError
        If a key is missing.
    ValueError
        If a cell has no batch, or combinations of several names cannot be distinguished.
    """
    columns = []
    for one in [key] if isinstance(key, str) else key:
        names = as_names(read_column(data, one, argument))
        missing = int(pd.isna(names).sum())
        if missing:
            where = "mdata.obs" if isinstance(data, MuData) else "adata.obs"
            raise ScrclValueError(
                f"{where}[{one!r}] is missing for {missing:,} of {counted(len(names), 'cell')}.",
                f"Name the {argument.removesuffix('_key')} of every cell, or remove these cells.",
                where=f"{where}[{one!r}]",
            )
        columns.append(names.astype(str))
    joined = np.array([BETWEEN_NAMES.join(names) for names in zip(*columns, strict=True)], dtype=str)
    if len(columns) > 1 and len(np.unique(joined)) < len(set(zip(*columns, strict=True))):
        raise ScrclValueError(
            f"{argument}={list(key)!r} has names that contain {BETWEEN_NAMES!r}, so that batches cannot be distinguished.",
            "Rename them.",
        )
    return joined


def read_labels(data: AnnData | MuData, key: str, unlabeled_category: object) -> np.ndarray:
    """Label ``(n,)`` of each cell as text; ``None`` if it is missing or the unlabelled category.

    Raises
    ------
    KeyError
        If the key is missing.
    """
    names = as_names(read_column(data, key, "labels_key"))
    if unlabeled_category is not None:
        names[names == as_name(unlabeled_category)] = None
    return names
