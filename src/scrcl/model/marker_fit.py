"""Fit of marker genes to groups of cells of data, without a model."""

import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData
from scvi import settings

from scrcl.cluster.cluster_tree import ROOT, ClusterTree
from scrcl.data.gene_symbols import gene_labels
from scrcl.data.marker_sets import MarkerSets
from scrcl.data.orthologs import read_orthologs
from scrcl.data.sources import Source
from scrcl.genes.associations import Groups, log_expression
from scrcl.genes.hierarchy import (
    Hierarchy,
    LevelNaming,
    SampledCells,
    distinctive_genes,
    explain_level,
    name_by_level,
)
from scrcl.genes.naming import NO_NAME, GroupLevels, explain_name, name_groups
from scrcl.reference.modality import joint_names
from scrcl.utils import keys
from scrcl.utils.checks import check_cells_have_counts, check_unique_genes
from scrcl.utils.errors import ScrclValueError, ScrclWarning
from scrcl.utils.gene_names import find_genes
from scrcl.utils.names import distinct
from scrcl.utils.words import counted

Data: TypeAlias = AnnData | MuData
#: Logarithms of the counts of some cells, in blocks.
Logarithms: TypeAlias = Callable[[np.ndarray], Iterator[tuple[slice, sp.csr_array]]]

#: Name where the evidence supports none at any level.
UNSURE = "unsure"
#: Shares of the genes of markers, and of the data, of which the others know fewer if they are of different organisms or identifiers.
MIN_FOUND, MIN_KNOWN = 0.1, 0.25
#: Share of the genes, of markers or of the data, that are in a column of `var` that is suggested.
MIN_COLUMN = 0.5
#: Cells of each group that are scored by themselves, drawn at random.
MAX_SAMPLED_CELLS = 500


@dataclass(frozen=True)
class PlacedMarkers:
    """Marker genes, found in the data.

    Attributes
    ----------
    sets
        The marker genes.
    genes
        ``(G,)`` names of the genes of the data.
    columns
        Column in the data of each marker gene that is there.
    rewritten
        Names that the data write otherwise, by the way in which they differ.
    """

    sets: MarkerSets
    genes: pd.Index
    columns: dict[str, int]
    rewritten: dict[str, dict[str, str]]

    @cached_property
    def missing(self) -> dict[str, list[str]]:
        """The genes of each name that the data lack."""
        return {name: [gene for gene in genes if gene not in self.columns] for name, genes in self.sets.genes.items()}

    @cached_property
    def used(self) -> dict[str, int]:
        """The number of genes of each name that the data have."""
        return {name: len(genes) - len(self.missing[name]) for name, genes in self.sets.genes.items()}

    def columns_of(self, name: str) -> np.ndarray:
        """Columns of the genes of a name."""
        found = [self.columns[gene] for gene in self.sets.genes[name] if gene in self.columns]
        return np.array(list(dict.fromkeys(found)), dtype=int)

    @cached_property
    def frequency(self) -> sp.csr_array:
        """``(L, G)`` weight of each gene of each name, relative to the highest of the name."""
        rows, columns, values = [], [], []
        for row, genes in enumerate(self.sets.genes.values()):
            highest = max(genes.values(), default=1.0)
            for gene, weight in genes.items():
                if gene in self.columns:
                    rows.append(row)
                    columns.append(self.columns[gene])
                    values.append(weight / highest)
        table = sp.coo_array((values, (rows, columns)), shape=(len(self.sets.genes), len(self.genes)))
        return sp.csr_array(table)

    @cached_property
    def hierarchy(self) -> Hierarchy:
        """The parents of the names."""
        return Hierarchy(self.sets.parent_numbers)

    @cached_property
    def distinctive_missing(self) -> dict[str, list[str]]:
        """The most distinctive genes of each name that the data lack."""
        known = pd.Index(dict.fromkeys(gene for genes in self.sets.genes.values() for gene in genes))
        everywhere = PlacedMarkers(self.sets, known, {gene: number for number, gene in enumerate(known)}, {})
        weights = distinctive_genes(everywhere.frequency, self.hierarchy)
        parts = zip(self.sets.genes, np.split(weights.indices, weights.indptr[1:-1]), strict=True)
        return {name: [gene for gene in known[part] if gene not in self.columns] for name, part in parts}


