"""Tables of counts as text, with names of genes in one direction and of cells in the other."""

import csv
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO, cast

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from .causes import check_is_readable, is_disguised, look_through
from .errors import UserError
from .paths import suffix

#: What a name that is one of a gene looks like.
GENE = re.compile(r"ENS[A-Z]*G\d{6,}.*|ACTB|GAPDH|MALAT1|B2M|(MT-|RP[LS]\d).*", re.IGNORECASE)
ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}")
#: What the column of names is called, where it has a name.
NAMES = re.compile(
    r"#|(un)?named.*|index|ids?|names?|row[._ ]?names?|"
    r"#?\s*(cell|gene|feature|barcode|spot|bead|sample|probe|symbol|ensembl|ensembl gene|gene symbol|gene name|hgnc|object)s?"
    r"([._ ]?(ids?|names?|symbols?|barcodes?|index))?",
    re.IGNORECASE,
)
#: Names of columns that describe cells: no gene is called so.
ANNOTATION = re.compile(
    r"unnamed: \d+|index|barcodes?|cell[._ ]?(id|type|name|barcode|cycle|ontology)s?|(predicted|final|major|minor)?[._ ]?"
    r"cell[._ ]?types?.*|(seurat[._ ])?clusters?|leiden.*|louvain.*|annotations?|labels?|class|batch|samples?([._ ]?(id|name))?"
    r"|donors?([._ ]?id)?|patients?([._ ]?id)?|orig\.ident|tissue|condition|treatment|group|replicate|plate|age|sex|phase"
    r"|n_?(genes?|counts?|umis?|features?)(_?(by_counts|rna))?|n(count|feature)_\w+|(total|sum)([._ ]?(counts?|umis?))?"
    r"|(percent|pct)[._ ].*|size[._ ]?factors?|s_score|g2m_score|doublet.*|(umap|tsne|t-sne|pca?)[._ ]?\d+"
    r"|[xyz]([._ ](umap|tsne|pca|coord.*|centroid|pixel))?|(array|pxl|image)?_?(row|col|column)|(chr|chrom|chromosome|start|end|strand|length|gene_?(length|biotype|type))",
    re.IGNORECASE,
)
#: What programs that count reads call those that belong to no gene.
NO_GENE = re.compile(r"__\w+|N_(unmapped|multimapping|noFeature|ambiguous)|unmapped", re.IGNORECASE)
#: What divides the values of a line.
DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", " ": "spaces"}
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
#: Lines by which the form of a table is found.
LOOKED_AT = 50


@dataclass(frozen=True)
class Form:
    """How a table is written.

    Attributes
    ----------
    encoding, packed, delimiter
        Of the text; whether it is compressed with gzip.
    skipped
        Lines before the first of counts: comments and the header.
    corner
        What stands above the names of the rows; ``None`` where the header has nothing there, not even a delimiter, as R
        writes it.
    columns
        The names in the header, without the corner.
    """

    encoding: str
    packed: bool
    delimiter: str
    skipped: int
    corner: str | None
    columns: list[str]


def read_table(path: Path, transpose: bool) -> tuple[ad.AnnData, list[str]]:
    """Read a table of cells by genes, or of genes by cells.

    Parameters
    ----------
    path
        Text with names in the first line and column, and counts elsewhere; maybe compressed with gzip.
    transpose
        Whether genes are in rows.

    Returns
    -------
    The cells, and what the user should know of how they were read.

    Raises
    ------
    UserError
        If names or values are missing, values are no numbers, or a column describes cells.
    """
    check_is_readable(path)
    form = _form(path)
    of_rows, of_columns = ("genes", "cells") if transpose else ("cells", "genes")
    _check_header(path, form, of_columns)
    table = _read(path, form)
    rows, table = table[0].tolist(), table.drop(columns=0)
    _check_first_column(path, form, rows, of_rows)
    _check_values(path, table, rows, form.columns)
    genes, cells = (rows, form.columns) if transpose else (form.columns, rows)
    _check_unique(path, cells, genes)
    _check_genes(path, genes, cells, transpose)
    matrix = sp.csr_matrix(table.to_numpy(dtype=np.float32))
    data = ad.AnnData(
        matrix.T.tocsr() if transpose else matrix,
        obs=pd.DataFrame(index=pd.Index(cells, dtype=object)),
        var=pd.DataFrame(index=pd.Index(genes, dtype=object)),
    )
    notes = [f"{path} was read as {data.n_obs:,} cells of {data.n_vars:,} genes."]
    others = [name for name in genes if not ENSEMBL.match(name)]
    if 0 < len(others) < len(genes) / 10:
        notes.append(
            f"All names of genes are of Ensembl but for {', '.join(others[:5])}{', …' if len(others) > 5 else ''}; these are counted, too."
        )
    if form.delimiter != _expected(path):
        notes.append(f"The values of {path} are divided by {DELIMITERS[form.delimiter]}.")
    return data, notes


