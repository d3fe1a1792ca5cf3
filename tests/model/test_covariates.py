"""Several columns of batches, and conditions that are protected: what is refused."""

import warnings

import numpy as np
import pytest

import scrcl
from scrcl.data.columns import read_batches
from scrcl.utils.errors import ScrclKeyError, ScrclTypeError, ScrclValueError, ScrclWarning
from tests.helpers import simulate


def cells(**columns):
    adata = simulate(160)
    for name, values in columns.items():
        adata.obs[name] = np.resize(np.array(values, dtype=object), 160)
    return adata


def setup(adata, **kwargs) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ScrclWarning)
        scrcl.SCRCL.setup_anndata(adata, **kwargs)


@pytest.mark.parametrize("kind", [list, tuple])
def test_each_combination_of_several_columns_is_a_batch(kind):
    adata = cells(chemistry=["v2", "v3"], donor=[1.0, 1.0, 2.0, 2.0])
    setup(adata, batch_key=kind(["chemistry", "donor"]))
    assert set(read_batches(adata, ["chemistry", "donor"])) == {"v2 | 1", "v2 | 2", "v3 | 1", "v3 | 2"}


@pytest.mark.parametrize(
    ("keys", "error", "match"),
    [
        ([], ScrclTypeError, r"batch_key=\[\] is not a key of adata.obs, or several"),
        (["donor", 3], ScrclTypeError, "is not a key of adata.obs, or several"),
        (["donor", "donor"], ScrclValueError, "names a column twice"),
        (["donor", "doner"], ScrclKeyError, "batch_key='doner'"),
        (["donor", "cell_type"], ScrclValueError, "is the same column as labels_key"),
        (["donor", "gap"], ScrclValueError, r"adata.obs\['gap'\] is missing for 80 of 160 cells"),
        (["donor", "many"], ScrclValueError, r"adata.obs\[\['donor', 'many'\]\] has batches of fewer than 10 cells"),
        (["bars", "more"], ScrclValueError, r"has names that contain ' \| '"),
    ],
)
def test_columns_that_do_not_name_batches(keys, error, match):
    adata = cells(donor=["a", "b"], gap=["x", "x", None, None], bars=["a | b", "a"], more=["c", "b | c"])
    adata.obs["many"] = np.arange(160) // 4
    with pytest.raises(error, match=match):
        setup(adata, batch_key=keys, labels_key="cell_type")


def test_crossed_conditions_are_accepted():
    setup(cells(donor=["a", "b"], state=["c", "c", "t", "t"]), batch_key="donor", condition_key="state")
    # A chain: no batch has all conditions.
    chain = cells(donor=["a", "a", "b", "b"], state=["c", "t", "t", "u"])
    setup(chain, batch_key="donor", condition_key="state")


@pytest.mark.parametrize("rare", [0, 9])
def test_confounded_conditions_are_refused(rare):
    adata = cells(donor=["a", "b", "d", "e"], state=["control", "control", "treated", "treated"])
    first = np.flatnonzero(adata.obs["donor"] == "a")[:rare]
    adata.obs.iloc[first, adata.obs.columns.get_loc("state")] = "treated"
    with pytest.raises(ScrclValueError, match="condition_key='state' is confounded with batch_key='donor'") as error:
        setup(adata, batch_key="donor", condition_key="state")
    assert "'control' and 'treated'" in error.value.what
    assert "--condition-key='state'" in error.value.as_command("cells.h5ad", error.value.options)
    setup(adata, batch_key="donor")


def test_conditions_that_are_none():
    adata = cells(donor=["a", "b"], state=["c", "c", "t", "t"], gap=["x", None, "y"], one=["same"])
    with pytest.raises(ScrclValueError, match="condition_key='state' requires batches"):
        setup(adata, condition_key="state")
    with pytest.raises(ScrclKeyError, match="condition_key='stat' .*Did you mean"):
        setup(adata, batch_key="donor", condition_key="stat")
    with pytest.raises(ScrclTypeError, match=r"condition_key=\['state'\] is not one key"):
        setup(adata, batch_key="donor", condition_key=["state"])
    with pytest.raises(ScrclValueError, match=r"adata.obs\['gap'\] is missing .* Name the condition"):
        setup(adata, batch_key="donor", condition_key="gap")
    with pytest.warns(ScrclWarning, match="nothing to protect"):
        scrcl.SCRCL.setup_anndata(adata, batch_key="donor", condition_key="one")


@pytest.mark.parametrize("key", ["slice", "library_id", "batch"])
def test_slices_that_lie_over_each_other_without_a_key(key):
    tissue = scrcl.datasets.layered_tissue(80)
    tissue.obs = tissue.obs.rename(columns={"slice": key})
    with pytest.warns(
        ScrclWarning, match=f"has cells of 'slice1' and 'slice2' at overlapping.*`sample_key='{key}'`"
    ) as found:
        scrcl.SCRCL.setup_anndata(tissue, spatial_key="spatial")
    (warning,) = [one.message for one in found if isinstance(one.message, ScrclWarning)]
    assert f"pass `sample_key={key!r}`" in str(warning)
    setup(tissue, spatial_key="spatial", sample_key=key)
    tissue.obsm["spatial"][(tissue.obs[key] == "slice2").to_numpy(), 0] += 5000  # beside each other
    setup(tissue, spatial_key="spatial")
