import logging
import shutil
import sys
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from matplotlib import matplotlib_fname
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from matplotlib.testing.compare import compare_images
from matplotlib.text import Annotation
from scipy.cluster.hierarchy import linkage
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

import scrcl
from scrcl.cluster.cluster_tree import ClusterTree
from scrcl.cluster.clustering import Clustering
from scrcl.cluster.tree import NestedClusters
from scrcl.pl._domain_scales import match_colors
from scrcl.pl._panels import place_labels
from scrcl.utils.errors import ScrclError, ScrclTypeError, ScrclValueError

from .helpers import build, simulate

#: One panel or several: the type does not say which.
draw_umap: Any = scrcl.pl.umap
draw_spatial: Any = scrcl.pl.spatial


@pytest.fixture(scope="module")
def clustered():
    adata = simulate()
    model = build(adata)
    adata.obsm["X_scrcl"] = model.get_latent_representation()
    adata.obs["scrcl"] = model.get_clusters(n_clusters=3)
    return model, adata


@pytest.fixture
def result(clustered):
    """The model, and a copy of its data."""
    model, adata = clustered
    yield model, adata.copy()
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


def test_n_clusters(result):
    estimate = result[0].estimate_n_clusters()
    ax: Any = scrcl.pl.n_clusters(estimate)
    assert ax.get_title().startswith(f"{estimate.best} cluster")
    # What has no common unit has no common axis.
    panels = ax.get_figure(root=True).axes
    assert [panel.get_ylabel() for panel in panels] == list(estimate.curve.columns)
    for panel in panels:
        np.testing.assert_allclose(np.asarray(panel.get_lines()[0].get_ydata()), estimate.curve[panel.get_ylabel()])


def nested(n_clusters: int, n_halves: int = 2, gene: str = "GENE") -> ClusterTree:
    """A tree of clusters with no edge between them, each of ``n_halves`` leaves with many."""
    n_leaves = n_clusters * n_halves
    points = np.random.default_rng(0).normal(size=(n_clusters, 3)).repeat(n_halves, 0) * 10 + np.eye(n_leaves, 3)
    links = linkage(points, "average") if n_leaves > 1 else np.zeros((0, 4))
    edges = np.kron(np.eye(n_clusters), np.ones((n_halves, n_halves))) * 100
    labels = np.arange(n_leaves).repeat(np.arange(n_leaves, 0, -1) + 20)
    leaves = Clustering(np.zeros((len(labels), 1)), labels, probabilities=np.eye(n_leaves, dtype=np.float32)[labels])
    evidence = pd.DataFrame(
        {
            name: [", ".join(f"{gene}{split}{side}{i}" for i in range(5)) for split in range(n_leaves - 1)]
            for side, name in (("A", "genes_left"), ("B", "genes_right"))
        }
    ).assign(n_genes_left=9, n_genes_right=9, distance=0.5, pvalue=0.001, stability=0.9)
    return ClusterTree(NestedClusters(leaves, links, edges), pd.Index([f"c{i}" for i in range(len(labels))]), evidence)


class TestClusterTree:
    @pytest.fixture(autouse=True)
    def closed(self):
        yield
        plt.close("all")

    @staticmethod
    def lines(ax):
        return [line for line in ax.get_lines() if line.get_xdata().size]

    @staticmethod
    def texts(ax):
        """What is written, and the pixels that it covers."""
        ax.get_figure(root=True).canvas.draw()
        written = [*ax.texts, *ax.get_yticklabels(), *ax.get_legend().get_texts(), ax.xaxis.label]
        boxes = {text: text.get_bbox_patch() or text for text in written if text.get_text()}
        return {text.get_text(): box.get_window_extent().padded(-1) for text, box in boxes.items()}

    @pytest.mark.parametrize(("all_leaves", "n_splits", "n_leaves"), [(False, 5, 6), (True, 8, 9)])
    def test_down_to_the_first_unsupported_splits(self, all_leaves, n_splits, n_leaves):
        tree = nested(3, n_halves=3)
        ax = scrcl.pl.cluster_tree(tree, all_leaves=all_leaves)
        lines = self.lines(ax)
        assert len(lines) == n_splits
        assert sum(line.get_linestyle() == "--" for line in lines) == n_splits - 2
        leaves = [label.get_text().split() for label in ax.get_yticklabels()]
        assert len(leaves) == n_leaves
        assert {name: int(size.strip("()")) for name, size in leaves} == tree.sizes[
            [name for name, _ in leaves]
        ].to_dict()
        names = [text.get_text() for text in ax.texts if text.get_bbox_patch() is not None]
        assert sorted(names) == ["0", "1", "2"]
        assert ax.get_title(loc="left") == "3 clusters"

    def test_genes_are_written_on_the_line_of_their_side(self):
        tree = nested(3)
        ax = scrcl.pl.cluster_tree(tree, n_genes=1)
        written = {text.get_text(): text.xy for text in ax.texts if isinstance(text, Annotation)}
        corners = [(line.get_xdata()[1], line.get_ydata()) for line in self.lines(ax)]
        for _, split in tree.splits.iterrows():
            left, right = (split[f"genes_{side}"].split(", ")[0] for side in ("left", "right"))
            assert (*written[left], written[right][1]) in [(x, ys[0], ys[-1]) for x, ys in corners]
            assert written[left][1] < written[right][1]  # the larger side is above, as rows count down

    @pytest.mark.parametrize("gene", ["CD", "LONG-NAME-OF-A-GENE-"])
    @pytest.mark.parametrize("n_clusters", [2, 12])
    def test_texts_do_not_overlap(self, n_clusters, gene):
        boxes = self.texts(scrcl.pl.cluster_tree(nested(n_clusters, gene=gene), n_genes=5))
        assert sum(gene in text for text in boxes) >= (2 * n_clusters - 1 if gene == "CD" else 0)
        overlapping = [(a, b) for (a, one), (b, other) in combinations(boxes.items(), 2) if one.overlaps(other)]
        assert not overlapping

    def test_no_genes_without_room_for_them(self):
        tree = nested(4, gene="NAME-OF-A-GENE-")
        _, narrow = plt.subplots(figsize=(4, 4))
        assert scrcl.pl.cluster_tree(tree, ax=narrow) is narrow
        n_names, n_more = (
            sum(text.get_text().count("NAME") for text in ax.texts) for ax in (narrow, scrcl.pl.cluster_tree(tree))
        )
        assert n_names < n_more

    def test_one_population(self):
        ax = scrcl.pl.cluster_tree(nested(1, n_halves=1))
        assert not self.lines(ax)
        assert [label.get_text() for label in ax.get_yticklabels()] == ["0  (21)"]
        assert ax.get_title(loc="left") == "1 cluster"
        assert [line.get_linestyle() for line in self.lines(scrcl.pl.cluster_tree(nested(1)))] == ["--"]

    def test_of_a_model_and_without_evidence(self, clustered):
        model, _ = clustered
        tree = model.get_cluster_tree(evidence=False)
        ax = scrcl.pl.cluster_tree(tree)
        assert not any(text.get_fontstyle() == "italic" for text in ax.texts)
        assert len(self.lines(scrcl.pl.cluster_tree(model))) == len(self.lines(ax))


