"""Checks of what a user passes: a clear error that names the argument and the mend, before any work is done."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

#: Share of the genes a model reads that new data may lack.
MAX_MISSING_GENES = 0.1
#: Largest value that is taken for a count.
MAX_COUNT = 2**31
#: Values that are checked at once.
PIECE = 2**16


def as_counts(matrix: Any, where: str) -> sp.csr_array:
    """Return counts as canonical CSR float32, which may share its arrays with the matrix.

    Parameters
    ----------
    matrix
        ``(n, G)`` dense or sparse array in memory.
    where
        What the user calls it, for messages.

    Raises
    ------
    ValueError
        If it is not finite, non-negative and integral.
    """
    if not sp.issparse(matrix):
        matrix = np.asarray(matrix)
    of_one = "setup_anndata(adata, layer='counts')"
    of_several = "setup_mudata(mdata, modalities, layers={...: 'counts'})"
    mend = f"Pass raw counts, e.g. `{of_several if where.startswith('mdata') else of_one}`."
    if matrix.dtype.kind not in "buif":
        raise ValueError(f"{where} holds values of type {matrix.dtype}, not real numbers. {mend}")
    counts = sp.csr_array(matrix)
    values = counts.data
    lowest, highest = (values.min(), values.max()) if values.size else (1, 1)
    if not np.isfinite(lowest) or not np.isfinite(highest):
        found = "NaN" if np.isnan(lowest) else "infinite"
        raise ValueError(f"{where} holds {(~np.isfinite(values)).sum():,} {found} values. Remove them first. {mend}")
    if lowest < 0:
        raise ValueError(f"{where} holds negative values (smallest {lowest:.4g}), so it is not counts. {mend}")
    if highest > MAX_COUNT:
        raise ValueError(f"{where} holds values up to {highest:.4g}, too large to be counts. {mend}")
    if not _integral(values):
        fractions = values != np.round(values)
        example = values[fractions.argmax()]
        raise ValueError(
            f"{where} holds {fractions.sum():,} values that are not whole numbers (e.g. {example:.4g}), so it is not "
            f"raw counts; it looks normalised. {mend}"
        )
    counts = counts.astype(np.float32, copy=False)
    if lowest == 0 or not counts.has_canonical_format:
        # A copy, so that the user's matrix stays as it is; turned twice, it is sorted in half the time that sorting takes.
        counts = counts.tocsc().tocsr()
        counts.sum_duplicates()
        counts.eliminate_zeros()
    return counts


def _integral(values: np.ndarray) -> bool:
    """Whether all values are whole numbers; by pieces that stay in the cache, as all counts are asked this."""
    if values.dtype.kind != "f":
        return True
    pieces = (values[start : start + PIECE] for start in range(0, len(values), PIECE))
    return all(bool((piece == np.rint(piece)).all()) for piece in pieces)


def check_cells_have_counts(totals: np.ndarray, where: str) -> None:
    """Refuse cells without any count: nothing can be said of them."""
    empty = int((totals == 0).sum())
    if empty:
        raise ValueError(
            f"{empty:,} of {len(totals):,} cells in {where} have no counts. Remove them first: "
            "`scanpy.pp.filter_cells(adata, min_counts=1)`."
        )


def check_unique_genes(names: pd.Index, mend: str = "adata.var_names_make_unique()") -> None:
    """Refuse gene names that occur twice: data could not be matched by name."""
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        raise ValueError(
            f"{len(twice):,} gene names occur more than once (e.g. {twice[0]!r}). Make them unique first: `{mend}`."
        )


def check_key(key: str, mapping: Any, argument: str, where: str) -> None:
    """Refuse a key that is not there, and say which are."""
    if key not in mapping:
        # Newer AnnData lists X among its layers, under None.
        present = ", ".join(repr(name) for name in mapping.keys() if name is not None) or "none"
        raise KeyError(f"{argument}={key!r} is not in {where}. Present: {present}.")


def check_at_least(value: Any, lowest: float, argument: str) -> None:
    """Refuse a number below ``lowest``, or something that is no number."""
    integral = isinstance(lowest, int)
    wanted = "a whole number" if integral else "a number"
    kinds = (int, np.integer) if integral else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not lowest <= value < np.inf:
        raise ValueError(f"{argument} must be {wanted} of at least {lowest}, not {value!r}.")


def check_n_clusters(value: Any, n_cells: int, argument: str = "n_clusters") -> None:
    """Refuse a number of clusters below 2 or above the number of cells; ``None`` leaves it to be found."""
    if value is None:
        return
    check_at_least(value, 2, argument)
    if value > n_cells:
        raise ValueError(f"{argument}={value} is more than the {n_cells:,} cells there are. Ask for fewer.")


def check_option(value: Any, options: Sequence[str], argument: str) -> None:
    """Refuse a value that is not among the options."""
    if value not in options:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, options))}, not {value!r}.")


def as_features(array: Any, where: str) -> np.ndarray:
    """Return features that the user already has as ``(n, d)`` float32.

    Raises
    ------
    ValueError
        If it is not two-dimensional and finite.
    """
    if sp.issparse(array):
        array = array.toarray()
    features = np.asarray(array, dtype=np.float32)
    if features.ndim != 2:
        raise ValueError(f"{where} must be two-dimensional (cells by features), not of shape {features.shape}.")
    if not np.isfinite(features).all():
        raise ValueError(f"{where} holds NaN or infinite values. Compute it again on cells for which it is defined.")
    return np.ascontiguousarray(features)


def as_rows(indices: Any, n_cells: int) -> np.ndarray:
    """Return cell numbers from integers or a boolean mask.

    Raises
    ------
    ValueError
        If a mask has the wrong length, or a number is out of range.
    """
    rows = np.atleast_1d(np.asarray(indices))
    if rows.size == 0:
        return np.empty(0, dtype=np.int64)
    if rows.dtype == bool:
        if len(rows) != n_cells:
            raise ValueError(f"indices is a mask of length {len(rows):,}, but there are {n_cells:,} cells.")
        return np.flatnonzero(rows)
    if not np.issubdtype(rows.dtype, np.integer) or rows.ndim != 1:
        raise ValueError("indices must be a one-dimensional sequence of whole numbers or a boolean mask.")
    if rows.min() < -n_cells or rows.max() >= n_cells:
        raise ValueError(f"indices reach {rows.max():,}, but there are only {n_cells:,} cells, numbered from 0.")
    return np.where(rows < 0, rows + n_cells, rows)


def match_genes(present: pd.Index, wanted: pd.Index, where: str = "adata.var_names") -> tuple[np.ndarray, pd.Index]:
    """Find genes by name.

    Parameters
    ----------
    present
        Gene names of the data.
    wanted
        Gene names that a model reads.
    where
        Where the former are, for messages.

    Returns
    -------
    The column of each wanted gene in the data, -1 where it is missing, and the names of the missing ones.

    Raises
    ------
    ValueError
        If names occur twice, or more than a tenth of the wanted genes are missing.
    """
    check_unique_genes(present)
    columns = present.get_indexer(wanted)
    missing = wanted[columns < 0]
    if len(missing) > MAX_MISSING_GENES * len(wanted):
        raise ValueError(
            f"{len(missing):,} of the {len(wanted):,} genes that the model reads are missing from {where} "
            f"(e.g. {missing[0]!r}; the data have {present[0]!r}). Pass data with the same genes and the same kind of "
            "gene identifiers, or train a new model on the genes that both have."
        )
    return columns, missing


def check_genes(genes: Any, kept: pd.Index, every: pd.Index) -> np.ndarray:
    """Return the numbers of genes among those kept by the model.

    Raises
    ------
    KeyError
        If a gene is not kept, saying whether the data have it.
    """
    names = [genes] if isinstance(genes, str) else [str(gene) for gene in genes]
    if not names:
        raise ValueError("genes is empty. Name at least one gene, or pass None for all.")
    columns = kept.get_indexer(pd.Index(names))
    for name in (name for name, column in zip(names, columns, strict=True) if column < 0):
        if name in every:
            raise KeyError(
                f"The gene {name!r} is in the data, but not among the {len(kept):,} that the model keeps as they vary "
                "most. Keep more: `SCRCL(adata, n_top_genes=...)`."
            )
        near = [other for other in every if other.casefold() == name.casefold()] or get_close_matches(name, every, n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else f" The data have names like {every[0]!r}."
        raise KeyError(f"The gene {name!r} is not in the data.{hint}")
    return columns


def check_groups(groups: Any, present: Sequence[str], key: str) -> list[str]:
    """Return groups of cells that are asked for, as names.

    Raises
    ------
    KeyError
        If one is not there, saying which are.
    """
    names = [groups] if isinstance(groups, str) else [str(group) for group in groups]
    if not names:
        raise ValueError("groups is empty. Name at least one group, or pass None for all.")
    for name in names:
        if name not in present:
            raise KeyError(f"The group {name!r} is not in groupby={key!r}. Present: {', '.join(map(repr, present))}.")
    return names
