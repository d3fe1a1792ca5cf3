"""Counts to cell features and gene features, over plain arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from scipy.stats import rankdata
from sklearn.preprocessing import normalize
from statsmodels.nonparametric.smoothers_lowess import lowess

from scrcl.data.counts import Counts
from scrcl.nn.sparse import to_torch
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.files import State
from scrcl.utils.progress import track
from scrcl.utils.sparse import row_slice
from scrcl.utils.words import counted

from .normalizations import (
    LOG,
    NORMALIZATIONS,
    Normalizer,
    Projection,
    Values,
    entry_slices,
    interpolation,
)

#: Minimum number of genes to fit a curve of variance over mean.
MIN_TREND_POINTS = 30
#: Size of the smallest matrix whose eigenvectors are found by iteration.
MIN_LANCZOS = 600
#: Time for a value above zero in the iterations of a sparse matrix, relative to that of a multiplication of dense ones; measured.
COST_OF_ENTRY = 25_000
#: Most entries of a dense block of values whose products are added up.
PRODUCT_ENTRIES = 4_000_000
#: Weight of the parameters of all cells, in cells, in the estimation of the parameters of a batch.
PRIOR_CELLS = 10


def column_slices(numbers: Sequence[int]) -> list[slice]:
    """Slices of groups of columns side by side, of which there are ``numbers``."""
    return [slice(*ends) for ends in pairwise(np.cumsum([0, *numbers]).tolist())]


@dataclass(frozen=True)
class Moments:
    """Moments of counts ``(n, G)``, from one pass over them.

    Attributes
    ----------
    totals
        ``(n,)`` counts of each cell.
    mean, variance
        ``(G,)`` mean and unbiased variance of each gene.
    """

    totals: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def by_batch(cls, counts: Counts, batches: np.ndarray) -> list[Self]:
        """Read all counts once, and return the moments of each batch; ``batches`` ``(n,)`` are numbered from 0."""
        sizes = np.bincount(batches)
        totals = np.empty(counts.n_cells)
        sums, squares = np.zeros((2, len(sizes), counts.n_genes))
        for rows, block in counts.blocks():
            totals[rows] = block.sum(axis=1, dtype=np.float64)
            for number, part in _split(block, batches[rows]):
                values = part.data.astype(np.float64)
                sums[number] += np.bincount(part.indices, values, minlength=counts.n_genes)
                squares[number] += np.bincount(part.indices, values**2, minlength=counts.n_genes)
        moments = []
        for number, n in enumerate(sizes):
            mean = sums[number] / n
            moments.append(cls(totals[batches == number], mean, (squares[number] / n - mean**2) * n / max(n - 1, 1)))
        return moments


def _split(block: sp.csr_array, batches: np.ndarray) -> Iterator[tuple[int, sp.csr_array]]:
    """The cells of each batch in a block."""
    numbers = np.unique(batches)
    for number in numbers:
        yield int(number), block if len(numbers) == 1 else block[batches == number]


def variable_genes(
    counts: Counts, moments: Sequence[Moments], n_top_genes: int, batches: np.ndarray | None = None
) -> np.ndarray:
    r"""Sorted column numbers of the genes that vary most for their mean.

    The variance of each gene's counts, standardised by what is expected at its mean and clipped at :math:`\sqrt n` standard
    deviations, as in the ``seurat_v3`` flavour of :func:`scanpy.pp.highly_variable_genes` (Stuart et al., Cell 2019). The
    expectation is a lowess curve, as the loess of that flavour is singular on sparse data. With several batches, genes are
    ordered by their mean rank over batches: genes that vary only between batches are not chosen, and large batches count as
    much as small ones.

    The counts ``(n, G)`` are read once more. There is one entry of ``moments`` for each of the ``batches`` ``(n,)``, numbered
    from 0; a single batch by default. At most ``n_top_genes`` are kept, fewer where fewer vary; fewer than two are refused.
    """
    varying = np.array([batch.variance > 1e-12 * np.maximum(batch.mean, 1) ** 2 for batch in moments])
    n_varying = int(varying.any(0).sum())
    if n_varying < 2:
        raise ScrclValueError(
            f"Only {n_varying} of {counted(counts.n_genes, 'gene')} {'varies' if n_varying == 1 else 'vary'} between cells, so there are no variable genes.",
            "Pass counts of more genes, or check that the layer holds the counts of different cells.",
        )
    batches = np.zeros(counts.n_cells, dtype=np.int64) if batches is None else batches
    standardized = _standardized_variances(counts, moments, varying, batches)
    if len(moments) == 1:
        order = np.argsort(-standardized[0], kind="stable")
    else:
        order = np.argsort(np.mean([rankdata(-values, method="max") for values in standardized], 0), kind="stable")
    return np.sort(order[: min(n_top_genes, n_varying)])


def _standardized_variances(
    counts: Counts, moments: Sequence[Moments], varying: np.ndarray, batches: np.ndarray
) -> np.ndarray:
    """Clipped variance of each gene in each batch relative to the expected one, ``(B, G)``; -1 for constant genes."""
    spread = np.zeros(varying.shape)
    for batch_spread, batch, varies in zip(spread, moments, varying, strict=True):
        if varies.any():
            log_mean, log_variance = np.log10(batch.mean[varies]), np.log10(batch.variance[varies])
            batch_spread[varies] = np.sqrt(10 ** _trend(log_mean, log_variance))
    n = np.bincount(batches)[:, None]
    mean = np.array([batch.mean for batch in moments])
    limit = mean + spread * np.sqrt(n)
    first, second = np.zeros((2, *varying.shape))
    for rows, block in counts.blocks():
        for number, part in _split(block, batches[rows]):
            clipped = np.minimum(part.data, limit[number][part.indices])
            first[number] += np.bincount(part.indices, clipped, minlength=counts.n_genes)
            second[number] += np.bincount(part.indices, clipped**2, minlength=counts.n_genes)
    squares = n * mean**2 + second - 2 * mean * first
    return np.divide(squares, (n - 1) * spread**2, out=np.full(varying.shape, -1.0), where=varying)


def _trend(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth curve of ``y`` over ``x``, at each ``x``; the mean where there are too few points for a curve."""
    if len(x) < MIN_TREND_POINTS:
        return np.full(len(x), y.mean())
    curve = lowess(y, x, frac=0.3, it=0, delta=0.01 * np.ptp(x), return_sorted=False)
    return np.where(np.isfinite(curve), curve, y)


