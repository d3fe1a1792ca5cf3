"""What all parts of the model share: its data, its reference, its network and the results."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import rich.pretty  # noqa: F401  (scvi-tools 1.4.2 uses it in `view_anndata_setup` without importing it)
from anndata import AnnData
from mudata import MuData
from scvi.model.base import BaseModelClass

from scrcl.cluster.consensus import MIN_CLUSTER_CELLS
from scrcl.data.columns import read_batches, read_labels
from scrcl.data.micrometers import SCALE_TOLERANCE, micrometers_per_unit
from scrcl.data.sources import (
    Source,
    anndata_sources,
    mudata_sources,
    read_positions,
    read_spatial_graph,
)
from scrcl.graph.adjacency import ALL, symmetric_adjacency
from scrcl.graph.genes import directed_propagation
from scrcl.graph.placement import Placement, Query
from scrcl.graph.slices import Slices
from scrcl.labels.cell_labels import Labels
from scrcl.nn.inference import REPRESENTATIONS, Representation, View
from scrcl.nn.module import SCRCLModule
from scrcl.reference.cells import Cells
from scrcl.reference.reference import Reference
from scrcl.utils.checks import as_rows, check_key, check_option
from scrcl.utils.errors import ScrclTypeError, ScrclValueError
from scrcl.utils.files import State, from_state, to_state

from .options import ClusterOptions, Method
from .placements import Placements
from .results import Results

Data: TypeAlias = AnnData | MuData
Indices: TypeAlias = Sequence[int] | np.ndarray | None


class SCRCLBase(BaseModelClass):
    """Data, reference, network and results of :class:`scrcl.SCRCL`."""

    _module_cls = SCRCLModule
    module: SCRCLModule
    history_: dict[str, pd.DataFrame] | None
    is_trained_: bool
    refinement_trained_: bool | None
    #: How the command line read the counts (``layer``) and clustered (arguments of `get_clusters`); saved with the model.
    run_: State | None = None
    _reference: Reference
    _module_kwargs: State
    #: The data that the reference was built from, while they are at hand.
    _reference_data: object
    _kept_results: Results | None
    _placements: Placements

    # ------------------------------------------------------------------- data

    def get_var_names(self, legacy_mudata_format: bool = False) -> np.ndarray | dict[str, np.ndarray]:
        """Return the names of the variables of the data.

        Parameters
        ----------
        legacy_mudata_format
            As in :meth:`scvi.model.SCVI.get_var_names`.

        Returns
        -------
        Array of names; of several modalities, a dictionary of them.

        Examples
        --------
        >>> "CD79A" in model.get_var_names()
        True
        """
        if self._several and self.adata is None:
            return {name: modality.names.to_numpy(str) for name, modality in self._reference.modalities.items()}
        return super().get_var_names(legacy_mudata_format)

    @property
    def _several(self) -> bool:
        """Whether the data are MuData."""
        return self.registry.get("setup_method_name") == "setup_mudata"

    def _setup_call(self, **added: str) -> str:
        """How the data are set up with further arguments, for messages."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in added.items())
        setup = "setup_mudata(mdata, modalities=..." if self._several else "setup_anndata(adata"
        return f"`SCRCL.{setup}, {arguments})`"

    def _setup(self, name: str) -> Any:
        """An argument of the setup; ``None`` where it was not given."""
        return self.registry["setup_args"].get(name)

    def _data(self, adata: Data | None) -> Data:
        """The data that are meant, refused if of the wrong class."""
        data: Data | None = self.adata if adata is None else adata
        if data is None:
            raise ScrclValueError("The model was loaded without data.", "Pass `adata`.")
        check_type(data, self._several)
        return data

    def _sources(self, data: Data, layers: Mapping[str, str] | None = None) -> dict[str, Source]:
        """Where the data of each modality come from; ``layers`` replace the layers of the setup."""
        new = data is not self.adata
        if isinstance(data, MuData):
            layers = {**(self._setup("layers") or {}), **(layers or {})}
            return mudata_sources(data, self._setup("modalities"), layers, self._setup("features_keys"), new)
        layer = next(iter(layers.values())) if layers else self._setup("layer")
        return anndata_sources(data, layer, self._setup("features_key"), new)

    def _slices(self, data: Data) -> Slices:
        """Where any cells are in space."""
        return read_positions(data, self._setup("spatial_key"), self._setup("sample_key"))

    def _batches(self, data: Data) -> np.ndarray | None:
        """Name of the batch of each of any cells, where the model distinguishes batches."""
        key = self._setup("batch_key")
        return None if key is None else read_batches(data, key)

    def _conditions(self, data: Data) -> np.ndarray | None:
        """Name of the condition of each of any cells, where conditions are protected."""
        key = self._setup("condition_key")
        return None if key is None else read_batches(data, key, "condition_key")

    def _labels(self, data: Data) -> Labels | None:
        """Labels of any cells, where the model learns from them and there are any."""
        key = self._setup("labels_key")
        return None if key is None else Labels.from_values(read_labels(data, key, self._setup("unlabeled_category")))

    def _is_reference(self, data: Data) -> bool:
        """Whether the data are those that the model was built on, with the same cells still."""
        same_object = data is self._reference_data
        return same_object and bool(data.obs_names.equals(self._reference.cell_names))

    def _cells(self, data: Data) -> Cells:
        """All cells of data, before any is read."""
        names, sources = data.obs_names, self._sources(data)
        batches, conditions, slices, graph = self._batches(data), self._conditions(data), None, None
        if self._setup("spatial_key") is not None:
            slices, key = self._slices(data), self._setup("spatial_neighbors_key")
            graph = None if key is None else symmetric_adjacency(read_spatial_graph(data, key, slices))
        return Cells(names, sources, batches, slices, graph, conditions)

    def _in_known_units(self, data: Data, cells: Cells) -> Cells:
        """The same cells, with coordinates in the unit of the reference if the model knows it in micrometres."""
        spatial = self._reference.spatial
        if spatial is None or cells.slices is None:
            return cells
        if (known := spatial.options.micrometers_per_unit) is None:
            spatial.options.check_unit(spatial.slices, cells.slices)
            return cells
        scale = micrometers_per_unit(data, cells.slices, "spatial_smoothing") / known
        if abs(scale - 1) < SCALE_TOLERANCE:  # the positions of known cells are recognised
            return cells
        return replace(cells, slices=replace(cells.slices, coordinates=cells.slices.coordinates * scale))

    def _query(self, data: Data, indices: Indices) -> Query:
        """Find cells of the model, and place new cells.

        All cells of a data object are placed once, and their placement is kept while the object exists and what is read of
        it stays the same. Until then, of some cells that are asked for only these are read, except in space.
        """
        rows = None if indices is None else as_rows(indices, data.n_obs)
        reference = self._reference
        if self._is_reference(data):
            index = np.arange(data.n_obs) if rows is None else rows
            return Query(Placement(index, reference.features[:0], None, reference.weights[:0]))
        cells = self._in_known_units(data, self._cells(data))
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
            modality_shares=reference.mean_weights,
            **self._module_kwargs,
        )

    @property
    def reference_(self) -> State:
        """The cells, genes and graphs of the model as plain arrays, saved with it."""
        return to_state(self._reference)

    @reference_.setter
    def reference_(self, state: State) -> None:
        # `load` of scvi-tools sets what was saved before it fills the weights of the network, which is built here.
        self._set_reference(from_state(Reference, state))

    @property
    def _results(self) -> Results:
        """Results of the weights as they are now."""
        if self._kept_results is None or not self._kept_results.are_of(self.module):
            self._kept_results = Results(self.module, self._reference)
        return self._kept_results

    def _view(self, representation: Representation, modality: str | None) -> View:
        """What the network calls a representation, of all modalities or of one."""
        check_option(representation, REPRESENTATIONS, "representation")
        self._check_modality(modality)
        names = list(self._reference.modalities)
        return representation, names.index(modality) if modality is not None and len(names) > 1 else None

    def _check_modality(self, modality: str | None) -> None:
        """Refuse a modality that the model does not have."""
        if modality is None:
            return
        if not self._several:
            raise ScrclValueError(
                f"modality={modality!r} is not in the model, which has one modality.", "Leave it out."
            )
        check_key(modality, self._reference.modalities, "modality", "the model")

    def _check_refinement(self) -> None:
        """Refuse results of a refinement that is not trained."""
        self._check_if_trained(warn=False)
        if self.refinement_trained_ is False:
            raise RuntimeError(
                "The refinement is not trained: with cross_view_weight=0, nothing ties cells to genes. Train it further: "
                "`model.train(plan_kwargs={'cross_view_weight': 1.0})`."
            )

    def _cluster_options(
        self,
        *,
        n_clusters: int | None = None,
        seed: int = 0,
        representation: Representation = "aligned",
        modality: str | None = None,
        method: Method = "consensus",
        resolution: float | None = None,
        min_cells: int = MIN_CLUSTER_CELLS,
    ) -> ClusterOptions:
        """Which clusters are meant, refused if an argument is out of range."""
        return ClusterOptions.checked(
            self._reference.n_cells,
            view=self._view(representation, modality),
            n_clusters=n_clusters,
            seed=seed,
            method=method,
            resolution=resolution,
            min_cells=min_cells,
        )

    def _clusters(self, query: Query, options: ClusterOptions) -> pd.Categorical:
        """Clusters ``(m,)`` of cells by name."""
        return named(self._results.labels(query, options), self._results.clustering(options).n_clusters)


def check_type(data: object, several: bool) -> None:
    """Refuse data of one modality where several are wanted, and the other way round."""
    if data is not None and not isinstance(data, MuData if several else AnnData):
        wanted = "MuData" if several else "AnnData"
        raise ScrclTypeError(
            f"adata is of type {type(data).__name__}, not {wanted}.",
            f"Pass {wanted}, as the model was built on.",
            command=f"Pass a file of {wanted}, as the model was built on.",
            where="adata",
        )


def cell_names(data: Data, indices: Indices) -> pd.Index:
    """Names of the cells that are asked for."""
    return data.obs_names if indices is None else data.obs_names[as_rows(indices, data.n_obs)]


def named(labels: np.ndarray, n_clusters: int) -> pd.Categorical:
    """Clusters ``(m,)`` by name; -1 is none."""
    names: pd.Index = pd.Index([str(number) for number in range(n_clusters)])
    return pd.Categorical.from_codes(labels, names)
