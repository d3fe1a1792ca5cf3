"""Results for groups of cells: marker genes, and names from marker lists."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mudata import MuData
from scipy.stats import false_discovery_control
from scvi import settings

from scrcl.data.networks import check_identifiers, read_gene_sets
from scrcl.data.sources import read_column
from scrcl.genes.associations import Groups, marker_statistics, permutation_pvalues
from scrcl.genes.naming import NO_NAME, GroupLevels, explain_name, name_groups
from scrcl.reference.modality import joint_names
from scrcl.utils import keys
from scrcl.utils.checks import check_at_least, check_groups, check_key, check_unique_genes
from scrcl.utils.errors import ScrclValueError, ScrclWarning
from scrcl.utils.names import distinct

from .base import Data, SCRCLBase
from .docstrings import documented
from .expression import chosen_modalities, gene_positions, number_groups, read_expression, read_groups, variables
from .options import ClusterOptions


class MarkersMixin(SCRCLBase):
    """Results of :class:`scrcl.SCRCL` for groups of cells."""

    @documented
    def get_marker_genes(
        self,
        adata: Data | None = None,
        groupby: str | None = None,
        groups: Sequence[str] | str | None = None,
        layer: str | None = None,
        n_top: int | None = None,
        n_permutations: int = 1000,
        seed: int = 0,
        key_added: str = keys.MARKERS_KEY,
        modality: str | None = None,
    ) -> pd.DataFrame:
        r"""Return the marker genes of groups of cells, best first.

        The score of a gene is the mean association of the cells of the group minus that of all other cells (see
        :meth:`get_cell_gene_associations`, with the expression of the cells passed). Its p-value is by permutation of
        cells: given the refined positions and the groups, the expression of the gene is exchangeable between cells.

        Parameters
        ----------
        adata
            Cells with the same genes, matched by name. By default the data of the model.
        %(groupby)s
        groups
            Groups to return; all by default. Each is compared with all other cells in any case.
        layer
            Key of ``adata.layers`` of the counts to score; by default, the layer of the setup. Counts that the model has not
            seen, e.g. one half of a thinned data set, make the p-values valid for clusters that were found in the other
            half.
        n_top
            Number of genes of each group to return; all by default.
        n_permutations
            Number of permutations ``B``; no p-value is below ``1 / (B + 1)``. Time is proportional to it. With 0 there
            is no test, and p-values are missing.
        seed
            Seed of the permutations.
        key_added
            Key of ``adata.uns`` under which the result is written in the form of
            :func:`scanpy.tl.rank_genes_groups`, for ``scanpy.pl.rank_genes_groups*`` and
            :func:`scanpy.get.rank_genes_groups_df`. Without ``groupby``, the plots look for the clusters in
            ``adata.obs["scrcl"]``.
        %(gene_modality)s
            Scores of several modalities can be compared, as they are in standard deviations.

        Returns
        -------
        Data frame, best first in each group:

        - ``group``, ``gene``
        - ``score``: in standard deviations of the log-normalised expression; orders the table
        - ``z_score``: the score divided by its robust standard error. It ranks all genes without ties, down to the most
          strongly negative one, for gene set enrichment (GSEA); p-values do not, as they have a least value
        - ``score_low``, ``score_high``: 95 % interval of the score, by its robust standard error
        - ``specificity``: mean association in the group minus the highest mean in any other group
        - ``fraction_in``, ``fraction_out``: of the cells inside and outside that express the gene
        - ``log2_fold_change``: of the mean normalised counts
        - ``pvalue``, ``pvalue_adjusted``: one-sided, and adjusted over the genes of a group (Benjamini & Hochberg)

        Raises
        ------
        %(raises_unrefined)s
        KeyError
            If ``groupby``, ``layer`` or one of the ``groups`` is not there.
        ValueError
            If there are fewer than two groups, or an argument is out of range.

        Notes
        -----
        Clusters that were found in the same counts differ by construction, even where there are no cell types. The
        p-value does not take this into account: it shows that the expression of a gene depends on the groups, not that the
        groups are real. See *Marker genes and associations* in the documentation.

        Examples
        --------
        >>> markers = model.get_marker_genes(groupby="scrcl", n_permutations=100)
        >>> best = markers.groupby("group", observed=True).head(5)

        The result is written in the form of scanpy, too:

        >>> table = sc.get.rank_genes_groups_df(adata, group="0", key="scrcl_markers")
        """
        self._check_refinement()
        check_at_least(n_permutations, 0, "n_permutations")
        check_at_least(seed, 0, "seed")
        if n_top is not None:
            check_at_least(n_top, 1, "n_top")
        data = self._data(adata)
        if layer is not None and modality is None:
            if isinstance(data, MuData):
                raise ScrclValueError(
                    f"layer={layer!r} is of one modality.",
                    f"Name it: `modality={next(iter(data.mod))!r}`.",
                )
            check_key(layer, data.layers, "layer", "adata.layers")
        genes, _, _ = variables(self, modality, counted=True)
        groupby, rows, division, names = self._groups(data, groupby)
        wanted = names if groups is None else check_groups(groups, names, groupby)

        expression = read_expression(self, data, rows, layer, modality, counted=True)
        positions = gene_positions(self, data, rows)
        statistics = marker_statistics(positions, expression, division)
        if n_permutations:
            pvalues = permutation_pvalues(positions, expression, division, n_permutations, seed)
            adjusted = false_discovery_control(pvalues, axis=1)
        else:
            pvalues = adjusted = np.full(statistics.score.shape, np.nan)
        error = statistics.standard_error
        margin = 1.96 * error
        columns = {
            "score": statistics.score,
            "z_score": np.divide(statistics.score, error, out=np.zeros_like(statistics.score), where=error > 0),
            "score_low": statistics.score - margin,
            "score_high": statistics.score + margin,
            "specificity": statistics.specificity,
            "fraction_in": statistics.fraction_in,
            "fraction_out": statistics.fraction_out,
            "log2_fold_change": statistics.log2_fold_change,
            "pvalue": pvalues,
            "pvalue_adjusted": adjusted,
        }
        tables = {}
        for number, name in enumerate(names):
            if name in wanted:
                table = pd.DataFrame(
                    {"group": name, "gene": genes} | {key: rows[number] for key, rows in columns.items()}
                )
                tables[name] = table.sort_values("score", ascending=False, kind="stable")[:n_top]
        data.uns[key_added] = _as_scanpy(tables, groupby, self._layer(layer, modality))
        result = pd.concat(list(tables.values()), ignore_index=True)
        result["group"] = pd.Categorical(result["group"], categories=names)
        return result

    @documented
    def get_cluster_names(
        self,
        markers: Mapping[str, Sequence[str]] | pd.DataFrame | str | os.PathLike[str],
        adata: Data | None = None,
        groupby: str | None = None,
        min_support: float = 0.5,
        seed: int = 0,
        modality: str | None = None,
    ) -> pd.DataFrame:
        """Propose names for clusters from lists of marker genes, or none of them.

        Every gene of the lists is scored from its counts, whether the model keeps it or not. Its score in a cluster is
        from 0 to 1: high if the mean expression is near that of the clusters that express the gene, and far above that of
        the clusters that do not. A list fits if the mean score of its genes is high, and higher than that of nearly all
        random sets of as many genes with similar mean expression, and most of its genes are up. Among the lists that fit,
        the one with the highest score is proposed; a list of which the data lack more than half has less weight.

        Parameters
        ----------
        markers
            Names and their marker genes: a dictionary of lists, a table with columns ``source`` and ``target`` (as
            decoupler has them) or ``cell_type`` and ``gene``, or the path of a GMT file.
        adata
            Cells with their clusters. By default the data of the model.
        %(groupby)s
        min_support
            Fraction of the genes of a list, among those in the data, more than which must be up in a cluster. Use a smaller
            one for long lists that were not curated by hand.
        seed
            Seed of the random sets and of the resampling.
        %(gene_modality)s

        Returns
        -------
        Data frame indexed by cluster:

        - ``name``: the name proposed, or ``"none of these"``
        - ``label``: the name, preceded by the cluster where several have the same, ``"3: B cell"``; for plots, so that
          no two clusters become one
        - ``confidence``: share of resamples of the lists and cells that lead to the same name, from 0 to 1; missing
          where no name is proposed
        - ``reason``: why there is no name, or why it is unsure; empty where it is sure
        - ``best``, ``score``, ``support``, ``pvalue``: the list proposed, or else the one with the highest score; its
          score from 0 to 1, the fraction of its genes that are up, and the share of random gene sets with at least this
          score, times the number of lists
        - ``second``, ``second_score``: the next list by score
        - ``genes``: the genes of the best list that are up, highest score first
        - ``missing``: the genes of the best list that the data do not have

        The number of genes of each list that were scored is in ``attrs["used"]``, and those that the data do not have are
        in ``attrs["missing"]``.

        Raises
        ------
        %(raises_untrained)s
        KeyError
            If ``groupby`` is not there.
        ValueError
            If the data have no gene of the lists, or the lists are of another case or kind of identifiers; if the model
            was loaded without data and ``adata`` is not passed.

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
        data = self._data(adata)
        lists = read_gene_sets(markers, "markers")
        every_source = self._sources(data)
        sources = {name: every_source[name] for name in chosen_modalities(self, modality, counted=True)}
        for source in sources.values():
            check_unique_genes(source.names, source.names_where)
        genes = joint_names({name: source.names for name, source in sources.items()})
        check_identifiers([gene for listed in lists.values() for gene in listed], genes, "markers")
        columns = {name: genes.get_indexer(pd.Index(listed)) for name, listed in lists.items()}
        missing = {
            name: [gene for gene, column in zip(listed, columns[name], strict=True) if column < 0]
            for name, listed in lists.items()
        }
        _warn_if_missing(lists, missing, genes)
        usable = [name for name in lists if len(missing[name]) < len(lists[name])]
        candidates = [columns[name][columns[name] >= 0] for name in usable]

        _, rows, division, clusters = self._groups(data, groupby)
        levels = GroupLevels.concatenate(
            [
                GroupLevels.from_blocks(self._reference.modalities[name].logarithms(source, rows), division)
                for name, source in sources.items()
            ]
        )
        measured = np.array([len(columns[name][columns[name] >= 0]) / len(lists[name]) for name in usable])
        naming = name_groups(levels, candidates, float(min_support), seed, measured)
        numbers = np.arange(len(clusters))
        best = naming.best
        others = naming.score.copy()
        others[numbers, best] = -np.inf
        second = others.argmax(1)
        genes_up = []
        for number in numbers:
            columns_up = candidates[best[number]][naming.up[number, candidates[best[number]]]]
            order = np.argsort(-naming.gene_score[number, columns_up], kind="stable")
            genes_up.append(", ".join(genes[columns_up[order]]))
        names = np.array([*usable, NO_NAME], dtype=object)
        several = len(usable) > 1
        result = pd.DataFrame(
            {
                "name": names[naming.choice],
                "label": distinct(clusters, names[naming.choice].tolist()),
                "confidence": np.where(naming.choice < len(usable), naming.confidence, np.nan),
                "reason": [
                    explain_name(naming, n, usable, genes.to_numpy(object), missing) for n in range(len(clusters))
                ],
                "best": names[best],
                "score": naming.score[numbers, best],
                "support": naming.support[numbers, best],
                "pvalue": naming.pvalue[numbers, best],
                "second": names[second] if several else "",
                "second_score": naming.score[numbers, second] if several else np.nan,
                "genes": genes_up,
                "missing": [", ".join(missing[usable[number]]) for number in best],
            },
            index=pd.Index(clusters, name="cluster"),
        )
        result.attrs = {"used": {name: len(lists[name]) - len(missing[name]) for name in lists}, "missing": missing}
        return result

    def _groups(self, data: Data, groupby: str | None) -> tuple[str, np.ndarray, Groups, list[str]]:
        """Key of the groups, positions of cells with a group, the groups, and their names; by default, of the clusters."""
        if groupby is not None:
            return groupby, *read_groups(data, np.arange(data.n_obs), groupby, min_groups=2)
        clusters = self._clusters(self._query(data, None), ClusterOptions())
        key = keys.CLUSTERS_KEY
        # Plots of scanpy look for the groups under this key, where they must not find other ones.
        if key in data.obs and not np.array_equal(read_column(data, key, "groupby").astype(str), clusters.astype(str)):
            key = keys.MARKER_GROUPS_KEY
        return key, *number_groups(clusters, key, min_groups=2)

    def _layer(self, layer: str | None, modality: str | None) -> str | None:
        """Where the counts are."""
        if layer is not None or not self._several:
            return layer or self._setup("layer")
        return None if modality is None else (self._setup("layers") or {}).get(modality)


