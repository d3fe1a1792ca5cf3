"""What a model keeps of the cells it was built on: enough to train, to embed them again and to place query cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from scrcl.data.sources import Source
from scrcl.graph.adjacency import ALL, Propagation, Rows, csr_from_dict, csr_to_dict, query_weights
from scrcl.graph.neighbors import Neighbors, NeighborSearch
from scrcl.graph.placement import Placement, Surroundings
from scrcl.graph.recognition import Recognition
from scrcl.labels.cell_labels import Labels
from scrcl.nn.inference import CHUNK_CELLS, Encoded, View
from scrcl.utils.progress import begin

from .agreement import Agreement, join
from .batches import Batches
from .cells import Cells
from .features import column_slices
from .mapping import DistanceScale
from .modality import Modality
from .modality_kinds import modality_from_dict
from .parts import joint_names, n_inputs, neighbor_features, side_by_side, split_features
from .spatial import SpatialReference

#: Length of the features in the latent representation, beside views of length 1. Less, and types that training has drawn
#: together are one; more, and noise counts.
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
        ``(G, d_g)`` features of the variables of all modalities, which are genes as a rule, float32.
    gene_graph
        ``(G, G)`` directed graph of the variables.
    n_neighbors
        Number of nearest neighbours by which a query cell is placed.
    agreement
        How far several modalities agree for each cell; ``None`` for one.
    spatial
        Where the cells are, if they are seen among their neighbours in space.
    feature_share
        Length of the features in the latent representation, where each view of the network has length 1; 0 for none.
    batches
        The batches of the cells, if they are told apart, and what is taken out of each.
    labels
        The labels of cells, if any were given.
    cell_names
        ``(n,)`` names of the cells; ``None`` where they are not known.
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
    def shares(self) -> list[float]:
        """Mean weight of each modality."""
        return self.weights.mean(0, dtype=np.float64).tolist()

    @cached_property
    def genes(self) -> pd.Index:
        """Names of all variables, with the modality before those that an earlier one has."""
        return joint_names({name: modality.variables for name, modality in self.modalities.items()})

    @cached_property
    def all_genes(self) -> pd.Index:
        """Names of everything that was measured, in the same way."""
        return joint_names({name: modality.names for name, modality in self.modalities.items()})

    def variables_of(self, modality: str) -> np.ndarray:
        """Which of all variables those of a modality are, by number."""
        numbers = [len(found.columns) for found in self.modalities.values()]
        return np.arange(sum(numbers))[column_slices(numbers)[list(self.modalities).index(modality)]]

    # --------------------------------------------------------------- features

    def read(
        self, sources: Mapping[str, Source], rows: np.ndarray | None = None, batches: np.ndarray | None = None
    ) -> np.ndarray:
        """Features ``(m, D)`` of cells of sources, all or by number in any order, before any smoothing in space.

        ``batches`` names the batch of every cell of the sources, whether asked for or not, where the reference has
        batches. One that it does not know is learnt from all of its cells.

        Raises
        ------
        ValueError
            If a batch that is not known has too few cells.
        """
        wanted, place = (None, slice(None)) if rows is None else np.unique(rows, return_inverse=True)
        if self.batches is None or batches is None:
            found = [modality.features(sources[name], wanted) for name, modality in self.modalities.items()]
        else:
            names = batches if wanted is None else batches[wanted]
            known = self.learn_batches(sources, batches, names)
            codes = known.codes_of(names)
            found = [
                known.features(modality, name, sources[name], wanted, codes)
                for name, modality in self.modalities.items()
            ]
        return side_by_side(found)[place]

    def uncorrected(self, sources: Mapping[str, Source], rows: np.ndarray) -> np.ndarray:
        """That by which neighbours would be found without any correction of batches, ``(m, s)``, of cells, increasing."""
        parts = [
            modality.neighbor_features(modality.features(sources[name], rows))
            for name, modality in self.modalities.items()
        ]
        return self._joined(parts, np.tile(np.array(self.shares, dtype=np.float32), (len(rows), 1)))

    def learn_batches(
        self, sources: Mapping[str, Source], batches: np.ndarray, wanted: np.ndarray | None = None
    ) -> Batches:
        """The batches, with those ``wanted`` of sources, all by default, that are not known yet; as in :meth:`read`."""
        assert self.batches is not None  # else there are none to be known
        names = np.unique(batches if wanted is None else wanted)
        new = names[self.batches.codes_of(names) < 0].tolist()
        features = self.features if self.spatial is None else self.spatial.features
        numbers = [modality.n_features for modality in self.modalities.values()]
        parts = split_features(features, numbers)
        return self.batches.learn(batches, new, self.modalities, sources, parts) if new else self.batches

    @cached_property
    def propagation(self) -> Propagation:
        """The propagation matrix of the cell graph, ``(n, n)``."""
        return Propagation(self.adjacency)

    # What follows from the features in no time is not kept: of millions of cells it is gigabytes.
    @property
    def neighbor_features(self) -> np.ndarray:
        """That by which neighbours are found, ``(n, s)``, float32."""
        return self._joined(self._by_modality, self.weights)

    @property
    def batch_codes(self) -> np.ndarray | None:
        """Number ``(n,)`` of the batch of each cell; ``None`` without batches."""
        return None if self.batches is None else self.batches.codes

    @property
    def corrected(self) -> bool:
        """Whether there are batches and an effect of theirs is corrected."""
        return self.batches is not None and self.batches.corrected

    @property
    def places(self) -> np.ndarray:
        """Points ``(n, d_s)`` of cells by which neighbourhoods are formed: those of counterparts lie together."""
        if self.spatial is not None:
            return self.spatial.slices.disjoint_coordinates
        return self.smoothed() if self.corrected else self.neighbor_features

    def smoothed(self, modality: int | None = None, cells: Rows = ALL) -> np.ndarray:
        """What neighbours are found by, averaged over the cell graph, in all modalities or in that with this number.

        In space, the features, smoothed already. Of all cells ``(n, s)``, or of some.
        """
        if self.spatial is not None:
            return (self._weighed_features if modality is None else self._parts(self.features)[modality])[cells]
        return self._smooth(self.known_neighbor_features(modality), cells)

    def linkage_features(self, modality: int | None = None, cells: Rows = ALL) -> list[np.ndarray]:
        """Features ``(n, d_i)`` by which micro-clusters are joined, of all cells or of some.

        Of all modalities, these by their weights.
        """
        if self.spatial is not None:
            return [self.smoothed(modality, cells)]
        by_modality = [
            self._linkage_of(name, part, cells)
            for name, part in zip(self.modalities, self._parts(self.features), strict=True)
        ]
        if modality is not None or len(by_modality) == 1:
            return by_modality[modality or 0]
        most = max(map(len, by_modality))
        return [join([normalize(own[i % len(own)]) for own in by_modality], self.weights[cells]) for i in range(most)]

    def _linkage_of(self, modality: str, features: np.ndarray, cells: Rows) -> list[np.ndarray]:
        """The same of one modality with features ``(n, d_m)``, over the graph where this is what batches meet in."""
        found = self.modalities[modality].linkage_features(features)
        return [self._smooth(each, cells) if self.corrected else each[cells] for each in found]

    def join(self, encoded: Encoded, features: np.ndarray, weights: np.ndarray) -> dict[View, np.ndarray]:
        """Each representation ``(m, ·)`` of cells: what the network makes of them, and their own features beside it.

        Parameters
        ----------
        encoded
            What the network makes of them.
        features, weights
            Features ``(m, d)`` and modality weights ``(m, M)`` of the same cells.
        """
        if self.feature_share == 0:
            return encoded.views
        return {
            view: np.concatenate([network, self._latent_features(features, weights, view[1])], 1)
            for view, network in encoded.views.items()
        }

    def _latent_features(self, features: np.ndarray, weights: np.ndarray, modality: int | None) -> np.ndarray:
        """What cells with features ``(m, d)`` have of these in the latent representation, ``(m, s)``, float32."""
        found = []
        for start in range(0, len(features), CHUNK_CELLS):
            rows = slice(start, start + CHUNK_CELLS)
            # Sums of a row differ by rounding with how it lies in memory.
            by_modality = self._neighbor_features_of(np.ascontiguousarray(features[rows]))
            own = self._joined(by_modality, weights[rows]) if modality is None else by_modality[modality]
            found.append(np.float32(self.feature_share) * normalize(own))
        return np.concatenate(found)

    @cached_property
    def _weighed_features(self) -> np.ndarray:
        """Features in space, whose length tells how much a cell differs from the mean, the modalities by their shares."""
        if len(self.modalities) == 1:
            return self.features
        return self.features * np.repeat(np.sqrt(self.shares), self.n_inputs).astype(np.float32)

    def _smooth(self, features: np.ndarray, cells: Rows) -> np.ndarray:
        """Features ``(n, s)`` averaged over the cell graph twice, at unit length, of all cells or of some."""
        return normalize(self.propagation.twice(normalize(features), cells), copy=False)

    @property
    def _by_modality(self) -> list[np.ndarray]:
        return self._neighbor_features_of(self.features)

    def _neighbor_features_of(self, features: np.ndarray) -> list[np.ndarray]:
        """That by which neighbours of cells with features ``(m, d)`` are found in each modality."""
        return neighbor_features(self.modalities, self._parts(features), self.spatial)

    def _joined(self, by_modality: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
        """One modality as it is; several, at unit length, side by side and weighted."""
        return by_modality[0] if len(by_modality) == 1 else join(by_modality, weights)

    def _parts(self, features: np.ndarray) -> list[np.ndarray]:
        return split_features(features, self.n_inputs)

    # ------------------------------------------------------------ query cells

    def place(self, cells: Cells, rows: np.ndarray | None = None) -> Placement:
        """Read cells, find them among those of the reference, and place those that are new.

        All of them, or those with the numbers ``(m,)``; in space all are needed. ValueError if they cannot be read, or do not
        fit the model.
        """
        features = self.read(cells.sources, rows, cells.batches)
        if self.spatial is not None:
            return self._place_in_space(self.spatial, cells, features)
        found = self._recognition(features, cells.names if rows is None else cells.names[rows])
        new = features[found < 0]
        if len(new):
            begin("placing")
        return Placement(found, new, *self.query_neighbors(new))

    def _place_in_space(self, spatial: SpatialReference, cells: Cells, features: np.ndarray) -> Placement:
        """The same of cells with features ``(m, D)`` before smoothing: new ones are seen among all cells of their slices."""
        slices = cells.slices
        assert slices is not None  # the reference is in space
        found = spatial.find(slices, features, cells.names, self.cell_names)
        new = np.flatnonzero(found < 0)
        if len(new) == 0:
            return Placement(found, self.features[:0], None, self.weights[:0])
        begin("placing")
        around = np.flatnonzero(np.isin(slices.samples, slices.samples[new]))
        graph = spatial.options.graph(slices.select(around)) if cells.graph is None else cells.graph[around][:, around]
        smoothed, positions = spatial.smooth(graph, features[around]), np.searchsorted(around, new)
        weights, neighbors = np.ones((len(around), 1), dtype=np.float32), None
        if spatial.options.joined or self.agreement is not None:
            neighbors, weights = self.query_neighbors(smoothed)
        surroundings = Surroundings(smoothed, graph, neighbors if spatial.options.joined else None, weights, positions)
        return Placement(found, smoothed[positions], None, weights[positions], surroundings)

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
            near = [search(own, self.n_neighbors) for search, own in zip(self._searches, points, strict=True)]
            weights = self.agreement.weights_of(self._by_modality, points, near)
        return self._search(self._joined(points, weights), self.n_neighbors), weights

    def query_neighbor_features(self, placement: Placement, number: int | None = None) -> np.ndarray:
        """That by which neighbours of the new cells are found, ``(m', s)``, in all modalities or one by number."""
        points = self._neighbor_features_of(placement.features)
        return self._joined(points, placement.modality_weights) if number is None else points[number]

    def known_neighbor_features(self, number: int | None = None) -> np.ndarray:
        """The same ``(n, s)`` of the cells of the reference."""
        return self.neighbor_features if number is None else self._by_modality[number]

    def smoothed_query(self, placement: Placement) -> np.ndarray:
        """Features ``(m', s)`` of the new cells, averaged over the graph, to which they send nothing."""
        if self.spatial is not None:
            return placement.features
        assert placement.neighbors is not None  # outside space they are always found
        received, own = query_weights(self.adjacency, placement.neighbors)
        known = normalize(self.neighbor_features)
        points = normalize(self.query_neighbor_features(placement))
        once = received @ known + own * points
        return normalize(received @ (self.propagation[:] @ known) + own * once, copy=False)

    @cached_property
    def _search(self) -> NeighborSearch:
        return NeighborSearch(self.neighbor_features)

    @cached_property
    def _searches(self) -> list[NeighborSearch]:
        return [NeighborSearch(own) for own in self._by_modality]

    @cached_property
    def distances(self) -> np.ndarray:
        """Mean distance ``(n,)`` of each cell from its nearest neighbours."""
        return self._search.among_themselves(self.n_neighbors).distances.mean(1)

    @cached_property
    def distance_scale(self) -> DistanceScale:
        """What distances are usual."""
        return DistanceScale.fit(self.signal(self.features), self.distances)

    def signal(self, features: np.ndarray) -> np.ndarray:
        """How far cells with features ``(m, d)`` are from the mean cell, ``(m,)``; less for cells with few counts."""
        if len(self.modalities) == 1:
            return np.linalg.norm(next(iter(self.modalities.values())).signal_features(features), axis=1)
        squares = [share * (part**2).sum(1) for share, part in zip(self.shares, self._parts(features), strict=True)]
        return np.sqrt(np.sum(squares, axis=0))

    # ------------------------------------------------------------------- file

    def to_dict(self) -> dict[str, Any]:
        """The reference as plain numbers and arrays, which outlive changes of the classes."""
        return {
            "modalities": {name: modality.to_dict() for name, modality in self.modalities.items()},
            "features": self.features,
            "adjacency": csr_to_dict(self.adjacency),
            "gene_features": self.gene_features,
            "gene_graph": csr_to_dict(self.gene_graph),
            "n_neighbors": self.n_neighbors,
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
            "spatial": None if self.spatial is None else self.spatial.to_dict(),
            "feature_share": self.feature_share,
            "batches": None if self.batches is None else self.batches.to_dict(),
            "labels": None if self.labels is None else self.labels.to_dict(),
            "cell_names": None if self.cell_names is None else self.cell_names.to_numpy(dtype=object),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        modalities = {name: modality_from_dict(found) for name, found in state["modalities"].items()}
        agreement, spatial, batches, labels = (state[name] for name in ("agreement", "spatial", "batches", "labels"))
        return cls(
            modalities=modalities,
            features=state["features"],
            adjacency=csr_from_dict(state["adjacency"]),
            gene_features=state["gene_features"],
            gene_graph=csr_from_dict(state["gene_graph"]),
            n_neighbors=state["n_neighbors"],
            agreement=None if agreement is None or len(modalities) == 1 else Agreement.from_dict(agreement),
            spatial=None if spatial is None else SpatialReference.from_dict(spatial),
            feature_share=state["feature_share"],
            batches=None if batches is None else Batches.from_dict(batches),
            labels=None if labels is None else Labels.from_dict(labels),
            cell_names=None if state["cell_names"] is None else pd.Index(state["cell_names"]),
        )
