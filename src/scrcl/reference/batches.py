"""Effects of batches, and their correction in the features.

Three corrections, each with parameters of one batch that apply to all of its cells alike:

- *Scale.* The reference values of the normalisations (a gene's share of all counts, its standard deviation, its mean over the
  cells) are computed within the batch.
- *Position.* The features of a batch are shifted. Its mean would not do, as it also differs where batches contain other cell
  types; instead, mutual nearest neighbours of two batches are brought together, and these and the shifts are found in turn.
  The rest, which differs between cell types, is corrected for each cell; see :mod:`scrcl.reference.mnn_correction`.
- *Edges.* The cell graph joins batches at mutual neighbours only; see :mod:`scrcl.graph.mutual_neighbors`.

A condition, such as a treatment, is protected: mutual neighbours are of the same condition, and a shift is that of a whole batch, so
that no correction is estimated from differences between conditions.

Notation: ``n`` cells, ``B`` batches, ``d_m`` features of modality ``m``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scrcl.data.sources import Source
from scrcl.graph.mutual_neighbors import (
    ALIGNED_CELLS,
    OFFSET_ROUNDS,
    batch_offsets,
    mixing,
    mutual_neighbors,
    sample_of_each,
    separation,
)
from scrcl.utils.errors import ScrclValueError

from .mnn_correction import MAX_ANCHORS, N_MUTUAL_NEIGHBORS, CorrectionVectors, fit_correction_vectors
from .modality import Adaptation, Modality
from .modality_kinds import fit_modality

#: Minimum number of cells of a batch.
MIN_BATCH_CELLS = 10
#: Separation of a batch, before any correction, above which its effect is corrected.
MAX_SEPARATION = 1.05
#: Number of cells by which effects are evaluated, and by which a batch of query data is learned.
MAX_EVALUATED_CELLS = 5_000
#: Maximum number of batches, so that at least two cells of each are evaluated.
MAX_BATCHES = MAX_EVALUATED_CELLS // 2
#: A whole number written with decimals.
WHOLE = re.compile(r"^(-?\d+)\.0+$")


@dataclass(frozen=True)
class Conditions:
    """The conditions of the cells of a reference, whose effects are not corrected.

    Attributes
    ----------
    names
        Their names.
    codes
        ``(n,)`` number of the condition of each cell.
    mixing
        For each modality, mixing of the cells of each condition with the others before any correction.
    """

    names: tuple[str, ...]
    codes: np.ndarray
    mixing: dict[str, np.ndarray]

    def codes_of(self, names: np.ndarray) -> np.ndarray:
        """Numbers ``(m,)`` of conditions by name; -1 for unknown ones."""
        return pd.Index(self.names).get_indexer(pd.Index(names))


@dataclass(frozen=True)
class Batches:
    """The batches of a reference, and the correction of each.

    Attributes
    ----------
    names
        Names of the batches; those learned from query data come last.
    codes
        ``(n,)`` number of the batch of each cell of the reference.
    mixing
        For each modality, mixing of the cells of each batch of the reference with the others before any correction: 0 for
        none, 1 for that of random batches.
    separation
        For each modality, distance of the cells of each batch of the reference from their mutual neighbours in others relative
        to that among themselves, before any correction.
    adaptations
        Parameters of each batch for each modality whose effect is corrected.
    shifts
        ``(B, d_m)`` vectors that are subtracted from the features, for the same modalities.
    corrections
        Moves of the cells of each batch afterwards, for the same modalities.
    conditions
        The conditions that are protected, if there are any.
    """

    names: tuple[str, ...]
    codes: np.ndarray
    mixing: dict[str, np.ndarray]
    separation: dict[str, np.ndarray]
    adaptations: dict[str, list[Adaptation]]
    shifts: dict[str, np.ndarray]
    corrections: dict[str, list[CorrectionVectors]]
    conditions: Conditions | None = None

    @property
    def corrected(self) -> bool:
        """Whether an effect between cells of the reference is corrected in any modality."""
        return bool(self.corrected_modalities)

    @property
    def corrected_modalities(self) -> list[str]:
        """The modalities in which an effect between cells of the reference is corrected."""
        return [name for name, shifts in self.shifts.items() if shifts[: self.n_reference].any()]

    @property
    def n_reference(self) -> int:
        """Number of batches in the reference, without those learned from query data."""
        return int(self.codes.max()) + 1

    @classmethod
    def fit(
        cls,
        names: np.ndarray,
        sources: Mapping[str, Source],
        n_variables: int,
        n_components: int,
        n_neighbors: int,
        conditions: np.ndarray | None = None,
    ) -> tuple[Self, dict[str, Modality], list[np.ndarray]]:
        """Fit modalities to the variation within batches, and correct effects of batches.

        A modality without such an effect is fitted as without batches. ``names`` ``(n,)`` are the batches of the cells; see
        :meth:`Modality.fit` for ``n_variables`` and ``n_components``. Mixing is evaluated among ``n_neighbors`` neighbours. Names
        of ``conditions`` ``(n,)`` are protected.

        Returns the batches, the modalities, and the features ``(n, d_m)`` of each.
        """
        unique, codes = np.unique(names, return_inverse=True)
        evaluated = sample_of_each(codes, MAX_EVALUATED_CELLS)
        members = [np.flatnonzero(codes == number) for number in range(len(unique))]
        samples = [rows[sample_of_each(codes[rows], MAX_EVALUATED_CELLS)] for rows in members]
        anchors = sample_of_each(codes, min(ALIGNED_CELLS * len(unique), MAX_ANCHORS))
        batches = cls(tuple(unique.tolist()), codes, {}, {}, {}, {}, {})
        kept = None
        if conditions is not None:
            condition_names, kept = np.unique(conditions, return_inverse=True)
            batches = replace(batches, conditions=Conditions(tuple(condition_names.tolist()), kept, {}))
        modalities: dict[str, Modality] = {}
        features = []
        for name, source in sources.items():
            modality = fit_modality(name, source, n_variables, n_components, codes)
            before = modality.neighbor_features(modality.features(source, evaluated))
            sample_codes = codes[evaluated]
            batches.mixing[name] = mean_mixing(before, sample_codes, len(unique), n_neighbors)
            if batches.conditions is not None:
                known, of_sample = batches.conditions, batches.conditions.codes[evaluated]
                known.mixing[name] = mean_mixing(before, of_sample, len(known.names), n_neighbors)
            batches.separation[name] = separation(before, sample_codes, N_MUTUAL_NEIGHBORS, _at(kept, evaluated))
            if batches.separation[name].max() <= MAX_SEPARATION:
                modality = fit_modality(name, source, n_variables, n_components)
                corrected = modality.features(source)
            else:
                batches.adaptations[name] = [modality.adaptation(source, rows) for rows in samples]
                corrected = modality.features(source, None, codes, batches.adaptations[name])
                shifts = batches.shifts[name] = find_shifts(corrected, codes, modality, kept)
                shifted = corrected[anchors] - shifts[codes[anchors]]
                batches.corrections[name] = fit_correction_vectors(
                    shifted, codes[anchors], modality, conditions=_at(kept, anchors)
                )
                batches._move(modality, name, corrected, codes)
            modalities[name] = modality
            features.append(corrected)
        return batches, modalities, features

    def features(
        self, modality: Modality, name: str, source: Source, rows: np.ndarray | None, codes: np.ndarray
    ) -> np.ndarray:
        """Corrected features ``(m, d_m)`` of cells of a source, which are in batches ``codes`` ``(m,)``."""
        if name not in self.shifts:
            return modality.features(source, rows)
        features = modality.features(source, rows, codes, self.adaptations[name])
        self._move(modality, name, features, codes)
        return features

    def _move(self, modality: Modality, name: str, features: np.ndarray, codes: np.ndarray) -> None:
        """Shift and move cells with features ``(m, d_m)`` of batches ``codes``, in place."""
        for number in np.unique(codes):
            rows = np.flatnonzero(codes == number)
            shifted = features[rows] - self.shifts[name][number]
            features[rows] = self.corrections[name][number](shifted, modality)

    def codes_of(self, names: np.ndarray) -> np.ndarray:
        """Numbers ``(m,)`` of batches by name; -1 for unknown ones. "1.0" is "1" if only one of them is known."""
        present = pd.Index(self.names)
        codes = present.get_indexer(pd.Index(names))
        # A number that was read as text may have kept its ".0".
        numbers = present.str.replace(WHOLE, r"\1", regex=True)
        if (codes < 0).any() and numbers.is_unique:
            codes = np.where(
                codes < 0, numbers.get_indexer(pd.Index(names).str.replace(WHOLE, r"\1", regex=True)), codes
            )
        return codes

    def learn(
        self,
        names: np.ndarray,
        wanted: Sequence[str],
        modalities: Mapping[str, Modality],
        sources: Mapping[str, Source],
        reference: Sequence[np.ndarray],
        conditions: np.ndarray | None = None,
    ) -> Self:
        """Add the batches ``wanted``, each learned from all of its cells in some sources and from no other query cells.

        ``names`` and ``conditions`` ``(m,)`` are the batches and conditions of the cells of the sources, ``reference`` the corrected features
        ``(n, d_m)`` of the reference. A batch without an effect is not corrected if the reference is not corrected either; one of
        too few cells, or of no condition of the reference, is refused.
        """
        check_sizes(names[np.isin(names, wanted)], "adata")
        of_cells = None
        if self.conditions is not None and conditions is not None:
            of_cells = self.conditions.codes_of(conditions)
            _check_known(names, conditions, wanted, self.conditions)
        batches = self
        for batch in wanted:
            rows = np.flatnonzero(names == batch)
            rows = rows[sample_of_each(np.zeros(len(rows), dtype=np.int64), MAX_EVALUATED_CELLS)]
            batches = replace(
                batches,
                names=(*batches.names, batch),
                adaptations=dict(batches.adaptations),
                shifts=dict(batches.shifts),
                corrections=dict(batches.corrections),
            )
            for (name, modality), features in zip(modalities.items(), reference, strict=True):
                batches._learn(name, modality, sources[name], rows, features, of_cells)
        return batches

    def _learn(
        self,
        name: str,
        modality: Modality,
        source: Source,
        rows: np.ndarray,
        reference: np.ndarray,
        conditions: np.ndarray | None,
    ) -> None:
        """Add the correction of a modality of the last batch, whose cells are some rows of a source.

        ``conditions`` ``(m,)`` are the numbers of the conditions of all cells of the source, if conditions are protected.
        """
        n_before = len(self.names) - 1
        sample = sample_of_each(np.zeros(len(reference), dtype=np.int64), MAX_EVALUATED_CELLS)
        sampled, of_both = reference[sample], None
        if conditions is not None and self.conditions is not None:
            of_both = np.concatenate([self.conditions.codes[sample], conditions[rows]])
        no_shift = np.zeros((1, modality.n_features), dtype=np.float32)
        no_move = CorrectionVectors.of_nothing(modality.n_features)
        adaptation, shift, correction = Adaptation(), no_shift, no_move
        features = modality.features(source, rows)
        both = modality.neighbor_features(np.concatenate([sampled, features]))
        apart = separation(both, _two_batches(sampled, features), N_MUTUAL_NEIGHBORS, of_both)[1]
        if name in self.corrected_modalities or apart > MAX_SEPARATION:
            adaptation = modality.adaptation(source, rows)
            features = modality.adapted(adaptation).features(source, rows)
            shift, correction = _place_beside(sampled, features, modality, of_both)
        elif name not in self.shifts:
            return
        self.adaptations[name] = [*self.adaptations.get(name, [Adaptation()] * n_before), adaptation]
        self.shifts[name] = np.vstack([self.shifts.get(name, np.repeat(no_shift, n_before, 0)), shift])
        self.corrections[name] = [*self.corrections.get(name, [no_move] * n_before), correction]


def check_sizes(names: np.ndarray, where: str) -> None:
    """Refuse batches ``(m,)`` of cells that have fewer than 10 cells."""
    unique, sizes = np.unique(names, return_counts=True)
    small = [f"{name!r} ({size})" for name, size in zip(unique.tolist(), sizes, strict=True) if size < MIN_BATCH_CELLS]
    if small:
        raise ScrclValueError(
            f"{where} has batches of fewer than {MIN_BATCH_CELLS} cells: {', '.join(small[:5])}{', …' if len(small) > 5 else ''}.",
            "Pass all cells of the batch, name the batch that these were processed with, or leave them out.",
            where=where,
        )


def _check_known(names: np.ndarray, conditions: np.ndarray, wanted: Sequence[str], known: Conditions) -> None:
    """Refuse batches ``wanted`` none of whose cells, of batches and conditions ``(m,)``, is of a known condition."""
    for batch in wanted:
        own = np.unique(conditions[names == batch]).tolist()
        if not set(own) & set(known.names):
            raise ScrclValueError(
                f"The new batch {batch!r} has only cells of the condition {own[0]!r}, which the model does not have, so that an effect of "
                "the batch cannot be distinguished from one of the condition.",
                f"Pass cells of the batch of a known condition ({', '.join(map(repr, known.names[:5]))}), too, or train a model that "
                "includes these cells.",
            )


def mean_mixing(points: np.ndarray, codes: np.ndarray, number: int, n_neighbors: int) -> np.ndarray:
    """Mean mixing of the cells, points ``(n, d)``, of each of a number of batches or conditions ``(n,)``; 0 without cells."""
    sizes = np.bincount(codes, minlength=number)
    return np.bincount(codes, mixing(points, codes, n_neighbors), minlength=number) / np.maximum(sizes, 1)


def _at(codes: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """Numbers of some cells, if there are numbers."""
    return None if codes is None else codes[rows]


def find_shifts(
    features: np.ndarray, batches: np.ndarray, modality: Modality, conditions: np.ndarray | None = None
) -> np.ndarray:
    """Shifts of batches that bring mutual neighbours together, with a mean of 0 over all cells.

    From features ``(n, d)``, in which the modality defines distances, and batches ``(n,)``, numbered from 0. Returns ``(B,
    d)`` vectors to subtract from the features of each batch, float32. Neighbours are of the same of the ``conditions`` ``(n,)``, if there
    are any.
    """
    sizes = np.bincount(batches)
    members = sp.csr_array((np.ones(len(batches)), (batches, np.arange(len(batches)))))
    means = (members @ features.astype(np.float64)) / sizes[:, None]
    shifts = np.zeros_like(means)
    sample = sample_of_each(batches, ALIGNED_CELLS * len(sizes))
    points, codes = features[sample], batches[sample]
    for _ in range(OFFSET_ROUNDS):
        shifted = points - shifts[codes].astype(np.float32)
        near = mutual_neighbors(modality.neighbor_features(shifted), codes, N_MUTUAL_NEIGHBORS, _at(conditions, sample))
        mnn_pairs = sp.triu(near).tocoo()
        # A cell counts once, however many mutual neighbours it has.
        n_pairs = np.bincount(np.concatenate(mnn_pairs.coords), minlength=len(sample))
        first, second = mnn_pairs.coords
        weights = 1 / np.maximum(n_pairs[first], n_pairs[second])
        differences = shifted[first].astype(np.float64) - shifted[second]
        shifts += batch_offsets(differences, np.stack([codes[first], codes[second]], 1), len(sizes), weights)
    return (shifts + sizes @ (means - shifts) / len(batches)).astype(np.float32)


def _place_beside(
    reference: np.ndarray, features: np.ndarray, modality: Modality, conditions: np.ndarray | None
) -> tuple[np.ndarray, CorrectionVectors]:
    """Shift and moves of a batch with features ``(m, d)`` that bring it to a reference ``(n, d)``, which stays."""
    codes = _two_batches(reference, features)
    shifts = find_shifts(np.concatenate([reference, features]), codes, modality, conditions)
    shift = shifts[1] - shifts[0]
    moved = np.concatenate([reference, features - shift])
    return shift, fit_correction_vectors(moved, codes, modality, fixed=0, conditions=conditions)[1]


def _two_batches(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Numbers of the batches of the cells of two arrays, one after the other."""
    return np.repeat([0, 1], [len(first), len(second)])
