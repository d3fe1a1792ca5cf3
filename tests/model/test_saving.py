"""Models saved by earlier versions give the same results for ever."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scrcl

from ..conftest import simulate
from ..saved.make_golden import embedded, in_space, several

SAVED = Path(__file__).parents[1] / "saved"
FOLDER = SAVED / "model_0.1"


@pytest.fixture
def expected():
    return np.load(FOLDER / "results.npz")


def cells(expected, name: str) -> ad.AnnData:
    return ad.AnnData(expected[name], var=pd.DataFrame(index=expected["genes"]))


@pytest.fixture(params=["with data", "without data"])
def model(request, expected):
    adata = cells(expected, "counts") if request.param == "with data" else False
    return scrcl.SCRCL.load(FOLDER, adata=adata, accelerator="cpu")


def test_results(model, expected):
    adata, new = cells(expected, "counts"), cells(expected, "new_counts")
    for representation in ("aligned", "refined"):
        found = model.get_latent_representation(adata, representation=representation)
        np.testing.assert_allclose(found, expected[representation], atol=1e-5)
    np.testing.assert_array_equal(model.get_clusters(adata, n_clusters=3, method="kmeans"), expected["clusters"])
    np.testing.assert_allclose(model.get_latent_representation(new), expected["new"], atol=1e-5)
    np.testing.assert_array_equal(model.get_clusters(new, n_clusters=3, method="kmeans"), expected["new_clusters"])


def test_training_goes_on(model):
    model.train(1, enable_progress_bar=False)
    assert len(model.history["train_loss"]) == 4


def test_genes(expected):
    adata = cells(expected, "counts")
    model = scrcl.SCRCL.load(FOLDER, adata=adata, accelerator="cpu")
    assert model.get_gene_embedding().shape[1] == 4
    assert model.get_cell_gene_associations(cells(expected, "new_counts"), genes="gene3").shape == (10, 1)
    without = scrcl.SCRCL.load(FOLDER, adata=False, accelerator="cpu")
    with pytest.raises(ValueError, match="adata=training_data"):
        without.get_cell_gene_associations(adata)


@pytest.mark.parametrize(
    ("name", "make"), [("anndata", simulate), ("embedding", embedded), ("space", in_space), ("mudata", several)]
)
def test_models_of_the_flat_house(name, make):
    """Between 0.1 and 0.2 there were two forms, for one and for several modalities."""
    folder = SAVED / "earlier_0.1.1" / name
    data, new = make(), make(seed=7)
    if name == "anndata":
        new = simulate(40, seed=7)
    model = scrcl.SCRCL.load(folder, adata=data, accelerator="cpu")
    with np.load(folder / "results.npz") as expected:
        for representation in ("aligned", "refined"):
            found = model.get_latent_representation(representation=representation)
            np.testing.assert_allclose(found, expected[representation], atol=1e-5)
        np.testing.assert_allclose(model.get_latent_representation(new), expected["new"], atol=1e-4)
        np.testing.assert_array_equal(model.get_clusters(n_clusters=3, method="kmeans"), expected["clusters"])
        np.testing.assert_array_equal(model.get_clusters(new, n_clusters=3, method="kmeans"), expected["new_clusters"])
