"""What is beside a saved model: data that are read from a file, and what an earlier model left."""

from pathlib import Path
from typing import Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import torch

import scrcl
from scrcl.cli.config import PredictConfig
from scrcl.cli.options import parse
from scrcl.data.networks import read_gene_sets, read_network
from scrcl.utils.errors import ScrclTypeError, ScrclValueError

from ..helpers import build
from .builders import lazy, typed

SETUP = {"layer": "umi"}


@pytest.fixture
def backed(tmp_path):
    typed().write_h5ad(tmp_path / "backed.h5ad")
    data = ad.read_h5ad(tmp_path / "backed.h5ad", backed="r")
    yield data
    data.file.close()


@pytest.mark.parametrize("times", [1, 2])
def test_backed_data_stay_with_their_file(backed, tmp_path, times):
    """Saving a model and its data leaves the user's object where it was, open, and with what it held."""
    model = build(backed, epochs=1)
    before, expected = backed.X[:5].toarray(), model.get_latent_representation()
    for _ in range(times):
        model.save(tmp_path / "m", save_anndata=True, overwrite=True)
    assert Path(backed.filename).resolve() == (tmp_path / "backed.h5ad").resolve()
    np.testing.assert_array_equal(backed.X[:5].toarray(), before)
    again = scrcl.SCRCL.load(tmp_path / "m", accelerator="cpu")
    np.testing.assert_allclose(again.get_latent_representation(), expected, atol=1e-6)
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "m" / "adata.h5ad").X[:5].toarray(), before)


def test_an_earlier_file_of_data_does_not_go_with_the_new_model(tmp_path):
    first, second = build(typed(), epochs=1), build(typed(90, seed=1), epochs=1)
    first.save(tmp_path / "m", save_anndata=True)
    first.save(tmp_path / "m", prefix="kept_", overwrite=True, save_anndata=True)
    (tmp_path / "m" / "notes.txt").write_text("the user's own")
    second.save(tmp_path / "m", overwrite=True)
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == [
        "kept_adata.h5ad",
        "kept_model.pt",
        "model.pt",
        "notes.txt",
    ]
    with pytest.warns(UserWarning, match="loaded without data"):
        assert scrcl.SCRCL.load(tmp_path / "m", accelerator="cpu").adata is None


def test_data_of_another_kind_do_not_stay_beside_the_model(tmp_path):
    build(typed(), epochs=1).save(tmp_path / "m", save_anndata=True)
    mdata = mudata.MuData({"rna": typed()})
    scrcl.SCRCL.setup_mudata(mdata, {"rna": "rna"})
    several = scrcl.SCRCL(mdata, n_hidden=8, n_components=5)
    several.train(1, enable_progress_bar=False)
    several.save(tmp_path / "m", overwrite=True, save_anndata=True)
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == ["mdata.h5mu", "model.pt"]


def test_a_failure_leaves_the_earlier_files(tmp_path, monkeypatch):
    model = build(typed(), epochs=1)
    model.save(tmp_path / "m", save_anndata=True)

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(ad.io, "write_h5ad", full)
    with pytest.raises(OSError, match="No space left on device"):
        model.save(tmp_path / "m", overwrite=True, save_anndata=True)
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == ["adata.h5ad", "model.pt"]


def test_names_of_nullable_strings_are_saved(tmp_path):
    adata = typed()
    adata.obs_names = adata.obs_names.astype("string")
    model = build(adata, epochs=1)
    model.save(tmp_path / "m", save_anndata=True)
    again = scrcl.SCRCL.load(tmp_path / "m", accelerator="cpu")
    assert list(again.adata.obs_names) == list(adata.obs_names)
    assert again.get_mapping_quality()["known"].all()


