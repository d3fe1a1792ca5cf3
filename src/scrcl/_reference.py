"""What a model keeps of the cells it was built on: enough to train, to embed them again and to place new cells."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.spatial import cKDTree
from sklearn.preprocessing import normalize

from ._features import CountFeatures
from ._graph import Neighbors, NeighborSearch, normalized_adjacency
from ._mapping import DistanceScale
from ._spatial import Slices, Space, find_cells

#: Leading features by which a cell is looked up among those of the reference.
IDENTIFYING_FEATURES = 8


class Spaces(NamedTuple):
    """What clusters are found by, beside the latent representation.

    Attributes
    ----------
    smoothed
        ``(n, s)`` search space averaged over the cell graph.
    joining
        Features ``(n, d_i)`` by which clusters are joined.
    """

    smoothed: np.ndarray
    joining: list[np.ndarray]


class Cells:
    """What the references of one and of several modalities have in common."""

    features: np.ndarray
    adjacency: sp.csr_array
    n_neighbors: int
    space: Any = None
    spaces: Any
    search_space: Any
    signal: Any
    place: Any

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.features)

    @property
    def n_features(self) -> int:
        """Number of features of a cell."""
        return self.features.shape[1]

    @cached_property
    def smoothed(self) -> np.ndarray:
        """The search space averaged over the cell graph twice, at unit length."""
        return self.smooth(self.search_space)

    @cached_property
    def propagation(self) -> sp.csr_array:
        """The propagation matrix of the cell graph, ``(n, n)``."""
        return normalized_adjacency(self.adjacency)

    def smooth(self, space: np.ndarray) -> np.ndarray:
        """A space ``(n, s)`` averaged over the cell graph twice, at unit length."""
        return normalize(self.propagation @ (self.propagation @ normalize(space)), copy=False)

    def seen_by(self, modality: str | None) -> Spaces:
        """What clusters are found by."""
        return Spaces(self.smoothed, self.spaces)

    @cached_property
    def search(self) -> NeighborSearch:
        """Search for the nearest cells of the reference."""
        return NeighborSearch(self.search_space)

    @cached_property
    def distances(self) -> np.ndarray:
        """Mean distance ``(n,)`` of each cell from its nearest neighbours."""
        return self.search.among_themselves(self.n_neighbors).distances.mean(1)

    @cached_property
    def distance_scale(self) -> DistanceScale:
        """What distances are usual."""
        return DistanceScale.fit(self.signal(self.features), self.distances)

    def neighbors(self, features: np.ndarray) -> Neighbors:
        """The nearest cells of the reference to cells with features ``(m, d)``."""
        return self.place(features)[0]

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self._identifying(self.features))

    def _identifying(self, features: np.ndarray) -> np.ndarray:
        """The few features by which cells are looked up."""
        return features[:, :IDENTIFYING_FEATURES]

    def identify(self, features: np.ndarray) -> np.ndarray:
        """Find cells ``(m, d)`` among those of the reference: the one with the same features up to rounding, or -1."""
        nearest = self._tree.query(self._identifying(features))[1]
        # Rounding differs with the number of cells projected at once; two profiles differ by far more.
        tolerance = 1e-4 * np.maximum(np.linalg.norm(features, axis=1), 1e-3)
        same = np.linalg.norm(self.features[nearest] - features, axis=1) <= tolerance
        return np.where(same, nearest, -1)


@dataclass(frozen=True)
class Reference(Cells):
    """The cells, genes and graphs of a model.

    Attributes
    ----------
    transform
        Counts to features. Also gives the gene features when the cell features are the user's own.
    all_genes
        Names of all genes of the data; a cell's total is taken over them.
    genes
        Names of the ``G`` genes kept.
    features
        ``(n, d)`` cell features, float32.
    adjacency
        ``(n, n)`` binary, symmetric cell graph without self loops.
    gene_graph
        ``(G, G)`` directed gene graph.
    n_neighbors
        Number of nearest neighbours of a cell that is placed later.
    center, scale
        Shift ``(d,)`` and factor applied to features that are the user's own; ``None`` where features come from
        counts.
    stabilized
        Whether neighbours are found by the stabilised normalisations, at unit length; otherwise by all features as
        they are, as with features of the user and in models of 0.1.
    space
        Where the cells are, if they are seen among their neighbours in space. ``features`` are then smoothed over the
        spatial graph.
    """

    transform: CountFeatures
    all_genes: pd.Index
    genes: pd.Index
    features: np.ndarray
    adjacency: sp.csr_array
    gene_graph: sp.csr_array
    n_neighbors: int
    center: np.ndarray | None = None
    scale: float = 1.0
    stabilized: bool = False
    space: Space | None = None

    @property
    def gene_features(self) -> np.ndarray:
        """``(G, d_g)`` features of the genes kept, float32."""
        return self.transform.gene_features

    @property
    def n_inputs(self) -> list[int]:
        """Number of features of the one modality."""
        return [self.n_features]

    @property
    def weights(self) -> np.ndarray:
        """``(n, 1)`` weights of the one modality."""
        return np.ones((self.n_cells, 1), dtype=np.float32)

    @property
    def shares(self) -> list[float]:
        """Mean weight of the one modality."""
        return [1.0]

    @property
    def spaces(self) -> list[np.ndarray]:
        """Features ``(n, d_i)`` by which clusters are joined: of each normalisation, the user's own, or the smoothed ones."""
        if self.center is not None or self.space is not None:
            return [self.features]
        return self.transform.joining(self.features)

    @cached_property
    def search_space(self) -> np.ndarray:
        """That by which neighbours are found, ``(n, d_s)``, float32."""
        return self.to_search_space(self.features)

    def signal(self, features: np.ndarray) -> np.ndarray:
        """How far cells with features ``(m, d)`` are from the mean cell, ``(m,)``; less for cells with few counts."""
        return np.linalg.norm(self.transform.stabilized(features) if self.stabilized else features, axis=1)

    def to_search_space(self, features: np.ndarray) -> np.ndarray:
        """That by which the neighbours of cells with features ``(m, d)`` are found."""
        if self.space is not None:
            return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        return self.transform.select_stabilized(features) if self.stabilized else features

    @cached_property
    def smoothed(self) -> np.ndarray:
        """The search space averaged over the cell graph twice, at unit length; in space, the features, smoothed already."""
        return self.features if self.space is not None else self.smooth(self.search_space)

    def identify_in_space(self, slices: Slices, features: np.ndarray) -> np.ndarray:
        """Cells in space among those of the reference, by their position and their features before smoothing."""
        assert self.space is not None
        return find_cells(slices, features, self.space.slices, self.space.features)

    def place(self, features: np.ndarray) -> tuple[Neighbors, np.ndarray]:
        """The nearest cells of the reference to new cells ``(m, d)``, and their weights of the modalities ``(m, M)``."""
        neighbors = self.search(self.to_search_space(features), self.n_neighbors)
        return neighbors, np.ones((len(features), 1), dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """The reference as plain numbers and arrays, which outlive changes of the classes."""
        return {
            "transform": self.transform.to_dict(),
            "all_genes": self.all_genes.to_numpy(dtype=object),
            "genes": self.genes.to_numpy(dtype=object),
            "features": self.features,
            "adjacency": csr_to_dict(self.adjacency),
            "gene_graph": csr_to_dict(self.gene_graph),
            "n_neighbors": self.n_neighbors,
            "center": self.center,
            "scale": self.scale,
            "stabilized": self.stabilized,
            "space": None if self.space is None else self.space.to_dict(),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(
            **{
                **state,
                "transform": CountFeatures.from_dict(state["transform"]),
                "all_genes": pd.Index(state["all_genes"]),
                "genes": pd.Index(state["genes"]),
                "adjacency": csr_from_dict(state["adjacency"]),
                "gene_graph": csr_from_dict(state["gene_graph"]),
                "space": None if state.get("space") is None else Space.from_dict(state["space"]),
            }
        )


def csr_to_dict(matrix: sp.csr_array) -> dict[str, Any]:
    return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": matrix.shape}


def csr_from_dict(state: dict[str, Any]) -> sp.csr_array:
    return sp.csr_array((state["data"], state["indices"], state["indptr"]), shape=state["shape"])