def test_history_of_an_untrained_model(adata):
    scrcl.SCRCL.setup_anndata(adata)
    with pytest.raises(ValueError, match="model.train"):
        scrcl.pl.history(scrcl.SCRCL(adata))


def test_umap(result):
    _, adata = result
    ax = draw_umap(adata)
    assert isinstance(ax, Axes)
    coordinates = adata.obsm["X_scrcl_umap"]
    assert coordinates.shape == (150, 2)
    assert np.isfinite(coordinates).all()
    draw_umap(adata, color="cell_type")
    np.testing.assert_array_equal(adata.obsm["X_scrcl_umap"], coordinates)


def test_umap_follows_the_latent_representation(result):
    _, adata = result
    draw_umap(adata)
    before = adata.obsm["X_scrcl_umap"].copy()
    adata.obsm["X_scrcl"] = adata.obsm["X_scrcl"][::-1].copy()
    draw_umap(adata)
    assert not np.array_equal(adata.obsm["X_scrcl_umap"], before)


def test_a_map_is_announced_before_it_is_computed(monkeypatch, caplog, coordinates):
    """Also before UMAP is imported, which takes a part of the time."""

    class Stand:
        def __init__(self, **options: Any) -> None:
            assert "UMAP of 30 cells" in caplog.text

        def fit_transform(self, latent: np.ndarray) -> np.ndarray:
            return latent[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Stand))
    caplog.set_level(logging.INFO, logger="scvi")
    logging.getLogger("scvi").addHandler(caplog.handler)
    try:
        assert coordinates(np.random.default_rng(0).normal(size=(30, 4))).shape == (30, 2)
    finally:
        logging.getLogger("scvi").removeHandler(caplog.handler)


@pytest.mark.slow
@pytest.mark.usefixtures("real_umap")  # the others draw a stand-in
def test_umap_is_reproducible_and_keeps_types_together(result):
    _, adata = result
    draw_umap(adata)
    found = adata.obsm.pop("X_scrcl_umap")
    draw_umap(adata)
    np.testing.assert_array_equal(adata.obsm["X_scrcl_umap"], found)
    assert found.shape == (150, 2)
    assert np.isfinite(found).all()
    neighbors = NearestNeighbors(n_neighbors=6).fit(found).kneighbors(return_distance=False)
    types = adata.obs["cell_type"].to_numpy(str)
    assert (types[neighbors] == types[:, None]).mean() > 0.8


def test_umap_of_another_basis(result):
    """The map is of the named representation, although the map of another one was kept."""
    _, adata = result
    draw_umap(adata)
    adata.obsm["X_other"] = np.random.default_rng(0).normal(size=(150, 5)).astype(np.float32)
    ax = draw_umap(adata, basis="X_other")
    np.testing.assert_allclose(np.sort(ax.collections[0].get_offsets(), 0), np.sort(adata.obsm["X_other"][:, :2], 0))
    with pytest.raises(KeyError, match="basis='X_nothing' is not in adata.obsm"):
        draw_umap(adata, basis="X_nothing")


@pytest.mark.parametrize("color", [None, [], 3, [None], {}])
def test_colors_that_name_nothing(result, color):
    adata = result[1]
    adata.obsm["spatial"] = adata.obsm["X_scrcl"][:, :2]
    for draw in (draw_umap, draw_spatial):
        with pytest.raises(ScrclTypeError, match="names neither a column nor a gene"):
            draw(adata, color=color)