def _expected(path: Path) -> str:
    return "," if suffix(path) == ".csv" else "\t"


def _open(path: Path, encoding: str, packed: bool) -> TextIO:
    opened = gzip.open if packed else open
    return cast("TextIO", opened(path, "rt", encoding=encoding, newline=""))


def _form(path: Path) -> Form:
    with path.open("rb") as file:
        head = file.read(8)
    packed = head.startswith(b"\x1f\x8b")
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    if is_disguised(path) and not packed:
        raise look_through(path, "no text, as tables are")
    with _open(path, encoding, packed) as file:
        lines = list(islice(file, LOOKED_AT))
    first = _find_header(lines)
    lines = [line for line in lines[first:] if line.strip()]
    if len(lines) < 2:
        reason = "it has one row only" if lines else "it is empty"
        raise UserError(f"{path} cannot be read as a table: {reason}. Write names into the first row, counts below.")
    expected = _expected(path)
    for delimiter in [expected, *(other for other in DELIMITERS if other != expected)]:
        named = _names(list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True)))
        if named is not None:
            return Form(encoding, packed, delimiter, first + 1, *named)
    raise UserError(
        f"{path} cannot be read as a table: its rows differ in length, or nothing divides them. The first row must hold "
        "names of genes, the first column those of cells, and the others counts, with "
        f"{DELIMITERS[expected]} between them (.csv: commas, .tsv: tabs)."
    )


def _find_header(lines: Sequence[str]) -> int:
    """Number of the first line that is neither blank nor a comment; a header that begins with ``#`` is none."""
    for number, line in enumerate(lines):
        if line.startswith("#"):
            below = next((other for other in lines[number + 1 :] if other.strip()), "")
            if not any(line.count(delimiter) == below.count(delimiter) > 0 for delimiter in ",\t;"):
                continue
        if line.strip():
            return number
    return len(lines)


def _names(rows: list[list[str]]) -> tuple[str | None, list[str]] | None:
    """Corner and columns by the header; ``None`` if the rows do not fit each other with this delimiter."""
    header, *body = rows
    width = len(body[0])
    if any(len(row) != width for row in body):
        return None
    while width > 1 and not any(header[width - 1 :]) and not any(row[width - 1].strip() for row in body):
        width -= 1  # a delimiter at the end of each line
    header = header[:width] if not any(header[width:]) else header
    if width < 2 or not width - 1 <= len(header) <= width:
        return None
    return (None, header) if len(header) < width else (header[0].strip(), header[1:])


def _check_header(path: Path, form: Form, kind: str) -> None:
    """Refuse a table whose first line is of counts."""
    is_number = [NUMBER.fullmatch(name.strip()) is not None for name in form.columns]
    names_may_be_numbers = not form.corner or NAMES.fullmatch(form.corner)
    if all(is_number) and not (names_may_be_numbers and len(set(form.columns)) == len(form.columns)):
        raise UserError(
            f"{path} has no names of {kind} in its first row, but numbers such as {form.columns[0]}. Write them there; "
            f"if these are the names, call the first column 'name'."
        )
    empty = next((number for number, name in enumerate(form.columns, 2) if not name.strip()), None)
    if empty is not None:
        raise UserError(f"{path} has no name in column {empty} of its first row. Write it there, or remove the column.")


