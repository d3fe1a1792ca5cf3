"""Losses as functions of arrays, in a form that is linear in the number of cells.

Notation: ``n`` cells, ``h`` hidden units, ``c`` refined dimensions; ``adjacency`` is the binary ``(n, n)`` cell graph
``A`` without self loops, a sparse CSR tensor. No ``(n, n)`` array is ever formed; the identities are proved in the
documentation ("The method") and tested against the dense formulas. Losses are scalar tensors.

References
----------
.. [1] Peng et al., *Refinement Contrastive Learning of Cell-Gene Associations for Unsupervised Cell Type
   Identification*, AAAI 2026, arXiv 2512.10640.
.. [2] Khosla et al., *Supervised Contrastive Learning*, NeurIPS 2020, arXiv 2004.11362.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .sparse import product, symmetric_product

#: Rows of a block, whose temporary arrays fit into the cache of a core.
BLOCK_ROWS = 1024
#: Temperature of the label loss.
LABEL_TEMPERATURE = 0.1


def view_losses(
    embedding_1: Tensor, embedding_2: Tensor, adjacency: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    r"""Alignment of two views ``(n, h)``, :math:`L_\text{align}`, and of their neighbourhoods, :math:`L_\text{nbr}` [1]_.

    The first is the symmetric Kullback-Leibler divergence between the two views, once with a softmax over all ``n * h``
    entries and once, averaged over cells and halved, with a softmax over each row, at a temperature.

    The second is the mean over cells of the mean divergence to the cell itself and its neighbours in the other view,
    relative to the mean divergence to all other cells. Cells without neighbours are allowed. 0 for a single cell, as there
    is no other cell to contrast it with.

    Both are made of :math:`D_{ij} = \langle q_i - q'_j, s_i - s'_j \rangle`, where :math:`s` are logits and :math:`q` the
    softmax minus :math:`1/h`: as probabilities sum to one, the normalising constants of the logarithms drop out, and all
    sums over ``j`` separate.
    """
    return _ViewLosses.apply(embedding_1, embedding_2, adjacency, temperature)


class _ViewLosses(torch.autograd.Function):
    """The losses of :func:`view_losses` and, in closed form, their gradients.

    Both losses need the same softmax, and automatic differentiation would keep and pass several times as many arrays.
    """

    @staticmethod
    def forward(
        ctx: Any, embedding_1: Tensor, embedding_2: Tensor, adjacency: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        dtype, (n, h) = adjacency.dtype, embedding_1.shape
        with torch.autocast(embedding_1.device.type, enabled=False):
            s1, s2 = (_logits(embedding.to(dtype), temperature) for embedding in (embedding_1, embedding_2))
            q1, q2 = torch.empty_like(s1), torch.empty_like(s2)
            logs_1, logs_2, own_1, own_2, to_other_1, to_other_2 = s1.new_empty((6, n))
            for rows in _blocks(n):
                difference = s1[rows] - s2[rows]
                for s, q, logs, own, to_other in (
                    (s1[rows], q1[rows], logs_1, own_1, to_other_1),
                    (s2[rows], q2[rows], logs_2, own_2, to_other_2),
                ):
                    torch.softmax(s, 1, out=q)
                    logs[rows] = s.amax(1) - q.amax(1).log()  # of the sum of the exponentials
                    q -= 1 / h
                    own[rows], to_other[rows] = _row_dots(q, s), _row_dots(q, difference)
                to_other_1[rows] += difference.mean(1)
                to_other_2[rows] += difference.mean(1)
            # The softmax over all entries is that of the row, times the share of the row.
            share_1, share_2 = logs_1.softmax(0), logs_2.softmax(0)
            overall_1, overall_2 = share_1 @ to_other_1, share_2 @ to_other_2
            to_itself = to_other_1 - to_other_2
            alignment = overall_1 - overall_2 + to_itself.mean() / 2

            neighbor_s2, neighbor_q2 = product(adjacency, s2), product(adjacency, q2)
            neighbor_own_2 = product(adjacency, own_2[:, None])[:, 0]
            degrees = adjacency.crow_indices().diff().to(dtype)
            to_all = n * own_1 + own_2.sum() - q1 @ s2.sum(0) - s1 @ q2.sum(0)
            to_neighbors = degrees * own_1 + neighbor_own_2
            for rows in _blocks(n):
                to_neighbors[rows] -= _row_dots(q1[rows], neighbor_s2[rows]) + _row_dots(s1[rows], neighbor_q2[rows])
            near = (to_neighbors + to_itself) / (degrees + 1)
            far, least = (to_all - to_itself) / max(n - 1, 1), torch.finfo(dtype).eps ** 2
            by_near = (n > 1) / (n * far.clamp_min(least))
            by_far = -near * by_near / far.clamp_min(least) * (far > least)
            neighborhood = near @ by_near
        ctx.adjacency, ctx.temperature, ctx.dtypes = adjacency, temperature, (embedding_1.dtype, embedding_2.dtype)
        ctx.save_for_backward(s1, s2, q1, q2, neighbor_s2, neighbor_q2)
        ctx.by_row = (
            by_near / (degrees + 1),
            by_far / max(n - 1, 1),
            degrees,
            share_1,
            share_2,
            to_other_1 - overall_1,
            to_other_2 - overall_2,
        )
        return alignment, neighborhood

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_alignment: Tensor, of_neighborhood: Tensor) -> tuple[Tensor, Tensor, None, None]:
        s1, s2, q1, q2, neighbor_s2, neighbor_q2 = ctx.saved_tensors
        near, far, degrees, share_1, share_2, excess_1, excess_2 = ctx.by_row
        n, h = s1.shape
        # Derivatives by the divergences of each cell: to all neighbours, to all cells, and to itself in the other view.
        near, far = of_neighborhood * near, of_neighborhood * far
        itself = near - far + of_alignment / (2 * n)
        share_1, share_2 = of_alignment * share_1, of_alignment * share_2
        itself_1, itself_2 = itself + share_1, itself + share_2
        own_1 = degrees * near + n * far + itself_1
        own_2 = product(ctx.adjacency, near[:, None])[:, 0] + far.sum() + itself_2
        from_q1, from_s1 = (product(ctx.adjacency, near[:, None] * values) for values in (q1, s1))
        all_q1, all_s1, all_q2, all_s2 = far @ q1, far @ s1, q2.sum(0), s2.sum(0)
        to_h = (share_1 - share_2) / h
        gradients = torch.empty_like(s1), torch.empty_like(s2)
        for rows in _blocks(n):
            u, v, o1, o2, i1, i2, k = (
                values[rows, None] for values in (near, far, own_1, own_2, itself_1, itself_2, to_h)
            )
            by_q1 = (o1 * s1[rows]).addcmul_(i1, s2[rows], value=-1)
            by_q1.addcmul_(u, neighbor_s2[rows], value=-1).addcmul_(v, all_s2, value=-1)
            by_s1 = torch.mul(o1, q1[rows], out=gradients[0][rows]).addcmul_(i2, q2[rows], value=-1)
            by_s1.addcmul_(u, neighbor_q2[rows], value=-1).addcmul_(v, all_q2, value=-1).add_(k)
            by_q2 = (o2 * s2[rows]).addcmul_(i2, s1[rows], value=-1).sub_(from_s1[rows]).sub_(all_s1)
            by_s2 = torch.mul(o2, q2[rows], out=gradients[1][rows]).addcmul_(i1, q1[rows], value=-1)
            by_s2.sub_(from_q1[rows]).sub_(all_q1).sub_(k)
            for by_q, by_s, q, excess in (
                (by_q1, by_s1, q1[rows], share_1[rows] * excess_1[rows]),
                (by_q2, by_s2, q2[rows], -share_2[rows] * excess_2[rows]),
            ):
                by_q += (excess - _row_dots(q, by_q) - by_q.mean(1))[:, None]
                by_s.addcmul_(q, by_q).add_(by_q, alpha=1 / h)
                if ctx.temperature != 1:
                    by_s /= ctx.temperature
        return gradients[0].to(ctx.dtypes[0]), gradients[1].to(ctx.dtypes[1]), None, None


def cross_view_loss(refined_1: Tensor, refined_2: Tensor, adjacency: Tensor) -> Tensor:
    r"""Cross-view consistency of the refined views ``(n, c)``, :math:`L_\text{cross}` [1]_.

    :math:`n^{-2} \lVert Z_1 Z_2^\top - (A + I) \rVert_F^2`, expanded so that it is computed from :math:`c \times c` matrices
    and the edges of the graph.
    """
    n = len(refined_1)
    gram = ((refined_1.T @ refined_1) * (refined_2.T @ refined_2)).sum()
    edges = (refined_1 * (symmetric_product(adjacency, refined_2) + refined_2)).sum()
    return (gram - 2 * edges + adjacency.values().sum() + n) / n**2


def label_loss(embedding_1: Tensor, embedding_2: Tensor, labels: Tensor) -> Tensor:
    r"""Supervised contrast of labels, :math:`L_\text{lab}`, after [2]_; not part of [1]_.

    A labelled cell is drawn to the cells of its label in the other view, and away from the cells of other labels:

    .. math:: L_\text{lab} = \frac{1}{2 C'} \sum_{v \ne w} \sum_{c: n_c > 1} \frac{1}{n_c} \sum_{i \in c}
        -\log \frac{\exp(e^v_i \cdot \mu^w_c / \tau)}{\sum_{c'} \exp(e^v_i \cdot \mu^w_{c'} / \tau)},

    with the mean :math:`\mu^w_c` of the :math:`n_c` cells of a label in the other view and :math:`\tau` =
    ``LABEL_TEMPERATURE``. As the mean of inner products is the inner product with the mean, this is the mean similarity
    to all cells of each label, at a cost linear in the number of cells. All :math:`C'` labels of more than one cell
    have the same weight. The only cell of a label is not drawn to any cell, but the others are drawn away from it. The two
    views take the place of the augmentation of [2]_.

    The two views ``(n, h)`` have rows of unit length; ``labels`` ``(n,)`` are numbered from 0, some of which may have no cell, and
    -1 means none. 0 if there are fewer than two labels, or no label has two cells.
    """
    rows = torch.nonzero(labels >= 0)[:, 0]
    _, codes, sizes = torch.unique(labels[rows], return_inverse=True, return_counts=True)
    n_contrasted = (sizes > 1).sum()
    if len(sizes) < 2 or n_contrasted == 0:
        return (embedding_1 - embedding_2).sum() * 0
    weight = 1 / sizes[codes].to(embedding_1.dtype)
    loss_weight = weight * (sizes[codes] > 1)
    views = embedding_1[rows], embedding_2[rows]
    total = embedding_1.new_zeros(())
    for view, other in (views, views[::-1]):
        means = view.new_zeros(len(sizes), view.shape[1]).index_add(0, codes, other * weight[:, None])
        for block, code, w in zip(*(values.split(BLOCK_ROWS) for values in (view, codes, loss_weight)), strict=True):
            total = total + F.cross_entropy(block @ means.T / LABEL_TEMPERATURE, code, reduction="none") @ w
    return total / (2 * n_contrasted)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK_ROWS) for start in range(0, n, BLOCK_ROWS))


def _row_dots(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)  # faster than `einsum`


def _logits(embedding: Tensor, temperature: float) -> Tensor:
    return embedding if temperature == 1 else embedding / temperature
