"""Saving and loading; models saved by version 0.2 give the same results in later versions."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scvi
import torch

import scrcl
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.model.expression import gene_map

from ..helpers import build, simulate
from ..saved.make_model import FOLDER, SETUPS, as_data, results


@pytest.mark.parametrize("kind", SETUPS)
def test_saved_models_give_the_same_results_in_later_versions(kind):
    """`tests/saved/make_model.py` was run once by version 0.2; its files are never written again."""
    with np.load(FOLDER / kind / "results.npz") as arrays:
        saved = {
            part: {name.split("/")[1]: arrays[name] for name in arrays if name.startswith(part)}
            for part in ("own", "new", "results")
        }
    data, new = as_data(kind, saved["own"]), as_data(kind, saved["new"])
    model = scrcl.SCRCL.load(FOLDER / kind, adata=data, accelerator="cpu")
    found = results(kind, model, data, new)
    assert set(found) == set(saved["results"])
    for name, expected in saved["results"].items():
        if (kind, name) == ("space", "probabilities"):
            continue  # domains are a consensus over other views than in 0.2
        if expected.dtype.kind == "U":
            np.testing.assert_array_equal(found[name].astype(str), expected, err_msg=name)
        else:
            np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)
    without = scrcl.SCRCL.load(FOLDER / kind, adata=False, accelerator="cpu")
    np.testing.assert_array_equal(without.get_latent_representation(new), model.get_latent_representation(new))
    without.train(1, enable_progress_bar=False)
    assert len(without.history["train_loss"]) == 4


def test_a_checkpoint_leaves_nothing_of_its_weights(trained, adata, tmp_path):
    """Saving in mid-training embeds cells for the genes; the trained model must not answer with that."""
    from scvi.train import SaveCheckpoint

    expected = trained.get_latent_representation()
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata, n_hidden=16, n_refined=8, n_components=10)
    every = SaveCheckpoint(str(tmp_path), filename="{epoch}", monitor="epoch", mode="max", save_top_k=-1)
    model.train(5, accelerator="cpu", enable_checkpointing=True, callbacks=[every], enable_progress_bar=False)
    np.testing.assert_array_equal(model.get_latent_representation(), expected)
    first, last = (scrcl.SCRCL.load(tmp_path / f"epoch={epoch}", adata=simulate()) for epoch in (1, 4))
    maps = [gene_map(model).loadings for model in (first, last)]
    assert not np.allclose(maps[0], maps[1])


def test_a_model_that_cannot_be_saved_leaves_what_was_there(trained, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    trained.save(folder)
    before = (folder / "model.pt").read_bytes()

    def fail(state, path, **kwargs):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match=r"cannot be saved to dir_path=.*No space left.*Free space"):
        trained.save(folder, overwrite=True)
    with pytest.raises(OSError, match="No space left"):
        trained.save(tmp_path / "other")
    assert (folder / "model.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


class TestSaveAndLoad:
    @pytest.fixture
    def saved(self, trained, tmp_path):
        trained.save(tmp_path / "model", save_anndata=True)
        return tmp_path / "model"

    @pytest.mark.parametrize("data", ["saved", "given", "fresh", "none"])
    def test_results_are_the_same(self, trained, saved, data):
        fresh = simulate()
        adata = {"saved": None, "given": trained.adata, "fresh": fresh, "none": False}[data]
        model = scrcl.SCRCL.load(saved, adata=adata, accelerator="cpu")
        asked = fresh if data == "none" else None
        latent = trained.get_latent_representation()
        np.testing.assert_array_equal(model.get_latent_representation(asked), latent)
        refined = trained.get_latent_representation(representation="refined")
        np.testing.assert_array_equal(model.get_latent_representation(asked, representation="refined"), refined)
        for options in ({}, {"n_clusters": 3}, {"method": "kmeans"}, {"method": "leiden"}):
            pd.testing.assert_series_equal(model.get_clusters(asked, **options), trained.get_clusters(**options))
        new = simulate(25, seed=8)
        np.testing.assert_allclose(
            model.get_latent_representation(new), trained.get_latent_representation(new), atol=1e-6
        )

    def test_other_cells_can_be_loaded(self, trained, saved):
        new = simulate(25, seed=8)
        model = scrcl.SCRCL.load(saved, adata=new)
        np.testing.assert_allclose(model.get_latent_representation(), trained.get_latent_representation(new), atol=1e-6)

    def test_genes_in_another_order_and_more_of_them_can_be_loaded(self, trained, saved, recwarn):
        adata = simulate()[:, ::-1].copy()
        model = scrcl.SCRCL.load(saved, adata=adata)
        np.testing.assert_array_equal(model.get_latent_representation(), trained.get_latent_representation())
        assert not [w for w in recwarn if "var_names" in str(w.message)]

    def test_genes_in_another_spelling_are_read(self, trained, saved):
        other = simulate(25, seed=8)
        other.var_names = other.var_names.str.upper()
        model = scrcl.SCRCL.load(saved, adata=other)
        with pytest.warns(UserWarning, match=r"which are read from `adata.var_names.str.lower\(\)`"):
            found = model.get_latent_representation()
        expected = trained.get_latent_representation(simulate(25, seed=8))
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_other_genes_are_refused(self, saved):
        other = simulate()
        other.var_names = [f"other{i}" for i in range(120)]
        with pytest.raises(ValueError, match="lacks 120 of the 120 genes of the model"):
            scrcl.SCRCL.load(saved, adata=other)

    def test_everything_else_is_kept(self, trained, saved):
        model = scrcl.SCRCL.load(saved)
        assert model.is_trained
        assert model.init_params_ == trained.init_params_
        pd.testing.assert_frame_equal(model.history["train_loss"], trained.history["train_loss"], check_dtype=False)
        assert str(model.module) == str(trained.module)

    def test_training_goes_on_after_loading(self, trained, saved):
        for adata in (None, False):
            model = scrcl.SCRCL.load(saved, adata=adata)
            model.train(2, enable_progress_bar=False)
            assert len(model.history["train_loss"]) == 7

    def test_a_loaded_model_can_be_saved(self, trained, saved, tmp_path):
        scrcl.SCRCL.load(saved, adata=False).save(tmp_path / "again")
        model = scrcl.SCRCL.load(tmp_path / "again", adata=simulate())
        np.testing.assert_array_equal(model.get_latent_representation(), trained.get_latent_representation())

    def test_model_of_another_device_is_put_where_asked(self, trained, saved):
        """The file is read onto the device asked for, whatever device it was saved from."""
        import torch

        stored = torch.load(saved / "model.pt", map_location="meta", weights_only=False)
        assert {tensor.device.type for tensor in stored["model_state_dict"].values() if hasattr(tensor, "device")} == {
            "meta"
        }
        model = scrcl.SCRCL.load(saved, adata=False, accelerator="cpu")
        assert {parameter.device.type for parameter in model.module.parameters()} == {"cpu"}

    def test_prefix(self, trained, tmp_path):
        trained.save(tmp_path / "model", prefix="mine_")
        model = scrcl.SCRCL.load(tmp_path / "model", adata=simulate(), prefix="mine_")
        np.testing.assert_array_equal(model.get_latent_representation(), trained.get_latent_representation())

    def test_graph_of_the_user_is_not_needed_for_loading(self, adata, tmp_path):
        graph = nearest_neighbors(adata.X.toarray(), 5).to_sparse()
        adata.obsp["connectivities"] = sp.csr_matrix(graph + graph.T)
        adata.uns["neighbors"] = {"connectivities_key": "connectivities"}
        model = build(adata, setup={"neighbors_key": "neighbors"})
        model.save(tmp_path / "model")
        loaded = scrcl.SCRCL.load(tmp_path / "model", adata=simulate())
        np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())

    def test_space_of_the_user(self, adata, tmp_path):
        adata.obsm["X_mine"] = np.random.default_rng(0).normal(size=(150, 6))
        model = build(adata, setup={"features_key": "X_mine"})
        model.save(tmp_path / "model")
        loaded = scrcl.SCRCL.load(tmp_path / "model", adata=adata.copy())
        np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())

    def test_copies(self, trained):
        for twin in (copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))):
            np.testing.assert_array_equal(twin.get_latent_representation(), trained.get_latent_representation())

    def test_no_data(self, saved):
        with pytest.raises(ValueError, match="Pass `adata`"):
            scrcl.SCRCL.load(saved, adata=False).get_clusters()

    def test_missing_folder(self, tmp_path):
        with pytest.raises(ValueError, match="holds no saved model"):
            scrcl.SCRCL.load(tmp_path / "nothing")

    @pytest.mark.parametrize("damage", ["truncated", "text", "empty", "other pickle"])
    def test_damaged_folder(self, saved, damage):
        file = saved / "model.pt"
        content = {
            "truncated": file.read_bytes()[:2000],
            "text": b"not a model",
            "empty": b"",
            "other pickle": pickle.dumps([1, 2]),
        }
        file.write_bytes(content[damage])
        with pytest.raises(ValueError, match="cannot be read: .*Copy it again"):
            scrcl.SCRCL.load(saved)

    def test_model_of_another_class(self, adata, tmp_path):
        scvi.model.SCVI.setup_anndata(adata)
        scvi.model.SCVI(adata).save(tmp_path / "scvi")
        with pytest.raises(ValueError, match="load a model of another class with that class"):
            scrcl.SCRCL.load(tmp_path / "scvi", adata=adata)
