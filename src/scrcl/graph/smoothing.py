"""Smoothing of features over a graph, and which of them vary over it."""

import warnings

import numpy as np
import scipy.sparse as sp
from scvi import settings

from scrcl.utils.errors import PoorSupportWarning

#: Share of the smoothing kernel that may be left out.
KERNEL_TOLERANCE = 1e-6
#: Moran's I below which a feature is noise in space, by itself and relative to that of the most autocorrelated one.
MIN_AUTOCORRELATION, MIN_OF_LARGEST = 0.1, 0.15
#: Standard deviations above chance from which on something varies in space.
CERTAIN = 4


def smooth(adjacency: sp.csr_array, features: np.ndarray, strength: float) -> np.ndarray:
    r"""Average features over the walks in a graph, :math:`(I + t\,(I - W))^{-1} x` with :math:`W = D^{-1}(A + I)`.

    This is the mean of :math:`x` over where a random walk is that goes on at each step with probability
    :math:`t / (1 + t)`: about :math:`t` steps. Features that vary slowly over the graph stay as they are; the others,
    noise among them, are damped. A node without neighbours keeps its features, and those of a constant are constant.

    The eigenvalues :math:`w` of :math:`W` lie in :math:`(-1, 1]`, where :math:`1 / (1 + t (1 - w))` is the Chebyshev
    series :math:`(1 + 2t)^{-1/2} (1 + 2 \sum_k \rho^k T_k(w))` with :math:`\rho = (1 + t - \sqrt{1 + 2t}) / t`. So
    a few dozen products with a sparse matrix suffice, whatever the size of the graph.

    Parameters
    ----------
    adjacency
        ``(n, n)`` binary, symmetric graph without self loops.
    features
        ``(n, d)`` features.
    strength
        :math:`t`; 0 leaves features as they are.

    Returns
    -------
    ``(n, d)``, float32.
    """
    features = np.asarray(features, dtype=np.float32)
    if strength == 0 or len(features) == 0:
        return features
    n = adjacency.shape[0]
    walk = sp.diags_array(1 / (adjacency.sum(axis=1) + 1), dtype=np.float32) @ (
        adjacency + sp.eye_array(n, dtype=np.float32)
    )
    walk = sp.csr_array(walk, dtype=np.float32)
    root = float(np.sqrt(1 + 2 * strength))
    ratio = (1 + strength - root) / strength
    n_terms = int(np.ceil(np.log(KERNEL_TOLERANCE) / np.log(ratio)))
    previous, current = features, walk @ features
    total = previous + 2 * ratio * current
    for power in range(2, n_terms + 1):
        previous, current = current, 2 * (walk @ current) - previous
        total += 2 * ratio**power * current
    return total / root


def autocorrelation(adjacency: sp.csr_array, features: np.ndarray) -> np.ndarray:
    """Moran's I ``(d,)`` of features ``(n, d)`` over a graph, each cell comparing itself with the mean of its neighbours.

    Near 0 for what is noise in space, 1 for what is smooth.
    """
    centered = features - features.mean(0)
    mean = sp.diags_array(1 / np.maximum(adjacency.sum(axis=1), 1), dtype=features.dtype) @ (adjacency @ centered)
    variance = (centered**2).sum(0)
    return np.divide((centered * mean).sum(0), variance, out=np.zeros_like(variance), where=variance > 0)


def varying_in_space(adjacency: sp.csr_array, features: np.ndarray) -> np.ndarray:
    """Which of the features ``(n, d)`` vary in space; all, with a warning, where none is distinguished from chance.

    Those whose autocorrelation is above 0.1, or above 0.15 of the largest where that is less, and not below two standard
    deviations of what chance gives.
    """
    found = autocorrelation(adjacency, features)
    chance = _chance(adjacency)
    if len(found) and found.max() > CERTAIN * chance:
        return found > max(2 * chance, min(MIN_AUTOCORRELATION, MIN_OF_LARGEST * found.max()))
    warnings.warn(
        PoorSupportWarning(
            "Expression does not vary in space: cells are no more similar to their neighbours than to other cells.",
            "Check that the coordinates belong to these cells, or leave spatial_key out.",
            command="Check that the coordinates belong to these cells, or leave --spatial-key out.",
        ),
        stacklevel=settings.warnings_stacklevel,
    )
    return np.ones(features.shape[1], dtype=bool)


def _chance(adjacency: sp.csr_array) -> float:
    r"""Standard deviation of Moran's I of independent values, :math:`\sqrt{\sum_{ij} (w_{ij} + w_{ji})^2 / 2} / \sum w`."""
    weights = sp.diags_array(1 / np.maximum(adjacency.sum(axis=1), 1)) @ adjacency
    total = weights.sum()
    return float(np.sqrt((weights + weights.T).power(2).sum() / 2) / total) if total else 1.0
