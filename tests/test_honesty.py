"""No label reaches training, latents or clusters unless the user names it, and no label of a held-out cell ever."""

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scrcl

from .helpers import build, real_data, simulate

pytestmark = pytest.mark.slow

#: The column that no one names.
TRUTH = "cell_type"


def run(adata: ad.AnnData):
    model = build(adata, epochs=10)
    return {
        "weights": np.concatenate([p.detach().numpy().ravel() for p in model.module.parameters()]),
        "history": model.history["train_loss"].to_numpy(dtype=float),
        "latent": model.get_latent_representation(),
        "refined": model.get_latent_representation(representation="refined"),
        "features": adata.obsm["X_scrcl_features"],
        "found": model.get_clusters().to_numpy(dtype=str),
        "leiden": model.get_clusters(method="leiden").to_numpy(dtype=str),
        "kmeans": model.get_clusters(method="kmeans").to_numpy(dtype=str),
        "given": model.get_clusters(n_clusters=4).to_numpy(dtype=str),
    }


@pytest.fixture(scope="module", params=["simulated", "real"])
def data(request) -> ad.AnnData:
    if request.param == "simulated":
        return simulate()
    return ad.read_h5ad(real_data("zheng_pbmc500.h5ad"))


@pytest.fixture(scope="module")
def expected(data) -> dict[str, np.ndarray]:
    return run(data.copy())


@pytest.mark.parametrize("change", ["shuffled", "absent", "one class", "numeric"])
def test_labels_have_no_effect(data, expected, change):
    other = data.copy()
    labels = other.obs["cell_type"]
    if change == "shuffled":
        other.obs["cell_type"] = np.random.default_rng(0).permutation(labels)
    elif change == "absent":
        del other.obs["cell_type"]
    elif change == "one class":
        other.obs["cell_type"] = "same"
    else:
        other.obs["cell_type"] = np.arange(len(labels))
    assert "cell_type" in data.obs
    for name, value in run(other).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.fixture
def columns_read(monkeypatch) -> set[str]:
    """The columns of ``obs`` that are read by name from now on."""
    found: set[str] = set()
    plain = pd.DataFrame.__getitem__

    def recorded(frame: pd.DataFrame, key: Any) -> Any:
        if TRUTH in frame.columns:
            found.update(name for name in ([key] if isinstance(key, str) else key) if isinstance(name, str))
        return plain(frame, key)

    monkeypatch.setattr(pd.DataFrame, "__getitem__", recorded)
    return found


def use(model: scrcl.SCRCL, query: Any) -> None:
    """Ask a model for all that it finds without being told groups."""
    for data in (None, query):
        model.get_latent_representation(data)
        model.get_latent_representation(data, representation="refined")
        model.get_clusters(data)
        model.get_clusters(data, n_clusters=3, method="kmeans")
        model.get_cluster_probabilities(data, n_clusters=3)
    model.estimate_n_clusters()
    model.get_marker_genes(n_permutations=0)
    model.get_cell_gene_associations(genes=[model.get_gene_embedding().index[0]])
    model.get_gene_modules()


@pytest.mark.parametrize(
    ("setup", "named"),
    [
        ({}, set()),
        ({"batch_key": "batch"}, {"batch"}),
        ({"labels_key": "annotation", "unlabeled_category": "Unknown"}, {"annotation"}),
        ({"spatial_key": "spatial", "sample_key": "batch"}, {"batch"}),
    ],
    ids=lambda value: "-".join(value) or "plain" if isinstance(value, dict) else "",
)
def test_no_column_is_read_that_is_not_named(setup, named, columns_read):
    adata = simulate(240)
    adata.obs["annotation"] = np.where(np.arange(240) < 60, adata.obs[TRUTH].astype(str), "Unknown")
    adata.obs["batch"] = np.repeat(["a", "b"], 120)
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(size=(240, 2)) + adata.obs[[TRUTH]].astype(int).to_numpy()
    query = adata[120:].copy()
    query.obs_names = [f"new{number}" for number in range(120)]
    columns_read.clear()
    model = build(adata, epochs=5, setup=setup)
    use(model, query)
    if "labels_key" in setup:
        model.predict()
        model.predict(query)
        model.get_label_report()
    assert {name for name in columns_read if not name.startswith(("scrcl", "_scvi"))} == named
    model.get_marker_genes(groupby=TRUTH, n_permutations=0)
    assert TRUTH in columns_read, "what is read is noticed"