def test_colors_that_are_found_elsewhere(result):
    """Misspelt genes, symbols in a column of var, and keys of places that are not there."""
    adata = result[1]
    adata.obs["parts"] = [{"a": 1}] * adata.n_obs
    for options, said in (
        ({"color": "GENE3"}, "Did you mean 'gene3'"),
        ({"color": "gene3", "layer": "cnts"}, "layer='cnts' is not in adata.layers"),
        ({"color": "gene3", "gene_symbols": "name"}, "gene_symbols='name' is not in adata.var"),
        ({"color": "parts"}, "color='parts' is a column of containers"),
    ):
        with pytest.raises(ScrclError, match=said):
            draw_umap(adata, **options)
    counts = adata[:, "gene3"].X.toarray().ravel()
    adata.var["feature_name"] = pd.Categorical([f"S{name}" for name in adata.var_names])
    with pytest.raises(ScrclError, match="pass `gene_symbols='feature_name'`"):
        draw_umap(adata, color="Sgene3")
    drawn = drawn_values(draw_umap(adata, color="Sgene3", gene_symbols="feature_name", use_raw=False))
    np.testing.assert_array_equal(np.sort(drawn), np.sort(counts))
    adata.var["feature_name"] = "same"
    with pytest.raises(ScrclError, match="is the name of 120 genes. .*'gene0', .*'gene4' and 115 more"):
        draw_umap(adata, color="same", gene_symbols="feature_name")
    adata.var_names = ["gene3", *adata.var_names[1:]]
    with pytest.raises(ScrclError, match="is the name of 2 genes.*`adata.var_names_make_unique"):
        draw_umap(adata, color="gene3")


@pytest.mark.parametrize("place", ["X", "layers"])
def test_genes_of_data_in_a_file(result, tmp_path, place):
    adata = result[1]
    adata.layers["twice"] = 2 * adata.X
    expected = np.sort(adata[:, "gene3"].X.toarray().ravel())
    adata.write_h5ad(tmp_path / "a.h5ad")
    options = {"use_raw": False} if place == "X" else {"layer": "twice"}
    for data in (ad.read_h5ad(tmp_path / "a.h5ad", backed="r"), ad.experimental.read_lazy(tmp_path / "a.h5ad")):
        drawn = drawn_values(draw_umap(data, color="gene3", **options))
        np.testing.assert_array_equal(np.sort(drawn), (1 if place == "X" else 2) * expected)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (np.zeros((20, 1)), r"has the shape \(20, 1\), not two or three columns"),
        (pd.DataFrame({"x": ["a"] * 20, "y": 1.0}), "holds values other than numbers"),
    ],
)
def test_coordinates_that_are_none(points, said):
    adata = simulate(20)
    adata.obsm["spatial"] = points.set_index(adata.obs_names) if isinstance(points, pd.DataFrame) else points
    with pytest.raises(ScrclValueError, match=said):
        draw_spatial(adata, "cell_type")


def test_sparse_coordinates_and_no_cells():
    adata = simulate(20)
    points = np.random.default_rng(0).uniform(1, 9, (20, 2))
    adata.obsm["spatial"] = sp.csr_matrix(points)
    ax = draw_spatial(adata, "cell_type")
    np.testing.assert_allclose(np.sort(ax.collections[0].get_offsets(), 0), np.sort(points, 0))
    scrcl.SCRCL.setup_anndata(adata, spatial_key="spatial")
    with pytest.raises(ScrclValueError, match="not two or three columns of cells"):
        draw_spatial(adata[:0].copy(), "cell_type")


def test_genes_of_several_modalities_are_named_with_theirs():
    mdata = mudata.MuData({"rna": simulate(20)})
    mdata.obsm["spatial"] = np.random.default_rng(0).uniform(1, 9, (20, 2))
    for name in ("gene3", "rn:gene3"):
        with pytest.raises(ScrclError, match="Name it with the gene: 'rna:gene3'"):
            draw_spatial(mdata, name)
    assert draw_spatial(mdata, "rna:gene3") is not None


def test_arguments_of_scales_that_are_none():
    adata = simulate(20)
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(1, 9, (20, 2))
    adata.obs["fine"] = adata.obs["cell_type"]
    scales: Any = pd.Index(["cell_type", "fine"])
    assert len(scrcl.pl.domain_scales(adata, scales)) == 2
    with pytest.raises(ScrclTypeError, match="color='fine' is not an argument of `domain_scales`"):
        scrcl.pl.domain_scales(adata, scales, color="fine")
    with pytest.raises(ScrclError, match="sample_key='slic' is not in adata.obs. Present: 'cell_type', 'fine'"):
        scrcl.pl.domain_scales(adata, scales, sample_key="slic")


def test_maps_of_few_cells(real_umap):
    latent = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    with pytest.raises(ScrclValueError, match="A map of 4 points cannot be drawn"):
        scrcl.pl._maps.umap_coordinates(latent[:4])
    assert scrcl.pl._maps.umap_coordinates(latent).shape == (5, 2)


def test_markers_that_are_none(result):
    model, adata = result
    markers = model.get_marker_genes(adata, "scrcl", n_permutations=0)
    assert scrcl.pl.marker_bars(markers, 0).get_title() == "marker genes of cluster 0"  # type: ignore[arg-type]
    for draw in (scrcl.pl.markers_dotplot, lambda table: scrcl.pl.marker_bars(table, "0")):
        with pytest.raises(ScrclValueError, match="markers has no rows"):
            draw(markers.iloc[:0])