@pytest.mark.parametrize(
    "values",
    [[1, "x"], pd.to_datetime(["2020-01-01", "2021-01-01"]), [(1, 2), (3, 4)]],
    ids=["mixed", "dates", "tuples"],
)
def test_data_that_no_file_can_hold(values, tmp_path):
    """The column is named, what is there stays, and the model can be saved by itself."""
    model = build(typed(), epochs=1)
    model.adata.obs["mine"] = list(values) * (model.adata.n_obs // 2)
    with pytest.raises(ScrclValueError, match=r"save_anndata=True cannot write .*mine.*without `save_anndata`"):
        model.save(tmp_path / "m", save_anndata=True)
    assert not list(tmp_path.iterdir())
    model.save(tmp_path / "m")
    scrcl.SCRCL.load(tmp_path / "m", model.adata, accelerator="cpu")


def test_data_that_are_read_lazily_are_saved(tmp_path):
    adata = typed()
    adata.obs["kind"] = adata.obs["kind"].astype("category")
    model = build(lazy(adata, tmp_path), epochs=1)
    expected = model.get_latent_representation()
    model.save(tmp_path / "m", save_anndata=True)
    again = scrcl.SCRCL.load(tmp_path / "m", accelerator="cpu")
    np.testing.assert_allclose(again.get_latent_representation(), expected, atol=1e-6)
    np.testing.assert_array_equal(again.adata.X.toarray(), adata.X.toarray())


def test_folders_that_cannot_be_made(tmp_path):
    model, file = build(typed(), epochs=1), tmp_path / "file"
    file.write_text("the user's own")
    for folder in (file / "m", Path("/proc/m")):
        with pytest.raises(OSError, match=rf"cannot be saved to dir_path='{folder}'.*name another folder"):
            model.save(folder)
    for overwrite in (False, True):
        with pytest.raises(ScrclValueError, match="is a file. Name a folder"):
            model.save(file, overwrite=overwrite)
    assert file.read_text() == "the user's own"


def test_a_device_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = build(typed(), epochs=1)
    model.save(tmp_path / "m")
    for accelerator in ("gpu", "cuda", "tpu", "cudaa"):
        for call in (
            lambda name=accelerator: model.train(1, accelerator=name),
            lambda name=accelerator: scrcl.SCRCL.load(tmp_path / "m", model.adata, accelerator=name),
        ):
            with pytest.raises(ScrclValueError, match=f"accelerator='{accelerator}'.*not available.*accelerator='cpu'"):
                call()


def test_the_file_in_the_place_of_its_folder(tmp_path):
    model = build(typed(), epochs=1)
    model.save(tmp_path / "m")
    with pytest.raises(ScrclValueError, match=f"is a file. Name its folder: '{tmp_path / 'm'}'"):
        scrcl.SCRCL.load(tmp_path / "m" / "model.pt", model.adata)


def test_the_home_of_the_user(tmp_path, monkeypatch):
    """``~`` is the home in every path, not a folder of this name; a name that only holds one stays."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(elsewhere)
    adata = typed()
    model = build(adata, epochs=1, setup={"batch_key": "plate"})
    model.save("~/m", save_anndata=True)
    assert (home / "m" / "model.pt").is_file()
    assert scrcl.SCRCL.load("~/m", accelerator="cpu").adata.n_obs == adata.n_obs
    assert scrcl.SCRCL.load_registry("~/m")["model_name"] == "SCRCL"
    assert scrcl.SCRCL.load_query_data(adata.copy(), Path("~/m"), accelerator="cpu").adata.n_obs == adata.n_obs
    first, second = adata.var_names[:2]
    (home / "pairs.csv").write_text(f"source,target\n{first},{second}\n")
    assert read_network("~/pairs.csv", adata.var_names, adata.var_names).n_pairs == 1
    (home / "sets.gmt").write_text(f"one\t-\t{first}\t{second}\n")
    assert read_gene_sets("~/sets.gmt", "markers") == {"one": [first, second]}
    config = parse(["predict", "~/m", "~/in.h5ad", "--output=~/out.h5ad"])
    assert isinstance(config, PredictConfig)
    assert (config.model, config.input, config.output) == (home / "m", home / "in.h5ad", home / "out.h5ad")
    model.save("a~b")
    assert [path.name for path in elsewhere.iterdir()] == ["a~b"]


def test_what_is_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = build(typed(), epochs=1, setup={"batch_key": "plate"})
    number: Any = 5
    for prefix in ("a/b", "/a", number):
        with pytest.raises(ScrclValueError, match=f"prefix={prefix!r} is not the beginning of the name"):
            model.save("m", prefix=prefix)
    with pytest.raises(ScrclValueError, match="'s3://bucket/m' is an address"):
        model.save("s3://bucket/m")
    assert not list(tmp_path.iterdir())
    for call in (lambda: model.save(number), lambda: scrcl.SCRCL.load(number)):
        with pytest.raises(ScrclTypeError, match="^dir_path is of type int, not a path"):
            call()
    with pytest.raises(ScrclTypeError, match="^reference_model is of type int, not SCRCL"):
        scrcl.SCRCL.load_query_data(model.adata, number)