def _read(path: Path, form: Form) -> pd.DataFrame:
    """All lines below the header; names as text, in column 0."""
    with _open(path, form.encoding, form.packed) as file:
        for _ in range(form.skipped):
            next(file)
        try:
            # Marked, as pandas 3 takes a name such as "NA" for a missing value even after a converter.
            table = pd.read_csv(
                file,
                sep=form.delimiter,
                header=None,
                converters={0: "'".__add__},
                low_memory=False,
                skipinitialspace=True,
            )
            table[0] = table[0].str[1:]
        except pd.errors.ParserError as error:
            cause = str(error).rpartition("C error: ")[-1].strip().rstrip(".")
            raise UserError(
                f"{path} cannot be read as a table: its rows differ in length ({cause}, the lines counted below the header). "
                "Correct this line."
            ) from error
    width = len(form.columns) + 1
    beyond = table.columns[width:]
    if not table[beyond].isna().all(axis=None):
        raise UserError(f"{path} has values in column {width + 1} without a name in the first row. Write it there.")
    table = table.drop(columns=beyond)
    empty = (table[0].str.strip() == "") & table.drop(columns=0).isna().all(axis=1)
    return table[~empty].reset_index(drop=True)


def _check_first_column(path: Path, form: Form, names: list[str], kind: str) -> None:
    """Refuse a table whose first column is of counts."""
    missing = next((number for number, name in enumerate(names, form.skipped + 1) if not name.strip()), None)
    if missing is not None:
        raise UserError(f"{path} has no name in line {missing}. Write it into the first column, or remove the line.")
    if form.corner and not NAMES.fullmatch(form.corner) and all(NUMBER.fullmatch(name.strip()) for name in names):
        raise UserError(
            f"{path} has no names of {kind} in its first column {form.corner!r}, but numbers. Write them before it; if these "
            "are the names, call the column 'name'."
        )


def _check_values(path: Path, table: pd.DataFrame, rows: list[str], columns: list[str]) -> None:
    for position, (_, values) in enumerate(table.items()):
        is_missing = values.isna().to_numpy()
        is_wrong = np.zeros(len(values), dtype=bool)
        if values.dtype.kind not in "iuf":
            text = values.astype(object).where(~is_missing, "0").astype(str)
            is_wrong = pd.to_numeric(text, errors="coerce").isna().to_numpy()
        if not (is_wrong | is_missing).any():
            continue
        row = int((is_wrong if is_wrong.any() else is_missing).argmax())
        what = f"{str(values[row])!r} is no number" if is_wrong[row] else "a value is missing"
        raise UserError(
            f"{path} cannot be read as a table: {what} (row {rows[row]!r}, column {columns[position]!r}). Values must be "
            "counts: write one there, or remove the row or the column."
        )


def _check_unique(path: Path, cells: list[str], genes: list[str]) -> None:
    repeated = pd.Series(cells).value_counts()
    if repeated.iloc[0] > 1:
        raise UserError(
            f"{path} has names of cells that occur more than once, such as {repeated.index[0]!r}, {repeated.iloc[0]:,} times. "
            "Give each cell a name of its own."
        )
    if len(set(genes)) < len(genes) / 2:
        raise UserError(f"{path} has names of genes most of which occur more than once. Name each gene.")


def _check_genes(path: Path, genes: list[str], cells: list[str], transpose: bool) -> None:
    described = [name for name in genes if ANNOTATION.fullmatch(name.strip())]
    if described:
        raise UserError(
            f"{path} has {', '.join(map(repr, described[:5]))} among the genes, which describes cells and is no count. "
            f"Remove the {'row' if transpose else 'column'}."
        )
    of_no_gene = [name for name in genes if NO_GENE.fullmatch(name.strip())]
    if of_no_gene:
        raise UserError(
            f"{path} has {', '.join(map(repr, of_no_gene[:5]))} among the genes, where reads are counted that belong to no gene. "
            f"Remove the {'row' if transpose else 'column'}."
        )
    if _like_genes(cells) > _like_genes(genes):
        example = next(name for name in cells if GENE.fullmatch(name))
        where, remedy = ("columns", "Leave --transpose out.") if transpose else ("rows", "Pass --transpose.")
        raise UserError(f"The {where} of {path} have names of genes, such as {example!r}. {remedy}")


def _like_genes(names: Sequence[str]) -> int:
    return sum(GENE.fullmatch(name) is not None for name in names)
