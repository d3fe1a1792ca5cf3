"""What the model says of genes: their embedding, their associations with cells, and markers. Wiring only.

Of several modalities, whatever the model ties cells to counts as a gene: proteins, peaks and given features too.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from mudata import MuData
from scipy.stats import false_discovery_control
from sklearn.preprocessing import normalize

from . import _constants as keys
from ._associations import GeneMap, Groups, log_expression, marker_statistics, permutation_pvalues
from ._checks import as_rows, check_at_least, check_genes, check_groups, check_key
from ._cluster import leiden, leiden_with
from ._joint import JointReference
from ._modalities import Given
from ._naming import NONE, MarkerList, name_groups
from ._networks import check_identifiers, read_gene_sets

#: Resolution of Leiden at which gene modules are found.
MODULE_RESOLUTION = 1.0


class GeneMixin:
    """The methods of :class:`scrcl.SCRCL` that speak of genes."""

    adata: Any
    module: Any
    refinement_trained_: bool | None
    _reference: Any
    _gene_map: GeneMap | None
    _check_if_trained: Any
    _check_modality: Any
    _data: Any
    _find: Any
    _is_reference: Any
    _read_expression: Any
    _read_kept: Any
    _reference_latent: Any
    get_clusters: Any
    get_latent_representation: Any
    get_setup_arg: Any

    @torch.inference_mode()
    def get_gene_embedding(self, modality: str | None = None) -> pd.DataFrame:
        r"""Return the gene embedding :math:`\Gamma` of the refinement.

        Genes with similar embeddings have similar expression profiles and neighbours in the gene graph. The loss does
        not determine the directions of the axes, so they mean nothing one by one, and the dot product with a refined
        cell is no association; see :meth:`get_cell_gene_associations`.

        Parameters
        ----------
        modality
            Of several modalities, the one whose variables to return; all by default, where a name that an earlier
            modality has is preceded by its own and a colon.

        Returns
        -------
        Data frame of shape ``(n_genes, n_refined)``, float32, one row for each gene that the model keeps, not negative.

        Raises
        ------
        RuntimeError
            If the model, or its refinement, is not trained.
        """
        self._check_refinement()
        self.module.eval()
        names, _, columns = self._variables(modality)
        embedding = self.module.gene_encoder(self.module.gene_profiles).cpu().numpy()
        return pd.DataFrame(embedding[columns], index=names)

    def get_gene_modules(
        self, n_modules: int | None = None, resolution: float = MODULE_RESOLUTION, seed: int = 0
    ) -> pd.Series:
        """Return modules of genes that go together, the Leiden communities of the gene embedding.

        Parameters
        ----------
        n_modules
            Number of modules, sought by changing the resolution; by default what ``resolution`` gives.
        resolution
            Resolution of the modularity: more gives more modules.
        seed
            Seed of Leiden.

        Returns
        -------
        Categorical series indexed by gene. Modules are named ``"0"``, ``"1"``, … by decreasing size. A gene whose
        embedding is zero belongs to none (missing value).

        Raises
        ------
        RuntimeError
            If the model, or its refinement, is not trained.
        ValueError
            If an argument is out of range.
        """
        check_at_least(resolution, 0.0, "resolution")
        check_at_least(seed, 0, "seed")
        embedding = self.get_gene_embedding()
        if n_modules is not None:
            check_at_least(n_modules, 1, "n_modules")
            if n_modules > len(embedding):
                raise ValueError(f"n_modules={n_modules} is more than the {len(embedding):,} genes. Ask for fewer.")
        placed = embedding.to_numpy().any(1)
        points = normalize(embedding.to_numpy()[placed])
        found = leiden(points, float(resolution), seed) if n_modules is None else leiden_with(points, n_modules, seed)
        codes = np.full(len(embedding), -1)
        codes[placed] = found.labels
        names = pd.Index([str(number) for number in range(found.n_clusters)])
        return pd.Series(pd.Categorical.from_codes(codes, names), index=embedding.index, name="module")

    def get_cell_gene_associations(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        groupby: str | None = None,
        genes: Sequence[str] | str | None = None,
        n_top: int = 50,
        modality: str | None = None,
    ) -> pd.DataFrame:
        r"""Return how strongly cells, or groups of cells, are associated with genes.

        The association of cell :math:`i` with gene :math:`g` is :math:`(z_i - \bar z) \cdot \beta_g`, where
        :math:`z_i` are the two refined views of the cell side by side, :math:`\bar z` is their mean, and
        :math:`\beta_g` is the position of the gene among them: the regression of its standardised log-normalised
        expression on the refined views of the cells that the model was built on. So it is how far the expression of the
        gene lies above its mean in cells that the refinement places where it places this one, in standard deviations.

        Parameters
        ----------
        adata, indices
            Cells, as in :meth:`get_latent_representation`. The result for a cell does not depend on the other cells.
        groupby
            Key of ``adata.obs`` of groups, of whose cells the mean is returned. By default each cell is returned.
        genes
            Genes to return, with all their associations. By default all genes that the model keeps.
        n_top
            Number of highest positive associations that are kept of each cell where neither ``groupby`` nor ``genes``
            is given, so that the result stays small for any number of cells; the others are 0.
        modality
            Of several modalities, the one whose variables are meant, as in :meth:`get_gene_embedding`.

        Returns
        -------
        Data frame of cells by genes or groups by genes, float32. Its columns are sparse where only the ``n_top``
        associations of each cell are kept: ``frame.sparse.to_coo()`` gives the sparse matrix.

        Raises
        ------
        RuntimeError
            If the model, or its refinement, is not trained.
        KeyError
            If a gene or ``groupby`` is not there.
        ValueError
            If the data do not fit the model, or ``n_top`` is out of range.
        """
        self._check_refinement()
        check_at_least(n_top, 1, "n_top")
        adata = self._data(adata)
        rows = np.arange(adata.n_obs) if indices is None else as_rows(indices, adata.n_obs)
        names, every, variables = self._variables(modality)
        columns = None if genes is None else check_genes(genes, names, every)
        division = None if groupby is None else _groups(adata, rows, groupby, least=1)
        gene_map = self._fitted_gene_map().select(variables)
        if division is not None:
            inside, groups, group_names = division
            positions = groups.means(self._positions(adata, rows[inside]))
            index = pd.Index(group_names, name=groupby)
        else:
            positions, index = self._positions(adata, rows), adata.obs_names[rows]
            if columns is None:
                top = gene_map.top(positions, n_top)
                frame: Any = pd.DataFrame  # whose stubs do not know this accessor
                return frame.sparse.from_spmatrix(sp.csc_matrix(top), index, names)
        kept = np.arange(len(names)) if columns is None else columns
        scores = gene_map(positions, kept).astype(np.float32)
        return pd.DataFrame(scores, index=index, columns=names[kept])

    def get_marker_genes(
        self,
        adata: AnnData | MuData | None = None,
        groupby: str | None = None,
        groups: Sequence[str] | str | None = None,
        layer: str | None = None,
        n_top: int | None = None,
        n_permutations: int = 1000,
        seed: int = 0,
        key_added: str = keys.MARKERS_KEY,
        modality: str | None = None,
    ) -> pd.DataFrame:
        r"""Return the genes that tell groups of cells apart, best first.

        The score of a gene is the mean association of the cells of the group less that of all other cells (see
        :meth:`get_cell_gene_associations`, with the expression of the cells passed). Its p-value is against permuted
        cells: given the refined positions and the groups, the expression of the gene is exchangeable between cells.

        Parameters
        ----------
        adata
            Cells, as in :meth:`get_latent_representation`.
        groupby
            Key of ``adata.obs`` of the groups. Cells without a group are left out. By default the clusters of
            :meth:`get_clusters`, which are then written to ``obs["scrcl_marker_groups"]``.
        groups
            Groups to return; all by default. Each is compared with all other cells in any case.
        layer
            Key of ``adata.layers`` of the counts to score; by default those the model was set up with. Counts that the
            model has not seen, e.g. one half of a thinned data set, make the p-values valid for clusters that were found
            in the other half.
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
            :func:`scanpy.get.rank_genes_groups_df`.
        modality
            Of several modalities, the one whose variables to score, as in :meth:`get_gene_embedding`: genes, proteins or
            peaks. By default all of them together, as scores are in standard deviations.

        Returns
        -------
        Data frame, best first in each group:

        - ``group``, ``gene``
        - ``score``: in standard deviations of the log-normalised expression
        - ``score_low``, ``score_high``: 95 % interval of the score, by its robust standard error
        - ``specificity``: mean association in the group less the highest mean in any other group
        - ``fraction_in``, ``fraction_out``: of the cells inside and outside that express the gene
        - ``log2_fold_change``: of the mean normalised counts
        - ``pvalue``, ``pvalue_adjusted``: one-sided, and adjusted over the genes of a group (Benjamini & Hochberg)

        Raises
        ------
        RuntimeError
            If the model, or its refinement, is not trained.
        KeyError
            If ``groupby``, ``layer`` or one of the ``groups`` is not there.
        ValueError
            If there are fewer than two groups, or an argument is out of range.

        Notes
        -----
        Clusters that were found in the same counts differ by construction, even where there are no cell types. The
        p-value does not take this into account: it says that the expression of a gene goes with the groups, not that the
        groups are real. See *Which genes say so* in the documentation.
        """
        self._check_refinement()
        check_at_least(n_permutations, 0, "n_permutations")
        check_at_least(seed, 0, "seed")
        if n_top is not None:
            check_at_least(n_top, 1, "n_top")
        adata = self._data(adata)
        if layer is not None and modality is None:
            if isinstance(adata, MuData):
                raise ValueError(f"layer={layer!r} is of one modality. Name it: `modality=...`.")
            check_key(layer, adata.layers, "layer", "adata.layers")
        genes, _, _ = self._variables(modality, counted=True)
        groupby = self._own_groups(adata) if groupby is None else groupby
        rows, division, names = _groups(adata, np.arange(adata.n_obs), groupby, least=2)
        wanted = names if groups is None else check_groups(groups, names, groupby)

        expression = self._expression(adata, rows, layer, modality, counted=True)
        positions = self._positions(adata, rows)
        found = marker_statistics(positions, expression, division)
        if n_permutations:
            pvalues = permutation_pvalues(positions, expression, division, n_permutations, seed)
            adjusted = false_discovery_control(pvalues, axis=1)
        else:
            pvalues = adjusted = np.full(found.score.shape, np.nan)
        tables = {}
        for number, name in enumerate(names):
            if name not in wanted:
                continue
            score, margin = found.score[number], 1.96 * found.standard_error[number]
            table = pd.DataFrame(
                {
                    "group": name,
                    "gene": genes,
                    "score": score,
                    "score_low": score - margin,
                    "score_high": score + margin,
                    "specificity": found.specificity[number],
                    "fraction_in": found.fraction_in[number],
                    "fraction_out": found.fraction_out[number],
                    "log2_fold_change": found.log2_fold_change[number],
                    "pvalue": pvalues[number],
                    "pvalue_adjusted": adjusted[number],
                }
            )
            tables[name] = table.sort_values("score", ascending=False, kind="stable")[:n_top]
        adata.uns[key_added] = _as_scanpy(tables, groupby, self._layer(layer, modality))
        result = pd.concat(list(tables.values()), ignore_index=True)
        result["group"] = pd.Categorical(result["group"], categories=names)
        return result

    def get_cluster_names(
        self,
        markers: Mapping[str, Sequence[str]] | pd.DataFrame | str | os.PathLike[str],
        adata: AnnData | MuData | None = None,
        groupby: str | None = None,
        min_support: float = 0.5,
        seed: int = 0,
        modality: str | None = None,
    ) -> pd.DataFrame:
        """Propose names for clusters from lists of marker genes, or none of them.

        A list fits a cluster if its genes score higher there (see :meth:`get_marker_genes`) than hardly any random set
        of as many genes does, and enough of them are up. Of those that fit, the one with the highest score is proposed.
        Lists are resampled to tell how much the name depends on single genes.

        Parameters
        ----------
        markers
            Names and their marker genes: a dictionary of lists, a table with columns ``source`` and ``target`` (as
            decoupler has them) or ``cell_type`` and ``gene``, or the path of a GMT file.
        adata, groupby
            Cells and their clusters, as in :meth:`get_marker_genes`.
        min_support
            More than this fraction of the markers of a list, among those that the data have, must be up in a cluster:
            their score is above 0 by its 95 % interval. Markers that vary too little to be kept count as not up. Take less
            for long lists that were not made by hand.
        seed
            Seed of the random sets and of the resampling.
        modality
            Of several modalities, the one whose variables the markers are, as in :meth:`get_marker_genes`.

        Returns
        -------
        Data frame indexed by cluster:

        - ``name``: the name proposed, or ``"none of these"``
        - ``confidence``: share of resampled lists that lead to the same answer, from 0 to 1
        - ``best``, ``score``, ``support``, ``pvalue``: the list with the highest score, proposed or not; the score is the
          mean over its genes in standard errors of the mean of as many random genes, the support is the fraction that is
          up, and the p-value is against random gene sets, times the number of lists
        - ``second``, ``second_score``: the next
        - ``genes``: the genes of the best list that are up, highest score first

        The number of markers of each list that were used is in ``attrs["used"]``, the unknown ones are in
        ``attrs["unknown"]``.

        Raises
        ------
        RuntimeError
            If the model, or its refinement, is not trained.
        KeyError
            If ``groupby`` is not there.
        ValueError
            If no marker is known, or the lists are of another case or kind of identifiers.
        """
        self._check_refinement()
        check_at_least(seed, 0, "seed")
        check_at_least(min_support, 0.0, "min_support")
        if min_support > 1:
            raise ValueError(f"min_support must be a fraction of at most 1, not {min_support!r}.")
        adata = self._data(adata)
        lists = read_gene_sets(markers, "markers")
        kept, every_gene, _ = self._variables(modality, counted=True)
        check_identifiers([gene for genes in lists.values() for gene in genes], every_gene, "markers")
        columns = {name: kept.get_indexer(pd.Index(genes)) for name, genes in lists.items()}
        columns = {name: found[found >= 0] for name, found in columns.items()}
        unknown = {name: [gene for gene in genes if gene not in kept] for name, genes in lists.items()}
        usable = [name for name, found in columns.items() if len(found)]
        if not usable:
            raise ValueError(
                "None of the markers is among the genes that the model keeps, though some are in the data. Keep more "
                "genes: `SCRCL(adata, n_top_genes=...)`."
            )
        groupby = self._own_groups(adata) if groupby is None else groupby
        rows, division, clusters = _groups(adata, np.arange(adata.n_obs), groupby, least=2)
        expression = self._expression(adata, rows, None, modality, counted=True)
        found = marker_statistics(self._positions(adata, rows), expression, division)
        up = found.score - 1.96 * found.standard_error > 0
        candidates = [MarkerList(columns[name], sum(gene in every_gene for gene in lists[name])) for name in usable]
        naming = name_groups(found.score, up, candidates, float(min_support), seed)
        order = np.argsort(-naming.score, axis=1, kind="stable")
        every = np.arange(len(clusters))
        best, second = order[:, 0], order[:, min(1, len(usable) - 1)]
        names = np.array([*usable, NONE], dtype=object)
        speaking = []
        for cluster in every:
            own = columns[usable[best[cluster]]]
            own = own[up[cluster, own]]
            speaking.append(", ".join(kept[own[np.argsort(-found.score[cluster, own], kind="stable")]]))
        result = pd.DataFrame(
            {
                "name": names[naming.choice],
                "confidence": naming.confidence,
                "best": names[best],
                "score": naming.score[every, best],
                "support": naming.support[every, best],
                "pvalue": naming.pvalue[every, best],
                "second": names[second] if len(usable) > 1 else "",
                "second_score": naming.score[every, second] if len(usable) > 1 else np.nan,
                "genes": speaking,
            },
            index=pd.Index(clusters, name="cluster"),
        )
        result.attrs = {"used": {name: len(columns[name]) for name in lists}, "unknown": unknown}
        return result

    # ------------------------------------------------------------- gene map

    @property
    def gene_map_(self) -> dict[str, np.ndarray] | None:
        """Where the genes lie among the cells, as plain arrays, saved with the model; ``None`` where it is unknown."""
        if self._gene_map is None:
            try:
                self._fitted_gene_map()
            except (RuntimeError, ValueError, KeyError):
                return None
        assert self._gene_map is not None
        return self._gene_map.to_dict()

    @gene_map_.setter
    def gene_map_(self, state: dict[str, np.ndarray] | None) -> None:
        self._gene_map = None if state is None else GeneMap(**state)

    def _fitted_gene_map(self) -> GeneMap:
        """The map of the genes among the cells that the model was built on."""
        self._check_refinement()
        if self._gene_map is None:
            adata = self.adata
            known = np.empty(0, dtype=np.int64) if adata is None else self._find(adata, None)[0]
            rows = np.flatnonzero(known >= 0)
            if len(rows) < self._reference.n_cells:
                raise ValueError(
                    "The genes are placed among the cells that the model was built on, whose counts are not saved with "
                    "it. Load it with these cells: `SCRCL.load(dir_path, adata=training_data)`."
                )
            expression = self._expression(adata, rows, None)
            self._gene_map = GeneMap.fit(self._reference_latent["refined"][known[rows]], expression)
        return self._gene_map

    def _own_groups(self, adata: AnnData) -> str:
        """Write the clusters of the model to the data; the key under which they are."""
        adata.obs[keys.MARKER_GROUPS_KEY] = self.get_clusters(adata)
        return keys.MARKER_GROUPS_KEY

    def _positions(self, adata: AnnData, rows: np.ndarray) -> np.ndarray:
        return self.get_latent_representation(adata, rows, representation="refined")

    def _variables(self, modality: str | None, counted: bool = False) -> tuple[pd.Index, pd.Index, Any]:
        """Names of the genes kept, or of the variables of a modality; of all that were measured; and their numbers.

        ``counted`` leaves out what was not counted, which is not expressed more or less.
        """
        reference = self._reference
        if modality is not None:
            self._check_modality(modality)
        if not isinstance(reference, JointReference):
            return reference.genes, reference.all_genes, slice(None)
        chosen = self._chosen(modality, counted)
        numbers = np.concatenate([reference.variables_of(name) for name in chosen])
        if modality is not None:
            return reference.modalities[modality].variables, reference.modalities[modality].names, numbers
        return reference.genes[numbers], reference.all_genes, numbers

    def _chosen(self, modality: str | None, counted: bool) -> list[str]:
        """Names of the modalities that are meant."""
        kinds = {name: found.kind for name, found in self._reference.modalities.items()}
        chosen = [name for name in kinds if modality in (None, name) and not (counted and kinds[name] == Given.kind)]
        if not chosen:
            raise ValueError(
                f"{'The model' if modality is None else f'modality={modality!r}'} has given features only, which were "
                "not counted and have no markers. See `get_cell_gene_associations()` for how cells go with them."
            )
        return chosen

    def _layer(self, layer: str | None, modality: str | None) -> str | None:
        """Where the counts are."""
        if layer is not None:
            return layer
        if not isinstance(self._reference, JointReference):
            return self.get_setup_arg("layer")
        return None if modality is None else (self.get_setup_arg("layers") or {}).get(modality)

    def _expression(
        self, adata: Any, rows: np.ndarray, layer: str | None, modality: str | None = None, counted: bool = False
    ) -> sp.csr_array:
        """Log-normalised expression of cells for the genes kept."""
        if isinstance(self._reference, JointReference):
            return self._read_expression(adata, rows, layer, self._chosen(modality, counted))
        target = self._reference.transform.target
        kept = self._read_kept(adata, rows, self._layer(layer, modality))
        return sp.csr_array(
            sp.vstack([log_expression(counts, totals, target) for _, counts, totals in kept], format="csr")
        )

    def _check_refinement(self) -> None:
        self._check_if_trained(warn=False)
        if self.refinement_trained_ is False:
            raise RuntimeError(
                "The refinement is not trained: the model was trained with cross_view_weight=0, so that nothing ties its "
                "cells to genes. Train it further with the loss of the refinement: "
                "`model.train(plan_kwargs={'cross_view_weight': 1.0})`."
            )


def _groups(adata: AnnData, rows: np.ndarray, key: str, least: int) -> tuple[np.ndarray, Groups, list[str]]:
    """Read the groups of cells: which of the rows have one, the groups, and their names."""
    check_key(key, adata.obs, "groupby", "adata.obs")
    column = pd.Categorical(adata.obs[key].iloc[rows])
    column = column.remove_unused_categories()
    if len(column.categories) < least:
        raise ValueError(
            f"groupby={key!r} has {len(column.categories)} groups of cells, but at least {least} are needed. Name a key "
            "of adata.obs that divides the cells, or ask for more clusters."
        )
    if least > 1 and len(column.categories) > max(2, len(rows) // 2):
        raise ValueError(f"groupby={key!r} has a value of its own for most cells. Name a key that divides the cells.")
    inside = np.flatnonzero(column.codes >= 0)
    return (
        inside,
        Groups(column.codes[inside].astype(np.int64), len(column.categories)),
        column.categories.astype(str).tolist(),
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
