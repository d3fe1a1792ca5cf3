"""Counts to cell features and gene features, over plain arrays."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from sklearn.preprocessing import normalize
from statsmodels.nonparametric.smoothers_lowess import lowess

#: Overdispersion of the negative binomial null of the Pearson residuals (Lause et al. 2021).
THETA = 100.0
#: Entries of the dense block of counts that is held at once.
BLOCK_ENTRIES = 20_000_000
#: Genes below which no curve of variance over mean is fitted.
MIN_TREND_POINTS = 30


def _blocks(counts: sp.csr_array) -> Iterator[tuple[slice, np.ndarray]]:
    """Dense float64 blocks of rows."""
    n, n_genes = counts.shape
    step = max(1, BLOCK_ENTRIES // max(1, n_genes))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        yield rows, counts[rows].toarray().astype(np.float64)


def log_normalize(block: np.ndarray, totals: np.ndarray, target: float) -> np.ndarray:
    """``log1p`` of counts ``(n, G)`` scaled to ``target`` counts a cell."""
    return np.log1p(block * (target / totals)[:, None])


def pearson_residuals(block: np.ndarray, totals: np.ndarray, fractions: np.ndarray, clip: float) -> np.ndarray:
    r"""Analytic Pearson residuals of counts ``(n, G)``, clipped to ``[-clip, clip]``.

    :math:`(x - \mu) / \sqrt{\mu + \mu^2 / \theta}` with :math:`\mu` the cell's total times the gene's fraction
    (Lause, Berens & Kobak, Genome Biology 2021). Genes without counts give zeros.
    """
    mean = totals[:, None] * fractions
    spread = np.sqrt(mean + mean**2 / THETA)
    residuals = np.divide(block - mean, spread, out=np.zeros_like(mean), where=spread > 0)
    return np.clip(residuals, -clip, clip, out=residuals)


def variable_genes(counts: sp.csr_array, n_top_genes: int) -> np.ndarray:
    r"""The genes that vary most for their mean.

    The variance of each gene's counts, standardised by what is expected at its mean and clipped at :math:`\sqrt n`
    standard deviations, as in the ``seurat_v3`` flavour of :func:`scanpy.pp.highly_variable_genes` (Stuart et al., Cell
    2019). The expectation is a lowess curve, which also exists where the loess of that flavour is singular, as it is on
    sparse data.

    Parameters
    ----------
    counts
        ``(n, G)`` counts.
    n_top_genes
        Number of genes to keep; fewer are kept where fewer vary.

    Returns
    -------
    Sorted column numbers.

    Raises
    ------
    ValueError
        If fewer than two genes vary between cells.
    """
    n, n_genes = counts.shape
    values = counts.data.astype(np.float64)
    mean = np.bincount(counts.indices, values, minlength=n_genes) / n
    variance = (np.bincount(counts.indices, values**2, minlength=n_genes) / n - mean**2) * n / max(n - 1, 1)
    varying = variance > 1e-12 * np.maximum(mean, 1) ** 2
    n_varying = int(varying.sum())
    if n_varying < 2:
        raise ValueError(
            f"{n_varying} of {n_genes} genes vary between cells, so there are no variable genes to tell cells apart "
            "by. Pass counts of more genes, or check that the layer holds the counts of different cells."
        )
    log_mean, log_variance = np.log10(mean[varying]), np.log10(variance[varying])
    spread = np.zeros(n_genes)
    spread[varying] = np.sqrt(10 ** _trend(log_mean, log_variance))
    limit = mean + spread * np.sqrt(n)
    clipped = np.minimum(values, limit[counts.indices])
    first = np.bincount(counts.indices, clipped, minlength=n_genes)
    second = np.bincount(counts.indices, clipped**2, minlength=n_genes)
    squares = n * mean**2 + second - 2 * mean * first
    standardized = np.divide(squares, (n - 1) * spread**2, out=np.full(n_genes, -1.0), where=varying)
    order = np.argsort(-standardized, kind="stable")
    return np.sort(order[: min(n_top_genes, n_varying)])


def _trend(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth curve of ``y`` over ``x``, at each ``x``; the mean where there are too few points for a curve."""
    if len(x) < MIN_TREND_POINTS:
        return np.full(len(x), y.mean())
    curve = lowess(y, x, frac=0.3, it=0, delta=0.01 * np.ptp(x), return_sorted=False)
    return np.where(np.isfinite(curve), curve, y)


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
        return (block - self.mean) @ self.loadings * self.scale


