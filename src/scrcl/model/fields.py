"""What is registered with scvi-tools, by its conventions."""

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data.fields import (
    BaseAnnDataField,
    CategoricalObsField,
    LabelsWithUnlabeledObsField,
    LayerField,
    MuDataWrapper,
    ObsmField,
)

from scrcl.data.sources import read_labels
from scrcl.utils.checks import match_genes

#: What cells without a label are called in the registry where the user has no name for them.
UNLABELED = "unlabeled"


class CountsField(LayerField):
    """Counts whose genes are matched by name when other data take their place."""

    def __init__(self, layer: str | None, registry_key: str = REGISTRY_KEYS.X_KEY) -> None:
        super().__init__(registry_key, layer, is_count_data=False, correct_data_format=False)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        """Accept genes in any order, and a few that are missing."""
        match_genes(adata_target.var_names, pd.Index(state_registry[self.COLUMN_NAMES_KEY]))
        return self.register_field(adata_target)


class BatchField(CategoricalObsField):
    """Batches; further data may be of others."""

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        """Accept batches that the model has not seen, which it learns when it is asked for their cells."""
        return super().transfer_field(state_registry, adata_target, **{**kwargs, "extend_categories": True})


class LabelsField(LabelsWithUnlabeledObsField):
    """Labels of some cells. A missing value is no label; further data may have none at all, or others."""

    def validate_field(self, adata: AnnData) -> None:
        """Ask for no labels: further data may have none."""
        BaseAnnDataField.validate_field(self, adata)

    def register_field(self, adata: AnnData) -> dict:
        """Number the labels; those of cells without one come last."""
        named = {name for name in read_labels(adata, self._original_attr_key, self._unlabeled_category) if name}
        unlabelled = UNLABELED if self._unlabeled_category is None else self._unlabeled_category
        return self._register(adata, np.array([*sorted(named), str(unlabelled)]))

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        """Number labels as the model has them; others, and none, are those of cells without a label."""
        return self._register(adata_target, np.asarray(state_registry[self.CATEGORICAL_MAPPING_KEY]))

    def _register(self, adata: AnnData | MuData, mapping: np.ndarray) -> dict:
        codes = np.full(adata.n_obs, len(mapping) - 1)
        if self._original_attr_key in adata.obs:
            found = pd.Index(mapping[:-1]).get_indexer(
                read_labels(adata, self._original_attr_key, self._unlabeled_category)
            )
            codes = np.where(found < 0, codes, found)
        adata.obs[self.attr_key] = codes
        return {
            self.CATEGORICAL_MAPPING_KEY: mapping,
            self.ORIGINAL_ATTR_KEY: self._original_attr_key,
            self.UNLABELED_CATEGORY: self._unlabeled_category,
        }


MuDataCountsField = MuDataWrapper(CountsField)
MuDataBatchField = MuDataWrapper(BatchField)
MuDataLabelsField = MuDataWrapper(LabelsField)
MuDataEmbeddingField = MuDataWrapper(ObsmField)
