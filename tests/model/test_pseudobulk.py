"""Sums of counts by sample and group, against scanpy."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import scrcl
from scrcl.utils.errors import ScrclKeyError, ScrclTypeError, ScrclValueError, ScrclWarning
from tests.helpers import build, simulate


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    adata = simulate(240)
    rng = np.random.default_rng(0)
    adata.obs["donor"] = rng.integers(3, size=240)  # numbers, as in many files
    adata.obs["condition"] = pd.Categorical(rng.choice(["control", "treated"], 240))
    adata.obs["sex"] = np.array(["f", "m", "f"])[adata.obs["donor"]]
    adata.obs["age"] = np.array([30.5, np.nan, 61.0])[adata.obs["donor"]]
    adata.var["symbol"] = [f"S{i}" for i in range(adata.n_vars)]
    return adata


@pytest.fixture(scope="module")
def model(cells) -> scrcl.SCRCL:
    return build(cells)


def test_sums_are_those_of_scanpy(cells, model):
    found = model.get_pseudobulk(["donor", "condition"], groupby="cell_type", min_cells=1)
    expected = sc.get.aggregate(
        ad.AnnData(cells.X, cells.obs.astype(str), cells.var), by=["donor", "condition", "cell_type"], func="sum"
    )
    names = expected.obs[["donor", "condition", "cell_type"]].astype(str).agg(" ".join, axis=1)
    sums = pd.DataFrame(expected.layers["sum"], index=names, columns=expected.var_names)
    assert set(found.obs_names) == set(names)
    np.testing.assert_array_equal(found.X, sums.loc[found.obs_names].to_numpy())
    assert np.issubdtype(found.X.dtype, np.integer)
    assert found.X.sum() == cells.X.sum()
    np.testing.assert_array_equal(found.obs["n_counts"], found.X.sum(1))
    assert found.obs["n_cells"].sum() == 240
    assert list(found.var["symbol"]) == list(cells.var["symbol"])
    assert "scrcl_genes" not in found.var


def test_columns_that_belong_to_samples_are_kept(model):
    found = model.get_pseudobulk("donor", groupby="cell_type", min_cells=1)
    assert set(found.obs) == {"donor", "cell_type", "n_cells", "n_counts", "sex", "age"}
    assert list(found.obs["sex"]) == [{"0": "f", "1": "m", "2": "f"}[donor] for donor in found.obs["donor"]]


def test_the_default_groups_are_the_clusters(cells, model):
    found = model.get_pseudobulk("donor", min_cells=1)
    clusters = pd.crosstab(cells.obs["donor"].astype(str), model.get_clusters().to_numpy(str))
    for donor, cluster, size in zip(found.obs["donor"], found.obs["scrcl"], found.obs["n_cells"], strict=True):
        assert clusters.loc[donor, cluster] == size


def test_small_samples_and_cells_without_a_sample_are_left_out(cells):
    data = cells.copy()
    data.obs["donor"] = data.obs["donor"].astype(str).where(np.arange(240) >= 5, None)
    data.obs["cell_type"] = data.obs["cell_type"].astype(str)
    data.obs.iloc[5:12, data.obs.columns.get_loc("cell_type")] = "rare"
    model = build(data, epochs=1)
    assert "rare" in set(model.get_pseudobulk("donor", "cell_type", min_cells=1).obs["cell_type"])
    found = model.get_pseudobulk("donor", "cell_type")
    assert found.obs["n_cells"].min() >= 10
    assert "rare" not in set(found.obs["cell_type"])
    with pytest.raises(ScrclValueError, match="min_cells=500 is more than any sample has"):
        model.get_pseudobulk("donor", "cell_type", min_cells=500)


def test_counts_in_a_file_and_in_a_layer(cells, model, tmp_path):
    cells.copy().write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    expected = model.get_pseudobulk("donor", "cell_type")
    np.testing.assert_array_equal(model.get_pseudobulk("donor", "cell_type", adata=backed).X, expected.X)
    layered = ad.AnnData(np.log1p(cells.X), cells.obs, cells.var, layers={"counts": cells.X})
    other = build(layered, epochs=1, setup={"layer": "counts"})
    np.testing.assert_array_equal(other.get_pseudobulk("donor", "cell_type").X, expected.X)


def test_of_several_modalities_one_is_summed():
    from tests.saved.make_golden import several, train

    mdata = several()
    mdata.obs["donor"] = np.repeat(["a", "b"], mdata.n_obs // 2)
    model = train(mdata, {"modalities": {"rna": "rna", "prot": "protein"}})
    rna, proteins = (model.get_pseudobulk("donor", min_cells=1, modality=name) for name in (None, "prot"))
    assert rna.X.sum() == mdata["rna"].X.sum()
    assert proteins.X.sum() == mdata["prot"].X.sum()


def test_names_that_coincide_are_numbered_without_a_warning(cells, model, recwarn):
    """Donor "a b" of type "c", and donor "a" of type "b c"."""
    data = cells.copy()
    data.obs["donor"] = np.where(np.arange(data.n_obs) % 2, "a b", "a")
    data.obs["cell_type"] = np.where(np.arange(data.n_obs) % 3, "c", "b c")
    recwarn.clear()
    found = model.get_pseudobulk("donor", groupby="cell_type", adata=data)
    assert sorted(found.obs_names) == ["a b b c", "a b c", "a b c-1", "a c"]
    assert not [warning for warning in recwarn if "not unique" in str(warning.message)]


def test_columns_of_containers_are_left_out(cells, model):
    data = cells.copy()
    data.obs["parts"] = [{"a": 1}] * data.n_obs
    assert "parts" not in model.get_pseudobulk("donor", groupby="cell_type", adata=data).obs
    with pytest.raises(ScrclTypeError, match="in containers"):
        model.get_pseudobulk("parts", groupby="cell_type", adata=data)


def test_samples_that_are_called_like_missing_ones(cells, model):
    """As unknown donors of many files, which would be summed like a donor."""
    data = cells.copy()
    data.obs["donor"] = pd.Categorical(
        data.obs["donor"].map({0: "a", 1: "b", 2: "NA"}), categories=["a", "b", "NA", "none"]
    )
    with pytest.warns(ScrclWarning, match=r"adata.obs\['donor'\] has the value 'NA', which counts as a name"):
        model.get_pseudobulk("donor", groupby="cell_type", adata=data)


def test_keys_that_name_columns_of_the_result_are_refused(cells, model):
    data = cells.copy()
    data.obs["n_cells"] = data.obs["donor"]
    with pytest.raises(ScrclValueError, match="sample_key='n_cells' is the name of a column of the result"):
        model.get_pseudobulk("n_cells", groupby="cell_type", adata=data)
    with pytest.raises(ScrclValueError, match="groupby='n_cells' is the name"):
        model.get_pseudobulk("donor", groupby="n_cells", adata=data)
    data.obs["donor"] = np.nan
    with pytest.raises(ScrclValueError, match="No cell has a sample .*values are missing"):
        model.get_pseudobulk("donor", groupby="cell_type", adata=data, min_cells=1)


def test_what_cannot_be_summed_is_refused(model):
    with pytest.raises(ScrclKeyError, match="sample_key='donors'"):
        model.get_pseudobulk("donors")
    with pytest.raises(ScrclTypeError, match="sample_key=3"):
        model.get_pseudobulk(3)
    with pytest.raises(ScrclValueError, match="names a column twice"):
        model.get_pseudobulk(["donor", "donor"])
    with pytest.raises(ScrclValueError, match="groupby='donor' is among sample_key"):
        model.get_pseudobulk("donor", groupby="donor")
