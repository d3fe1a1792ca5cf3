"""Bad input gets an error that names the argument and the mend, and nothing is lost."""

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

import scrcl

from ..conftest import simulate

setup = scrcl.SCRCL.setup_anndata


def with_value(value: float, where: int = 5) -> ad.AnnData:
    adata = simulate()
    adata.X = adata.X.astype(np.float64)
    adata.X.data[where] = value
    return adata


@pytest.mark.parametrize(
    ("value", "found"),
    [(-1.0, "negative"), (0.5, "not whole numbers"), (np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")],
)
@pytest.mark.parametrize("dense", [False, True])
def test_values_that_are_no_counts(value, found, dense):
    adata = with_value(value)
    if dense:
        adata.X = adata.X.toarray()
    with pytest.raises(ValueError, match=rf"adata\.X holds .*{found}.*layer='counts'"):
        setup(adata)
    adata.layers["mine"] = adata.X
    with pytest.raises(ValueError, match=rf"adata\.layers\['mine'\] holds .*{found}"):
        setup(adata, layer="mine")


def test_normalised_data():
    adata = simulate()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    with pytest.raises(ValueError, match="it looks normalised. Pass raw counts"):
        setup(adata)


def test_new_cells_that_are_no_counts(trained):
    with pytest.raises(ValueError, match="not whole numbers"):
        trained.get_latent_representation(with_value(0.5))


def test_missing_counts():
    with pytest.raises(ValueError, match="adata.X is empty.*layer"):
        setup(ad.AnnData(obs=simulate().obs, var=simulate().var))


def test_values_that_are_no_numbers():
    adata = simulate(5, 4)
    adata.layers["text"] = np.full(adata.shape, "a", dtype=object)
    with pytest.raises(ValueError, match="not real numbers"):
        setup(adata, layer="text")


@pytest.mark.parametrize(
    ("argument", "place"), [("layer", "layers"), ("features_key", "obsm"), ("neighbors_key", "uns")]
)
def test_missing_key(argument, place):
    adata = simulate()
    with pytest.raises(KeyError, match=rf"{argument}='nothing' is not in adata.{place}. Present: none"):
        setup(adata, **{argument: "nothing"})


def test_neighbors_key_that_is_no_graph():
    adata = simulate()
    adata.uns["pca"] = {"params": {}}
    with pytest.raises(ValueError, match=r"does not describe a cell graph.*scanpy.pp.neighbors"):
        setup(adata, neighbors_key="pca")
    adata.obsp["holes"] = sp.csr_matrix(np.diag(np.full(150, np.nan)))
    adata.uns["holes"] = {"connectivities_key": "holes"}
    with pytest.raises(ValueError, match=r"adata.obsp\['holes'\] holds NaN"):
        setup(adata, neighbors_key="holes")
    adata.uns["lost"] = {"connectivities_key": "gone"}
    with pytest.raises(KeyError, match="'gone' is not in adata.obsp"):
        setup(adata, neighbors_key="lost")


@pytest.mark.parametrize("space", ["NaN", "constant"])
def test_space_that_is_unusable(space):
    adata = simulate()
    adata.obsm["X_mine"] = np.full((150, 3), np.nan if space == "NaN" else 1.0)
    with pytest.raises(ValueError, match="NaN or infinite" if space == "NaN" else "same for all cells"):
        setup(adata, features_key="X_mine")


def test_space_of_another_width(trained, adata):
    from ..conftest import build

    adata.obsm["X_mine"] = np.random.default_rng(0).normal(size=(150, 4))
    model = build(adata, setup={"features_key": "X_mine"}, epochs=1)
    new = simulate(20, seed=1)
    new.obsm["X_mine"] = np.zeros((20, 3))
    with pytest.raises(ValueError, match="has 3 columns, but the model was built on 4"):
        model.get_latent_representation(new)


def test_not_anndata(trained):
    for wrong in (np.ones((5, 5)), None, "counts.h5ad"):
        with pytest.raises(TypeError, match="must be an AnnData"):
            setup(wrong)
    with pytest.raises(TypeError, match="must be an AnnData"):
        trained.get_clusters(np.ones((5, 5)))


def test_duplicate_gene_names(trained):
    adata = simulate()
    adata.var_names = ["same", "same", *adata.var_names[2:]]
    with pytest.raises(ValueError, match=r"'same'.*var_names_make_unique"):
        setup(adata)
    with pytest.raises(ValueError, match=r"'same'.*var_names_make_unique"):
        trained.get_latent_representation(adata)


def test_empty_cells(trained):
    counts = simulate().X.toarray()
    counts[[3, 8]] = 0
    adata = ad.AnnData(sp.csr_matrix(counts), var=simulate().var)
    with pytest.raises(ValueError, match=r"2 of 150 cells in adata.X have no counts.*filter_cells"):
        setup(adata)
    with pytest.raises(ValueError, match="have no counts"):
        trained.get_latent_representation(adata)


def test_empty_genes_are_never_kept():
    adata = simulate()
    counts = adata.X.toarray()
    counts[:, 10:20] = 0
    adata.X = sp.csr_matrix(counts)
    setup(adata)
    scrcl.SCRCL(adata)
    assert not adata.var["scrcl_genes"].to_numpy()[10:20].any()


def test_no_cells_or_genes():
    for adata in (simulate()[:0].copy(), simulate()[:, :0].copy()):
        with pytest.raises(ValueError, match="no cells or no genes"):
            setup(adata)


def test_fewer_cells_than_neighbors():
    adata = simulate(15)
    setup(adata)
    with pytest.raises(ValueError, match="n_neighbors=15 needs at least 16 cells, but adata has 15.*n_neighbors=14"):
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
    assert trained.get_latent_representation(indices=[]).shape == (0, 32)
    assert trained.get_latent_representation(simulate(5, seed=4), indices=[]).shape == (0, 32)
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
        ({"accelerator": "mps"}, "mps"),
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


def test_model_without_setup():
    with pytest.raises(ValueError, match="setup_anndata"):
        scrcl.SCRCL(simulate())


def test_unwritable_folder(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((OSError, ValueError)):
        trained.save(tmp_path / "file" / "model")
    trained.save(tmp_path / "model")
    with pytest.raises(ValueError, match="already exists"):
        trained.save(tmp_path / "model")
