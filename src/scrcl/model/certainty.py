"""Cluster confidence: probabilities of clusters, outliers and doublets."""

from typing import Literal, get_args

import numpy as np
import pandas as pd

from scrcl.graph.placement import Query
from scrcl.nn.inference import Representation
from scrcl.reference.modality import log_counts
from scrcl.utils.checks import as_rows, check_option

from .base import Data, Indices, SCRCLBase, cell_names, named
from .docstrings import documented
from .options import ClusterOptions

CertaintyMethod = Literal["consensus", "mixture"]
METHODS = get_args(CertaintyMethod)


class CertaintyMixin(SCRCLBase):
    """Cluster confidence of :class:`scrcl.SCRCL`."""

    @documented
    def get_cluster_probabilities(
        self,
        adata: Data | None = None,
        indices: Indices = None,
        n_clusters: int | None = None,
        representation: Representation = "aligned",
        seed: int = 0,
        modality: str | None = None,
        method: CertaintyMethod = "mixture",
    ) -> pd.DataFrame:
        """Return the probability that cells belong to each cluster of the consensus.

        Parameters
        ----------
        %(cells)s
        %(n_clusters)s
        %(representation)s
        %(seed)s
        %(cluster_modality)s
        method
            ``"mixture"``: by a Bayesian mixture of heavy-tailed components, one or more for each cluster, see
            :meth:`get_cell_report`. It is learned at the first call, in seconds. ``"consensus"``: how often the clusterings
            of the consensus put the cell together with the cells of a cluster, relative to all clusters; a new cell has the
            mean of its neighbours. This measures how far the clusters depend on the clustering method, and is a poor guide to
            misplaced cells. With both, a cell between two types has shares in both, and its cluster may have the smaller.

        Returns
        -------
        Data frame ``(n_cells, n_clusters)``, float32, indexed by the names of the cells; the columns are the names of
        the clusters in :meth:`get_clusters`. Rows sum to 1.

        Raises
        ------
        %(raises_untrained)s
        ValueError
            If ``n_clusters`` is below 2 or above the number of cells, or an argument is out of range or unknown.

        Examples
        --------
        >>> probabilities = model.get_cluster_probabilities(n_clusters=5)
        >>> probabilities.shape
        (600, 5)
        >>> uncertain = adata.obs_names[probabilities.max(axis=1) < 0.9]
        """
        self._check_if_trained(warn=False)
        check_option(method, METHODS, "method")
        options, data, query = self._clustered(adata, indices, n_clusters, representation, seed, modality)
        if method == "consensus":
            probabilities = self._results.agreement(query, options)
        else:
            certainty = self._results.certainty(options)
            probabilities = certainty.probabilities(*self._mixture_input(query, options, data, indices))
        columns = [str(number) for number in range(probabilities.shape[1])]
        return pd.DataFrame(probabilities, index=cell_names(data, indices), columns=columns)

    @documented
    def get_cell_report(
        self,
        adata: Data | None = None,
        indices: Indices = None,
        n_clusters: int | None = None,
        representation: Representation = "aligned",
        seed: int = 0,
        modality: str | None = None,
    ) -> pd.DataFrame:
        """Return the cluster of each cell, its probability, the second most probable cluster, and scores of outliers and doublets.

        A Bayesian mixture is learned from the cells that the model was built on: heavy-tailed components, one or more for
        each cluster, and a wide one for cells in no cluster. It is learned once for each choice of arguments, and saved with
        the model. :func:`scrcl.pl.certainty` draws the report. The result for a cell does not depend on the other cells
        passed, except in space.

        Parameters
        ----------
        %(cells)s
        %(n_clusters)s
        %(representation)s
        %(seed)s
        %(cluster_modality)s

        Returns
        -------
        Data frame indexed by the names of the cells, with float32 numbers:

        - ``cluster``: as in :meth:`get_clusters`
        - ``probability``: probability of that cluster, as in :meth:`get_cluster_probabilities`
        - ``runner_up``: the most probable of the other clusters
        - ``runner_up_probability``: its probability
        - ``outlier_score``: how far the cell is from all clusters and from its neighbours, in standard deviations of the cells
          of the model; in space, from all clusters
        - ``doublet_score``: similarity to two cells of different clusters at once, also in the number of counts, in the
          same units; not in space, where a spot holds several cells

        Raises
        ------
        %(raises_untrained)s
        ValueError
            If ``n_clusters`` is below 2 or above the number of cells, or an argument is out of range or unknown.

        Examples
        --------
        >>> report = model.get_cell_report()
        >>> between = report.index[report["runner_up_probability"] > 0.1]
        >>> list(report.columns)[:3]
        ['cluster', 'probability', 'runner_up']
        """
        self._check_if_trained(warn=False)
        options, data, query = self._clustered(adata, indices, n_clusters, representation, seed, modality)
        n_found, certainty = self._results.clustering(options).n_clusters, self._results.certainty(options)
        mixture_input = self._mixture_input(query, options, data, indices)
        points, labels, batches = mixture_input
        probabilities = certainty.probabilities(*mixture_input)
        own = np.arange(len(labels)), labels
        others = probabilities.copy()
        others[own] = -1
        runner_up = others.argmax(1) if n_found > 1 else np.full(len(labels), -1)
        outlier_scores = certainty.outlier_scores(*mixture_input)
        if self._reference.spatial is None:
            excess = self._results.distances(query)[1]
            outlier_scores = ((outlier_scores + excess) / np.sqrt(2)).astype(np.float32)
        report = pd.DataFrame(
            {
                "cluster": named(labels, n_found),
                "probability": probabilities[own],
                "runner_up": named(runner_up, n_found),
                "runner_up_probability": np.maximum(others.max(1), 0),
                "outlier_score": outlier_scores,
            },
            index=cell_names(data, indices),
        )
        if self._reference.spatial is None:
            rows = np.arange(data.n_obs) if indices is None else as_rows(indices, data.n_obs)
            counts = log_counts(self._reference.modalities, self._sources(data), rows)
            report["doublet_score"] = certainty.doublet_scores(points, batches, counts)
        return report

    def _clustered(
        self,
        adata: Data | None,
        indices: Indices,
        n_clusters: int | None,
        representation: Representation,
        seed: int,
        modality: str | None,
    ) -> tuple[ClusterOptions, Data, Query]:
        """The clusters, the data and the cells that are asked for, refused if an argument is out of range."""
        options = self._cluster_options(
            n_clusters=n_clusters, seed=seed, representation=representation, modality=modality
        )
        data = self._data(adata)
        return options, data, self._query(data, indices)

    def _mixture_input(
        self, query: Query, options: ClusterOptions, data: Data, indices: Indices
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray | None]:
        """Points, clusters and batches of cells, as the mixture reads them."""
        labels = self._results.labels(query, options)
        return self._results.mixture_points(options.view, query), labels, self._batch_codes(data, indices)

    def _batch_codes(self, data: Data, indices: Indices) -> np.ndarray | None:
        """Number ``(m,)`` of the batch of each cell, -1 for one that the mixture does not know; ``None`` without batches."""
        names, batches = self._batches(data), self._reference.batches
        if names is None or batches is None:
            return None
        codes = batches.codes_of(names if indices is None else names[as_rows(indices, data.n_obs)])
        return np.where(codes < batches.n_reference, codes, -1)
