"""Results for cells: latent representation, clusters, number of clusters, fit, and modality weights."""

import numpy as np
import pandas as pd

from scrcl.nn.inference import Representation
from scrcl.reference.mapping import check_level, warn_if_coarse
from scrcl.utils.checks import check_at_least
from scrcl.utils.errors import ScrclValueError

from .base import Data, Indices, SCRCLBase, cell_names, named
from .docstrings import documented
from .scvi_compat import check_deterministic


class CellsMixin(SCRCLBase):
    """Results of :class:`scrcl.SCRCL` for cells."""

    @documented
    def get_latent_representation(
        self,
        adata: Data | None = None,
        indices: Indices = None,
        give_mean: bool = True,
        mc_samples: int | None = None,
        batch_size: int | None = None,
        return_dist: bool = False,
        dataloader: None = None,
        *,
        representation: Representation = "aligned",
        modality: str | None = None,
    ) -> np.ndarray:
        """Return the latent representation of cells.

        Parameters
        ----------
        %(cells)s
        give_mean, mc_samples, return_dist, dataloader
            There as in :meth:`scvi.model.SCVI.get_latent_representation`. A cell has one representation and no
            distribution of them: ``give_mean=False``, ``return_dist=True`` and a ``dataloader`` are refused, and
            ``mc_samples`` has no effect.
        batch_size
            Number of new cells that pass the network at once, at most 16,384, which is the default. The result does not
            depend on it. Counts are read in blocks in any case.
        representation
            ``"aligned"``: the two aligned views and the features by which neighbours are found, side by side.
            ``"refined"``: the same with the two views refined by cell-gene associations.
        modality
            Modality whose own views to return. By default, of several modalities, each view is the mean over them,
            weighted as in :meth:`get_modality_weights`.

        Returns
        -------
        Array of shape ``(n_cells, 2 * n_hidden + s)`` or ``(n_cells, 2 * n_refined + s)``, float32, in the order asked
        for. Each view has rows of length 1, and the ``s`` features, by default 100, rows of length 0.5. If batches are
        corrected, ``s`` is 0.

        Raises
        ------
        %(raises_untrained)s
        ValueError
            If the data are not counts, lack genes that the model reads, or ``indices`` are out of range.

        Notes
        -----
        A cell that the model was built on gets its own representation, at any position in ``adata``. A new cell is placed
        among its nearest cells of the model, so its result does not depend on the other cells passed. In space, a training
        cell is recognised by its position and counts, and a new cell is encoded among all cells of its slice in ``adata``,
        also of cells that ``indices`` leaves out, so pass whole slices.

        All cells of an object are read and placed once. The placement is kept as long as the object exists and its counts,
        names, batches and coordinates stay the same, which is checked at each call. The object that the model was built on
        stands for the training cells, even if its counts were changed.

        Examples
        --------
        >>> adata.obsm["X_scrcl"] = model.get_latent_representation()
        >>> adata.obsm["X_scrcl"].shape
        (600, 356)

        Cells that the model has not seen:

        >>> model.get_latent_representation(new_adata).shape
        (100, 356)
        """
        self._check_if_trained(warn=False)
        check_deterministic(give_mean, return_dist, dataloader)
        view, data = self._view(representation, modality), self._data(adata)
        if batch_size is not None:
            check_at_least(batch_size, 1, "batch_size")
        return self._results.latent_of(self._query(data, indices), view, batch_size)

    @documented
    def get_mapping_quality(
        self,
        adata: Data | None = None,
        indices: Indices = None,
        n_clusters: int | None = None,
        alpha: float = 0.05,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Return how well cells fit among those that the model was built on, and flag outliers.

        A cell of a type that the model has not seen is put into some cluster like any other. Its mean distance from its
        neighbours is compared with the distances of cells of the model with as much signal. Types similar to one in the model are not
        found: single cells of these fit as well.

        Parameters
        ----------
        %(cells)s
        %(n_clusters)s
        alpha
            Level of the test, from 0 to 1: expected share of cells that are flagged although none is of a new type. With
            ``n`` cells in the model, the smallest p-value is ``1 / (n + 1)``; a smaller level flags nothing and gives a
            warning.
        %(seed)s

        Returns
        -------
        Data frame indexed by the names of the cells:

        - ``known``: whether the model was built on this cell
        - ``cluster``: as :meth:`get_clusters` returns it
        - ``confidence``: how far the clusterings of the consensus agree on that cluster, as in
          ``get_cluster_probabilities(method="consensus")``
        - ``distance``: mean distance from the nearest cells of the model
        - ``excess``: by how many standard deviations the distance is above the mean of the cells of the model with
          as much signal
        - ``pvalue``: share of the cells of the model with at least this excess
        - ``outlier``: whether ``pvalue`` is at most ``alpha``

        Raises
        ------
        %(raises_untrained)s
        ValueError
            If an argument is out of range, or the data do not fit the model.
        NotImplementedError
            In space: features are smoothed over neighbours there, so cells of another slice would seem new.

        Examples
        --------
        >>> quality = model.get_mapping_quality(new_adata)
        >>> unlike_any = new_adata[quality["outlier"]]
        >>> bool(quality["known"].any())
        False
        """
        self._check_if_trained(warn=False)
        if self._reference.spatial is not None:
            raise NotImplementedError(
                "get_mapping_quality compares single cells. In space, features are smoothed over neighbours, so that cells of "
                "another slice would seem new. Build a model without `spatial_key` for this."
            )
        check_level(alpha)
        options = self._cluster_options(n_clusters=n_clusters, seed=seed)
        data, results = self._data(adata), self._results
        query = self._query(data, indices)
        distance, excess = results.distances(query)
        pvalue = self._reference.distance_scale.pvalues(excess)
        warn_if_coarse(alpha, self._reference.n_cells)
        labels = results.labels(query, options)
        return pd.DataFrame(
            {
                "known": query.reference_index >= 0,
                "cluster": named(labels, results.clustering(options).n_clusters),
                "confidence": results.agreement(query, options)[np.arange(len(labels)), labels],
                "distance": distance,
                "excess": excess,
                "pvalue": pvalue,
                "outlier": pvalue <= alpha,
            },
            index=cell_names(data, indices),
        )

    @documented
    def get_modality_weights(self, adata: Data | None = None, indices: Indices = None) -> pd.DataFrame:
        """Return the weight of each modality for each cell.

        The weight of a modality grows with how well the neighbours of the cell in it predict the cell in the others, and how
        well one half of its features predicts the other half. So noise, or a modality whose cells were shuffled, has almost
        no weight. Of two modalities that contradict each other, the one with more structure has more weight: which of them
        is wrong cannot be known from two.

        Parameters
        ----------
        %(cells)s

        Returns
        -------
        Data frame of cells by modalities, float32. Rows sum to 1.

        Raises
        ------
        ValueError
            If the model is of one modality, or the data do not fit it.

        Examples
        --------
        >>> scrcl.SCRCL.setup_mudata(mdata, modalities={"rna": "rna", "prot": "protein"})
        >>> model = scrcl.SCRCL(mdata)
        >>> weights = model.get_modality_weights()
        >>> list(weights.columns)
        ['rna', 'prot']
        """
        if not self._several:
            raise ScrclValueError(
                "The model is of one modality, which has no weights.",
                "Set up several with `SCRCL.setup_mudata(mdata, modalities={'rna': 'rna', 'prot': 'protein'})`.",
            )
        data, reference = self._data(adata), self._reference
        query = self._query(data, indices)
        weights = query.combine(reference.weights, lambda: query.placement.modality_weights[query.new])
        return pd.DataFrame(weights, index=cell_names(data, indices), columns=list(reference.modalities))
