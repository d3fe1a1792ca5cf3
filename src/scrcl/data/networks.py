"""Prior knowledge of genes: networks and gene sets, read and matched by name."""

import gzip
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scrcl.utils.errors import ScrclValueError
from scrcl.utils.names import as_names

#: Pairs of columns that name the two ends of an edge: OmniPath by symbol, then decoupler and OmniPath by other names.
EDGE_COLUMNS = (
    ("source_genesymbol", "target_genesymbol"),
    ("source", "target"),
    ("geneset", "genesymbol"),
)
#: Pairs of columns that name a set and one of its genes.
SET_COLUMNS = (("source", "target"), ("cell_type", "gene"), ("cell_type", "genesymbol"), ("group", "gene"))
#: Share of the names, of the smaller side, below which it is asked whether they are other identifiers.
LEAST_SHARED = 0.1
#: Share of the sources that must be genes for a table to be a network of genes and not a table of gene sets.
LEAST_SOURCES = 0.5

#: Kinds of identifiers by their form; anything else is a symbol.
KINDS = {
    "Ensembl identifiers": re.compile(r"ENS[A-Z]*[GTP]\d{6,}(\.\d+)?|FBgn\d{7}|WBGene\d{8}"),
    "Entrez identifiers": re.compile(r"\d+"),
    "UniProt accessions": re.compile(r"[OPQ]\d[A-Z0-9]{3}\d|[A-NR-Z]\d([A-Z][A-Z0-9]{2}\d){1,2}"),
    "RefSeq accessions": re.compile(r"[NX][MRP]_\d+(\.\d+)?"),
}


def kind_of(names: Iterable[str]) -> str:
    """The kind of identifiers that most names are."""
    names = list(names)
    for kind, form in KINDS.items():
        if sum(form.fullmatch(name) is not None for name in names) > len(names) / 2:
            return kind
    return "gene symbols"


def check_identifiers(given: Iterable[str], present: pd.Index, argument: str) -> None:
    """Refuse names that are those of the data in another case or kind.

    Parameters
    ----------
    given
        Names of genes that the user passes.
    present
        Names of the genes of the data.
    argument
        What the user calls them, for messages.

    Raises
    ------
    ValueError
        If no name is among those of the data, or few are and they are of another kind or version, or far more would be if
        case did not matter.
    """
    names = pd.Index(pd.unique(np.asarray(list(given), dtype=object)))
    if not len(names) or not len(present):
        raise ScrclValueError(f"{argument} names no gene.", "Pass at least one.")
    shared = names.isin(present)
    folded = names.str.casefold().isin(present.str.casefold())
    example = f"{argument} has {names[(~shared).argmax()]!r}, the data have {present[0]!r}"
    if folded.sum() > 2 * shared.sum():
        twin = present[present.str.casefold() == names[folded & ~shared][0].casefold()][0]
        raise ScrclValueError(
            f"The genes of {argument} differ from those of the data by case: {shared.sum():,} of {len(names):,} names "
            f"are the same, {folded.sum():,} if case is ignored ({argument} has {names[folded & ~shared][0]!r}, the data have "
            f"{twin!r}).",
            "If they are of another organism, map them to orthologous genes; if not, write the names as in adata.var_names.",
        )
    if shared.sum() >= LEAST_SHARED * min(len(names), len(present)):
        return
    kinds = kind_of(names), kind_of(present)
    if kinds[0] != kinds[1]:
        raise ScrclValueError(
            f"{argument} has {kinds[0]}, but the data have {kinds[1]} ({example}).",
            f"Map one to the other, or put {kinds[0]} into adata.var_names.",
        )
    version = r"\.\d+$"
    bare = names.str.replace(version, "", regex=True).isin(present.str.replace(version, "", regex=True))
    if bare.sum() > 2 * shared.sum():
        raise ScrclValueError(
            f"The genes of {argument} differ from those of the data by the version after the dot ({example}).",
            "Remove the version from both.",
        )
    if not shared.any():
        raise ScrclValueError(
            f"None of the {len(names):,} genes of {argument} is in the data ({example}).",
            "Pass names that are in adata.var_names.",
        )


