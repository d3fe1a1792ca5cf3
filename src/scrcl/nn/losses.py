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

import torch
import torch.nn.functional as F
from torch import Tensor

from .sparse import symmetric_product

#: Rows of a block. The temporary arrays of a block are small enough for their memory to be reused.
BLOCK_ROWS = 8192
#: Temperature of the label loss.
LABEL_TEMPERATURE = 0.1


def alignment_loss(embedding_1: Tensor, embedding_2: Tensor, temperature: float) -> Tensor:
    r"""Embedding distribution alignment of two views ``(n, h)``, :math:`L_\text{align}` [1]_.

    Symmetric Kullback-Leibler divergence between the two views, once with a softmax over all ``n * h`` entries and once,
    averaged over cells and halved, with a softmax over each row, at a temperature. As probabilities sum to one, the
    normalising constants of the logarithms drop out: :math:`\mathrm{SKL}(p, q) = \langle p - q, s - t \rangle` for logits
    :math:`s, t`.
    """
    n = len(embedding_1)
    both = _logits(embedding_1, temperature), _logits(embedding_2, temperature)
    overall_1, overall_2 = (_logsumexp(logits) for logits in both)
    total = embedding_1.new_zeros(())
    for logits_1, logits_2 in _blocks(*both):
        difference = (logits_1 - logits_2).flatten()
        overall = (logits_1 - overall_1).exp() - (logits_2 - overall_2).exp()
        by_cell = logits_1.softmax(1) - logits_2.softmax(1)
        total = total + overall.flatten() @ difference + by_cell.flatten() @ difference / (2 * n)
    return total


def neighborhood_loss(embedding_1: Tensor, embedding_2: Tensor, adjacency: Tensor, temperature: float) -> Tensor:
    r"""Neighbourhood contrastive alignment of two views ``(n, h)``, :math:`L_\text{nbr}` [1]_.

    The mean over cells of the mean divergence to the cell itself and its neighbours in the other view, relative to the mean
    divergence to all other cells. With :math:`D_{ij} = \langle q_i - q'_j, s_i - s'_j \rangle`, where :math:`s` are logits and
    :math:`q` the softmax minus :math:`1/h`, all sums over ``j`` separate.

    Cells without neighbours are allowed. 0 for a single cell, as there is no other cell to contrast it with.
    """
    n, h = embedding_1.shape
    if n == 1:
        return (embedding_1 - embedding_2).sum() * 0
    logits_1, logits_2 = _logits(embedding_1, temperature), _logits(embedding_2, temperature)
    centred_2 = torch.cat([block.softmax(1) - 1 / h for (block,) in _blocks(logits_2)])
    dots_2 = _row_dots(centred_2, logits_2)
    sum_logits_2, sum_centred_2, sum_dots_2 = logits_2.sum(0), centred_2.sum(0), dots_2.sum()
    neighbor_logits_2 = symmetric_product(adjacency, logits_2)
    neighbor_centred_2 = symmetric_product(adjacency, centred_2)
    neighbor_dots_2 = symmetric_product(adjacency, dots_2[:, None])[:, 0]
    degrees = adjacency.crow_indices().diff()

    total = embedding_1.new_zeros(())
    for s1, s2, q2, neighbor_s2, neighbor_q2, neighbor_dots, degree in _blocks(
        logits_1, logits_2, centred_2, neighbor_logits_2, neighbor_centred_2, neighbor_dots_2, degrees
    ):
        q1 = s1.softmax(1) - 1 / h
        dots_1 = _row_dots(q1, s1)
        to_itself = _row_dots(q1 - q2, s1 - s2)
        to_all = n * dots_1 + sum_dots_2 - q1 @ sum_logits_2 - s1 @ sum_centred_2
        to_neighbors = degree * dots_1 + neighbor_dots - _row_dots(q1, neighbor_s2) - _row_dots(s1, neighbor_q2)
        positive = (to_neighbors + to_itself) / (degree + 1)
        negative = (to_all - to_itself) / (n - 1)
        total = total + (positive / negative.clamp_min(torch.finfo(negative.dtype).eps ** 2)).sum()
    return total / n


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
        for block, code, w in _blocks(view, codes, loss_weight):
            total = total + F.cross_entropy(block @ means.T / LABEL_TEMPERATURE, code, reduction="none") @ w
    return total / (2 * n_contrasted)


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    if len(tensors[0]) <= BLOCK_ROWS:
        return iter([tensors])  # the backward pass would copy the parts that `split` returns
    return zip(*(tensor.split(BLOCK_ROWS) for tensor in tensors), strict=True)


def _row_dots(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)  # has a faster backward pass than `einsum`


def _logits(embedding: Tensor, temperature: float) -> Tensor:
    return embedding if temperature == 1 else embedding / temperature


def _logsumexp(logits: Tensor) -> Tensor:
    """Logarithm of the sum over all entries of the exponential of the logits."""
    return torch.stack([block.flatten().logsumexp(0) for (block,) in _blocks(logits)]).logsumexp(0)
