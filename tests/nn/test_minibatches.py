import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp

from scrcl.graph.adjacency import normalized_adjacency, symmetric_adjacency
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.nn.minibatches import (
    MAX_LEAF_CELLS,
    MINIBATCH_CELLS,
    GraphDataModule,
    GraphMinibatches,
    graph_minibatch,
    neighborhoods,
)


def example() -> tuple[np.ndarray, sp.csr_array]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 3)).astype(np.float32), symmetric_adjacency(sp.csr_array(rng.random((20, 20)) < 0.1))


def test_a_batch_is_a_graph():
    features, adjacency = example()
    batch = graph_minibatch(features, adjacency)
    np.testing.assert_array_equal(batch["features"].numpy(), features)
    np.testing.assert_array_equal(batch["adjacency"].to_dense().numpy(), adjacency.toarray())
    propagation = normalized_adjacency(adjacency).toarray()
    np.testing.assert_array_equal(batch["propagation"].to_dense().numpy(), propagation)
    np.testing.assert_allclose(batch["propagated"].numpy(), propagation @ features, rtol=1e-5, atol=1e-6)


def test_labels_go_with_their_cells():
    features, adjacency = example()
    labels = np.arange(20) - 1
    for size in (20, 7):
        for batch in GraphDataModule(features, adjacency, features, size, labels).train_dataloader():
            rows = [np.flatnonzero((features == row).all(1))[0] for row in batch["features"].numpy()]
            np.testing.assert_array_equal(batch["labels"].numpy(), labels[rows])
    assert "labels" not in graph_minibatch(features, adjacency)


def test_one_batch_holds_all_cells_with_their_edges():
    features, adjacency = example()
    (batch,) = GraphDataModule(features, adjacency, features).train_dataloader()
    rows = np.array([np.flatnonzero((features == row).all(1))[0] for row in batch["features"].numpy()])
    np.testing.assert_array_equal(np.sort(rows), np.arange(20))
    np.testing.assert_array_equal(batch["adjacency"].to_dense().numpy(), adjacency.toarray()[np.ix_(rows, rows)])


def test_the_data_module_can_be_copied_after_use():
    features, adjacency = example()
    module = GraphDataModule(features, adjacency, features)
    (batch,) = module.train_dataloader()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        (again,) = twin.train_dataloader()
        np.testing.assert_array_equal(again["features"].numpy(), batch["features"].numpy())


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3000, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def adjacency(points):
    return symmetric_adjacency(nearest_neighbors(points, 10).to_sparse())


class TestManyBatches:
    def test_neighborhoods_divide_the_points(self, points):
        leaves = neighborhoods(points, np.random.default_rng(0))
        np.testing.assert_array_equal(np.sort(np.concatenate(leaves)), np.arange(3000))
        sizes = [len(leaf) for leaf in leaves]
        assert max(sizes) <= MAX_LEAF_CELLS
        assert min(sizes) >= MAX_LEAF_CELLS // 2

    def test_neighborhoods_are_near(self, points):
        """By hand: points of a leaf lie closer to each other than points at random."""
        leaves = neighborhoods(points, np.random.default_rng(0))
        inside = np.mean([np.linalg.norm(points[leaf] - points[leaf].mean(0), axis=1).mean() for leaf in leaves])
        assert inside < 0.75 * np.linalg.norm(points - points.mean(0), axis=1).mean()

    def test_neighborhoods_of_duplicate_cells(self):
        leaves = neighborhoods(np.ones((500, 3), np.float32), np.random.default_rng(0))
        np.testing.assert_array_equal(np.sort(np.concatenate(leaves)), np.arange(500))

    def test_batches_of_an_epoch(self, points, adjacency):
        numbered = np.arange(3000, dtype=np.float32)[:, None]
        batches = GraphMinibatches(numbered, adjacency, points, 7, seed=0)
        dense = adjacency.toarray()
        epochs, kept = [], 0.0
        for _ in range(2):
            cells = []
            for batch in batches:
                rows = batch["features"].numpy()[:, 0].astype(int)
                cells.append(rows)
                np.testing.assert_array_equal(batch["adjacency"].to_dense().numpy(), dense[np.ix_(rows, rows)])
                kept += batch["adjacency"].values().sum().item()
            assert len(cells) == len(batches) == 7
            assert {len(rows) for rows in cells} <= {3000 // 7, 3000 // 7 + 1}
            np.testing.assert_array_equal(np.sort(np.concatenate(cells)), np.arange(3000))
            epochs.append(np.concatenate(cells))
        assert (epochs[0] != epochs[1]).any(), "each epoch draws batches anew"
        assert kept / 2 > 2.5 * adjacency.nnz / 7, "random batches would keep a seventh of the edges"
        again = [batch["features"].numpy()[:, 0] for batch in GraphMinibatches(numbered, adjacency, points, 7, seed=0)]
        np.testing.assert_array_equal(np.concatenate(again), epochs[0])

    @pytest.mark.parametrize(
        ("n", "batch_size", "expected"),
        [(10, None, 1), (20_001, None, -(-20_001 // MINIBATCH_CELLS)), (10, 3, 4), (10, 99, 1)],
    )
    def test_number_of_batches(self, n, batch_size, expected):
        module = GraphDataModule(np.zeros((n, 1), np.float32), sp.csr_array((n, n)), np.zeros((n, 1)), batch_size)
        assert module.n_minibatches == expected
        assert len(module.train_dataloader()) == expected
