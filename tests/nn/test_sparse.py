import numpy as np
import scipy.sparse as sp
import torch

from scrcl.graph.adjacency import normalized_adjacency, symmetric_adjacency
from scrcl.nn.sparse import symmetric_product, to_torch


def test_symmetric_product_has_the_dense_gradient():
    rng = np.random.default_rng(0)
    dense = torch.from_numpy(
        normalized_adjacency(symmetric_adjacency(sp.csr_array(rng.random((9, 9)) < 0.3))).toarray()
    )
    x = torch.from_numpy(rng.normal(size=(9, 4)).astype(np.float32)).requires_grad_()
    y = x.detach().clone().requires_grad_()
    (symmetric_product(dense.to_sparse_csr(), x) ** 2).sum().backward()
    ((dense @ y) ** 2).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, y.grad)


def test_to_torch_keeps_the_matrix():
    matrix = sp.csr_array(np.array([[0, 2.0, 0], [1, 0, 3]]))
    np.testing.assert_array_equal(to_torch(matrix).to_dense().numpy(), matrix.toarray())
    assert to_torch(matrix).crow_indices().dtype == torch.int32
