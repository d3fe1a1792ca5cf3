"""Tables of counts as text, with names of genes in one direction and of cells in the other."""

import csv
import gzip
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TextIO, cast

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scrcl.utils.words import counted

from .causes import check_is_readable, find_disguise
from .errors import UserError
from .paths import suffix

#: Names that only genes have.
GENE = re.compile(r"ENS[A-Z]*G\d{6,}.*|ACTB|GAPDH|MALAT1|B2M|(MT-|RP[LS]\d).*", re.IGNORECASE)
ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}")
#: Headers of a column of names.
NAMES = re.compile(
    r"#|(un)?named.*|index|ids?|names?|row[._ ]?names?|"
    r"#?\s*(cell|gene|feature|barcode|spot|bead|sample|probe|symbol|ensembl|ensembl gene|gene symbol|gene name|hgnc|object)s?"
    r"([._ ]?(ids?|names?|symbols?|barcodes?|index))?",
    re.IGNORECASE,
)
#: Headers of columns that describe cells or genes by numbers.
ANNOTATION = re.compile(
    r"unnamed: \d+|index|cell[._ ]?(id|type|cycle)s?|(seurat[._ ])?clusters?|leiden.*|louvain.*|labels?|class|batch|samples?"
    r"|donors?|patients?|replicate|plate|age|n_?(genes?|counts?|umis?|features?)(_?(by_counts|rna))?|n(count|feature)_\w+"
    r"|(total|sum)([._ ]?(counts?|umis?))?|(percent|pct)[._ ].*|size[._ ]?factors?|s_score|g2m_score|doublet.*"
    r"|(umap|tsne|t-sne|pca?)[._ ]?\d+|[xyz]([._ ](umap|tsne|pca|coord.*|centroid|pixel))?|(array|pxl|image)?_?(row|col)"
    r"|(chr|chrom|chromosome|start|end|length|gene_?length)",
    re.IGNORECASE,
)
#: Rows of programs that count reads, for reads that belong to no gene.
NO_GENE = re.compile(r"__\w+|N_(unmapped|multimapping|noFeature|ambiguous)|unmapped", re.IGNORECASE)
#: Delimiters of values.
DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", " ": "spaces"}
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
#: Lines in which the header is looked for.
MAX_COMMENTS = 50
RECTANGLE = "Write names of genes into the first row, names of cells into the first column, and counts elsewhere."


def read_table(path: Path, transpose: bool) -> tuple[ad.AnnData, list[str]]:
    """Read a table of cells by genes, or of genes by cells.

    Parameters
    ----------
    path
        Text with names in the first line and column, and counts elsewhere; optionally compressed with gzip.
    transpose
        Whether genes are in rows.

    Returns
    -------
    The cells, and notes for the user.

    Raises
    ------
    UserError
        If names or values are missing, values are not numbers, or a column describes cells.
    """
    check_is_readable(path)
    of_rows, of_columns = ("genes", "cells") if transpose else ("cells", "genes")
    expected = "," if suffix(path) == ".csv" else "\t"
    table, header, skipped, delimiter = _read(path, expected)
    corner = header[0].strip() if len(header) == table.shape[1] else ""
    columns = header[1 - table.shape[1] :]
    _check_header(path, corner, columns, of_columns)
    rows, table = table[0], table.drop(columns=0)
    if rows.isna().any():
        raise UserError(
            f"{path} has no name in line {rows.isna().argmax() + skipped + 1}.", "Write it there, or remove the line."
        )
    if corner and not NAMES.fullmatch(corner) and rows.str.strip().str.fullmatch(NUMBER).all():
        raise UserError(
            f"{path} has no names of {of_rows} in its first column {corner!r}, but numbers.",
            "Insert a column of names; if these are the names, call the column 'name'.",
        )
    _check_values(path, table, rows, columns)
    cells, genes = (columns, rows.tolist()) if transpose else (rows.tolist(), columns)
    _check_names(path, cells, genes, transpose)
    matrix = sp.csr_matrix(table.to_numpy(dtype=np.float32))
    data = ad.AnnData(
        matrix.T.tocsr() if transpose else matrix,
        obs=pd.DataFrame(index=pd.Index(cells, dtype=object)),
        var=pd.DataFrame(index=pd.Index(genes, dtype=object)),
    )
    notes = [f"{path} was read as {counted(data.n_obs, 'cell')} of {counted(data.n_vars, 'gene')}."]
    others = [name for name in genes if not ENSEMBL.match(name)]
    if 0 < len(others) < len(genes) / 10:
        shown = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
        notes.append(f"All names of genes are of Ensembl but for {shown}; these are counted, too.")
    if delimiter != expected:
        notes.append(f"The values of {path} are divided by {DELIMITERS[delimiter]}.")
    return data, notes