def read_gene_sets(sets: Any, argument: str) -> dict[str, list[str]]:
    """Read named sets of genes.

    Parameters
    ----------
    sets
        A mapping of names to genes; the path of a GMT file; or a table with columns ``source`` and ``target`` (as
        decoupler has them), ``cell_type`` and ``gene`` or ``genesymbol``, or with two columns in this order.
    argument
        What the user calls it, for messages.

    Raises
    ------
    ValueError
        If it cannot be read, or holds no set.
    """
    if isinstance(sets, str | os.PathLike):
        sets = _read_gmt(Path(sets), argument)
    if isinstance(sets, pd.DataFrame):
        pair = _named_pair(sets, SET_COLUMNS)
        if pair is None:
            if sets.shape[1] != 2:
                raise ScrclValueError(
                    f"{argument} has columns {', '.join(map(repr, sets.columns))}, not one of sets and one of genes.",
                    "Name two of them 'source' (the set) and 'target' (the gene).",
                )
            pair = (sets.columns[0], sets.columns[1])
        sets = {str(name): group[pair[1]] for name, group in sets.groupby(pair[0], sort=False)}
    if not isinstance(sets, Mapping) or any(isinstance(genes, str) for genes in sets.values()):
        raise ScrclValueError(
            f"{argument} is of type {type(sets).__name__}{' of strings' if isinstance(sets, Mapping) else ''}.",
            "Pass a dictionary of lists of genes, a table, or the path of a GMT file.",
        )
    read = {str(name): list(dict.fromkeys(str(gene) for gene in genes)) for name, genes in sets.items()}
    if not read:
        raise ScrclValueError(f"{argument} holds no set of genes.", "Pass at least one.")
    return read


@dataclass(frozen=True)
class Network:
    """Pairs of genes that belong together by prior knowledge.

    Attributes
    ----------
    similarity
        ``(G, G)`` symmetric, without self loops; higher for genes that belong together more.
    unknown
        Genes of the source that the data do not have.
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
        """Number of pairs of genes kept."""
        return self.similarity.nnz // 2

    def describe(self) -> str:
        """What was matched, in words."""
        unknown = (
            f": {', '.join(self.unknown[:5])}{', …' if len(self.unknown) > 5 else ''}" if len(self.unknown) else ""
        )
        return (
            f"gene_network: {self.n_pairs:,} pairs of the genes kept, of {self.form}; {len(self.unknown):,} of its "
            f"{self.n_genes:,} genes are not in the data{unknown}"
        )

    def report(self, mode: str) -> dict[str, Any]:
        """What was matched, in a form that AnnData can write."""
        return {
            "mode": mode,
            "form": self.form,
            "genes": self.n_genes,
            "pairs": self.n_pairs,
            "unknown": self.unknown,
        }


def read_network(source: Any, genes: pd.Index, all_genes: pd.Index, argument: str = "gene_network") -> Network:
    """Read a gene-gene network or gene sets, and find their genes.

    Parameters
    ----------
    source
        A table or the path of one (``.csv``, ``.tsv``, ``.txt``), with columns ``source`` and ``target`` (decoupler),
        ``source_genesymbol`` and ``target_genesymbol`` (OmniPath), ``geneset`` and ``genesymbol`` (decoupler resources),
        or the two ends of an edge in its first two columns; ``weight`` is optional. Or gene sets: a dictionary, or the
        path of a GMT file. A table most of whose sources are no genes holds gene sets.
    genes
        Names of the ``G`` genes that the model keeps.
    all_genes
        Names of all genes of the data.
    argument
        What the user calls it, for messages.

    Raises
    ------
    ValueError
        If it cannot be read, has identifiers of another case or kind, or joins no two of the genes kept.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        gmt = ".gmt" in (suffix.lower() for suffix in path.suffixes)
        source = _read_gmt(path, argument) if gmt else _read_table(path, argument, all_genes)
    if isinstance(source, pd.DataFrame):
        sources, targets, weights = _edges(source, argument)
        # A table of gene sets has genes on one side only; a network on both.
        if pd.Index(sources).isin(all_genes).mean() >= LEAST_SOURCES * pd.Index(targets).isin(all_genes).mean():
            check_identifiers([*sources, *targets], all_genes, argument)
            named = pd.unique(np.concatenate([sources, targets]))
            similarity = _pairs(
                genes.get_indexer(pd.Index(sources)), genes.get_indexer(pd.Index(targets)), weights, len(genes)
            )
            return _network(similarity, named, all_genes, "network", argument)
        source = pd.Series(targets).groupby(sources, sort=False).agg(list).to_dict()
    sets = read_gene_sets(source, argument)
    named = pd.unique(np.concatenate([np.asarray(members, dtype=object) for members in sets.values()]))
    check_identifiers(named, all_genes, argument)
    columns = genes.get_indexer(pd.Index([gene for members in sets.values() for gene in members]))
    numbers = np.repeat(np.arange(len(sets)), [len(members) for members in sets.values()])[columns >= 0]
    columns = columns[columns >= 0]
    belongs = sp.csr_array((np.ones(len(numbers)), (columns, numbers)), shape=(len(genes), len(sets)))
    # A gene's ties to the other members of a set sum to one, so that a large set says little of each pair.
    weight = 1 / np.maximum(belongs.sum(axis=0) - 1, 1)
    similarity = sp.csr_array(belongs @ sp.diags_array(weight) @ belongs.T)
    similarity.setdiag(0)
    similarity.eliminate_zeros()
    return _network(similarity, named, all_genes, "gene sets", argument)


