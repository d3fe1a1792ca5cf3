"""Cells in space: the model on simulated slices."""

import warnings
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.graph.adjacency import symmetric_adjacency
from scrcl.graph.slices import majority
from scrcl.graph.smoothing import smooth
from scrcl.graph.spatial import spatial_graph
from scrcl.utils.errors import ScrclValueError, ScrclWarning

from ..helpers import build, real_data, slices_of

setup = scrcl.SCRCL.setup_anndata


def layers(n_cells: int = 240, n_genes: int = 40, n_layers: int = 3, seed: int = 0) -> ad.AnnData:
    """A small panel on a slice with layers, each a mixture of cell types that the counts hardly tell apart."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 10, size=(n_cells, 2))
    layer = np.minimum((points[:, 1] * n_layers / 10).astype(int), n_layers - 1)
    rates = np.random.default_rng(100).gamma(2.0, 0.5, size=n_genes)  # the same in all slices
    boost = np.ones((n_layers, n_genes))
    for kind, genes in enumerate(np.array_split(np.arange(n_genes), n_layers)):
        boost[kind, genes] = 1.8
    counts = rng.poisson(rates * boost[layer])
    counts[:, 0] = np.maximum(counts[:, 0], 1)
    return ad.AnnData(
        sp.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame({"layer": layer.astype(str)}, index=[f"cell{i}" for i in range(n_cells)]),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]),
        obsm={"spatial": points},
    )


def two_slices() -> ad.AnnData:
    """Two slices with overlapping coordinates."""
    both = ad.concat({"a": layers(seed=0), "b": layers(seed=1)}, label="slice", index_unique="-")
    both.obs["slice"] = both.obs["slice"].astype(str)
    return both


@pytest.fixture(scope="module")
def model() -> scrcl.SCRCL:
    return build(layers(), epochs=10, setup={"spatial_key": "spatial"})


@pytest.fixture(scope="module")
def model_of_two() -> scrcl.SCRCL:
    return build(two_slices(), setup={"spatial_key": "spatial", "sample_key": "slice"})


def test_domains_of_a_small_panel(model):
    truth = model.adata.obs["layer"]
    score = adjusted_rand_score(truth, model.get_clusters(n_clusters=3))
    assert score > 0.7
    alone = build(layers(), epochs=10)
    assert score > adjusted_rand_score(truth, alone.get_clusters(n_clusters=3)) + 0.05


def test_what_is_written(model):
    adata, tissue = model.adata, model._reference.spatial
    graph = adata.obsp["scrcl_connectivities"]
    assert (sp.csr_array(graph) != spatial_graph(slices_of(adata.obsm["spatial"]), "knn", 6)).nnz == 0
    expected = smooth(model._reference.adjacency, tissue.features[:, tissue.kept], 10.0)
    np.testing.assert_array_equal(adata.obsm["X_scrcl_features"], expected)
    assert adata.uns["scrcl"]["spatial_graph"] == "knn"


def test_majority_of_clusters(model):
    plain = model.get_clusters(n_clusters=3)
    found = model.get_clusters(n_clusters=3, n_majority=20)
    codes = majority(plain.cat.codes.to_numpy().astype(int), slices_of(model.adata.obsm["spatial"]), 20)
    np.testing.assert_array_equal(found.cat.codes, codes)
    part = model.get_clusters(indices=[5, 3], n_clusters=3, n_majority=20)
    pd.testing.assert_series_equal(part, found.iloc[[5, 3]])


def test_training_cells_keep_their_representation(model):
    """In any order, as a part, with another slice, and in single precision."""
    adata, latent = model.adata, model.get_latent_representation()
    order = np.random.default_rng(0).permutation(adata.n_obs)[:50]
    part = adata[order].copy()
    np.testing.assert_array_equal(model.get_latent_representation(part), latent[order])
    part.obsm["spatial"] = part.obsm["spatial"].astype(np.float32)
    np.testing.assert_array_equal(model.get_latent_representation(part), latent[order])
    single = adata[[7]].copy()
    np.testing.assert_array_equal(model.get_latent_representation(single), latent[[7]])
    pd.testing.assert_series_equal(
        model.get_clusters(part, n_clusters=3, n_majority=10),
        model.get_clusters(n_clusters=3, n_majority=10).iloc[order],
    )


def test_a_new_slice(model):
    new = layers(seed=5)
    latent = model.get_latent_representation(new)
    assert np.isfinite(latent).all()
    # Choosing cells does not take away their context; cutting the slice does.
    some = [4, 200, 11]
    np.testing.assert_array_equal(model.get_latent_representation(new, indices=some), latent[some])
    order = np.random.default_rng(0).permutation(new.n_obs)
    np.testing.assert_allclose(model.get_latent_representation(new[order].copy()), latent[order], atol=1e-5)
    half = new[:120].copy()
    assert np.abs(model.get_latent_representation(half) - latent[:120]).max() > 1e-3
    clusters = model.get_clusters(new, n_clusters=3, n_majority=10)
    assert adjusted_rand_score(new.obs["layer"], clusters) > 0.6
    pd.testing.assert_series_equal(
        model.get_clusters(new, indices=some, n_clusters=3, n_majority=10), clusters.iloc[some]
    )


def test_new_cells_among_training_cells(model):
    """A cell whose counts changed is new, and is seen among the others of its slice, which keep their representation."""
    adata, latent = model.adata, model.get_latent_representation()
    changed = ad.AnnData(adata.X.copy(), obs=adata.obs, var=adata.var, obsm={"spatial": adata.obsm["spatial"]})
    changed.X = sp.vstack([adata.X[:3], adata.X[100], adata.X[4:]]).tocsr()
    found = model.get_latent_representation(changed)
    others = np.arange(adata.n_obs) != 3
    np.testing.assert_array_equal(found[others], latent[others])
    assert 0 < np.abs(found[3] - latent[3]).max() < np.abs(latent[100] - latent[3]).max() + 0.5


def test_slices_do_not_know_of_each_other(model_of_two):
    """New slices with overlapping coordinates get the same alone as together, whatever their names."""
    new, other = layers(seed=7), layers(seed=8)
    new.obs["slice"], other.obs["slice"] = "c", "a"
    both = ad.concat([new, other], index_unique="-", keys=["c", "a"])
    together = model_of_two.get_latent_representation(both)
    np.testing.assert_allclose(together[:240], model_of_two.get_latent_representation(new), atol=1e-5)
    np.testing.assert_allclose(together[240:], model_of_two.get_latent_representation(other), atol=1e-5)


def test_two_slices_in_one_model(model_of_two):
    adata = model_of_two.adata
    graph = model_of_two._reference.adjacency.tocoo()
    names = adata.obs["slice"].to_numpy()
    assert (names[graph.row] == names[graph.col]).all()
    clusters = model_of_two.get_clusters(n_clusters=3)
    for name in "ab":
        rows = names == name
        assert adjusted_rand_score(adata.obs["layer"][rows], clusters[rows]) > 0.6


@pytest.mark.parametrize(
    "options",
    [
        {"spatial_graph": "delaunay", "radius": 3.0},
        {"spatial_graph": "radius", "radius": 0.4},
        {"spatial_graph": "grid"},
        {"spatial_mode": "join"},
        {"spatial_smoothing": 0.0},
    ],
    ids=str,
)
def test_options(options, tmp_path):
    adata = layers()
    adata.obsm["spatial"][:3] = adata.obsm["spatial"][0]  # at one position
    adata.obsm["spatial"][3] = 30  # far from all
    model = build(adata, epochs=2, setup={"spatial_key": "spatial"}, **options)
    latent = model.get_latent_representation()
    assert np.isfinite(latent).all()
    assert model.get_clusters(n_clusters=3).nunique() == 3
    new = layers(seed=3)
    placed = model.get_latent_representation(new)
    assert np.isfinite(placed).all()
    model.save(tmp_path / "model")
    loaded = scrcl.SCRCL.load(tmp_path / "model", adata=new, accelerator="cpu")
    np.testing.assert_array_equal(loaded.get_latent_representation(), placed)
    np.testing.assert_array_equal(loaded.get_latent_representation(adata[::-1].copy())[::-1], latent)


def test_join_adds_the_edges_of_similar_cells(model):
    adata = layers()
    joined = build(adata, epochs=1, setup={"spatial_key": "spatial"}, spatial_mode="join")._reference.adjacency
    spatial = model._reference.adjacency
    assert (joined.maximum(spatial) != joined).nnz == 0
    assert joined.nnz > 1.5 * spatial.nnz
    # With a graph of one's own.
    ring = sp.csr_matrix((np.ones(240), (np.arange(240), (np.arange(240) + 1) % 240)), shape=(240, 240))
    adata.obsp["ring"], adata.uns["ring"] = ring, {"connectivities_key": "ring"}
    setup(adata, spatial_key="spatial", neighbors_key="ring")
    found = scrcl.SCRCL(adata, spatial_mode="join", n_components=10)._reference.adjacency
    assert (found != symmetric_adjacency(spatial + ring)).nnz == 0
    with pytest.raises(ValueError, match="spatial_mode='join'"):
        scrcl.SCRCL(adata)


def test_graph_of_squidpy():
    """The form in which squidpy writes a graph, under the name of its entry and of the matrix."""
    adata = layers()
    graph = spatial_graph(slices_of(adata.obsm["spatial"]), "knn", 3)
    adata.obsp["spatial_connectivities"] = sp.csr_matrix(graph.astype(np.float64))
    adata.uns["spatial_neighbors"] = {
        "connectivities_key": "spatial_connectivities",
        "distances_key": "spatial_distances",
        "params": {"n_neighbors": 3, "coord_type": "generic", "radius": None, "transform": None},
    }
    for key in ("spatial_neighbors", "spatial_connectivities"):
        model = build(adata, epochs=1, setup={"spatial_key": "spatial", "spatial_neighbors_key": key})
        assert (model._reference.adjacency != graph).nnz == 0
    np.testing.assert_array_equal(
        model.get_latent_representation(adata[:9].copy()), model.get_latent_representation()[:9]
    )
    new = layers(seed=2)
    with pytest.raises(KeyError, match="spatial_neighbors_key='spatial_connectivities'"):
        model.get_latent_representation(new)
    new.obsp["spatial_connectivities"] = spatial_graph(slices_of(new.obsm["spatial"]), "knn", 3)
    assert np.isfinite(model.get_latent_representation(new)).all()


def test_save_and_load(model, tmp_path):
    model.save(tmp_path / "model", save_anndata=True)
    loaded = scrcl.SCRCL.load(tmp_path / "model", accelerator="cpu")
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
    pd.testing.assert_series_equal(
        loaded.get_clusters(n_clusters=3, n_majority=9), model.get_clusters(n_clusters=3, n_majority=9)
    )
    loaded.train(1, enable_progress_bar=False, batch_size=100)
    assert np.isfinite(loaded.get_latent_representation()).all()


def test_labels_and_order_do_not_matter(model):
    shuffled = layers()[np.random.default_rng(0).permutation(240)].copy()
    del shuffled.obs["layer"]
    other = build(shuffled, epochs=10, setup={"spatial_key": "spatial"})
    clusters = other.get_clusters(n_clusters=3)
    assert adjusted_rand_score(model.get_clusters(n_clusters=3)[clusters.index], clusters) > 0.85


def test_features_of_ones_own():
    adata = layers()
    adata.obsm["X_mine"] = np.log1p(adata.X.toarray())
    model = build(adata, setup={"spatial_key": "spatial", "features_key": "X_mine"})
    assert adjusted_rand_score(adata.obs["layer"], model.get_clusters(n_clusters=3)) > 0.5


def test_genes_of_domains(model):
    """What the model says of genes holds for domains and for new slices."""
    adata = layers()
    adata.obs["scrcl"] = model.get_clusters(adata, n_clusters=3).to_numpy()
    markers = model.get_marker_genes(adata, groupby="scrcl")
    layer = adata.obs.groupby("scrcl", observed=True)["layer"].agg(lambda names: int(names.mode()[0]))
    blocks = np.array_split(np.arange(40), 3)
    for group, rows in markers.groupby("group", observed=True):
        best = rows["gene"].head(5).str.removeprefix("gene").astype(int)
        assert best.isin(blocks[layer[group]]).mean() >= 0.8
    assert model.get_cell_gene_associations(layers(seed=6), genes=["gene3"]).shape == (240, 1)


def test_mapping_quality_is_for_single_cells(model):
    with pytest.raises(NotImplementedError, match="without `spatial_key`"):
        model.get_mapping_quality(layers(seed=6))


@pytest.mark.slow
def test_agreement_with_the_layers_of_a_cortex():
    adata = ad.read_h5ad(real_data("starmap_mpfc_BZ5.h5ad"))
    domains = adata.obs.pop("domain")
    model = build(adata, epochs=50, setup={"spatial_key": "spatial"}, n_hidden=128, n_refined=32, n_components=50)
    assert adjusted_rand_score(domains, model.get_clusters(n_clusters=4)) > 0.3


# ------------------------------------------------------------------- faults


def with_coordinates(change) -> ad.AnnData:
    adata = layers()
    adata.obsm["spatial"] = change(adata.obsm["spatial"])
    return adata


def with_nan(points):
    points[[3, 8], 0] = np.nan
    return points


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_nan, r"NaN or infinite coordinates for 2 of 240 cells.*Remove"),
        (lambda points: points[:, :1], r"\(240, 1\), not two or three columns"),
        (lambda points: points.astype(str) + "x", "values other than numbers"),
    ],
)
def test_coordinates_that_are_none(change, message):
    with pytest.raises(ValueError, match=rf"adata\.obsm\['spatial'\].*{message}|{message}"):
        setup(with_coordinates(change), spatial_key="spatial")


def test_coordinates_that_are_missing():
    with pytest.raises(KeyError, match=r"spatial_key='xy' is not in adata\.obsm. Present: 'spatial'"):
        setup(layers(), spatial_key="xy")
    with pytest.raises(KeyError, match=r"sample_key='slide' is not in adata\.obs"):
        setup(layers(), spatial_key="spatial", sample_key="slide")
    with pytest.raises(ValueError, match="sample_key.*spatial_key"):
        setup(layers(), sample_key="layer")
    adata = layers()
    adata.obs["slice"] = ["a"] * 239 + [None]
    with pytest.raises(ValueError, match="missing for 1 cell"):
        setup(adata, spatial_key="spatial", sample_key="slice")
    with pytest.raises(ValueError, match="the same position.*for 1,500 cells of the data"):
        slices_of(np.zeros((1500, 2)))


def test_new_cells_without_coordinates(model):
    new = layers(seed=4)
    del new.obsm["spatial"]
    with pytest.raises(KeyError, match="spatial_key='spatial'"):
        model.get_latent_representation(new)
    with pytest.raises(
        ValueError, match="at least 7 cells in each slice, but there are 3.*all cells of the slice.*`indices`"
    ):
        model.get_latent_representation(layers(seed=4)[:3].copy())


def test_a_slice_with_fewer_cells_than_neighbors():
    adata = layers()
    adata.obs["slice"] = np.where(np.arange(240) < 4, "small", "large")
    setup(adata, spatial_key="spatial", sample_key="slice")
    with pytest.raises(ValueError, match=r"at least 7 cells.*4 in the slice 'small'.*n_spatial_neighbors=3"):
        scrcl.SCRCL(adata)
    scrcl.SCRCL(adata, n_spatial_neighbors=3, n_components=5)


def test_arguments_out_of_range(model, trained):
    adata = layers()
    setup(adata, spatial_key="spatial")
    faults: list[tuple[dict[str, Any], str]] = [
        ({"spatial_graph": "voronoi"}, "spatial_graph=.* is not valid"),
        ({"spatial_graph": "radius"}, "requires a radius"),
        ({"spatial_graph": "radius", "radius": -1.0}, "radius=.* is not valid"),
        ({"n_spatial_neighbors": 0}, "n_spatial_neighbors=.* is not valid"),
        ({"spatial_smoothing": -1.0}, "spatial_smoothing=.* is not valid"),
        ({"spatial_mode": "both"}, "spatial_mode=.* is not valid"),
        ({"radius": 3.0}, "radius=3.0 has no effect with spatial_graph='knn'"),
    ]
    for options, message in faults:
        with pytest.raises(ValueError, match=message):
            scrcl.SCRCL(adata, **options)
    setup(adata)
    faults = [
        ({"spatial_graph": "delaunay"}, "spatial_graph requires coordinates.*spatial_key"),
        ({"spatial_smoothing": 3.0}, "spatial_smoothing requires coordinates"),
        ({"spatial_mode": "join"}, "spatial_mode requires coordinates"),
    ]
    for options, message in faults:
        with pytest.raises(ValueError, match=message):
            scrcl.SCRCL(adata, **options)
    adata.obsp["mine"] = sp.eye_array(240, format="csr")
    setup(adata, spatial_key="spatial", spatial_neighbors_key="mine")
    with pytest.raises(ValueError, match="n_spatial_neighbors has no effect with.*'mine'"):
        scrcl.SCRCL(adata, n_spatial_neighbors=3)
    with pytest.raises(ValueError, match="n_majority=5 requires coordinates"):
        trained.get_clusters(n_majority=5)
    with pytest.raises(ValueError, match="n_majority=.* is not valid"):
        model.get_clusters(n_majority=-1)


def test_a_radius_far_too_large():
    points = np.random.default_rng(0).uniform(size=(2000, 2))
    with pytest.raises(ValueError, match="joins a cell of the data to 1,999 others on average. Pass a smaller radius"):
        spatial_graph(slices_of(points), "radius", radius=10)


def test_cells_on_a_line():
    with pytest.raises(ValueError, match="cannot triangulate the data.*spatial_graph='knn'"):
        spatial_graph(slices_of(np.arange(10.0)[:, None] * [1, 1]), "delaunay")


def test_a_graph_between_slices():
    adata = two_slices()
    adata.obsp["g"] = spatial_graph(slices_of(adata.obsm["spatial"]), "knn", 3)
    with pytest.raises(ValueError, match="edges between slices.*Leave `spatial_neighbors_key` out"):
        setup(adata, spatial_key="spatial", sample_key="slice", spatial_neighbors_key="g")


def test_coordinates_of_other_cells():
    adata = layers()
    np.random.default_rng(0).shuffle(adata.obsm["spatial"])
    setup(adata, spatial_key="spatial")
    with pytest.warns(UserWarning, match="does not vary in space"):
        scrcl.SCRCL(adata, n_components=10)


def test_map(model):
    adata = layers()
    adata.obs["scrcl"] = model.get_clusters(n_clusters=3)
    ax: Any = scrcl.pl.spatial(adata)
    drawn = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(adata.obsm["spatial"], axis=0))
    assert ax.get_aspect() == 1
    assert scrcl.pl.spatial(adata, color="gene3", ax=ax) is ax
    with pytest.raises(KeyError, match="color='type'"):
        scrcl.pl.spatial(adata, color="type")
    with pytest.raises(KeyError, match="spatial_key='xy'"):
        scrcl.pl.spatial(adata, spatial_key="xy")
    plt.close("all")


def test_steps_of_smoothing_are_chosen_and_kept(tmp_path):
    """Spots with many counts, whose types change from place to place, are smoothed less than noisy cells in layers."""
    noisy, clear = layers(), layers()
    places = np.sin(12 * clear.obsm["spatial"][:, :1] / 10) * np.linspace(-1, 1, 40)
    clear.X = sp.csr_matrix(np.round(50 * np.exp(places)).astype(np.float32))
    build(noisy, epochs=1, setup={"spatial_key": "spatial"})
    model = build(clear, epochs=1, setup={"spatial_key": "spatial"})
    steps = clear.uns["scrcl"]["spatial_smoothing"]
    assert 0 < steps < noisy.uns["scrcl"]["spatial_smoothing"] <= 10
    model.save(tmp_path / "model")
    loaded = scrcl.SCRCL.load(tmp_path / "model", adata=clear, accelerator="cpu")
    assert loaded._reference.spatial is not None
    assert loaded._reference.spatial.strength == steps
    given = clear.copy()
    build(given, epochs=1, setup={"spatial_key": "spatial"}, spatial_smoothing=10.0)
    assert given.uns["scrcl"]["spatial_smoothing"] == 10


def test_smoothing_over_a_length():
    tissue = layers()
    options: Any = {"spatial_smoothing": "2 units"}
    model = build(tissue, epochs=2, setup={"spatial_key": "spatial"}, **options)
    assert tissue.uns["scrcl"]["spatial_smoothing"] == "2 units"
    # The same in micrometres, of an image with pixels of half a micrometre.
    pixels = layers()
    pixels.obsm["spatial"] = 2 * pixels.obsm["spatial"]
    pixels.uns["spatial"] = {"slice": {"scalefactors": {"microns_per_pixel": 0.5}}}
    other = build(pixels, epochs=2, setup={"spatial_key": "spatial"}, spatial_smoothing="2 µm")
    np.testing.assert_allclose(other._reference.features, model._reference.features, atol=1e-5)
    new = layers(200, seed=5)
    assert len(model.get_clusters(new, n_clusters=3)) == 200


@pytest.mark.parametrize("scale", [0.001, 1000.0])
@pytest.mark.parametrize(
    "options", [{}, {"spatial_smoothing": 2.0}, {"spatial_graph": "radius", "radius": 1.2}], ids=str
)
def test_the_unit_of_the_coordinates_does_not_matter(options, scale):
    """Cells 5 µm apart and spots 100 µm apart are treated alike, if distances are in the same unit."""
    one, other = dict(options), dict(options)
    if "spatial_smoothing" in options:
        one, other = {"spatial_smoothing": "2 units"}, {"spatial_smoothing": f"{2 * scale} units"}
    if "radius" in options:
        other["radius"] *= scale
    scaled = layers()
    scaled.obsm["spatial"] = scale * scaled.obsm["spatial"]
    first = build(layers(), 2, setup={"spatial_key": "spatial"}, **one)
    second = build(scaled, 2, setup={"spatial_key": "spatial"}, **other)
    assert (first._reference.adjacency != second._reference.adjacency).nnz == 0
    np.testing.assert_allclose(second._reference.features, first._reference.features, atol=1e-4)
    cells = np.arange(240)
    views = (model._reference.domain_spaces(None, cells) for model in (first, second))
    for expected, found in zip(*views, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    clusters = [model.get_clusters(n_clusters=3) for model in (first, second)]
    assert adjusted_rand_score(*clusters) > 0.95


def test_dense_and_sparse_slices_have_the_same_domains():
    """The same layers, in a slice with 1,200 cells and in one with 150 farther apart, over the same distance."""
    parts = {"dense": layers(1200, seed=3), "sparse": layers(150, seed=4)}
    both = ad.concat(parts, label="slice", index_unique="-")
    model = build(both, 5, setup={"spatial_key": "spatial", "sample_key": "slice"}, spatial_smoothing="1 units")
    clusters = model.get_clusters(n_clusters=3)
    for name in parts:
        rows = (both.obs["slice"] == name).to_numpy()
        assert adjusted_rand_score(both.obs["layer"][rows], clusters[rows]) > 0.6
    # The most frequent domain of a layer has the same name in both.
    of_slice = [(both.obs["slice"] == name).to_numpy() for name in parts]
    tables = [pd.crosstab(both.obs["layer"][rows], clusters[rows]) for rows in of_slice]
    assert tables[0].idxmax(axis=1).tolist() == tables[1].idxmax(axis=1).tolist()


def test_dense_and_sparse_parts_of_a_slice_have_the_same_domains():
    """Layers that continue from a part with cells 0.2 apart to one with cells 0.8 apart."""
    dense, sparse = layers(900, seed=3), layers(400, seed=4)
    dense.obsm["spatial"][:, 0] *= 0.6
    sparse.obsm["spatial"][:, 0] = 6 + 3 * sparse.obsm["spatial"][:, 0]
    tissue = ad.concat({"dense": dense, "sparse": sparse}, label="part", index_unique="-")
    clusters = build(tissue, 5, setup={"spatial_key": "spatial"}, spatial_smoothing="1.5 units").get_clusters(
        n_clusters=3
    )
    for part in ("dense", "sparse"):
        rows = (tissue.obs["part"] == part).to_numpy()
        assert adjusted_rand_score(tissue.obs["layer"][rows], clusters[rows]) > 0.6


def in_pixels(tissue: ad.AnnData, micrometers_per_pixel: float) -> ad.AnnData:
    """The same tissue in an image with pixels of another size."""
    tissue.obsm["spatial"] = tissue.obsm["spatial"] / micrometers_per_pixel
    tissue.uns["spatial"] = {"slice": {"scalefactors": {"microns_per_pixel": micrometers_per_pixel}}}
    return tissue


def test_new_slices_in_other_pixels(tmp_path):
    """With a distance in micrometres, it does not matter how large the pixels of a new slice are, also after loading."""
    built: Any = build(in_pixels(layers(), 0.5), 2, setup={"spatial_key": "spatial"}, spatial_smoothing="2 µm")
    built.save(tmp_path / "model")
    for model in (built, scrcl.SCRCL.load(tmp_path / "model", adata=in_pixels(layers(), 0.5), accelerator="cpu")):
        same = model.get_latent_representation(in_pixels(layers(200, seed=5), 0.5))
        other = model.get_latent_representation(in_pixels(layers(200, seed=5), 0.25))
        np.testing.assert_allclose(other, same, atol=1e-5)
        unknown = layers(200, seed=5)
        with pytest.raises(ValueError, match="the scale of the coordinates is unknown"):
            model.get_latent_representation(unknown)
    # Training cells in other pixels are recognised.
    latent = built.get_latent_representation()
    np.testing.assert_array_equal(built.get_latent_representation(in_pixels(layers(), 0.25)), latent)


@pytest.mark.parametrize(
    ("smoothing", "message"),
    [
        ("2 µm", "the scale of the coordinates is unknown"),
        ("2", "is not a length"),
        (-1.0, "spatial_smoothing=-1.0"),
        ("50 units", r"'50 units' is longer than the slice, of 14 units.*the nearest cell is typically at 0.29 units"),
    ],
)
def test_lengths_that_cannot_be_read(smoothing, message):
    tissue = layers()
    setup(tissue, spatial_key="spatial")
    with pytest.raises(ValueError, match=message):
        scrcl.SCRCL(tissue, spatial_smoothing=smoothing)


def test_a_length_that_is_too_long_is_in_the_unit_of_the_user():
    tissue = in_pixels(layers(), 0.5)
    setup(tissue, spatial_key="spatial")
    with pytest.raises(ValueError, match=r"'50 µm' is longer than the slice, of 14 µm"):
        scrcl.SCRCL(tissue, spatial_smoothing="50 µm")


@pytest.mark.parametrize("smoothing", [True, [1, 2], {"a": 1}, np.nan])
def test_smoothing_that_is_neither_a_number_nor_a_length(smoothing):
    tissue = layers()
    setup(tissue, spatial_key="spatial")
    with pytest.raises(ScrclValueError, match="spatial_smoothing=.* is not valid"):
        scrcl.SCRCL(tissue, spatial_smoothing=smoothing)


def test_a_length_that_reaches_no_cell():
    """As where coordinates are in millimetres; numerically it is no smoothing."""
    tissue = layers()
    setup(tissue, spatial_key="spatial")
    with pytest.warns(ScrclWarning, match="'0.0001 units' hardly smooths: the nearest cell is typically at 0.29 units"):
        hardly = scrcl.SCRCL(tissue, spatial_smoothing="0.0001 units")
    not_ = scrcl.SCRCL(tissue, spatial_smoothing=0)
    np.testing.assert_allclose(hardly._reference.features, not_._reference.features, atol=1e-4)


def test_new_slices_in_another_unit():
    tissue, new = layers(), layers(seed=1)
    model = build(tissue, setup={"spatial_key": "spatial"}, epochs=1, spatial_smoothing="1 units")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ScrclWarning)
        model.get_latent_representation(new)
    new.obsm["spatial"] = 1000 * new.obsm["spatial"]
    with pytest.warns(
        ScrclWarning, match=r"at \d{3} units in the new slices, but at 0.29\d* in the slices of the model"
    ):
        model.get_latent_representation(new)


def test_a_length_requires_coordinates():
    tissue = layers()
    setup(tissue)
    with pytest.raises(ValueError, match="spatial_smoothing requires coordinates"):
        scrcl.SCRCL(tissue, spatial_smoothing="2 µm")
