"""The linear-cost losses against dense n x n formulas written from the paper."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from scrcl.graph.genes import directed_propagation
from scrcl.nn import losses
from scrcl.nn.encoders import GeneEncoder
from scrcl.nn.losses import cross_view_loss, label_loss, view_losses


def dense_alignment(e1, e2, temperature):
    def kl(p, q):
        return (p * (p.log() - q.log())).sum()

    p1, p2 = (torch.softmax((e / temperature).reshape(-1), 0) for e in (e1, e2))
    loss = kl(p1, p2) + kl(p2, p1)
    for row1, row2 in zip(e1, e2, strict=True):
        r1, r2 = torch.softmax(row1 / temperature, 0), torch.softmax(row2 / temperature, 0)
        loss = loss + (kl(r1, r2) + kl(r2, r1)) / (2 * len(e1))
    return loss


def dense_neighborhood(e1, e2, adjacency, temperature):
    n = len(e1)
    p1, p2 = (torch.softmax(e / temperature, 1) for e in (e1, e2))
    ratio = p1[:, None].log() - p2[None].log()
    divergence = (p1[:, None] * ratio).sum(2) - (p2[None] * ratio).sum(2)
    near = adjacency + torch.eye(n, dtype=e1.dtype)
    far = 1 - torch.eye(n, dtype=e1.dtype)
    return (((near * divergence).sum(1) / near.sum(1)) / ((far * divergence).sum(1) / (n - 1))).mean()


def dense_cross_view(z1, z2, adjacency):
    n = len(z1)
    return ((z1 @ z2.T - adjacency - torch.eye(n, dtype=z1.dtype)) ** 2).sum() / n**2


def random_graph(n: int, density: float, rng: np.random.Generator, isolated: int = 0) -> torch.Tensor:
    upper = np.triu(rng.random((n, n)) < density, 1)
    upper[:isolated] = False
    upper[:, :isolated] = False
    return torch.from_numpy((upper | upper.T).astype(np.float64))


def to_sparse(dense: torch.Tensor) -> torch.Tensor:
    return dense.to_sparse_csr()


def no_edges(n: int) -> torch.Tensor:
    return to_sparse(torch.zeros(n, n, dtype=torch.float64))


GRAPHS = {
    "random": lambda rng: random_graph(23, 0.2, rng),
    "isolated cells": lambda rng: random_graph(23, 0.3, rng, isolated=5),
    "no edges": lambda rng: torch.zeros(9, 9, dtype=torch.float64),
    "one neighbourhood": lambda rng: _star(11),
    "complete": lambda rng: torch.ones(8, 8, dtype=torch.float64) - torch.eye(8, dtype=torch.float64),
    "two cells": lambda rng: torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64),
}


def _star(n: int) -> torch.Tensor:
    """A single cell's neighbourhood: one cell with three neighbours, all others alone."""
    graph = torch.zeros(n, n, dtype=torch.float64)
    graph[2, [4, 5, 9]] = 1
    return graph + graph.T


def assert_same(sparse_loss, dense_loss, inputs):
    """Equal values and gradients, relative 1e-9."""
    gradients = []
    values = []
    for loss in (sparse_loss, dense_loss):
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        value = loss(*leaves)
        value.backward()
        values.append(value.item())
        gradients.append([x.grad for x in leaves])
    assert values[0] == pytest.approx(values[1], rel=1e-9, abs=1e-14)
    for ours, theirs in zip(*gradients, strict=True):
        scale = theirs.abs().max().clamp_min(1e-12)
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("temperature", [0.1, 1.0])
class TestAgainstDense:
    def setup_method(self):
        self.rng = np.random.default_rng(0)

    def embeddings(self, n, h=7):
        return [F.normalize(torch.from_numpy(self.rng.normal(size=(n, h)))) for _ in range(2)]

    def test_alignment(self, graph, temperature):
        n = len(GRAPHS[graph](self.rng))
        assert_same(
            lambda a, b: view_losses(a, b, no_edges(n), temperature)[0],
            lambda a, b: dense_alignment(a, b, temperature),
            self.embeddings(n),
        )

    def test_neighborhood(self, graph, temperature):
        adjacency = GRAPHS[graph](self.rng)
        assert_same(
            lambda a, b: view_losses(a, b, to_sparse(adjacency), temperature)[1],
            lambda a, b: dense_neighborhood(a, b, adjacency, temperature),
            self.embeddings(len(adjacency)),
        )

    def test_cross_view(self, graph, temperature):
        adjacency = GRAPHS[graph](self.rng)
        assert_same(
            lambda a, b: cross_view_loss(a, b, to_sparse(adjacency)),
            lambda a, b: dense_cross_view(a, b, adjacency),
            self.embeddings(len(adjacency)),
        )


