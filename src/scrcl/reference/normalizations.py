"""Normalisations of counts, dense and sparse, and the components they are projected on; over plain arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from scrcl.graph.adjacency import ALL
from scrcl.utils.sparse import row_slice

#: Overdispersion of the negative binomial null of the Pearson residuals (Lause et al. 2021).
THETA = 100.0
#: The normalisations, in the order of the features: two as they are, and each of them with genes of equal weight.
LOG, PEARSON, STANDARDIZED, SIGNED_LOG = NORMALIZATIONS = ("log", "pearson", "standardized_log", "signed_log_residuals")
#: Counts above zero that are normalised at once, so that they fit into the cache.
ENTRIES = 60_000
#: Knots per e-fold change of the total of a cell; with 16, the error of interpolation is below that of float32.
KNOTS = 16


def log_normalize(block: np.ndarray, totals: np.ndarray, target: float) -> np.ndarray:
    """``log1p`` of counts ``(n, G)`` scaled to ``target`` counts a cell."""
    return np.log1p(block * (target / totals)[:, None].astype(block.dtype))


def pearson_residuals(counts: np.ndarray, mean: np.ndarray, clip: float) -> np.ndarray:
    r"""Analytic Pearson residuals of counts with these expectations, of any shape, clipped to ``[-clip, clip]``.

    :math:`(x - \mu) / \sqrt{\mu + \mu^2 / \theta}`, where the expectation :math:`\mu` is the cell's total times the gene's
    fraction (Lause, Berens & Kobak, Genome Biology 2021). Genes without counts give zeros.
    """
    return _residuals(counts - mean, _spread(mean), clip)


def _spread(mean: np.ndarray) -> np.ndarray:
    """Expected standard deviations; infinite for genes without counts, whose residuals are zero."""
    spread = np.sqrt(mean + mean**2 / THETA)
    spread[spread == 0] = np.inf
    return spread


def _residuals(differences: np.ndarray, spread: np.ndarray, clip: float) -> np.ndarray:
    differences /= spread
    return np.clip(differences, -clip, clip, out=differences)


def _signed_log(values: np.ndarray) -> np.ndarray:
    """``log1p`` of absolute values, with their signs."""
    return np.copysign(np.log1p(np.abs(values)), values)


@dataclass(frozen=True)
class Projection:
    """Centred principal components of a normalisation, scaled so that cells have unit mean norm.

    Attributes
    ----------
    mean
        ``(G,)`` mean of the normalised values.
    loadings
        ``(G, d)`` orthonormal loadings, leading component first.
    singular_values
        ``(d,)`` singular values of the centred matrix divided by ``sqrt(n)``.
    scale
        Factor applied to the scores.
    """

    mean: np.ndarray
    loadings: np.ndarray
    singular_values: np.ndarray
    scale: float

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Project normalised values ``(n, G)`` to features ``(n, d)``."""
        mean, loadings = self.mean.astype(block.dtype), self.loadings.astype(block.dtype)
        return (block - mean) @ loadings * self.scale