def _network(similarity: sp.csr_array, named: np.ndarray, all_genes: pd.Index, form: str, argument: str) -> Network:
    if not similarity.nnz:
        raise ScrclValueError(
            f"{argument} joins no two of the genes that the model keeps.",
            "Keep more genes, `SCRCL(adata, n_top_genes=...)`, or pass a network of genes that vary between these cells.",
        )
    unknown = named[~pd.Index(named).isin(all_genes)].astype(str)
    return Network(similarity, unknown, len(named), form)


def _pairs(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, n: int) -> sp.csr_array:
    """The symmetric matrix of the strongest weight of each pair of different, known genes."""
    known = (rows >= 0) & (columns >= 0) & (rows != columns) & (weights != 0)
    weights = np.abs(weights[known])
    ends = np.sort(np.stack([rows[known], columns[known]]), axis=0)
    table = pd.DataFrame({"a": ends[0], "b": ends[1], "w": weights}).groupby(["a", "b"], as_index=False)["w"].max()
    upper = sp.csr_array((table["w"].to_numpy(float), (table["a"], table["b"])), shape=(n, n))
    return sp.csr_array(upper + upper.T)


def _named_pair(table: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The first of the pairs of columns that the table has."""
    return next((pair for pair in pairs if set(pair) <= set(table.columns)), None)


def _edges(table: pd.DataFrame, argument: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two ends and the weight of each row."""
    pair = _named_pair(table, EDGE_COLUMNS)
    if pair is None:
        if table.shape[1] < 2 or any(pd.api.types.is_float_dtype(table[name]) for name in table.columns[:2]):
            raise ScrclValueError(
                f"{argument} has columns {', '.join(map(repr, table.columns)) or 'none'}, not the two ends of an edge.",
                "Name two columns 'source' and 'target'.",
            )
        pair = (table.columns[0], table.columns[1])
    table = table.dropna(subset=list(pair))
    if table.empty:
        raise ScrclValueError(f"{argument} has no edges.", "Pass a table with at least one.")
    weights = np.ones(len(table))
    weight = next((name for name in table.columns if str(name).casefold() == "weight"), None)
    if weight is not None:
        try:
            weights = table[weight].to_numpy(dtype=float)
        except (TypeError, ValueError) as error:
            raise ScrclValueError(
                f"{argument} has weights that are not numbers.", "Correct or drop the column 'weight'."
            ) from error
        if not np.isfinite(weights).all():
            raise ScrclValueError(f"{argument} has NaN or infinite weights.", "Correct or drop the column 'weight'.")
    return as_names(table[pair[0]]), as_names(table[pair[1]]), weights


def _read_table(path: Path, argument: str, all_genes: pd.Index) -> pd.DataFrame:
    """Read an edge list with or without a header, which is found by what it does not hold: genes and numbers."""
    lines = _read_lines(path, argument)
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    separator = next((mark for mark in "\t,;" if mark in first), r"\s+")
    try:
        # A gene may be called NA, so that only an empty field is missing.
        table = pd.read_csv(
            StringIO("\n".join(lines)),
            sep=separator,
            comment="#",
            header=None,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            skipinitialspace=True,
        )
    except ValueError as error:
        raise ScrclValueError(
            f"{argument}={os.fspath(path)!r} cannot be read as a table: {error}.",
            "Separate its columns by commas or tabs; a file of gene sets has the suffix .gmt.",
        ) from error
    if table.shape[1] < 2:
        raise ScrclValueError(
            f"{argument}={os.fspath(path)!r} has one column only.",
            "Give the two ends of an edge in columns 'source' and 'target', separated by commas or tabs.",
        )
    rest = table.iloc[1:].reset_index(drop=True)
    numeric: list[Any] = [
        name for name in table.columns if len(rest) and pd.to_numeric(rest[name], errors="coerce").notna().all()
    ]
    header = table.iloc[0]
    named = _named_pair(pd.DataFrame(columns=header.astype(str)), EDGE_COLUMNS) is not None
    if named or _is_header(header, rest, numeric, all_genes):
        # Rows that are numbered, as R writes them, have no name.
        unnamed = [name for name in numeric if pd.isna(header[name])]
        table = rest.rename(columns=header.to_dict()).drop(columns=[header[name] for name in unnamed])
    else:
        table = table.rename(columns={0: "source", 1: "target", **({2: "weight"} if 2 in numeric else {})})
    if "weight" in table:
        numbers = pd.to_numeric(table["weight"], errors="coerce")
        if numbers.notna().equals(table["weight"].notna()):  # else those that are no numbers are refused by name
            table["weight"] = numbers
    return table


def _is_header(first: pd.Series, rest: pd.DataFrame, numeric: Sequence[Any], all_genes: pd.Index) -> bool:
    """Whether the first row names columns: text above numbers, or ends of an edge that are found nowhere else."""
    if any(pd.isna(first[name]) or pd.isna(pd.to_numeric(first[name], errors="coerce")) for name in numeric):
        return True
    return not any(first[name] in all_genes or (rest[name] == first[name]).any() for name in (0, 1))


def _read_gmt(path: Path, argument: str) -> dict[str, list[str]]:
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(_read_lines(path, argument), 1):
        fields = [field.strip() for field in line.split("\t")]
        if not any(fields):
            continue
        if len(fields) < 3:
            raise ScrclValueError(
                f"{argument}={os.fspath(path)!r}: line {number} has {len(fields)} fields.",
                "A line of a GMT file has a name, a description and genes, separated by tabs.",
            )
        sets[fields[0]] = [gene for gene in fields[2:] if gene]
    return sets


def _read_lines(path: Path, argument: str) -> list[str]:
    """The lines of a text file, which may be compressed."""
    _check_file(path, argument)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
        return content.decode("utf-8-sig").splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ScrclValueError(
            f"{argument}={os.fspath(path)!r} cannot be read as text: {error}.", "Save it as text in UTF-8."
        ) from error


def _check_file(path: Path, argument: str) -> None:
    if not path.is_file():
        raise ScrclValueError(
            f"{argument}={os.fspath(path)!r} is not a file.", "Name an edge list or a GMT file, or pass a table."
        )
