"""What is registered with scvi-tools, by its conventions."""

from functools import partial

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import (
    BaseAnnDataField,
    CategoricalObsField,
    LabelsWithUnlabeledObsField,
    LayerField,
    MuDataWrapper,
    ObsmField,
)

from scrcl.data.columns import read_batches, read_labels
from scrcl.data.remedies import find_names
from scrcl.data.sources import gene_names
from scrcl.utils.checks import match_genes
from scrcl.utils.names import as_name, as_names

#: What cells without a label are called in the registry where the user has no name for them.
UNLABELED = "unlabeled"


class CountsField(LayerField):
    """Counts whose genes are matched by name when other data take their place."""

    def __init__(self, layer: str | None, registry_key: str = REGISTRY_KEYS.X_KEY) -> None:
        super().__init__(registry_key, layer, is_count_data=False, correct_data_format=False)
        self._layer = layer

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        """Accept genes in any order, and a few that are missing."""
        wanted = pd.Index(as_names(state_registry[self.COLUMN_NAMES_KEY]))
        others = partial(find_names, adata_target, self._layer, "adata")
        match_genes(gene_names(adata_target), wanted, find_others=others)
        return self.register_field(adata_target)


class NamesField(CategoricalObsField):
    """Categories by name, for values of any type, of columns in memory or not; their numbers are not written to the data."""

    @property
    def attr_key(self) -> str:
        """The column of the user."""
        return self._original_attr_key

    def validate_field(self, adata: AnnData) -> None:
        """Ask for no column: the setup has, and labels of further data may be missing."""
        BaseAnnDataField.validate_field(self, adata)

    def _names(self, adata: AnnData | MuData) -> np.ndarray:
        """Name ``(n,)`` of the category of each cell, ``None`` for one without."""
        return read_batches(adata, self._original_attr_key)

    def numbers(self, adata: AnnData | MuData, mapping: np.ndarray) -> np.ndarray:
        """Number ``(n, 1)`` of the category of each cell, as scvi-tools keeps it."""
        return pd.Index(mapping).get_indexer(self._names(adata))[:, None]

    def _registry(self, mapping: np.ndarray) -> dict:
        return {self.CATEGORICAL_MAPPING_KEY: mapping, self.ORIGINAL_ATTR_KEY: self._original_attr_key}


class BatchField(NamesField):
    """Batches; further data may be of others."""

    def register_field(self, adata: AnnData) -> dict:
        """Number the batches."""
        return self._registry(np.unique(self._names(adata)))

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        """Number batches as the model has them, and then those that it learns when it is asked for their cells."""
        names_of_model = list(map(as_name, state_registry[self.CATEGORICAL_MAPPING_KEY]))
        return self._registry(np.array([*names_of_model, *np.setdiff1d(self._names(adata_target), names_of_model)]))


class LabelsField(NamesField, LabelsWithUnlabeledObsField):
    """Labels of some cells. A missing value is no label; further data may have none at all, or others."""

    def _names(self, adata: AnnData | MuData) -> np.ndarray:
        if self._original_attr_key not in adata.obs:
            return np.full(adata.n_obs, None)
        return read_labels(adata, self._original_attr_key, self._unlabeled_category)

    def register_field(self, adata: AnnData) -> dict:
        """Number the labels; cells without a label have the last number."""
        unlabelled = UNLABELED if self._unlabeled_category is None else as_name(self._unlabeled_category)
        named = sorted({name for name in self._names(adata) if name is not None})
        return self._registry(np.array([*named, unlabelled]))

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: object) -> dict:
        """Number labels as the model has them; other labels, and none, have the number of cells without a label."""
        return self._registry(np.asarray(state_registry[self.CATEGORICAL_MAPPING_KEY]))

    def numbers(self, adata: AnnData | MuData, mapping: np.ndarray) -> np.ndarray:
        """Number ``(n, 1)`` of the label of each cell; cells without a label of the model have the last number."""
        known = super().numbers(adata, mapping[:-1])
        return np.where(known < 0, len(mapping) - 1, known)

    def _registry(self, mapping: np.ndarray) -> dict:
        return {**super()._registry(mapping), self.UNLABELED_CATEGORY: self._unlabeled_category}


class DataManager(AnnDataManager):
    """Finds what is registered; numbers of categories are computed when asked for, so that ``obs`` gains no column."""

    def get_from_registry(self, registry_key: str) -> np.ndarray | pd.DataFrame:
        """What scvi-tools has under a key of its registry."""
        for field in self.fields:
            names = getattr(field, "adata_field", field)  # of a MuData, the field is wrapped
            if field.registry_key == registry_key and isinstance(names, NamesField):
                mapping = self.get_state_registry(registry_key)[names.CATEGORICAL_MAPPING_KEY]
                return names.numbers(self.adata, np.asarray(mapping))
        return super().get_from_registry(registry_key)


MuDataCountsField = MuDataWrapper(CountsField)
MuDataBatchField = MuDataWrapper(BatchField)
MuDataLabelsField = MuDataWrapper(LabelsField)
MuDataEmbeddingField = MuDataWrapper(ObsmField)
