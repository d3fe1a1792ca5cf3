"""Columns of ``obs`` of every type: a batch, slice or label is the same whatever the type of its values."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

import scrcl
from scrcl.data.columns import read_labels
from scrcl.utils.errors import ScrclKeyError, ScrclTypeError, ScrclWarning

from ..helpers import build
from .builders import typed

#: Batches 1 and 2 as they may be kept.
KINDS = {
    "float": lambda values: values.astype(float),
    "int8": lambda values: values.astype(np.int8),
    "Int64": lambda values: pd.array(values, dtype="Int64"),
    "text": lambda values: values.astype(str),
    "string": lambda values: pd.array(values.astype(str), dtype="string"),
    "category": lambda values: pd.Categorical(values.astype(float)),
    "text of numbers": lambda values: values.astype(float).astype(str),
    "mixed": lambda values: np.array([value if value == 1 else str(value) for value in values], dtype=object),
}


@pytest.fixture(scope="module")
def of_batches():
    adata = typed()
    second = adata.obs["plate"] == 2
    rates = np.random.default_rng(1).lognormal(0, 1.2, adata.n_vars)
    x = adata.X.toarray()
    x[second] = np.round(x[second] * rates) + (np.arange(adata.n_vars) == 0)
    adata.X = x
    return build(adata, epochs=2, setup={"batch_key": "plate"})


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_further_data(of_batches, kind):
    query = of_batches.adata[:40].copy()
    query.obs["plate"] = KINDS[kind](query.obs["plate"].to_numpy())
    expected = of_batches.get_latent_representation()[:40]
    np.testing.assert_allclose(of_batches.get_latent_representation(query), expected, atol=1e-5)


def test_batches_of_mixed_types_and_bytes():
    for values in ([1, "2b"], [b"one", b"two"], [True, False], [1.5, "x"]):
        adata = typed()
        adata.obs["donor"] = np.array(values * (adata.n_obs // 2), dtype=object)
        scrcl.SCRCL.setup_anndata(adata, batch_key="donor")
        assert len(scrcl.SCRCL(adata, n_components=5).reference_["batches"]["names"]) == 2


def test_slices_of_any_type():
    adata = typed()
    expected = build(adata, epochs=1, setup={"spatial_key": "spatial", "sample_key": "plate"})
    for kind in ("float", "Int64", "mixed", "category"):
        other = typed()
        other.obs["plate"] = KINDS[kind](other.obs["plate"].to_numpy())
        scrcl.SCRCL.setup_anndata(other, spatial_key="spatial", sample_key="plate")
        slices = scrcl.SCRCL(other, n_components=10, n_hidden=16, n_refined=8).reference_["spatial"]["slices"]
        assert list(slices["names"]) == list(expected.reference_["spatial"]["slices"]["names"]) == ["1", "2"]


@pytest.mark.parametrize(
    ("values", "unlabelled"),
    [
        (pd.array(["T", "B", None, "Unknown"], dtype="string"), "Unknown"),
        (pd.array([1, 2, None, 9], dtype="Int64"), 9),
        (pd.array([1, 2, None, 9], dtype="Int64"), "9"),
        (pd.array([1, 2, None, 9], dtype="Float64"), 9),
        (np.array([1.0, 2.0, np.nan, 9.0]), np.int64(9)),
        (pd.array([True, None, None, False], dtype="boolean"), False),
        (pd.Categorical(["T", "B", None, "?"]), "?"),
        (np.array(["T", 2, None, "?"], dtype=object), "?"),
    ],
)
def test_labels_that_are_missing(values, unlabelled):
    adata = typed()
    adata.obs["type"] = pd.Series(values).take(np.tile(np.arange(4), adata.n_obs // 4)).array
    found = read_labels(adata, "type", unlabelled)
    assert [value is None for value in found[:4]][2:] == [True, True]
    scrcl.SCRCL.setup_anndata(adata, labels_key="type", unlabeled_category=unlabelled)
    model = scrcl.SCRCL(adata, n_components=5)
    assert set(model.reference_["labels"]["names"]) == {name for name in found if name is not None}


def test_a_column_that_is_there_twice():
    adata = typed()
    adata.obs = pd.concat([adata.obs, adata.obs[["plate"]]], axis=1)
    with pytest.raises(ValueError, match=r"adata.obs\['plate'\] is the name of 2 columns"):
        scrcl.SCRCL.setup_anndata(adata, batch_key="plate")


def test_entries_of_space_that_are_no_slices():
    """As CELLxGENE writes them."""
    adata = typed()
    library = {"images": {"hires": np.ones((50, 50, 3), np.float32)}, "scalefactors": {"tissue_hires_scalef": 0.5}}
    for entry in (
        {"is_single": np.True_, "lib": library},
        {"is_single": False},
        {"is_single": True, "lib": {"scalefactors": {}}, "other": library},
        np.zeros(3),
    ):
        adata.uns["spatial"] = entry
        shown = isinstance(entry, dict) and any(value is library for value in entry.values())
        axes = scrcl.pl.spatial(adata, color="kind")
        assert isinstance(axes, Axes)
        assert len(axes.images) == shown
    adata.uns["spatial"] = {"is_single": True, "1": library, "2": library}
    adata.obs["plate"] = adata.obs["plate"].astype(float)
    panels = scrcl.pl.spatial(adata, color="kind", sample_key="plate")
    assert isinstance(panels, list)
    assert [len(panel.images) for panel in panels] == [1, 1]


def test_more_batches_than_can_be_told_apart():
    """Names of cells, or of wells, taken for batches."""
    adata = ad.AnnData(np.ones((25_100, 3), dtype=np.float32))
    adata.obs["well"] = np.arange(25_100) % 2_510
    with pytest.raises(ValueError, match="batch_key='well' has 2,510 batches, more than the 2,500"):
        scrcl.SCRCL.setup_anndata(adata, batch_key="well")


def test_all_cells_at_one_position():
    """As coordinates are written that are missing."""
    adata = typed()
    adata.obsm["spatial"][:] = 0
    with pytest.raises(ValueError, match=r"the same position, \[0.0, 0.0\], for 120 cells of the data"):
        scrcl.SCRCL.setup_anndata(adata, spatial_key="spatial")
    adata = typed()
    adata.obsm["spatial"][::2] = 0
    with pytest.raises(ValueError, match=r"for 60 cells of the slice '1'"):
        scrcl.SCRCL.setup_anndata(adata, spatial_key="spatial", sample_key="plate")


@pytest.mark.parametrize("key", ["labels_key", "batch_key"])
@pytest.mark.parametrize(
    ("values", "clue"),
    [
        (["T", "B", "T ", "B"], r"has 'T' and 'T ', which differ .*str.strip\(\)`"),
        (["T cell", "B", "t  cell", "B"], r"has 'T cell' and 't  cell', which differ"),
        (["T", "nan", "T", "B"], r"the (label|value) 'nan', which counts as a (type|name)"),
    ],
)
def test_names_that_are_nearly_the_same_or_missing(key, values, clue):
    adata = typed()
    adata.obs["own"] = values * (adata.n_obs // 4)
    with pytest.warns(ScrclWarning, match=clue) as caught:
        scrcl.SCRCL.setup_anndata(adata, **{key: "own"})
    warning = (
        str(next(record.message for record in caught if "differ" in str(record.message))) if "differ" in clue else ""
    )
    if warning:
        exec(warning.split("`")[1])
        with warnings.catch_warnings():
            warnings.simplefilter("error", ScrclWarning)
            scrcl.SCRCL.setup_anndata(adata, **{key: "own"})


def test_columns_of_containers_and_keys_that_are_no_names():
    adata = typed()
    adata.obs["own"] = [["a"]] * adata.n_obs
    for key in ("labels_key", "batch_key"):
        with pytest.raises(ScrclTypeError, match="are in containers"):
            scrcl.SCRCL.setup_anndata(adata, **{key: "own"})
        with pytest.raises(ScrclTypeError, match=f"{key} of type Series is not (one|a) key of adata.obs"):
            scrcl.SCRCL.setup_anndata(adata, **{key: adata.obs["kind"]})


@pytest.mark.parametrize("key", [["x", "y"], ("x", "y"), "x"])
def test_coordinates_in_columns(key):
    adata = typed()
    adata.obs[["x", "y"]] = adata.obsm.pop("spatial")
    with pytest.raises(ScrclKeyError, match="is in adata.obs, but coordinates are read from adata.obsm") as error:
        scrcl.SCRCL.setup_anndata(adata, spatial_key=key)
    exec(str(error.value).split("`")[1])
    scrcl.SCRCL.setup_anndata(adata, spatial_key="spatial")
