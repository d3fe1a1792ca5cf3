import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

import scrcl

from .conftest import build


@pytest.fixture
def result(adata):
    model = build(adata)
    adata.obsm["X_scrcl"] = model.get_latent_representation()
    adata.obs["scrcl"] = model.get_clusters(n_clusters=3)
    yield model, adata
    plt.close("all")


def test_history(result):
    model, _ = result
    ax = scrcl.pl.history(model)
    assert isinstance(ax, Axes)
    assert [line.get_label() for line in ax.get_lines()] == [
        "train loss",
        "alignment loss",
        "neighborhood loss",
        "cross view loss",
    ]
    curve = model.history["train_loss"]["train_loss"].to_numpy(dtype=float)
    np.testing.assert_allclose(np.asarray(ax.get_lines()[0].get_ydata()), curve / curve[0])


def test_history_of_an_untrained_model(adata):
    scrcl.SCRCL.setup_anndata(adata)
    with pytest.raises(ValueError, match="model.train"):
        scrcl.pl.history(scrcl.SCRCL(adata))


def test_umap(result):
    _, adata = result
    ax = scrcl.pl.umap(adata)
    assert isinstance(ax, Axes)
    coordinates = adata.obsm["X_scrcl_umap"]
    assert coordinates.shape == (150, 2)
    assert np.isfinite(coordinates).all()
    scrcl.pl.umap(adata, color="cell_type")
    np.testing.assert_array_equal(adata.obsm["X_scrcl_umap"], coordinates)


def test_umap_follows_the_latent_representation(result):
    _, adata = result
    scrcl.pl.umap(adata)
    before = adata.obsm["X_scrcl_umap"].copy()
    adata.obsm["X_scrcl"] = adata.obsm["X_scrcl"][::-1].copy()
    scrcl.pl.umap(adata)
    assert not np.array_equal(adata.obsm["X_scrcl_umap"], before)


def test_umap_is_reproducible(result):
    from scrcl.pl._plots import umap_coordinates

    latent = result[1].obsm["X_scrcl"]
    np.testing.assert_array_equal(umap_coordinates(latent), umap_coordinates(latent))


def test_cluster_sizes(result):
    _, adata = result
    ax = scrcl.pl.cluster_sizes(adata)
    assert isinstance(ax, Axes)
    assert [bar.get_width() for bar in ax.containers[0]] == list(adata.obs["scrcl"].value_counts())


def test_plots_draw_on_given_axes(result):
    model, adata = result
    _, axes = plt.subplots(1, 3)
    assert scrcl.pl.history(model, ax=axes[0]) is axes[0]
    assert scrcl.pl.umap(adata, ax=axes[1]) is axes[1]
    assert scrcl.pl.cluster_sizes(adata, ax=axes[2]) is axes[2]


def test_missing_keys(adata):
    with pytest.raises(KeyError, match="color='scrcl' is not in adata.obs"):
        scrcl.pl.umap(adata)
    with pytest.raises(KeyError, match="basis='X_scrcl' is not in adata.obsm"):
        scrcl.pl.umap(adata, color="cell_type")
    with pytest.raises(KeyError, match="key='scrcl' is not in adata.obs"):
        scrcl.pl.cluster_sizes(adata)
