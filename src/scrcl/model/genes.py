"""What the model says of genes: their embedding, their associations with cells, and markers. Wiring only.

Of several modalities, whatever the model ties cells to counts as a gene: proteins, peaks and given features too.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from sklearn.preprocessing import normalize

from scrcl.cluster.leiden import leiden, leiden_with
from scrcl.data.sources import read_column
from scrcl.genes.associations import GeneMap, Groups
from scrcl.utils.checks import as_rows, check_at_least, check_genes, check_key, check_option
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.memory import warn_if_short
from scrcl.utils.names import as_groups

from .base import Data, Indices
from .certainty import CertaintyMixin
from .results import ASSOCIATION_METHODS, AssociationMethod

#: Resolution of Leiden at which gene modules are found.
MODULE_RESOLUTION = 1.0


class GenesMixin(CertaintyMixin):
    """The methods of :class:`scrcl.SCRCL` that speak of genes."""

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

        Examples
        --------
        >>> embedding = model.get_gene_embedding()
        >>> embedding.loc["CD79A"].shape
        (32,)
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

        Examples
        --------
        >>> modules = model.get_gene_modules(n_modules=5)
        >>> with_cd79a = modules.index[modules == modules["CD79A"]]
        """
        check_at_least(resolution, 0.0, "resolution")
        check_at_least(seed, 0, "seed")
        embedding = self.get_gene_embedding()
        if n_modules is not None:
            check_at_least(n_modules, 1, "n_modules")
            if n_modules > len(embedding):
                raise ScrclValueError(
                    f"n_modules={n_modules} is more than the {len(embedding):,} genes.", "Pass a smaller number."
                )
        placed = embedding.to_numpy().any(1)
        points = normalize(embedding.to_numpy()[placed])
        found = (
            leiden(points, float(resolution), seed)
            if n_modules is None
            else leiden_with(points, n_modules, seed, noun="modules")
        )
        codes = np.full(len(embedding), -1)
        codes[placed] = found.labels
        names = pd.Index([str(number) for number in range(found.n_clusters)])
        return pd.Series(pd.Categorical.from_codes(codes, names), index=embedding.index, name="module")

    def get_cell_gene_associations(
        self,
        adata: Data | None = None,
        indices: Indices = None,
        groupby: str | None = None,
        genes: Sequence[str] | str | None = None,
        n_top: int = 50,
        modality: str | None = None,
        sparse: bool = False,
        method: AssociationMethod = "regression",
    ) -> pd.DataFrame:
        r"""Return how strongly cells, or groups of cells, are associated with genes.

        The association of cell :math:`i` with gene :math:`g` is :math:`(z_i - \bar z) \cdot \beta_g`, where
        :math:`z_i` are the two refined views of the cell side by side, :math:`\bar z` is their mean, and
        :math:`\beta_g` is the position of the gene among them: the regression of its standardised log-normalised
        expression on the refined views of the cells that the model was built on. So it is how far the expression of the
        gene lies above its mean in cells that the refinement places where it places this one, in standard deviations.
        With ``method="network"`` it is what the network itself says: the map :math:`H W + b` by which the refinement takes
        cells to genes, relative to its mean over the cells of the model. The loss determines it up to maps that give the same
        refined views, of which the one nearest to the expression is taken.

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
            is given; the others are 0.
        modality
            Of several modalities, the one whose variables are meant, as in :meth:`get_gene_embedding`.
        sparse
            Return sparse columns where only the ``n_top`` associations of each cell are kept, so that the result stays
            small for any number of cells. AnnData cannot write such a frame; it can write the sparse matrix
            ``scipy.sparse.csr_matrix(frame.sparse.to_coo())``.
        method
            ``"regression"`` on the refined views, which markers and their p-values rest on, or ``"network"``.

        Returns
        -------
        Data frame of cells by genes or groups by genes, float32, which may be put into ``adata.obsm``.

        Raises
        ------
        RuntimeError
            If the model, or its refinement, is not trained.
        KeyError
            If a gene or ``groupby`` is not there.
        ValueError
            If the data do not fit the model, or an argument is out of range.

        Examples
        --------
        >>> model.get_cell_gene_associations(genes=["CD79A", "NKG7"]).shape
        (600, 2)

        Of clusters, with all genes, and of cells, with the 50 genes that say most of each:

        >>> by_cluster = model.get_cell_gene_associations(groupby="scrcl")
        >>> adata.obsm["associations"] = model.get_cell_gene_associations()

        As the network has learnt them:

        >>> learnt = model.get_cell_gene_associations(groupby="scrcl", method="network")
        """
        self._check_refinement()
        check_at_least(n_top, 1, "n_top")
        check_option(method, ASSOCIATION_METHODS, "method")
        adata = self._data(adata)
        rows = np.arange(adata.n_obs) if indices is None else as_rows(indices, adata.n_obs)
        names, every, variables = self._variables(modality)
        columns = None if genes is None else check_genes(genes, names, every)
        if groupby is None and columns is None and not sparse:
            warn_if_short(
                4 * len(rows) * len(names),
                f"The associations of {len(rows):,} cells with {len(names):,} genes",
                "Pass `sparse=True`, or name `genes` or `groupby`.",
                "Pass fewer cells.",
            )
        division = None if groupby is None else read_groups(adata, rows, groupby, least=1)
        gene_map = self._fitted_gene_map(method).select(variables)
        if division is not None:
            inside, groups, group_names = division
            positions = groups.means(self._positions(adata, rows[inside], method))
            index = pd.Index(group_names, name=groupby)
        else:
            positions, index = self._positions(adata, rows, method), adata.obs_names[rows]
            if columns is None:
                top = gene_map.top(positions, n_top)
                if not sparse:
                    return pd.DataFrame(top.toarray(), index=index, columns=names)
                frame: Any = pd.DataFrame  # whose stubs do not know this accessor
                return frame.sparse.from_spmatrix(sp.csc_matrix(top), index, names)
        kept = np.arange(len(names)) if columns is None else columns
        scores = gene_map(positions, kept).astype(np.float32)
        return pd.DataFrame(scores, index=index, columns=names[kept])

    # ---------------------------------------------------------------- wiring

    def _fitted_gene_map(self, method: AssociationMethod = "regression") -> GeneMap:
        """The map of the genes among the cells that the model was built on."""
        self._check_refinement()
        results = self._results
        if method not in results.gene_maps:
            data = self.adata
            known = np.empty(0, dtype=np.int64) if data is None else self._query(data, None).known
            rows = np.flatnonzero(known >= 0)
            if len(rows) < self._reference.n_cells:
                raise ScrclValueError(
                    "Genes are placed among the training cells, whose counts are not saved with the model.",
                    "Load it with these cells: `SCRCL.load(dir_path, adata=training_data)`.",
                )
            expression = self._expression(data, rows)
            positions = results.latent(self._view("refined", None))[known[rows]]
            results.gene_maps = {
                "regression": GeneMap.fit(positions, expression),
                "network": results.nearest_map(known[rows], expression),
            }
        return results.gene_maps[method]

    def _positions(self, data: Any, rows: np.ndarray, method: AssociationMethod = "regression") -> np.ndarray:
        """Where cells are among the genes, ``(m, p)``: what is regressed on, or what the map of the network reads."""
        if method == "network":
            return self._results.hidden(self._query(data, rows))
        return self._latent(data, rows, self._view("refined", None))

    def _variables(self, modality: str | None, counted: bool = False) -> tuple[pd.Index, pd.Index, Any]:
        """Names of the genes kept, or of the variables of a modality; of all that were measured; and their numbers.

        ``counted`` leaves out what was not counted, which is not expressed more or less.
        """
        reference = self._reference
        self._check_modality(modality)
        chosen = self._chosen(modality, counted)
        numbers = np.concatenate([reference.variables_of(name) for name in chosen])
        if modality is not None:
            return reference.modalities[modality].variables, reference.modalities[modality].names, numbers
        return reference.genes[numbers], reference.all_genes, numbers

    def _chosen(self, modality: str | None, counted: bool) -> list[str]:
        """Names of the modalities that are meant."""
        modalities = self._reference.modalities
        named = modalities if modality is None else [modality]
        chosen = [name for name in named if modalities[name].counted or not counted]
        if not chosen:
            raise ScrclValueError(
                f"{'The model' if modality is None else f'modality={modality!r}'} has embeddings only, which have no counts "
                "and no markers.",
                "For their associations with cells, call `model.get_cell_gene_associations()`.",
            )
        return chosen

    def _expression(
        self,
        data: Any,
        rows: np.ndarray,
        layer: str | None = None,
        modality: str | None = None,
        counted: bool = False,
    ) -> sp.csr_array:
        """Log-normalised expression of cells, increasing, for the genes kept."""
        chosen = self._chosen(modality, counted)
        sources = self._sources(data, {} if layer is None else dict.fromkeys(chosen, layer))
        found = [self._reference.modalities[name].expression(sources[name], rows) for name in chosen]
        return found[0] if len(found) == 1 else sp.csr_array(sp.hstack(found, format="csr"))

    def _check_refinement(self) -> None:
        self._check_if_trained(warn=False)
        if self.refinement_trained_ is False:
            raise RuntimeError(
                "The refinement is not trained: the model was trained with cross_view_weight=0, so that nothing ties its "
                "cells to genes. Train it further with the loss of the refinement: "
                "`model.train(plan_kwargs={'cross_view_weight': 1.0})`."
            )


def read_groups(adata: AnnData, rows: np.ndarray, key: str, least: int) -> tuple[np.ndarray, Groups, list[str]]:
    """Read the groups of cells: which of the rows have one, the groups, and their names."""
    check_key(key, adata.obs, "groupby", "adata.obs")
    column = as_groups(read_column(adata.obs, key, "adata.obs").iloc[rows]).remove_unused_categories()
    if len(column.categories) < least:
        raise ScrclValueError(
            f"groupby={key!r} has {len(column.categories)} groups of cells, but at least {least} are required.",
            "Name a key of adata.obs with more groups, or pass a larger n_clusters.",
        )
    if least > 1 and len(column.categories) > max(2, len(rows) // 2):
        raise ScrclValueError(
            f"groupby={key!r} has a different value for most cells.", "Name a key of groups of cells."
        )
    inside = np.flatnonzero(column.codes >= 0)
    return (
        inside,
        Groups(column.codes[inside].astype(np.int64), len(column.categories)),
        column.categories.tolist(),
    )
