"""Marker genes of groups of cells."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from mudata import MuData
from scipy.stats import false_discovery_control

from scrcl.genes.associations import marker_statistics, permutation_pvalues
from scrcl.utils import keys
from scrcl.utils.checks import check_at_least, check_groups, check_key
from scrcl.utils.errors import ScrclValueError

from .base import Data, SCRCLBase
from .docstrings import documented
from .expression import find_groups, gene_positions, read_expression, symbols_of, variables


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
        gene_symbols: str | None = None,
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
        %(gene_symbols)s
            ``adata.uns`` keeps the names in ``var_names``, as the functions of scanpy have an argument ``gene_symbols``, too.

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
            If ``groupby``, ``layer``, ``gene_symbols`` or one of the ``groups`` is not there.
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
        symbols = symbols_of(self, data, genes, gene_symbols)
        groupby, rows, division, names = find_groups(self, data, groupby)
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
        if gene_symbols is not None:
            result["gene"] = symbols[genes.get_indexer(pd.Index(result["gene"]))]
        return result

    def _layer(self, layer: str | None, modality: str | None) -> str | None:
        """Where the counts are."""
        if layer is not None or not self._several:
            return layer or self._setup("layer")
        return None if modality is None else (self._setup("layers") or {}).get(modality)


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
