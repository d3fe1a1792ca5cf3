"""What every kind of modality is, and how cells of several batches are read in one pass."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from scrcl.data.sources import Source
from scrcl.genes.associations import log_expression
from scrcl.utils.checks import check_cells_have_counts

#: Counts a cell to which counts are scaled where the fit has not chosen a number.
TARGET = 1e4
#: Gives, of the cells in some rows, those of each batch, and the modality as it is for them.
ByBatch = Callable[[slice], Iterable[tuple["Modality", np.ndarray]]]


@dataclass(frozen=True)
class Modality:
    """What turns the data of one modality into features of cells.

    Attributes
    ----------
    names
        Names of all ``R`` columns of the data.
    columns
        Numbers of the ``V`` columns, in this order, that the refinement ties cells to.
    """

    kind: ClassVar[str]
    names: pd.Index
    columns: np.ndarray

    @property
    def variables(self) -> pd.Index:
        """Names of the ``V`` variables that the refinement ties cells to."""
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
        """Features ``(V, d_v)`` of the variables where the fit has found some, float32."""
        return None

    @classmethod
    def fit(cls, source: Source, n_variables: int, n_components: int, batches: np.ndarray | None = None) -> Self:
        """Fit to a source, choosing up to ``n_variables`` and finding up to ``n_components``.

        Where the ``(n,)`` batches of the cells are given, by what varies within them as far as the kind allows.
        """
        raise NotImplementedError

    @classmethod
    def most_features(cls, n_columns: int, n_components: int) -> int:
        """Upper bound of the number of features of data with so many columns, for as many components."""
        return min(n_columns, n_components)

    def features(self, source: Source, rows: np.ndarray | None = None, by_batch: ByBatch | None = None) -> np.ndarray:
        """Features ``(n, d)``, float32, of the cells of a source, or of some of them, increasing."""
        features = np.empty((source.n_cells if rows is None else len(rows), self.n_features), dtype=np.float32)
        for found, counts, totals in source.blocks(self.names, self.needed, rows):
            for modality, own in [(self, slice(None))] if by_batch is None else by_batch(found):
                features[found][own] = modality.transform(counts[own], totals[own])
        return features

    def log_counts(self, source: Source, rows: np.ndarray | None = None) -> np.ndarray | None:
        """Logarithm ``(n,)`` of the counts of cells relative to the median cell of the fit; ``None`` where that is not known."""
        return None

    def adaptation(self, source: Source, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What a batch, the cells of a source that are named, increasing, compares its values with; nothing by default."""
        return {}

    def adapted(self, adaptation: dict[str, np.ndarray]) -> Self:
        """The same for the cells of a batch."""
        return self

    def _read(self, source: Source, rows: np.ndarray) -> tuple[sp.csr_array, np.ndarray]:
        """Counts ``(n, P)`` and totals ``(n,)`` of cells."""
        blocks = list(source.blocks(self.names, self.needed, rows))
        counts = sp.csr_array(sp.vstack([block.counts for block in blocks], format="csr"))
        return counts, np.concatenate([block.totals for block in blocks])

    def expression(self, source: Source, rows: np.ndarray | None = None) -> sp.csr_array:
        """Normalised values ``(n, V)`` of the variables, in the same way."""
        blocks = source.blocks(self.names, self.needed, rows)
        return sp.csr_array(sp.vstack([self.normalize(counts, totals) for _, counts, totals in blocks], format="csr"))

    def logarithms(self, source: Source, rows: np.ndarray) -> Iterator[tuple[slice, sp.csr_array]]:
        """Logarithms of all counts of a source, kept or not, in blocks of cells, increasing; comparable between cells."""
        assert source.counts is not None  # what has none is not asked for them
        for found, block in source.counts.blocks(rows):
            totals = block.sum(axis=1, dtype=np.float64)
            check_cells_have_counts(totals, source.counts.where)
            yield found, self._logarithms(block, totals, source.names)

    def _logarithms(self, counts: sp.csr_array, totals: np.ndarray, names: pd.Index) -> sp.csr_array:
        """The same ``(n, R)`` of a block."""
        return log_expression(counts, totals, TARGET)

    def transform(self, counts: sp.csr_array, totals: np.ndarray) -> np.ndarray:
        """Features ``(n, d)``, float32, of counts ``(n, P)``; centred, and of unit mean norm where they were fitted."""
        raise NotImplementedError

    def normalize(self, counts: sp.csr_array, totals: np.ndarray) -> sp.csr_array:
        """Normalised values ``(n, V)`` of the variables, of counts ``(n, P)``."""
        raise NotImplementedError

    def neighbor_features(self, features: np.ndarray) -> np.ndarray:
        """That by which neighbours are found, ``(n, s)`` float32, rows of unit length."""
        return normalize(features)

    def linkage_features(self, features: np.ndarray) -> list[np.ndarray]:
        """Features ``(n, d_i)`` by which clusters are joined."""
        return [features]

    def structure_features(self, features: np.ndarray) -> list[np.ndarray]:
        """Features ``(n, d_i)`` by any of which structure is shown: no two columns of one are of the same values."""
        return [features]

    def linear_features(self, features: np.ndarray) -> np.ndarray:
        """Those features that are linear in the normalised values of the variables."""
        return features

    def signal_features(self, features: np.ndarray) -> np.ndarray:
        """Those features whose length tells how strong the signal of a cell is."""
        return features

    def to_dict(self) -> dict[str, Any]:
        """The parameters as plain numbers and arrays."""
        return {**asdict(self), "names": self.names.to_numpy(dtype=object), "kind": self.kind}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**state, "names": pd.Index(state["names"])})


def log_counts(
    modalities: Mapping[str, Modality], sources: Mapping[str, Source], rows: np.ndarray
) -> np.ndarray | None:
    """Logarithm ``(m,)`` of the counts of cells, in any order, relative to the median cell of the fit.

    Of the first modality that knows it; ``None`` if none does.
    """
    wanted, place = np.unique(rows, return_inverse=True)
    for name, modality in modalities.items():
        found = modality.log_counts(sources[name], wanted) if len(rows) else None
        if found is not None:
            return found[place]
    return None
