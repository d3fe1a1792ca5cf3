"""Counts of every kind of array, and elsewhere than where they are looked for; names of genes of every kind."""

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from mudata import MuData

import scrcl
from scrcl.data.counts import Counts
from scrcl.utils.errors import ScrclError

from ..helpers import build, simulate
from .builders import normalised, typed


def type_remedy(call, command="--layer", **names) -> dict:
    """Do what the refusal of a call says, and return the names as they are then."""
    with pytest.raises(ScrclError) as error:
        call()
    (line,) = re.findall("`([^`]*)`", error.value.remedy)
    assert str(error.value).endswith(error.value.remedy)
    assert command in error.value.command
    scope = {"SCRCL": scrcl.SCRCL, **names}
    exec(line, scope)
    return scope


#: Counts as they may be kept.
ARRAYS = {
    "half": lambda x: x.toarray().astype(np.float16),
    "big-endian": lambda x: x.toarray().astype(">f4"),
    "big-endian integers": lambda x: x.toarray().astype(">i4"),
    "uint8": lambda x: x.toarray().astype(np.uint8),
    "int64": lambda x: x.toarray().astype(np.int64),
    "columns first": lambda x: np.asfortranarray(x.toarray().astype(float)),
    "masked": lambda x: np.ma.MaskedArray(x.toarray()),
    "csc": lambda x: sp.csc_matrix(x),
    "coo": lambda x: sp.coo_matrix(x),
    "lil": lambda x: sp.lil_matrix(x),
    "bsr": lambda x: sp.bsr_matrix(x, blocksize=(2, 2)),
    "csr array": lambda x: sp.csr_array(x.astype(np.int16)),
    "table": lambda x: pd.DataFrame(x.toarray()),
    "dask of halves": lambda x: pytest.importorskip("dask.array").from_array(
        x.toarray().astype(np.float16), chunks=(7, 11)
    ),
    "dask of csr": lambda x: (
        pytest.importorskip("dask.array").from_array(x.toarray(), chunks=(7, 11)).map_blocks(sp.csr_matrix)
    ),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays(kind):
    x = sp.csr_matrix(simulate(20, 24).X)
    found = Counts.of(ARRAYS[kind](x), "adata.X").read()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), x.toarray())


def test_arrays_that_cannot_be_written_to():
    x = simulate(20, 24).X
    zeros = sp.csr_matrix((np.r_[x.data, 0], np.r_[x.indices, 5], np.r_[x.indptr[:-1], x.indptr[-1] + 1]), x.shape)
    for matrix in (x, zeros, x.tocsc()):
        for part in (matrix.data, matrix.indices, matrix.indptr):
            part.flags.writeable = False
        np.testing.assert_array_equal(Counts.of(matrix, "adata.X").read().toarray(), x.toarray())
    dense = x.toarray()
    dense.flags.writeable = False
    np.testing.assert_array_equal(Counts.of(dense, "adata.X").read().toarray(), dense)


