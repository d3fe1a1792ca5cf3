"""What the model keeps is its own, follows the weights, and is said as it was used."""

import re
from typing import Any

import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch
from lightning.pytorch import Callback
from scvi.train import SaveCheckpoint

import scrcl
from scrcl.utils import threads as threads_module
from scrcl.utils.threads import suited_threads, threads

from ..conftest import build, simulate
from ..saved.make_golden import several


def test_what_is_written_is_a_copy():
    model = build(simulate())
    before = model.get_latent_representation(simulate(20, seed=3))
    model.adata.obsm["X_scrcl_features"][:] = 0
    model.adata.obsp["scrcl_connectivities"].data[:] = 7
    model.adata.obsp["scrcl_connectivities"].indices[:] = 0
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    fresh = build(simulate())
    fresh.train(1, accelerator="cpu", enable_progress_bar=False)
    np.testing.assert_array_equal(fresh._reference.features, model._reference.features)
    np.testing.assert_array_equal(fresh._reference.adjacency.indices, model._reference.adjacency.indices)
    assert before.any()


def test_distances_of_an_earlier_model_do_not_stay(adata):
    build(adata, epochs=1)
    assert "scrcl_distances" in adata.obsp
    sc.pp.neighbors(adata, use_rep="X_scrcl_features", n_neighbors=10)
    build(adata, epochs=1, setup={"neighbors_key": "neighbors"})
    assert "scrcl_distances" not in adata.obsp
    assert "distances_key" not in adata.uns["scrcl_neighbors"]


@pytest.mark.parametrize(
    ("options", "there", "absent"),
    [
        ({}, {"n_spatial_neighbors"}, {"radius"}),
        ({"spatial_graph": "delaunay"}, set(), {"radius", "n_spatial_neighbors"}),
        ({"spatial_graph": "radius", "radius": 200.0}, {"radius"}, {"n_spatial_neighbors"}),
    ],
)
def test_only_options_that_were_used_are_reported(options, there, absent):
    adata = scrcl.datasets.layered_tissue(100, 1, 30)
    scrcl.SCRCL.setup_anndata(adata, spatial_key="spatial")
    scrcl.SCRCL(adata, n_components=5, **options)
    assert there <= set(adata.uns["scrcl"])
    assert not absent & set(adata.uns["scrcl"])


class Fault(Callback):
    def on_train_epoch_start(self, *args):
        raise RuntimeError("a fault")


def test_training_that_failed_leaves_the_refinement_untrained(adata):
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata, n_hidden=8, n_components=5)
    with pytest.raises(RuntimeError, match="a fault"):
        model.train(1, accelerator="cpu", enable_progress_bar=False, callbacks=[Fault()])
    assert not model.refinement_trained_
    model.train(1, accelerator="cpu", enable_progress_bar=False, plan_kwargs={"cross_view_weight": 0})
    with pytest.raises(RuntimeError, match="refinement is not trained"):
        model.get_gene_embedding()


def test_results_are_of_the_best_weights_that_a_checkpoint_loads(adata, tmp_path):
    """Results asked for while training, as a checkpoint does that saves the model, are of the weights at that time."""
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata, n_hidden=8, n_components=5)
    checkpoint = SaveCheckpoint(
        dirpath=str(tmp_path), monitor="neighborhood_loss_train", mode="max", load_best_on_end=True
    )

    class Look(Callback):
        def on_train_epoch_end(self, *args):
            model.is_trained_ = True
            model.get_latent_representation()

    model.train(
        6,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_checkpointing=True,
        callbacks=[checkpoint, Look()],
    )
    found = model.get_latent_representation()
    fresh = scrcl.SCRCL.load(checkpoint.best_model_path, adata=adata, accelerator="cpu")
    np.testing.assert_allclose(found, fresh.get_latent_representation(), atol=1e-6)


@pytest.mark.parametrize(("n_cells", "n_clusters"), [(100, 20), (150, 30), (60, 15), (40, 20)])
def test_the_number_of_clusters_is_honoured_on_few_cells(n_cells, n_clusters):
    model = build(simulate(n_cells), epochs=1)
    assert model.get_clusters(n_clusters=n_clusters).nunique() == n_clusters


def test_modules_that_no_resolution_gives_advise_what_there_is(monkeypatch):
    """`get_gene_modules` has no k-means to advise; two groups of genes without a tie are two modules at least."""
    model = build(simulate(), epochs=1)
    embedding = model.get_gene_embedding()
    apart = np.where(np.arange(len(embedding))[:, None] < 60, [1.0, 0], [0, 1.0])
    apart = apart + 0.01 * np.random.default_rng(0).random(apart.shape)
    monkeypatch.setattr(model, "get_gene_embedding", lambda: pd.DataFrame(apart, index=embedding.index))
    with pytest.warns(UserWarning, match="No resolution of Leiden gives 1 modules here") as caught:
        model.get_gene_modules(n_modules=1)
    assert not any("kmeans" in str(warning.message) for warning in caught)


