"""Genes found by name where names are written in other ways."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from .checks import REMOVED

#: An Ensembl identifier at the start or the end of a name of a gene.
ENSEMBL = r"(?:^|[_|:])(ENS[A-Z]*G\d+)(?:\.\d+)?(?:$|[_|:])"


class FoundGenes(NamedTuple):
    """Genes that were looked for.

    Attributes
    ----------
    columns
        ``(W,)`` column of each gene, -1 where there is none.
    rewritten
        For each way in which names differ, the names that were looked for and those that were found.
    """

    columns: np.ndarray
    rewritten: dict[str, dict[str, str]]


def plain(names: pd.Index) -> pd.Index:
    """Names without spaces, versions, genomes as 10x writes them, and identifiers before or after."""
    text = names.astype(str).str.strip()
    for pattern in REMOVED:
        shorter = text.str.replace(pattern, "", regex=True)
        text = shorter.where(shorter != "", text)
    return text


def find_genes(
    wanted: pd.Index,
    present: pd.Index,
    aliases: Mapping[str, str] | None = None,
    orthologs: Mapping[str, str] | None = None,
) -> FoundGenes:
    """Find the columns of genes by their names, exactly or, failing that, as they are written otherwise.

    Versions of Ensembl identifiers, genomes and identifiers before or after the name are ignored, then former symbols are
    replaced, then case is ignored, as in the symbols of mouse and human. A spelling that several columns share finds none.

    Parameters
    ----------
    wanted
        ``(W,)`` names that are looked for.
    present
        ``(G,)`` names of the data, unique.
    aliases
        Current symbol of each former one.
    orthologs
        Name in the organism of the data of each gene that has one; other genes, and those whose counterpart is not there, are looked
        for by their own name.
    """
    aliases, orthologs = aliases or {}, orthologs or {}
    translated = pd.Index([orthologs.get(name, name) for name in wanted], dtype=object)
    columns = present.get_indexer(translated)
    columns = np.where(columns < 0, present.get_indexer(wanted), columns)
    rewritten: dict[str, dict[str, str]] = {}

    def current(names: pd.Index) -> pd.Index:
        return pd.Index([aliases.get(name, name) for name in names], dtype=object)

    bare, bare_present = plain(translated), plain(present)
    identifiers = present.astype(str).str.extract(ENSEMBL, expand=False)
    ways = [("spelling", bare, bare_present), ("spelling", bare, pd.Index(identifiers))]
    if aliases:
        ways.append(("former symbol", current(bare), current(bare_present)))
    ways.append(("case", bare.str.casefold(), bare_present.str.casefold()))
    for way, left, right in ways:
        lacking = np.flatnonzero(columns < 0)
        free = np.setdiff1d(np.arange(len(present)), columns)
        unique = pd.Series(free, index=right[free])
        unique = unique[unique.index.notna() & ~unique.index.duplicated(keep=False)]
        found = unique.reindex(left[lacking]).fillna(-1).to_numpy(dtype=int)
        columns[lacking] = found
        named = {
            str(wanted[row]): str(present[column])
            for row, column in zip(lacking.tolist(), found.tolist(), strict=True)
            if column >= 0
        }
        if named:
            rewritten[way] = rewritten.get(way, {}) | named
    changed = {
        name: orthologs[name] for name, column in zip(wanted, columns, strict=True) if column >= 0 and name in orthologs
    }
    if changed:
        rewritten["ortholog"] = changed
    return FoundGenes(columns, rewritten)


def one_to_one(first: pd.Index, second: pd.Index) -> dict[str, str]:
    """The pairs of a table of orthologs in which each gene has one counterpart."""
    table = pd.DataFrame({"first": first, "second": second}).dropna().astype(str)
    table = table[(table["first"] != "") & (table["second"] != "")].drop_duplicates()
    single = ~table["first"].duplicated(keep=False) & ~table["second"].duplicated(keep=False)
    return dict(zip(table["first"][single], table["second"][single], strict=True))