def drawn_values(ax):
    return np.asarray(ax.collections[0].get_array())


def test_umap_of_genes(result):
    """Log-normalised counts of a gene, as scanpy computes them; or a layer or raw as they are; and several panels."""
    _, adata = result
    counts = np.sort(adata[:, "gene3"].X.toarray().ravel())
    normalised = adata.copy()
    sc.pp.normalize_total(normalised)
    sc.pp.log1p(normalised)
    expected = np.sort(normalised[:, "gene3"].X.toarray().ravel())
    np.testing.assert_allclose(np.sort(drawn_values(draw_umap(adata, color="gene3"))), expected, atol=1e-5)
    np.testing.assert_allclose(np.sort(drawn_values(draw_umap(normalised, color="gene3"))), expected, atol=1e-5)
    adata.layers["twice"] = adata.X * 2
    np.testing.assert_allclose(np.sort(drawn_values(draw_umap(adata, color="gene3", layer="twice"))), 2 * counts)
    np.testing.assert_allclose(np.sort(drawn_values(draw_umap(adata, color="gene3", use_raw=False))), counts)
    adata.X[0, 5] = 0.5  # all other genes have whole numbers
    np.testing.assert_allclose(np.sort(drawn_values(draw_umap(adata, color="gene3"))), counts)
    adata.raw, adata.X = result[1], normalised.X * 2
    np.testing.assert_allclose(np.sort(drawn_values(draw_umap(adata, color="gene3", use_raw=True))), counts)
    several = draw_umap(adata, color=["scrcl", "gene3", "cell_type"])
    assert [ax.get_title() for ax in several] == ["scrcl", "gene3", "cell_type"]
    assert len(drawn_values(several[1])) == 150
    assert len(draw_umap(adata, color=["gene3"])) == 1
    with pytest.raises(ValueError, match="ax is for one panel, but there are 2"):
        draw_umap(adata, color=["scrcl", "gene3"], ax=plt.subplots()[1])
    with pytest.raises(KeyError, match="color='Foo' is not in adata.obs, and is not the name of a gene"):
        draw_umap(adata, color=["scrcl", "Foo"])


def test_umap_of_several_modalities(result):
    _, adata = result
    mdata = mudata.MuData({"rna": adata, "prot": adata[:, :5].copy()})
    mdata.obsm["X_scrcl"], mdata.obs["scrcl"] = adata.obsm["X_scrcl"], adata.obs["scrcl"]
    axes = draw_umap(mdata, color=["scrcl", "rna:gene3"])
    drawn = np.sort(drawn_values(draw_umap(adata, color="gene3")))
    np.testing.assert_allclose(np.sort(drawn_values(axes[1])), drawn)
    assert mdata.obsm["X_scrcl_umap"].shape == (150, 2)


def test_no_category_hides_the_others(result):
    """The order of drawing is random, and the same each time."""
    _, adata = result
    adata.obs["donor"] = np.repeat(["a", "b"], 75)
    drawn = [[to_hex(color) for color in draw_umap(adata, color="donor").collections[0].get_facecolors()] for _ in "xy"]
    assert drawn[0] == drawn[1]
    # Of 75 cells of each in a row, one change; in a random order, about half of the 149.
    changes = sum(a != b for a, b in pairwise(drawn[0]))
    assert 50 < changes < 100


def test_options_of_scanpy_with_a_value_for_each_cell(result):
    _, adata = result
    sizes = np.arange(150.0)
    adata.obsm["X_scrcl"] = np.random.default_rng(0).normal(size=(150, 2)).astype(np.float32)
    ax = draw_umap(adata, color="cell_type", size=sizes)
    points = {tuple(point): size for point, size in zip(adata.obsm["X_scrcl_umap"], sizes, strict=True)}
    drawn = [points[tuple(point)] for point in ax.collections[0].get_offsets()]
    np.testing.assert_array_equal(drawn, ax.collections[0].get_sizes())
    adata.obs["some"] = adata.obs["cell_type"] == "1"
    ax = draw_umap(adata, color="cell_type", mask_obs="some", na_color="#123456")
    assert sum(to_hex(color) == "#123456" for color in ax.collections[0].get_facecolors()) == (~adata.obs["some"]).sum()


@pytest.mark.parametrize("number", [2, 5])
def test_legends_do_not_overlap_their_neighbours(result, number):
    """With long names, which scanpy draws over the next panel."""
    _, adata = result
    adata.obs["long"] = adata.obs["cell_type"].cat.rename_categories(
        lambda name: f"a rather long name of a type {name}"
    )
    axes = draw_umap(adata, color=["long", "cell_type", "long", "gene3", "long"][:number])
    figure = axes[0].get_figure(root=True)
    figure.canvas.draw()
    legends = [ax.get_legend().get_window_extent() for ax in axes if ax.get_legend() is not None]
    places = [ax.get_window_extent() for ax in axes] + [ax.title.get_window_extent() for ax in axes]
    assert len(legends) == number - (number > 3)
    assert not [1 for legend in legends for place in places if legend.overlaps(place)]
    assert not [1 for one, other in combinations(legends, 2) if one.overlaps(other)]
    whole = figure.bbox.padded(2)
    assert all(whole.contains(*corner) for legend in legends for corner in legend.corners())
    assert all(ax.get_window_extent().width > 150 for ax in axes)


