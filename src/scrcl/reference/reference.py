"""The cells of a model: all that it needs to train, to embed them and to place query cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from scrcl.data.sources import Source
from scrcl.graph.adjacency import ALL, Propagation, Rows, query_weights
from scrcl.graph.neighbors import Neighbors, NeighborSearch
from scrcl.graph.placement import Placement, Surroundings
from scrcl.graph.recognition import Recognition
from scrcl.graph.slices import find_cells
from scrcl.labels.cell_labels import Labels
from scrcl.nn.inference import View
from scrcl.utils.progress import begin

from .agreement import Agreement, join
from .batches import Batches
from .cells import Cells
from .features import column_slices
from .mapping import DistanceScale
from .modality import Modality, joint_names, n_inputs, neighbor_features, side_by_side, split_features
from .spatial import SpatialReference

#: Length of the features in the latent representation, beside views of length 1. Smaller values merge types that training
#: brings together; larger values add noise.
FEATURE_SHARE = 0.5


@dataclass(frozen=True)
class Reference:
    """The cells, variables and graphs of a model.

    Attributes
    ----------
    modalities
        The modalities by name, at least one, in the order of the features.
    features
        ``(n, d)`` cell features, float32, the modalities side by side; in space smoothed over the spatial graph.
    adjacency
        ``(n, n)`` binary, symmetric cell graph without self loops.
    gene_features
        ``(G, d_g)`` features of the variables of all modalities, usually genes, float32.
    gene_graph
        ``(G, G)`` directed graph of the variables.
    n_neighbors
        Number of nearest neighbours of a query cell.
    agreement
        Agreement of several modalities for each cell; ``None`` for one modality.
    spatial
        Positions of the cells, if the model uses them.
    feature_share
        Length of the features in the latent representation, where each view of the network has length 1; 0 for none.
    batches
        The batches of the cells and their correction, if there are any.
    labels
        The labels of cells, if there are any.
    cell_names
        ``(n,)`` names of the cells; ``None`` if unknown.
    """

    modalities: dict[str, Modality]
    features: np.ndarray
    adjacency: sp.csr_array
    gene_features: np.ndarray
    gene_graph: sp.csr_array
    n_neighbors: int
    agreement: Agreement | None = None
    spatial: SpatialReference | None = None
    feature_share: float = FEATURE_SHARE
    batches: Batches | None = None
    labels: Labels | None = None
    cell_names: pd.Index | None = None

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.features)

    @property
    def n_features(self) -> int:
        """Number of features of a cell."""
        return self.features.shape[1]

    @cached_property
    def n_inputs(self) -> list[int]:
        """Number of features of each modality."""
        return n_inputs(self.modalities, self.spatial)

    @property
    def weights(self) -> np.ndarray:
        """``(n, M)`` weights of the modalities, float32; rows sum to 1."""
        if self.agreement is None:
            return np.ones((self.n_cells, 1), dtype=np.float32)
        return self.agreement.weights

    @property
    def mean_weights(self) -> list[float]:
        """Mean weight of each modality."""
        return self.weights.mean(0, dtype=np.float64).tolist()

    @cached_property
    def genes(self) -> pd.Index:
        """Names of all variables, prefixed by the modality if an earlier modality has the same name."""
        return joint_names({name: modality.variables for name, modality in self.modalities.items()})

    @cached_property
    def all_genes(self) -> pd.Index:
        """Names of all columns of the data, in the same way."""
        return joint_names({name: modality.names for name, modality in self.modalities.items()})

    def variables_of(self, modality: str) -> np.ndarray:
        """Numbers of the variables of a modality among all variables."""
        numbers = [len(fitted.columns) for fitted in self.modalities.values()]
        return np.arange(sum(numbers))[column_slices(numbers)[list(self.modalities).index(modality)]]

    # --------------------------------------------------------------- features

    def read(
        self,
        sources: Mapping[str, Source],
        rows: np.ndarray | None = None,
        batches: np.ndarray | None = None,
        conditions: np.ndarray | None = None,
    ) -> np.ndarray:
        """Read features ``(m, D)`` of cells, float32, before any smoothing in space.

        ``rows`` ``(m,)`` are the cells to read, in any order; all by default. ``batches`` and ``conditions`` are the names
        of the batch and the condition of every cell of the sources, requested or not, if the reference has any: a new batch is
        learned from all of its cells.
        """
        increasing, positions = (None, slice(None)) if rows is None else np.unique(rows, return_inverse=True)
        if self.batches is None or batches is None:
            parts = [modality.features(sources[name], increasing) for name, modality in self.modalities.items()]
        else:
            names = batches if increasing is None else batches[increasing]
            all_batches = self.learn_batches(sources, batches, conditions, names)
            codes = all_batches.codes_of(names)
            parts = [
                all_batches.features(modality, name, sources[name], increasing, codes)
                for name, modality in self.modalities.items()
            ]
        return side_by_side(parts)[positions]

    def uncorrected(self, sources: Mapping[str, Source], rows: np.ndarray) -> np.ndarray:
        """Features ``(m, s)`` of cells, increasing, for the neighbour search without any correction of batches."""
        parts = [
            modality.neighbor_features(modality.features(sources[name], rows))
            for name, modality in self.modalities.items()
        ]
        return self._joined(parts, np.tile(np.array(self.mean_weights, dtype=np.float32), (len(rows), 1)))

    def learn_batches(
        self,
        sources: Mapping[str, Source],
        batches: np.ndarray,
        conditions: np.ndarray | None = None,
        requested: np.ndarray | None = None,
    ) -> Batches:
        """The batches of the reference and new ones of sources, all or those that are ``requested``; as in :meth:`read`."""
        assert self.batches is not None  # callers have checked it
        names = np.unique(batches if requested is None else requested)
        new = names[self.batches.codes_of(names) < 0].tolist()
        features = self.features if self.spatial is None else self.spatial.features
        numbers = [modality.n_features for modality in self.modalities.values()]
        parts = split_features(features, numbers)
        return self.batches.learn(batches, new, self.modalities, sources, parts, conditions) if new else self.batches

    @cached_property
    def propagation(self) -> Propagation:
        """The propagation matrix of the cell graph, ``(n, n)``."""
        return Propagation(self.adjacency)

    # Quick functions of the features are not cached: with millions of cells they take gigabytes.
    @property
    def neighbor_features(self) -> np.ndarray:
        """Features ``(n, s)`` for the neighbour search, float32."""
        return self._joined(self._by_modality, self.weights)

    @property
    def batch_codes(self) -> np.ndarray | None:
        """Number ``(n,)`` of the batch of each cell; ``None`` without batches."""
        return None if self.batches is None else self.batches.codes

    @property
    def corrected(self) -> bool:
        """Whether an effect of batches is corrected."""
        return self.batches is not None and self.batches.corrected

    @property
    def minibatch_points(self) -> np.ndarray:
        """Points ``(n, d_s)`` of cells for forming minibatches of nearby cells; mutual neighbours of batches are near."""
        if self.spatial is not None:
            return self.spatial.slices.disjoint_coordinates
        return self.smoothed() if self.corrected else self.neighbor_features

    def smoothed(self, modality: int | None = None, cells: Rows = ALL) -> np.ndarray:
        """Features for the neighbour search averaged over the cell graph, of all modalities or of one by number.

        Returns ``(n, s)`` for all cells, or some of these rows. In space, these are the features, which are smoothed already.
        """
        if self.spatial is not None:
            return (self._weighted_features if modality is None else self._parts(self.features)[modality])[cells]
        return self._smooth(self.known_neighbor_features(modality), cells)

    def linkage_features(self, modality: int | None = None, cells: Rows = ALL) -> list[np.ndarray]:
        """Features ``(n, d_i)`` for joining micro-clusters, of all cells or of some.

        They are the features of one modality by number, or of all side by side, weighted.
        """
        if self.spatial is not None:
            return [self.smoothed(modality, cells)]
        by_modality = []
        for fitted, part in zip(self.modalities.values(), self._parts(self.features), strict=True):
            arrays = fitted.linkage_features(part)
            # Smoothed over the graph if batches are corrected.
            by_modality.append([self._smooth(array, cells) if self.corrected else array[cells] for array in arrays])
        if modality is not None or len(by_modality) == 1:
            return by_modality[modality or 0]
        n_arrays = max(map(len, by_modality))
        return [
            join([normalize(arrays[i % len(arrays)]) for arrays in by_modality], self.weights[cells])
            for i in range(n_arrays)
        ]

    def domain_spaces(self, modality: int | None, cells: np.ndarray) -> list[np.ndarray]:
        """In space, views ``(m, d_i)`` of cells, increasing, in each of which domains are found.

        See :meth:`SpatialReference.domain_spaces`; of one modality by number, or of all, weighted.
        """
        spatial = self.spatial
        assert spatial is not None  # callers have checked it
        smoothed = np.zeros((len(cells), spatial.features.shape[1]), dtype=np.float32)
        smoothed[:, spatial.kept] = self.features[cells]
        own = self._domain_features(spatial.features, modality)
        return spatial.domain_spaces(own, self._domain_features(smoothed, modality), cells)

    def unsmoothed(self, modality: int | None) -> np.ndarray:
        """In space, features ``(n, d)`` of the cells alone, of one modality by number, or of all, weighted."""
        assert self.spatial is not None  # callers have checked it
        return self._domain_features(self.spatial.features, modality)[0]

    def _domain_features(self, features: np.ndarray, modality: int | None) -> list[np.ndarray]:
        """Arrays ``(n, d_i)`` of features ``(n, D)`` in space: of one modality, or of all side by side, weighted."""
        parts = split_features(features, [fitted.n_features for fitted in self.modalities.values()])
        by_modality = [
            fitted.domain_features(part) for fitted, part in zip(self.modalities.values(), parts, strict=True)
        ]
        if modality is not None or len(by_modality) == 1:
            return by_modality[modality or 0]
        weights = np.sqrt(np.array(self.mean_weights, dtype=np.float32))
        return [
            np.concatenate(
                [weight * arrays[i % len(arrays)] for weight, arrays in zip(weights, by_modality, strict=True)], 1
            )
            for i in range(max(map(len, by_modality)))
        ]

    def complete(
        self, views: dict[View, np.ndarray], features: np.ndarray, weights: np.ndarray
    ) -> dict[View, np.ndarray]:
        """Each representation ``(m, ·)`` of cells: the views of the network and the features side by side, float32.

        From the views of the network, and the features ``(m, d)`` and modality weights ``(m, M)`` of the same cells.
        """
        if self.feature_share == 0:
            return views
        # The rounding of sums over a row depends on the memory layout.
        by_modality = self._neighbor_features_of(np.ascontiguousarray(features))
        share, completed = np.float32(self.feature_share), {}
        for view, network in views.items():
            points = self._joined(by_modality, weights) if view[1] is None else by_modality[view[1]]
            completed[view] = np.concatenate([network, share * normalize(points)], 1)
        return completed

    @cached_property
    def _weighted_features(self) -> np.ndarray:
        """Features in space, not normalised, with the modalities weighted by their mean weights."""
        if len(self.modalities) == 1:
            return self.features
        return self.features * np.repeat(np.sqrt(self.mean_weights), self.n_inputs).astype(np.float32)

    def _smooth(self, features: np.ndarray, cells: Rows) -> np.ndarray:
        """Features ``(n, s)`` averaged twice over the cell graph, at unit length, of all cells or of some."""
        in_place = partial(normalize, copy=False)
        return in_place(self.propagation.twice(features, cells, in_place))

    @property
    def _by_modality(self) -> list[np.ndarray]:
        return self._neighbor_features_of(self.features)

    def _neighbor_features_of(self, features: np.ndarray) -> list[np.ndarray]:
        """Features of each modality for the neighbour search, of cells with features ``(m, d)``."""
        return neighbor_features(self.modalities, self._parts(features), self.spatial)

    def _joined(self, by_modality: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
        """A single modality as it is; several side by side, weighted, at unit length."""
        return by_modality[0] if len(by_modality) == 1 else join(by_modality, weights)

    def _parts(self, features: np.ndarray) -> list[np.ndarray]:
        return split_features(features, self.n_inputs)

    # ------------------------------------------------------------ query cells

    def place(self, cells: Cells, rows: np.ndarray | None = None) -> Placement:
        """Read cells, recognise cells of the reference, and place new cells.

        All cells are placed, or those in ``rows`` ``(m,)``; in space, always all. Cells that do not fit the model are refused.
        """
        features = self.read(cells.sources, rows, cells.batches, cells.conditions)
        if self.spatial is not None:
            return self._place_in_space(self.spatial, cells, features)
        reference_index = self._recognition(features, cells.names if rows is None else cells.names[rows])
        new = features[reference_index < 0]
        if len(new):
            begin("placing")
        return Placement(reference_index, new, *self.query_neighbors(new))

    def _place_in_space(self, spatial: SpatialReference, cells: Cells, features: np.ndarray) -> Placement:
        """The same for cells with features ``(m, D)`` before smoothing; new ones are smoothed over all cells of their slices."""
        slices = cells.slices
        assert slices is not None  # the reference is in space
        reference_index = find_cells(slices, features, spatial.slices, spatial.features, cells.names, self.cell_names)
        new = np.flatnonzero(reference_index < 0)
        if len(new) == 0:
            return Placement(reference_index, self.features[:0], None, self.weights[:0])
        begin("placing")
        around = np.flatnonzero(np.isin(slices.samples, slices.samples[new]))
        graph = spatial.options.graph(slices.select(around)) if cells.graph is None else cells.graph[around][:, around]
        smoothed, positions = (
            spatial.smooth(slices.select(around), graph, features[around]),
            np.searchsorted(around, new),
        )
        weights, neighbors = np.ones((len(around), 1), dtype=np.float32), None
        if spatial.options.joined or self.agreement is not None:
            neighbors, weights = self.query_neighbors(smoothed)
        surroundings = Surroundings(smoothed, graph, neighbors if spatial.options.joined else None, weights, positions)
        return Placement(reference_index, smoothed[positions], None, weights[positions], surroundings)

    @cached_property
    def _recognition(self) -> Recognition:
        return Recognition(self.features, self.cell_names)

    def query_neighbors(self, features: np.ndarray) -> tuple[Neighbors, np.ndarray]:
        """The nearest cells of the reference to query cells ``(m, d)``, and their weights of the modalities ``(m, M)``."""
        if len(features) == 0:
            return self._search(self.neighbor_features[:0], self.n_neighbors), self.weights[:0]
        points = self._neighbor_features_of(features)
        weights = np.ones((len(features), 1), dtype=np.float32)
        if self.agreement is not None:
            neighbors = [search(part, self.n_neighbors) for search, part in zip(self._searches, points, strict=True)]
            weights = self.agreement.weights_of(self._by_modality, points, neighbors)
        return self._search(self._joined(points, weights), self.n_neighbors), weights

    def query_neighbor_features(self, placement: Placement, number: int | None = None) -> np.ndarray:
        """Features ``(m', s)`` of the new cells for the neighbour search, of all modalities or of one by number."""
        points = self._neighbor_features_of(placement.features)
        return self._joined(points, placement.modality_weights) if number is None else points[number]

    def known_neighbor_features(self, number: int | None = None) -> np.ndarray:
        """The same ``(n, s)`` for the cells of the reference."""
        return self.neighbor_features if number is None else self._by_modality[number]

    def smoothed_query(self, placement: Placement) -> np.ndarray:
        """Features ``(m', s)`` of the new cells averaged over the graph, which they do not change."""
        if self.spatial is not None:
            return placement.features
        assert placement.neighbors is not None  # outside space there always are
        to_reference, to_itself = query_weights(self.adjacency, placement.neighbors)
        reference = normalize(self.neighbor_features)
        points = normalize(self.query_neighbor_features(placement))
        once = to_reference @ reference + to_itself * points
        return normalize(to_reference @ (self.propagation[:] @ reference) + to_itself * once, copy=False)

    @cached_property
    def _search(self) -> NeighborSearch:
        return NeighborSearch(self.neighbor_features)

    @cached_property
    def _searches(self) -> list[NeighborSearch]:
        return [NeighborSearch(points) for points in self._by_modality]

    @cached_property
    def distances(self) -> np.ndarray:
        """Mean distance ``(n,)`` of each cell from its nearest neighbours."""
        return self._search.among_themselves(self.n_neighbors).distances.mean(1)

    @cached_property
    def distance_scale(self) -> DistanceScale:
        """Distribution of these distances by the signal of a cell."""
        return DistanceScale.fit(self.signal(self.features), self.distances)

    def signal(self, features: np.ndarray) -> np.ndarray:
        """Distance ``(m,)`` of cells with features ``(m, d)`` from the mean cell; it is smaller for cells with few counts."""
        if len(self.modalities) == 1:
            return np.linalg.norm(next(iter(self.modalities.values())).signal_features(features), axis=1)
        squares = [
            weight * (part**2).sum(1) for weight, part in zip(self.mean_weights, self._parts(features), strict=True)
        ]
        return np.sqrt(np.sum(squares, axis=0))
