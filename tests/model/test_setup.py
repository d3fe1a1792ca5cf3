"""Data that cannot be used get an error that names the argument and the mend, before any work is done."""

import warnings
from functools import partial

import anndata as ad
import mudata
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

import scrcl
from scrcl.utils.errors import ScrclValueError, ScrclWarning

from ..helpers import simulate

setup = scrcl.SCRCL.setup_anndata


def with_value(value: float, where: int = 5) -> ad.AnnData:
    adata = simulate()
    adata.X = adata.X.astype(np.float64)
    adata.X.data[where] = value
    return adata


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (-1.0, "negative"),
        (0.5, "not (a whole number|whole numbers)"),
        (np.nan, "NaN"),
        (np.inf, "infinite"),
        (-np.inf, "infinite"),
    ],
)
@pytest.mark.parametrize("dense", [False, True])
def test_values_that_are_no_counts(value, found, dense):
    adata = with_value(value)
    if dense:
        adata.X = adata.X.toarray()
    with pytest.raises(ValueError, match=rf"adata\.X holds .*{found}.*Pass raw counts"):
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
    with pytest.raises(ValueError, match="finite numbers.*NaN" if space == "NaN" else "same for all cells"):
        setup(adata, features_key="X_mine")


def test_not_anndata(trained):
    for wrong in (np.ones((5, 5)), None, "counts.h5ad"):
        with pytest.raises(TypeError, match="not AnnData|not data"):
            setup(wrong)
    with pytest.raises(TypeError, match="is not data. Did you mean `indices=...`"):
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


def test_no_cells_or_genes():
    for adata in (simulate()[:0].copy(), simulate()[:, :0].copy()):
        with pytest.raises(ValueError, match="without cells or genes"):
            setup(adata)


def test_model_without_setup():
    with pytest.raises(ValueError, match="setup_anndata"):
        scrcl.SCRCL(simulate())


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("layer", [None, "counts"])
def test_the_remedy_for_cells_without_counts_removes_them(layer, several):
    """Also where counts are in a layer, at which `scanpy.pp.filter_cells` does not look."""
    adata = simulate()
    counts = adata.X.toarray()
    counts[[3, 7]] = 0
    if layer:
        adata.layers[layer] = sp.csr_matrix(counts)
    else:
        adata.X = sp.csr_matrix(counts)
    names = {"adata": adata, "scanpy": sc}
    arguments: tuple[dict, dict] = ({}, {"layer": layer})
    if several:
        names["mdata"] = mudata.MuData({"rna": adata, "prot": simulate(n_genes=10, seed=1)})
        arguments = {"modalities": {"rna": "rna", "prot": "protein"}}, {"layers": {"rna": layer} if layer else None}

    def register() -> None:
        required, optional = arguments
        data = names["mdata" if several else "adata"]
        (scrcl.SCRCL.setup_mudata if several else setup)(data, **required, **optional)

    with pytest.raises(ScrclValueError, match="2 of 150 cells in .* have no counts") as error:
        register()
    exec(error.value.remedy.split("`")[1], names)
    register()
    assert names["mdata" if several else "adata"].n_obs == 148


@pytest.mark.parametrize("several", [False, True])
def test_batches_that_are_labels(several):
    adata = simulate()
    register = partial(setup, adata)
    if several:
        mdata = mudata.MuData({"rna": adata, "prot": simulate(n_genes=10)})
        mdata.obs["cell_type"] = adata.obs["cell_type"]
        register = partial(scrcl.SCRCL.setup_mudata, mdata, {"rna": "rna", "prot": "protein"})
    with pytest.raises(ScrclValueError, match="batch_key='cell_type' is the same column as labels_key"):
        register(batch_key="cell_type", labels_key="cell_type")
    register(batch_key="cell_type")


@pytest.mark.parametrize("value", ["unknown", "Unknown", "nan"])
def test_the_remedy_for_a_suspicious_label_works(value):
    adata = simulate()
    adata.obs["type"] = np.where(np.arange(150) < 100, adata.obs["cell_type"].astype(str), value)
    with pytest.warns(ScrclWarning, match=f"has the label '{value}', which counts as a type") as record:
        setup(adata, labels_key="type")
    (message,) = [str(warning.message) for warning in record if isinstance(warning.message, ScrclWarning)]
    assert f"unlabeled_category={value!r}" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error", ScrclWarning)
        setup(adata, labels_key="type", unlabeled_category=value)
