"""Symbols of genes, from a column that is named or, where genes are named by identifiers of Ensembl, found."""

import re

import pandas as pd
from anndata import AnnData
from mudata import MuData

from scrcl.cluster.cluster_tree import ClusterTree

#: Columns of ``var`` in which data sets keep symbols.
COLUMNS = (
    "gene_symbols",
    "gene_symbol",
    "gene_name",
    "gene_names",
    "feature_name",
    "gene_short_name",
    "symbol",
    "symbols",
    "hgnc_symbol",
    "gene",
    "name",
)
#: An identifier of a gene of Ensembl, of any species, with or without its version.
ENSEMBL = re.compile(r"(ENS[A-Z]*G|FBgn|WBGene)\d{6,}(\.\d+)?", re.IGNORECASE)


def symbols_column(var: pd.DataFrame, chosen: str | None = None) -> str | None:
    """The column that has symbols: the ``chosen`` one or, if most genes are named by identifiers, the first of ``COLUMNS``."""
    if chosen is not None:
        return chosen if chosen in var else None
    names = var.index.astype(str)
    if not len(names) or sum(map(bool, map(ENSEMBL.fullmatch, names))) < len(names) / 2:
        return None
    folded = {str(column).casefold(): column for column in reversed(var.columns)}
    return next((folded[name] for name in COLUMNS if name in folded), None)


def find_symbols(var: pd.DataFrame, chosen: str | None = None) -> dict[str, str]:
    """Symbol of each gene by :func:`symbols_column`; nothing if there is no such column.

    A symbol that several genes have is followed by the identifier.
    """
    names, column = var.index.astype(str), symbols_column(var, chosen)
    if column is None:
        return {}
    symbols = var[column].astype(object).where(var[column].notna(), "").astype(str).str.strip()
    known = pd.Series(symbols.to_numpy(), index=names)
    known = known[(known != "") & (known != "nan") & (known != known.index)]
    shared = known.duplicated(keep=False)
    shown = known.where(~shared, known + " (" + known.index + ")")
    return dict(zip(shown.index, shown, strict=True))


def symbols_of(data: AnnData | MuData, chosen: str | None) -> dict[str, str]:
    """Symbol of each gene of all modalities, as in :func:`find_symbols`."""
    tables = [part.var for part in (data.mod.values() if isinstance(data, MuData) else [data])]
    return {gene: symbol for table in reversed(tables) for gene, symbol in find_symbols(table, chosen).items()}


def with_symbols(tree: ClusterTree, symbols: dict[str, str]) -> ClusterTree:
    """The same tree, with symbols of the genes of its splits."""
    evidence = tree.evidence.copy()
    for column in ("genes_left", "genes_right"):
        evidence[column] = [
            ", ".join(symbols.get(gene, gene) for gene in genes.split(", ")) if isinstance(genes, str) else genes
            for genes in evidence[column]
        ]
    return ClusterTree(tree.nested, tree.cell_names, evidence)
