"""Results for cells: latent representation, clusters, number of clusters, fit, and modality weights."""

import numpy as np
import pandas as pd

from scrcl.cluster.consensus import MIN_CLUSTER_CELLS
from scrcl.cluster.number import NumberOfClusters
from scrcl.graph.slices import majority
from scrcl.nn.inference import Representation
from scrcl.reference.mapping import check_level, warn_if_coarse
from scrcl.utils import keys
from scrcl.utils.checks import as_rows, check_at_least
from scrcl.utils.errors import ScrclValueError

from .base import Data, Indices, SCRCLBase, cell_names, named
from .docstrings import documented
from .options import Method
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
    def get_clusters(
        self,
        adata: Data | None = None,
        indices: Indices = None,
        n_clusters: int | None = None,
        method: Method = "consensus",
        resolution: float | None = None,
        representation: Representation = "aligned",
        seed: int = 0,
        modality: str | None = None,
        n_majority: int = 0,
        min_cells: int = MIN_CLUSTER_CELLS,
    ) -> pd.Series:
        """Return the clusters of cells.

        Clusters are found among the cells that the model was built on. New cells join the nearest cluster.

        Parameters
        ----------
        %(cells)s
        %(n_clusters)s
        method
            ``"consensus"``: a consensus of trees of small clusters, k-means, a Gaussian mixture, Ward's and average linkage
            in the latent representation and in the smoothed features, by how often they put cells together.
            ``"kmeans"``: k-means, the best of 20 k-means++ starts.
            ``"leiden"``: Leiden communities of the nearest-neighbour graph of the latent space; a given ``n_clusters``
            is found by changing the resolution.
        resolution
            Resolution of ``method="leiden"`` without ``n_clusters``: a higher one gives more clusters. 0.1 by default;
            refused where it is not used.
        representation
            Latent representation to cluster. The consensus of the aligned one, except in space, reads the refined one too.
        %(seed)s
        %(cluster_modality)s
        n_majority
            In space, give each cell the most frequent label among itself and its ``n_majority`` nearest cells in its
            slice. The paper uses 50. 0 for no such smoothing.
        min_cells
            Number of cells of the smallest cluster of ``method="consensus"``, as far as the data allow it. The cells of
            smaller clusters join the most similar ones. A test of a cluster against the others requires two.

        Returns
        -------
        Categorical series indexed by the names of the cells, in the order asked for. Clusters are named ``"0"``,
        ``"1"``, … by decreasing size among the cells that the model was built on.

        Raises
        ------
        %(raises_untrained)s
        ValueError
            If ``n_clusters`` is below 2 or above the number of cells, or an argument is out of range or unknown.

        Examples
        --------
        >>> adata.obs["scrcl"] = model.get_clusters()
        >>> model.get_clusters(n_clusters=5).nunique()
        5

        Cells that the model has not seen join the clusters that there are:

        >>> set(model.get_clusters(new_adata)) <= set(adata.obs["scrcl"])
        True
        """
        self._check_if_trained(warn=False)
        options = self._cluster_options(
            n_clusters=n_clusters,
            seed=seed,
            representation=representation,
            modality=modality,
            method=method,
            resolution=resolution,
            min_cells=min_cells,
        )
        check_at_least(n_majority, 0, "n_majority")
        spatial = self._reference.spatial
        if n_majority and spatial is None:
            raise ScrclValueError(
                f"n_majority={n_majority} requires coordinates.",
                f"Name them: {self._setup_call(spatial_key='spatial')}.",
                command="Pass `--spatial-key spatial`.",
            )
        data = self._data(adata)
        # The neighbours of a cell are looked for among all cells.
        query = self._query(data, None if n_majority else indices)
        clusters = self._clusters(query, options)
        if n_majority and spatial is not None:
            index, reference_labels = query.reference_index, self._results.clustering(options).labels
            smoothed = majority(reference_labels, spatial.slices, n_majority)[index]
            if (index < 0).any():
                smoothed = np.where(index < 0, majority(clusters.codes, self._slices(data), n_majority), smoothed)
            smoothed = smoothed if indices is None else smoothed[as_rows(indices, data.n_obs)]
            clusters = pd.Categorical.from_codes(smoothed, clusters.categories)
        return pd.Series(clusters, index=cell_names(data, indices), name=keys.CLUSTERS_KEY)

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
    def estimate_n_clusters(
        self, representation: Representation = "aligned", seed: int = 0, modality: str | None = None
    ) -> NumberOfClusters:
        """Estimate the number of clusters, and the evidence for other numbers.

        The estimate is the largest number of Leiden communities at three low resolutions, in the nearest-neighbour
        graphs of the latent representation and of the smoothed features; 1 if at least half of the six numbers are 1.
        :func:`scrcl.pl.n_clusters` draws it.

        Parameters
        ----------
        %(representation)s
        %(seed)s
        %(cluster_modality)s

        Returns
        -------
        The estimate ``best``, the next best numbers ``runner_ups``, and ``curve``, a data frame of the evidence for each
        number: ``votes``, ``distance`` and ``agreement``, explained at :class:`~scrcl.NumberOfClusters`.

        Raises
        ------
        %(raises_untrained)s
        ValueError
            If an argument is out of range or unknown.

        Examples
        --------
        >>> estimate = model.estimate_n_clusters()
        >>> clusters = model.get_clusters(n_clusters=estimate.best)
        >>> list(estimate.curve.columns)
        ['votes', 'distance', 'agreement']
        """
        self._check_if_trained(warn=False)
        options = self._cluster_options(representation=representation, seed=seed, modality=modality)
        return self._results.n_clusters(options.view, options.seed)

    @documented
    def get_modality_weights(self, adata: Data | None = None, indices: Indices = None) -> pd.DataFrame:
        """Return the weight of each modality for each cell.

        The weight of a modality grows with how well the neighbours of the cell in it predict the cell in the others, and how
        well one half of its features predicts the other half. So noise, or a modality whose cells were shuffled, has hardly
        any weight. Of two modalities that contradict each other, the one with more structure has more weight: which of them
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
