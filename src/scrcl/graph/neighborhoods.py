"""The surroundings of cells in space: the mean of features over the nearest cells, and how fast it changes.

Both are defined as in Banksy (Singhal et al., Nature Genetics 2024), here of any features, in two or three dimensions.
"""

import numpy as np
import scipy.sparse as sp

from .slices import Slices, nearest_in_space

#: Weight of the surroundings relative to the cell itself, and that of the gradient relative to the mean (Banksy).
SURROUNDINGS_SHARE, GRADIENT_WEIGHT = 0.8, 0.5


def neighbor_weights(slices: Slices, n_neighbors: int, cells: np.ndarray) -> sp.csr_array:
    r"""Weights ``(m, n)`` of the nearest cells of some cells ``(m,)`` in their slices, float32; rows sum to 1.

    :math:`w_{ij} \propto \exp(-d_{ij}^2 / h_i^2)` with the distance :math:`d_{ij}` and its median :math:`h_i` over the
    neighbours of cell :math:`i`. Neighbours at the position of the cell itself have equal weights. A slice with fewer cells has
    fewer neighbours; the row of a single cell is 0.
    """
    requested = np.full(len(slices), -1)
    requested[cells] = np.arange(len(cells))
    rows, columns, weights = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)], [np.empty(0)]
    for _, members in slices:
        k = min(n_neighbors, len(members) - 1)
        inside = np.flatnonzero(requested[members] >= 0)
        if k == 0 or len(inside) == 0:
            continue
        points = slices.coordinates[members]
        neighbors = nearest_in_space(points, k, inside)
        distances = np.linalg.norm(points[neighbors] - points[inside, None], axis=2)
        width = np.median(distances, axis=1, keepdims=True)
        weight = np.exp(-((distances / np.where(width > 0, width, 1)) ** 2))
        rows.append(np.repeat(requested[members[inside]], k))
        columns.append(members[neighbors.ravel()])
        weights.append((weight / weight.sum(1, keepdims=True)).ravel())
    entries = (np.concatenate(weights).astype(np.float32), (np.concatenate(rows), np.concatenate(columns)))
    return sp.csr_array(entries, shape=(len(cells), len(slices)))


def azimuthal_gradient(slices: Slices, weights: sp.csr_array, features: np.ndarray, cells: np.ndarray) -> np.ndarray:
    r"""How fast features change around some cells, in any direction: the azimuthal Gabor filter of Banksy.

    :math:`|\sum_j w_{ij}\, u_{ij} (x_j - \bar x_i)|` with the mean :math:`\bar x_i = \sum_j w_{ij} x_j` and the unit vector
    :math:`u_{ij}` from cell :math:`i` to cell :math:`j`. In two dimensions, :math:`u_{ij}` is :math:`e^{i \varphi}` with the
    azimuth :math:`\varphi`.

    Parameters
    ----------
    slices
        Positions of the ``n`` cells.
    weights
        ``(m, n)`` weights of the neighbours, from :func:`neighbor_weights`.
    features
        ``(n, d)`` features.
    cells
        ``(m,)`` requested cells.

    Returns
    -------
    Lengths ``(m, d)``, at least 0.
    """
    centers = np.repeat(slices.coordinates[cells], np.diff(weights.indptr), axis=0)
    steps = slices.coordinates[weights.indices] - centers
    length = np.linalg.norm(steps, axis=1, keepdims=True)
    directions = (steps / np.where(length > 0, length, 1)).astype(weights.dtype)
    mean = weights @ features
    squares = np.zeros_like(mean)
    for direction in directions.T:
        along = sp.csr_array((weights.data * direction, weights.indices, weights.indptr), weights.shape)
        squares += (along @ features - along.sum(axis=1)[:, None] * mean) ** 2
    return np.sqrt(squares)


def neighborhood_mean(weights: sp.csr_array, features: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Mean ``(m, d)`` of features ``(n, d)`` over each requested cell and the neighbours that ``weights`` ``(m, n)`` has.

    All of them have the same weight in it.
    """
    counts = np.diff(weights.indptr)
    total = sp.csr_array((np.ones_like(weights.data), weights.indices, weights.indptr), weights.shape) @ features
    return (total + features[cells]) / (counts[:, None] + 1).astype(features.dtype)


def with_surroundings(own: np.ndarray, mean: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Features ``(m, 3 d)`` of cells beside the mean and the gradient ``(m, d)`` of their surroundings, weighted as by Banksy.

    Each of the three is centred and scaled to a mean squared length of 1 before: a mean varies less than single cells do.
    """
    around = 1 + GRADIENT_WEIGHT
    shares = (1 - SURROUNDINGS_SHARE, SURROUNDINGS_SHARE / around, SURROUNDINGS_SHARE * GRADIENT_WEIGHT / around)
    return np.concatenate(
        [np.sqrt(share) * _scale(part) for share, part in zip(shares, (own, mean, gradient), strict=True)], 1
    )


def _scale(part: np.ndarray) -> np.ndarray:
    centered = part - part.mean(0)
    length = np.sqrt((centered**2).sum(1).mean())
    return centered / length if length > 0 else centered
