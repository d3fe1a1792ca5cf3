"""Cells in space: the graph, smoothing and majority against brute force, and the model on simulated slices."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.cluster.consensus import agglomerate
from scrcl.graph.adjacency import join_reference, symmetric_adjacency
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.graph.slices import Slices, find_cells, majority, nearest_in_space, read_slices
from scrcl.graph.smoothing import _chance, autocorrelation, smooth, varying_in_space
from scrcl.graph.spatial import spatial_graph

from ..conftest import build, real_data

setup = scrcl.SCRCL.setup_anndata


def slices_of(points, samples=None) -> Slices:
    return read_slices(points, samples, "adata.obsm['spatial']", "adata.obs['sample']")


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


# ------------------------------------------------------------------- graphs


def edges(graph) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in zip(*graph.nonzero(), strict=True) if i < j}


def check_form(graph):
    assert (graph != graph.T).nnz == 0
    assert graph.diagonal().sum() == 0
    assert set(graph.data) <= {1.0}


@pytest.mark.parametrize("dimensions", [2, 3])
def test_nearest_cells(dimensions):
    points = np.random.default_rng(0).normal(size=(60, dimensions))
    graph = spatial_graph(slices_of(points), "knn", 4)
    check_form(graph)
    distances = cdist(points, points)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, 1)[:, :4]
    assert edges(graph) == {(min(i, j), max(i, j)) for i, row in enumerate(nearest.tolist()) for j in row}


def test_radius():
    points = np.random.default_rng(0).uniform(size=(50, 2))
    points[0] = 5  # isolated
    graph = spatial_graph(slices_of(points), "radius", radius=0.2)
    check_form(graph)
    distances = cdist(points, points)
    assert edges(graph) == {(i, j) for i in range(50) for j in range(i + 1, 50) if distances[i, j] <= 0.2}
    assert graph[[0]].nnz == 0


def test_delaunay():
    # A square with its centre: the triangulation has the four sides and the four spokes.
    points = np.array([[0, 0], [2, 0], [2, 2], [0, 2], [1, 1.0]])
    assert edges(spatial_graph(slices_of(points), "delaunay")) == {
        (0, 1), (1, 2), (2, 3), (0, 3), (0, 4), (1, 4), (2, 4), (3, 4),
    }  # fmt: skip
    assert edges(spatial_graph(slices_of(points), "delaunay", radius=1.5)) == {(0, 4), (1, 4), (2, 4), (3, 4)}
    # A second cell at the centre is joined to the first and to all corners.
    twice = edges(spatial_graph(slices_of(np.vstack([points, points[4]])), "delaunay"))
    assert {(i, 5) for i in range(5)} <= twice


def test_hexagonal_grid_as_array_and_in_pixels():
    row, column = np.meshgrid(np.arange(6), np.arange(8), indexing="ij")
    array = np.column_stack([row.ravel(), (2 * column + row % 2).ravel()]).astype(float)
    graph = spatial_graph(slices_of(array), "grid")
    check_form(graph)
    pixels = array * [np.sqrt(3) * 50, 50] @ np.array([[0.8, -0.6], [0.6, 0.8]]) + 3
    assert edges(graph) == edges(spatial_graph(slices_of(pixels), "grid"))
    inside = (row.ravel() % 5 > 0) & (column.ravel() % 7 > 0)
    assert set(graph.sum(axis=1)[inside]) == {6}
    middle = 3 * 8 + 3
    offsets = array[edges_of(graph, middle)] - array[middle]
    assert {tuple(offset) for offset in offsets.tolist()} == {(0, 2), (0, -2), (1, 1), (1, -1), (-1, 1), (-1, -1)}


def edges_of(graph, cell: int) -> np.ndarray:
    return graph[[cell]].nonzero()[1]


@pytest.mark.parametrize("step", [1, 100])
def test_square_grid(step):
    row, column = np.meshgrid(np.arange(5), np.arange(5), indexing="ij")
    graph = spatial_graph(slices_of(np.column_stack([row.ravel(), column.ravel()]) * step), "grid")
    assert sorted(edges_of(graph, 12)) == [7, 11, 13, 17]
    assert graph.nnz == 2 * 40


@pytest.mark.parametrize("kind", ["knn", "radius", "delaunay", "grid"])
def test_slices_are_never_joined(kind):
    points = np.random.default_rng(0).uniform(size=(40, 2))
    samples = np.repeat(["a", "b"], 40)
    order = np.random.default_rng(1).permutation(80)
    graph = spatial_graph(slices_of(np.vstack([points, points])[order], samples[order]), kind, radius=0.3)
    back = np.argsort(order)
    graph = graph[back][:, back]
    alone = spatial_graph(slices_of(points), kind, radius=0.3)
    assert (graph != sp.block_diag([alone, alone])).nnz == 0


def test_cells_at_one_position():
    points = np.vstack([np.zeros((20, 2)), np.random.default_rng(0).normal(5, 1, size=(10, 2))])
    nearest = nearest_in_space(points, 4)
    assert (nearest != np.arange(30)[:, None]).all()
    assert all(len(set(row)) == 4 for row in nearest.tolist())
    assert (nearest[:20] < 20).all()
    check_form(spatial_graph(slices_of(points), "knn", 4))


def test_ties_do_not_depend_on_the_order():
    row, column = np.meshgrid(np.arange(6.0), np.arange(6.0))
    points = np.column_stack([row.ravel(), column.ravel()])
    order = np.random.default_rng(0).permutation(36)
    graph, shuffled = (spatial_graph(slices_of(each), "knn", 6) for each in (points, points[order]))
    assert (graph[order][:, order] != shuffled).nnz == 0


# ----------------------------------------------------- smoothing and labels


@pytest.mark.parametrize("strength", [0.5, 10.0, 100.0])
def test_smoothing_solves_the_linear_system(strength):
    rng = np.random.default_rng(0)
    graph = spatial_graph(slices_of(rng.uniform(size=(80, 2))), "radius", radius=0.15).toarray()
    features = rng.normal(size=(80, 3))
    walk = (graph + np.eye(80)) / (graph.sum(1, keepdims=True) + 1)
    expected = np.linalg.solve(np.eye(80) + strength * (np.eye(80) - walk), features)
    found = smooth(sp.csr_array(graph.astype(np.float32)), features, strength)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_smoothing_leaves_constants_and_the_isolated():
    graph = symmetric_adjacency(sp.csr_array((np.ones(2), ([0, 1], [1, 2])), shape=(4, 4)))
    constant = np.array([[1.0], [1.0], [1.0], [7.0]])
    np.testing.assert_allclose(smooth(graph, constant, 10), constant, rtol=1e-5)
    np.testing.assert_array_equal(smooth(graph, constant, 0), constant)


def test_autocorrelation():
    """Moran's I by its definition, with weights that sum to one for each cell."""
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(100, 2))
    graph = spatial_graph(slices_of(points), "knn", 5)
    features = np.column_stack([points[:, 0], rng.normal(size=100)])
    weights = graph.toarray() / graph.sum(axis=1)[:, None]
    centered = features - features.mean(0)
    expected = [100 / weights.sum() * (c @ weights @ c) / (c @ c) for c in centered.T]
    found = autocorrelation(graph, features)
    np.testing.assert_allclose(found, expected)
    assert found[0] > 0.8
    assert abs(found[1]) < 0.2


