"""Cells in space: what of the model differs. Wiring only."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from ._graph import normalized_adjacency, symmetric_adjacency
from ._inference import View, encode
from ._reading import read_positions, read_spatial_graph
from ._reference import Reference
from ._spatial import Slices, join_reference, select, spatial_graph

#: What is said of space: the arguments by the names they have in :class:`Space`, their defaults, and those of the graph.
SPACE_ARGUMENTS = {
    "kind": "spatial_graph",
    "n_neighbors": "n_spatial_neighbors",
    "radius": "radius",
    "smoothing": "spatial_smoothing",
    "joined": "spatial_mode",
}
SPACE_DEFAULTS = {"kind": "knn", "n_neighbors": 6, "radius": None, "smoothing": 10.0, "joined": False}
GRAPH_OPTIONS = ("kind", "n_neighbors", "radius")


class SpatialMixin:
    """The methods of :class:`scrcl.SCRCL` for cells in space."""

    module: Any
    _read_features: Any
    _reference: Reference
    _reference_latent: Any
    get_setup_arg: Any

    def _check_space_options(self, space_options: dict[str, Any]) -> None:
        """Refuse what would not be used."""
        neighbors_key, graph_key = (self.get_setup_arg(name) for name in ("neighbors_key", "spatial_neighbors_key"))
        in_space = self.get_setup_arg("spatial_key") is not None
        changed = _changed(space_options)
        if not in_space:
            refuse_space_options(space_options)
        if graph_key is not None and (unused := [name for name in changed if name in GRAPH_OPTIONS]):
            raise ValueError(
                f"{SPACE_ARGUMENTS[unused[0]]} would not be used beside the graph of spatial_neighbors_key={graph_key!r}. "
                "Leave one of them out."
            )
        if in_space and neighbors_key is not None and not space_options["joined"]:
            raise ValueError(
                f"neighbors_key={neighbors_key!r} would not be used beside the spatial graph. Pass "
                "`SCRCL(adata, spatial_mode='join')`, or leave it out."
            )

    def _slices(self, adata: AnnData) -> Slices:
        """Where any cells are."""
        return read_positions(adata, self.get_setup_arg("spatial_key"), self.get_setup_arg("sample_key"))

    def _spatial_graph(
        self, adata: AnnData, slices: Slices, rows: np.ndarray | None = None, **options: Any
    ) -> sp.csr_array:
        """The spatial graph of any cells, or of some of them."""
        key = self.get_setup_arg("spatial_neighbors_key")
        if key is None:
            return spatial_graph(slices if rows is None else select(slices, rows), **options)
        graph = symmetric_adjacency(read_spatial_graph(adata, key, slices))
        return graph if rows is None else graph[rows][:, rows]

    def _find_in_space(self, adata: AnnData, rows: np.ndarray) -> tuple[np.ndarray, dict[View, np.ndarray], np.ndarray]:
        """The same for cells in space: new ones are seen among all cells of their slices."""
        reference = self._reference
        space = reference.space
        assert space is not None
        slices, features = self._slices(adata), self._read_features(adata, None)
        known = reference.identify_in_space(slices, features)[rows]
        new = rows[known < 0]
        around = np.flatnonzero(np.isin(slices.samples, slices.samples[new]))
        if not len(new):
            return known, {name: z[:0] for name, z in self._reference_latent.items()}, reference.features[:0]
        graph = self._spatial_graph(adata, slices, around, **graph_options(vars(space)))
        features = space.smooth(graph, features[around])
        propagation = normalized_adjacency(graph)
        if space.joined:
            propagation = join_reference(graph, reference.adjacency, reference.neighbors(features))
            features = np.concatenate([reference.features, features])
        latent = encode(self.module, features, propagation, np.ones((len(features), 1), np.float32)).latent
        placed = len(features) - len(around) + np.searchsorted(around, new)
        return known, {name: z[placed] for name, z in latent.items()}, features[placed]


def graph_options(space: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the graph among those of space."""
    return {name: space[name] for name in GRAPH_OPTIONS}


def _changed(space_options: dict[str, Any]) -> list[str]:
    """Options of cells in space that are not at their defaults."""
    return [name for name, value in space_options.items() if value != SPACE_DEFAULTS[name]]


def refuse_space_options(space_options: dict[str, Any]) -> None:
    """Refuse options of cells in space where there are no coordinates."""
    if changed := _changed(space_options):
        raise ValueError(
            f"{SPACE_ARGUMENTS[changed[0]]} tells of cells in space. Name their coordinates: "
            "`setup_anndata(adata, spatial_key='spatial')`."
        )