class TestLabelsOnTheMap:
    def test_small_clusters_are_not_covered(self, result):
        """A cluster of few cells has its name beside it, and a large one on it."""
        _, adata = result
        rng = np.random.default_rng(0)
        middles = np.array([[0, 0], [30, 0], [30, 6]])
        clusters = np.repeat([0, 1, 2], [140, 6, 4])
        adata.obsm["X_scrcl"] = (
            middles[clusters] + rng.normal(0, np.array([[6], [0.2], [0.2]]), (3, 2))[clusters]
        ).astype("f4")
        adata.obsm["X_scrcl"] += rng.normal(0, np.array([5, 0.3, 0.3])[clusters][:, None], (150, 2))
        adata.obs["scrcl"] = pd.Categorical(clusters.astype(str))
        ax = draw_umap(adata, legend_loc="on data")
        ax.get_figure(root=True).canvas.draw()
        assert ax.get_legend() is None
        dots = ax.transData.transform(adata.obsm["X_scrcl_umap"])
        boxes = {text.get_text(): text.get_window_extent() for text in ax.texts}
        assert set(boxes) == {"0", "1", "2"}
        for name, box in boxes.items():
            inside = np.array([box.contains(*dot) for dot in dots])
            assert inside[clusters == int(name)].mean() <= 0.25
            assert not inside[clusters != int(name)].any() or name == "0"
            middle = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
            nearest = np.abs(dots[clusters == int(name)] - middle).max(1).min()
            assert nearest < max(box.width, box.height) / 2 + 20
        assert not [1 for one, other in combinations(boxes.values(), 2) if one.overlaps(other)]

    def test_by_hand(self):
        """One dot in a corner: the label goes where there is room."""
        anchors, sides = place_labels(np.array([[1.0, 1.0]]), np.array([0]), np.array([[0.1, 0.05]]), np.full(2, 0.01))
        assert anchors.tolist() == [[1, 1]]
        assert sides.tolist() == [[-1, -1]]

    def test_many_mixed_clusters(self):
        """No label is on another one, or hides a dot that stands for a cluster."""
        rng = np.random.default_rng(0)
        points, codes = 0.5 + 0.15 * rng.normal(size=(900, 2)), np.arange(900) % 25
        sizes, gap = np.full((25, 2), 0.05), np.full(2, 0.02)
        anchors, sides = place_labels(points, codes, sizes, gap)
        middles = anchors + sides * (sizes / 2 + gap)
        gaps = np.abs(middles[:, None] - middles[None]) + np.eye(25)[:, :, None]
        assert (gaps >= 0.05 - 1e-9).any(2).all()
        beside = np.flatnonzero(sides.any(1))
        assert (np.abs(anchors[beside, None] - middles[None]) >= 0.025 - 1e-9).any(2).all()

    def test_a_cluster_without_dots_and_dots_without_a_cluster(self):
        points = np.array([[0.5, 0.5], [0.6, 0.5]])
        anchors, _ = place_labels(points, np.array([-1, 1]), np.full((2, 2), 0.01), np.full(2, 0.01))
        assert anchors.tolist() == [[0, 0], [0.6, 0.5]]


class TestSpatial:
    """Maps of tissue, as in squidpy."""

    @pytest.fixture(autouse=True)
    def close(self):
        yield
        plt.close("all")

    def test_the_second_coordinate_points_down(self):
        adata = tissue()
        ax = draw_spatial(adata, color="kind", sample_key="slice")[0]
        bottom, top = ax.get_ylim()
        assert bottom > top

    def test_one_panel_for_each_slice_and_color(self):
        adata = tissue()
        axes = draw_spatial(adata, color="kind", sample_key="slice")
        assert [ax.get_title() for ax in axes] == ["a", "b"]
        for ax, name in zip(axes, "ab", strict=True):
            of_slice = adata.obsm["spatial"][adata.obs["slice"] == name]
            np.testing.assert_allclose(np.sort(ax.collections[0].get_offsets(), 0), np.sort(of_slice, 0))
        # The last slice has the legend, with the kinds of all of them.
        assert [ax.get_legend() is None for ax in axes] == [True, False]
        assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["x", "y", "z"]
        several = draw_spatial(adata, color=["kind", "gene0"], sample_key="slice")
        assert [ax.get_title() for ax in several] == ["kind, a", "kind, b", "gene0, a", "gene0, b"]
        assert several[2].collections[0].get_clim() == several[3].collections[0].get_clim()
        with pytest.raises(ValueError, match="ax is for one panel, but there are 2"):
            draw_spatial(adata, color="kind", sample_key="slice", ax=plt.subplots()[1])

    def test_the_slices_of_the_model_are_known(self):
        adata = tissue()
        adata.uns["scrcl"] = {"spatial_key": "spatial", "sample_key": "slice"}
        assert len(draw_spatial(adata, color="kind")) == 2
        assert isinstance(draw_spatial(adata[adata.obs["slice"] == "a"], color="kind"), Axes)

    def test_kinds_have_the_same_color_in_all_slices(self):
        adata = tissue()
        axes = draw_spatial(adata, color="kind", sample_key="slice")
        colors = dict(zip("xyz", adata.uns["kind_colors"], strict=True))
        for ax, name in zip(axes, "ab", strict=True):
            cells = adata[adata.obs["slice"] == name]
            kinds = {tuple(point): kind for point, kind in zip(cells.obsm["spatial"], cells.obs["kind"], strict=True)}
            for point, color in zip(ax.collections[0].get_offsets(), ax.collections[0].get_facecolors(), strict=True):
                assert to_hex(color) == colors[kinds[tuple(point)]].lower()

    def test_the_image_of_the_tissue(self):
        adata = tissue()
        adata.uns["spatial"] = {"a": library(0.0), "b": library(0.5)}
        for ax, shade in zip(draw_spatial(adata, color="kind", sample_key="slice"), (0.0, 0.5), strict=True):
            image = np.asarray(ax.images[0].get_array())
            assert image[0, 0, 0] == shade
            assert ax.get_ylim() == (29.5, -0.5)
        # Spots are where they are in the image, and as large.
        first = draw_spatial(adata[adata.obs["slice"] == "a"], color="kind", sample_key="slice")
        assert isinstance(first, Axes)
        np.testing.assert_allclose(first.dataLim.extents[:2], [-0.5, -0.5])
        with pytest.raises(ValueError, match=r"images of 2 slices, 'a', 'b'.*sample_key="):
            draw_spatial(adata, color="kind")

    @pytest.mark.parametrize(("n_slices", "n_colors", "grid"), [(1, 3, (1, 3)), (2, 3, (3, 2)), (5, 1, (2, 4))])
    def test_panels_are_in_rows(self, n_slices, n_colors, grid):
        adata = tissue()
        adata.obs["slice"] = pd.Categorical((np.arange(60) % n_slices).astype(str))
        axes = draw_spatial(adata, color=["kind", "gene0", "gene1"][:n_colors], sample_key="slice")
        assert len(axes) == n_slices * n_colors
        assert {ax.get_subplotspec().get_gridspec().get_geometry() for ax in axes} == {grid}
        assert [ax.get_subplotspec().num1 for ax in axes] == list(range(len(axes)))

    def test_a_misspelt_color(self):
        with pytest.raises(KeyError, match=r"color='knd' is not in adata.obs.*Did you mean 'kind'\?"):
            draw_spatial(tissue(), color="knd")


