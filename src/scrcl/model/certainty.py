"""What the model says of how sure the clusters of cells are. Wiring only."""

from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from scrcl.cluster.clustering import Clustering
from scrcl.cluster.confidence import ClusterConfidence
from scrcl.cluster.leiden import RESOLUTION
from scrcl.nn.inference import Representation, View
from scrcl.reference.modality import log_counts
from scrcl.utils.checks import as_rows, check_at_least, check_n_clusters, check_option

from .base import Data, Indices, cell_names
from .cells import named
from .modalities import ModalitiesMixin
from .results import Query

CertaintyMethod = Literal["consensus", "mixture"]
METHODS = get_args(CertaintyMethod)


class CertaintyMixin(ModalitiesMixin):
    """The methods of :class:`scrcl.SCRCL` that speak of certainty."""

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
        """Return how certainly cells belong to each cluster of the consensus.

        Parameters
        ----------
        adata, indices
            Cells to return, as in :meth:`get_latent_representation`. The result for a cell does not depend on the
            other cells passed, except in space.
        n_clusters, representation, seed, modality
            As in :meth:`get_clusters`.
        method
            ``"mixture"``: by a Bayesian mixture of heavy-tailed components that are tied to the clusters, see
            :meth:`get_cell_report`. It is learned at the first call, in seconds. ``"consensus"``: as often as the
            clusterings that the consensus reconciles put the cell together with the cells of a cluster, relative to all
            clusters; a new cell has the mean of its neighbours. This tells how far the clusters depend on the way of
            clustering, and hardly which cells are in a wrong one. With both, a cell between two types has shares in
            both, and may have the larger one in the other than it was put in.

        Returns
        -------
        Data frame ``(n_cells, n_clusters)``, float32, indexed by the names of the cells; the columns are the names of
        the clusters in :meth:`get_clusters`. Rows sum to 1.

        Raises
        ------
        RuntimeError
            If the model is not trained.
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
        view, data, query = self._placed(adata, indices, n_clusters, representation, seed, modality)
        clustering, probabilities = self._consensus(query, view, n_clusters, seed)
        if method == "mixture":
            certainty = self._results.certainty(view, n_clusters, seed)
            probabilities = certainty.probabilities(*self._asked(query, view, clustering, data, indices))
        columns = [str(number) for number in range(clustering.n_clusters)]
        return pd.DataFrame(probabilities, index=cell_names(data, indices), columns=columns)

    def get_cell_report(
        self,
        adata: Data | None = None,
        indices: Indices = None,
        n_clusters: int | None = None,
        representation: Representation = "aligned",
        seed: int = 0,
        modality: str | None = None,
    ) -> pd.DataFrame:
        """Return the cluster of each cell, how probable it is, which is next, and whether the cell is in none.

        A Bayesian mixture is learned of the cells that the model was built on: components with heavy tails, tied to the
        clusters, and a wide one for cells in no cluster. It is found once for each choice of arguments, and saved with the
        model. :func:`scrcl.pl.certainty` draws the report.

        Parameters
        ----------
        adata, indices, n_clusters, representation, seed, modality
            As in :meth:`get_cluster_probabilities`.

        Returns
        -------
        Data frame indexed by the names of the cells, with float32 numbers:

        - ``cluster``: as :meth:`get_clusters` returns it
        - ``probability``: probability of that cluster, as :meth:`get_cluster_probabilities` has it
        - ``runner_up``: the most probable of the other clusters
        - ``runner_up_probability``: its probability
        - ``outlier_score``: how far the cell is from all clusters and from its neighbours, in standard deviations of the cells
          of the model; in space, from all clusters
        - ``doublet_score``: how much the cell looks like two of different clusters at once, and has as many counts, in the
          same units; not in space, where a spot holds several cells

        Raises
        ------
        RuntimeError
            If the model is not trained.
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
        view, data, query = self._placed(adata, indices, n_clusters, representation, seed, modality)
        clustering = self._results.clustering(view, n_clusters, "consensus", RESOLUTION, seed)
        certainty = self._results.certainty(view, n_clusters, seed)
        asked = self._asked(query, view, clustering, data, indices)
        labels = asked[1]
        probabilities = certainty.probabilities(*asked)
        own = np.arange(len(labels)), labels
        others = probabilities.copy()
        others[own] = -1
        next_best = others.argmax(1) if clustering.n_clusters > 1 else np.full(len(labels), -1)
        report = {
            "cluster": named(labels, clustering.n_clusters),
            "probability": probabilities[own],
            "runner_up": named(next_best, clustering.n_clusters),
            "runner_up_probability": np.maximum(others.max(1), 0),
            "outlier_score": certainty.outlier_scores(*asked),
        }
        if self._reference.spatial is None:
            far = report["outlier_score"] + self._results.distances(query)[1]
            report["outlier_score"] = (far / np.sqrt(2)).astype(np.float32)
            rows = np.arange(data.n_obs) if indices is None else as_rows(indices, data.n_obs)
            counts = log_counts(self._reference.modalities, self._sources(data), rows)
            report["doublet_score"] = certainty.doublet_scores(asked[0], asked[2], counts)
        return pd.DataFrame(report, index=cell_names(data, indices))

    def _placed(
        self,
        adata: Data | None,
        indices: Indices,
        n_clusters: int | None,
        representation: Representation,
        seed: int,
        modality: str | None,
    ) -> tuple[View, Any, Query]:
        """The view, the data and the cells that were asked for, once the arguments are known to be right."""
        view = self._view(representation, modality)
        check_n_clusters(n_clusters, self._reference.n_cells)
        check_at_least(seed, 0, "seed")
        data = self._data(adata)
        return view, data, self._query(data, indices)

    def _asked(
        self, query: Query, view: View, clustering: Clustering, data: Any, indices: Indices
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray | None]:
        """What a mixture is asked of cells: their points, the clusters they were put in, and their batches."""
        labels = query.take(clustering.labels, lambda: clustering.assign(self._results.latent_of_new(query, view)))
        results, new = self._results, query.known < 0
        kinds = [known[query.known] for known in results.kinds(view)]
        if new.any():
            for points, of_new in zip(kinds, results.kinds(view, query), strict=True):
                points[new] = of_new
        return kinds, labels, self._batch_codes(data, indices)

    def _batch_codes(self, data: Any, indices: Indices) -> np.ndarray | None:
        """Number of the batch of each cell, -1 for one that the mixture does not know; ``None`` without batches."""
        names, known = self._batches(data), self._reference.batches
        if names is None or known is None:
            return None
        codes = known.codes_of(names if indices is None else names[as_rows(indices, data.n_obs)])
        return np.where(codes < known.n_reference, codes, -1)

    def _certainties_to_save(self) -> list[dict[str, Any]]:
        """The mixtures that were found with the weights as they are, plain."""
        return [
            {"view": list(view), "n_clusters": n_clusters, "seed": seed, **certainty.to_dict()}
            for (view, n_clusters, seed), certainty in self._results.certainties.items()
        ]

    def _take_certainties(self, saved: list[dict[str, Any]]) -> None:
        """The inverse."""
        for found in saved:
            representation, number = found["view"]
            choice = ((representation, number), found["n_clusters"], found["seed"])
            self._results.certainties[choice] = ClusterConfidence.from_dict(found)
