"""What a model of several modalities keeps of the cells it was built on."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from ._agreement import Agreement, join
from ._features import column_slices
from ._graph import Neighbors, NeighborSearch
from ._modalities import Modality, modality_from_dict
from ._reference import IDENTIFYING_FEATURES, Cells, Spaces, csr_from_dict, csr_to_dict


@dataclass(frozen=True)
class JointReference(Cells):
    """The cells, variables and graphs of a model of several modalities.

    Attributes
    ----------
    modalities
        The modalities by name, in the order of the features.
    features
        ``(n, d)`` cell features, float32, the modalities side by side.
    adjacency
        ``(n, n)`` binary, symmetric joint cell graph without self loops.
    agreement
        How far the modalities agree for each cell.
    gene_features
        ``(V, d_v)`` features of the variables of all modalities, float32.
    gene_graph
        ``(V, V)`` directed graph of all variables.
    n_neighbors
        Number of nearest neighbours of a cell that is placed later.
    """

    modalities: dict[str, Modality]
    features: np.ndarray
    adjacency: sp.csr_array
    agreement: Agreement
    gene_features: np.ndarray
    gene_graph: sp.csr_array
    n_neighbors: int

    @property
    def weights(self) -> np.ndarray:
        """``(n, M)`` weights of the modalities; rows sum to 1."""
        return self.agreement.weights

    @property
    def shares(self) -> list[float]:
        """Mean weight of each modality."""
        return self.weights.mean(0, dtype=np.float64).tolist()

    @property
    def n_inputs(self) -> list[int]:
        """Number of features of each modality."""
        return [modality.n_features for modality in self.modalities.values()]

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

    @cached_property
    def spaces(self) -> list[np.ndarray]:
        """Features ``(n, d_i)`` by which clusters are joined, the modalities by their weights."""
        by_modality = [
            [normalize(space) for space in modality.joining(part)]
            for modality, part in zip(self.modalities.values(), self._parts(self.features), strict=True)
        ]
        most = max(map(len, by_modality))
        return [join([spaces[i % len(spaces)] for spaces in by_modality], self.weights) for i in range(most)]

    @cached_property
    def search_space(self) -> np.ndarray:
        """That by which neighbours are found, ``(n, s)``, float32."""
        return join(self._by_modality, self.weights)

    def signal(self, features: np.ndarray) -> np.ndarray:
        """How far cells with features ``(m, d)`` are from the mean cell, ``(m,)``, the modalities by their shares."""
        squares = [share * (part**2).sum(1) for share, part in zip(self.shares, self._parts(features), strict=True)]
        return np.sqrt(np.sum(squares, axis=0))

    def seen_by(self, modality: str | None) -> Spaces:
        """What clusters are found by, in all modalities or in one."""
        if modality is None:
            return super().seen_by(None)
        number = list(self.modalities).index(modality)
        joining = self.modalities[modality].joining(self._parts(self.features)[number])
        return Spaces(self.smooth(self._by_modality[number]), joining)

    def place(self, features: np.ndarray) -> tuple[Neighbors, np.ndarray]:
        """The nearest cells of the reference to new cells ``(m, d)``, and their weights of the modalities ``(m, M)``."""
        if len(features) == 0:
            return self.search(self.search_space[:0], self.n_neighbors), self.weights[:0]
        points = to_spaces(self.modalities, features)
        near = [search(own, self.n_neighbors) for search, own in zip(self._searches, points, strict=True)]
        weights = self.agreement.weights_of(self._by_modality, points, near)
        return self.search(join(points, weights), self.n_neighbors), weights

    def to_dict(self) -> dict[str, Any]:
        """The reference as plain numbers and arrays, which outlive changes of the classes."""
        return {
            "modalities": {name: modality.to_dict() for name, modality in self.modalities.items()},
            "features": self.features,
            "adjacency": csr_to_dict(self.adjacency),
            "agreement": {
                "gains": self.agreement.gains,
                "structure": self.agreement.structure,
                "neighbors": [near.indices.astype(np.int32) for near in self.agreement.neighbors],
            },
            "gene_features": self.gene_features,
            "gene_graph": csr_to_dict(self.gene_graph),
            "n_neighbors": self.n_neighbors,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        n, near = len(state["features"]), state["agreement"]["neighbors"]
        neighbors = [Neighbors(i.astype(np.int64), np.zeros(i.shape, np.float32), n) for i in near]
        return cls(
            **{
                **state,
                "modalities": {name: modality_from_dict(found) for name, found in state["modalities"].items()},
                "adjacency": csr_from_dict(state["adjacency"]),
                "agreement": Agreement(**{**state["agreement"], "neighbors": neighbors}),
                "gene_graph": csr_from_dict(state["gene_graph"]),
            }
        )

    @cached_property
    def _by_modality(self) -> list[np.ndarray]:
        return to_spaces(self.modalities, self.features)

    @cached_property
    def _searches(self) -> list[NeighborSearch]:
        return [NeighborSearch(space) for space in self._by_modality]

    def _identifying(self, features: np.ndarray) -> np.ndarray:
        return np.concatenate([part[:, :IDENTIFYING_FEATURES] for part in self._parts(features)], 1)

    def _parts(self, features: np.ndarray) -> list[np.ndarray]:
        return [features[:, part] for part in column_slices(self.n_inputs)]


def to_spaces(modalities: dict[str, Modality], features: np.ndarray) -> list[np.ndarray]:
    """That by which neighbours are found in each modality, from features ``(n, d)`` of all side by side."""
    parts = column_slices([modality.n_features for modality in modalities.values()])
    return [modality.space(features[:, part]) for modality, part in zip(modalities.values(), parts, strict=True)]


def variable_features(
    expression: list[sp.csr_array], linear: list[np.ndarray], shares: list[float], n_features: int
) -> np.ndarray:
    r"""Features ``(V, d)``, float32, of the variables of all modalities in one space: :math:`X^\top U_d`.

    As the gene features of one modality, but with the left singular vectors ``U`` of all modalities side by side.

    Parameters
    ----------
    expression
        ``(n, V_m)`` values of the variables by modality.
    linear
        ``(n, d_m)`` centred features by modality.
    shares
        Mean weight of each modality.
    n_features
        Number of singular vectors; fewer where there are fewer.
    """
    cells = np.concatenate([np.sqrt(share) * part for share, part in zip(shares, linear, strict=True)], 1)
    cells = cells.astype(np.float64)
    squares, vectors = np.linalg.eigh(cells.T @ cells)
    squares, vectors = squares[::-1][:n_features], vectors[:, ::-1][:, :n_features]
    kept = squares > 1e-10 * squares[0]
    basis = cells @ vectors[:, kept] / np.sqrt(squares[kept])
    basis -= basis.mean(0)
    features = normalize(np.concatenate([values.T @ basis for values in expression]))
    return (features * np.sqrt(features.shape[1])).astype(np.float32)


def joint_names(variables: dict[str, pd.Index]) -> pd.Index:
    """One name for each variable of all modalities."""
    names: dict[str, None] = {}
    for modality, own in variables.items():
        taken = set(names)
        names |= dict.fromkeys(f"{modality}:{name}" if name in taken else name for name in own)
    return pd.Index(list(names))
