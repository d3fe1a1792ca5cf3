"""What the model says of cells: where they lie, which clusters they belong to, and how well they fit. Wiring only."""

from typing import Any

import numpy as np
import pandas as pd

from scrcl.cluster.clustering import Clustering
from scrcl.cluster.consensus import MIN_CLUSTER_CELLS
from scrcl.cluster.leiden import RESOLUTION
from scrcl.cluster.number import NumberOfClusters
from scrcl.graph.slices import majority
from scrcl.nn.inference import Representation, View
from scrcl.reference.mapping import check_level, warn_if_coarse
from scrcl.utils import keys
from scrcl.utils.checks import as_rows, check_at_least, check_n_clusters, check_option
from scrcl.utils.errors import ScrclValueError

from .base import Data, Indices, SCRCLBase, cell_names
from .results import METHODS, Method, Query
from .scvi_compat import check_deterministic


class CellsMixin(SCRCLBase):
    """The methods of :class:`scrcl.SCRCL` that speak of cells."""

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
        adata
            Data with the same genes, matched by name; need not be set up. By default the data of the model. A cell
            that the model was built on gets its own representation, wherever it stands. A new cell is placed among
            its nearest cells of those that the model was built on, so its result does not depend on the other cells
            passed. In space, a training cell is known by its position and counts, and a new cell is seen among its
            neighbours in space: all cells of its slice in ``adata``, whatever ``indices`` asks for. So pass whole slices.
            All cells of an object are read and placed once, and the placement is kept as long as the object exists and
            whatever is read of it (counts, names, batches, coordinates) has the same values, which is checked at each call.
            The object that the model was built on stands for the training cells, whatever became of its counts.
        indices
            Cells to return, by number or as a boolean mask; all by default.
        give_mean, mc_samples, return_dist, dataloader
            There as in :meth:`scvi.model.SCVI.get_latent_representation`. A cell has one representation and no
            distribution of them: ``give_mean=False``, ``return_dist=True`` and a ``dataloader`` are refused, and
            ``mc_samples`` has no effect.
        batch_size
            Number of new cells that pass the network at once, at most 16,384, which is the default. The result does not
            depend on it. Counts are read in blocks in any case.
        representation
            ``"aligned"``: the two aligned views, and the features by which neighbours are found, side by side.
            ``"refined"``: in place of the former, the two views refined by cell-gene associations.
        modality
            Modality whose own views to return. By default, of several modalities, each view is the mean over them,
            weighted as in :meth:`get_modality_weights`.

        Returns
        -------
        Array of shape ``(n_cells, 2 * n_hidden + s)`` or ``(n_cells, 2 * n_refined + s)``, float32, in the order asked
        for. Each view has rows of length 1, and the ``s`` features, by default 100, rows of length 0.5. Where batches are
        corrected, ``s`` is 0.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the data are not counts, lack genes that the model reads, or ``indices`` are out of range.

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

        Clusters are found among the cells that the model was built on. Other cells join the nearest.

        Parameters
        ----------
        adata, indices
            Cells to return, as in :meth:`get_latent_representation`.
        n_clusters
            Number of clusters; estimated as in :meth:`estimate_n_clusters` by default.
        method
            ``"consensus"``: what trees of small clusters, k-means, a Gaussian mixture, Ward's and average linkage find
            in the latent representation and in the smoothed features, reconciled by how often cells are together.
            ``"kmeans"``: k-means, the best of 20 k-means++ starts.
            ``"leiden"``: Leiden communities of the nearest-neighbour graph of the latent space; a given ``n_clusters``
            is sought by changing the resolution.
        resolution
            Resolution of ``method="leiden"`` where ``n_clusters`` is not given: more gives more clusters. 0.1 by default; refused
            where nothing would read it.
        representation
            Latent representation to cluster. The consensus of the aligned one, except in space, is read in the refined
            one as well.
        seed
            Seed of the clustering.
        modality
            Modality to cluster by: its own views, and its own features. By default all.
        n_majority
            In space, give each cell the label that most of it and its ``n_majority`` nearest cells in its slice have. The
            paper takes 50. 0 for no such smoothing.
        min_cells
            Cells of the smallest cluster of ``method="consensus"``, as far as the data allow it; the cells of smaller
            ones join those they are most like. A test of a cluster against the others needs two.

        Returns
        -------
        Categorical series indexed by the names of the cells, in the order asked for. Clusters are named ``"0"``,
        ``"1"``, … by decreasing size among the cells that the model was built on.

        Raises
        ------
        RuntimeError
            If the model is not trained.
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
        check_option(method, METHODS, "method")
        view = self._view(representation, modality)
        check_n_clusters(n_clusters, self._reference.n_cells)
        if resolution is None:
            resolution = RESOLUTION
        elif method != "leiden":
            raise ScrclValueError(
                f"resolution={resolution!r} is read by method='leiden' only, not by method={method!r}.",
                "Pass `method='leiden'`, or `n_clusters` for more or fewer clusters.",
            )
        elif n_clusters is not None:
            raise ScrclValueError(
                f"resolution={resolution!r} is not read beside n_clusters={n_clusters}, which method='leiden' finds by changing "
                "the resolution.",
                "Leave one of them out.",
            )
        check_at_least(resolution, 0.0, "resolution")
        check_at_least(seed, 0, "seed")
        check_at_least(n_majority, 0, "n_majority")
        check_at_least(min_cells, 1, "least_cells")
        spatial = self._reference.spatial
        if n_majority and spatial is None:
            raise ScrclValueError(
                f"n_majority={n_majority} requires coordinates.",
                "Name them: `SCRCL.setup_anndata(adata, spatial_key='spatial')`.",
            )
        data = self._data(adata)
        # Whom a cell is among is asked of all cells.
        query = self._query(data, None if n_majority else indices)
        clustering = self._results.clustering(view, n_clusters, method, float(resolution), seed, min_cells)
        labels = query.take(clustering.labels, lambda: clustering.assign(self._results.latent_of_new(query, view)))
        if n_majority and spatial is not None:
            own = majority(clustering.labels, spatial.slices, n_majority)[query.known]
            new = query.known < 0
            labels = np.where(new, majority(labels, self._slices(data), n_majority), own) if new.any() else own
            labels = labels if indices is None else labels[as_rows(indices, data.n_obs)]
        return pd.Series(named(labels, clustering.n_clusters), index=cell_names(data, indices), name=keys.CLUSTERS_KEY)

    def get_mapping_quality(
        self,
        adata: Data | None = None,
        indices: Indices = None,
        n_clusters: int | None = None,
        alpha: float = 0.05,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Return how well cells fit among those that the model was built on, and flag those unlike anything there.

        A cell of a type that the model has not seen is put into some cluster like any other. It is told by its
        distance from its neighbours, compared with the distances that the cells of the model with as much signal have
        from theirs. Types close to one that is there are not told: single cells of theirs fit as well.

        Parameters
        ----------
        adata, indices
            Cells to return, as in :meth:`get_latent_representation`. The result for a cell does not depend on the
            other cells.
        n_clusters, seed
            As in :meth:`get_clusters`.
        alpha
            Level of the test, from 0 to 1: about the share of cells flagged where none is new in kind. The smallest p-value is
            ``1 / (n + 1)`` with ``n`` cells in the model; a warning says where a smaller level can flag nothing.

        Returns
        -------
        Data frame indexed by the names of the cells:

        - ``known``: whether the model was built on this cell
        - ``cluster``: as :meth:`get_clusters` returns it
        - ``confidence``: how far the clusterings that the consensus reconciles agree on that cluster, as
          ``get_cluster_probabilities(method="consensus")`` has it
        - ``distance``: mean distance from the nearest cells of the model
        - ``excess``: by how many standard deviations the distance is above the mean of the cells of the model with
          as much signal
        - ``pvalue``: share of the cells of the model with at least this excess
        - ``outlier``: whether ``pvalue`` is at most ``alpha``

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If an argument is out of range, or the data do not fit the model.
        NotImplementedError
            In space: neighbours there share what was smoothed, so that cells of another slice would seem new.

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
                "get_mapping_quality compares single cells. In space, neighbours share what was smoothed, so that cells of "
                "another slice would seem new. Build a model without `spatial_key` for this."
            )
        check_level(alpha)
        check_n_clusters(n_clusters, self._reference.n_cells)
        check_at_least(seed, 0, "seed")
        data, view = self._data(adata), self._view("aligned", None)
        query = self._query(data, indices)
        distance, excess = self._results.distances(query)
        pvalue = self._reference.distance_scale.pvalues(excess)
        warn_if_coarse(alpha, self._reference.n_cells)
        clustering, probabilities = self._consensus(query, view, n_clusters, seed)
        labels = query.take(clustering.labels, lambda: clustering.assign(self._results.latent_of_new(query, view)))
        return pd.DataFrame(
            {
                "known": query.known >= 0,
                "cluster": named(labels, clustering.n_clusters),
                "confidence": probabilities[np.arange(len(labels)), labels],
                "distance": distance,
                "excess": excess,
                "pvalue": pvalue,
                "outlier": pvalue <= alpha,
            },
            index=cell_names(data, indices),
        )

    def estimate_n_clusters(
        self, representation: Representation = "aligned", seed: int = 0, modality: str | None = None
    ) -> NumberOfClusters:
        """Estimate the number of clusters, and tell what speaks for others.

        The estimate is the largest number of Leiden communities at three low resolutions, in the nearest-neighbour
        graphs of the latent representation and of the smoothed features; 1 where at least half of the six numbers are 1.
        :func:`scrcl.pl.n_clusters` draws it.

        Parameters
        ----------
        representation, seed, modality
            As in :meth:`get_clusters`.

        Returns
        -------
        The estimate ``best``, the numbers that are next to it ``runner_ups``, and ``curve``, a data frame of the
        evidence for each number: ``votes``, ``distance`` and ``agreement``, explained at
        :class:`~scrcl.NumberOfClusters`.

        Raises
        ------
        RuntimeError
            If the model is not trained.
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
        view = self._view(representation, modality)
        check_at_least(seed, 0, "seed")
        return self._results.n_clusters(view, seed)

    def _reported_clusters(self, n_clusters: int | None, seed: int) -> pd.Series:
        """The consensus of the cells of the reference, by name, once the arguments are known to be right."""
        check_n_clusters(n_clusters, self._reference.n_cells)
        check_at_least(seed, 0, "seed")
        found = self._results.clustering(("aligned", None), n_clusters, "consensus", RESOLUTION, seed)
        return pd.Series(named(found.labels, found.n_clusters))

    def _consensus(self, query: Query, view: View, n_clusters: int | None, seed: int) -> tuple[Clustering, np.ndarray]:
        """The consensus, and the probabilities ``(m, k)`` of cells."""
        found = self._results.clustering(view, n_clusters, "consensus", RESOLUTION, seed)
        assert found.probabilities is not None  # a consensus has them
        return found, query.take(
            found.probabilities, lambda: found.assign_probabilities(self._results.latent_of_new(query, view))
        )


def named(labels: np.ndarray, n_clusters: int) -> pd.Categorical:
    """Clusters ``(n,)`` by name."""
    names: Any = [str(number) for number in range(n_clusters)]
    return pd.Categorical.from_codes(labels, pd.Index(names))