class TestDomainScales:
    """Domains at several scales in matching colours."""

    @pytest.fixture(autouse=True)
    def close(self):
        yield
        plt.close("all")

    def test_domains_that_share_cells_have_the_same_color(self):
        small = np.repeat([0, 1, 2, 3], 10)
        # The first two are joined, and named 1; the others change their names.
        large = np.repeat([1, 1, 2, 0], 10)
        assert match_colors([small, large]) == [[0, 1, 2, 3], [3, 0, 2]]

    def test_pairs_share_as_many_cells_as_possible(self):
        """The largest overlap of one domain alone is not taken: all pairs together are."""
        before, after = np.repeat([0, 0, 1], [5, 4, 6]), np.repeat([0, 1, 0], [5, 4, 6])
        assert match_colors([before, after]) == [[0, 1], [1, 0]]

    def test_domains_without_a_partner_have_colors_of_their_own(self):
        one, three = np.zeros(30, dtype=int), np.repeat([2, 0, 1], 10)
        first, second, third = match_colors([one, three, np.full(30, -1)])
        assert first == [0]
        assert sorted(second) == [0, 1, 2]
        assert third == []

    def test_a_map_for_each_scale(self):
        adata = tissue()
        codes = adata.obs["kind"].cat.codes.to_numpy()
        adata.obs["fine"] = pd.Categorical(codes.astype(str))
        adata.obs["coarse"] = pd.Categorical(np.where(codes == 2, "0", "1"))
        axes = scrcl.pl.domain_scales(adata, {"10 µm": "fine", "20 µm": "coarse"}, sample_key="slice")
        score = adjusted_rand_score(adata.obs["fine"], adata.obs["coarse"])
        assert [ax.get_title() for ax in axes] == [
            "10 µm: 3 domains, a",
            "10 µm: 3 domains, b",
            f"20 µm: 2 domains (ARI {score:.2f}), a",
            f"20 µm: 2 domains (ARI {score:.2f}), b",
        ]

        def colors(ax: Any) -> dict[tuple[float, float], str]:
            cells = ax.collections[0]
            return {tuple(p): to_hex(c) for p, c in zip(cells.get_offsets(), cells.get_facecolors(), strict=True)}

        # "z" is "2" and "0", in the same colour; "x" and "y" are joined.
        fine, coarse = colors(axes[1]), colors(axes[3])
        of_slice = adata[adata.obs["slice"] == "b"]
        same = [fine[tuple(point)] == coarse[tuple(point)] for point in of_slice.obsm["spatial"]]
        of_kind = pd.Series(same).groupby(of_slice.obs["kind"].to_numpy().astype(str)).mean()
        assert of_kind["z"] == 1
        assert set(of_kind) <= {0, 1}
        assert len({*colors(axes[0]).values(), *fine.values()}) == 3
        assert not {"10 µm: 3 domains_colors", "fine_colors"} & set(adata.uns)

    def test_missing_domains_and_a_single_slice(self):
        adata = tissue()
        adata = adata[adata.obs["slice"] == "a"].copy()
        adata.obs["some"] = adata.obs["kind"].where(np.arange(adata.n_obs) > 3)
        axes = scrcl.pl.domain_scales(adata, ["kind", "some"])
        assert [ax.get_title() for ax in axes] == ["kind: 2 domains", "some: 2 domains (ARI 1.00)"]

    @pytest.mark.parametrize(
        ("scales", "error", "message"),
        [
            (["kind"], ValueError, "has 1 different scale. Pass the keys"),
            (["kind", "kind"], ValueError, "has 1 different scale"),
            ("kind", TypeError, "is neither a list nor a dictionary"),
            (["kind", "knd"], KeyError, "Did you mean 'kind'"),
        ],
    )
    def test_scales_that_are_none(self, scales, error, message):
        with pytest.raises(error, match=message):
            scrcl.pl.domain_scales(tissue(), scales, sample_key="slice")


