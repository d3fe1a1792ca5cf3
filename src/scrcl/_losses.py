"""The three losses of scRCL as functions of arrays, in a form that is linear in the number of cells.

Notation: ``n`` cells, ``h`` hidden units, ``c`` refined dimensions; ``adjacency`` is the binary ``(n, n)`` cell graph
``A`` without self loops, a sparse CSR tensor. No ``(n, n)`` array is ever formed; the identities are proved in the
documentation ("The method") and checked against dense formulas in the tests.

Source: Peng et al., *Refinement Contrastive Learning of Cell-Gene Associations for Unsupervised Cell Type
Identification*, AAAI 2026, arXiv 2512.10640.
"""

import torch
from torch import Tensor


def alignment_loss(embedding_1: Tensor, embedding_2: Tensor, temperature: float) -> Tensor:
    r"""Embedding distribution alignment, :math:`L_\text{align}`.

    Symmetric Kullback-Leibler divergence between the two views, once with a softmax over all ``n * h`` entries and
    once, averaged over cells and halved, with a softmax over each row. As probabilities sum to one, the normalising
    constants of the logarithms drop out: :math:`\mathrm{SKL}(p, q) = \langle p - q, s - t \rangle` for logits
    :math:`s, t`.

    Parameters
    ----------
    embedding_1, embedding_2
        The two views, each of shape ``(n, h)``.
    temperature
        Temperature of the softmax.

    Returns
    -------
    Scalar tensor.
    """
    logits_1, logits_2 = embedding_1 / temperature, embedding_2 / temperature
    difference = logits_1 - logits_2
    overall = logits_1.flatten().softmax(0) - logits_2.flatten().softmax(0)
    by_cell = logits_1.softmax(1) - logits_2.softmax(1)
    return overall @ difference.flatten() + (by_cell * difference).sum() / (2 * len(difference))


def neighborhood_loss(embedding_1: Tensor, embedding_2: Tensor, adjacency: Tensor, temperature: float) -> Tensor:
    r"""Neighbourhood contrastive alignment, :math:`L_\text{nbr}`.

    The mean over cells of the mean divergence to the cell itself and its neighbours in the other view, relative to
    the mean divergence to all other cells. With :math:`D_{ij} = \langle q_i - q'_j, s_i - s'_j \rangle`, where
    :math:`s` are logits and :math:`q` the softmax less :math:`1/h`, all sums over ``j`` separate.

    Parameters
    ----------
    embedding_1, embedding_2
        The two views, each of shape ``(n, h)``.
    adjacency
        Sparse CSR tensor of shape ``(n, n)``, binary, without self loops. Cells without neighbours are allowed.
    temperature
        Temperature of the softmax.

    Returns
    -------
    Scalar tensor; 0 for a single cell, which has nothing to be contrasted with.
    """
    n, h = embedding_1.shape
    logits_1, logits_2 = embedding_1 / temperature, embedding_2 / temperature
    if n == 1:
        return (logits_1 - logits_2).sum() * 0
    centred_1, centred_2 = logits_1.softmax(1) - 1 / h, logits_2.softmax(1) - 1 / h
    own_1, own_2 = (centred_1 * logits_1).sum(1), (centred_2 * logits_2).sum(1)  # (n,)

    itself = ((centred_1 - centred_2) * (logits_1 - logits_2)).sum(1)
    everyone = n * own_1 + own_2.sum() - centred_1 @ logits_2.sum(0) - logits_1 @ centred_2.sum(0)
    degree = adjacency.crow_indices().diff()
    # One sparse product for the three neighbour sums: the graph is what limits the speed.
    sums = adjacency @ torch.cat([logits_2, centred_2, own_2[:, None]], 1)
    neighbors = degree * own_1 + sums[:, -1] - (centred_1 * sums[:, :h]).sum(1) - (logits_1 * sums[:, h:-1]).sum(1)

    near = (neighbors + itself) / (degree + 1)
    far = (everyone - itself) / (n - 1)
    return (near / far.clamp_min(torch.finfo(far.dtype).eps ** 2)).mean()


def cross_view_loss(refined_1: Tensor, refined_2: Tensor, adjacency: Tensor) -> Tensor:
    r"""Cross-view consistency of the refined views, :math:`L_\text{cross}`.

    :math:`n^{-2} \lVert Z_1 Z_2^\top - (A + I) \rVert_F^2`, expanded so that only :math:`c \times c` matrices and
    the edges of the graph occur.

    Parameters
    ----------
    refined_1, refined_2
        The refined views, each of shape ``(n, c)``.
    adjacency
        Sparse CSR tensor of shape ``(n, n)``, binary, without self loops.

    Returns
    -------
    Scalar tensor.
    """
    n = len(refined_1)
    gram = ((refined_1.T @ refined_1) * (refined_2.T @ refined_2)).sum()
    edges = (refined_1 * (adjacency @ refined_2 + refined_2)).sum()
    return (gram - 2 * edges + adjacency.values().sum() + n) / n**2
