"""Results of the current weights of a network, over plain arrays, each computed once."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from sklearn.preprocessing import normalize

from scrcl.cluster.borders import NestedDomains
from scrcl.cluster.clustering import Clustering
from scrcl.cluster.confidence import ClusterConfidence, JointComponents
from scrcl.cluster.consensus import (
    CLUSTERED_CELLS,
    KMEANS_STARTS,
    N_GROUPS,
    POOLED_STARTS,
    Ensemble,
    check_leaves,
    clustered_cells,
    leading_components,
    warn_if_undetermined,
)
from scrcl.cluster.kmeans import kmeans
from scrcl.cluster.leiden import leiden, leiden_with
from scrcl.cluster.number import NumberOfClusters, choose_number, count_votes, estimate_number
from scrcl.cluster.stability import SUBSAMPLE_GROUPS, split_stability
from scrcl.cluster.tree import NestedClusters
from scrcl.cluster.trees import N_REPEATS, N_TREE_REPEATS, enough_for
from scrcl.genes.associations import GeneMap
from scrcl.graph.placement import Placement, Query
from scrcl.labels.annotation import Annotation, annotate
from scrcl.nn.inference import Encoded, Encoder, View, hidden_units
from scrcl.nn.mixture import fit_mixture
from scrcl.nn.module import SCRCLModule
from scrcl.reference.reference import Reference
from scrcl.utils.memory import release
from scrcl.utils.progress import begin
from scrcl.utils.threads import threads

from .options import ALIGNED, REFINED, AssociationMethod, ClusterOptions


class _ByPlacement(WeakKeyDictionary[Placement, Encoded]):
    """New cells of placements, encoded; kept as long as the placements are, and left out when pickled."""

    def __reduce__(self) -> tuple:
        return type(self), ()


@dataclass
class _Cache:
    """What has been computed of the cells of the reference.

    Attributes
    ----------
    encoded
        Their representations.
    gene_maps
        Positions of the genes among them, by method.
    certainties
        Probabilities of the clusters of the consensus.
    clusterings
        Their clusters.
    ensembles
        Clusterings of which the consensus is cut, by view, seed, number of divisions and number of clusters.
    trees, evidence
        Trees of clusters, and the evidence for their splits, by view and seed.
    pooled
        In space, principal components of the views of which domains are found, by view and seed.
    """

    encoded: Encoded = field(default_factory=Encoded)
    gene_maps: dict[AssociationMethod, GeneMap] = field(default_factory=dict)
    certainties: dict[ClusterOptions, ClusterConfidence] = field(default_factory=dict)
    clusterings: dict[ClusterOptions, Clustering] = field(default_factory=dict)
    ensembles: dict[tuple[View, int, int, int], Ensemble] = field(default_factory=dict)
    trees: dict[tuple[View, int], NestedClusters] = field(default_factory=dict)
    evidence: dict[tuple[View, int], pd.DataFrame] = field(default_factory=dict)
    pooled: dict[tuple[View, int], list[np.ndarray]] = field(default_factory=dict)


class Results:
    """Results of a network for the cells of a reference, and for others.

    Parameters
    ----------
    module
        The network. Results are valid as long as its weights do not change.
    reference
        The cells, variables and graphs.
    """

    def __init__(self, module: SCRCLModule, reference: Reference) -> None:
        self.module, self.reference = module, reference
        self._weights_version = module.weights_version
        self._encoder = Encoder(
            module,
            reference.features,
            reference.propagation,
            reference.weights,
            reference.adjacency,
            reference.complete,
        )
        self._cache, self._new = _Cache(), _ByPlacement()

    def are_of(self, module: SCRCLModule) -> bool:
        """Whether these are the results of a network with the weights that it has now."""
        return module is self.module and module.weights_version == self._weights_version

    def moved(self, module: SCRCLModule, reference: Reference) -> "Results":
        """The same results for a copy of the network, and for a reference with the same cells."""
        moved = Results(module, reference)
        moved._cache = _Cache(**{part.name: copy(getattr(self._cache, part.name)) for part in fields(_Cache)})
        return moved

    def to_dict(self) -> dict[str, Any]:
        """What is saved of the results: gene maps, and probabilities of clusters."""
        return {
            "gene_maps_": {method: gene_map.to_dict() for method, gene_map in self._cache.gene_maps.items()},
            "certainties_": [
                {"view": list(options.view), "n_clusters": options.n_clusters, "seed": options.seed, **found.to_dict()}
                for options, found in self._cache.certainties.items()
            ],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """The inverse of :meth:`to_dict`."""
        for method, state in saved["gene_maps_"].items():
            self._cache.gene_maps[method] = GeneMap(**state)
        for state in saved["certainties_"]:
            representation, modality = state["view"]
            options = ClusterOptions((representation, modality), state["n_clusters"], state["seed"])
            self._cache.certainties[options] = ClusterConfidence.from_dict(state)

    # ------------------------------------------------------------------ cells

    def latent(self, view: View) -> np.ndarray:
        """A representation ``(n, ·)`` of the cells of the reference."""
        kept = self._cache.encoded
        if view not in kept.views:
            begin("inference")
            release()  # before the largest arrays
            _keep(kept, self._encoder.reference(view[0]))
        return kept.views[view]

    def _latent_of(self, view: View, cells: np.ndarray) -> np.ndarray:
        """The same of some cells, encoded alone if the others are not needed yet."""
        if view in self._cache.encoded.views or len(cells) == self.reference.n_cells:
            return self.latent(view)[cells]
        return self._encoder.reference(view[0], cells).views[view]

    def latent_of_new(self, query: Query, view: View, chunk: int | None = None) -> np.ndarray:
        """A representation ``(m', ·)`` of the new cells, ``chunk`` of which pass the network at once."""
        return self._encoded(query.placement, view, chunk).views[view][query.new]

    def latent_of(self, query: Query, view: View, chunk: int | None = None) -> np.ndarray:
        """A representation ``(m, ·)`` of cells."""
        return query.combine(self.latent(view), lambda: self.latent_of_new(query, view, chunk))

    def _encoded(self, placement: Placement, view: View, chunk: int | None = None) -> Encoded:
        """All new cells of a placement, with a representation."""
        kept = self._new.setdefault(placement, Encoded())
        if view not in kept.views:
            _keep(kept, self._encoder(placement, view[0], chunk))
        return kept

    def network(self, view: View, latent: np.ndarray) -> np.ndarray:
        """The columns ``(m, 2 h)`` or ``(m, 2 c)`` of a representation ``(m, ·)`` that the network computes."""
        to_genes, gene_encoder = self.module.to_genes, self.module.gene_encoder
        size = gene_encoder.convolution.out_features if view[0] == "refined" else to_genes.in_features
        return latent[:, : 2 * size]

    def hidden(self, query: Query) -> np.ndarray:
        """Hidden units ``(m, h)`` that the map of the network to the genes reads, the mean over branches."""
        return query.combine(
            self._hidden, lambda: self._hidden_units(self._encoded(query.placement, ALIGNED))[query.new]
        )

    @cached_property
    def _hidden(self) -> np.ndarray:
        self.latent(ALIGNED)
        return self._hidden_units(self._cache.encoded)

    def _hidden_units(self, encoded: Encoded) -> np.ndarray:
        return hidden_units(encoded, self.reference.mean_weights, self.module.to_genes.in_features)

    # -------------------------------------------------------------- distances

    def distances(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        """Mean distance ``(m,)`` of cells from their nearest cells of the reference, and its excess; not in space.

        The excess ``(m,)`` is the number of standard deviations above the mean of the cells of the reference with as much
        signal.
        """
        reference, placement = self.reference, query.placement
        distances = query.combine(reference.distances, lambda: _distances(placement)[query.new])
        signal = reference.signal(query.combine(reference.features, lambda: placement.features[query.new]))
        return distances, reference.distance_scale(signal, distances)

    # ------------------------------------------------------------------ types

    @cached_property
    def annotation(self) -> Annotation:
        """Types learned from the labels of the reference; these were trained with, so features alone check them."""
        reference = self.reference
        assert reference.labels is not None
        begin("labels")
        points = np.concatenate([self.latent(ALIGNED), self.type_features], 1)
        return annotate(points, self.type_features, reference.labels, batches=reference.batch_codes)

    def type_probabilities(self, query: Query) -> np.ndarray:
        """Probability ``(m, t)`` of each type."""
        return query.combine(
            self.annotation.probabilities,
            lambda: self.annotation.assign(
                np.hstack([self.latent_of_new(query, ALIGNED), self.type_features_of_new(query)])
            ),
        )

    @cached_property
    def type_features(self) -> np.ndarray:
        """Features ``(n, d)`` of the cells of the reference that no label influenced."""
        return self.reference.features if self.reference.spatial is not None else self.reference.smoothed()

    def type_features_of_new(self, query: Query) -> np.ndarray:
        """The same features ``(m', d)`` of new cells."""
        return self.reference.smoothed_query(query.placement)[query.new]

    # ------------------------------------------------------------------ genes

    @property
    def has_gene_maps(self) -> bool:
        """Whether the positions of the genes among the cells are known."""
        return bool(self._cache.gene_maps)

    def fit_gene_maps(self, rows: np.ndarray, expression: sp.csr_array) -> None:
        """Find the positions of the genes among the cells, from the expression ``(n, G)`` of the cells in ``rows`` ``(n,)``."""
        self._cache.gene_maps["regression"] = GeneMap.fit(self.latent(REFINED)[rows], expression)
        self._cache.gene_maps["network"] = self._network_map(rows, expression)

    def gene_map(self, method: AssociationMethod) -> GeneMap:
        """Positions of the genes among the cells, which have been found or restored."""
        return self._cache.gene_maps[method]

    @torch.inference_mode()
    def _network_map(self, rows: np.ndarray, expression: sp.csr_array) -> GeneMap:
        """The map of the network to the genes as :meth:`GeneMap.nearest` finds it."""
        embedding = self.module.gene_encoder(self.module.gene_profiles)
        to_genes = self.module.to_genes
        parts = (to_genes.weight.T @ embedding, to_genes.bias @ embedding, embedding)
        return GeneMap.nearest(self._hidden[rows], expression, *(part.cpu().numpy() for part in parts))

    # --------------------------------------------------------------- clusters

    def clustering(self, options: ClusterOptions) -> Clustering:
        """Clusters of the cells of the reference."""
        clusterings = self._cache.clusterings
        if options not in clusterings:
            begin("clustering")
            with threads(self.latent(options.view).size):
                clusterings[options] = self._cluster(options)
        return clusterings[options]

    def _cluster(self, options: ClusterOptions) -> Clustering:
        view, n_clusters, seed = options.view, options.n_clusters, options.seed
        points = self.latent(view)
        if options.method == "leiden":
            if n_clusters is None:
                return leiden(points, options.resolution, seed)
            return leiden_with(points, n_clusters, seed)
        if n_clusters is None and self.reference.spatial is not None:
            n_clusters = choose_number(count_votes(self._pooled(view, seed), seed))
        elif n_clusters is None:
            tree = self.tree(view, seed)
            clusters = tree.cut(tree.made(tree.supported(options.min_cells)))
            if options.method == "consensus":
                return clusters
            n_clusters = clusters.n_clusters
        if options.method == "kmeans":
            return kmeans(points, n_clusters, seed)
        check_leaves(n_clusters, min(self.reference.n_cells, CLUSTERED_CELLS))
        found, agreement = self._ensemble(view, seed, n_clusters).cut(n_clusters, options.min_cells)
        warn_if_undetermined(n_clusters, agreement, "clusters" if self.reference.spatial is None else "domains")
        return found

    def labels(self, query: Query, options: ClusterOptions) -> np.ndarray:
        """Number ``(m,)`` of the cluster of each cell."""
        clustering = self.clustering(options)
        return query.combine(clustering.labels, lambda: clustering.assign(self.latent_of_new(query, options.view)))

    def agreement(self, query: Query, options: ClusterOptions) -> np.ndarray:
        """How often the clusterings of the consensus put each cell together with the cells of each cluster, ``(m, k)``."""
        clustering = self.clustering(options)
        assert clustering.probabilities is not None  # a consensus has them
        return query.combine(
            clustering.probabilities,
            lambda: clustering.assign_probabilities(self.latent_of_new(query, options.view)),
        )

    # -------------------------------------------------------------- certainty

    def certainty(self, options: ClusterOptions) -> ClusterConfidence:
        """Probabilities of the clusters of the consensus, at the level of the agreement of the trees with it."""
        certainties = self._cache.certainties
        if options not in certainties:
            view, seed, clustering = options.view, options.seed, self.clustering(options)
            ensemble = self._ensemble(
                view, seed, clustering.n_clusters if self.reference.spatial else options.n_clusters or 0
            )
            level = ensemble.agreement_with(clustering.labels[ensemble.cells], clustering.n_clusters)
            begin("certainty")
            points = self.mixture_points(view)
            components = JointComponents.fit(points)
            batches = self.reference.batch_codes
            with threads(self.latent(view).size):
                mixture = fit_mixture(components(points), clustering.labels, batches, seed, components.kinds)
            certainties[options] = ClusterConfidence.fit(components, mixture, points, clustering.labels, level, batches)
        return certainties[options]

    def mixture_points(self, view: View, query: Query | None = None) -> list[np.ndarray]:
        """Points of the mixture: the embedding by the network, and features for the neighbour search at unit length.

        Of the cells of the reference, or of a query.
        """
        reference = self.reference
        points = [
            np.ascontiguousarray(self.network(view, self.latent(view))),
            normalize(reference.known_neighbor_features(view[1])),
        ]
        if query is None:
            return points
        new_points: Sequence[Callable[[], np.ndarray]] = (
            lambda: self.network(view, self.latent_of_new(query, view)),
            lambda: normalize(reference.query_neighbor_features(query.placement, view[1])[query.new]),
        )
        return [query.combine(known, new) for known, new in zip(points, new_points, strict=True)]

    # ------------------------------------------------------- tree of clusters

    def tree(self, view: View, seed: int) -> NestedClusters:
        """Nested clusters of the cells of the reference."""
        trees = self._cache.trees
        if (view, seed) not in trees:
            begin("clustering")
            with threads(self.latent(view).size):
                reference, ensemble = self.reference, self._ensemble(view, seed)
                if reference.spatial is None:
                    features = reference.known_neighbor_features(view[1])
                    found = NestedClusters.build(*ensemble.leaves(KMEANS_STARTS), reference.adjacency, features)
                else:  # there are many spaces, each of which needs fewer starts
                    slices, features = reference.spatial.slices, reference.unsmoothed(view[1])
                    found = NestedDomains.in_space(
                        *ensemble.leaves(POOLED_STARTS), reference.adjacency, slices, features
                    )
                trees[view, seed] = found
        return trees[view, seed]

    def evidence(self, view: View, seed: int, compare: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The evidence for the splits of the tree, compared once."""
        evidence = self._cache.evidence
        if (view, seed) not in evidence:
            evidence[view, seed] = compare()
        return evidence[view, seed]

    def clustered_cells(self, view: View, seed: int) -> np.ndarray:
        """Numbers ``(m,)`` of the cells of which the tree was built, increasing."""
        return self._ensemble(view, seed).cells

    def stability(self, view: View, seed: int) -> np.ndarray:
        """Stability ``(L - 1,)`` of the splits of the tree."""
        ensemble, graph = self._ensemble(view, seed), self.reference.adjacency
        features = self.reference.linkage_features(view[1], ensemble.cells)

        def rebuild(rows: np.ndarray, seed: int) -> NestedClusters:
            cells = ensemble.cells[rows]
            in_space = self.reference.spatial is not None
            part = ensemble.subsampled(rows, features, seed, in_space, SUBSAMPLE_GROUPS)
            return NestedClusters.build(*part.leaves(n_starts=1), graph[cells][:, cells])

        with threads(self.latent(view).size):
            return split_stability(self.tree(view, seed), ensemble.cells, rebuild, seed)

    def n_clusters(self, view: View, seed: int) -> NumberOfClusters:
        """The number of clusters that the tree supports, with its evidence."""
        votes = None if self.reference.spatial is None else count_votes(self._pooled(view, seed), seed)
        return estimate_number(self.tree(view, seed), lambda: self._ensemble(view, seed), votes)

    def _pooled(self, view: View, seed: int) -> list[np.ndarray]:
        """Principal components ``(m, p)`` of the views of the clustered cells of which domains are found; none without space."""
        pooled = self._cache.pooled
        if self.reference.spatial is None:
            return []
        if (view, seed) not in pooled:
            cells = clustered_cells(self.reference.n_cells, seed)
            spaces = [self.latent(view)[cells], *self.reference.domain_spaces(view[1], cells)]
            pooled[view, seed] = [leading_components(space) for space in spaces]
        return pooled[view, seed]

    def _ensemble(self, view: View, seed: int, n_clusters: int = 0) -> Ensemble:
        """Clusterings of which a consensus with a given number of clusters is cut, or else the tree is built."""
        n_repeats = N_REPEATS if n_clusters else N_TREE_REPEATS
        choice = (view, seed, n_repeats, enough_for(n_clusters, self.reference.n_cells))
        if choice not in self._cache.ensembles:
            cells = clustered_cells(self.reference.n_cells, seed)
            features = self.reference.linkage_features(view[1], cells)
            euclidean = self.reference.spatial is not None
            self._cache.ensembles[choice] = Ensemble.build(
                self.latent(view),
                cells,
                self.spaces(view, cells),
                features,
                *choice[1:],
                euclidean,
                self._pooled(view, seed),
                max_groups=0 if n_clusters else N_GROUPS,
            )
        return self._cache.ensembles[choice]

    def spaces(self, view: View, cells: np.ndarray) -> list[np.ndarray]:
        """The spaces ``(m, ·)`` in which some cells are clustered; with the aligned representation the refined one, not in space."""
        spaces = [self.latent(view)[cells], self.reference.smoothed(view[1], cells)]
        if view[0] == "aligned" and self.reference.spatial is None:
            spaces.append(self._latent_of(("refined", view[1]), cells))
        return spaces


def _keep(kept: Encoded, encoded: Encoded) -> None:
    """Keep representations, and the lengths of hidden units where these were found with them."""
    kept.views |= encoded.views
    kept.lengths = encoded.lengths if kept.lengths is None else kept.lengths


def _distances(placement: Placement) -> np.ndarray:
    """Mean distance ``(m',)`` of new cells from their nearest ones of the reference."""
    assert placement.neighbors is not None  # not in space
    return placement.neighbors.distances.mean(1)