@dataclass(frozen=True)
class CountFeatures(Normalizer):
    """Cell features from counts: principal components of several normalisations, side by side.

    The normalisations complement each other. In log-normalised counts and in analytic Pearson residuals, genes are weighted by
    their variance, so that a few genes with large differences can distinguish two types. In the two stabilised forms,
    proportional fitting of the logarithms (Booeshaghi et al., bioRxiv 2022) with standardised genes and the signed logarithms of
    the residuals, genes have equal weights, so that small differences in many genes can. All are reduced to their leading
    components, and new cells are projected with the same loadings.

    Attributes
    ----------
    target, fractions, deviations, clip
        As of :class:`~scrcl.reference.normalizations.Normalizer`.
    projections
        The projection of each normalisation by its name, in the order of the features.
    """

    projections: dict[str, Projection]

    @classmethod
    def fit(
        cls, counts: sp.csr_array, totals: np.ndarray, n_components: int, batches: np.ndarray | None = None
    ) -> Self:
        """Find the components of counts ``(n, G)`` of the genes kept, with totals ``(n,)`` of each cell over all genes.

        Each normalisation has ``n_components``, or fewer if the data have a lower rank. With ``batches`` ``(n,)``, numbered
        from 0, the components describe the variation within batches.
        """
        target = float(np.median(totals))
        fractions = counts.sum(axis=0).astype(np.float64) / totals.sum()
        clip = float(np.sqrt(counts.shape[0]))
        plain = cls(target, fractions, np.ones(counts.shape[1]), clip, {})
        if batches is None:
            parts, scales = [(counts, totals)], [plain]
        else:
            members = [np.flatnonzero(batches == i) for i in np.unique(batches)]
            parts = [(counts[rows], totals[rows]) for rows in members]
            scales = [replace(plain, fractions=plain.batch_fractions(*part)) for part in parts]
        shares = [len(part[1]) / len(totals) for part in parts]
        variances = [plain.fitted_variance(*part) for part in parts]
        deviations = _deviations(_weighted(shares, variances))
        for number, (part, variance) in enumerate(zip(parts, variances, strict=True)):
            own = deviations if batches is None else _deviations(variance, deviations, len(part[1]))
            scales[number] = replace(scales[number], deviations=own)
        n_components = min(n_components, counts.shape[0] - 1, counts.shape[1])
        # Of a large matrix, six digits are computed.
        precision = np.float32 if _by_iteration(min(counts.shape), n_components) else np.float64
        values = [scale.values(*part, precision) for scale, part in zip(scales, parts, strict=True)]
        projections = {}
        for name in track(NORMALIZATIONS, len(NORMALIZATIONS)):
            means = [batch[name].mean() for batch in values]
            centered = Values.stack([batch.pop(name).center(mean) for batch, mean in zip(values, means, strict=True)])
            projections[name] = components_of_values(_weighted(shares, means), centered, n_components)
        return cls(target, fractions, deviations, clip, projections)

    def fitted_variance(self, counts: sp.csr_array, totals: np.ndarray) -> np.ndarray:
        """Variance ``(G,)`` of genes after proportional fitting of the logarithms of counts ``(n, G)``."""
        fitted, n = self.fitted_above_zero(counts, totals, np.float64), len(totals)
        first, second = (np.bincount(counts.indices, x, minlength=counts.shape[1]) / n for x in (fitted, fitted**2))
        return np.maximum(second - first**2, 0)

    def adaptation(self, counts: sp.csr_array, totals: np.ndarray) -> State:
        """Fractions and deviations of the genes in a batch with counts ``(n, G)``, shrunk towards the values of all cells."""
        deviations = _deviations(self.fitted_variance(counts, totals), self.deviations, len(totals))
        return {"fractions": self.batch_fractions(counts, totals), "deviations": deviations}

    def batch_fractions(self, counts: sp.csr_array, totals: np.ndarray) -> np.ndarray:
        """Fraction ``(G,)`` of the counts of a batch that each gene has, shrunk towards that of all cells."""
        prior = PRIOR_CELLS * totals.mean()
        return (counts.sum(axis=0).astype(np.float64) + prior * self.fractions) / (totals.sum() + prior)

    def transform(self, counts: sp.csr_array, totals: np.ndarray) -> np.ndarray:
        """Project counts ``(n, G)`` to features ``(n, d)``, float32.

        Most counts are zero, and the normalised value of a zero depends only on the gene and the total of its cell. So the
        features are the features of a cell without counts, plus the contribution of the counts above zero.
        """
        features = self._at_zero(totals)
        loadings = {
            name: torch.from_numpy((projection.loadings * projection.scale).astype(np.float32))
            for name, projection in self.projections.items()
        }
        for rows in entry_slices(counts.indptr):
            part = row_slice(counts, rows)
            for name, values in self.above_zero(part, totals[rows]).items():
                moved = to_torch(sp.csr_array((values, part.indices, part.indptr), part.shape)) @ loadings[name]
                features[rows, self.parts[name]] += moved.numpy()
        return features.astype(np.float32)

    def _at_zero(self, totals: np.ndarray) -> np.ndarray:
        """Features ``(n, d)`` of cells with totals ``(n,)`` and no counts of the genes kept."""

        def project(totals: np.ndarray) -> np.ndarray:
            normalized = self.normalize(np.zeros((len(totals), len(self.fractions))), totals)
            return np.concatenate([projection(normalized[name]) for name, projection in self.projections.items()], 1)

        if not self.smooth:
            return project(totals)
        weights, knots = interpolation(totals)
        return weights @ project(knots)

    @property
    def parts(self) -> dict[str, slice]:
        """Columns of the features of each normalisation."""
        numbers = [projection.loadings.shape[1] for projection in self.projections.values()]
        return dict(zip(self.projections, column_slices(numbers), strict=True))

    @property
    def n_features(self) -> int:
        """Number of features of a cell."""
        return sum(projection.loadings.shape[1] for projection in self.projections.values())

    @property
    def gene_features(self) -> np.ndarray:
        r"""Gene features ``(G, d)``, float32: :math:`X^\top U_d` of the centred log-normalised counts ``X``.

        Each row is scaled to the norm :math:`\sqrt d`, so that genes are compared by their profile, as in the gene graph, and
        not by their abundance.
        """
        log = self.projections[LOG]
        features = normalize(log.loadings * log.singular_values)
        return (features * np.sqrt(features.shape[1])).astype(np.float32)