@dataclass(frozen=True)
class Naming:
    """How groups of cells are named.

    Attributes
    ----------
    data
        The cells.
    placed
        The marker genes.
    logarithms
        Function of the rows of cells for each modality, in the order of the genes.
    min_support, seed
        As in :meth:`scrcl.SCRCL.get_cluster_names`.
    """

    data: Data
    placed: PlacedMarkers
    logarithms: tuple[Logarithms, ...]
    min_support: float
    seed: int

    @classmethod
    def of(
        cls,
        data: Data,
        sources: Mapping[str, Source],
        logarithms: Mapping[str, Logarithms],
        sets: MarkerSets,
        *,
        min_support: float = 0.5,
        seed: int = 0,
        gene_symbols: str | None = None,
        orthologs: Any = None,
    ) -> "Naming":
        """Find the marker genes in the modalities of the data."""
        for source in sources.values():
            check_unique_genes(source.names, source.names_where)
        labels = gene_labels(data, {name: source.names for name, source in sources.items()}, gene_symbols)
        placed = _place(sets, joint_names(labels), read_orthologs(orthologs, sets.lists), data)
        return cls(data, placed, tuple(logarithms[name] for name in sources), float(min_support), seed)

    def levels(self, rows: np.ndarray, division: Groups) -> GroupLevels:
        """Expression in groups of the cells in some rows."""
        return GroupLevels.concatenate([GroupLevels.from_blocks(blocks(rows), division) for blocks in self.logarithms])

    def sample(self, rows: np.ndarray, division: Groups) -> SampledCells | None:
        """Single cells of groups of the cells in some rows, with the genes by which names are scored; none if no name has a parent."""
        if not self.placed.sets.parents:
            return None
        rng = np.random.default_rng(self.seed)
        codes, sizes = division.codes, division.sizes
        order = np.lexsort((rng.random(len(codes)), codes))
        rank = np.arange(len(codes)) - (np.cumsum(sizes) - sizes)[codes[order]]
        drawn = np.sort(order[rank < MAX_SAMPLED_CELLS])
        columns = np.unique(distinctive_genes(self.placed.frequency, self.placed.hierarchy).indices)
        values, first = [], 0
        for blocks in self.logarithms:
            read = [block for _, block in blocks(rows[drawn])]
            part = columns[(columns >= first) & (columns < first + read[0].shape[1])] - first
            values.append(sp.vstack([block[:, part] for block in read]))
            first += read[0].shape[1]
        n_cells = sizes / np.minimum(sizes, MAX_SAMPLED_CELLS)
        return SampledCells(sp.csr_array(sp.hstack(values)), columns, codes[drawn], n_cells[codes[drawn]])

    def of_groups(self, rows: np.ndarray, division: Groups, names: list[str], key_added: str | None) -> pd.DataFrame:
        """Names of groups of the cells in some rows."""
        levels, placed = self.levels(rows, division), self.placed
        if placed.sets.by_level:
            cells = self.sample(rows, division)
            naming = name_by_level(levels, placed.frequency, placed.hierarchy, self.seed, cells=cells)
            result = _describe_levels(naming, placed, pd.Index(names, name="cluster"))
        else:
            result = _fit_lists(levels, placed, names, self.min_support, self.seed)
        groups = pd.Series(pd.NA, self.data.obs_names, dtype=object)
        groups.iloc[rows] = np.array(names, dtype=object)[division.codes]
        return self._finish(result, groups, key_added)

    def of_tree(self, tree: ClusterTree, key_added: str | None) -> pd.DataFrame:
        """Names of all nested clusters of a tree."""
        result = _names_of_tree(tree, self)
        return self._finish(result, tree.cut().reindex(self.data.obs_names), key_added)

    def _finish(self, result: pd.DataFrame, groups: pd.Series, key_added: str | None) -> pd.DataFrame:
        """Record where the names come from, and write the names of the cells if a key is given."""
        sets = self.placed.sets
        result.attrs = {"used": self.placed.used, "missing": self.placed.missing}
        written = (
            {"key_added": key} if (key := key_added or self.data.uns.get(keys.NAMES_KEY, {}).get("key_added")) else {}
        )
        if key_added is not None:
            _write_names(self.data, groups, result, key_added)
        source = sets.source or "passed by the user"
        self.data.uns[keys.NAMES_KEY] = {"markers": source, "n_names": len(sets.genes), **written}
        return result