def test_what_varies_in_space():
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(400, 2))
    graph = spatial_graph(slices_of(points), "knn", 6)
    drawn = [autocorrelation(graph, rng.normal(size=(400, 200))).std() for _ in range(3)]
    np.testing.assert_allclose(np.mean(drawn), _chance(graph), rtol=0.1)
    wave = np.sin(5 * points)
    features = np.column_stack([wave, wave + rng.normal(size=wave.shape), rng.normal(size=(400, 20))])
    kept = varying_in_space(graph, features)
    assert kept[:4].all()
    assert kept[4:].sum() <= 2
    # Weak structure counts where there is no stronger.
    assert varying_in_space(graph, np.column_stack([wave + 2 * rng.normal(size=wave.shape), features[:, 4:]]))[:2].all()
    with pytest.warns(UserWarning, match="hardly varies in space"):
        assert varying_in_space(graph, features[:, 4:]).all()


def test_majority():
    points = np.arange(7.0)[:, None] * [1, 0]
    labels = np.array([0, 0, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(majority(labels, slices_of(points), 2), [0, 0, 0, 0, 0, 1, 1])
    # The same points in two slices: a slice with other labels does not count.
    both = slices_of(np.vstack([points, points]), np.repeat([0, 1], 7))
    found = majority(np.concatenate([labels, np.full(7, 2)]), both, 2)
    np.testing.assert_array_equal(found, [0, 0, 0, 0, 0, 1, 1, *[2] * 7])
    np.testing.assert_array_equal(majority(labels, slices_of(points), 50), np.zeros(7))  # all others
    tie = majority(np.array([0, 1]), slices_of(points[:2]), 50)
    np.testing.assert_array_equal(tie, [0, 1])


def _first_of_two(tree) -> np.ndarray:
    """Which points are in the first of two clusters of a tree."""
    return tree.same(2).argmax(1)[tree.labels] == 0


def test_domains_are_joined_by_distance():
    """The two nearest of three tight groups are joined, though the cosine of the other two is larger."""
    rng = np.random.default_rng(0)
    means = np.repeat([[1.0, 1.0], [10.0, 10.0], [1.0, -1.0]], 20, axis=0)
    labels = np.repeat([0, 1, 2], 20)
    profiles = means + rng.normal(scale=0.01, size=means.shape)
    np.testing.assert_array_equal(_first_of_two(agglomerate(profiles, labels, euclidean=True)), labels != 1)
    unit = profiles / np.linalg.norm(profiles, axis=1, keepdims=True)
    np.testing.assert_array_equal(_first_of_two(agglomerate(unit, labels)), labels != 2)


def test_cells_are_found_again():
    rng = np.random.default_rng(0)
    points, features = rng.uniform(size=(30, 2)), rng.normal(size=(30, 4))
    points[1] = points[0]
    known = slices_of(points, np.repeat(["a", "b"], 15))
    order = rng.permutation(30)
    found = find_cells(slices_of(points[order].astype(np.float32)), features[order], known, features)
    np.testing.assert_array_equal(found, order)
    moved, changed = points + 1e-3, features + 0.1
    assert (find_cells(slices_of(moved), features, known, features) == -1).all()
    assert (find_cells(slices_of(points), changed, known, features) == -1).all()


def test_joined_propagation():
    rng = np.random.default_rng(0)
    reference = spatial_graph(slices_of(rng.uniform(size=(8, 2))), "knn", 2)
    graph = spatial_graph(slices_of(rng.uniform(size=(5, 2))), "knn", 2)
    neighbors = nearest_neighbors(rng.normal(size=(8, 3)), 3, rng.normal(size=(5, 3)))
    found = join_reference(graph, reference, neighbors).toarray()
    edges_from = np.zeros((13, 13))
    edges_from[:8, :8] = reference.toarray()
    edges_from[8:, 8:] = graph.toarray()
    edges_from[8:, :8] = neighbors.to_sparse().toarray()
    degree = edges_from.sum(1) + 1
    expected = (edges_from + np.eye(13)) / np.sqrt(np.outer(degree, degree))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# -------------------------------------------------------------------- model


def test_domains_of_a_small_panel(model):
    truth = model.adata.obs["layer"]
    score = adjusted_rand_score(truth, model.get_clusters(n_clusters=3))
    assert score > 0.7
    alone = build(layers(), epochs=10)
    assert score > adjusted_rand_score(truth, alone.get_clusters(n_clusters=3)) + 0.2


def test_what_is_written(model):
    adata, tissue = model.adata, model._reference.tissue
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


def test_agreement_with_the_layers_of_a_cortex():
    adata = ad.read_h5ad(real_data("starmap_mpfc_BZ5.h5ad"))
    domains = adata.obs.pop("domain")
    model = build(adata, epochs=50, setup={"spatial_key": "spatial"}, n_hidden=128, n_refined=32, n_components=50)
    assert adjusted_rand_score(domains, model.get_clusters(n_clusters=4)) > 0.5


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
        (lambda points: points[:, :1], r"two or three columns.*\(240, 1\)"),
        (lambda points: points.astype(str) + "x", "must hold numbers"),
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
    with pytest.raises(ValueError, match="missing for 1 cells"):
        setup(adata, spatial_key="spatial", sample_key="slice")
    with pytest.raises(ValueError, match="1,500 cells of the data are at one position"):
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
        ({"spatial_graph": "voronoi"}, "spatial_graph must be one of"),
        ({"spatial_graph": "radius"}, "needs a `radius`"),
        ({"spatial_graph": "radius", "radius": -1.0}, "radius must be"),
        ({"n_spatial_neighbors": 0}, "n_spatial_neighbors must be"),
        ({"spatial_smoothing": -1.0}, "spatial_smoothing must be"),
        ({"spatial_mode": "both"}, "spatial_mode must be one of"),
        ({"radius": 3.0}, "radius=3.0 is not used by spatial_graph='knn'"),
    ]
    for options, message in faults:
        with pytest.raises(ValueError, match=message):
            scrcl.SCRCL(adata, **options)
    setup(adata)
    faults = [
        ({"spatial_graph": "delaunay"}, "spatial_graph tells of cells in space.*spatial_key"),
        ({"spatial_smoothing": 3.0}, "spatial_smoothing tells of cells in space"),
        ({"spatial_mode": "join"}, "spatial_mode tells of cells in space"),
    ]
    for options, message in faults:
        with pytest.raises(ValueError, match=message):
            scrcl.SCRCL(adata, **options)
    adata.obsp["mine"] = sp.eye_array(240, format="csr")
    setup(adata, spatial_key="spatial", spatial_neighbors_key="mine")
    with pytest.raises(ValueError, match="n_spatial_neighbors would not be used beside.*'mine'"):
        scrcl.SCRCL(adata, n_spatial_neighbors=3)
    with pytest.raises(ValueError, match="n_majority=5 needs coordinates"):
        trained.get_clusters(n_majority=5)
    with pytest.raises(ValueError, match="n_majority must be"):
        model.get_clusters(n_majority=-1)


def test_a_radius_far_too_large():
    points = np.random.default_rng(0).uniform(size=(2000, 2))
    with pytest.raises(ValueError, match="joins a cell of the data to 1,999 others on average. Pass a smaller one"):
        spatial_graph(slices_of(points), "radius", radius=10)


def test_cells_on_a_line():
    with pytest.raises(ValueError, match="cannot be triangulated.*spatial_graph='knn'"):
        spatial_graph(slices_of(np.arange(10.0)[:, None] * [1, 1]), "delaunay")


def test_a_graph_between_slices():
    adata = two_slices()
    adata.obsp["g"] = spatial_graph(slices_of(adata.obsm["spatial"]), "knn", 3)
    with pytest.raises(ValueError, match="edges between slices.*library_key"):
        setup(adata, spatial_key="spatial", sample_key="slice", spatial_neighbors_key="g")


def test_coordinates_of_other_cells():
    adata = layers()
    np.random.default_rng(0).shuffle(adata.obsm["spatial"])
    setup(adata, spatial_key="spatial")
    with pytest.warns(UserWarning, match="hardly varies in space"):
        scrcl.SCRCL(adata, n_components=10)


def test_map(model):
    adata = layers()
    adata.obs["scrcl"] = model.get_clusters(n_clusters=3)
    ax = scrcl.pl.spatial(adata)
    drawn = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(adata.obsm["spatial"], axis=0))
    assert ax.get_aspect() == 1
    assert scrcl.pl.spatial(adata, color="gene3", ax=ax) is ax
    with pytest.raises(KeyError, match="color='type'"):
        scrcl.pl.spatial(adata, color="type")
    with pytest.raises(KeyError, match="spatial_key='xy'"):
        scrcl.pl.spatial(adata, spatial_key="xy")
    plt.close("all")