class TestTotalsOfMuData:
    @pytest.fixture(scope="class")
    def model(self):
        mdata = several()
        scrcl.SCRCL.setup_mudata(mdata, modalities={"rna": "rna", "prot": "protein"})
        model = scrcl.SCRCL(mdata, n_hidden=8, n_components=5, n_top_genes=40)
        model.train(1, accelerator="cpu", enable_progress_bar=False)
        return model

    def cut(self, genes) -> mudata.MuData:
        mdata = several(3)
        return mudata.MuData({"rna": mdata["rna"][:, genes].copy(), "prot": mdata["prot"].copy()})

    def test_data_cut_to_the_genes_kept_are_refused(self, model):
        kept = model._reference.modalities["rna"].variables
        with pytest.raises(
            ValueError, match=r"80 of the 120 genes that the model reads are missing from mdata\['rna'\]"
        ):
            model.get_latent_representation(self.cut(kept))

    def test_genes_that_only_totals_need_are_named(self, model):
        names = model._reference.modalities["rna"]
        spare = names.names.difference(names.variables)[:3]
        whole = model.get_latent_representation(self.cut(names.names))
        message = f"3 of the 120 variables that the total of a cell of 'rna' is taken over .*{re.escape(spare[0])}"
        with pytest.warns(UserWarning, match=message):
            found = model.get_latent_representation(self.cut(names.names.difference(spare)))
        assert np.linalg.norm(found - whole) < 0.2 * np.linalg.norm(whole)


class TestThreads:
    @pytest.mark.parametrize(
        ("n_entries", "now", "expected"),
        [(1000, 4, 1), (2_000_000, 4, 4), (1_200_000, 4, 2), (10**9, 4, 4), (1000, 3, 3), (1000, 8, 1)],
    )
    def test_as_many_as_are_worth_it(self, monkeypatch, n_entries, now, expected):
        """Four threads by default on eight cores; another number than these was set by the user."""
        monkeypatch.setattr(threads_module, "DEFAULT", 4)
        monkeypatch.setattr("os.cpu_count", lambda: 8)
        monkeypatch.setattr(torch, "get_num_threads", lambda: now)
        assert suited_threads(n_entries) == expected

    def test_restored_even_after_a_fault(self):
        before = torch.get_num_threads()
        found = []

        def work() -> None:
            with threads(10**9, before + 2):
                found.append(torch.get_num_threads())
                raise RuntimeError("a fault")

        with pytest.raises(RuntimeError, match="a fault"):
            work()
        assert found == [before + 2]
        assert torch.get_num_threads() == before

    def test_an_argument_overrules(self, adata):
        found = []

        class Look(Callback):
            def on_train_epoch_start(self, *args):
                found.append(torch.get_num_threads())

        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=8, n_components=5)
        before = torch.get_num_threads()
        model.train(1, accelerator="cpu", enable_progress_bar=False, n_threads=3, callbacks=[Look()])
        assert found == [3]
        assert torch.get_num_threads() == before
        with pytest.raises(ValueError, match="n_threads"):
            model.train(1, n_threads=0)


def test_coordinates_with_several_modalities(tmp_path):
    """As with one: layers are found, a slice that is new is placed among its own cells, and the model is saved."""

    def tissue(seed: int) -> mudata.MuData:
        rna = scrcl.datasets.layered_tissue(150, 2, 60, seed=0)
        counts = np.random.default_rng(seed).poisson(rna.X[:, :20].toarray() * 3 + 1).astype(np.float32)
        prot = sc.AnnData(counts, obs=rna.obs[[]].copy(), var=pd.DataFrame(index=[f"p{i}" for i in range(20)]))
        mdata = mudata.MuData({"rna": rna, "prot": prot})
        mdata.obsm["spatial"] = rna.obsm["spatial"]
        mdata.obs["slice"] = rna.obs["slice"].to_numpy()
        return mdata

    mdata = tissue(0)
    kinds = {"rna": "rna", "prot": "protein"}
    setup: Any = {"modalities": kinds, "spatial_key": "spatial", "sample_key": "slice"}
    for mode in ("replace", "join"):
        scrcl.SCRCL.setup_mudata(mdata, **setup)
        model = scrcl.SCRCL(mdata, n_hidden=16, n_components=10, spatial_mode=mode)
        model.train(5, accelerator="cpu", enable_progress_bar=False)
        edges = sp.coo_array(mdata.obsp["scrcl_connectivities"])
        slices = mdata.obs["slice"].to_numpy()
        if mode == "replace":
            assert (slices[edges.row] == slices[edges.col]).all()
        clusters = model.get_clusters(n_clusters=5)
        assert clusters.nunique() == 5
        weights = model.get_modality_weights()
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
        latent = model.get_latent_representation()
        # The cells again, as data that the model does not know by identity.
        np.testing.assert_allclose(model.get_latent_representation(tissue(0)), latent, atol=1e-5)
        new = model.get_latent_representation(tissue(1))
        assert np.isfinite(new).all()
        assert np.abs(new - latent).max() > 1e-3
        np.testing.assert_allclose(model.get_modality_weights(tissue(1)).sum(axis=1), 1, atol=1e-5)
    model.save(tmp_path / "model")
    again = scrcl.SCRCL.load(tmp_path / "model", adata=mdata, accelerator="cpu")
    np.testing.assert_allclose(again.get_latent_representation(), latent, atol=1e-6)
    with pytest.raises(ValueError, match="spatial_key"):
        scrcl.SCRCL.setup_mudata(mdata, modalities=kinds, sample_key="slice")
