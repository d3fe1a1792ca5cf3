"""The base class of modalities: from the data of one modality to features of cells, and several of them side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from scrcl.data.sources import Source
from scrcl.genes.associations import log_expression
from scrcl.utils.checks import check_cells_have_counts
from scrcl.utils.files import State

from .features import column_slices
from .spatial import SpatialReference

#: Counts per cell to which counts are scaled where the fit has not chosen a number.
TARGET = 1e4
#: Parameters of a modality, by name, that are estimated from the cells of one batch.
Adaptation: TypeAlias = State


@dataclass(frozen=True)
class Modality:
    """A fitted map from the data of one modality to features of cells.

    Attributes
    ----------
    names
        Names of all ``R`` columns of the data.
    columns
        Numbers of the ``V`` columns, in this order, that are variables of the refinement.
    """

    kind: ClassVar[str]
    names: pd.Index
    columns: np.ndarray

    @property
    def variables(self) -> pd.Index:
        """Names of the ``V`` variables of the refinement."""
        return self.names[self.columns]

    @property
    def counted(self) -> bool:
        """Whether the variables were counted, so that a cell can express one more or less."""
        return True

    @property
    def needed(self) -> np.ndarray:
        """Numbers of the ``P`` columns that features are computed from."""
        return np.arange(len(self.names))

    @property
    def n_features(self) -> int:
        """Number of features ``d`` of a cell."""
        raise NotImplementedError

    @property
    def gene_features(self) -> np.ndarray | None:
        """Features ``(V, d_v)`` of the variables, float32; ``None`` if the fit computes none."""
        return None

    @classmethod
    def fit(cls, source: Source, n_variables: int, n_components: int, batches: np.ndarray | None = None) -> Self:
        """Fit to a source, with up to ``n_variables`` variables and ``n_components`` components.

        With ``batches`` ``(n,)``, variables and components describe the variation within batches, as far as the kind allows.
        """
        raise NotImplementedError

    @classmethod
    def most_features(cls, n_columns: int, n_components: int) -> int:
        """Upper bound of the number of features of data with ``n_columns`` columns."""
        return min(n_columns, n_components)

    def features(
        self,
        source: Source,
        rows: np.ndarray | None = None,
        batches: np.ndarray | None = None,
        adaptations: Sequence[Adaptation] = (),
    ) -> np.ndarray:
        """Features ``(n, d)``, float32, of the cells of a source: of ``rows`` ``(n,)``, increasing, or of all.

        Where batches are normalised differently, ``batches`` ``(n,)`` are the numbers of the batches of these cells, from 0, and
        ``adaptations`` the parameters of each, from :meth:`adaptation`.
        """
        features = np.empty((source.n_cells if rows is None else len(rows), self.n_features), dtype=np.float32)
        by_batch = [self.adapted(adaptation) if adaptation else self for adaptation in adaptations]
        for positions, counts, totals in source.blocks(self.names, self.needed, rows):
            if batches is None:
                features[positions] = self.transform(counts, totals)
                continue
            for number in np.unique(batches[positions]):
                cells = np.flatnonzero(batches[positions] == number)
                features[positions][cells] = by_batch[number].transform(counts[cells], totals[cells])
        return features

    def log_counts(self, source: Source, rows: np.ndarray | None = None) -> np.ndarray | None:
        """Logarithm ``(n,)`` of the total counts of cells relative to the median cell of the fit; ``None`` if unknown."""
        return None

    def adaptation(self, source: Source, rows: np.ndarray) -> Adaptation:
        """The parameters that are specific to a batch, estimated from these cells of it, increasing; none by default."""
        return {}

    def adapted(self, adaptation: Adaptation) -> Self:
        """The modality with the parameters of a batch."""
        return replace(self, **adaptation)

    def _read(self, source: Source, rows: np.ndarray) -> tuple[sp.csr_array, np.ndarray]:
        """Counts ``(n, P)`` and totals ``(n,)`` of cells."""
        blocks = list(source.blocks(self.names, self.needed, rows))
        counts = sp.csr_array(sp.vstack([block.counts for block in blocks], format="csr"))
        return counts, np.concatenate([block.totals for block in blocks])

    def expression(self, source: Source, rows: np.ndarray | None = None) -> sp.csr_array:
        """Normalised values ``(n, V)`` of the variables of the same cells."""
        blocks = source.blocks(self.names, self.needed, rows)
        return sp.csr_array(sp.vstack([self.normalize(counts, totals) for _, counts, totals in blocks], format="csr"))

    def logarithms(self, source: Source, rows: np.ndarray) -> Iterator[tuple[slice, sp.csr_array]]:
        """Logarithms of all counts of a source, also of columns that are no variables, in blocks of cells, increasing.

        They are comparable between cells.
        """
        assert source.counts is not None  # only counted modalities have logarithms
        for positions, block in source.counts.blocks(rows):
            totals = block.sum(axis=1, dtype=np.float64)
            check_cells_have_counts(totals, source.counts.where)
            yield positions, self._logarithms(block, totals, source.names)

    def _logarithms(self, counts: sp.csr_array, totals: np.ndarray, names: pd.Index) -> sp.csr_array:
        """Logarithms ``(n, R)`` of a block of counts."""
        return log_expression(counts, totals, TARGET)

    def transform(self, counts: sp.csr_array, totals: np.ndarray) -> np.ndarray:
        """Features ``(n, d)``, float32, of counts ``(n, P)``; centred, and of unit mean norm where they were fitted."""
        raise NotImplementedError

    def normalize(self, counts: sp.csr_array, totals: np.ndarray) -> sp.csr_array:
        """Normalised values ``(n, V)`` of the variables, of counts ``(n, P)``."""
        raise NotImplementedError

    def neighbor_features(self, features: np.ndarray) -> np.ndarray:
        """Features ``(n, s)`` for the neighbour search, float32, rows of unit length."""
        return normalize(features)

    def linkage_features(self, features: np.ndarray) -> list[np.ndarray]:
        """Arrays of features ``(n, d_i)`` for joining micro-clusters."""
        return [features]

    def domain_features(self, features: np.ndarray) -> list[np.ndarray]:
        """Arrays of features ``(n, d_i)`` in each of which domains in space are found; some of the columns, in their order."""
        return [features]

    def structure_features(self, features: np.ndarray) -> list[np.ndarray]:
        """Arrays of features ``(n, d_i)`` for measuring structure; no array has two columns of the same values."""
        return [features]

    def linear_features(self, features: np.ndarray) -> np.ndarray:
        """The features that are linear in the normalised values of the variables."""
        return features

    def signal_features(self, features: np.ndarray) -> np.ndarray:
        """The features whose length measures the signal of a cell."""
        return features


def log_counts(
    modalities: Mapping[str, Modality], sources: Mapping[str, Source], rows: np.ndarray
) -> np.ndarray | None:
    """Logarithm ``(m,)`` of the total counts of cells, in any order, relative to the median cell of the fit.

    Taken from the first modality that has them; ``None`` if none has.
    """
    increasing, positions = np.unique(rows, return_inverse=True)
    for name, modality in modalities.items():
        logarithms = modality.log_counts(sources[name], increasing) if len(rows) else None
        if logarithms is not None:
            return logarithms[positions]
    return None


def n_inputs(modalities: Mapping[str, Modality], spatial: SpatialReference | None) -> list[int]:
    """Number of features of each modality that the model reads: in space, only those that vary there."""
    numbers = [modality.n_features for modality in modalities.values()]
    return numbers if spatial is None else [int(spatial.kept[part].sum()) for part in column_slices(numbers)]


def neighbor_features(
    modalities: Mapping[str, Modality], parts: Sequence[np.ndarray], spatial: SpatialReference | None
) -> list[np.ndarray]:
    """Features of each modality for the neighbour search, from its features ``(n, d_m)``."""
    if spatial is not None:
        return [normalize(part) for part in parts]
    return [modality.neighbor_features(part) for modality, part in zip(modalities.values(), parts, strict=True)]


def side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Features ``(n, d_m)`` of modalities in one array; no copy of a single one."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, 1)


def split_features(features: np.ndarray, numbers: Sequence[int]) -> list[np.ndarray]:
    """The inverse of :func:`side_by_side`, for modalities with these numbers of features."""
    return [features[:, part] for part in column_slices(numbers)]


def joint_names(variables: dict[str, pd.Index]) -> pd.Index:
    """One name for each variable of all modalities."""
    if len(variables) == 1:
        return next(iter(variables.values()))
    names: dict[str, None] = {}
    for modality, modality_names in variables.items():
        taken = set(names)
        names |= dict.fromkeys(f"{modality}:{name}" if name in taken else name for name in modality_names)
    return pd.Index(list(names))
