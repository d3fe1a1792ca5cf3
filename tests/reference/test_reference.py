"""What a model keeps of its cells, over plain arrays."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import normalize

from scrcl.data.sources import Source
from scrcl.graph.placement import Placement
from scrcl.graph.slices import Slices
from scrcl.reference.agreement import join
from scrcl.reference.cells import Cells
from scrcl.reference.modality import log_counts
from scrcl.reference.prepare import Options, prepare
from scrcl.reference.reference import Reference
from scrcl.utils.files import from_state, to_state

from ..helpers import simulate
from .test_modality_kinds import source


def two_sources(n: int = 120, seed: int = 0) -> dict[str, Source]:
    """Counts of three types, and an embedding that tells them, too."""
    counts = simulate(n, 60, seed=seed).X
    axes = np.random.default_rng(1).normal(size=(60, 6))
    return {"rna": source(counts), "mine": source(np.log1p(counts.toarray()) @ axes, "features")}


OPTIONS = Options(n_top_genes=40, n_components=5, n_neighbors=7)


@pytest.fixture(scope="module", params=[["rna"], ["rna", "mine"]], ids=["one", "two"])
def names(request) -> list[str]:
    return request.param


@pytest.fixture(scope="module")
def reference(names) -> Reference:
    sources = two_sources()
    return prepare(cells_of({name: sources[name] for name in names}), OPTIONS, 16, "adata").reference


def cells_of(sources: dict[str, Source], slices: Slices | None = None, prefix: str = "cell") -> Cells:
    n = next(iter(sources.values())).n_cells
    return Cells(pd.Index([f"{prefix}{i}" for i in range(n)]), sources, slices=slices)


def test_cells_of_the_reference_and_new_ones_are_placed(reference):
    sources, new = two_sources(), two_sources(30, seed=5)
    rows = np.random.default_rng(0).permutation(120)
    placement = reference.place(cells_of(sources), rows)
    np.testing.assert_array_equal(placement.reference_index, rows)
    assert len(placement.features) == len(placement.neighbors.indices) == len(placement.modality_weights) == 0
    placement = reference.place(cells_of(new))
    assert (placement.reference_index == -1).all()
    neighbors, weights = reference.query_neighbors(placement.features)
    np.testing.assert_array_equal(placement.neighbors.indices, neighbors.indices)
    np.testing.assert_array_equal(placement.modality_weights, weights)


def test_query_neighbors_by_brute_force(reference, names):
    sources = two_sources(30, seed=5)
    features = reference.read({name: sources[name] for name in names})
    found, weights = reference.query_neighbors(features)
    assert weights.shape == (30, len(names))
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    rna = reference.modalities["rna"]
    points = [[rna.neighbor_features(cells[:, : rna.n_features])] for cells in (features, reference.features)]
    if len(names) == 2:
        points = [
            [*own, normalize(cells[:, rna.n_features :])]
            for own, cells in zip(points, (features, reference.features), strict=True)
        ]
    queries, known = (join(*both) for both in zip(points, (weights, reference.weights), strict=True))
    distances = np.linalg.norm(queries[:, None].astype(np.float64) - known[None], axis=2)
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :7], atol=1e-4)
    placement = Placement(np.full(30, -1), features, found, weights)
    np.testing.assert_allclose(reference.query_neighbor_features(placement), queries, atol=1e-5)
    np.testing.assert_allclose(reference.query_neighbor_features(placement, 0), points[0][0], atol=1e-6)
    # Alone, a cell has the same neighbours.
    alone, own = reference.query_neighbors(features[4:5])
    np.testing.assert_array_equal(alone.indices[0], found.indices[4])
    np.testing.assert_allclose(own[0], weights[4], atol=1e-6)


def test_counts_in_any_order(reference, names):
    sources = two_sources()
    totals = simulate(120, 60, seed=0).X.toarray().sum(1)
    rows = np.array([7, 3, 100])
    found = log_counts(reference.modalities, {name: sources[name] for name in names}, rows)
    assert found is not None
    np.testing.assert_allclose(found, np.log(totals[rows] / np.median(totals)), rtol=1e-6)
    assert log_counts(reference.modalities, sources, rows[:0]) is None


def test_smoothing_by_the_dense_formula(reference):
    looped = reference.adjacency.toarray().astype(np.float64) + np.eye(reference.n_cells)
    scale = np.diag(looped.sum(1) ** -0.5)
    propagation = scale @ looped @ scale
    expected = normalize(propagation @ propagation @ normalize(reference.neighbor_features))
    np.testing.assert_allclose(reference.smoothed(), expected, atol=1e-5)
    some = np.array([7, 3, 100])
    np.testing.assert_allclose(reference.smoothed(None, some), expected[some], atol=1e-5)


def test_saved_and_read_again(reference, names):
    """Plain arrays only, which outlive changes of the classes."""
    state = to_state(reference)
    assert b"scrcl" not in pickle.dumps(state)
    again = from_state(Reference, pickle.loads(pickle.dumps(state)))
    sources = two_sources(20, seed=3)
    features = again.read({name: sources[name] for name in names})
    for each in (reference, again):
        assert each.genes.equals(reference.genes)
    np.testing.assert_array_equal(
        again.query_neighbors(features)[0].indices, reference.query_neighbors(features)[0].indices
    )
    np.testing.assert_array_equal(again.weights, reference.weights)
    assert (again.adjacency != reference.adjacency).nnz == 0
    assert (again.gene_graph != reference.gene_graph).nnz == 0


def test_variables_of_a_modality(reference, names):
    numbers = np.concatenate([reference.variables_of(name) for name in names])
    np.testing.assert_array_equal(numbers, np.arange(len(reference.genes)))
    assert list(reference.genes[reference.variables_of("rna")]) == list(reference.modalities["rna"].variables)
