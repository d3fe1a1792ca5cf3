"""The kinds of modalities: RNA, proteins, open chromatin, and embeddings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize

from scrcl.data.sources import EMBEDDING, Source
from scrcl.genes.associations import log_expression
from scrcl.graph.mutual_neighbors import sample_of_each
from scrcl.utils.checks import check_cells_have_counts
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.sizes import BLOCK_CELLS, SAMPLE_CELLS, sample_cells
from scrcl.utils.words import counted

from .features import PRIOR_CELLS, CountFeatures, Moments, principal_components, variable_genes
from .modality import Adaptation, Modality
from .normalizations import LOG, NORMALIZATIONS, PEARSON, SIGNED_LOG, STANDARDIZED, Projection

#: Normalisations for the neighbour search, for joining micro-clusters, and for domains in space.
STABILIZED, LINKAGE, DOMAINS = (STANDARDIZED, SIGNED_LOG), (LOG, PEARSON, STANDARDIZED), (LOG, STANDARDIZED)
#: Counts per cell to which the fractions of peaks are scaled before the logarithm.
PEAK_SCALE = 1e4
#: Maximum number of peaks for latent semantic indexing; those open in most cells are used.
MAX_PEAKS = 50_000


@dataclass(frozen=True)
class Rna(Modality):
    """Counts of RNA: see :class:`~scrcl.reference.features.CountFeatures`."""

    kind = "rna"
    counts: CountFeatures

    @classmethod
    def fit(cls, source: Source, n_variables: int, n_components: int, batches: np.ndarray | None = None) -> Self:
        """Choose ``n_variables`` genes and find their components, on a sample of cells."""
        data = source.counts
        assert data is not None  # RNA is counted
        sample = sample_cells(data.n_cells) if batches is None else sample_of_each(batches, SAMPLE_CELLS)
        sampled, sample_batches = data.packed(sample), None if batches is None else batches[sample]
        codes = np.zeros(len(sample), dtype=np.int64) if sample_batches is None else sample_batches
        moments, totals = Moments.by_batch(sampled, codes), np.empty(len(sample))
        for number, batch_moments in enumerate(moments):
            totals[codes == number] = batch_moments.totals
        check_cells_have_counts(totals, data.where)
        columns = variable_genes(sampled, moments, n_variables, sample_batches)
        counts = CountFeatures.fit(sampled.select(columns).read(), totals, n_components, sample_batches)
        return cls(source.names.copy(), columns, counts)

    @classmethod
    def most_features(cls, n_columns: int, n_components: int) -> int:
        return len(NORMALIZATIONS) * min(n_columns, n_components)

    @property
    def needed(self) -> np.ndarray:
        return self.columns

    @property
    def n_features(self) -> int:
        return self.counts.n_features

    @property
    def gene_features(self) -> np.ndarray:
        return self.counts.gene_features

    def transform(self, counts: sp.csr_array, totals: np.ndarray) -> np.ndarray:
        return self.counts.transform(counts, totals)

    def log_counts(self, source: Source, rows: np.ndarray | None = None) -> np.ndarray:
        totals = np.concatenate([block.totals for block in source.blocks(self.names, self.needed[:1], rows)])
        return np.log(totals / self.counts.target)

    def adaptation(self, source: Source, rows: np.ndarray) -> Adaptation:
        """Fractions and deviations of the genes."""
        return self.counts.adaptation(*self._read(source, rows))

    def adapted(self, adaptation: Adaptation) -> Self:
        return replace(self, counts=replace(self.counts, **adaptation))

    def _logarithms(self, counts: sp.csr_array, totals: np.ndarray, names: pd.Index) -> sp.csr_array:
        return log_expression(counts, totals, self.counts.target)

    def normalize(self, counts: sp.csr_array, totals: np.ndarray) -> sp.csr_array:
        return log_expression(counts, totals, self.counts.target)

    def neighbor_features(self, features: np.ndarray) -> np.ndarray:
        selected = self.signal_features(features)
        for start in range(0, len(selected), BLOCK_CELLS):
            block = selected[start : start + BLOCK_CELLS]
            block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
        return selected

    def linkage_features(self, features: np.ndarray) -> list[np.ndarray]:
        return [features[:, part] for name, part in self.counts.parts.items() if name in LINKAGE]

    def domain_features(self, features: np.ndarray) -> list[np.ndarray]:
        return [features[:, self.counts.parts[name]] for name in DOMAINS]

    def structure_features(self, features: np.ndarray) -> list[np.ndarray]:
        return [features[:, part] for part in self.counts.parts.values()]

    def linear_features(self, features: np.ndarray) -> np.ndarray:
        return features[:, self.counts.parts[LOG]]

    def signal_features(self, features: np.ndarray) -> np.ndarray:
        return np.concatenate([features[:, self.counts.parts[name]] for name in STABILIZED], 1)


@dataclass(frozen=True)
class Protein(Modality):
    r"""Counts of antibody-derived tags.

    Centred log-ratios across cells: :math:`\log(1 + x_{ip} / g_p)` with
    :math:`\log g_p = \frac1n \sum_i \log(1 + x_{ip})`, so each protein is compared with its own geometric mean over the
    cells, as with ``margin = 2`` in Seurat (Stoeckius et al., Nature Methods 2017). Proteins are standardised and, if
    there are more than components, reduced to principal components.

    Attributes
    ----------
    centers
        ``(R,)`` geometric mean :math:`g_p` of each protein.
    deviations
        ``(R,)`` standard deviation of its log-ratio.
    projection
        The standardised log-ratios, or their components, from the log-ratios divided by their deviations.
    """

    kind = "protein"
    centers: np.ndarray
    deviations: np.ndarray
    projection: Projection

    @classmethod
    def fit(cls, source: Source, n_variables: int, n_components: int, batches: np.ndarray | None = None) -> Self:
        """Fit the log-ratios; all proteins are kept."""
        assert source.counts is not None  # proteins are counted
        counts, names = source.counts.read(), source.names.copy()
        centers = np.exp(counts.log1p().mean(axis=0, dtype=np.float64))
        ratios = _log_ratios(counts, centers).toarray()
        deviations = ratios.std(0)
        deviations = np.where(deviations > 1e-6, deviations, 1.0)
        ratios /= deviations
        mean, spread = ratios.mean(0), ratios.std(0)
        varying = spread > 1e-6
        if varying.sum() > n_components:
            projection = principal_components(mean, np.cov(ratios.T, bias=True), min(n_components, len(ratios) - 1))
        else:
            scale = float(1 / np.sqrt(max(1, varying.sum())))
            projection = Projection(mean, np.eye(len(names))[:, varying], spread[varying], scale)
        return cls(names, np.arange(len(names)), centers, deviations, projection)

    @property
    def n_features(self) -> int:
        return self.projection.loadings.shape[1]

    def adaptation(self, source: Source, rows: np.ndarray) -> Adaptation:
        """Centres and deviations of the proteins."""
        counts, _ = self._read(source, rows)
        n, all_centers = counts.shape[0], np.log(self.centers)
        logs = n * counts.log1p().mean(axis=0, dtype=np.float64) + PRIOR_CELLS * all_centers
        centers = np.exp(logs / (n + PRIOR_CELLS))
        variance = n * _log_ratios(counts, centers).toarray().var(0) + PRIOR_CELLS * self.deviations**2
        return {"centers": centers, "deviations": np.sqrt(variance / (n + PRIOR_CELLS))}

    def transform(self, counts: sp.csr_array, totals: np.ndarray) -> np.ndarray:
        return self.projection(self.normalize(counts, totals).toarray() / self.deviations).astype(np.float32)

    def _logarithms(self, counts: sp.csr_array, totals: np.ndarray, names: pd.Index) -> sp.csr_array:
        column = self.names.get_indexer(names)
        # A protein that is new to the model is compared with one count.
        return _log_ratios(counts, np.where(column < 0, 1.0, self.centers[column]))

    def normalize(self, counts: sp.csr_array, totals: np.ndarray) -> sp.csr_array:
        return _log_ratios(counts, self.centers)


@dataclass(frozen=True)
class Atac(Modality):
    r"""Counts of fragments in peaks of open chromatin.

    Term frequency and inverse document frequency, :math:`\log(1 + 10^4\, x_{ip} / t_i \cdot n / n_p)` with the total
    :math:`t_i` of the cell and the number :math:`n_p` of cells in which the peak is open (Stuart et al., Nature Methods
    2021), and latent semantic indexing: the leading singular vectors, without the first. As no value is negative, all
    entries of the first have one sign: it measures the sequencing depth of a cell.

    Attributes
    ----------
    peaks
        Numbers of the ``P`` columns that are read.
    frequencies
        ``(P,)`` inverse document frequency.
    loadings
        ``(P, d)`` right singular vectors from the second on.
    offset
        ``(d,)`` mean score.
    scale
        Factor applied to the scores.
    """

    kind = "atac"
    peaks: np.ndarray
    frequencies: np.ndarray
    loadings: np.ndarray
    offset: np.ndarray
    scale: float

    @classmethod
    def fit(cls, source: Source, n_variables: int, n_components: int, batches: np.ndarray | None = None) -> Self:
        """Fit the index; the variables are the peaks whose variance its components explain best."""
        data = source.counts
        assert data is not None  # fragments are counted
        counts, names = data.read(sample_cells(data.n_cells)), source.names.copy()
        n = counts.shape[0]
        n_open = np.bincount(counts.indices, minlength=counts.shape[1])
        most_open = np.argsort(-n_open, kind="stable")[:MAX_PEAKS]
        peaks = np.sort(most_open[n_open[most_open] > 0])
        frequencies = n / n_open[peaks]
        values = _term_frequencies(counts[:, peaks], counts.sum(axis=1, dtype=np.float64), frequencies)
        if len(peaks) < 3:
            raise ScrclValueError(
                f"{data.where} has {counted(len(peaks), 'peak that is', 'peaks that are')} open in a cell, but at least 3 are required.",
                "Pass counts of more peaks.",
                where=data.where,
            )
        n_components = min(n_components + 1, min(values.shape) - 1)
        svd = TruncatedSVD(n_components, algorithm="arpack", random_state=0).fit(sp.csr_matrix(values))
        order = np.argsort(-svd.singular_values_, kind="stable")[1:]
        loadings = svd.components_[order].T
        loadings = loadings * np.sign(loadings[np.abs(loadings).argmax(0), np.arange(loadings.shape[1])])
        scores = values @ loadings
        offset = scores.mean(0)
        spread = float(np.sqrt(((scores - offset) ** 2).sum(1).mean()))
        if spread < 1e-6:  # all cells are equal
            loadings, scores, offset = loadings[:, :0], scores[:, :0], offset[:0]
        scale = 1 / max(spread, 1e-6)
        explained = ((loadings * scores.std(0)) ** 2).sum(1)
        columns = np.sort(peaks[np.argsort(-explained, kind="stable")[:n_variables]])
        return cls(names, columns, peaks, frequencies, loadings, offset, scale)

    @property
    def needed(self) -> np.ndarray:
        return self.peaks

    @property
    def n_features(self) -> int:
        return self.loadings.shape[1]

    def transform(self, counts: sp.csr_array, totals: np.ndarray) -> np.ndarray:
        values = _term_frequencies(counts, totals, self.frequencies)
        return ((values @ self.loadings - self.offset) * self.scale).astype(np.float32)

    def normalize(self, counts: sp.csr_array, totals: np.ndarray) -> sp.csr_array:
        chosen = np.searchsorted(self.peaks, self.columns)
        return _term_frequencies(counts[:, chosen], totals, self.frequencies[chosen])


@dataclass(frozen=True)
class Embedding(Modality):
    """An embedding that the user passes, centred and scaled by one number.

    Attributes
    ----------
    center, scale
        Shift ``(d,)`` and factor.
    cosine
        Whether the neighbour search uses the cosine distance, and not the Euclidean one.
    genes
        The counts beside the embedding, whose genes are then the variables; ``None`` without counts.
    """

    kind = EMBEDDING
    center: np.ndarray
    scale: float
    cosine: bool = True
    genes: Rna | None = None

    @classmethod
    def fit(cls, source: Source, n_variables: int, n_components: int, batches: np.ndarray | None = None) -> Self:
        """Fit the scale; all features are kept."""
        assert source.embedding is not None  # embeddings have one
        center = source.embedding.mean(0)
        scale = 1 / float(np.sqrt(((source.embedding - center) ** 2).sum(1).mean()))
        if source.counts is None:
            names = source.names.copy()
            return cls(names, np.arange(len(names)), center, scale)
        genes = Rna.fit(source, n_variables, n_components, batches)
        return cls(genes.names, genes.columns, center, scale, cosine=False, genes=genes)

    @classmethod
    def most_features(cls, n_columns: int, n_components: int) -> int:
        return n_columns

    @property
    def counted(self) -> bool:
        return self.genes is not None

    @property
    def n_features(self) -> int:
        return len(self.center)

    @property
    def gene_features(self) -> np.ndarray | None:
        return None if self.genes is None else self.genes.gene_features

    def features(
        self,
        source: Source,
        rows: np.ndarray | None = None,
        batches: np.ndarray | None = None,
        adaptations: Sequence[Adaptation] = (),
    ) -> np.ndarray:
        return (source.features(len(self.center), rows) - self.center) * self.scale

    def expression(self, source: Source, rows: np.ndarray | None = None) -> sp.csr_array:
        if self.genes is not None:
            return self.genes.expression(source, rows)
        return sp.csr_array((source.features(len(self.center), rows) - self.center).astype(np.float64))

    def logarithms(self, source: Source, rows: np.ndarray) -> Iterator[tuple[slice, sp.csr_array]]:
        assert self.genes is not None  # only counted modalities have logarithms
        return self.genes.logarithms(source, rows)

    def neighbor_features(self, features: np.ndarray) -> np.ndarray:
        return normalize(features) if self.cosine else features


#: The kinds by their names in `setup_mudata`.
KINDS: dict[str, type[Rna] | type[Protein] | type[Atac] | type[Embedding]] = {
    kind.kind: kind for kind in (Rna, Protein, Atac, Embedding)
}


def fit_modality(
    name: str, source: Source, n_variables: int, n_components: int, batches: np.ndarray | None = None
) -> Modality:
    """Fit the modality of the kind of a source, as :meth:`Modality.fit`; refuse features that are the same for all cells."""
    modality: Modality = KINDS[source.kind].fit(source, n_variables, n_components, batches)
    if modality.n_features == 0:
        raise ScrclValueError(f"The modality {name!r} is the same for all cells.", "Leave it out.")
    return modality


def _log_ratios(counts: sp.csr_array, centers: np.ndarray) -> sp.csr_array:
    """``log1p`` of counts divided by the geometric mean of their column, float64."""
    return sp.csr_array(counts.astype(np.float64) @ sp.diags_array(1 / centers)).log1p()


def _term_frequencies(counts: sp.csr_array, totals: np.ndarray, frequencies: np.ndarray) -> sp.csr_array:
    """``log1p`` of scaled term frequency times inverse document frequency, float64."""
    scaled = sp.diags_array(PEAK_SCALE / totals) @ counts.astype(np.float64) @ sp.diags_array(frequencies)
    return sp.csr_array(scaled).log1p()