def _warn_if_missing(lists: Mapping[str, list[str]], missing: Mapping[str, list[str]], genes: pd.Index) -> None:
    """Say which lists cannot be scored, and which genes the data have in another case."""
    without = [name for name in lists if len(missing[name]) == len(lists[name])]
    if without:
        warnings.warn(
            ScrclWarning(
                f"markers has {len(without)} lists of which the data have no gene: {', '.join(map(repr, without))}.",
                "These names cannot be proposed; add genes that are in adata.var_names.",
            ),
            stacklevel=settings.warnings_stacklevel,
        )
    folded = dict(zip(genes.str.casefold(), genes, strict=True))
    absent = dict.fromkeys(gene for listed in missing.values() for gene in listed)
    other = {gene: folded[gene.casefold()] for gene in absent if gene.casefold() in folded}
    if other:
        pairs = ", ".join(f"{gene!r} ({twin!r})" for gene, twin in list(other.items())[:5])
        warnings.warn(
            ScrclWarning(
                f"markers has {len(other)} genes that the data have in another case: {pairs}.",
                "They are not scored; write them as in adata.var_names.",
            ),
            stacklevel=settings.warnings_stacklevel,
        )


def _as_scanpy(tables: dict[str, pd.DataFrame], groupby: str, layer: str | None) -> dict[str, Any]:
    """The form in which scanpy keeps ranked genes."""
    columns = {
        "names": ("gene", "O"),
        "scores": ("score", "f4"),
        "pvals": ("pvalue", "f8"),
        "pvals_adj": ("pvalue_adjusted", "f8"),
        "logfoldchanges": ("log2_fold_change", "f4"),
    }
    result: dict[str, Any] = {
        "params": {
            "groupby": groupby,
            "reference": "rest",
            "method": "scrcl",
            "use_raw": False,
            "layer": layer,
            "corr_method": "benjamini-hochberg",
        }
    }
    for name, (column, kind) in columns.items():
        result[name] = np.rec.fromarrays(
            [table[column].to_numpy() for table in tables.values()], dtype=[(group, kind) for group in tables]
        )
    return result
