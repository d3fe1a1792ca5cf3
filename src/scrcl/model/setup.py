"""Registration of AnnData and MuData: checks the data, and leaves all work to the model."""

from collections.abc import Mapping, Sequence

from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data.fields import BaseAnnDataField, ObsmField
from scvi.model.base import BaseModelClass

from scrcl.data.sources import (
    EMBEDDING,
    anndata_sources,
    mudata_sources,
    read_graph,
    read_positions,
    read_spatial_graph,
)
from scrcl.reference.modality_kinds import KINDS
from scrcl.utils import keys
from scrcl.utils.checks import check_key
from scrcl.utils.errors import ScrclTypeError, ScrclValueError
from scrcl.utils.files import State

from .base import Data
from .covariates import check_batches, check_conditions, check_labels, warn_of_slices
from .docstrings import documented
from .fields import (
    BatchField,
    CountsField,
    DataManager,
    LabelsField,
    MuDataBatchField,
    MuDataCountsField,
    MuDataEmbeddingField,
    MuDataLabelsField,
)
from .scvi_compat import check_setup, swapped


class SetupMixin(BaseModelClass):
    """The setups of :class:`scrcl.SCRCL`."""

    @classmethod
    @documented
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        features_key: str | None = None,
        neighbors_key: str | None = None,
        spatial_key: str | None = None,
        sample_key: str | None = None,
        spatial_neighbors_key: str | None = None,
        batch_key: str | Sequence[str] | None = None,
        labels_key: str | None = None,
        unlabeled_category: str | float | None = None,
        condition_key: str | None = None,
        **kwargs: object,
    ) -> None:
        """Register data: check them, and leave all work to the model.

        Genes without counts are allowed and never kept. Cells without counts are refused.

        Parameters
        ----------
        adata
            Cells by genes, with raw counts of all genes. No preprocessing is required.
        layer
            Key of ``adata.layers`` of the counts; by default they are in ``adata.X``.
        features_key
            Key of ``adata.obsm`` of an embedding to use as cell features, e.g. ``"X_scVI"``, ``"X_pca_harmony"`` or
            ``"X_pca"``. By default features are computed from the counts. Counts are read in either case, for the
            genes.
        neighbors_key
            Key of ``adata.uns`` of a cell graph to use, as :func:`scanpy.pp.neighbors` writes it (``"neighbors"`` by
            default there). Edges are used in both directions and without weights. By default a graph is built from
            the features.
        %(spatial_keys)s
        batch_key
            Key of ``adata.obs`` of the batch of each cell: donor, plate, chemistry, study or species. Differences
            between batches, and not those between types, are removed from the features, and the cell graph joins cells of
            different batches that are mutual neighbours. If no batch differs, nothing is changed. By default all cells are
            of one batch. With several keys, such as ``["chemistry", "donor"]``, each combination is a batch.
        %(labels_keys)s
        %(condition_key)s
        %(setup_kwargs)s

        Raises
        ------
        ValueError
            If the data are not raw counts (negative, fractional or non-finite values), a cell has no counts, gene
            names are not unique, an embedding or graph does not fit the cells, coordinates are missing or NaN, a cell has
            no batch, a batch has fewer than 10 cells, conditions and batches are confounded, or batches and labels are the same
            column.
        KeyError
            If a layer or key is missing.
        TypeError
            If ``adata`` is not an :class:`~anndata.AnnData`.

        Examples
        --------
        >>> scrcl.SCRCL.setup_anndata(adata)

        Counts in a layer, or cells in space:

        >>> adata.layers["counts"] = adata.X.copy()
        >>> scrcl.SCRCL.setup_anndata(adata, layer="counts")
        >>> tissue = scrcl.datasets.layered_tissue(n_cells=100)
        >>> scrcl.SCRCL.setup_anndata(tissue, spatial_key="spatial", sample_key="slice")
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        if not isinstance(adata, AnnData):
            raise ScrclTypeError(
                f"adata is of type {type(adata).__name__}, not AnnData.",
                "For several modalities, call `SCRCL.setup_mudata`.",
            )
        check_setup(kwargs, cls.setup_anndata)
        _make_actual(adata)
        new = "source_registry" in kwargs
        (source,) = anndata_sources(adata, layer, features_key, new).values()
        source.check(new)
        fields: list[BaseAnnDataField] = [CountsField(layer)]
        if features_key is not None:
            fields.append(ObsmField(keys.FEATURES_KEY, features_key))
        # Data on which a saved model is loaded need no graph: the model places their cells in its own.
        if neighbors_key is not None and not new:
            read_graph(adata, neighbors_key)
        cls._register(adata, fields, setup_method_args, kwargs)

    @classmethod
    @documented
    def setup_mudata(
        cls,
        mdata: MuData,
        modalities: Mapping[str, str],
        layers: Mapping[str, str] | None = None,
        features_keys: Mapping[str, str] | None = None,
        spatial_key: str | None = None,
        sample_key: str | None = None,
        spatial_neighbors_key: str | None = None,
        batch_key: str | Sequence[str] | None = None,
        labels_key: str | None = None,
        unlabeled_category: str | float | None = None,
        condition_key: str | None = None,
        **kwargs: object,
    ) -> None:
        """Register data of several modalities, measured in the same cells: check them, and leave all work to the model.

        Parameters
        ----------
        mdata
            Cells by variables of each modality, all with the same cells in the same order.
        modalities
            Kind of each modality to use, by its name in ``mdata.mod``, e.g. ``{"rna": "rna", "prot": "protein"}``:

            - ``"rna"``: raw counts of all genes.
            - ``"protein"``: raw counts of antibody-derived tags, of at least two proteins.
            - ``"atac"``: raw counts of fragments in peaks.
            - ``"features"``: an embedding in ``obsm`` of the modality, named in ``features_keys`` and used as it is.
        layers
            Key of ``layers`` of a modality that holds its counts, by its name; by default they are in its ``X``.
        features_keys
            Key of ``obsm`` of each modality of the kind ``"features"``, by its name.
        %(spatial_keys)s
        batch_key
            Key or keys of ``mdata.obs`` of the batch of each cell, as in :meth:`setup_anndata`. Each modality is corrected
            separately, if batches differ in it. All cells must have all modalities.
        %(labels_keys)s
        %(condition_key)s
        %(setup_kwargs)s

        Raises
        ------
        ValueError
            If a modality has other cells than the others or in another order, is of an unknown kind, has fewer than two
            features, is no counts where counts are needed, or has NaN, or a cell has no counts.
        KeyError
            If a modality, layer or embedding is missing.
        TypeError
            If ``mdata`` is not a :class:`~mudata.MuData`.

        Examples
        --------
        >>> scrcl.SCRCL.setup_mudata(mdata, modalities={"rna": "rna", "prot": "protein"})
        >>> model = scrcl.SCRCL(mdata)
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        if not isinstance(mdata, MuData):
            raise ScrclTypeError(
                f"mdata is of type {type(mdata).__name__}, not MuData.", "For one modality, call `SCRCL.setup_anndata`."
            )
        check_setup(kwargs, cls.setup_mudata)
        if mdata.is_view:
            mdata._init_as_actual(mdata.copy())
        new = "source_registry" in kwargs
        _check_modalities(mdata, modalities, layers, features_keys)
        sources = mudata_sources(mdata, modalities, layers, features_keys, new)
        fields: list[BaseAnnDataField] = []
        for number, (name, source) in enumerate(sources.items()):
            _make_actual(mdata.mod[name])
            if len(source.names) < 2:
                raise ScrclValueError(
                    f"The modality {name!r} has only one feature, which does not determine neighbours.",
                    "Leave it out, or join it with other features in an embedding of the kind 'features'.",
                )
            source.check(new)
            registry_key = REGISTRY_KEYS.X_KEY if number == 0 else f"{REGISTRY_KEYS.X_KEY}_{name}"
            if source.kind == EMBEDDING:
                fields.append(MuDataEmbeddingField(registry_key, (features_keys or {})[name], mod_key=name))
            else:
                fields.append(MuDataCountsField((layers or {}).get(name), registry_key, mod_key=name))
        cls._register(mdata, fields, setup_method_args, kwargs)

    @classmethod
    def _register(cls, data: Data, fields: list[BaseAnnDataField], setup: State, kwargs: Mapping[str, object]) -> None:
        """Check what a setup says of the cells, and register it after the other fields."""
        arguments, new, several = setup["setup_args"], "source_registry" in kwargs, isinstance(data, MuData)
        batch_key, labels_key, unlabeled = (arguments[n] for n in ("batch_key", "labels_key", "unlabeled_category"))
        _check_space(data, arguments["spatial_key"], arguments["sample_key"], arguments["spatial_neighbors_key"], new)
        of_all_modalities = {"mod_key": None} if several else {}
        if batch_key is not None:
            check_batches(data, batch_key, labels_key, new)
            batch_field = MuDataBatchField if several else BatchField
            fields.append(batch_field(REGISTRY_KEYS.BATCH_KEY, batch_key, **of_all_modalities))
        check_conditions(data, arguments["condition_key"], batch_key, new)
        check_labels(data, labels_key, unlabeled, new)
        if labels_key is not None:
            labels_field = MuDataLabelsField if several else LabelsField
            fields.append(labels_field(REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled, **of_all_modalities))
        manager = DataManager(fields=fields, setup_method_args=setup)
        manager.register_fields(data, **kwargs)
        cls.register_manager(manager)

    @classmethod
    def setup_annbatch(cls, *args: object, **kwargs: object) -> None:
        """Not available: minibatches of independent cells have no graph. The counts may stay in the store all the same."""
        raise NotImplementedError(
            "setup_annbatch is not supported: annbatch loads minibatches of independent cells, and the model learns from the graph "
            "of all cells. Leave the counts in the store: `SCRCL.setup_anndata(anndata.experimental.read_lazy(path))`."
        )


