"""What all parts of the model share: its data, its reference, its network and the results. Wiring only."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import rich.pretty  # noqa: F401  (scvi-tools 1.4.2 uses it in `view_anndata_setup` without importing it)
from anndata import AnnData
from mudata import MuData
from scvi.model.base import BaseModelClass

from scrcl.data.sources import (
    Source,
    anndata_sources,
    mudata_sources,
    read_batches,
    read_labels,
    read_positions,
    read_spatial_graph,
)
from scrcl.graph.adjacency import ALL, symmetric_adjacency
from scrcl.graph.genes import directed_propagation
from scrcl.graph.placement import Placement
from scrcl.graph.slices import Slices
from scrcl.labels.cell_labels import Labels
from scrcl.nn.inference import REPRESENTATIONS, Representation, View
from scrcl.nn.module import SCRCLModule
from scrcl.reference.cells import Cells
from scrcl.reference.reference import Reference
from scrcl.utils.checks import as_rows, check_key, check_option
from scrcl.utils.errors import ScrclTypeError, ScrclValueError

from .placements import Placements
from .results import Query, Results, weights_version

Data: TypeAlias = AnnData | MuData
Indices: TypeAlias = Sequence[int] | np.ndarray | None


class SCRCLBase(BaseModelClass):
    """Data, reference, network and results of :class:`scrcl.SCRCL`."""

    _module_cls = SCRCLModule
    module: SCRCLModule
    refinement_trained_: bool | None
    #: How the command line read the counts (``layer``) and clustered (arguments of `get_clusters`); saved with the model.
    run_: dict[str, Any] | None = None
    _reference: Reference
    _module_kwargs: dict[str, Any]
    #: The data that the reference was built from, while they are at hand.
    _reference_data: Any
    _kept_results: Results | None
    _placements: Placements

    # ------------------------------------------------------------------- data

    @property
    def _several(self) -> bool:
        """Whether the data are MuData."""
        return self.registry.get("setup_method_name") == "setup_mudata"

    def _setup(self, name: str) -> Any:
        """An argument of the setup; ``None`` where it was not given."""
        return self.registry["setup_args"].get(name)

    def _data(self, adata: Data | None) -> Any:
        """The data that are meant, refused if of the wrong class."""
        data: Any = self.adata if adata is None else adata
        if data is None:
            raise ScrclValueError("The model was loaded without data.", "Pass `adata`.")
        check_type(data, self._several)
        return data

    def _sources(self, data: Any, layers: Mapping[str, str] | None = None) -> dict[str, Source]:
        """Where the data of each modality come from; ``layers`` take the place of those of the setup."""
        new = data is not self.adata
        if self._several:
            layers = {**(self._setup("layers") or {}), **(layers or {})}
            return mudata_sources(data, self._setup("modalities"), layers, self._setup("features_keys"), new)
        layer = next(iter(layers.values())) if layers else self._setup("layer")
        return anndata_sources(data, layer, self._setup("features_key"), new)

    def _slices(self, data: Any) -> Slices:
        """Where any cells are in space."""
        return read_positions(data, self._setup("spatial_key"), self._setup("sample_key"))

    def _batches(self, data: Any) -> np.ndarray | None:
        """Name of the batch of each of any cells, where the model tells batches apart."""
        key = self._setup("batch_key")
        return None if key is None else read_batches(data, key)

    def _labels(self, data: Any) -> Labels | None:
        """Labels of any cells, where the model learns from them and there are any."""
        key = self._setup("labels_key")
        return None if key is None else Labels.from_values(read_labels(data, key, self._setup("unlabeled_category")))

    def _is_reference(self, data: Any) -> bool:
        """Whether the data are those that the model was built on, with the same cells still."""
        return data is self._reference_data and bool(data.obs_names.equals(self._reference.cell_names))

    def _cells(self, data: Any) -> Cells:
        """All cells of data, before any is read."""
        if self._reference.spatial is None:
            return Cells(data.obs_names, self._sources(data), self._batches(data))
        slices, key = self._slices(data), self._setup("spatial_neighbors_key")
        graph = None if key is None else symmetric_adjacency(read_spatial_graph(data, key, slices))
        return Cells(data.obs_names, self._sources(data), self._batches(data), slices, graph)

    def _query(self, data: Any, indices: Indices) -> Query:
        """Find cells among those of the model, and place those that are new.

        All cells of a data object are placed once, and their placement is kept while the object exists and what is read of
        it stays the same. Until then, of some cells that are asked for only these are read, except in space.
        """
        rows = None if indices is None else as_rows(indices, data.n_obs)
        reference = self._reference
        if self._is_reference(data):
            known = np.arange(data.n_obs) if rows is None else rows
            return Query(Placement(known, reference.features[:0], None, reference.weights[:0]))
        cells = self._cells(data)
        fingerprint = cells.fingerprint
        placement = None if fingerprint is None else self._placements.get(data, fingerprint)
        if placement is None:
            if rows is not None and reference.spatial is None and len(np.unique(rows)) < data.n_obs:
                return Query(reference.place(cells, rows))
            placement = reference.place(cells)
            if fingerprint is not None:
                self._placements.keep(data, fingerprint, placement)
        return Query(placement, ALL if rows is None else rows)

    # ---------------------------------------------------------------- network

    def _set_reference(self, reference: Reference) -> None:
        """Take a reference, and build the network that fits it."""
        self._reference = reference
        self._kept_results, self._placements = None, Placements()
        self.module = self._module_cls(
            gene_profiles=directed_propagation(reference.gene_graph) @ reference.gene_features,
            n_input=reference.n_inputs,
            modality_shares=reference.shares,
            **self._module_kwargs,
        )

    @property
    def reference_(self) -> dict[str, Any]:
        """The cells, genes and graphs of the model as plain arrays, saved with it."""
        return self._reference.to_dict()

    @reference_.setter
    def reference_(self, state: dict[str, Any]) -> None:
        # `load` of scvi-tools sets what was saved before it fills the weights of the network, which is built here.
        self._set_reference(Reference.from_dict(state))

    @property
    def _results(self) -> Results:
        """What follows from the weights as they are now."""
        if self._kept_results is None or self._kept_results.weights != weights_version(self.module):
            self._kept_results = Results(self.module, self._reference)
        return self._kept_results

    def _latent(self, data: Any, indices: Indices, view: View) -> np.ndarray:
        """A representation ``(m, ·)`` of cells."""
        return self._results.latent_of(self._query(data, indices), view)

    def _view(self, representation: Representation, modality: str | None) -> View:
        """What the network calls a representation, of all modalities or of one."""
        check_option(representation, REPRESENTATIONS, "representation")
        self._check_modality(modality)
        names = list(self._reference.modalities)
        return representation, names.index(modality) if modality is not None and len(names) > 1 else None

    def _check_modality(self, modality: str | None) -> None:
        """Refuse a modality that the model does not have."""
        if modality is not None and not self._several:
            raise ScrclValueError(
                f"modality={modality!r} is not in the model, which has one modality.", "Leave it out."
            )
        if modality is not None:
            check_key(modality, self._reference.modalities, "modality", "the model")


def check_type(data: Any, several: bool) -> None:
    """Refuse data of one modality where several are wanted, and the other way round."""
    if data is not None and not isinstance(data, MuData if several else AnnData):
        wanted = "MuData" if several else "AnnData"
        raise ScrclTypeError(
            f"adata is of type {type(data).__name__}, not {wanted}.",
            f"Pass {wanted}, as the model was built on.",
            command=f"Pass a file of {wanted}, as the model was built on.",
            where="adata",
        )


def cell_names(data: Any, indices: Indices) -> pd.Index:
    """Names of the cells that are asked for."""
    return data.obs_names if indices is None else data.obs_names[as_rows(indices, data.n_obs)]
