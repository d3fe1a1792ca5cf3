"""Smoothing of features over a graph, and selection of features that vary over it."""

import warnings
from collections.abc import Iterator
from itertools import islice

import numpy as np
import scipy.sparse as sp
from numpy.polynomial import Chebyshev
from scvi import settings

from scrcl.utils.errors import PoorSupportWarning

#: Relative truncation error of the smoothing kernel.
KERNEL_TOLERANCE = 1e-6
#: Largest strength of smoothing over a distance; and steps to neighbours over which the squared length of a step is averaged.
MAX_STEPS, N_AVERAGED = 10_000.0, 3
#: Steps of smoothing by default, and at least; and the share of what neighbours predict of a cell that smoothing leaves.
DEFAULT_STEPS, FEWEST_STEPS, SHARE_LEFT = 10.0, 0.5, 0.85
#: Chebyshev polynomials, and random values, by which the error of smoothing is found.
N_MOMENTS, N_RANDOM = 32, 20_000
#: Moran's I below which a feature is noise in space, absolute and relative to the most autocorrelated feature.
MIN_AUTOCORRELATION, MIN_OF_LARGEST = 0.1, 0.15
#: Standard deviations above chance at which a feature is certain to vary in space.
MIN_DEVIATIONS = 4


def smooth(adjacency: sp.csr_array, features: np.ndarray, strength: float | np.ndarray) -> np.ndarray:
    r"""Average features over the walks in a graph, :math:`(I + t\,(I - W))^{-1} x` with :math:`W = D^{-1}(A + I)`.

    This is the mean of :math:`x` at the end of a random walk that continues at each step with probability :math:`t / (1 + t)`:
    about :math:`t` steps. Features that vary slowly over the graph are preserved; others, such as noise, are damped. A node
    without neighbours keeps its features, and a constant feature stays constant.

    The eigenvalues :math:`w` of :math:`W` lie in :math:`(-1, 1]`, where :math:`1 / (1 + t (1 - w))` is the Chebyshev series
    :math:`(1 + 2t)^{-1/2} (1 + 2 \sum_k \rho^k T_k(w))` with :math:`\rho = (1 + t - \sqrt{1 + 2t}) / t`. So a few dozen sparse
    products suffice for a graph of any size.

    The graph ``(n, n)`` is binary and symmetric, without self loops; :math:`t` is the ``strength``, with 0 of which the
    features ``(n, d)`` do not change. It may differ between nodes, ``(n,)``: a walk continues from node :math:`i` with probability
    :math:`t_i / (1 + t_i)`. This is the same as a walk that stays at :math:`i` more often, of the largest strength. Returns
    ``(n, d)``, float32.
    """
    features = np.asarray(features, dtype=np.float32)
    strengths = np.asarray(strength, dtype=np.float64)
    if len(features) == 0 or strengths.max(initial=0) < KERNEL_TOLERANCE:
        return features
    strength = float(strengths.max())
    walk = _walk(adjacency)
    if strengths.ndim:
        moves = strengths / strength
        walk = sp.csr_array(sp.diags_array(1 - moves) + sp.diags_array(moves) @ walk, dtype=np.float32)
    root = float(np.sqrt(1 + 2 * strength))
    ratio = (1 + strength - root) / strength
    n_terms = int(np.ceil(np.log(KERNEL_TOLERANCE) / np.log(ratio)))
    total = features.copy()
    for power, term in enumerate(islice(_polynomials(walk, features), 1, n_terms + 1), 1):
        total += 2 * ratio**power * term
    return total / root