def _make_actual(adata: AnnData) -> None:
    """Turn a view into data of its own, in place, as scvi-tools does elsewhere: a view cannot be written to."""
    if adata.is_view:
        adata._init_as_actual(adata.to_memory() if adata.isbacked else adata.copy())


def _check_space(
    data: Data,
    spatial_key: str | None,
    sample_key: str | None,
    spatial_neighbors_key: str | None,
    new: bool,
) -> None:
    """Refuse coordinates, slices and a spatial graph that do not fit."""
    if spatial_key is not None:
        slices = read_positions(data, spatial_key, sample_key)
        if sample_key is None and not new:
            warn_of_slices(data, slices.coordinates)
        if spatial_neighbors_key is not None and not new:
            read_spatial_graph(data, spatial_neighbors_key, slices)
    elif sample_key is not None or spatial_neighbors_key is not None:
        argument = "sample_key" if sample_key is not None else "spatial_neighbors_key"
        raise ScrclValueError(f"{argument} requires coordinates.", "Pass `spatial_key='spatial'`, too.")


def _check_modalities(mdata: MuData, modalities: object, layers: object, features_keys: object) -> None:
    """Refuse modalities that are not there, of unknown kinds, or whose data are not named as they should be."""
    example = '`modalities={"rna": "rna", "prot": "protein"}`'
    if not isinstance(modalities, Mapping) or not modalities:
        raise ScrclValueError(
            f"modalities={modalities!r} does not give each modality a kind.", f"Pass, for example, {example}."
        )
    if mdata.axis != 0:
        raise ScrclValueError(
            f"mdata shares variables, not cells (axis={mdata.axis}).",
            "Pass modalities of the same cells.",
            where="mdata",
        )
    meant = swapped(modalities, mdata.mod, KINDS)
    for name, kind in modalities.items():
        if meant and (name not in mdata.mod or kind not in KINDS):
            raise ScrclValueError(
                f"modalities={dict(modalities)!r} gives the name of each kind, not the kind of each name.",
                meant,
            )
        check_key(name, mdata.mod, "The modality", "mdata.mod")
        if kind not in KINDS:
            raise ScrclValueError(
                f"modalities[{name!r}]={kind!r} is not a kind.",
                f"Pass one of {', '.join(map(repr, KINDS))}, for example {example}.",
                command=f"Pass one of {', '.join(KINDS)}.",
            )
    layers = _as_keys(layers, "layers", modalities)
    features_keys = _as_keys(features_keys, "features_keys", modalities)
    for argument, keys_by_name, of_embeddings in (("layers", layers, False), ("features_keys", features_keys, True)):
        for name in keys_by_name:
            check_key(name, modalities, f"{argument}: the modality", "modalities")
            if (modalities[name] == EMBEDDING) is not of_embeddings:
                raise ScrclValueError(
                    f"{argument} names {name!r}, which is of the kind {modalities[name]!r}.",
                    f"Name a key of obsm in `features_keys` for the kind {EMBEDDING!r}, and a key of layers in `layers` for the "
                    "others.",
                )
    for name, kind in modalities.items():
        if kind == EMBEDDING and name not in features_keys:
            present = ", ".join(map(repr, mdata.mod[name].obsm.keys())) or "none"
            raise ScrclValueError(
                f"The modality {name!r} is of the kind {EMBEDDING!r}, but features_keys does not name its embedding.",
                f"Pass `features_keys={{{name!r}: ...}}`; its obsm has {present}.",
            )


def _as_keys(keys_of: object, argument: str, modalities: Mapping[str, str]) -> dict[str, str]:
    """Keys by modality; refuse one that does not say of which."""
    if keys_of is not None and not isinstance(keys_of, Mapping):
        raise ScrclTypeError(
            f"{argument}={keys_of!r} does not say of which modality.",
            f"Name it: `{argument}={{{next(iter(modalities))!r}: {keys_of!r}}}`.",
        )
    return dict(keys_of or {})
