import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from scrcl.graph.adjacency import normalized_adjacency, symmetric_adjacency
from scrcl.graph.genes import directed_propagation, gene_graph
from scrcl.nn.encoders import CellEncoder, GeneEncoder, NeighborhoodEncoder, unit_length


def test_cell_encoder_is_one_linear_layer_with_relu():
    encoder, x = CellEncoder(4, 6), torch.randn(5, 4)
    torch.testing.assert_close(encoder(x), F.relu(x @ encoder.linear.weight.T + encoder.linear.bias))


def test_neighborhood_encoder_against_dense_convolutions():
    rng = np.random.default_rng(0)
    graph = symmetric_adjacency(sp.csr_array((rng.random((12, 12)) < 0.15).astype(np.float64)))
    dense = torch.from_numpy(normalized_adjacency(graph).toarray()).double()
    encoder = NeighborhoodEncoder(4, 6, dropout_rate=0.5).double().eval()
    x = torch.from_numpy(rng.normal(size=(12, 4)))
    first, second, last = encoder.convolution_1, encoder.convolution_2, encoder.linear
    hidden = F.leaky_relu(dense @ (x @ first.weight.T) + first.bias)
    hidden = F.leaky_relu(dense @ (hidden @ second.weight.T) + second.bias)
    expected = F.leaky_relu(hidden @ last.weight.T + last.bias)
    torch.testing.assert_close(encoder.second(dense @ encoder.first(dense @ x)), expected)


def test_dropout_acts_in_training_only():
    encoder = NeighborhoodEncoder(4, 6, dropout_rate=0.5)
    x = torch.randn(8, 6)
    assert not torch.equal(encoder.second(x), encoder.second(x))
    encoder.eval()
    assert torch.equal(encoder.second(x), encoder.second(x))


def test_unit_length_has_the_gradient_of_torch():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 4))
    values[2] = 0
    results = []
    for function in (unit_length, F.normalize):
        x = torch.from_numpy(values).requires_grad_()
        units = function(x)
        (units * torch.arange(24.0).reshape(6, 4)).sum().backward()
        results.append((units, x.grad))
    torch.testing.assert_close(*results, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n_cells", [7, 15])
def test_full_rank_gene_encoder_is_the_published_layer(n_cells):
    """With d = n the low-rank form gives what one weight per cell gives, for the same weight in another basis."""
    rng = np.random.default_rng(n_cells)
    x = rng.normal(size=(n_cells, 20))  # cells by genes
    graph = directed_propagation(gene_graph(x.T)).astype(np.float64)
    theta = rng.normal(size=(n_cells, 3))  # the published weight, one row a cell
    bias = rng.normal(size=3)
    published = np.maximum(graph @ x.T @ theta + bias, 0)

    left = np.linalg.svd(x)[0]  # (n, n): all left singular vectors
    for basis, weight in ((np.eye(n_cells), theta), (left, left.T @ theta)):
        encoder = GeneEncoder(n_cells, 3).double()
        encoder.convolution.weight.data = torch.from_numpy(weight.T.copy())
        encoder.convolution.bias.data = torch.from_numpy(bias)
        genes = encoder(torch.from_numpy(graph @ (x.T @ basis)))
        np.testing.assert_allclose(genes.detach().numpy(), published, rtol=1e-9, atol=1e-9)


def test_low_rank_gene_encoder_is_the_published_layer_with_its_weight_in_the_leading_span():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(12, 20))
    graph = directed_propagation(gene_graph(x.T)).astype(np.float64)
    basis = np.linalg.svd(x)[0][:, :4]
    weight = rng.normal(size=(4, 3))
    published = np.maximum(graph @ x.T @ (basis @ weight), 0)
    encoder = GeneEncoder(4, 3).double()
    encoder.convolution.weight.data = torch.from_numpy(weight.T.copy())
    encoder.convolution.bias.data.zero_()
    genes = encoder(torch.from_numpy(graph @ (x.T @ basis)))
    np.testing.assert_allclose(genes.detach().numpy(), published, rtol=1e-9, atol=1e-12)
