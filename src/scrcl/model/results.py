"""What follows from the weights of a trained network, over plain arrays, each found once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias, get_args
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.preprocessing import normalize

from scrcl.cluster.clustering import Clustering
from scrcl.cluster.confidence import ClusterConfidence, JointComponents
from scrcl.cluster.consensus import (
    CLUSTERED_CELLS,
    MIN_CLUSTER_CELLS,
    Ensemble,
    check_leaves,
    clustered_cells,
    warn_if_undetermined,
)
from scrcl.cluster.kmeans import kmeans
from scrcl.cluster.leiden import RESOLUTION, leiden, leiden_with
from scrcl.cluster.number import NumberOfClusters, choose_number, count_votes, estimate_number
from scrcl.cluster.trees import enough_for
from scrcl.genes.associations import GeneMap
from scrcl.graph.adjacency import ALL, Rows
from scrcl.graph.placement import Placement
from scrcl.labels.annotation import Annotation, annotate
from scrcl.nn.inference import Encoded, Encoder, View, hidden_units
from scrcl.nn.mixture import fit_mixture
from scrcl.nn.module import SCRCLModule
from scrcl.reference.reference import Reference
from scrcl.utils.progress import begin
from scrcl.utils.sizes import SAMPLE_CELLS, draw
from scrcl.utils.threads import threads

Method = Literal["consensus", "kmeans", "leiden"]
METHODS = get_args(Method)
AssociationMethod = Literal["regression", "network"]
ASSOCIATION_METHODS = get_args(AssociationMethod)

#: View, number of clusters and seed.
Certain: TypeAlias = tuple[View, int | None, int]


@dataclass(frozen=True)
class Query:
    """Cells that are asked for.

    Attributes
    ----------
    placement
        Where they lie, or where more cells do.
    rows
        ``(m,)`` which of these are asked for; all by default.
    """

    placement: Placement
    rows: Rows = field(default_factory=lambda: ALL)

    @cached_property
    def known(self) -> np.ndarray:
        """``(m,)`` row of each cell in the reference, -1 for a new one."""
        return self.placement.reference_index[self.rows]

    @cached_property
    def new(self) -> np.ndarray:
        """``(m',)`` which of the new cells of the placement are asked for, in the order asked for."""
        return self.placement.new[self.rows][self.known < 0]

    def take(self, of_reference: np.ndarray, of_new: Callable[[], np.ndarray]) -> np.ndarray:
        """Values of the cells, from those of all cells of the reference and, where any is new, of the new ones ``(m', ·)``."""
        values = of_reference[self.known]
        if len(self.new):
            values[self.known < 0] = of_new()
        return values


class _ByPlacement(WeakKeyDictionary[Placement, Encoded]):
    """What a network makes of the new cells of placements, as long as these are kept. What is unpickled begins without."""

    def __reduce__(self) -> tuple:
        return type(self), ()


class Results:
    """What a network makes of the cells of a reference, and of others.

    Parameters
    ----------
    module
        The network, whose weights must not change any more.
    reference
        The cells, variables and graphs.
    """

    def __init__(self, module: SCRCLModule, reference: Reference) -> None:
        self.module, self.reference = module, reference
        self.weights = weights_version(module)
        self._encoder = Encoder(
            module, reference.features, reference.propagation, reference.weights, reference.adjacency
        )
        #: Where the genes lie among the cells, by method; needs counts, so that it is put here by the model.
        self.gene_maps: dict[AssociationMethod, GeneMap] = {}
        self._known = Encoded()
        #: The same of new cells, as long as their placement is kept.
        self._new = _ByPlacement()
        #: How sure clusters of the consensus are, by view, their number and seed.
        self.certainties: dict[Certain, ClusterConfidence] = {}
        self._clusterings: dict[tuple, Clustering] = {}
        self._ensembles: dict[tuple, Ensemble] = {}
        self._votes: dict[tuple, list[int]] = {}

    def moved(self, module: SCRCLModule, reference: Reference) -> "Results":
        """The same of a copy of the network, and of a reference with the same cells; what was found is kept."""
        moved = Results(module, reference)
        moved._known = self._known
        for name in ("gene_maps", "certainties", "_clusterings", "_ensembles", "_votes"):
            setattr(moved, name, dict(getattr(self, name)))
        return moved

    # ------------------------------------------------------------------ cells

    def latent(self, view: View) -> np.ndarray:
        """A representation ``(n, ·)`` of the cells of the reference."""
        if view not in self._known.views:
            begin("inference")
            encoded = self._encoder.reference(view[0])
            _keep(self._known, encoded, self.reference.join(encoded, self.reference.features, self.reference.weights))
        return self._known.views[view]

    def _latent_of(self, view: View, cells: np.ndarray) -> np.ndarray:
        """The same of some cells, found for these alone where it is not known."""
        reference = self.reference
        if view in self._known.views or len(cells) == reference.n_cells:
            return self.latent(view)[cells]
        encoded = self._encoder.reference(view[0], cells)
        return reference.join(encoded, reference.features[cells], reference.weights[cells])[view]

    def latent_of_new(self, query: Query, view: View, chunk: int | None = None) -> np.ndarray:
        """A representation ``(m', ·)`` of the new cells, ``chunk`` of which pass the network at once."""
        return self._encoded(query.placement, view, chunk).views[view][query.new]

    def latent_of(self, query: Query, view: View, chunk: int | None = None) -> np.ndarray:
        """A representation ``(m, ·)`` of cells."""
        return query.take(self.latent(view), lambda: self.latent_of_new(query, view, chunk))

    def _encoded(self, placement: Placement, view: View, chunk: int | None = None) -> Encoded:
        """What there is of all new cells of a placement, with a representation."""
        kept = self._new.setdefault(placement, Encoded())
        if view not in kept.views:
            encoded = self._encoder(placement, view[0], chunk)
            _keep(kept, encoded, self.reference.join(encoded, placement.features, placement.modality_weights))
        return kept

    def network(self, view: View, latent: np.ndarray) -> np.ndarray:
        """Those columns ``(m, 2 h)`` or ``(m, 2 c)`` of a representation ``(m, ·)`` that the network makes."""
        to_genes, gene_encoder = self.module.to_genes, self.module.gene_encoder
        size = gene_encoder.convolution.out_features if view[0] == "refined" else to_genes.in_features
        return latent[:, : 2 * size]

    def hidden(self, query: Query) -> np.ndarray:
        """The hidden units ``(m, h)`` of cells that the map of the network to the genes reads, the mean over branches."""
        aligned: View = ("aligned", None)
        return query.take(self._hidden, lambda: self._hidden_units(self._encoded(query.placement, aligned))[query.new])

    @cached_property
    def _hidden(self) -> np.ndarray:
        self.latent(("aligned", None))
        return self._hidden_units(self._known)

    def _hidden_units(self, encoded: Encoded) -> np.ndarray:
        return hidden_units(encoded, self.reference.shares, self.module.to_genes.in_features)

    @torch.inference_mode()
    def nearest_map(self, rows: np.ndarray, expression: sp.csr_array) -> GeneMap:
        """The map of the network to the genes as :meth:`GeneMap.nearest` finds it, from the expression ``(m, G)`` of cells."""
        embedding = self.module.gene_encoder(self.module.gene_profiles)
        to_genes = self.module.to_genes
        parts = (to_genes.weight.T @ embedding, to_genes.bias @ embedding, embedding)
        return GeneMap.nearest(self._hidden[rows], expression, *(part.cpu().numpy() for part in parts))

    # -------------------------------------------------------------- distances

    def distances(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        """How far cells are from their nearest ones of the reference, ``(m,)``; not in space.

        The mean distance, and by how many standard deviations it is above the mean of the cells of the reference with as
        much signal.
        """
        reference, placement = self.reference, query.placement
        distances = query.take(reference.distances, lambda: _distances(placement)[query.new])
        signal = reference.signal(query.take(reference.features, lambda: placement.features[query.new]))
        return distances, reference.distance_scale(signal, distances)

    # ------------------------------------------------------------------ types

    @cached_property
    def annotation(self) -> Annotation:
        """What is learnt from the labels of the reference, which has some.

        The latent representation was trained with them, so that they are judged by the features alone.
        """
        reference = self.reference
        assert reference.labels is not None
        begin("labels")
        smoothed = reference.features if reference.spatial is not None else reference.smoothed()
        points = np.concatenate([self.latent(("aligned", None)), smoothed], 1)
        return annotate(points, smoothed, reference.labels, batches=reference.batch_codes)

    def query_points(self, query: Query) -> np.ndarray:
        """That by which types of new cells are told ``(m', d)``: their latent representation and their smoothed features."""
        smoothed = self.reference.smoothed_query(query.placement)[query.new]
        return np.concatenate([self.latent_of_new(query, ("aligned", None)), smoothed], 1)

    # --------------------------------------------------------------- clusters

    def clustering(
        self,
        view: View,
        n_clusters: int | None,
        method: Method,
        resolution: float,
        seed: int,
        min_cells: int = MIN_CLUSTER_CELLS,
    ) -> Clustering:
        """Clusters of the cells of the reference."""
        choice = (view, n_clusters, method, resolution, seed, min_cells)
        if choice not in self._clusterings:
            begin("clustering")
            with threads(self.latent(view).size):
                self._clusterings[choice] = self._cluster(*choice)
        return self._clusterings[choice]

    def _cluster(
        self, view: View, n_clusters: int | None, method: Method, resolution: float, seed: int, min_cells: int
    ) -> Clustering:
        points = self.latent(view)
        if method == "leiden":
            if n_clusters is None:
                return leiden(points, resolution, seed)
            return leiden_with(points, n_clusters, seed)
        if n_clusters is None:
            n_clusters = choose_number(self._counts(view, seed))
        if method == "kmeans":
            return kmeans(points, n_clusters, seed)
        check_leaves(n_clusters, min(self.reference.n_cells, CLUSTERED_CELLS))
        found, agreement = self._ensemble(view, seed, n_clusters).cut(n_clusters, min_cells)
        warn_if_undetermined(n_clusters, agreement)
        return found

    # -------------------------------------------------------------- certainty

    def certainty(self, view: View, n_clusters: int | None, seed: int) -> ClusterConfidence:
        """How sure clusters of the consensus are, at the level of the agreement of the trees with it."""
        choice = (view, n_clusters, seed)
        if choice not in self.certainties:
            clustering = self.clustering(view, n_clusters, "consensus", RESOLUTION, seed)
            ensemble = self._ensemble(view, seed, clustering.n_clusters)
            level = ensemble.agreement_with(clustering.labels[ensemble.cells], clustering.n_clusters)
            begin("certainty")
            kinds = self.kinds(view)
            components = JointComponents.fit(kinds)
            batches = self.reference.batch_codes
            with threads(self.latent(view).size):
                mixture = fit_mixture(components(kinds), clustering.labels, batches, seed, components.kinds)
            self.certainties[choice] = ClusterConfidence.fit(
                components, mixture, kinds, clustering.labels, level, batches
            )
        return self.certainties[choice]

    def kinds(self, view: View, query: Query | None = None) -> list[np.ndarray]:
        """What the mixture is over: what the network makes of cells and, at unit length, what neighbours are found by."""
        if query is None:
            network = self.network(view, self.latent(view))
            return [np.ascontiguousarray(network), normalize(self.reference.known_neighbor_features(view[1]))]
        features = self.reference.query_neighbor_features(query.placement, view[1])[query.new]
        return [self.network(view, self.latent_of_new(query, view)), normalize(features)]

    def n_clusters(self, view: View, seed: int) -> NumberOfClusters:
        """The estimate of the number of clusters, with its evidence."""
        size = self.latent(view).size

        def ensemble() -> Ensemble:
            with threads(size):
                return self._ensemble(view, seed)

        with threads(size):
            return estimate_number(self._counts(view, seed), ensemble)

    def _ensemble(self, view: View, seed: int, n_clusters: int = 0) -> Ensemble:
        """What cells of the reference are clustered by; the same for all usual numbers of clusters."""
        enough = enough_for(n_clusters, self.reference.n_cells)
        choice = (view, seed, enough)
        if choice not in self._ensembles:
            cells = clustered_cells(self.reference.n_cells, seed)
            features = self.reference.linkage_features(view[1], cells)
            euclidean = self.reference.spatial is not None
            self._ensembles[choice] = Ensemble.build(
                self.latent(view), cells, self.spaces(view, cells), features, seed, enough, euclidean
            )
        return self._ensembles[choice]

    def spaces(self, view: View, cells: np.ndarray) -> list[np.ndarray]:
        """The spaces ``(m, ·)`` in which some cells are clustered: with the aligned representation, the refined one as well.

        In space it is left out, as it lies farther from the domains.
        """
        spaces = self._counted_spaces(view, cells)
        if view[0] == "aligned" and self.reference.spatial is None:
            spaces.append(self._latent_of(("refined", view[1]), cells))
        return spaces

    def _counted_spaces(self, view: View, cells: np.ndarray) -> list[np.ndarray]:
        """Those ``(m, ·)`` in which communities of some cells are counted."""
        return [self.latent(view)[cells], self.reference.smoothed(view[1], cells)]

    def _counts(self, view: View, seed: int) -> list[int]:
        """Numbers of communities, from which the number of clusters follows."""
        if (view, seed) not in self._votes:
            cells = draw(self.reference.n_cells, SAMPLE_CELLS, seed)
            self._votes[view, seed] = count_votes(self._counted_spaces(view, cells), seed)
        return self._votes[view, seed]


def _keep(kept: Encoded, encoded: Encoded, views: dict[View, np.ndarray]) -> None:
    """Keep representations, and the lengths of hidden units where these were found with them."""
    kept.views |= views
    kept.lengths = encoded.lengths if kept.lengths is None else kept.lengths


def _distances(placement: Placement) -> np.ndarray:
    """Mean distance ``(m',)`` of new cells from their nearest ones of the reference."""
    assert placement.neighbors is not None  # not in space
    return placement.neighbors.distances.mean(1)


def weights_version(module: SCRCLModule) -> tuple[int, ...]:
    """What changes whenever the weights of a network do; fused optimisers do not count their changes, so by content."""
    return tuple(hash(parameter.detach().float().cpu().numpy().tobytes()) for parameter in module.parameters())
