"""Results for genes: their embedding, modules, and associations with cells."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from sklearn.preprocessing import normalize

from scrcl.cluster.leiden import leiden, leiden_with
from scrcl.utils.checks import as_rows, check_at_least, check_genes, check_option
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.memory import warn_if_short
from scrcl.utils.words import counted

from .base import Data, Indices, SCRCLBase, named
from .docstrings import documented
from .expression import gene_map, gene_positions, read_groups, symbols_of, variables
from .options import ASSOCIATION_METHODS, AssociationMethod

#: Resolution of Leiden at which gene modules are found.
MODULE_RESOLUTION = 1.0


class GenesMixin(SCRCLBase):
    """Results of :class:`scrcl.SCRCL` for genes."""

    @documented
    @torch.inference_mode()
    def get_gene_embedding(self, modality: str | None = None) -> pd.DataFrame:
        r"""Return the gene embedding :math:`\Gamma` of the refinement.

        Genes with similar embeddings have similar expression profiles and neighbours in the gene graph. The loss does
        not determine the directions of the axes, so a single axis has no meaning, and the dot product with a refined
        cell is not an association; see :meth:`get_cell_gene_associations`.

        Parameters
        ----------
        %(gene_modality)s

        Returns
        -------
        Data frame of shape ``(n_genes, n_refined)``, float32, one row for each gene that the model keeps, not negative.

        Raises
        ------
        %(raises_unrefined)s

        Examples
        --------
        >>> embedding = model.get_gene_embedding()
        >>> embedding.loc["CD79A"].shape
        (32,)
        """
        self._check_refinement()
        self.module.eval()
        names, _, columns = variables(self, modality)
        embedding = self.module.gene_encoder(self.module.gene_profiles).cpu().numpy()
        return pd.DataFrame(embedding[columns], index=names)

    @documented
    def get_gene_modules(
        self, n_modules: int | None = None, resolution: float = MODULE_RESOLUTION, seed: int = 0
    ) -> pd.Series:
        """Return modules of genes: Leiden communities of the gene embedding.

        Parameters
        ----------
        n_modules
            Number of modules, found by changing the resolution; by default as many as ``resolution`` gives.
        resolution
            Resolution of the modularity: a higher one gives more modules.
        seed
            Seed of Leiden.

        Returns
        -------
        Categorical series indexed by gene. Modules are named ``"0"``, ``"1"``, … by decreasing size. A gene whose
        embedding is zero belongs to none (missing value).

        Raises
        ------
        %(raises_unrefined)s
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
                    f"n_modules={n_modules} is more than the {counted(len(embedding), 'gene')}.",
                    "Pass a smaller number.",
                )
        placed = embedding.to_numpy().any(1)
        points = normalize(embedding.to_numpy()[placed])
        modules = (
            leiden(points, float(resolution), seed)
            if n_modules is None
            else leiden_with(points, n_modules, seed, noun="modules")
        )
        codes = np.full(len(embedding), -1)
        codes[placed] = modules.labels
        return pd.Series(named(codes, modules.n_clusters), index=embedding.index, name="module")

    @documented
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
        gene_symbols: str | None = None,
    ) -> pd.DataFrame:
        r"""Return how strongly cells, or groups of cells, are associated with genes.

        The association of cell :math:`i` with gene :math:`g` is :math:`(z_i - \bar z) \cdot \beta_g`, where
        :math:`z_i` are the two refined views of the cell side by side, :math:`\bar z` is their mean, and
        :math:`\beta_g` is the position of the gene among them: the regression of its standardised log-normalised
        expression on the refined views of the cells that the model was built on. So it is how far the expression of the
        gene lies above its mean in cells that the refinement places where it places this one, in standard deviations.
        With ``method="network"`` it is the map :math:`H W + b` of the network, by which the refinement takes cells to genes,
        relative to its mean over the cells of the model. The loss determines it up to maps that give the same refined views,
        of which the one nearest to the expression is taken.

        Parameters
        ----------
        %(cells)s
        groupby
            Key of ``adata.obs`` of groups. The mean over the cells of each group is returned; by default each cell.
        genes
            Genes to return, with all their associations. By default all genes that the model keeps.
        n_top
            Number of highest positive associations that are kept for each cell if neither ``groupby`` nor ``genes``
            is given; the others are 0.
        %(gene_modality)s
        sparse
            Return sparse columns if only the ``n_top`` associations of each cell are kept, so that the result stays
            small for any number of cells. AnnData cannot write such a frame; it can write the sparse matrix
            ``scipy.sparse.csr_matrix(frame.sparse.to_coo())``.
        method
            ``"regression"`` on the refined views, which markers and their p-values are based on, or ``"network"``.
        %(gene_symbols)s

        Returns
        -------
        Data frame of cells by genes or groups by genes, float32, which may be put into ``adata.obsm``.

        Raises
        ------
        %(raises_unrefined)s
        KeyError
            If a gene, ``groupby`` or ``gene_symbols`` is not there.
        ValueError
            If the data do not fit the model, or an argument is out of range.

        Examples
        --------
        >>> model.get_cell_gene_associations(genes=["CD79A", "NKG7"]).shape
        (600, 2)

        Of clusters with all genes, and of each cell with its 50 genes of highest association:

        >>> by_cluster = model.get_cell_gene_associations(groupby="scrcl")
        >>> adata.obsm["associations"] = model.get_cell_gene_associations()

        As the network has learned them:

        >>> learned = model.get_cell_gene_associations(groupby="scrcl", method="network")
        """
        self._check_refinement()
        check_at_least(n_top, 1, "n_top")
        check_option(method, ASSOCIATION_METHODS, "method")
        data = self._data(adata)
        rows = np.arange(data.n_obs) if indices is None else as_rows(indices, data.n_obs)
        names, measured, numbers = variables(self, modality)
        own = measured
        names, measured = (symbols_of(self, data, index, gene_symbols) for index in (names, measured))
        columns = None if genes is None else check_genes(genes, names, measured, own)
        if groupby is None and columns is None and not sparse:
            warn_if_short(
                4 * len(rows) * len(names),
                f"The associations of {counted(len(rows), 'cell')} with {counted(len(names), 'gene')}",
                "Pass `sparse=True`, or name `genes` or `groupby`.",
                "Pass fewer cells.",
            )
        groups = None if groupby is None else read_groups(data, rows, groupby, min_groups=1)
        associations = gene_map(self, method).select(numbers)
        if groups is not None:
            inside, division, group_names = groups
            positions = division.means(gene_positions(self, data, rows[inside], method))
            index = pd.Index(group_names, name=groupby)
        else:
            positions, index = gene_positions(self, data, rows, method), data.obs_names[rows]
            if columns is None:
                top = associations.top(positions, n_top)
                if not sparse:
                    return pd.DataFrame(top.toarray(), index=index, columns=names)
                return pd.DataFrame.sparse.from_spmatrix(sp.csc_matrix(top), index, names)  # type: ignore[attr-defined]
        kept = np.arange(len(names)) if columns is None else columns
        scores = associations(positions, kept).astype(np.float32)
        return pd.DataFrame(scores, index=index, columns=names[kept])