def test_refinement_on_a_directed_gene_graph():
    """The whole refinement, from hidden units through a directed gene graph to L_cross, against dense formulas."""
    rng = np.random.default_rng(1)
    n, h, n_genes, d, c = 12, 5, 9, 6, 4
    genes = (rng.random((n_genes, n_genes)) < 0.3).astype(np.float64)
    np.fill_diagonal(genes, 1)
    genes[:, 4] = 0  # a gene that receives nothing
    assert not np.array_equal(genes, genes.T)
    adjacency = random_graph(n, 0.3, rng, isolated=2)
    features = torch.from_numpy(rng.normal(size=(n_genes, d)))
    encoder = GeneEncoder(d, c).double()
    propagation = directed_propagation(sp.csr_array(genes))
    scale = np.diag(np.maximum(genes.sum(0), 1) ** -0.5)
    dense_propagation = torch.from_numpy(scale @ genes.T @ scale)

    def linear(h1, h2, w, b):
        embedding = encoder(torch.from_numpy(propagation @ features.numpy()))
        z1, z2 = (F.normalize(x @ (w @ embedding) + b @ embedding) for x in (h1, h2))
        return cross_view_loss(z1, z2, to_sparse(adjacency))

    def dense(h1, h2, w, b):
        layer = encoder.convolution
        embedding = torch.relu(dense_propagation @ (features @ layer.weight.T) + layer.bias)
        z1, z2 = (F.normalize((x @ w + b) @ embedding) for x in (h1, h2))
        return dense_cross_view(z1, z2, adjacency)

    inputs = [torch.from_numpy(rng.normal(size=s)) for s in ((n, h), (n, h), (h, n_genes), (n_genes,))]
    assert_same(linear, dense, inputs)


def test_weights_of_the_gene_encoder_get_the_dense_gradient():
    rng = np.random.default_rng(2)
    graph = sp.csr_array((rng.random((8, 8)) < 0.4).astype(np.float64))
    features = torch.from_numpy(rng.normal(size=(8, 5)))
    encoder = GeneEncoder(5, 3).double()
    encoder(torch.from_numpy(directed_propagation(graph) @ features.numpy())).pow(2).sum().backward()
    weight, bias = encoder.convolution.weight, encoder.convolution.bias
    assert weight.grad is not None
    assert bias.grad is not None
    ours = weight.grad.clone(), bias.grad.clone()
    encoder.zero_grad()
    scale = np.diag(np.maximum(graph.toarray().sum(0), 1) ** -0.5)
    dense = torch.from_numpy(scale @ graph.toarray().T @ scale)
    torch.relu(dense @ features @ weight.T + bias).pow(2).sum().backward()
    torch.testing.assert_close(ours, (weight.grad, bias.grad), rtol=1e-9, atol=1e-12)


def test_views_that_agree_have_no_alignment_loss():
    e = F.normalize(torch.randn(6, 4, dtype=torch.float64))
    assert view_losses(e, e, no_edges(6), 0.5)[0].item() == pytest.approx(0, abs=1e-15)


def test_a_single_cell_has_no_neighborhood_loss():
    e1, e2 = torch.randn(1, 4, requires_grad=True), torch.randn(1, 4)
    loss = view_losses(e1, e2, torch.zeros(1, 1).to_sparse_csr(), 1.0)[1]
    loss.backward()
    assert loss.item() == 0
    torch.testing.assert_close(e1.grad, torch.zeros(1, 4))


def test_identical_embeddings_give_a_finite_loss():
    e = torch.ones(5, 4, requires_grad=True)
    loss = view_losses(e, e.detach(), torch.zeros(5, 5).to_sparse_csr(), 1.0)[1]
    loss.backward()
    assert torch.isfinite(loss)
    assert e.grad is not None
    assert torch.isfinite(e.grad).all()