@dataclass(frozen=True)
class CountFeatures:
    """Cell features from counts: principal components of two normalisations, side by side.

    Log-normalised counts and analytic Pearson residuals see different things in the same counts. Both are reduced to
    their leading components by loadings that are kept, so that new cells are projected in the same way.

    Attributes
    ----------
    target
        Counts a cell to which the log-normalised counts are scaled.
    fractions
        ``(G,)`` fraction of all counts that each gene has.
    clip
        Largest Pearson residual.
    log, pearson
        The two projections.
    """

    target: float
    fractions: np.ndarray
    clip: float
    log: Projection
    pearson: Projection

    @classmethod
    def fit(cls, counts: sp.csr_array, totals: np.ndarray, n_components: int) -> Self:
        """Find the components of counts ``(n, G)`` of the genes kept, in passes over blocks of cells.

        Parameters
        ----------
        counts
            ``(n, G)`` counts of the genes kept.
        totals
            ``(n,)`` counts of each cell over all genes.
        n_components
            Number of components of each normalisation; fewer where the data support fewer.
        """
        target = float(np.median(totals))
        fractions = counts.sum(axis=0).astype(np.float64) / totals.sum()
        clip = float(np.sqrt(counts.shape[0]))
        log = _principal_components(
            counts, lambda block, rows: log_normalize(block, totals[rows], target), n_components
        )
        pearson = _principal_components(
            counts, lambda block, rows: pearson_residuals(block, totals[rows], fractions, clip), n_components
        )
        return cls(target, fractions, clip, log, pearson)

    def transform(self, counts: sp.csr_array, totals: np.ndarray) -> np.ndarray:
        """Project counts ``(n, G)`` to features ``(n, d)``, float32."""
        features = np.empty((counts.shape[0], self.n_features), dtype=np.float32)
        for rows, block in _blocks(counts):
            log = self.log(log_normalize(block, totals[rows], self.target))
            pearson = self.pearson(pearson_residuals(block, totals[rows], self.fractions, self.clip))
            features[rows] = np.concatenate([log, pearson], 1)
        return features

    @property
    def n_features(self) -> int:
        """Number of features of a cell."""
        return self.log.loadings.shape[1] + self.pearson.loadings.shape[1]

    @property
    def gene_features(self) -> np.ndarray:
        r"""Gene features ``(G, d)``, float32: :math:`X^\top U_d` of the centred log-normalised counts ``X``.

        Each row is scaled to the norm :math:`\sqrt d`, so that a gene counts by its profile, as in the gene graph, and
        not by its abundance.
        """
        features = normalize(self.log.loadings * self.log.singular_values)
        return (features * np.sqrt(features.shape[1])).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """The parameters as plain numbers and arrays."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**state, "log": Projection(**state["log"]), "pearson": Projection(**state["pearson"])})


def _principal_components(
    counts: sp.csr_array, normalize: Callable[[np.ndarray, slice], np.ndarray], n_components: int
) -> Projection:
    """Exact principal components from the gene-gene covariance, accumulated over blocks of cells."""
    n, n_genes = counts.shape
    total, products = np.zeros(n_genes), np.zeros((n_genes, n_genes))
    for rows, block in _blocks(counts):
        values = normalize(block, rows)
        total += values.sum(0)
        products += values.T @ values
    mean = total / n
    covariance = products / n - np.outer(mean, mean)
    n_components = min(n_components, n - 1, n_genes)
    variances, loadings = scipy.linalg.eigh(covariance, subset_by_index=[n_genes - n_components, n_genes - 1])
    variances, loadings = variances[::-1], loadings[:, ::-1]
    kept = variances > 1e-10 * variances[0]
    variances, loadings = variances[kept], loadings[:, kept]
    # A sign convention makes the components reproducible between linear algebra libraries.
    loadings = loadings * np.sign(loadings[np.abs(loadings).argmax(0), np.arange(loadings.shape[1])])
    return Projection(mean, loadings, np.sqrt(variances), float(1 / np.sqrt(variances.sum())))
