"""Prior knowledge about genes: networks and gene sets, read and matched by name."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scrcl.utils.checks import VERSION
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.files import State, as_path
from scrcl.utils.names import as_names
from scrcl.utils.words import counted

#: Names of the two columns of an edge: OmniPath by symbol, then decoupler and OmniPath by other identifiers.
EDGE_COLUMNS = (
    ("source_genesymbol", "target_genesymbol"),
    ("source", "target"),
    ("geneset", "genesymbol"),
)
#: Names of the columns of a gene set and of one of its genes.
SET_COLUMNS = (
    ("source", "target"),
    ("cell_type", "gene"),
    ("cell_type", "genesymbol"),
    ("group", "gene"),
    ("cell type", "official gene symbol"),  # PanglaoDB
    ("cell_name", "Symbol"),  # CellMarker
)
#: Encoding of files, with or without a byte order mark.
ENCODING = "utf-8-sig"
#: Share of the sources that must be genes, relative to the targets, for a table to be a network and not gene sets.
MIN_GENE_SOURCES = 0.5
#: Functions of pandas that read what is no text, and tables of gene sets, by suffix.
READERS = {".parquet": "read_parquet", ".feather": "read_feather", ".xlsx": "read_excel", ".xls": "read_excel"}
TABLE_READERS = {".csv": "read_csv", ".tsv": "read_table"}

GeneSets: TypeAlias = Mapping[str, Iterable[str]] | pd.DataFrame | str | os.PathLike[str]


@dataclass(frozen=True)
class Network:
    """Pairs of genes that are related by prior knowledge.

    Attributes
    ----------
    similarity
        ``(G, G)`` symmetric, without self loops; higher for genes that are related more closely.
    unknown
        Genes of the source that are not in the data.
    n_genes
        Number of genes of the source.
    form
        ``"network"`` or ``"gene sets"``.
    """

    similarity: sp.csr_array
    unknown: np.ndarray
    n_genes: int
    form: str

    @property
    def n_pairs(self) -> int:
        """Number of pairs of the genes that the model keeps."""
        return self.similarity.nnz // 2

    def describe(self) -> str:
        """One sentence on what was matched."""
        examples = ", ".join(self.unknown[:5]) + (", …" if len(self.unknown) > 5 else "")
        return (
            f"gene_network: {counted(self.n_pairs, 'pair')} of the genes kept, of {self.form}; {len(self.unknown):,} of its "
            f"{counted(self.n_genes, 'gene')} {'is' if len(self.unknown) == 1 else 'are'} not in the data{': ' if examples else ''}{examples}"
        )

    def report(self, mode: str) -> State:
        """What was matched, in a form that AnnData can write."""
        return {"mode": mode, "form": self.form, "genes": self.n_genes, "pairs": self.n_pairs, "unknown": self.unknown}


def check_identifiers(names: Iterable[str], present: pd.Index, argument: str) -> None:
    """Refuse names of genes that are not in the data, or that mostly differ from names in the data by case or version.

    Parameters
    ----------
    names
        Names of genes that the user passes.
    present
        Names of the genes of the data.
    argument
        Name of the argument, for messages.

    Raises
    ------
    ScrclValueError
        If no name is in the data, or more than twice as many are if case and versions are ignored.
    """
    unique = pd.Index(pd.unique(np.asarray(list(names), dtype=object)))
    if not len(unique) or not len(present):
        raise ScrclValueError(f"{argument} names no gene.", "Pass at least one.")
    shared = unique.isin(present)
    plain, plain_present = (index.str.replace(VERSION, "", regex=True).str.casefold() for index in (unique, present))
    similar = plain.isin(plain_present)
    if similar.sum() > 2 * shared.sum():
        number = (similar & ~shared).argmax()
        twin = present[plain_present == plain[number]][0]
        raise ScrclValueError(
            f"The genes of {argument} differ from the genes of the data by case or version: {shared.sum():,} of {len(unique):,} "
            f"names are the same, {similar.sum():,} if these are ignored ({argument} has {unique[number]!r}, the data have "
            f"{twin!r}).",
            "If they are of another organism, map them to orthologous genes; if not, write the names as in adata.var_names.",
        )
    if not shared.any():
        raise ScrclValueError(
            f"None of the {counted(len(unique), 'gene')} of {argument} is in the data ({argument} has {unique[0]!r}, the data have "
            f"{present[0]!r}).",
            "Map them to the identifiers in adata.var_names.",
        )


def read_gene_sets(sets: object, argument: str) -> dict[str, list[str]]:
    """Read named sets of genes.

    Parameters
    ----------
    sets
        A mapping of names to genes; the path of a GMT file, or of a JSON file with such a mapping; or a table with columns ``source`` and ``target`` (as in
        decoupler), ``cell_type`` and ``gene`` or ``genesymbol``, or with two columns in this order.
    argument
        Name of the argument, for messages.

    Raises
    ------
    ScrclValueError
        If it cannot be read, or contains no set.
    """
    if isinstance(sets, str | os.PathLike):
        path = as_path(sets, argument)
        _check_is_text(path, argument, READERS | TABLE_READERS)
        sets = _read_json(path, argument) if path.suffix.lower() == ".json" else _read_gmt(path, argument)
    if isinstance(sets, pd.DataFrame):
        name, gene = _columns(sets, SET_COLUMNS, sets.shape[1] == 2, argument, "one of sets and one of genes")
        sets = _by_set(sets[name], sets[gene])
    if not isinstance(sets, Mapping) or any(isinstance(genes, str) for genes in sets.values()):
        raise ScrclValueError(
            f"{argument} is of type {type(sets).__name__}{' of strings' if isinstance(sets, Mapping) else ''}.",
            "Pass a dictionary of lists of genes, a table, or the path of a GMT or JSON file.",
        )
    if not sets:
        raise ScrclValueError(f"{argument} holds no set of genes.", "Pass at least one.")
    return {str(name): _members(name, genes, argument) for name, genes in sets.items()}


def _members(name: object, genes: Any, argument: str) -> list[str]:
    """The genes of a set, each once, without missing values and the space around names."""
    if not isinstance(genes, Iterable):
        raise ScrclValueError(
            f"{argument} has {genes!r} for {name!r}, not a list of genes.",
            "Pass a list of genes, or leave the name out.",
        )
    members = (gene.strip() for gene in as_names(list(genes)) if gene is not None)
    return list(dict.fromkeys(filter(None, members)))


def read_network(source: GeneSets, genes: pd.Index, all_genes: pd.Index, argument: str = "gene_network") -> Network:
    """Read a network of genes or gene sets, and match their genes.

    Parameters
    ----------
    source
        A table or the path of one (``.csv``, ``.tsv``, ``.txt``), with columns ``source`` and ``target`` (decoupler),
        ``source_genesymbol`` and ``target_genesymbol`` (OmniPath), ``geneset`` and ``genesymbol`` (decoupler resources),
        or the two genes of an edge in its first two columns; ``weight`` is optional. Or gene sets: a dictionary, or the
        path of a GMT file. A table in which few sources are genes contains gene sets.
    genes
        Names of the ``G`` genes that the model keeps.
    all_genes
        Names of all genes of the data.
    argument
        Name of the argument, for messages.

    Raises
    ------
    ScrclValueError
        If it cannot be read, has identifiers of another case or kind, or connects no two of the genes kept.
    """
    if isinstance(source, str | os.PathLike):
        path = as_path(source, argument)
        _check_is_text(path, argument, READERS)
        is_gmt = ".gmt" in (suffix.lower() for suffix in path.suffixes)
        source = _read_gmt(path, argument) if is_gmt else _read_table(path, argument, all_genes)
    if isinstance(source, pd.DataFrame):
        edges = _edges(source, argument)
        # A network has genes on both sides, a table of gene sets on one.
        if edges["source"].isin(all_genes).mean() >= MIN_GENE_SOURCES * edges["target"].isin(all_genes).mean():
            named = pd.unique(np.concatenate([edges["source"], edges["target"]]))
            check_identifiers(named, all_genes, argument)
            return _network(_similarity_of_edges(edges, genes), named, all_genes, "network", argument)
        source = _by_set(edges["source"], edges["target"])
    members = pd.Series(read_gene_sets(source, argument)).explode().dropna()
    named = members.unique()
    check_identifiers(named, all_genes, argument)
    return _network(_similarity_of_sets(members, genes), named, all_genes, "gene sets", argument)


def _network(similarity: sp.csr_array, named: np.ndarray, all_genes: pd.Index, form: str, argument: str) -> Network:
    if not similarity.nnz:
        raise ScrclValueError(
            f"{argument} joins no two of the genes that the model keeps.",
            "Keep more genes, `SCRCL(adata, n_top_genes=...)`, or pass a network of genes that vary between these cells.",
        )
    unknown = named[~pd.Index(named).isin(all_genes)].astype(str)
    return Network(similarity, unknown, len(named), form)


def _similarity_of_edges(edges: pd.DataFrame, genes: pd.Index) -> sp.csr_array:
    """The symmetric matrix of the largest absolute weight of each pair of different genes."""
    ends = np.sort([genes.get_indexer(pd.Index(edges[side])) for side in ("source", "target")], axis=0)
    pairs = pd.DataFrame({"a": ends[0], "b": ends[1], "weight": edges["weight"].abs().to_numpy()})
    pairs = pairs[(pairs["a"] >= 0) & (pairs["a"] != pairs["b"]) & (pairs["weight"] > 0)]
    strongest = pairs.groupby(["a", "b"], as_index=False)["weight"].max()
    shape = (len(genes), len(genes))
    upper = sp.csr_array((strongest["weight"].to_numpy(float), (strongest["a"], strongest["b"])), shape=shape)
    return sp.csr_array(upper + upper.T)


def _similarity_of_sets(members: pd.Series, genes: pd.Index) -> sp.csr_array:
    """The symmetric matrix of the weights of pairs of different genes, of gene sets that index their members.

    The weights of a gene's pairs within a set sum to one, so that a pair in a large set has little weight.
    """
    columns, (numbers, names) = genes.get_indexer(pd.Index(members)), pd.factorize(members.index)
    kept = columns >= 0
    shape = (len(genes), len(names))
    belongs = sp.csr_array((np.ones(kept.sum()), (columns[kept], numbers[kept])), shape=shape)
    similarity = sp.csr_array(belongs @ sp.diags_array(1 / np.maximum(belongs.sum(axis=0) - 1, 1)) @ belongs.T)
    similarity.setdiag(0)
    similarity.eliminate_zeros()
    return similarity


def _by_set(names: pd.Series, genes: pd.Series) -> dict[str, list[str]]:
    """The genes of each set, in order."""
    return {str(name): members for name, members in genes.groupby(names, sort=False).agg(list).items()}


def _columns(
    table: pd.DataFrame, known: Iterable[tuple[str, str]], by_position: bool, argument: str, wanted: str
) -> tuple[str, str]:
    """Names of the two columns that are read: known ones, or the first two if the table allows ``by_position``."""
    pair = next((pair for pair in known if set(pair) <= set(table.columns)), None)
    if pair is None and not by_position:
        columns = (", ".join(map(repr, table.columns[:6])) or "none") + (", …" if len(table.columns) > 6 else "")
        raise ScrclValueError(
            f"{argument} has columns {columns}, not {wanted}.", "Name two of them 'source' and 'target'."
        )
    return (table.columns[0], table.columns[1]) if pair is None else pair


def _edges(table: pd.DataFrame, argument: str) -> pd.DataFrame:
    """The columns ``source``, ``target`` and ``weight`` of a table, which is 1 by default."""
    by_position = table.shape[1] > 1 and not any(map(pd.api.types.is_float_dtype, table.dtypes.iloc[:2]))
    source, target = _columns(table, EDGE_COLUMNS, by_position, argument, "the two ends of an edge")
    table = table.dropna(subset=[source, target])
    if table.empty:
        raise ScrclValueError(f"{argument} has no edges.", "Pass a table with at least one.")
    column = next((name for name in table.columns if str(name).casefold() == "weight"), None)
    try:
        weights = np.ones(len(table)) if column is None else table[column].to_numpy(dtype=float)
    except (TypeError, ValueError) as error:
        raise ScrclValueError(
            f"{argument} has weights that are not numbers ({error}).", "Correct or drop the column 'weight'."
        ) from error
    if not np.isfinite(weights).all():
        raise ScrclValueError(f"{argument} has NaN or infinite weights.", "Correct or drop the column 'weight'.")
    return pd.DataFrame({"source": as_names(table[source]), "target": as_names(table[target]), "weight": weights})


def _read_table(path: Path, argument: str, all_genes: pd.Index) -> pd.DataFrame:
    """Read an edge list with or without a header."""
    # A gene may be called NA, so that only an empty field is missing.
    options: dict = {
        "header": None,
        "dtype": str,
        "keep_default_na": False,
        "na_values": [""],
        "skipinitialspace": True,
    }
    with _readable(path, argument, "a table"):
        for separator in ("\t", ",", ";", r"\s+"):
            if pd.read_csv(path, sep=separator, comment="#", nrows=1, encoding=ENCODING, **options).shape[1] > 1:
                break
        table = pd.read_csv(path, sep=separator, comment="#", encoding=ENCODING, **options)
    if table.shape[1] < 2:
        raise ScrclValueError(
            f"{argument}={os.fspath(path)!r} has one column only.",
            "Give the two ends of an edge in columns 'source' and 'target', separated by commas or tabs.",
        )
    first, rest = table.iloc[0], table.iloc[1:]
    is_number = table.apply(pd.to_numeric, errors="coerce").notna()
    above_numbers = len(rest) > 0 and (is_number[1:].all() & ~is_number.iloc[0]).any()
    if above_numbers or not (first.isin(all_genes) | is_number.iloc[0]).any():  # a header
        # Row numbers, as R writes them, have no name.
        return rest.set_axis(first, axis=1).loc[:, first.notna().to_numpy()]
    return table.rename(columns={0: "source", 1: "target", **({2: "weight"} if is_number.iloc[0].get(2) else {})})


def _read_gmt(path: Path, argument: str) -> dict[str, list[str]]:
    """Read gene sets, one on each line: a name, a description, and genes, separated by tabs."""
    with _readable(path, argument, "text"):
        # This separator occurs nowhere, so that a line is a field.
        options: dict = {"header": None, "dtype": str, "quoting": csv.QUOTE_NONE, "keep_default_na": False}
        lines = pd.read_csv(path, sep="\x1f", encoding=ENCODING, **options)[0]
    sets = {}
    for line in lines:
        name, *fields = (field.strip() for field in line.split("\t"))
        if len(fields) < 2:
            raise ScrclValueError(
                f"{argument}={os.fspath(path)!r}: the line of {name!r} has {counted(1 + len(fields), 'field')}.",
                "A line of a GMT file has a name, a description and genes, separated by tabs.",
            )
        sets[name] = [gene for gene in fields[1:] if gene]
    return sets


def _read_json(path: Path, argument: str) -> object:
    """Read a dictionary of gene sets."""
    with _readable(path, argument, "JSON"):
        return json.loads(path.read_text(encoding=ENCODING))


def _check_is_text(path: Path, argument: str, readers: Mapping[str, str]) -> None:
    """Refuse a file whose suffix says that another function reads it."""
    suffix = next((suffix.lower() for suffix in path.suffixes if suffix.lower() in readers), None)
    if suffix is not None:
        raise ScrclValueError(
            f"{argument}={os.fspath(path)!r} is not read as a file of the kind {suffix}.",
            f"Read it and pass the table: `{argument}=pandas.{readers[suffix]}({os.fspath(path)!r})`.",
        )


@contextmanager
def _readable(path: Path, argument: str, kind: str) -> Iterator[None]:
    """Refuse a file that pandas cannot read, and quote why."""
    if not path.is_file():
        raise ScrclValueError(
            f"{argument}={os.fspath(path)!r} is not a file.", "Name a file that is there, or pass a table."
        )
    try:
        yield
    except Exception as error:  # each compression has its own
        raise ScrclValueError(
            f"{argument}={os.fspath(path)!r} cannot be read as {kind}: {error}.",
            "Save it as text in UTF-8, with columns separated by commas or tabs; a file of gene sets has the suffix .gmt.",
        ) from error