def _read(path: Path, expected: str) -> tuple[pd.DataFrame, list[str], int, str]:
    """The lines below the header, with names as text in column 0; the header; the lines up to it; the delimiter."""
    with path.open("rb") as binary:
        head = binary.read(2)
    packed = head == b"\x1f\x8b"
    disguise = None if packed else find_disguise(path)
    if disguise is not None:
        raise disguise
    encoding = "utf-16" if head in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    opener = gzip.open if packed else open
    open_text = cast("Callable[[], TextIO]", partial(opener, path, "rt", encoding=encoding, newline=""))
    with open_text() as file:
        lines = list(islice(file, MAX_COMMENTS))
    skipped = _find_header(lines) + 1
    if skipped > len(lines):
        raise UserError(f"{path} cannot be read as a table: it is empty.", RECTANGLE)
    delimiter = next((mark for mark in (expected, *DELIMITERS) if mark in lines[skipped - 1]), None)
    if delimiter is None:
        raise UserError(f"{path} cannot be read as a table: no delimiter is in its first row.", RECTANGLE)
    header = next(csv.reader([lines[skipped - 1]], delimiter=delimiter, skipinitialspace=True))
    try:
        with open_text() as file:
            table = pd.read_csv(
                file,
                sep=delimiter,
                header=None,
                skiprows=skipped,
                dtype={0: str},
                keep_default_na=False,
                na_values=[""],
                skipinitialspace=True,
                low_memory=False,
            )
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{path} cannot be read as a table: it has one row only.", RECTANGLE) from error
    except pd.errors.ParserError as error:
        cause = str(error).rpartition("C error: ")[-1].strip().rstrip(".")
        raise UserError(
            f"{path} cannot be read as a table: its rows differ in length ({cause}).", "Correct this line."
        ) from error
    # Spreadsheets write empty rows, and a delimiter at the end of each line.
    table = table.dropna(how="all").reset_index(drop=True)
    while table.shape[1] > 1 and not any(header[table.shape[1] - 1 :]) and table.iloc[:, -1].isna().all():
        table = table.iloc[:, :-1]
    width = table.shape[1]
    header = header if any(header[width:]) else header[:width]
    if width < 2 or not width - 1 <= len(header) <= width:  # R writes nothing above the names of the rows
        raise UserError(
            f"{path} cannot be read as a table: its rows differ in length (the first has {counted(len(header), 'value')}, those below "
            f"have {width}).",
            RECTANGLE,
        )
    return table, header, skipped, delimiter


def _find_header(lines: Sequence[str]) -> int:
    """Number of the first line that is neither blank nor a comment; a header may begin with ``#``, too."""
    for number, line in enumerate(lines):
        below = next((other for other in lines[number + 1 :] if other.strip()), "")
        is_header = any(line.count(delimiter) == below.count(delimiter) > 0 for delimiter in ",\t;")
        if line.strip() and (is_header or not line.startswith("#")):
            return number
    return len(lines)


def _check_header(path: Path, corner: str, columns: list[str], kind: str) -> None:
    """Refuse a table whose first line is of counts, or lacks a name."""
    may_be_numbers = (not corner or NAMES.fullmatch(corner)) and len(set(columns)) == len(columns)
    if not may_be_numbers and all(NUMBER.fullmatch(name.strip()) for name in columns):
        raise UserError(
            f"{path} has no names of {kind} in its first row, but numbers such as {columns[0]}.",
            "Insert a row of names; if these are the names, call the first column 'name'.",
        )
    empty = next((number for number, name in enumerate(columns, 2) if not name.strip()), None)
    if empty is not None:
        raise UserError(
            f"{path} has no name in column {empty} of its first row.", "Write it there, or remove the column."
        )


def _check_values(path: Path, table: pd.DataFrame, rows: pd.Series, columns: list[str]) -> None:
    numbers = table.apply(pd.to_numeric, errors="coerce")
    wrong = (numbers.isna() | numbers.dtypes.eq(bool)).to_numpy()
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        value = str(table.iat[row, column])
        what = "a value is missing" if value == "nan" else f"{value!r} is not a number"
        raise UserError(
            f"{path} cannot be read as a table: {what} (row {rows[row]!r}, column {columns[column]!r}).",
            "Write a count there, or remove the row or the column.",
        )


def _check_names(path: Path, cells: list[str], genes: list[str], transpose: bool) -> None:
    """Refuse cells that occur twice, columns that describe cells, and cells that are genes."""
    repeated = pd.Series(cells).value_counts()
    if repeated.iloc[0] > 1:
        raise UserError(
            f"{path} has names of cells that occur more than once, such as {repeated.index[0]!r}, {repeated.iloc[0]:,} times.",
            "Give each cell a name of its own.",
        )
    described = [name for name in genes if ANNOTATION.fullmatch(name.strip())]
    if described:
        raise UserError(
            f"{path} has {', '.join(map(repr, described[:5]))} among the genes, which describes cells.",
            f"Remove the {'row' if transpose else 'column'}.",
        )
    of_no_gene = [name for name in genes if NO_GENE.fullmatch(name.strip())]
    if of_no_gene:
        raise UserError(
            f"{path} has {', '.join(map(repr, of_no_gene[:5]))} among the genes, where reads are counted that belong to no gene.",
            f"Remove the {'row' if transpose else 'column'}.",
        )
    like_genes = [[name for name in names if GENE.fullmatch(name)] for names in (cells, genes)]
    if len(like_genes[0]) > len(like_genes[1]):
        where, remedy = ("columns", "Leave --transpose out.") if transpose else ("rows", "Pass --transpose.")
        raise UserError(f"The {where} of {path} have names of genes, such as {like_genes[0][0]!r}.", remedy)
