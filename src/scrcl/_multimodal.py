"""Several modalities in MuData: registration, preparation and what is said of modalities. Wiring only."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS, settings
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField, MuDataWrapper, ObsmField

from . import _constants as keys
from ._agreement import Agreement, join, own_structure
from ._checks import (
    as_features,
    as_rows,
    check_cells_have_counts,
    check_key,
    check_unique_genes,
    match_genes,
)
from ._counts import Counts
from ._features import sample_cells
from ._graph import gene_graph, nearest_neighbors, symmetric_adjacency
from ._joint import JointReference, joint_names, to_spaces, variable_features
from ._memory import warn_of_model
from ._modalities import KINDS, Given, Modality
from ._networks import prior_gene_graph, read_network
from ._progress import begin

logger = logging.getLogger("scvi.scrcl")

#: Agreement with every other modality below which a warning is given; noise has about 0.01.
LEAST_AGREEMENT_OF_MODALITIES = 0.1


class CountsField(LayerField):
    """Counts whose genes are matched by name when other data take their place."""

    def __init__(self, layer: str | None, registry_key: str = REGISTRY_KEYS.X_KEY, needed: Any = None) -> None:
        super().__init__(registry_key, layer, is_count_data=False, correct_data_format=False)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        match_genes(adata_target.var_names, pd.Index(state_registry[self.COLUMN_NAMES_KEY]))
        return self.register_field(adata_target)


MuDataCountsField = MuDataWrapper(CountsField)
MuDataSpaceField = MuDataWrapper(ObsmField)


class MultimodalMixin:
    """The methods of :class:`scrcl.SCRCL` that only data of several modalities need."""

    adata: Any
    _reference: Any
    _data: Any
    _is_reference: Any
    _module_kwargs: Any
    _write_cells: Any
    _get_setup_method_args: Any
    get_setup_arg: Any
    register_manager: Any

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        modalities: Mapping[str, str],
        layers: Mapping[str, str] | None = None,
        features_keys: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Register data of several modalities, measured in the same cells. Validates, and leaves all work to the model.

        Parameters
        ----------
        mdata
            Cells by variables of each modality, all with the same cells in the same order.
        modalities
            Kind of each modality to use, by its name in ``mdata.mod``, e.g. ``{"rna": "rna", "prot": "protein"}``:

            - ``"rna"``: raw counts of all genes.
            - ``"protein"``: raw counts of antibody-derived tags, of at least two proteins.
            - ``"atac"``: raw counts of fragments in peaks.
            - ``"features"``: a space in ``obsm`` of the modality, named in ``features_keys`` and used as it is.
        layers
            Key of ``layers`` of a modality that holds its counts, by its name; by default they are in its ``X``.
        features_keys
            Key of ``obsm`` of each modality of the kind ``"features"``, by its name.
        **kwargs
            Passed to :meth:`scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        ValueError
            If a modality has other cells than the others or in another order, is of an unknown kind, has fewer than two
            features, is no counts where counts are needed, or has NaN, or a cell has no counts.
        KeyError
            If a modality, layer or space is missing.
        TypeError
            If ``mdata`` is not a :class:`~mudata.MuData`.
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        if not isinstance(mdata, MuData):
            raise TypeError(
                f"mdata must be a MuData object, not {type(mdata).__name__}. Use `setup_anndata` for one modality."
            )
        if mdata.is_view:
            mdata._init_as_actual(mdata.copy())
        settings_ = _check_settings(mdata, modalities, layers, features_keys)
        check_cells(mdata, list(modalities))
        fields: list[Any] = []
        for number, (name, (kind, key)) in enumerate(settings_.items()):
            modality = mdata.mod[name]
            if modality.is_view:
                modality._init_as_actual(modality.copy())
            data, names = _read(mdata, name, kind, key)
            _check_data(data, names, name, new="source_registry" in kwargs)
            registry_key = REGISTRY_KEYS.X_KEY if number == 0 else f"{REGISTRY_KEYS.X_KEY}_{name}"
            field = MuDataSpaceField if kind == Given.kind else MuDataCountsField
            order = (registry_key, key) if kind == Given.kind else (key, registry_key)
            fields.append(field(*order, mod_key=name))
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(mdata, **kwargs)
        cls.register_manager(manager)

    def get_modality_weights(
        self, adata: MuData | None = None, indices: Sequence[int] | np.ndarray | None = None
    ) -> pd.DataFrame:
        """Return how much each modality counts for each cell.

        A modality counts as far as the neighbours of the cell in it predict the cell in the others, and as far as one
        half of its features predicts the other half. So noise, or a modality whose cells were mixed up, hardly counts.
        Of two modalities that contradict each other, the one with more structure counts more: which of them is wrong
        cannot be known from two.

        Parameters
        ----------
        adata, indices
            Cells to return, as in :meth:`get_latent_representation`.

        Returns
        -------
        Data frame of cells by modalities, float32. Rows sum to 1.

        Raises
        ------
        ValueError
            If the model is of one modality, or the data do not fit it.
        """
        if not isinstance(self._reference, JointReference):
            raise ValueError("The model is of one modality. Set several up with `SCRCL.setup_mudata`.")
        mdata = self._data(adata)
        rows = np.arange(mdata.n_obs) if indices is None else as_rows(indices, mdata.n_obs)
        reference = self._reference
        if self._is_reference(mdata):
            weights = reference.weights[rows]
        else:
            features = self._read_modalities(mdata, rows)
            known = reference.identify(features)
            weights, new = reference.weights[known], known < 0
            weights[new] = reference.place(features[new])[1]
        return pd.DataFrame(weights, index=mdata.obs_names[rows], columns=list(reference.modalities))

    def get_var_names(self, legacy_mudata_format: bool = False) -> Any:
        """Names of the variables of the data, by modality if there are several."""
        if isinstance(self._reference, JointReference) and self.adata is None:
            return {name: found.names.to_numpy(str) for name, found in self._reference.modalities.items()}
        return super().get_var_names(legacy_mudata_format)  # type: ignore[misc]

    def _check_modality(self, modality: str) -> None:
        """Refuse a modality that the model does not have."""
        if not isinstance(self._reference, JointReference):
            raise ValueError(f"The model is of one modality, so that there is no modality={modality!r}. Leave it out.")
        check_key(modality, self._reference.modalities, "modality", "the model")

    # ------------------------------------------------------------------ data

    def _prepare_mudata(
        self,
        mdata: MuData,
        n_top_genes: int,
        n_components: int,
        n_neighbors: int,
        gene_network: Any,
        gene_network_mode: str,
    ) -> None:
        """Build features and graphs from the data, and write them where the user can see them."""
        check_enough_cells(mdata.n_obs, n_neighbors, "mdata")
        kinds = {name: KINDS[kind] for name, (kind, _) in self._kinds().items()}
        data = {name: _read(mdata, name, kind, key) for name, (kind, key) in self._kinds().items()}
        warn_of_model(
            mdata.n_obs,
            sum(kinds[name].most_features(len(names), n_components) for name, (_, names) in data.items()),
            len(data) * self._module_kwargs["n_hidden"],
            len(data) * n_neighbors,
            in_memory=all(values.in_memory for values, _ in data.values() if isinstance(values, Counts)),
        )
        begin("features")
        modalities: dict[str, Modality] = {}
        features, expression, linear, structure = [], [], [], []
        sample = sample_cells(mdata.n_obs)
        for name, (values, names) in data.items():
            found = modalities[name] = kinds[name].fit(values, names, n_top_genes, n_components)
            if found.n_features == 0:
                raise ValueError(f"The modality {name!r} is the same for all cells. Leave it out.")
            blocks = _blocks(values, None)
            features.append(np.concatenate([found.transform(block) for _, block in blocks]))
            expression.append(_stack([found.expression(block) for _, block in _blocks(values, sample)]))
            linear.append(found.linear(features[-1][sample]))
            structure.append(own_structure(found.judged(features[-1]), n_neighbors))
        joint = np.concatenate(features, 1)

        begin("graph")
        spaces = to_spaces(modalities, joint)
        agreement = Agreement.fit(spaces, n_neighbors, structure)
        neighbors = nearest_neighbors(join(spaces, agreement.weights), n_neighbors)
        shares = agreement.weights.mean(0, dtype=np.float64).tolist()
        profiles = variable_features(expression, linear, shares, n_components)
        genes = joint_names({name: found.variables for name, found in modalities.items()})
        every = joint_names({name: found.names for name, found in modalities.items()})
        network = None if gene_network is None else read_network(gene_network, genes, every)
        graph = None if network and gene_network_mode == "replace" else gene_graph(profiles)
        if network:
            graph = prior_gene_graph(network, profiles, graph)
        assert graph is not None  # unless a network takes its place
        self._reference = JointReference(
            modalities=modalities,
            features=joint,
            adjacency=symmetric_adjacency(neighbors.to_sparse()),
            agreement=agreement,
            gene_features=profiles,
            gene_graph=graph,
            n_neighbors=n_neighbors,
        )
        self._reference_adata, self._reference_names = mdata, mdata.obs_names.copy()
        parameters = {
            "n_top_genes": n_top_genes,
            "n_components": n_components,
            "n_neighbors": n_neighbors,
            "modalities": {name: found.kind for name, found in modalities.items()},
            "gene_network": gene_network_mode if network else "",
        }
        report = network.report(gene_network_mode) if network else None
        self._write_cells(mdata, neighbors.to_sparse(neighbors.distances), parameters, report)
        mdata.obsm[keys.WEIGHTS_KEY] = pd.DataFrame(agreement.weights, index=mdata.obs_names, columns=list(modalities))
        described = ", ".join(
            f"{name!r} {found.n_features} features (weight {share:.2f})"
            for (name, found), share in zip(modalities.items(), shares, strict=True)
        )
        logger.info(
            f"{mdata.n_obs:,} cells: {described}; joint cell graph of {n_neighbors} nearest neighbours, "
            f"{self._reference.adjacency.nnz // 2:,} edges"
        )
        _warn_if_contradicting(list(modalities), agreement.overall, shares)

    def _kinds(self) -> dict[str, tuple[str, str | None]]:
        """Kind of each modality, and where its data are."""
        modalities, layers = self.get_setup_arg("modalities"), self.get_setup_arg("layers") or {}
        spaces = self.get_setup_arg("features_keys") or {}
        return {name: (kind, (spaces if kind == Given.kind else layers).get(name)) for name, kind in modalities.items()}

    def _read_modalities(self, mdata: MuData, rows: np.ndarray | None) -> np.ndarray:
        """Features of any cells, of all modalities side by side."""
        check_cells(mdata, list(self._reference.modalities))
        rows = np.arange(mdata.n_obs) if rows is None else rows
        wanted, place = np.unique(rows, return_inverse=True)
        features = [
            np.concatenate(
                [modality.transform(block) for block in self._read_blocks(mdata, wanted, name)]
                or [np.empty((0, modality.n_features), dtype=np.float32)]
            )
            for name, modality in self._reference.modalities.items()
        ]
        return np.concatenate(features, 1)[place]

    def _read_expression(
        self, mdata: MuData, rows: np.ndarray, layer: str | None, names: Sequence[str]
    ) -> sp.csr_array:
        """Normalised values of the variables of some modalities, of any cells, increasing."""
        check_cells(mdata, list(self._reference.modalities))
        parts = [
            _stack([found.expression(block) for block in self._read_blocks(mdata, rows, name, layer)])
            for name, found in self._reference.modalities.items()
            if name in names
        ]
        return sp.csr_array(sp.hstack(parts, format="csr"))

    def _read_blocks(self, mdata: MuData, rows: np.ndarray, name: str, layer: str | None = None) -> Iterator[Any]:
        """Data of any cells, increasing, in blocks, with the columns that a modality was fitted on."""
        modality = self._reference.modalities[name]
        kind, key = self._kinds()[name]
        data, present = _read(mdata, name, kind, key if layer is None else layer)
        if not isinstance(data, Counts):
            if data.shape[1] != len(modality.names):
                raise ValueError(
                    f"mdata[{name!r}].obsm[{key!r}] has {data.shape[1]} columns, but the model was built on "
                    f"{len(modality.names)}. Compute it with the same method as for the training cells."
                )
            yield data[rows]
            return
        _, missing = match_genes(present, modality.needed, f"mdata[{name!r}].var_names")
        if len(missing):
            warnings.warn(
                f"{len(missing)} of the {len(modality.needed):,} variables that the model reads of {name!r} are missing "
                f"from the data and are taken as 0: {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}",
                UserWarning,
                stacklevel=settings.warnings_stacklevel,
            )
        columns = present.get_indexer(modality.names)
        as_it_is = np.array_equal(columns, np.arange(len(present)))
        for _, block in data.blocks(rows):
            if not as_it_is:
                # A missing variable takes an empty column at the end.
                padded = sp.hstack([block, sp.csr_array((block.shape[0], 1), dtype=np.float32)], format="csr")
                block = padded[:, np.where(columns < 0, len(present), columns)]
            check_cells_have_counts(block.sum(axis=1), data.where)
            yield block


def check_cells(mdata: MuData, names: Sequence[str]) -> None:
    """Refuse modalities that do not have the same cells in the same order.

    Raises
    ------
    KeyError
        If a modality is missing.
    ValueError
        If a modality lacks cells, or has them in another order.
    """
    for name in names:
        check_key(name, mdata.mod, "The modality", "mdata.mod")
        cells = mdata.mod[name].obs_names
        if not cells.is_unique:
            raise ValueError(
                f"Names of cells occur more than once in mdata[{name!r}]. Make them unique before the modalities are put "
                f"together: `adata.obs_names_make_unique()`."
            )
        lacking = mdata.n_obs - int(mdata.obs_names.isin(cells).sum())
        if lacking:
            raise ValueError(
                f"{lacking:,} of {mdata.n_obs:,} cells lack the modality {name!r}. Keep the cells that have all "
                "modalities: `muon.pp.intersect_obs(mdata)`."
            )
        if not cells.equals(mdata.obs_names):
            raise ValueError(
                f"The cells of the modality {name!r} are in another order than those of mdata. Put them in one order: "
                "`mdata = mudata.MuData({name: mdata[name][mdata.obs_names].copy() for name in mdata.mod})`."
            )


def check_enough_cells(n_cells: int, n_neighbors: int, where: str) -> None:
    """Refuse no more cells than neighbours."""
    if n_cells <= n_neighbors:
        raise ValueError(
            f"n_neighbors={n_neighbors} needs at least {n_neighbors + 1} cells, but {where} has {n_cells}. Pass more "
            f"cells or `n_neighbors={max(1, n_cells - 1)}` or fewer."
        )


def _check_settings(
    mdata: MuData, modalities: Any, layers: Any, features_keys: Any
) -> dict[str, tuple[str, str | None]]:
    """Kind of each modality, and where its data are."""
    example = '`modalities={"rna": "rna", "prot": "protein"}`'
    if not isinstance(modalities, Mapping) or not modalities:
        raise ValueError(f"modalities must name each modality and its kind, e.g. {example}, not {modalities!r}.")
    if mdata.axis != 0:
        raise ValueError(f"mdata shares variables, not cells (axis={mdata.axis}). Pass modalities of the same cells.")
    for name, kind in modalities.items():
        check_key(name, mdata.mod, "The modality", "mdata.mod")
        if kind not in KINDS:
            raise ValueError(
                f"modalities[{name!r}] must be one of the kinds {', '.join(map(repr, KINDS))}, not {kind!r}, e.g. {example}."
            )
    layers, features_keys = dict(layers or {}), dict(features_keys or {})
    for argument, given, wanted in (("layers", layers, False), ("features_keys", features_keys, True)):
        for name in given:
            check_key(name, modalities, f"{argument}: the modality", "modalities")
            if (modalities[name] == Given.kind) is not wanted:
                raise ValueError(
                    f"{argument} names {name!r}, which is of the kind {modalities[name]!r}. Name a key of obsm in "
                    f"`features_keys` for the kind {Given.kind!r}, and a key of layers in `layers` for the others."
                )
    for name, kind in modalities.items():
        if kind == Given.kind and name not in features_keys:
            present = ", ".join(map(repr, mdata.mod[name].obsm.keys())) or "none"
            raise ValueError(
                f"The modality {name!r} is of the kind {Given.kind!r}, but features_keys does not say which space to use: "
                f"`features_keys={{{name!r}: ...}}`. Present in its obsm: {present}."
            )
    return {
        name: (kind, (features_keys if kind == Given.kind else layers).get(name)) for name, kind in modalities.items()
    }


def _read(mdata: MuData, name: str, kind: str, key: str | None) -> tuple[Any, pd.Index]:
    """Data of a modality and the names of its columns."""
    modality, where = mdata.mod[name], f"mdata[{name!r}]"
    if kind == Given.kind:
        assert key is not None  # checked at setup
        check_key(key, modality.obsm, f"features_keys[{name!r}]", f"{where}.obsm")
        space = modality.obsm[key]
        names = space.columns.astype(str) if isinstance(space, pd.DataFrame) else None
        features = as_features(space, f"{where}.obsm[{key!r}]")
        return features, pd.Index([f"{key}{i}" for i in range(features.shape[1])]) if names is None else names
    if key is None:
        return Counts.of(modality.X, f"{where}.X"), modality.var_names
    check_key(key, modality.layers, f"layers[{name!r}]", f"{where}.layers")
    return Counts.of(modality.layers[key], f"{where}.layers[{key!r}]"), modality.var_names


def _check_data(data: Any, names: pd.Index, name: str, new: bool) -> None:
    """Refuse data of a modality that are not what they should be."""
    check_unique_genes(names, f"mdata[{name!r}].var_names_make_unique()")
    if len(names) < 2:
        raise ValueError(
            f"The modality {name!r} has one feature, by which hardly any neighbours can be told apart. Leave it out, or "
            "put it beside other features in a space of the kind 'features'."
        )
    if isinstance(data, Counts):
        data.check()
    elif not new and (data == data[0]).all():
        raise ValueError(f"The modality {name!r} is the same for all cells. Name a space that varies.")


def _blocks(data: Any, rows: np.ndarray | None) -> Iterator[tuple[slice, Any]]:
    if isinstance(data, Counts):
        yield from data.blocks(rows)
    else:
        found = data if rows is None else data[rows]
        yield slice(0, len(found)), found


def _stack(blocks: list[sp.csr_array]) -> sp.csr_array:
    return sp.csr_array(sp.vstack(blocks, format="csr"))


def _warn_if_contradicting(names: list[str], overall: np.ndarray, shares: list[float]) -> None:
    others = np.sqrt(overall * overall.T)
    np.fill_diagonal(others, -np.inf)
    best = others.max(1)
    alone = [name for name, agreement in zip(names, best, strict=True) if agreement < LEAST_AGREEMENT_OF_MODALITIES]
    if len(names) > 1 and alone:
        weights = ", ".join(f"{name!r} {share:.2f}" for name, share in zip(names, shares, strict=True))
        warnings.warn(
            f"No other modality agrees with {' or with '.join(map(repr, alone))}: the neighbours of a cell in one say "
            f"nothing of the cell in another (agreement {best.min():.2f} of 1). Either a modality is noise, or its cells "
            f"are not those of the others; check how they were matched. Mean weights: {weights}.",
            UserWarning,
            stacklevel=settings.warnings_stacklevel,
        )