def logarithms_of(source: Source) -> Logarithms:
    """Logarithms of the counts of RNA as a model has them that is built on these cells, scaled to the median of the totals."""
    counts = source.counts
    assert counts is not None  # a source of RNA has them
    totals = np.concatenate([block.sum(axis=1, dtype=np.float64) for _, block in counts.blocks()])
    check_cells_have_counts(totals, counts.where)
    target = float(np.median(totals))

    def read(rows: np.ndarray) -> Iterator[tuple[slice, sp.csr_array]]:
        for positions, block in counts.blocks(rows):
            yield positions, log_expression(block, block.sum(axis=1, dtype=np.float64), target)

    return read


def _place(sets: MarkerSets, genes: pd.Index, orthologs: Mapping[str, str], data: Data) -> PlacedMarkers:
    """Find the marker genes in the data, refuse genes of another kind, and warn of names that are written otherwise."""
    wanted = pd.Index(dict.fromkeys(gene for listed in sets.genes.values() for gene in listed), dtype=object)
    found = find_genes(wanted, genes, sets.aliases, orthologs)
    n_found = int((found.columns >= 0).sum())
    known = n_found / max(len(genes), 1)
    if n_found == 0 or (n_found < MIN_FOUND * len(wanted) and known < MIN_KNOWN):
        _refuse_foreign(sets, wanted, genes, n_found, data)
    columns = {str(gene): int(column) for gene, column in zip(wanted, found.columns, strict=True) if column >= 0}
    placed = PlacedMarkers(sets, genes, columns, found.rewritten)
    without = [name for name, number in placed.used.items() if number == 0 and sets.genes[name]]
    if without:
        warnings.warn(
            ScrclWarning(
                f"markers has {counted(len(without), 'list')} of which the data have no gene: {', '.join(map(repr, without))}.",
                "Such names cannot be proposed; add genes that are in adata.var_names.",
            ),
            stacklevel=settings.warnings_stacklevel,
        )
    # Former symbols and versions are expected; another case may be another organism.
    for way, pairs in ((way, pairs) for way, pairs in found.rewritten.items() if way in ("case", "spelling")):
        examples = ", ".join(f"{gene!r} ({twin!r})" for gene, twin in list(pairs.items())[:3])
        what = "in another case" if way == "case" else "with versions or prefixes"
        warnings.warn(
            ScrclWarning(
                f"markers has {counted(len(pairs), 'gene')} that the data have {what}: {examples}.",
                "Each is taken for the same gene; if the markers are of another organism, pass `orthologs`.",
            ),
            stacklevel=settings.warnings_stacklevel,
        )
    return placed


def _refuse_foreign(sets: MarkerSets, wanted: pd.Index, genes: pd.Index, n_found: int, data: Data) -> None:
    """Refuse markers of which the data know hardly any gene, and say where the names may be."""
    column = _column_of(sets, wanted, data)
    remedy = "Map them to the identifiers in adata.var_names, or name a column of adata.var that has them: `gene_symbols=...`."
    command = "Name the column of var that has them: --gene-symbols KEY."
    if column is not None:
        remedy = f"They are in a column of adata.var: pass `gene_symbols={column!r}`."
        command = f"They are in a column of var: --gene-symbols {shlex.quote(column)}."
    elif sets.organism:
        remedy += " For another organism, pass `orthologs`."
        command += " For another organism, pass --orthologs."
    of = f"{sets.source or 'markers'} has {sets.organism + ' symbols such as ' if sets.organism else ''}{wanted[0]!r}"
    number = "None" if n_found == 0 else f"Only {n_found:,}"
    raise ScrclValueError(
        f"{number} of the {counted(len(wanted), 'gene')} of markers is in the data ({of}, the data have {genes[0]!r}).",
        remedy,
        command=command,
    )