def test_what_is_no_counts():
    x = simulate(20, 24).X.toarray()
    masked = np.ma.masked_where(np.arange(480).reshape(20, 24) // 24 == 3, x)
    for matrix, words in ((masked, "24 masked values"), (x.astype(complex), "complex"), (x.astype(object), "object")):
        with pytest.raises(ValueError, match=words):
            Counts.of(matrix, "adata.X").read()


def test_a_model_of_half_precision():
    """Everything of the data, not the counts alone."""
    adata, expected = typed(), typed()
    adata.X = adata.X.toarray().astype(np.float16)
    adata.obsm["spatial"] = adata.obsm["spatial"].astype(">f4")
    expected.obsm["spatial"] = expected.obsm["spatial"].astype(np.float32)
    models = [build(data, epochs=1, setup={"spatial_key": "spatial"}) for data in (adata, expected)]
    first, second = (model.get_latent_representation() for model in models)
    np.testing.assert_array_equal(first, second)


def test_embedding_that_is_masked_or_no_numbers():
    adata = typed()
    own = adata.obsm["X_own"]
    adata.obsm["X_own"] = np.ma.masked_equal(own, own[3, 4])
    with pytest.raises(ValueError, match="NaN"):
        scrcl.SCRCL.setup_anndata(adata, features_key="X_own")
    adata.obsm["X_own"] = own.astype(">f8")
    scrcl.SCRCL.setup_anndata(adata, features_key="X_own")
    adata.obsm["X_own"] = pd.DataFrame({"a": ["x"] * adata.n_obs}, index=adata.obs_names)
    with pytest.raises(ValueError, match="not a table of finite numbers"):
        scrcl.SCRCL.setup_anndata(adata, features_key="X_own")


# ------------------------------------------------------------------------------------------------ counts elsewhere


@pytest.mark.parametrize("backed", [False, True])
def test_counts_in_a_layer(backed, tmp_path):
    adata = normalised(typed())
    adata.layers["scaled"] = adata.X - 1
    adata.layers["spliced"] = (typed().X > 1).astype(np.float32) * 2
    adata.layers["umi"] = typed().X
    adata.layers["expressed"] = (adata.X > 0).astype(np.float32)
    adata.raw = ad.AnnData(typed().X, var=pd.DataFrame(index=typed().var_names))
    if backed:
        adata.write_h5ad(tmp_path / "backed.h5ad")
        adata = ad.read_h5ad(tmp_path / "backed.h5ad", backed="r")
    for layer in (None, "scaled", "missing_from_here"):
        if layer != "missing_from_here":
            type_remedy(lambda layer=layer: scrcl.SCRCL.setup_anndata(adata, layer=layer), adata=adata)
            assert scrcl.SCRCL(adata, n_components=5).registry["setup_args"]["layer"] == "umi"
    with pytest.raises(KeyError, match="Did you mean 'umi'"):
        scrcl.SCRCL.setup_anndata(adata, layer="umis")


def test_counts_in_x_and_in_raw():
    adata = typed()
    adata.layers["log"] = np.log1p(adata.X.toarray())
    type_remedy(lambda: scrcl.SCRCL.setup_anndata(adata, layer="log"), adata=adata)
    adata = normalised(typed())
    adata.raw = typed()
    adata = adata[:, :30].copy()  # raw has more genes
    data = type_remedy(lambda: scrcl.SCRCL.setup_anndata(adata, spatial_key="spatial"), adata=adata)["adata"]
    scrcl.SCRCL.setup_anndata(data, spatial_key="spatial", batch_key="plate")
    assert data.n_vars == 60


@pytest.mark.parametrize("name", ["raw", "X", "it's"])
def test_counts_in_a_layer_with_a_name_of_another_place(name):
    adata = normalised(typed())
    adata.layers[name] = typed().X
    type_remedy(lambda: scrcl.SCRCL.setup_anndata(adata), adata=adata)
    assert scrcl.SCRCL(adata, n_components=5).registry["setup_args"]["layer"] == name
    model, query = build(typed(), epochs=1), adata.copy()
    query = type_remedy(lambda: model.get_latent_representation(query), adata=query)["adata"]
    np.testing.assert_allclose(model.get_latent_representation(query), model.get_latent_representation(), atol=1e-5)


def test_counts_that_are_nowhere():
    adata = normalised(typed())
    adata.raw = adata.copy()
    adata.layers["none"] = np.zeros(adata.shape)
    with pytest.raises(ScrclError, match="neither X, nor a layer, nor `raw` holds any in adata"):
        scrcl.SCRCL.setup_anndata(adata)
    adata.X = None
    adata.layers["umi"] = typed().X
    type_remedy(lambda: scrcl.SCRCL.setup_anndata(adata), adata=adata)


@pytest.fixture(scope="module")
def models():
    return {layer: build(typed(), epochs=1, setup={"layer": layer}) for layer in (None, "umi")}


@pytest.mark.parametrize("layer", [None, "umi"])
@pytest.mark.parametrize("place", ["X", "counts", "raw"])
def test_counts_of_new_data(models, layer, place):
    model, query = models[layer], normalised(typed())
    if place == "X":
        query.X = typed().X
    elif place == "raw":
        query.raw = typed()
    else:
        query.layers["counts"] = typed().X
    expected = model.get_latent_representation()
    if (layer, place) != (None, "X"):
        query = type_remedy(lambda: model.get_latent_representation(query), adata=query)["adata"]
    np.testing.assert_allclose(model.get_latent_representation(query), expected, atol=1e-5)


@pytest.mark.parametrize("place", ["umi", "raw"])
def test_counts_of_modalities(place):
    def both():
        one, other = typed(), typed(seed=1)
        other.var_names = [f"protein{number}" for number in range(other.n_vars)]
        return MuData({"rna": one, "prot": other})

    modalities = {"rna": "rna", "prot": "protein"}
    mdata = both()
    mdata.mod["rna"] = normalised(mdata["rna"])
    if place == "raw":
        mdata["rna"].raw = typed()
    else:
        mdata["rna"].layers["umi"] = typed().X
    broken = mdata.copy()
    names = type_remedy(lambda: scrcl.SCRCL.setup_mudata(mdata, modalities), mdata=mdata, modalities=modalities)
    scrcl.SCRCL.setup_mudata(names["mdata"], modalities, layers={"rna": "umi"} if place == "umi" else None)
    data = both()
    scrcl.SCRCL.setup_mudata(data, modalities)
    model = scrcl.SCRCL(data, n_components=5)
    model.train(1)
    names = type_remedy(lambda: model.get_latent_representation(broken), mdata=broken)
    expected = model.get_latent_representation()
    np.testing.assert_allclose(model.get_latent_representation(names["mdata"]), expected, atol=1e-5)


@pytest.mark.parametrize("argument", ["layers", "features_keys"])
def test_a_key_without_its_modality(argument):
    mdata, wrong = MuData({"rna": typed()}), {argument: "umi"}
    with pytest.raises(ScrclError, match=rf"{argument}='umi' does not say .*`{argument}={{'rna': 'umi'}}`"):
        scrcl.SCRCL.setup_mudata(mdata, {"rna": "rna"}, **wrong)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- names of genes


@pytest.mark.parametrize("names", [[np.nan, np.nan], [None, "y"], ["", "y"], ["nan", "nan"], [pd.NA, ""]])
def test_names_that_are_missing(names):
    adata = typed()
    adata.var.index = pd.Index(["x", *names, *adata.var_names[3:]], dtype=object)
    with pytest.raises(ScrclError, match="names in adata.var_names (is|are) missing") as error:
        scrcl.SCRCL.setup_anndata(adata)
    scope = {"adata": adata}
    exec(re.findall("`([^`]*)`", error.value.remedy)[-1], scope)
    scrcl.SCRCL.setup_anndata(scope["adata"])
    assert 58 <= scope["adata"].n_vars <= 59


def test_names_that_are_numbers_or_twice():
    adata = typed()
    adata.var.index = pd.RangeIndex(adata.n_vars)
    model = build(adata, epochs=1)
    query = typed()
    query.var_names = [str(number) for number in range(query.n_vars)]
    expected = model.get_latent_representation()
    np.testing.assert_allclose(model.get_latent_representation(query), expected, atol=1e-5)
    assert list(model.get_cell_gene_associations(genes=[model.get_marker_genes(n_permutations=0)["gene"].iloc[0]]))
    adata.var.index = pd.Index(["1", 1, 2.0, *range(3, adata.n_vars)], dtype=object)
    with pytest.raises(ScrclError, match="occurs? more than once in adata.var_names"):
        scrcl.SCRCL.setup_anndata(adata)


#: Names of genes as they may be kept beside those in use, and what these are then.
NAMES_ELSEWHERE = {
    "as they are": lambda names: names,
    "categories": lambda names: pd.Categorical(names),
    "with versions": lambda names: [f"{name}.3" for name in names],
    "in lower case": lambda names: names.str.lower(),
    "some twice": lambda names: [*names[:-2], names[0], names[1]],
    "some missing": lambda names: [*names[:-2], None, None],
}


@pytest.mark.filterwarnings("ignore:.*missing from the data")
@pytest.mark.parametrize("kind", NAMES_ELSEWHERE)
@pytest.mark.parametrize("layer", [None, "umi"])
def test_names_of_new_data_in_a_column(models, layer, kind):
    model, query = models[layer], typed()
    expected = model.get_latent_representation()
    query.var["length"] = 1.5
    query.var["gene_ids"] = NAMES_ELSEWHERE[kind](query.var_names)
    query.var_names = [f"ENSG{number:011}" for number in range(query.n_vars)]
    latent = model.get_latent_representation(query)
    assert np.isfinite(latent).all()
    if not kind.startswith("some"):
        np.testing.assert_allclose(latent, expected, atol=1e-5)


@pytest.mark.parametrize("layer", [None, "umi"])
def test_genes_of_new_data_in_raw(models, layer):
    """A query of variable genes only, of which `raw` has all: the counts of `raw`, but not its logarithms."""
    model, query = models[layer], typed()[:, :20].copy()
    query.raw = typed()
    adata = type_remedy(lambda: model.get_latent_representation(query), adata=query)["adata"]
    np.testing.assert_allclose(model.get_latent_representation(adata), model.get_latent_representation(), atol=1e-5)
    query.raw = normalised(typed())
    with pytest.raises(ScrclError, match="Pass data with the same genes"):
        model.get_latent_representation(query)


def test_names_of_a_modality_in_a_column(tmp_path):
    mdata = MuData({"rna": typed()})
    scrcl.SCRCL.setup_mudata(mdata, {"rna": "rna"})
    model = scrcl.SCRCL(mdata, n_components=5)
    model.train(1)
    query = mdata.copy()
    query["rna"].var["symbol"] = query["rna"].var_names
    query["rna"].var_names = [f"x{number}" for number in range(query["rna"].n_vars)]
    expected = model.get_latent_representation()
    np.testing.assert_allclose(model.get_latent_representation(query), expected, atol=1e-5)
    model.save(tmp_path / "m")
    loaded = scrcl.SCRCL.load(tmp_path / "m", query)
    np.testing.assert_allclose(loaded.get_latent_representation(), expected, atol=1e-5)


def test_places_that_are_no_layer():
    adata = typed()
    type_remedy(lambda: scrcl.SCRCL.setup_anndata(adata, layer="X"), "leave out `--layer`", adata=adata)
    raw = normalised(adata)
    raw.raw = typed()
    with pytest.raises(ScrclError, match="layer='raw' is not in adata.layers. .*`adata = adata.raw.to_adata"):
        scrcl.SCRCL.setup_anndata(raw, layer="raw")


def test_nearly_whole_numbers_and_complex_ones():
    adata = typed()
    adata.X = adata.X.toarray().astype(float) + 1e-6
    with pytest.raises(ScrclError, match=r"\(e.g. \d+\.00000\d+\)|e-06"):
        scrcl.SCRCL.setup_anndata(adata)
    adata = typed()
    adata.obsm["X_own"] = adata.obsm["X_own"] + 1j
    with pytest.raises(ScrclError, match="adata.obsm\\['X_own'\\] holds complex numbers"):
        scrcl.SCRCL.setup_anndata(adata, features_key="X_own")
