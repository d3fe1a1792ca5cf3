import copy
import pickle

import numpy as np
import scipy.sparse as sp

from scrcl.graph.adjacency import normalized_adjacency, symmetric_adjacency
from scrcl.nn.batches import GraphDataModule, graph_batch


def example() -> tuple[np.ndarray, sp.csr_array]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 3)).astype(np.float32), symmetric_adjacency(sp.csr_array(rng.random((20, 20)) < 0.1))


def test_a_batch_is_a_graph():
    features, adjacency = example()
    batch = graph_batch(features, adjacency)
    np.testing.assert_array_equal(batch["features"].numpy(), features)
    np.testing.assert_array_equal(batch["adjacency"].to_dense().numpy(), adjacency.toarray())
    np.testing.assert_array_equal(batch["propagation"].to_dense().numpy(), normalized_adjacency(adjacency).toarray())


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