def _column_of(sets: MarkerSets, wanted: pd.Index, data: Data) -> str | None:
    """The column of ``var`` that has most of the genes, if any."""
    if isinstance(data, MuData) or not isinstance(data.var, pd.DataFrame):
        return None
    for key in data.var.columns[[kind.kind not in "fb" for kind in data.var.dtypes]]:
        names = pd.Index(data.var[key].astype(str)).drop_duplicates()
        n_found = (find_genes(wanted, names, sets.aliases).columns >= 0).sum()
        if n_found > MIN_COLUMN * min(len(wanted), len(data.var)):
            return str(key)
    return None


def _fit_lists(
    levels: GroupLevels, placed: PlacedMarkers, clusters: list[str], min_support: float, seed: int
) -> pd.DataFrame:
    """Names of clusters by the list that fits best."""
    missing, lists = placed.missing, placed.sets.genes
    usable = [name for name in lists if placed.used[name]]
    candidates = [placed.columns_of(name) for name in usable]
    measured = np.array([placed.used[name] / len(lists[name]) for name in usable])
    naming = name_groups(levels, candidates, min_support, seed, measured)
    numbers, best, genes = np.arange(len(clusters)), naming.best, placed.genes
    others = naming.score.copy()
    others[numbers, best] = -np.inf
    second = others.argmax(1)
    names = np.array([*usable, NO_NAME], dtype=object)
    several = len(usable) > 1
    return pd.DataFrame(
        {
            "name": names[naming.choice],
            "label": distinct(clusters, names[naming.choice].tolist()),
            "confidence": np.where(naming.choice < len(usable), naming.confidence, np.nan),
            "reason": [explain_name(naming, n, usable, genes.to_numpy(object), missing) for n in range(len(clusters))],
            "best": names[best],
            "score": naming.score[numbers, best],
            "support": naming.support[numbers, best],
            "pvalue": naming.pvalue[numbers, best],
            "second": names[second] if several else "",
            "second_score": naming.score[numbers, second] if several else np.nan,
            "genes": [_genes_up(naming, n, candidates[best[n]], genes) for n in range(len(clusters))],
            "missing": [", ".join(missing[usable[number]]) for number in best],
        },
        index=pd.Index(clusters, name="cluster"),
    )


def _genes_up(naming: Any, group: int, columns: np.ndarray, genes: pd.Index) -> str:
    """The genes of a list that are up in a group, highest score first."""
    up = columns[naming.up[group, columns]]
    return ", ".join(genes[up[np.argsort(-naming.gene_score[group, up], kind="stable")]])


def _describe_levels(naming: LevelNaming, placed: PlacedMarkers, index: pd.Index) -> pd.DataFrame:
    """Names of clusters at the level that the evidence supports."""
    hierarchy, sets, genes = placed.hierarchy, placed.sets, placed.genes
    names = np.array([*sets.genes, UNSURE], dtype=object)
    numbers, best, choice = np.arange(len(index)), naming.best, naming.choice
    related = hierarchy.below | hierarchy.below.T
    others = np.where(related[best], -np.inf, naming.score)
    second, several = others.argmax(1), np.isfinite(others).any(1)
    table = {
        "name": names[choice],
        "label": distinct(list(index), names[choice].tolist()),
        "confidence": np.where(choice >= 0, naming.passed[numbers, choice], np.nan),
        "reason": [explain_level(naming, n, hierarchy, list(names), genes.to_numpy(object)) for n in range(len(index))],
        "best": names[best],
        "score": naming.score[numbers, best],
        "support": naming.support[numbers, best],
        "pvalue": naming.pvalue[numbers, best],
        "second": np.where(several, names[second], ""),
        "second_score": np.where(several, naming.score[numbers, second], np.nan),
        "genes": [_genes_up(naming, n, naming.genes_of(best[n]), genes) for n in range(len(index))],
        "missing": [", ".join(placed.distinctive_missing[name]) for name in names[best]],
        "path": [" > ".join(sets.path(name)) if name != UNSURE else "" for name in names[choice]],
    }
    if sets.terms:
        table[keys.TERMS_KEY] = [sets.terms.get(name, keys.UNKNOWN_TERM) for name in names[choice]]
    return pd.DataFrame(table, index=index)


