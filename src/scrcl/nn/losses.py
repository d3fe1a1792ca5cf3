"""The losses as functions of arrays, in a form that is linear in the number of cells.

Notation: ``n`` cells, ``h`` hidden units, ``c`` refined dimensions; ``adjacency`` is the binary ``(n, n)`` cell graph
``A`` without self loops, a sparse CSR tensor. No ``(n, n)`` array is ever formed; the identities are proved in the
documentation ("The method") and checked against dense formulas in the tests.

Source: Peng et al., *Refinement Contrastive Learning of Cell-Gene Associations for Unsupervised
Cell Type Identification*, AAAI 2026, arXiv 2512.10640. The contrast of labels is ours.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .sparse import symmetric_product

#: Rows of a block. Blocks keep temporary arrays small enough for memory to be reused instead of asked for anew.
BLOCK_ROWS = 8192
#: Temperature of the contrast of labels.
LABEL_TEMPERATURE = 0.1


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
    r"""Neighbourhood contrastive alignment, :math:`L_\text{nbr}`.

    The mean over cells of the mean divergence to the cell itself and its neighbours in the other view, relative to
    the mean divergence to all other cells. With :math:`D_{ij} = \langle q_i - q'_j, s_i - s'_j \rangle`, where
    :math:`s` are logits and :math:`q` the softmax less :math:`1/h`, all sums over ``j`` separate.

    Parameters
    ----------
    embedding_1, embedding_2
        The two views, each of shape ``(n, h)``.
    adjacency
        Sparse CSR tensor of shape ``(n, n)``, binary and symmetric, without self loops. Cells without neighbours are allowed.
    temperature
        Temperature of the softmax.

    Returns
    -------
    Scalar tensor; 0 for a single cell, which has nothing to be contrasted with.
    """
    n, h = embedding_1.shape
    if n == 1:
        return (embedding_1 - embedding_2).sum() * 0
    logits_1, logits_2 = _logits(embedding_1, temperature), _logits(embedding_2, temperature)
    centred_2 = torch.cat([block.softmax(1) - 1 / h for (block,) in _blocks(logits_2)])
    own_2 = _row_dots(centred_2, logits_2)
    sum_logits_2, sum_centred_2, sum_own_2 = logits_2.sum(0), centred_2.sum(0), own_2.sum()
    near_logits_2 = symmetric_product(adjacency, logits_2)
    near_centred_2 = symmetric_product(adjacency, centred_2)
    near_own_2 = symmetric_product(adjacency, own_2[:, None])[:, 0]
    degrees = adjacency.crow_indices().diff()

    total = embedding_1.new_zeros(())
    for s1, s2, q2, near_s2, near_q2, near_b, degree in _blocks(
        logits_1, logits_2, centred_2, near_logits_2, near_centred_2, near_own_2, degrees
    ):
        q1 = s1.softmax(1) - 1 / h
        own_1 = _row_dots(q1, s1)
        itself = _row_dots(q1 - q2, s1 - s2)
        everyone = n * own_1 + sum_own_2 - q1 @ sum_logits_2 - s1 @ sum_centred_2
        neighbors = degree * own_1 + near_b - _row_dots(q1, near_s2) - _row_dots(s1, near_q2)
        near = (neighbors + itself) / (degree + 1)
        far = (everyone - itself) / (n - 1)
        total = total + (near / far.clamp_min(torch.finfo(far.dtype).eps ** 2)).sum()
    return total / n


def cross_view_loss(refined_1: Tensor, refined_2: Tensor, adjacency: Tensor) -> Tensor:
    r"""Cross-view consistency of the refined views, :math:`L_\text{cross}`.

    :math:`n^{-2} \lVert Z_1 Z_2^\top - (A + I) \rVert_F^2`, expanded so that only :math:`c \times c` matrices and
    the edges of the graph occur.

    Parameters
    ----------
    refined_1, refined_2
        The refined views, each of shape ``(n, c)``.
    adjacency
        Sparse CSR tensor of shape ``(n, n)``, binary and symmetric, without self loops.

    Returns
    -------
    Scalar tensor.
    """
    n = len(refined_1)
    gram = ((refined_1.T @ refined_1) * (refined_2.T @ refined_2)).sum()
    edges = (refined_1 * (symmetric_product(adjacency, refined_2) + refined_2)).sum()
    return (gram - 2 * edges + adjacency.values().sum() + n) / n**2


def label_loss(embedding_1: Tensor, embedding_2: Tensor, labels: Tensor) -> Tensor:
    r"""Contrast of labels, :math:`L_\text{lab}`.

    A cell with a label is drawn to the other view of the cells of its label, and away from those of other labels:

    .. math:: L_\text{lab} = \frac{1}{2 C'} \sum_{v \ne w} \sum_{c: n_c > 1} \frac{1}{n_c} \sum_{i \in c}
        -\log \frac{\exp(e^v_i \cdot \mu^w_c / \tau)}{\sum_{c'} \exp(e^v_i \cdot \mu^w_{c'} / \tau)},

    with the mean :math:`\mu^w_c` of the :math:`n_c` cells of a label in the other view and :math:`\tau` =
    ``LABEL_TEMPERATURE``. As the mean of inner products is the inner product with the mean, this is the mean similarity
    to all cells of each label; but it is linear in the number of cells. All :math:`C'` labels of more than one cell count the
    same, whatever the number of their cells. The only cell of a label has none to be drawn to; the others are drawn away from it.
    Supervised contrast: Khosla et al., NeurIPS 2020; here without augmentation, as the two views are there already.

    Parameters
    ----------
    embedding_1, embedding_2
        The two views, each of shape ``(n, h)``, with rows of unit length.
    labels
        ``(n,)`` number of the label of each cell, from 0; -1 for none. A number may have no cell.

    Returns
    -------
    Scalar tensor; 0 where there are fewer than two labels or none has two cells, as nothing is contrasted.
    """
    rows = torch.nonzero(labels >= 0)[:, 0]
    _, own, sizes = torch.unique(labels[rows], return_inverse=True, return_counts=True)
    n_drawn = (sizes > 1).sum()
    if len(sizes) < 2 or n_drawn == 0:
        return (embedding_1 - embedding_2).sum() * 0
    weight = 1 / sizes[own].to(embedding_1.dtype)
    drawn = weight * (sizes[own] > 1)
    views = embedding_1[rows], embedding_2[rows]
    total = embedding_1.new_zeros(())
    for view, other in (views, views[::-1]):
        means = view.new_zeros(len(sizes), view.shape[1]).index_add(0, own, other * weight[:, None])
        for block, kind, w in _blocks(view, own, drawn):
            total = total + F.cross_entropy(block @ means.T / LABEL_TEMPERATURE, kind, reduction="none") @ w
    return total / (2 * n_drawn)


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    if len(tensors[0]) <= BLOCK_ROWS:
        return iter([tensors])  # what `split` gives would be copied on the way back
    return zip(*(tensor.split(BLOCK_ROWS) for tensor in tensors), strict=True)


def _row_dots(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)  # faster on the way back than `einsum`


def _logits(embedding: Tensor, temperature: float) -> Tensor:
    return embedding if temperature == 1 else embedding / temperature


def _logsumexp(logits: Tensor) -> Tensor:
    """Logarithm of the sum over all entries of the exponential of the logits."""
    return torch.stack([block.flatten().logsumexp(0) for (block,) in _blocks(logits)]).logsumexp(0)
