"""Symbols of genes for the report, where the data name genes by identifiers of Ensembl."""

import re

import pandas as pd

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


def symbols_column(var: pd.DataFrame) -> str | None:
    """The column that has symbols, if most genes are named by identifiers."""
    names = var.index.astype(str)
    if not len(names) or sum(map(bool, map(ENSEMBL.fullmatch, names))) < len(names) / 2:
        return None
    folded = {str(column).casefold(): column for column in reversed(var.columns)}
    return next((folded[name] for name in COLUMNS if name in folded), None)


def find_symbols(var: pd.DataFrame) -> dict[str, str]:
    """Symbol of each gene, if most are named by identifiers and a column has symbols; else nothing.

    A symbol that several genes have is followed by the identifier.
    """
    names, column = var.index.astype(str), symbols_column(var)
    if column is None:
        return {}
    symbols = var[column].astype(object).where(var[column].notna(), "").astype(str).str.strip()
    known = pd.Series(symbols.to_numpy(), index=names)
    known = known[(known != "") & (known != "nan") & (known != known.index)]
    shared = known.duplicated(keep=False)
    shown = known.where(~shared, known + " (" + known.index + ")")
    return dict(zip(shown.index, shown, strict=True))


def with_symbols(tree: ClusterTree, symbols: dict[str, str]) -> ClusterTree:
    """The same tree, with symbols of the genes of its splits."""
    evidence = tree.evidence.copy()
    for column in ("genes_left", "genes_right"):
        evidence[column] = [
            ", ".join(symbols.get(gene, gene) for gene in genes.split(", ")) if isinstance(genes, str) else genes
            for genes in evidence[column]
        ]
    return ClusterTree(tree.nested, tree.cell_names, evidence)