def tissue():
    """Two slices of a grid; the second lacks a kind."""
    y, x = np.divmod(np.arange(60), 6)
    kind = np.where(x + y < 5, "x", np.where(y < 6, "y", "z"))
    kind[30:] = np.where(kind[30:] == "y", "z", kind[30:])
    adata = ad.AnnData(
        np.arange(120, dtype=np.float32).reshape(60, 2),
        obs=pd.DataFrame(
            {"kind": pd.Categorical(kind), "slice": ["a"] * 30 + ["b"] * 30}, index=np.arange(60).astype(str)
        ),
        var=pd.DataFrame(index=["gene0", "gene1"]),
    )
    adata.obsm["spatial"] = np.stack([x, y % 5], 1) * 100.0 + 50
    return adata


def library(shade):
    image = np.full((30, 35, 3), shade)
    image[:10, :15] = [0.8, 0.8, 1.0]
    image[0, 0] = shade
    return {
        "images": {"hires": image},
        "scalefactors": {"tissue_hires_scalef": 0.05, "spot_diameter_fullres": 60.0},
    }


def evidence():
    curve = pd.DataFrame(
        {
            "connectivity": [0, 0.01, 0.1, 0.3, 0.4, 1.5],
            "distance": [np.nan, 1.4, 1.1, 0.6, 0.2, 0.1],
            "agreement": [1, 1, 0.9, 0.95, 0.7, 0.6],
        },
        index=pd.Index(range(1, 7), name="n_clusters"),
    )
    return scrcl.NumberOfClusters(4, [5, 3], curve)


def slices_on_images():
    adata = tissue()
    adata.uns["spatial"] = {"a": library(0.9), "b": library(0.7)}
    return draw_spatial(adata, color="kind", sample_key="slice")[0]


@pytest.mark.parametrize(
    ("name", "draw"),
    [("n_clusters", lambda: scrcl.pl.n_clusters(evidence())), ("spatial", slices_on_images)],
)
def test_images(name, draw, tmp_path):
    """The figure looks like the stored image, which was checked by eye; fonts and antialiasing may differ.

    After an intended change, check the new image, whose path the message has, and put it into ``tests/images``.
    """
    with plt.rc_context(fname=matplotlib_fname(), rc={"savefig.dpi": 50}):
        figure = draw().get_figure(root=True)
        figure.savefig(tmp_path / f"{name}.png")
    shutil.copyfile(Path(__file__).parent / "images" / f"{name}.png", tmp_path / f"{name}-expected.png")
    different = compare_images(str(tmp_path / f"{name}-expected.png"), str(tmp_path / f"{name}.png"), tol=12)
    assert different is None, different


def test_cluster_sizes(result):
    _, adata = result
    ax = scrcl.pl.cluster_sizes(adata)
    assert isinstance(ax, Axes)
    assert [bar.get_width() for bar in ax.containers[0]] == list(adata.obs["scrcl"].value_counts())


def test_cluster_sizes_of_another_column(result):
    _, adata = result
    adata.obs["kind"] = pd.Categorical(["many"] * 100 + ["few"] * 50, categories=["few", "many", "none"])
    ax: Any = scrcl.pl.cluster_sizes(adata, key="kind")
    shown = dict(zip([text.get_text() for text in ax.get_yticklabels()], ax.containers[0], strict=True))
    assert shown["many"].get_width() == 100
    assert shown["few"].get_width() == 50


def test_plots_draw_on_given_axes(result):
    model, adata = result
    _, axes = plt.subplots(1, 3)
    assert scrcl.pl.history(model, ax=axes[0]) is axes[0]
    assert draw_umap(adata, ax=axes[1]) is axes[1]
    assert scrcl.pl.cluster_sizes(adata, ax=axes[2]) is axes[2]


def test_missing_keys(adata):
    with pytest.raises(KeyError, match="color='scrcl' is not in adata.obs"):
        draw_umap(adata)
    with pytest.raises(KeyError, match="basis='X_scrcl' is not in adata.obsm"):
        draw_umap(adata, color="cell_type")
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

    @pytest.mark.parametrize(
        ("group", "title"), [("1", "marker genes of cluster 1"), ("B cells", "marker genes: B cells")]
    )
    def test_title_of_the_bars(self, marked, group, title):
        _, markers = marked
        assert scrcl.pl.marker_bars(markers.assign(group=group), group).get_title() == title

    def test_map_of_the_gene_embedding(self, marked):
        model, _ = marked
        ax: Any = scrcl.pl.gene_modules(model, genes=["gene3", "gene50"])
        assert [text.get_text() for text in ax.texts] == ["gene3", "gene50"]
        assert len(ax.collections[0].get_offsets()) == model.get_gene_modules().notna().sum()

    def test_map_of_given_modules(self, marked):
        """Each module has a colour, and genes of none have another."""
        model, _ = marked
        embedding = model.get_gene_embedding()
        embedding = embedding[embedding.any(axis=1)]
        modules = pd.Series(np.where(np.arange(len(embedding)) < 30, "first", "second"), embedding.index)
        ax: Any = scrcl.pl.gene_modules(model, modules=modules[:-10])
        points = ax.collections[0]  # the others are of the legend
        groups = np.where(np.arange(len(embedding)) < len(embedding) - 10, modules, "none")
        order = np.argsort(groups != "none", kind="stable")  # genes of none are drawn first
        np.testing.assert_allclose(points.get_offsets(), normalize(embedding.to_numpy())[order, :2], rtol=1e-5)
        of_genes = pd.Series([to_hex(color) for color in points.get_facecolors()])
        shown = of_genes.groupby(groups[order]).agg(set)
        assert set(map(len, shown)) == {1}
        assert len(set.union(*shown)) == 3

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


