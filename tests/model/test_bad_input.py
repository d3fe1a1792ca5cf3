"""Arguments and new cells that cannot be used get an error that names the argument and the mend, and nothing is lost."""

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import scrcl

from ..helpers import build, simulate

setup = scrcl.SCRCL.setup_anndata


def test_new_cells_that_are_no_counts(trained):
    wrong = simulate()
    wrong.X.data[5] = 0.5
    with pytest.raises(ValueError, match="not a whole number"):
        trained.get_latent_representation(wrong)


def test_space_of_another_width(trained, adata):
    adata.obsm["X_mine"] = np.random.default_rng(0).normal(size=(150, 4))
    model = build(adata, setup={"features_key": "X_mine"}, epochs=1)
    new = simulate(20, seed=1)
    new.obsm["X_mine"] = np.zeros((20, 3))
    with pytest.raises(ValueError, match="has 3 columns, but the model was built on 4"):
        model.get_latent_representation(new)


def test_empty_genes_are_never_kept():
    adata = simulate()
    counts = adata.X.toarray()
    counts[:, 10:20] = 0
    adata.X = sp.csr_matrix(counts)
    setup(adata)
    scrcl.SCRCL(adata)
    assert not adata.var["scrcl_genes"].to_numpy()[10:20].any()


def test_fewer_cells_than_neighbors():
    adata = simulate(15)
    setup(adata)
    with pytest.raises(
        ValueError, match="adata has 15 cells, but 15 neighbours of each require at least 16.*n_neighbors=14"
    ):
        scrcl.SCRCL(adata)
    scrcl.SCRCL(adata, n_neighbors=14)


def test_no_variable_genes():
    adata = ad.AnnData(np.ones((30, 10), dtype=np.float32))
    setup(adata)
    with pytest.raises(ValueError, match="no variable genes"):
        scrcl.SCRCL(adata)


@pytest.mark.parametrize("n_clusters", [1, 0, -3, 2.5, "four", True, 151])
def test_n_clusters(trained, n_clusters):
    with pytest.raises(ValueError, match="n_clusters"):
        trained.get_clusters(n_clusters=n_clusters)


@pytest.mark.parametrize(
    "wrong",
    [{"method": "louvain"}, {"representation": "z"}, {"resolution": -1}, {"resolution": np.nan}, {"seed": "a"}],
)
def test_arguments_of_get_clusters(trained, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}"):
        trained.get_clusters(**wrong)


@pytest.mark.parametrize("indices", [[150], [-151], [0.5], [True, False], [[1, 2]], ["cell1"]])
def test_indices(trained, indices):
    with pytest.raises(ValueError, match="indices"):
        trained.get_latent_representation(indices=indices)


def test_no_indices(trained):
    assert trained.get_latent_representation(indices=[]).shape == (0, 32 + 20)
    assert trained.get_latent_representation(simulate(5, seed=4), indices=[]).shape == (0, 32 + 20)
    assert len(trained.get_clusters(indices=[])) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_top_genes": 1},
        {"n_components": 0},
        {"n_neighbors": 0},
        {"n_hidden": 2.5},
        {"n_refined": -1},
        {"temperature": 0},
        {"dropout_rate": 1},
        {"dropout_rate": "half"},
    ],
)
def test_arguments_of_the_model(adata, wrong):
    setup(adata)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        scrcl.SCRCL(adata, **wrong)
    assert "X_scrcl_features" not in adata.obsm


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_epochs": 0}, "max_epochs"),
        ({"max_epochs": 1.5}, "max_epochs"),
        ({"accelerator": "mps"}, "accelerator='mps' is not supported: on Apple GPUs"),
        ({"plan_kwargs": {"learning_rate": 1}}, "unknown options: learning_rate"),
        ({"plan_kwargs": {"lr": -1}}, "lr"),
        ({"early_stopping": True, "early_stopping_monitor": "elbo_validation"}, "early_stopping_monitor"),
    ],
)
def test_arguments_of_train(adata, wrong, message):
    setup(adata)
    model = scrcl.SCRCL(adata, n_hidden=8)
    with pytest.raises(ValueError, match=message):
        model.train(**{"max_epochs": 1, **wrong})
    model.train(1, enable_progress_bar=False)


def test_unwritable_folder(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((OSError, ValueError)):
        trained.save(tmp_path / "file" / "model")
    trained.save(tmp_path / "model")
    with pytest.raises(ValueError, match="exists already"):
        trained.save(tmp_path / "model")
