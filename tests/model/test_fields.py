import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scvi.data.fields import LabelsWithUnlabeledObsField

import scrcl
from scrcl.model.fields import LabelsField

from ..helpers import build, simulate


def data(values) -> ad.AnnData:
    return ad.AnnData(np.ones((len(values), 2), np.float32), obs=pd.DataFrame({"type": values}))


def numbers(field: LabelsField, registry: dict, adata: ad.AnnData) -> list[int]:
    return field.numbers(adata, registry["categorical_mapping"]).ravel().tolist()


@pytest.mark.filterwarnings("ignore:Category .* has fewer than 3 cells")
def test_the_registry_is_that_of_scvi_tools():
    values = ["b", "Unknown", "a", "c", "b"]
    ours, theirs = data(values), data(values)
    field = LabelsField("labels", "type", "Unknown")
    found = field.register_field(ours)
    expected = LabelsWithUnlabeledObsField("labels", "type", "Unknown").register_field(theirs)
    assert set(found) == set(expected)
    assert found["unlabeled_category"] == expected["unlabeled_category"] == "Unknown"
    for registry, codes in ((found, numbers(field, found, ours)), (expected, theirs.obs["_scvi_labels"])):
        mapping = np.asarray(registry["categorical_mapping"])
        assert mapping[-1] == "Unknown"
        np.testing.assert_array_equal(mapping[codes], values)


def test_missing_values_are_no_labels():
    adata = data(pd.Categorical(["b", None, "a"], categories=["a", "b", "never there"]))
    field = LabelsField("labels", "type", None)
    registry = field.register_field(adata)
    assert registry["categorical_mapping"].tolist() == ["a", "b", "unlabeled"]
    assert numbers(field, registry, adata) == [1, 2, 0]


@pytest.mark.parametrize(("values", "unlabelled"), [([1, 0, -1], -1), ([1.0, 0.0, np.nan], None)])
def test_numbers_may_be_labels(values, unlabelled):
    adata = data(values)
    field = LabelsField("labels", "type", unlabelled)
    registry = field.register_field(adata)
    assert len(registry["categorical_mapping"]) == 3
    assert numbers(field, registry, adata) == [1, 0, 2]


def test_further_data_may_have_none_or_others():
    field = LabelsField("labels", "type", "Unknown")
    registry = field.register_field(data(["a", "b", "Unknown"]))
    bare = ad.AnnData(np.ones((2, 2), np.float32))
    assert field.transfer_field(registry, bare) == registry
    assert numbers(field, registry, bare) == [2, 2]
    other = data(["b", "z", None])
    field.transfer_field(registry, other)
    assert numbers(field, registry, other) == [1, 2, 2]


#: Arguments of public methods that require some.
ARGUMENTS = {
    "get_anndata_manager": lambda model: (model.adata,),
    "get_cluster_names": lambda model: ({"one": ["gene1", "gene2"], "two": ["gene50", "gene51"]},),
    "get_from_registry": lambda model: (model.adata, "labels"),
    "get_setup_arg": lambda model: ("batch_key",),
    "get_state_registry": lambda model: ("labels",),
    "get_subclusters": lambda model: ("0",),
    "view_anndata_setup": lambda model: (model.adata,),
}


@pytest.mark.filterwarnings("ignore")
def test_obs_and_var_gain_nothing_that_was_not_asked_for(tmp_path):
    """Whatever is called, also if it fails; the genes that are kept are marked, as documented."""
    adata = simulate()
    adata.obs["plate"] = ["x", "y"] * 75
    adata.obs["_scvi_labels"] = 7  # of another model
    before = adata.obs.copy()
    model = build(adata, setup={"labels_key": "cell_type", "batch_key": "plate"})
    results = [
        name
        for name in dir(model)
        if name.startswith(("get_", "estimate_", "predict", "view_")) and callable(getattr(model, name))
    ]
    assert len(results) > 20
    for name in results:
        try:
            getattr(model, name)(*ARGUMENTS.get(name, lambda model: ())(model))
        except (ValueError, TypeError, AttributeError, NotImplementedError):
            assert name not in ARGUMENTS
    with pytest.raises(ValueError, match="n_top"):
        model.get_marker_genes(n_top=0)
    with pytest.raises(KeyError):
        model.get_marker_genes(groupby="nothing")
    model.save(tmp_path / "model")
    scrcl.SCRCL.load(tmp_path / "model", adata)
    pd.testing.assert_frame_equal(adata.obs, before)
    assert list(adata.var) == ["scrcl_genes"]


def test_what_is_registered_is_found():
    adata = simulate()
    adata.obs["plate"] = ["x", "y"] * 75
    scrcl.SCRCL.setup_anndata(adata, labels_key="cell_type", batch_key="plate")
    manager = scrcl.SCRCL(adata).adata_manager
    assert manager.get_from_registry("batch").ravel().tolist() == [0, 1] * 75
    assert manager.get_from_registry("labels").ravel().tolist() == adata.obs["cell_type"].astype(int).tolist()
    assert manager.get_from_registry("X").shape == adata.shape
