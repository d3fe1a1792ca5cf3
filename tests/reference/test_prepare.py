"""Features and graphs from sources, over plain arrays."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from scrcl.graph.adjacency import symmetric_adjacency
from scrcl.graph.spatial import SpatialOptions
from scrcl.reference.agreement import join
from scrcl.reference.prepare import Options, prepare, variable_features

from ..helpers import slices_of
from .test_modality_kinds import source
from .test_reference import OPTIONS, cells_of, two_sources


def test_variable_features_in_the_space_of_all_modalities():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(30, 4)), rng.normal(size=(30, 3))]
    parts = [part - part.mean(0) for part in parts]
    values = [np.maximum(rng.normal(size=(30, 5)), 0), np.maximum(rng.normal(size=(30, 2)), 0)]
    found = variable_features([sp.csr_array(value) for value in values], parts, [0.7, 0.3], 50)
    cells = np.concatenate([np.sqrt(0.7) * parts[0], np.sqrt(0.3) * parts[1]], 1)
    u = np.linalg.svd(cells, full_matrices=False)[0]
    every = np.concatenate(values, 1)
    expected = normalize((every - every.mean(0)).T @ u)
    assert found.shape == (7, 7)
    # The same up to a rotation of the axes.
    np.testing.assert_allclose(found @ found.T / 7, expected @ expected.T, atol=1e-4)


def brute_force(points: np.ndarray, k: int) -> np.ndarray:
    """Either is among the ``k`` nearest of the other, dense."""
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    near = np.zeros(distances.shape)
    np.put_along_axis(near, np.argsort(distances, axis=1)[:, :k], 1, axis=1)
    return np.maximum(near, near.T)


def test_the_cell_graph_of_two_modalities():
    """Of their neighbour features side by side, by their weights."""
    found = prepare(cells_of(two_sources()), OPTIONS, 16, "mdata")
    reference = found.reference
    n_rna = reference.modalities["rna"].n_features
    near = [reference.modalities["rna"].neighbor_features(reference.features[:, :n_rna])]
    near.append(normalize(reference.features[:, n_rna:]))
    expected = brute_force(join(near, reference.weights), 7)
    np.testing.assert_array_equal(reference.adjacency.toarray(), expected)
    assert found.neighbors is not None
    np.testing.assert_array_equal(symmetric_adjacency(found.neighbors.to_sparse()).toarray(), expected)
    np.testing.assert_allclose(reference.mean_weights, reference.weights.mean(0), atol=1e-6)


def test_the_graph_of_the_user_takes_the_place_of_the_own():
    graph = sp.csr_array(np.triu(np.random.default_rng(0).random((120, 120)) < 0.1, 1) * 0.3)
    found = prepare(cells_of({"rna": two_sources()["rna"]}), OPTIONS, 16, "adata", graph=graph)
    np.testing.assert_array_equal(found.reference.adjacency.toarray(), (graph + graph.T).toarray() > 0)
    assert found.neighbors is None


@pytest.mark.parametrize("joined", [False, True])
def test_a_graph_in_space(joined):
    rna = two_sources()["rna"]
    # Types lie side by side, so that expression varies in space.
    first = prepare(cells_of({"rna": rna}), OPTIONS, 16, "adata").reference.features[:, 0]
    points = np.column_stack([first, np.random.default_rng(0).normal(0, 0.1, size=120)])
    options = Options(40, 5, 7, spatial=SpatialOptions(n_neighbors=4, joined=joined))
    reference = prepare(cells_of({"rna": rna}, slices_of(points)), options, 16, "adata").reference
    spatial = brute_force(points, 4)
    adjacency = reference.adjacency.toarray()
    if joined:
        similar = brute_force(normalize(reference.features).astype(np.float64), 7)
        np.testing.assert_array_equal(adjacency, np.maximum(spatial, similar))
    else:
        np.testing.assert_array_equal(adjacency, spatial)


def test_what_cannot_be_prepared():
    with pytest.raises(ValueError, match="adata has 7 cells, but 7 neighbours of each require at least 8"):
        prepare(cells_of(two_sources(7)), OPTIONS, 16, "adata")
    same = source(np.tile(np.arange(1, 6), (120, 1)), "protein")
    with pytest.raises(ValueError, match="'prot' is the same for all cells"):
        prepare(cells_of({"rna": two_sources()["rna"], "prot": same}), OPTIONS, 16, "mdata")
