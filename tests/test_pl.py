from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

import scrcl

from .conftest import build, simulate


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
        "spread loss",
    ]
    curve = model.history["train_loss"]["train_loss"].to_numpy(dtype=float)
    np.testing.assert_allclose(np.asarray(ax.get_lines()[0].get_ydata()), curve / curve[0])


def test_n_clusters(result):
    estimate = result[0].estimate_n_clusters()
    ax = scrcl.pl.n_clusters(estimate)
    labels = ax.get_legend_handles_labels()[1]
    assert f"estimate: {estimate.best}" in labels
    np.testing.assert_allclose(np.asarray(ax.get_lines()[0].get_ydata()), estimate.curve["distance"])


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


@pytest.fixture(scope="module")
def marked():
    model = build(simulate(), epochs=20)
    return model, model.get_marker_genes(groupby="cell_type", n_permutations=9)


class TestGenes:
    @pytest.fixture(autouse=True)
    def close(self):
        yield
        plt.close("all")

    def test_dotplot(self, marked):
        _, markers = marked
        ax = scrcl.pl.markers_dotplot(markers, n_genes=3)
        assert isinstance(ax, Axes)
        shown = [label.get_text() for label in ax.get_xticklabels()]
        best = markers.groupby("group", observed=True).head(3)
        assert shown == list(best["gene"])
        wide = markers.pivot(index="group", columns="gene", values="score")[shown]
        colors = ax.collections[0].get_array()
        assert colors is None or np.allclose(np.asarray(colors), wide.to_numpy().ravel())

    def test_heatmap_shows_the_associations(self, marked):
        model, markers = marked
        ax = scrcl.pl.associations_heatmap(model, markers, "cell_type", n_genes=2)
        image = np.asarray(ax.images[0].get_array())
        genes = list(markers.groupby("group", observed=True).head(2)["gene"])
        order = np.argsort(model.adata.obs["cell_type"].cat.codes.to_numpy(), kind="stable")
        expected = model.get_cell_gene_associations(genes=genes).to_numpy()[order]
        np.testing.assert_allclose(np.sort(image, 0), np.sort(expected, 0), atol=1e-5)

    def test_bars_and_their_intervals(self, marked):
        _, markers = marked
        ax: Any = scrcl.pl.marker_bars(markers, "1", n_genes=4)
        best = markers[markers["group"] == "1"].head(4)
        np.testing.assert_allclose([bar.get_width() for bar in ax.patches], best["score"])
        intervals = np.array([segment[:, 0] for segment in ax.collections[0].get_segments()])
        np.testing.assert_allclose(intervals, best[["score_low", "score_high"]])

    def test_map_of_the_gene_embedding(self, marked):
        model, _ = marked
        ax: Any = scrcl.pl.gene_modules(model, genes=["gene3", "gene50"])
        assert [text.get_text() for text in ax.texts] == ["gene3", "gene50"]
        assert len(ax.collections[0].get_offsets()) == model.get_gene_modules().notna().sum()

    def test_bad_input(self, marked):
        model, markers = marked
        with pytest.raises(ValueError, match=r"no column 'score'.*get_marker_genes\(\)"):
            scrcl.pl.markers_dotplot(markers.drop(columns="score"))
        with pytest.raises(ValueError, match="markers lacks genes of some groups"):
            scrcl.pl.markers_dotplot(markers.groupby("group", observed=True).head(3))
        with pytest.raises(KeyError, match="'9' is not in groupby='group'"):
            scrcl.pl.marker_bars(markers, "9")
        with pytest.raises(ValueError, match="n_genes"):
            scrcl.pl.marker_bars(markers, "1", n_genes=0)
        with pytest.raises(KeyError, match="groupby='nothing' is not in adata.obs"):
            scrcl.pl.associations_heatmap(model, markers, "nothing")
        with pytest.raises(KeyError, match="'Foo' is not in the data"):
            scrcl.pl.gene_modules(model, genes=["Foo"])