# -------------------------------------------------------------- SpatialData


class Sdata:
    """The part of a SpatialData object that is read: tables by name, and elements by item."""

    def __init__(self, tables: dict, elements: dict | None = None):
        self.tables, self._elements = tables, elements or {}

    def __getitem__(self, name: str):
        return self._elements[name]


def annotating_table() -> ad.AnnData:
    adata = layers(20)
    del adata.obsm["spatial"]
    adata.obs["region"] = pd.Categorical(np.repeat(["left", "right"], 10))
    adata.obs["instance_id"] = np.tile(np.arange(10)[::-1], 2)
    adata.uns["spatialdata_attrs"] = {
        "region": ["left", "right"],
        "region_key": "region",
        "instance_key": "instance_id",
    }
    return adata


def test_table_with_coordinates():
    adata = layers(20)
    found = scrcl.from_spatialdata(Sdata({"table": adata}))
    assert found is not adata
    np.testing.assert_array_equal(found.obsm["spatial"], adata.obsm["spatial"])
    setup(found, spatial_key="spatial")


def test_coordinates_of_annotated_elements(monkeypatch):
    """Rows are matched to the instances of their element, here in the opposite order."""

    def get_centroids(element, coordinate_system):
        assert coordinate_system == "aligned"
        return SimpleNamespace(compute=lambda: element)

    stub = ModuleType("spatialdata")
    stub.get_centroids = get_centroids  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spatialdata", stub)
    elements = {
        "left": pd.DataFrame({"x": np.arange(10.0), "y": 0.0}),
        "right": pd.DataFrame({"x": np.arange(10.0), "y": 1.0}),
    }
    found = scrcl.from_spatialdata(Sdata({"table": annotating_table()}, elements), coordinate_system="aligned")
    expected = np.column_stack([np.tile(np.arange(10.0)[::-1], 2), np.repeat([0.0, 1.0], 10)])
    np.testing.assert_array_equal(found.obsm["spatial"], expected)
    elements["left"] = elements["left"].iloc[:5]
    with pytest.raises(ValueError, match="5 cells of the table 'table' are not among those of the element 'left'"):
        scrcl.from_spatialdata(Sdata({"table": annotating_table()}, elements), coordinate_system="aligned")