def chosen_steps(adjacency: sp.csr_array, features: np.ndarray) -> float:
    r"""Strength of :func:`smooth` that leaves most of what neighbours predict of a cell: ten steps, or fewer.

    Smoothing removes noise of single cells, and differences between places that are close to each other. Both are measured by
    how well the others predict a cell left out, by generalised cross-validation (Golub, Heath & Wahba, Technometrics 1979): the
    share of variance :math:`1 - |(I - K_t)\, x|^2 / (|x|^2 (1 - \operatorname{tr} K_t / n)^2)` with the smoother :math:`K_t`. Single
    cells are noisy, so it hardly falls up to ten steps; of large spots with many counts, it falls early. Returned is the largest
    strength up to ten at which it is 0.85 of the best.

    :math:`W` is symmetric if cells count by their number of neighbours, so :math:`x^\top f(W)\, x` of any function is the sum of its
    Chebyshev coefficients times :math:`x^\top T_k(W)\, x`, which are computed once; the trace is that of random signs.

    Parameters
    ----------
    adjacency
        ``(n, n)`` binary, symmetric graph without self loops.
    features
        ``(n, d)`` features, centred in each slice.
    """
    joined = np.diff(adjacency.indptr) > 0  # cells without neighbours are not smoothed
    if not joined.any() or not features[joined].any():
        return DEFAULT_STEPS
    adjacency, features = adjacency[joined][:, joined], features[joined]
    n, d = features.shape
    weights = (adjacency.sum(axis=1) + 1).astype(np.float32)
    signs = np.random.default_rng(0).choice(np.array([-1, 1], dtype=np.float32), size=(n, 1 + N_RANDOM // n))
    start = np.concatenate([features, signs / np.sqrt(weights)[:, None]], 1)
    moments = [
        np.einsum("nd,nd,n->d", start, term, weights, dtype=np.float64)
        for term in islice(_polynomials(_walk(adjacency), start), N_MOMENTS)
    ]
    of_features, of_signs = (np.array(moments)[:, part].sum(1) for part in (slice(d), slice(d, None)))

    def explained(strength: float) -> float:
        def kernel(w: np.ndarray) -> np.ndarray:
            return 1 / (1 + strength * (1 - w))

        removed = Chebyshev.interpolate(lambda w: (1 - kernel(w)) ** 2, N_MOMENTS - 1).coef @ of_features
        itself = Chebyshev.interpolate(kernel, N_MOMENTS - 1).coef @ of_signs
        return float(1 - removed / of_features[0] / (1 - itself / of_signs[0]) ** 2)

    strengths = np.arange(DEFAULT_STEPS, 0, -FEWEST_STEPS)
    shares = np.array([explained(strength) for strength in strengths])
    return float(strengths[np.argmax(shares >= SHARE_LEFT * shares.max())])


def _polynomials(walk: sp.csr_array, features: np.ndarray) -> Iterator[np.ndarray]:
    """The products of features ``(n, d)`` with the Chebyshev polynomials of a walk ``(n, n)``, from the first on."""
    previous, current = features, walk @ features
    yield previous
    while True:
        yield current
        previous, current = current, 2 * (walk @ current) - previous


def _walk(adjacency: sp.csr_array) -> sp.csr_array:
    """Probabilities ``(n, n)``, float32, of steps to a node itself or one of its neighbours."""
    with_itself = adjacency + sp.eye_array(adjacency.shape[0], dtype=np.float32)
    return sp.csr_array(
        sp.diags_array(1 / (adjacency.sum(axis=1) + 1), dtype=np.float32) @ with_itself, dtype=np.float32
    )


def steps_of_length(coordinates: np.ndarray, adjacency: sp.csr_array, length: float) -> np.ndarray:
    r"""Strengths :math:`t_i` of :func:`smooth` with which a walk ends at a given root mean square distance from its start.

    A walk of :math:`t` steps, each to the cell itself or a neighbour, moves by :math:`t\, s^2` in the mean square, where
    :math:`s^2` is the mean square of a single step. Where cells are dense, it takes more steps, at most :data:`MAX_STEPS`;
    :math:`s_i^2` is averaged over the cells around, as the positions of single cells vary.

    Parameters
    ----------
    coordinates
        ``(n, 2)`` or ``(n, 3)`` positions.
    adjacency
        ``(n, n)`` binary, symmetric graph without self loops.
    length
        Distance, in the unit of the coordinates.

    Returns
    -------
    ``(n,)`` strengths; 0 for cells that have no neighbours, or only such at their position.
    """
    neighbors = np.diff(adjacency.indptr)
    ends = np.repeat(np.arange(len(coordinates)), neighbors)
    squares = ((coordinates[ends] - coordinates[adjacency.indices]) ** 2).sum(1)
    steps = np.bincount(ends, squares, minlength=len(coordinates)) / (neighbors + 1)
    walk = _walk(adjacency).astype(np.float64)
    for _ in range(N_AVERAGED):
        steps = walk @ steps
    return np.minimum(np.divide(length**2, steps, out=np.zeros(len(steps)), where=steps > 0), MAX_STEPS)


def autocorrelation(adjacency: sp.csr_array, features: np.ndarray) -> np.ndarray:
    """Moran's I ``(d,)`` of features ``(n, d)`` over a graph, where each cell is compared with the mean of its neighbours.

    Near 0 for noise in space, 1 for smooth features.
    """
    centered = features - features.mean(0)
    mean = sp.diags_array(1 / np.maximum(adjacency.sum(axis=1), 1), dtype=features.dtype) @ (adjacency @ centered)
    variance = (centered**2).sum(0)
    return np.divide((centered * mean).sum(0), variance, out=np.zeros_like(variance), where=variance > 0)


def varying_in_space(adjacency: sp.csr_array, features: np.ndarray) -> np.ndarray:
    """Which features ``(n, d)`` vary in space; all, with a warning, if none is distinguished from chance.

    Their autocorrelation exceeds 0.1 or, if this is less, 0.15 of the largest, and two standard deviations of chance.
    """
    correlations = autocorrelation(adjacency, features)
    chance = _chance(adjacency)
    if len(correlations) and correlations.max() > MIN_DEVIATIONS * chance:
        return correlations > max(2 * chance, min(MIN_AUTOCORRELATION, MIN_OF_LARGEST * correlations.max()))
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
