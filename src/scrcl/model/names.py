"""Names for groups of cells from marker genes."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scvi import settings

from scrcl.cluster.cluster_tree import ROOT, ClusterTree
from scrcl.data.gene_symbols import gene_labels
from scrcl.data.marker_resources import read_resource
from scrcl.data.marker_sets import MarkerSets, is_name, read_marker_sets
from scrcl.data.orthologs import Orthologs, read_orthologs
from scrcl.genes.associations import Groups
from scrcl.genes.hierarchy import Hierarchy, LevelNaming, distinctive_genes, explain_level, name_by_level
from scrcl.genes.naming import NO_NAME, GroupLevels, explain_name, name_groups
from scrcl.reference.modality import joint_names
from scrcl.utils import keys
from scrcl.utils.checks import check_at_least, check_unique_genes
from scrcl.utils.errors import ScrclValueError, ScrclWarning
from scrcl.utils.gene_names import find_genes
from scrcl.utils.names import distinct

from .base import Data, SCRCLBase
from .docstrings import documented
from .expression import chosen_modalities, find_groups

#: Name where the evidence supports none at any level.
UNSURE = "unsure"
#: Shares of the genes of markers, and of the data, of which the others know fewer if they are of different organisms or identifiers.
MIN_FOUND, MIN_KNOWN = 0.1, 0.25


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


class NamesMixin(SCRCLBase):
    """Names of groups of cells of :class:`scrcl.SCRCL`."""

    @documented
    def get_cluster_names(
        self,
        markers: Mapping[str, Sequence[str]] | pd.DataFrame | str | os.PathLike[str],
        adata: Data | None = None,
        groupby: str | None = None,
        min_support: float = 0.5,
        seed: int = 0,
        modality: str | None = None,
        hierarchy: Mapping[str, str] | None = None,
        tree: ClusterTree | None = None,
        gene_symbols: str | None = None,
        orthologs: Orthologs | None = None,
        key_added: str | None = None,
    ) -> pd.DataFrame:
        """Propose names for clusters from marker genes, or none.

        Every gene of the lists is scored from its counts, whether the model keeps it or not. Its score in a cluster is
        from 0 to 1: high if the mean expression is near that of the clusters that express the gene, and far above that of
        the clusters that do not. A list fits if the mean score of its genes is high, and higher than that of nearly all
        random sets of as many genes with similar mean expression, and enough of its genes are up.

        Of plain lists, the one with the highest score among those that fit is proposed; a list of which the data lack more than
        half has less weight. With a hierarchy or weights, as in ``"cellconsensus"``, the most distinctive genes of each name are
        scored, also by the fraction of cells that express them, and the name is the finest one that the evidence supports:
        ``"T cell"`` rather than a ``"memory CD4+ T cell"`` that may be wrong.

        Parameters
        ----------
        markers
            Names and their marker genes: a dictionary of lists, or of dictionaries of weights; a table with columns ``source``
            and ``target``, maybe with ``weight`` (as decoupler has them), or ``cell_type`` and ``gene``; the path of a GMT file, or of
            a JSON file with a dictionary; or ``"cellconsensus"``, markers of 77 types of human cells in three levels, with
            identifiers of the Cell Ontology, which requires ``pip install 'scrcl[names]'``.
        adata
            Cells with their clusters. By default the data of the model.
        %(groupby)s
        min_support
            Fraction of the genes of a plain list, among those in the data, more than which must be up in a cluster. Use a
            smaller one for long lists that were not curated by hand.
        seed
            Seed of the random sets and of the resampling.
        %(gene_modality)s
        hierarchy
            Parent of each name that has one, such as ``{"CD4 T cell": "T cell"}``; a parent need not have genes of its own.
        tree
            Tree of :meth:`get_cluster_tree`, all of whose nested clusters are named instead of groups: the default
            clusters by their evidence, those above by what the names below have in common, and those below with the name of
            their parent, or with a finer one.
        %(gene_symbols)s
        orthologs
            Genes of another organism: a dictionary from each marker gene to the gene of the data, or a table with two
            columns. Genes with several counterparts are left out. Without it, the symbols of mouse and human are matched
            regardless of case.
        key_added
            Key of ``adata.obs`` under which the name of each cell is written; the identifiers of the Cell Ontology, if the
            markers have any, are written to ``obs["cell_type_ontology_term_id"]``.

        Returns
        -------
        Data frame indexed by cluster:

        - ``name``: the name proposed, or ``"none of these"``; in a hierarchy, ``"unsure"``
        - ``label``: the name, preceded by the cluster where several have the same, ``"3: B cell"``; for plots, so that
          no two clusters become one
        - ``confidence``: share of resamples of the lists and cells that lead to the same name, or a finer one, from 0 to 1;
          missing where no name is proposed
        - ``reason``: why there is no name, no finer one, or why it is unsure; empty where it is sure
        - ``best``, ``score``, ``support``, ``pvalue``: the list that supports the name, or else the one with the highest score;
          its score from 0 to 1, the fraction of its genes that are up, and the share of random gene sets with at least this
          score, times the number of lists
        - ``second``, ``second_score``: the next list by score; in a hierarchy, the next that is neither above nor below
        - ``genes``: the genes of the best list that are up, highest score first
        - ``missing``: the genes of the best list that the data do not have
        - ``path``: in a hierarchy, the names from the top to this one
        - ``cell_type_ontology_term_id``: identifier in the Cell Ontology, or ``"unknown"``, if the markers have identifiers

        The number of genes of each list that were found is in ``attrs["used"]``, and those that the data do not have are in
        ``attrs["missing"]``. Where the lists come from, and their version, is written to ``adata.uns["scrcl_names"]``.

        Raises
        ------
        %(raises_untrained)s
        KeyError
            If ``groupby`` or ``gene_symbols`` is not there.
        ValueError
            If the data have no gene of the lists, or the lists are of another organism or kind of identifiers; if there is no
            collection of this name, or it is not installed; if a list is empty, or the hierarchy has a cycle; or if the model was
            loaded without data and ``adata`` is not passed.

        Examples
        --------
        >>> markers = {"B cell": ["MS4A1", "CD79A", "CD79B"], "NK cell": ["NKG7", "GNLY", "PRF1"]}
        >>> names = model.get_cluster_names(markers, groupby="scrcl")
        >>> adata.obs["name"] = adata.obs["scrcl"].map(
        ...     names["name"]
        ... )  # or "label", which is another one for each cluster
        >>> set(adata.obs["name"]) <= {"B cell", "NK cell", "none of these"}
        True

        The reason why a name is unsure is in a column:

        >>> unsure = names.loc[names["reason"] != "", ["name", "reason"]]
        """
        self._check_if_trained(warn=False)
        check_at_least(seed, 0, "seed")
        check_at_least(min_support, 0.0, "min_support")
        if min_support > 1:
            raise ScrclValueError(f"min_support={min_support!r} is above 1.", "Pass a fraction from 0 to 1.")
        if tree is not None and groupby is not None:
            raise ScrclValueError(f"groupby={groupby!r} is given beside tree.", "Leave out one or the other.")
        data = self._data(adata)
        sets = read_resource(markers) if is_name(markers) else read_marker_sets(markers, hierarchy)
        if hierarchy is not None and is_name(markers):
            raise ScrclValueError(f"hierarchy is given beside markers={markers!r}, which has one.", "Leave it out.")
        every_source = self._sources(data)
        sources = {name: every_source[name] for name in chosen_modalities(self, modality, counted=True)}
        for source in sources.values():
            check_unique_genes(source.names, source.names_where)
        labels = gene_labels(data, {name: source.names for name, source in sources.items()}, gene_symbols)
        placed = _place(sets, joint_names(labels), read_orthologs(orthologs, sets.lists), data)

        def levels_of(rows: np.ndarray, division: Groups) -> GroupLevels:
            parts = [
                GroupLevels.from_blocks(self._reference.modalities[name].logarithms(source, rows), division)
                for name, source in sources.items()
            ]
            return GroupLevels.concatenate(parts)

        if tree is not None:
            result = _names_of_tree(tree, data, placed, levels_of, seed)
            groups = tree.cut().reindex(data.obs_names)
        else:
            _, rows, division, clusters = find_groups(self, data, groupby)
            levels = levels_of(rows, division)
            if sets.by_level:
                index = pd.Index(clusters, name="cluster")
                result = _describe_levels(
                    name_by_level(levels, placed.frequency, placed.hierarchy, seed), placed, index
                )
            else:
                result = _fit_lists(levels, placed, clusters, float(min_support), seed)
            groups = pd.Series(pd.NA, data.obs_names, dtype=object)
            groups.iloc[rows] = np.array(clusters, dtype=object)[division.codes]
        result.attrs = {"used": placed.used, "missing": placed.missing}
        data.uns[keys.NAMES_KEY] = {"markers": sets.source or "passed by the user", "n_names": len(sets.genes)}
        if key_added is not None:
            _write_names(data, groups, result, key_added)
        return result


def _place(sets: MarkerSets, genes: pd.Index, orthologs: Mapping[str, str], data: Data) -> PlacedMarkers:
    """Find the marker genes in the data, refuse those of another kind, and warn of those that are written otherwise."""
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
                f"markers has {len(without)} lists of which the data have no gene: {', '.join(map(repr, without))}.",
                "These names cannot be proposed; add genes that are in adata.var_names.",
            ),
            stacklevel=settings.warnings_stacklevel,
        )
    # Former symbols and versions are expected; another case may be another organism.
    for way, pairs in ((way, pairs) for way, pairs in found.rewritten.items() if way in ("case", "spelling")):
        examples = ", ".join(f"{gene!r} ({twin!r})" for gene, twin in list(pairs.items())[:3])
        what = "in another case" if way == "case" else "with versions or prefixes"
        warnings.warn(
            ScrclWarning(
                f"markers has {len(pairs):,} genes that the data have {what}: {examples}.",
                "They are taken for the same genes; if they are of another organism, pass `orthologs`.",
            ),
            stacklevel=settings.warnings_stacklevel,
        )
    return placed


def _refuse_foreign(sets: MarkerSets, wanted: pd.Index, genes: pd.Index, n_found: int, data: Data) -> None:
    """Refuse markers of which the data know hardly any gene, and say where the names may be."""
    table = getattr(data, "var", None)
    remedy = "Map them to the identifiers in adata.var_names, or name a column of adata.var that has them: `gene_symbols=...`."
    if isinstance(table, pd.DataFrame):
        for key in table.columns[[kind.kind not in "fb" for kind in table.dtypes]]:
            if (
                find_genes(wanted, pd.Index(table[key].astype(str)).drop_duplicates(), sets.aliases).columns >= 0
            ).mean() > 0.5:
                remedy = f"They are in a column of adata.var: pass `gene_symbols={key!r}`."
                break
    of = f"{sets.source or 'markers'} has {sets.organism + ' symbols such as ' if sets.organism else ''}{wanted[0]!r}"
    number = "None" if n_found == 0 else f"Only {n_found:,}"
    raise ScrclValueError(
        f"{number} of the {len(wanted):,} genes of markers is in the data ({of}, the data have {genes[0]!r}).",
        remedy
        if sets.organism == "" or "column of adata.var: pass" in remedy
        else f"{remedy} For another organism, pass `orthologs`.",
    )


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
            "reason": [explain_name(naming, n, usable, genes.to_numpy(object), missing) for n in numbers],
            "best": names[best],
            "score": naming.score[numbers, best],
            "support": naming.support[numbers, best],
            "pvalue": naming.pvalue[numbers, best],
            "second": names[second] if several else "",
            "second_score": naming.score[numbers, second] if several else np.nan,
            "genes": [_genes_up(naming, n, candidates[best[n]], genes) for n in numbers],
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
        "reason": [explain_level(naming, n, hierarchy, list(names), genes.to_numpy(object)) for n in numbers],
        "best": names[best],
        "score": naming.score[numbers, best],
        "support": naming.support[numbers, best],
        "pvalue": naming.pvalue[numbers, best],
        "second": np.where(several, names[second], ""),
        "second_score": np.where(several, naming.score[numbers, second], np.nan),
        "genes": [_genes_up(naming, n, naming.genes_of(best[n]), genes) for n in numbers],
        "missing": [", ".join(placed.distinctive_missing[name]) for name in names[best]],
        "path": [" > ".join(sets.path(name)) if name != UNSURE else "" for name in names[choice]],
    }
    if sets.terms:
        table[keys.TERMS_KEY] = [sets.terms.get(name, keys.UNKNOWN_TERM) for name in names[choice]]
    return pd.DataFrame(table, index=index)


def _names_of_tree(
    tree: ClusterTree,
    data: Data,
    placed: PlacedMarkers,
    levels_of: Callable[[np.ndarray, Groups], GroupLevels],
    seed: int,
) -> pd.DataFrame:
    """Names of all nested clusters, each at or below that of the cluster that it is part of."""
    nested, hierarchy, names = tree.nested, placed.hierarchy, tree.names
    cells = tree.cell_names.get_indexer(data.obs_names)
    rows = np.flatnonzero(cells >= 0)
    leaves = nested.leaves.labels[cells[rows]].astype(np.int64)
    if len(np.unique(leaves)) < max(nested.n_leaves, 2):
        raise ScrclValueError(
            "tree has one cluster only, or clusters without a cell in the data.",
            "Pass the tree of the same cells: `tree=model.get_cluster_tree()`.",
        )
    of_leaves = levels_of(rows, Groups(leaves, nested.n_leaves))
    parents = np.full(len(names), -1)
    for split, sides in enumerate(nested.sides):
        parents[sides] = nested.n_leaves + split
    # Clusters are "0", those below "0.1", and those above "0+1" or "all".
    depth = np.array([-1 if name == ROOT or "+" in name else name.count(".") for name in names])
    choice, tables = np.full(len(names), -1), []
    for level in range(depth.max() + 1):
        nodes = np.flatnonzero(depth == level)
        levels = of_leaves.merged(nested.below[nodes])
        start = choice[parents[nodes]] if level else None
        reference = levels if level == 0 and len(nodes) > 1 else of_leaves
        naming = name_by_level(levels, placed.frequency, hierarchy, seed, start, reference)
        choice[nodes] = naming.choice
        table = _describe_levels(naming, placed, pd.Index(names[nodes], name="cluster"))
        if start is not None:
            inherited = (naming.choice == start) & (start >= 0)
            table.loc[inherited, ["confidence", "reason"]] = [
                np.nan,
                "The name is that of the cluster that it is part of.",
            ]
        tables.append(table)
    result = pd.concat(tables)
    above, listed = np.flatnonzero(depth < 0), [*placed.sets.genes]
    for node in above:
        choice[node] = hierarchy.common(choice[nested.sides[node - nested.n_leaves]])
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
        result.loc[names[node], list(described)] = list(described.values())
    result["label"] = distinct(list(result.index), result["name"].tolist())
    return result


def _write_names(data: Data, groups: pd.Series, result: pd.DataFrame, key: str) -> None:
    """Write the name of each cell to the data, and its identifier if there is one."""
    data.obs[key] = groups.map(result["name"]).astype("category")
    if keys.TERMS_KEY in result:
        terms = groups.map(result[keys.TERMS_KEY]).fillna(keys.UNKNOWN_TERM)
        data.obs[keys.TERMS_KEY] = terms.astype("category")
