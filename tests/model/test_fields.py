import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scvi.data.fields import LabelsWithUnlabeledObsField

from scrcl.model.fields import LabelsField


def data(values) -> ad.AnnData:
    return ad.AnnData(np.ones((len(values), 2), np.float32), obs=pd.DataFrame({"type": values}))


@pytest.mark.filterwarnings("ignore:Category .* has fewer than 3 cells")
def test_the_registry_is_that_of_scvi_tools():
    values = ["b", "Unknown", "a", "c", "b"]
    ours, theirs = data(values), data(values)
    found = LabelsField("labels", "type", "Unknown").register_field(ours)
    expected = LabelsWithUnlabeledObsField("labels", "type", "Unknown").register_field(theirs)
    assert set(found) == set(expected)
    assert found["unlabeled_category"] == expected["unlabeled_category"] == "Unknown"
    for registry, adata in ((found, ours), (expected, theirs)):
        mapping = np.asarray(registry["categorical_mapping"])
        assert mapping[-1] == "Unknown"
        np.testing.assert_array_equal(mapping[adata.obs["_scvi_labels"]], values)


def test_missing_values_are_no_labels():
    adata = data(pd.Categorical(["b", None, "a"], categories=["a", "b", "never there"]))
    registry = LabelsField("labels", "type", None).register_field(adata)
    assert registry["categorical_mapping"].tolist() == ["a", "b", "unlabeled"]
    assert adata.obs["_scvi_labels"].tolist() == [1, 2, 0]


@pytest.mark.parametrize(("values", "unlabelled"), [([1, 0, -1], -1), ([1.0, 0.0, np.nan], None)])
def test_numbers_may_be_labels(values, unlabelled):
    adata = data(values)
    registry = LabelsField("labels", "type", unlabelled).register_field(adata)
    assert len(registry["categorical_mapping"]) == 3
    assert adata.obs["_scvi_labels"].tolist() == [1, 0, 2]


def test_further_data_may_have_none_or_others():
    field = LabelsField("labels", "type", "Unknown")
    registry = field.register_field(data(["a", "b", "Unknown"]))
    bare = ad.AnnData(np.ones((2, 2), np.float32))
    assert field.transfer_field(registry, bare) == registry
    assert bare.obs["_scvi_labels"].tolist() == [2, 2]
    other = data(["b", "z", None])
    field.transfer_field(registry, other)
    assert other.obs["_scvi_labels"].tolist() == [1, 2, 2]