@dataclass(frozen=True)
class Normalizer:
    """The parameters of the normalisations.

    Attributes
    ----------
    target
        Counts a cell to which the log-normalised counts are scaled.
    fractions
        ``(G,)`` fraction of all counts that each gene has.
    deviations
        ``(G,)`` standard deviation of each gene after proportional fitting of its logarithms.
    clip
        Largest Pearson residual.
    """

    target: float
    fractions: np.ndarray
    deviations: np.ndarray
    clip: float

    @staticmethod
    def proportional_fitting(log: np.ndarray) -> np.ndarray:
        """Scale logarithms ``(n, G)`` to a mean of 1 per cell; cells without counts of these genes stay 0.

        With :func:`log_normalize` before, this is PFlog1pPF (Booeshaghi et al., bioRxiv 2022).
        """
        return log / np.maximum(log.mean(1, keepdims=True), 1e-12)

    def normalize(self, block: np.ndarray, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Every normalisation of counts ``(n, G)`` of cells with the given totals."""
        log = log_normalize(block, totals, self.target)
        mean = (totals[:, None] * self.fractions).astype(block.dtype)
        residuals = pearson_residuals(block, mean, self.clip)
        fitted = self.proportional_fitting(log)
        return {
            LOG: log,
            PEARSON: residuals,
            STANDARDIZED: fitted / self.deviations.astype(block.dtype),
            SIGNED_LOG: _signed_log(residuals),
        }

    def above_zero(
        self, counts: sp.csr_array, totals: np.ndarray, dtype: type[np.floating] = np.float32
    ) -> dict[str, np.ndarray]:
        """Normalised values of the counts above zero minus the value of a zero in their place, in their order."""
        values, genes, sizes = counts.data.astype(dtype), counts.indices, np.diff(counts.indptr)
        log, fitted = self._fitted_above_zero(counts, totals, dtype)
        mean = np.repeat(totals.astype(dtype), sizes) * self.fractions.astype(dtype).take(genes)
        spread = _spread(mean)
        residuals, residuals_of_zero = (
            _residuals(values - mean, spread, self.clip),
            _residuals(-mean, spread, self.clip),
        )
        return {
            LOG: log,
            PEARSON: residuals - residuals_of_zero,
            STANDARDIZED: fitted / self.deviations.astype(dtype).take(genes),
            SIGNED_LOG: _signed_log(residuals) - _signed_log(residuals_of_zero),
        }

    def fitted_above_zero(
        self, counts: sp.csr_array, totals: np.ndarray, dtype: type[np.floating] = np.float32
    ) -> np.ndarray:
        """The counts above zero after proportional fitting of their logarithms, of which zeros stay 0."""
        fitted = np.empty(counts.nnz, dtype)
        for rows, entries in _row_entries(counts):
            part = row_slice(counts, rows)
            fitted[entries] = self._fitted_above_zero(part, totals[rows], dtype)[1]
        return fitted

    def _fitted_above_zero(
        self, counts: sp.csr_array, totals: np.ndarray, dtype: type[np.floating]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of counts ``(n, G)`` above zero, and the same after proportional fitting."""
        (n, n_genes), sizes = counts.shape, np.diff(counts.indptr)
        log = np.log1p(counts.data.astype(dtype) * np.repeat((self.target / totals).astype(dtype), sizes))
        mean_log = np.bincount(np.repeat(np.arange(n), sizes), log, minlength=n) / n_genes
        return log, log / np.repeat(np.maximum(mean_log, 1e-12).astype(dtype), sizes)

    @property
    def smooth(self) -> bool:
        """Whether residuals of zeros are smooth in the total of a cell: they are clipped only if few cells were fitted."""
        return self.clip >= np.sqrt(THETA)

    def values(
        self, counts: sp.csr_array, totals: np.ndarray, dtype: type[np.floating] = np.float64
    ) -> dict[str, "Values"]:
        """Every normalisation of counts ``(n, G)`` of cells with totals ``(n,)``, those above zero in this precision."""
        above = {name: np.empty(counts.nnz, dtype) for name in NORMALIZATIONS}
        for rows, entries in _row_entries(counts):
            for name, values in self.above_zero(row_slice(counts, rows), totals[rows], dtype).items():
                above[name][entries] = values
        weights, knots = interpolation(totals) if self.smooth else (sp.eye_array(len(totals), format="csr"), totals)
        of_zero = pearson_residuals(np.zeros((len(knots), 1)), knots[:, None] * self.fractions, self.clip)
        zeros = {PEARSON: of_zero, SIGNED_LOG: _signed_log(of_zero)}
        return {
            name: Values(
                sp.csr_array((values, counts.indices, counts.indptr), counts.shape),
                weights if name in zeros else sp.csr_array((len(totals), 0)),
                zeros.get(name, np.zeros((0, counts.shape[1]))),
            )
            for name, values in above.items()
        }


@dataclass(frozen=True)
class Values:
    """A normalisation of ``n`` cells and ``G`` genes: a sparse matrix plus a product of low rank, ``above + weights @ rows``.

    Attributes
    ----------
    above
        ``(n, G)`` values of counts above zero minus the value of a zero in their place.
    weights, rows
        ``(n, K)``, sparse, and ``(K, G)``: their product is the value of a zero.
    """

    above: sp.csr_array
    weights: sp.csr_array
    rows: np.ndarray

    @classmethod
    def stack(cls, parts: Sequence["Values"]) -> "Values":
        """The cells of all parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            sp.vstack([part.above for part in parts], format="csr"),
            sp.block_diag([part.weights for part in parts], format="csr"),
            np.concatenate([part.rows for part in parts]),
        )

    def mean(self) -> np.ndarray:
        """Mean ``(G,)`` over the cells."""
        # SciPy adds up in the precision of the values.
        above = np.bincount(self.above.indices, self.above.data, minlength=self.above.shape[1])
        return (above + self.weights.sum(axis=0) @ self.rows) / self.above.shape[0]

    def center(self, mean: np.ndarray) -> "Values":
        """The values minus a mean ``(G,)`` of each gene."""
        ones = sp.csr_array(np.ones((self.above.shape[0], 1)))
        return Values(self.above, sp.hstack([self.weights, ones], format="csr"), np.vstack([self.rows, -mean]))

    def astype(self, dtype: type[np.floating]) -> "Values":
        """The same in another precision."""
        return Values(self.above.astype(dtype, copy=False), self.weights.astype(dtype), self.rows.astype(dtype))

    def block(self, rows: slice = ALL, columns: slice = ALL) -> np.ndarray:
        """Dense values of some cells and genes."""
        above = row_slice(self.above, rows)
        return above[:, columns].toarray() + row_slice(self.weights, rows) @ self.rows[:, columns]

    def __matmul__(self, x: np.ndarray) -> np.ndarray:
        """Product ``(n, d)`` with ``(G, d)``."""
        return self.above @ x + self.weights @ (self.rows @ x)

    def transposed_product(self, x: np.ndarray) -> np.ndarray:
        """Product of the transpose, ``(G, d)``, with ``(n, d)``."""
        above, weights = self._transposes
        return above @ x + self.rows.T @ (weights @ x)

    @cached_property
    def _transposes(self) -> tuple[sp.csc_array, sp.csc_array]:
        return self.above.T, self.weights.T


def entry_slices(indptr: np.ndarray) -> Iterator[slice]:
    """Slices of the rows of a sparse matrix with about ``ENTRIES`` entries each."""
    ends = np.searchsorted(indptr, np.arange(ENTRIES, indptr[-1] + ENTRIES, ENTRIES)).clip(max=len(indptr) - 1)
    yield from (slice(*limits) for limits in pairwise(np.unique([0, *ends, len(indptr) - 1]).tolist()))


def _row_entries(matrix: sp.csr_array) -> Iterator[tuple[slice, slice]]:
    """The same, with the slices of their entries."""
    for rows in entry_slices(matrix.indptr):
        yield rows, slice(*matrix.indptr[[rows.start, rows.stop]].tolist())


def interpolation(totals: np.ndarray) -> tuple[sp.csr_array, np.ndarray]:
    """Weights ``(n, K)`` and totals ``(K,)`` of the knots that interpolate functions of totals ``(n,)``, smooth in their logarithm.

    Interpolates by the cubic through the four nearest knots, which are fixed, so that the value of a cell does not depend on
    other cells.
    """
    position = np.log(totals) * KNOTS
    below = np.floor(position)
    u = position - below
    cubic = [
        -u * (u - 1) * (u - 2) / 6,
        (u + 1) * (u - 1) * (u - 2) / 2,
        -(u + 1) * u * (u - 2) / 2,
        (u + 1) * u * (u - 1) / 6,
    ]
    knots, index = np.unique(below[:, None] + np.arange(-1, 3), return_inverse=True)
    shape = (len(totals), len(knots))
    weights = sp.csr_array((np.column_stack(cubic).ravel(), index.ravel(), np.arange(0, 4 * len(totals) + 1, 4)), shape)
    return weights, np.exp(knots / KNOTS)