def test_float32_is_accurate():
    """log p is about -log h, far larger than the divergences: the form used must not cancel."""
    rng = np.random.default_rng(3)
    n, h = 300, 128
    centre = rng.normal(size=(3, h))
    e1, e2 = (
        F.normalize(torch.from_numpy(centre[rng.integers(3, size=n)] + 0.05 * rng.normal(size=(n, h))))
        for _ in range(2)
    )
    adjacency = random_graph(n, 0.05, rng)
    exact = dense_neighborhood(e1, e2, adjacency, 1.0).item()
    single = view_losses(e1.float(), e2.float(), to_sparse(adjacency.float()), 1.0)[1].item()
    assert single == pytest.approx(exact, rel=1e-5)
    gradients = []
    for dtype in (torch.float64, torch.float32):
        one, two = (e.to(dtype).requires_grad_() for e in (e1, e2))
        both = view_losses(one, two, to_sparse(adjacency.to(dtype)), 1.0)
        gradients.append(torch.autograd.grad(both[0] + 100 * both[1], (one, two)))
    for long, short in zip(*gradients, strict=True):
        assert (long - short).norm() < 1e-4 * long.norm()


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_blocks_do_not_matter(rows, monkeypatch):
    """Both losses at once, with different weights, in blocks of rows."""
    monkeypatch.setattr(losses, "BLOCK_ROWS", rows)
    rng = np.random.default_rng(4)
    adjacency = random_graph(23, 0.2, rng)

    def ours(a, b):
        alignment, neighborhood = view_losses(a, b, to_sparse(adjacency), 0.5)
        return 0.3 * alignment + 2 * neighborhood

    def dense(a, b):
        return 0.3 * dense_alignment(a, b, 0.5) + 2 * dense_neighborhood(a, b, adjacency, 0.5)

    assert_same(ours, dense, [F.normalize(torch.from_numpy(rng.normal(size=(23, 5)))) for _ in range(2)])


def test_half_precision_is_only_that_of_the_views():
    """Under mixed precision the loss is computed in the precision of the graph, and its gradient in that of the views."""
    rng = np.random.default_rng(5)
    adjacency = to_sparse(random_graph(23, 0.2, rng).float())
    one, two = (F.normalize(torch.from_numpy(rng.normal(size=(23, 5)))).bfloat16().requires_grad_() for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        alignment, neighborhood = view_losses(one, two, adjacency, 1.0)
    torch.testing.assert_close((alignment, neighborhood), view_losses(one.float(), two.float(), adjacency, 1.0))
    gradients = torch.autograd.grad(alignment + neighborhood, (one, two))
    assert {gradient.dtype for gradient in gradients} == {torch.bfloat16}


def dense_label(e1, e2, labels):
    """Cell by cell and pair by pair: mean similarity to the cells of each label, in the other view."""
    kinds = sorted(set(labels[labels >= 0].tolist()))
    drawn = [kind for kind in kinds if (labels == kind).sum() > 1]
    total = torch.zeros((), dtype=e1.dtype)
    for view, other in ((e1, e2), (e2, e1)):
        for kind in drawn:
            rows = torch.nonzero(labels == kind)[:, 0]
            for row in rows:
                near = torch.stack([(view[row] * other[labels == k]).sum(1).mean() for k in kinds])
                total = total - torch.log_softmax(near / 0.1, 0)[kinds.index(kind)] / len(rows)
    return total / (2 * len(drawn))


@pytest.mark.parametrize("rows", [3, 100])
@pytest.mark.parametrize("kinds", [[0, 1, 2], [0, 1, 2, 5]])
def test_contrast_of_labels(kinds, rows, monkeypatch):
    """With cells without a label, numbers without a cell, and labels of one cell."""
    monkeypatch.setattr(losses, "BLOCK_ROWS", rows)
    rng = np.random.default_rng(6)
    one, two = (F.normalize(torch.from_numpy(rng.normal(size=(17, 5)))).requires_grad_() for _ in range(2))
    labels = torch.from_numpy(rng.choice([-1, *kinds], 17))
    labels[labels == kinds[-1]] = -1
    labels[3] = kinds[-1]
    found, expected = label_loss(one, two, labels), dense_label(one, two, labels)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found, (one, two)), torch.autograd.grad(expected, (one, two)), strict=True):
        torch.testing.assert_close(a, b)


def test_a_large_label_counts_no_more_than_a_small_one():
    rng = np.random.default_rng(7)
    one, two = (F.normalize(torch.from_numpy(rng.normal(size=(9, 5)))) for _ in range(2))
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, -1, -1])
    again = torch.cat([torch.arange(9), torch.arange(3), torch.arange(3)])  # three times the cells of the first label
    expected = label_loss(one, two, labels)
    torch.testing.assert_close(label_loss(one[again], two[again], labels[again]), expected)


@pytest.mark.parametrize("labels", [[-1, -1, -1], [0, 0, -1], [2, 2, 2], [0, 1, 2]])
def test_nothing_to_contrast(labels):
    rng = np.random.default_rng(8)
    one, two = (torch.from_numpy(rng.normal(size=(3, 5))).requires_grad_() for _ in range(2))
    loss = label_loss(one, two, torch.tensor(labels))
    assert loss.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, (one, two)))