def _weighted(weights: Sequence[float], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Weighted mean of arrays."""
    return np.sum([weight * array for weight, array in zip(weights, arrays, strict=True)], axis=0)


def _deviations(variance: np.ndarray, prior: np.ndarray | None = None, n_cells: int = 0) -> np.ndarray:
    """Standard deviations ``(G,)`` of genes, 1 for constant genes, shrunk towards a prior if there is one."""
    if prior is not None:
        variance = (n_cells * variance + PRIOR_CELLS * prior**2) / (n_cells + PRIOR_CELLS)
    deviations = np.sqrt(variance)
    return np.where(deviations > 1e-6, deviations, 1.0)


def principal_components(mean: np.ndarray, covariance: np.ndarray, n_components: int) -> Projection:
    """Principal components from the mean ``(G,)`` and the covariance ``(G, G)`` of the genes."""
    return _projection(mean, *leading_eigenvectors(covariance, n_components))


def components_of_values(mean: np.ndarray, centered: Values, n_components: int) -> Projection:
    """Principal components of a normalisation, of which ``mean`` ``(G,)`` was removed.

    They are eigenvectors of the covariance of the genes, or of the products of the cells, whichever is smaller, or are found
    without either, from products of the sparse values with vectors, if these are expected to take less time.
    """
    n, n_genes = centered.above.shape
    side, other = min(n, n_genes), max(n, n_genes)
    iterated = _by_iteration(side, n_components)
    if iterated and side**2 * (other + 2_500) > COST_OF_ENTRY * centered.above.nnz:
        centered = centered.astype(np.float64)
        by_vector = LinearOperator(
            (n_genes, n_genes), lambda x: centered.transposed_product(centered @ x) / n, dtype=np.float64
        )
        return _projection(mean, *leading_eigenvectors(by_vector, n_components))
    products, values = np.zeros((side, side)), centered.astype(np.float32) if iterated else centered
    step = max(1, PRODUCT_ENTRIES // side)
    for start in range(0, other, step):
        part = slice(start, start + step)
        block = values.block(part).T if n_genes <= n else values.block(columns=part)
        products += block @ block.T
    variances, vectors = leading_eigenvectors(products / n, n_components)
    if n_genes > n:
        vectors = centered.transposed_product(vectors)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=0), 1e-300)
    return _projection(mean, variances, vectors)


def leading_eigenvectors(matrix: np.ndarray | LinearOperator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues ``(number,)`` and eigenvectors ``(m, number)`` of a symmetric matrix ``(m, m)``, largest first.

    All are computed directly if the matrix is small, and by the Lanczos method otherwise, to about six digits.
    """
    size = matrix.shape[0]
    if isinstance(matrix, np.ndarray) and not _by_iteration(size, number):
        values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[size - number, size - 1])
    else:
        start, operator = np.random.default_rng(0).standard_normal(size), matrix
        if isinstance(matrix, np.ndarray):
            # Products in single precision suffice for six digits, and take half of the time.
            single = matrix.astype(np.float32)
            operator = LinearOperator(matrix.shape, lambda x: single @ x.astype(np.float32), dtype=np.float64)
        values, vectors = eigsh(operator, number, v0=start, tol=1e-5)
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[:, order]


def _by_iteration(size: int, number: int) -> bool:
    """Whether the Lanczos method is expected to find eigenvectors of a matrix ``(size, size)`` faster than a direct solver."""
    return size >= MIN_LANCZOS and number <= size // 8


def _projection(mean: np.ndarray, variances: np.ndarray, loadings: np.ndarray) -> Projection:
    """The components that vary, with signs that do not depend on the solver."""
    kept = variances > max(1e-10 * variances[0], 1e-20)  # none if a normalisation is the same for all cells
    variances, loadings = variances[kept], loadings[:, kept]
    loadings = loadings * np.sign(loadings[np.abs(loadings).argmax(0), np.arange(loadings.shape[1])])
    return Projection(mean, loadings, np.sqrt(variances), float(1 / np.sqrt(variances.sum())) if kept.any() else 1.0)
