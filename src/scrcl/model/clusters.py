"""Clusters: the clusters of cells, the tree of clusters with the evidence for each split, and the number of clusters."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scrcl.cluster.cluster_tree import ClusterTree
from scrcl.cluster.consensus import MIN_CLUSTER_CELLS
from scrcl.cluster.null import split_pvalue
from scrcl.cluster.number import NumberOfClusters
from scrcl.cluster.split_evidence import GroupedExpression, split_distance
from scrcl.graph.slices import majority
from scrcl.nn.inference import Representation
from scrcl.reference.modality import joint_names
from scrcl.utils import keys
from scrcl.utils.checks import as_rows, check_at_least, check_option
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.progress import begin, track

from .base import Data, Indices, SCRCLBase, cell_names
from .docstrings import documented
from .expression import chosen_modalities
from .options import ClusterOptions, Method

#: Genes named on each side of a split.
N_NAMED_GENES = 5
#: P-value of a split above which the splits below it are not tested.
MAX_PVALUE = 0.05
#: Columns of the evidence that is computed from counts.
EVIDENCE = [
    "distance",
    "n_genes_left",
    "n_genes_right",
    "genes_left",
    "genes_right",
    "pvalue",
    "stability",
]


class ClustersMixin(SCRCLBase):
    """Clusters of :class:`scrcl.SCRCL`."""

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

        Clusters are found among the cells that the model was built on. New cells join the nearest cluster. By default, they
        are the sides of the supported splits of :meth:`get_cluster_tree`; in space, the consensus with the number of clusters of
        :meth:`estimate_n_clusters`, over views of a cell and its surroundings.

        Parameters
        ----------
        %(cells)s
        %(n_clusters)s
        method
            ``"consensus"``: the tree of clusters or, for a given ``n_clusters``, a consensus of trees of small clusters, k-means, a Gaussian mixture, Ward's and average linkage
            in the latent representation and in the smoothed features, by how often they put cells together. In space, also in the
            features, and in the mean and gradient of the surroundings.
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
    def get_cluster_tree(
        self,
        representation: Representation = "aligned",
        seed: int = 0,
        modality: str | None = None,
        evidence: bool = True,
    ) -> ClusterTree:
        """Return nested clusters, and the evidence that each split divides two populations.

        The default clusters are the sides of the supported splits: few edges of the cell graph cross them. The other
        evidence explains a split, and lets you move the line: :meth:`~scrcl.ClusterTree.cut`. No label is read.

        Parameters
        ----------
        %(representation)s
        %(seed)s
        %(cluster_modality)s
        evidence
            Whether to compare both sides of each split: genes, distance, p-value and stability, of at most 5,000 cells. This
            takes about as long as training, and needs the counts of the training cells. Without it there is the
            connectivity alone.

        Returns
        -------
        The tree, with at most 40 leaves of at least 10 cells. ``tree.splits`` has the evidence, and ``tree.cut()`` the
        clusters; :func:`scrcl.pl.cluster_tree` draws it.

        Raises
        ------
        %(raises_untrained)s
        ValueError
            If an argument is out of range or unknown, or the counts of the training cells are not at hand.

        Notes
        -----
        With batches, genes, distances and p-values compare cells of the same batch, so that a batch is no type. In space, a
        split is supported if there is a border in the tissue, see :meth:`get_domain_borders`.

        Examples
        --------
        >>> tree = model.get_cluster_tree()
        >>> table = tree.splits[["left", "right", "connectivity", "genes_left", "genes_right", "supported"]]
        >>> adata.obs["scrcl"] = tree.cut()
        """
        self._check_if_trained(warn=False)
        options = self._cluster_options(representation=representation, seed=seed, modality=modality)
        names = self._reference.cell_names
        if names is None:  # a model of version 0.2
            names = pd.RangeIndex(self._reference.n_cells).astype(str)
        nested = self._results.tree(options.view, seed)
        if not evidence:
            return ClusterTree(nested, names, pd.DataFrame(index=range(nested.n_leaves - 1), columns=EVIDENCE))
        compared = self._results.evidence(options.view, seed, lambda: self._compare_sides(options, modality))
        return ClusterTree(nested, names, compared)

    def _compare_sides(self, options: ClusterOptions, modality: str | None) -> pd.DataFrame:
        """The evidence for each split of a tree that needs the counts."""
        results, reference = self._results, self._reference
        nested = results.tree(options.view, options.seed)
        cells = results.clustered_cells(options.view, options.seed)
        rows = self._training_rows(cells)
        chosen = chosen_modalities(self, modality, counted=True)
        sources = {name: source for name, source in self._sources(self._data(None)).items() if name in chosen}
        genes = joint_names({name: source.names for name, source in sources.items()})
        order = np.argsort(rows)  # counts are read in the order of the file
        back = np.argsort(order)
        counts = [source.counts.read(rows[order])[back] for source in sources.values() if source.counts is not None]
        logarithms = [
            sp.vstack([block for _, block in reference.modalities[name].logarithms(source, rows[order])], format="csr")
            for name, source in sources.items()
        ]
        expression = sp.csr_array(sp.hstack(logarithms, format="csr"))[back]
        spaces = reference.linkage_features(options.view[1], cells)
        batches = None if reference.batch_codes is None else reference.batch_codes[cells]
        leaves = nested.leaves.labels[cells]
        grouped = GroupedExpression.build(expression, leaves, batches)
        begin("evidence")
        table = []
        tested = np.ones(len(nested.sizes), dtype=bool)  # nodes above which no split may be of one population
        for split, sides in track(list(enumerate(nested.sides))[::-1], nested.n_leaves - 1):
            inside = np.flatnonzero(nested.below[nested.n_leaves + split][leaves])
            side = nested.below[sides[0]][leaves[inside]]
            strata = None if batches is None else batches[inside]
            up = grouped.compare(*nested.below[sides])
            left, right = up.top(N_NAMED_GENES)
            pvalue = np.nan
            if tested[nested.n_leaves + split]:
                parts = [split_pvalue(part, side, cells=inside, batches=strata, seed=options.seed) for part in counts]
                pvalue = min(1.0, min(parts) * len(parts))
            tested[sides] = pvalue < MAX_PVALUE
            table.append(
                {
                    "distance": split_distance([space[inside] for space in spaces], side, strata),
                    "n_genes_left": up.n_up[0],
                    "n_genes_right": up.n_up[1],
                    "genes_left": ", ".join(genes[left]),
                    "genes_right": ", ".join(genes[right]),
                    "pvalue": pvalue,
                }
            )
        return pd.DataFrame(table[::-1], columns=EVIDENCE).assign(
            stability=results.stability(options.view, options.seed)
        )

    def _training_rows(self, cells: np.ndarray) -> np.ndarray:
        """Rows of the model's data of some cells that it was built on."""
        index = np.empty(0, dtype=np.int64) if self.adata is None else self._query(self.adata, None).reference_index
        rows = np.full(self._reference.n_cells, -1)
        rows[index[index >= 0]] = np.flatnonzero(index >= 0)
        if (rows[cells] < 0).any():
            raise ScrclValueError(
                "The evidence for the splits requires the counts of the training cells, which are not saved with the model.",
                "Load it with these cells: `SCRCL.load(dir_path, adata=training_data)`, or pass `evidence=False`.",
            )
        return rows[cells]

    def get_subclusters(self, cluster: str, n_clusters: int | None = None, seed: int = 0) -> pd.Series:
        """Cluster the cells of one cluster anew, by genes that vary within it.

        A model of the same parameters is trained on the cells of the cluster alone; it chooses genes and graphs for them.

        Parameters
        ----------
        cluster
            Name of a cluster of :meth:`get_clusters`.
        n_clusters
            Number of clusters to divide it into; by default as many as the evidence supports, which may be one.
        seed
            Seed of the clustering, and of the clusters that are divided.

        Returns
        -------
        Categorical series of the cells of the cluster. Of cluster ``"3"``, the names are ``"3.0"``, ``"3.1"``, … by decreasing
        size; ``"3"`` if it is not divided.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If there is no such cluster, the counts of the training cells are not at hand, or the cluster has too few cells for a
            cell graph.
        NotImplementedError
            In space, where cells are encoded among their neighbours, also cells of other domains.

        Examples
        --------
        >>> subclusters = model.get_subclusters("0")
        >>> adata.obs["fine"] = adata.obs["scrcl"].astype(str)
        >>> adata.obs.loc[subclusters.index, "fine"] = subclusters.astype(str)
        """
        self._check_if_trained(warn=False)
        if self._reference.spatial is not None:
            raise NotImplementedError(
                "get_subclusters needs cells without coordinates. Call it on a model without `spatial_key`."
            )
        options = self._cluster_options(seed=seed)
        clustering = self._results.clustering(options)
        names = [str(number) for number in range(clustering.n_clusters)]
        check_option(cluster, names, "cluster")
        rows = np.sort(self._training_rows(np.flatnonzero(clustering.labels == int(cluster))))
        part = self._data(None)[rows]
        cells = part.to_memory() if isinstance(part, AnnData) else part.copy()
        without = ("labels_key", "unlabeled_category")
        setup = {name: value for name, value in self.registry["setup_args"].items() if name not in without}
        getattr(type(self), self.registry["setup_method_name"])(cells, **setup)
        parameters = self.init_params_["non_kwargs"] | {"gene_network": None}
        model = type(self)(cells, **parameters)
        model.train()
        found = model.get_clusters(n_clusters=n_clusters, seed=seed)
        if found.nunique() == 1:
            return found.cat.rename_categories({"0": cluster})
        return found.cat.rename_categories(lambda name: f"{cluster}.{name}")

    @documented
    def estimate_n_clusters(
        self, representation: Representation = "aligned", seed: int = 0, modality: str | None = None
    ) -> NumberOfClusters:
        """Return the number of clusters that is supported, and the evidence for other numbers.

        It is that of the supported splits of :meth:`get_cluster_tree`, which has the evidence for each split. In space, it is
        the median number of Leiden communities over the views of a cell and its surroundings.
        :func:`scrcl.pl.n_clusters` draws it.

        Parameters
        ----------
        %(representation)s
        %(seed)s
        %(cluster_modality)s

        Returns
        -------
        The number ``best``, the next best numbers ``runner_ups``, and ``curve``, a data frame of the evidence for each
        number: ``connectivity``, ``distance`` and ``agreement``, explained at :class:`~scrcl.NumberOfClusters`.

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
        ['connectivity', 'distance', 'agreement']
        """
        self._check_if_trained(warn=False)
        options = self._cluster_options(representation=representation, seed=seed, modality=modality)
        return self._results.n_clusters(options.view, options.seed)