def test_batches():
    adata = simulate()
    adata.obs["batch"] = np.repeat(["a", "b"], [70, 80])
    model = build(adata, setup={"batch_key": "batch"})
    axes: list[Any] = scrcl.pl.batches(model, n_clusters=3)
    assert len(axes) == 3
    assert [ax.get_title() for ax in axes[:2]] == [
        f"{space}: mixing {model.get_batch_report(n_clusters=3).batches[key].mean():.2f}"
        for space, key in (("as measured", "before"), ("latent space", "after"))
    ]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["a", "b"]
    assert sum(len(points.get_offsets()) for points in axes[1].collections) == 150
    assert len(axes[2].patches) == 3
    plt.close("all")


@pytest.fixture(scope="module")
def labelled() -> scrcl.SCRCL:
    adata = simulate(240, n_types=3)
    adata.obs["label"] = np.where(np.arange(240) < 90, adata.obs["cell_type"].astype(str), "Unknown")
    return build(adata, epochs=10, setup={"labels_key": "label", "unlabeled_category": "Unknown"})


class TestLabels:
    def test_confusion(self, labelled):
        ax = scrcl.pl.confusion(labelled)
        counts = labelled.get_label_report().confusions
        shares = counts.to_numpy() / counts.to_numpy().sum(1, keepdims=True)
        np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), shares)
        assert [label.get_text() for label in ax.get_xticklabels()] == list(counts.columns)
        assert [label.get_text().split(" (")[0] for label in ax.get_yticklabels()] == list(counts.index)
        plt.close("all")

    def test_confidence(self, labelled):
        ax = scrcl.pl.confidence(labelled)
        types, best = labelled.predict(), labelled.predict(soft=True).max(axis=1)
        there = [name for name in types.cat.categories if (types == name).any()]
        medians = [best[types == name].median() for name in there]
        np.testing.assert_allclose(np.asarray(ax.lines[0].get_xdata()), medians, rtol=1e-6)
        labels = [f"{name} ({(types == name).sum()})" for name in there]
        assert [label.get_text() for label in ax.get_yticklabels()] == labels
        query = simulate(30, n_types=3, seed=4)
        scrcl.pl.confidence(labelled, query)
        plt.close("all")

    def test_without_labels(self, trained):
        for plot in (scrcl.pl.confusion, scrcl.pl.confidence):
            with pytest.raises(ValueError, match="labels"):
                plot(trained)


def test_certainty(result):
    model, adata = result
    report = model.get_cell_report(n_clusters=3)
    adata.obs["scrcl"] = report["cluster"]
    axes = scrcl.pl.certainty(adata, report, labels_key="cell_type")
    assert len(axes) == 3
    shares = np.array([bar.get_width() for bar in axes[1].patches if isinstance(bar, Rectangle)]).reshape(-1, 3)
    np.testing.assert_allclose(shares.sum(0), 1)
    expected = [
        [((own > low) & (own <= high)).mean() for low, high in ((-1, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1))]
        for _, own in report.groupby("cluster", observed=True)["probability"]
    ]
    np.testing.assert_allclose(shares.T, np.array(expected))
    assert len(scrcl.pl.certainty(adata, report)) == 2


def test_reliability_by_hand(result):
    """Four cells of one cluster and two of another, of which one each is of another type than most."""
    _, adata = result
    some = adata[:7].copy()
    report = pd.DataFrame(
        {
            "cluster": pd.Categorical(list("aaaabbb")),
            "probability": [0.95, 0.95, 0.95, 0.15, 0.95, 0.95, 0.5],
            "outlier_score": 0.0,
        },
        index=some.obs_names,
    )
    some.obs["type"] = pd.Categorical(["x", "x", "x", "y", "z", "w", None])
    some.obsm["X_scrcl_umap"] = np.zeros((7, 2))
    ax = scrcl.pl.certainty(some, report, labels_key="type")[2]
    line = np.asarray(ax.get_lines()[1].get_xydata())
    np.testing.assert_allclose(line, [[0.15, 0], [0.95, 4 / 5]])
    assert ax.get_title().endswith(f"{(0.15 + 5 * 0.15) / 6:.2f}")


def test_certainty_of_other_cells(result):
    model, adata = result
    report = model.get_cell_report(n_clusters=3)
    with pytest.raises(ValueError, match="other cells"):
        scrcl.pl.certainty(adata[:10].copy(), report)
    with pytest.raises(ValueError, match="probability"):
        scrcl.pl.certainty(adata, report.drop(columns="probability"))
    with pytest.raises(KeyError, match="labels_key"):
        scrcl.pl.certainty(adata, report, labels_key="nothing")