def test_real_spatialdata():
    spatialdata = pytest.importorskip("spatialdata")
    adata = annotating_table()
    points = np.random.default_rng(0).uniform(size=(10, 2))
    shapes = {
        name: spatialdata.models.ShapesModel.parse(points + shift, geometry=0, radius=0.1)
        for name, shift in [("left", 0), ("right", 5)]
    }
    table = spatialdata.models.TableModel.parse(
        adata, region=["left", "right"], region_key="region", instance_key="instance_id", overwrite_metadata=True
    )
    found = scrcl.from_spatialdata(spatialdata.SpatialData(shapes=shapes, tables={"table": table}))
    np.testing.assert_allclose(found.obsm["spatial"], np.vstack([points[::-1], points[::-1] + 5]))


def test_faults_of_spatialdata(monkeypatch):
    with pytest.raises(TypeError, match="must be a SpatialData object, not AnnData"):
        scrcl.from_spatialdata(layers(20))
    both = Sdata({"a": layers(20), "b": layers(20)})
    with pytest.raises(ValueError, match="2 tables, 'a', 'b'. Name one"):
        scrcl.from_spatialdata(both)
    with pytest.raises(KeyError, match="table='c' is not in sdata.tables. Present: 'a', 'b'"):
        scrcl.from_spatialdata(both, table="c")
    bare = annotating_table()
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(ImportError, match="pip install spatialdata"):
        scrcl.from_spatialdata(Sdata({"table": bare}))
    del bare.uns["spatialdata_attrs"]
    with pytest.raises(ValueError, match="cannot be located"):
        scrcl.from_spatialdata(Sdata({"table": bare}))
