"""Checks of arguments and data, with errors that name the argument and the remedy, before any work is done."""

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple, NoReturn, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike
from sklearn.utils import check_array

from .errors import ScrclKeyError, ScrclTypeError, ScrclValueError
from .names import as_name, as_names
from .words import counted

#: Version of an Ensembl identifier.
VERSION = r"\.\d+$"
#: What names of genes may have in addition to the names of a model: a version, a genome as 10x writes it, an identifier before or after.
REMOVED = (
    VERSION,
    r"^(GRC[hm]\d+|hg\d+|mm\d+)_+",
    r"^ENS[A-Z]*G\d+(\.\d+)?[_|:]",
    r"[_|:]ENS[A-Z]*G\d+(\.\d+)?$",
)
#: Methods of pandas' ``str`` after which names of genes may match a model, and the patterns that they remove, if any.
SPELLINGS: dict[str, str] = dict.fromkeys(("strip()", "upper()", "capitalize()", "lower()"), "")
SPELLINGS |= {f"replace(r'{pattern}', '', regex=True)": pattern for pattern in REMOVED}
#: Largest share of the genes of a model that new data may lack, as `benchmarks/missing.py` shows, and above which the genes are
#: looked for in other spellings and places.
MAX_MISSING_GENES, MAX_MISSING_HERE = 0.5, 0.1
#: Missing names that were converted to text. A gene of the fly is called "nan".
MISSING_NAMES = ("nan", "NaN", "None", "NA", "<NA>")
#: Largest count.
MAX_COUNT = 2**31
#: Values that are checked at once.
BLOCK_VALUES = 2**16

Matrix: TypeAlias = np.ndarray | sp.sparray | sp.spmatrix


class Remedy(NamedTuple):
    """A remedy, in Python and on the command line."""

    python: str
    command: str


class OtherNames(NamedTuple):
    """Names of genes that the data have in another place, and how they are used, in Python and on the command line.

    Names of the same columns can be read in their place; others, such as the names of ``raw``, belong to other counts.
    """

    place: str
    names: pd.Index
    python: str
    command: str
    same_columns: bool = False


class MatchedGenes(NamedTuple):
    """Columns of genes in data.

    Attributes
    ----------
    columns
        ``(W,)`` column of each gene, -1 where it is missing.
    missing
        Names of the missing genes.
    read_as
        How the names of the data were read, if not as they are.
    """

    columns: np.ndarray
    missing: pd.Index
    read_as: str = ""


def no_remedy() -> Remedy:
    """The remedy if nothing is known about the data."""
    return Remedy("Pass raw counts.", "Pass raw counts.")


def as_counts(matrix: Matrix, where: str, find_remedy: Callable[[], Remedy] = no_remedy) -> sp.csr_array:
    """Return counts as canonical CSR float32, which may share its arrays with the matrix.

    Parameters
    ----------
    matrix
        ``(n, G)`` dense, masked or sparse array in memory, of any type of numbers and byte order.
    where
        Where it is in the data, for messages.
    find_remedy
        Function that returns the remedy if the values are not counts.

    Raises
    ------
    ValueError
        If it is not finite, non-negative and integral, or values are masked.
    """

    def refuse(what: str) -> NoReturn:
        remedy = find_remedy()
        raise ScrclValueError(f"{where} {what}.", remedy.python, command=remedy.command, where=where)

    if not sp.issparse(matrix):
        masked = int(np.ma.getmaskarray(matrix).sum()) if np.ma.isMaskedArray(matrix) else 0
        if masked:
            refuse(f"holds {counted(masked, 'masked value')} instead of counts")
        matrix = np.asarray(matrix)
    kind = matrix.dtype
    if kind.kind not in "buif":
        refuse(f"holds values of type {kind}, not real numbers")
    # SciPy supports neither half precision nor other byte orders.
    counts = sp.csr_array(matrix.astype(np.float32 if kind == np.float16 else kind.newbyteorder("="), copy=False))
    values = counts.data
    lowest, highest = (values.min(), values.max()) if values.size else (1, 1)
    if not np.isfinite(lowest) or not np.isfinite(highest):
        found = "NaN" if np.isnan(lowest) else "infinite"
        refuse(f"holds {counted((~np.isfinite(values)).sum(), f'{found} value')} instead of counts")
    if lowest < 0:
        refuse(f"holds negative values (smallest {lowest:.4g}), so it is not counts")
    if highest > MAX_COUNT:
        refuse(f"holds values up to {highest:.4g}, too large to be counts")
    if not _integral(values):
        fractions = values != np.round(values)
        example = values[fractions.argmax()]
        refuse(
            f"holds {counted(fractions.sum(), 'value that is not a whole number', 'values that are not whole numbers')} "
            f"(e.g. {example:.9g}), so it is not raw counts; it looks normalised"
        )
    counts = counts.astype(np.float32, copy=False)
    if lowest == 0 or not counts.has_canonical_format:
        # A copy, so that the user's matrix does not change. Two conversions sort it in half the time of `sort_indices`.
        counts = counts.tocsc().tocsr()
        counts.sum_duplicates()
        counts.eliminate_zeros()
    return counts