def _names_of_tree(tree: ClusterTree, fit: Naming) -> pd.DataFrame:
    """Names of all nested clusters, each at or below that of the cluster that it is part of."""
    placed, seed = fit.placed, fit.seed
    nested, hierarchy, names = tree.nested, placed.hierarchy, tree.names
    positions = tree.cell_names.get_indexer(fit.data.obs_names)
    rows = np.flatnonzero(positions >= 0)
    leaves = nested.leaves.labels[positions[rows]].astype(np.int64)
    if len(np.unique(leaves)) < max(nested.n_leaves, 2):
        raise ScrclValueError(
            "tree has one cluster only, or clusters without a cell in the data.",
            "Pass the tree of the same cells: `tree=model.get_cluster_tree()`.",
        )
    division = Groups(leaves, nested.n_leaves)
    of_leaves, cells = fit.levels(rows, division), fit.sample(rows, division)
    parents = np.full(len(names), -1)
    for split, sides in enumerate(nested.sides):
        parents[sides] = nested.n_leaves + split
    # Clusters are "0", those below "0.1", and those above "0+1" or "all".
    depth = np.array([-1 if name == ROOT or "+" in name else name.count(".") for name in names])
    choice, tables = np.full(len(names), -1), []
    for level in range(depth.max() + 1):
        nodes = np.flatnonzero(depth == level)
        members = nested.below[nodes]
        levels, of_nodes = of_leaves.merged(members), None if cells is None else cells.merged(members)
        start = choice[parents[nodes]] if level else None
        reference = levels if level == 0 and len(nodes) > 1 else of_leaves
        naming = name_by_level(levels, placed.frequency, hierarchy, seed, start, reference, of_nodes)
        choice[nodes] = naming.choice
        table = _describe_levels(naming, placed, pd.Index(names[nodes], name="cluster"))
        if start is not None:
            inherited = (naming.choice == start) & (start >= 0)
            table.loc[inherited, "confidence"] = np.nan
            table.loc[inherited, "reason"] = "The name is that of the cluster that it is part of."
        tables.append(table)
    result = pd.concat(tables)
    above, clusters, listed = np.flatnonzero(depth < 0), np.flatnonzero(depth == 0), [*placed.sets.genes]
    for node in above:
        inside = ~(nested.below[clusters] & ~nested.below[node]).any(1)
        choice[node] = hierarchy.common(choice[clusters[inside]])
    result = result.reindex(pd.Index(tree.sizes.index, name="cluster"))
    for node in above:
        found = listed[choice[node]] if choice[node] >= 0 else UNSURE
        described = {"name": found, "path": " > ".join(placed.sets.path(found)) if found != UNSURE else ""}
        described["reason"] = (
            "This is what the names of its clusters have in common."
            if found != UNSURE
            else ("The names of its clusters have nothing in common.")
        )
        if placed.sets.terms:
            described[keys.TERMS_KEY] = placed.sets.terms.get(found, keys.UNKNOWN_TERM)
        for column, value in described.items():
            result.at[names[node], column] = value
    result["label"] = distinct(list(result.index), result["name"].tolist())
    return result


def _write_names(data: Data, groups: pd.Series, result: pd.DataFrame, key: str) -> None:
    """Write the name of each cell to the data, and its identifier if there is one."""
    data.obs[key] = groups.map(result["name"]).astype("category")
    if keys.TERMS_KEY in result:
        if keys.TERMS_KEY in data.obs and "key_added" not in data.uns.get(keys.NAMES_KEY, {}):
            warnings.warn(
                ScrclWarning(
                    f"obs[{keys.TERMS_KEY!r}] held identifiers already, which are replaced.",
                    "Copy that column under another name before, to keep them.",
                ),
                stacklevel=settings.warnings_stacklevel,
            )
        terms = groups.map(result[keys.TERMS_KEY]).fillna(keys.UNKNOWN_TERM)
        data.obs[keys.TERMS_KEY] = terms.astype("category")