def _integral(values: np.ndarray) -> bool:
    """Whether all values are whole numbers, in blocks that fit in the cache."""
    if values.dtype.kind != "f":
        return True
    blocks = (values[start : start + BLOCK_VALUES] for start in range(0, len(values), BLOCK_VALUES))
    return all(bool((block == np.rint(block)).all()) for block in blocks)


def check_cells_have_counts(totals: np.ndarray, where: str) -> None:
    """Refuse cells without counts."""
    empty = int((totals == 0).sum())
    if empty:
        owner = "mdata" if where.startswith("mdata") else "adata"
        remedy = f"{owner} = {owner}[{where}.sum(axis=1) > 0].copy()"
        if where == "adata.X":  # which is all that scanpy looks at
            remedy = "scanpy.pp.filter_cells(adata, min_counts=1)"
        raise ScrclValueError(
            f"{empty:,} of {counted(len(totals), 'cell')} in {where} {'has' if empty == 1 else 'have'} no counts.",
            f"Remove them first: `{remedy}`.",
            command="Remove them from the file first; of what 10x writes, pass the filtered matrix, not the raw one.",
            where=where,
        )


def check_unique_genes(names: pd.Index, where: str = "adata.var_names") -> None:
    """Refuse missing and repeated gene names, as data are matched by name."""
    owner = where.removesuffix(".var_names")
    read = pd.Index(as_names(names))
    empty = read.isna() | (read == "") | (read.isin(MISSING_NAMES) & read.duplicated(keep=False))
    if empty.any():
        written = sorted(set(read[empty].dropna()))
        named = f"{where}.notna()" + (f" & ~{where}.isin({written})" if written else "")
        raise ScrclValueError(
            f"{empty.sum():,} of {counted(len(read), 'name')} in {where} {'is' if empty.sum() == 1 else 'are'} missing.",
            f"Name these genes, or leave them out: `{owner} = {owner}[:, {named}].copy()`.",
            command="Name these genes in the file, or leave them out.",
            where=where,
        )
    twice = read[read.duplicated()].unique()
    if len(twice):
        remedy = f"Make them unique first: `{where}_make_unique()`." if owner != where else "Rename them."
        raise ScrclValueError(
            f"{counted(len(twice), 'gene name occurs', 'gene names occur')} more than once in {where} (e.g. {twice[0]!r}).",
            remedy,
            command="Make them unique in the file first.",
            where=where,
        )


def did_you_mean(name: object, names: Iterable[object]) -> str:
    """`` Did you mean 'counts'?``, with the most similar names; empty if there is none."""
    known = [other for other in names if isinstance(other, str)]
    same = [other for other in known if other.casefold() == str(name).casefold()]
    near = same or get_close_matches(str(name), known, n=3)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def check_key(key: str, mapping: Collection[object], argument: str, where: str) -> None:
    """Refuse a missing key, and list those present."""
    if not isinstance(key, Hashable):
        raise ScrclTypeError(
            f"{argument} is of type {type(key).__name__}, not one key of {where}.", "Pass the name of one."
        )
    if key not in mapping:
        # Recent versions of AnnData list X among the layers as None.
        names = [name for name in mapping if name is not None]
        raise ScrclKeyError(
            f"{argument}={key!r} is not in {where}.",
            f"Present: {', '.join(map(repr, names)) or 'none'}.{did_you_mean(key, names)}",
            where=where if where.startswith(("adata", "mdata")) else "",
        )


def check_at_least(value: object, lowest: float, argument: str) -> None:
    """Refuse numbers below ``lowest`` and other values. An integer ``lowest`` requires an integer."""
    integral = isinstance(lowest, int)
    wanted = "a whole number" if integral else "a number"
    kinds = (int, np.integer) if integral else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not lowest <= value < np.inf:
        raise ScrclValueError(f"{argument}={value!r} is not valid.", f"Pass {wanted} of at least {lowest}.")


def check_n_clusters(value: int | None, n_cells: int, argument: str = "n_clusters") -> None:
    """Refuse a number of clusters below 2 or above the number of cells; ``None`` is estimated later."""
    if value is None:
        return
    check_at_least(value, 2, argument)
    if value > n_cells:
        raise ScrclValueError(
            f"{argument}={value} is more than the {counted(n_cells, 'cell')}.", "Pass a smaller number."
        )


def check_option(value: object, options: Sequence[str], argument: str) -> None:
    """Refuse a value that is not among the options."""
    if value not in options:
        raise ScrclValueError(
            f"{argument}={value!r} is not valid.",
            f"Pass one of {', '.join(map(repr, options))}.{did_you_mean(value, options)}",
        )


def as_features(array: Matrix, where: str) -> np.ndarray:
    """Return features of the user as an array ``(n, d)``, float32.

    Raises
    ------
    ValueError
        If it is not two-dimensional and finite.
    """
    if isinstance(array, (sp.sparray, sp.spmatrix)):
        array = array.toarray()
    if np.ma.isMaskedArray(array):
        array = np.ma.filled(array.astype(np.float32), np.nan)
    if np.iscomplexobj(array):
        raise ScrclValueError(f"{where} holds complex numbers.", "Put real numbers there.", where=where)
    try:
        return np.ascontiguousarray(check_array(array, dtype=np.float32, ensure_min_samples=0))
    except (TypeError, ValueError) as error:
        cause = str(error).splitlines()[0].rstrip(".:")
        raise ScrclValueError(
            f"{where} is not a table of finite numbers: {cause}.",
            "Put cells in rows and features in columns, computed on cells for which they are defined.",
            where=where,
        ) from error


def as_rows(indices: ArrayLike, n_cells: int) -> np.ndarray:
    """Return row numbers of cells from integers, a slice or a boolean mask.

    Raises
    ------
    ValueError
        If a mask has the wrong length, or a number is out of range.
    TypeError
        If it is a set or an iterator.
    """
    if isinstance(indices, slice):
        return np.arange(n_cells)[indices]
    if isinstance(indices, Iterable) and not hasattr(indices, "__getitem__"):
        raise ScrclTypeError(
            f"indices is of type {type(indices).__name__}, which cannot be read more than once or has no order.",
            "Pass a list of whole numbers, or a boolean mask.",
        )
    rows = np.atleast_1d(np.asarray(indices))
    if rows.dtype.kind in "OUST" and all(isinstance(name, str) for name in rows.ravel()) and rows.size:
        raise ScrclValueError(
            f"indices holds names such as {str(rows.ravel()[0])!r}, not numbers of cells.",
            "Pass their numbers: `indices=adata.obs_names.get_indexer([...])`.",
        )
    try:
        if rows.ndim == 1:
            return np.arange(n_cells)[rows if rows.size else rows.astype(int)]
        cause = f"they have {counted(rows.ndim, 'dimension')}"
    except IndexError as error:
        cause = str(error)
    raise ScrclValueError(
        f"indices do not select cells: {cause}.",
        f"Pass whole numbers from 0 to {n_cells - 1:,}, or a boolean mask with one value for each of the {counted(n_cells, 'cell')}.",
    )


def respelled(names: pd.Index, code: str) -> pd.Index:
    """Return names after one of ``SPELLINGS``."""
    text = names.astype(str).str
    pattern = SPELLINGS[code]
    return text.replace(pattern, "", regex=True) if pattern else getattr(text, code[:-2])()


def _matched(names: pd.Index, wanted: pd.Index, read_as: str = "") -> MatchedGenes:
    """Columns of genes by names, of which those that occur more than once are not used."""
    single = np.flatnonzero(~names.duplicated(keep=False))
    positions = names[single].get_indexer(wanted)
    columns = np.where(positions < 0, -1, single[positions] if len(single) else -1)
    return MatchedGenes(columns, wanted[columns < 0], read_as)


def match_genes(
    present: pd.Index,
    wanted: pd.Index,
    where: str = "adata.var_names",
    find_others: Callable[[], Iterable[OtherNames]] = tuple,
) -> MatchedGenes:
    """Find the columns of genes by name.

    If many are missing, they are looked for in other spellings, and in other names of the same columns.

    Parameters
    ----------
    present
        Gene names of the data.
    wanted
        Gene names of a model.
    where
        Where the names of the data are, for messages.
    find_others
        Function that returns names in other places of the data, where the names of the model may be.

    Raises
    ------
    ValueError
        If names occur twice, more than half of the wanted genes are missing, or other counts of the data have the genes that many
        are missing of.
    """
    check_unique_genes(present)
    matched = _matched(present, wanted)
    if len(matched.missing) <= MAX_MISSING_HERE * len(wanted):
        return matched

    def enough(other: MatchedGenes) -> bool:
        return len(other.missing) <= MAX_MISSING_HERE * len(wanted)

    for code in SPELLINGS:
        other = _matched(respelled(present, code), wanted, f"`{where}.str.{code}`")
        if enough(other):
            return other
    lacking = (
        f"{where} lacks {len(matched.missing):,} of the {counted(len(wanted), 'gene')} of the model (for example {matched.missing[0]!r}; "
        f"the data have {present[0]!r})"
    )
    for place in find_others():
        other = _matched(place.names, wanted, place.place)
        if enough(other) and place.same_columns:
            return other
        if enough(other):
            raise ScrclValueError(
                f"{lacking}, but {place.place} has them.",
                f"Use it: {place.python}.",
                command=place.command,
                where=where,
            )
    if len(matched.missing) > MAX_MISSING_GENES * len(wanted):
        raise ScrclValueError(
            f"{lacking}.",
            "Pass data with the same genes and the same kind of gene identifiers, or train a new model on the genes that both "
            "have.",
            command="Pass data with the same genes and the same kind of gene identifiers (`--layer raw`, if only raw has all "
            "genes), or train a new model on the genes that both have.",
            where=where,
        )
    return matched


def _names(values: object) -> list[str]:
    """Names of one value or of several."""
    several = isinstance(values, Iterable) and not isinstance(values, str | bytes)
    return [as_name(value) for value in (values if several else [values])]  # type: ignore[attr-defined]


def check_genes(
    genes: str | Iterable[object], selected: pd.Index, all_genes: pd.Index, other_names: pd.Index | None = None
) -> np.ndarray:
    """Return the numbers of genes among those selected by the model.

    Parameters
    ----------
    genes
        Names of genes.
    selected
        Names of the genes that the model keeps.
    all_genes
        Names of all genes of the data.
    other_names
        Other names of all genes, in the same order, by which they may be asked for as well.

    Raises
    ------
    KeyError
        If a gene is not selected; the message says whether the data have it.
    """
    names = _names(genes)
    if not names:
        raise ScrclValueError("genes is empty.", "Name at least one gene, or pass None for all.")
    if other_names is not None:
        by_other_name = dict(zip(other_names, all_genes, strict=True))
        names = [name if name in all_genes else by_other_name.get(name, name) for name in names]
    columns = selected.get_indexer(pd.Index(names))
    for name in (name for name, column in zip(names, columns, strict=True) if column < 0):
        if name in all_genes:
            raise ScrclKeyError(
                f"The gene {name!r} is in the data, but not among the {len(selected):,} most variable genes, which the model keeps.",
                "Keep more genes: `SCRCL(adata, n_top_genes=...)`.",
            )
        raise ScrclKeyError(
            f"The gene {name!r} is not in the data.",
            did_you_mean(name, all_genes).strip() or f"The data have names like {all_genes[0]!r}.",
        )
    return columns


def check_groups(groups: str | Iterable[object], present: Sequence[str], key: str) -> list[str]:
    """Return the names of requested groups of cells.

    Raises
    ------
    KeyError
        If a group is missing; the message lists those present.
    """
    names = _names(groups)
    if not names:
        raise ScrclValueError("groups is empty.", "Name at least one group, or pass None for all.")
    for name in names:
        check_key(name, present, "The group", f"groupby={key!r}")
    return names
