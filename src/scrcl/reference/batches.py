r"""What tells batches apart, and how it is taken out of the features.

Three things, each of one batch and no more than what a batch can do to all of its cells alike:

- *Scale.* Whatever a normalisation compares a gene with (its share of all counts, its standard deviation, its mean over
  the cells) is that of the batch.
- *Place.* The features of a batch are shifted. Not by its mean, which also differs where batches are made of other types,
  but so that counterparts, cells of two batches that are each other's nearest, lie together. Counterparts and shifts are
  found from each other. What is left, which differs from type to type, cells are moved by; see :mod:`scrcl.reference.mnn_correction`.
- *Ties.* The cell graph joins batches at counterparts only; see :mod:`scrcl.graph.mutual_neighbors`.

Notation: ``n`` cells, ``B`` batches, ``d_m`` features of modality ``m``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scrcl.data.sources import Source
from scrcl.graph.mutual_neighbors import (
    ALIGNED_CELLS,
    ROUNDS,
    batch_offsets,
    mixing,
    mutual_neighbors,
    sample_of_each,
    separation,
)
from scrcl.utils.errors import ScrclValueError

from .mnn_correction import ANCHORS, N_MUTUAL_NEIGHBORS, CorrectionVectors, Near, fit_correction_vectors
from .modalities import fit_modality
from .modality import ByBatch, Modality

#: Fewest cells of a batch by which it can be known.
MIN_BATCH_CELLS = 10
#: Separation of a batch before any correction above which there is an effect to be corrected.
APART = 1.05
#: Cells on which it is found, and cells of a batch of query data by which that is learnt.
MAX_EVALUATED_CELLS = 5_000
#: Batches of which at least two cells each are among these.
MAX_BATCHES = MAX_EVALUATED_CELLS // 2
#: What a whole number ends with where it is written as a real one.
WHOLE = re.compile(r"^(-?\d+)\.0+$")

#: What of a modality is adapted to a batch.
Adaptation = dict[str, np.ndarray]


@dataclass(frozen=True)
class Batches:
    """The batches of a reference, and what is taken out of each.

    Attributes
    ----------
    names
        Names of the batches; those learnt from query data come last.
    codes
        ``(n,)`` number of the batch of each cell of the reference.
    mixing
        For each modality ``(B,)``, how freely the cells of each batch mix with the others before any correction: 0 for not
        at all, 1 for as chance has it; NaN for batches learnt from query data.
    adaptations
        What of each modality is adapted to each batch, where an effect is corrected.
    shifts
        ``(B, d_m)`` what is taken from the features of each modality, where an effect is corrected.
    corrections
        How the cells of each batch then move, for the same modalities.
    """

    names: tuple[str, ...]
    codes: np.ndarray
    mixing: dict[str, np.ndarray]
    separation: dict[str, np.ndarray]
    adaptations: dict[str, list[Adaptation]]
    shifts: dict[str, np.ndarray]
    corrections: dict[str, list[CorrectionVectors]]

    @property
    def corrected(self) -> bool:
        """Whether there is an effect in the cells of the reference that is corrected, in any modality."""
        return bool(self.corrected_modalities)

    @property
    def corrected_modalities(self) -> list[str]:
        """In which there is."""
        return [name for name, shifts in self.shifts.items() if shifts[: self.n_reference].any()]

    @property
    def n_reference(self) -> int:
        """Number of batches of the cells of the reference."""
        return int(self.codes.max()) + 1

    @classmethod
    def fit(
        cls,
        names: np.ndarray,
        sources: Mapping[str, Source],
        n_variables: int,
        n_components: int,
        n_neighbors: int,
    ) -> tuple[Self, dict[str, Modality], list[np.ndarray]]:
        """Fit modalities to sources by what varies within batches, and take out what tells these apart.

        A modality in which batches do not lie apart is left as it is without batches.

        Parameters
        ----------
        names
            ``(n,)`` batch of each cell.
        sources
            The data of each modality by its name.
        n_variables, n_components
            As in :meth:`Modality.fit`.
        n_neighbors
            Neighbours by which mixing is judged.

        Returns
        -------
        The batches, the modalities, and the features ``(n, d_m)`` of each.
        """
        unique, codes = np.unique(names, return_inverse=True)
        evaluated = sample_of_each(codes, MAX_EVALUATED_CELLS)
        members = [np.flatnonzero(codes == number) for number in range(len(unique))]
        samples = [rows[sample_of_each(codes[rows], MAX_EVALUATED_CELLS)] for rows in members]
        anchors = sample_of_each(codes, min(ALIGNED_CELLS * len(unique), ANCHORS))
        batches = cls(tuple(unique.tolist()), codes, {}, {}, {}, {}, {})
        modalities: dict[str, Modality] = {}
        features = []
        for name, source in sources.items():
            modality = fit_modality(name, source, n_variables, n_components, codes)
            before = modality.neighbor_features(modality.features(source, evaluated))
            of = codes[evaluated]
            batches.mixing[name] = np.bincount(of, mixing(before, of, n_neighbors)) / np.bincount(of)
            batches.separation[name] = separation(before, of, N_MUTUAL_NEIGHBORS)
            if batches.separation[name].max() <= APART:
                modality = fit_modality(name, source, n_variables, n_components)
                found = modality.features(source)
            else:
                batches.adaptations[name] = [modality.adaptation(source, rows) for rows in samples]
                found = batches.adapted(modality, name, source, None, codes)
                shifts = batches.shifts[name] = find_shifts(found, codes, modality.neighbor_features)
                shifted, of = found[anchors] - shifts[codes[anchors]], codes[anchors]
                batches.corrections[name] = fit_correction_vectors(shifted, of, modality.neighbor_features)
                batches.move(modality, name, found, codes)
            modalities[name] = modality
            features.append(found)
        return batches, modalities, features

    def adapted(
        self, modality: Modality, name: str, source: Source, rows: np.ndarray | None, codes: np.ndarray
    ) -> np.ndarray:
        """Features ``(m, d_m)`` of cells of a source by what is adapted to their batches, not shifted yet."""
        each = [modality.adapted(adaptation) if adaptation else modality for adaptation in self.adaptations[name]]
        return modality.features(source, rows, _by_batch(each, codes))

    def features(
        self, modality: Modality, name: str, source: Source, rows: np.ndarray | None, codes: np.ndarray
    ) -> np.ndarray:
        """Features ``(m, d_m)`` of cells of a source with what tells their batches apart taken out."""
        if name not in self.shifts:
            return modality.features(source, rows)
        features = self.adapted(modality, name, source, rows, codes)
        self.move(modality, name, features, codes)
        return features

    def move(self, modality: Modality, name: str, features: np.ndarray, codes: np.ndarray) -> None:
        """Move cells with adapted features ``(m, d_m)`` of batches ``codes`` to where they come to lie, in place."""
        for number in np.unique(codes):
            rows = np.flatnonzero(codes == number)
            shifted = features[rows] - self.shifts[name][number]
            features[rows] = self.corrections[name][number](shifted, modality.neighbor_features)

    def codes_of(self, names: np.ndarray) -> np.ndarray:
        """Numbers ``(m,)`` of batches by name; -1 for those that are not known. "1.0" is "1" where only one of them is known."""
        known = pd.Index(self.names)
        codes = known.get_indexer(pd.Index(names))
        # A number that was read as text, or saved by an earlier version, may have kept its ".0".
        numbers = known.str.replace(WHOLE, r"\1", regex=True)
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
    ) -> Self:
        """The same with further batches, each learnt from all of its cells in some sources and from no other cells.

        Where the cells of the reference show no effect, neither need a further batch, and is then left as it is.

        Parameters
        ----------
        names
            ``(m,)`` batch of each cell of the sources.
        wanted
            The batches to learn.
        modalities, sources, reference
            The modalities, the sources, and the features ``(n, d_m)`` of the reference, corrected.

        Raises
        ------
        ValueError
            If a batch has too few cells to be known.
        """
        check_sizes(names[np.isin(names, wanted)], "adata")
        batches = self
        for batch in wanted:
            rows = np.flatnonzero(names == batch)
            rows = rows[sample_of_each(np.zeros(len(rows), dtype=np.int64), MAX_EVALUATED_CELLS)]
            batches = replace(
                batches,
                names=(*batches.names, batch),
                mixing={name: np.append(free, np.nan) for name, free in batches.mixing.items()},
                separation={name: np.append(apart, np.nan) for name, apart in batches.separation.items()},
                adaptations=dict(batches.adaptations),
                shifts=dict(batches.shifts),
                corrections=dict(batches.corrections),
            )
            for (name, modality), known in zip(modalities.items(), reference, strict=True):
                batches._learn(name, modality, sources[name], rows, known)
        return batches

    def _learn(self, name: str, modality: Modality, source: Source, rows: np.ndarray, reference: np.ndarray) -> None:
        """Add what is taken out of a modality of the last batch, whose cells are in some rows of a source."""
        near, before = modality.neighbor_features, len(self.names) - 1
        known = reference[sample_of_each(np.zeros(len(reference), dtype=np.int64), MAX_EVALUATED_CELLS)]
        nothing = np.zeros((1, modality.n_features), dtype=np.float32)
        stays = CorrectionVectors.of_nothing(modality.n_features)
        adaptation, shift, correction = Adaptation(), nothing, stays
        found = modality.features(source, rows)
        apart = separation(near(np.concatenate([known, found])), _one_and_other(known, found), N_MUTUAL_NEIGHBORS)[1]
        if name in self.corrected_modalities or apart > APART:
            adaptation = modality.adaptation(source, rows)
            found = modality.adapted(adaptation).features(source, rows)
            shift, correction = _place_beside(known, found, near)
        elif name not in self.shifts:
            return
        self.adaptations[name] = [*self.adaptations.get(name, [Adaptation()] * before), adaptation]
        self.shifts[name] = np.vstack([self.shifts.get(name, np.repeat(nothing, before, 0)), shift])
        self.corrections[name] = [*self.corrections.get(name, [stays] * before), correction]

    def to_dict(self) -> dict[str, Any]:
        """Plain arrays."""
        corrections = {name: [correction.to_dict() for correction in each] for name, each in self.corrections.items()}
        return {**vars(self), "names": list(self.names), "corrections": corrections}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        corrections = {
            name: [CorrectionVectors.from_dict(correction) for correction in each]
            for name, each in state["corrections"].items()
        }
        return cls(**{**state, "names": tuple(state["names"]), "corrections": corrections})


def _by_batch(each: Sequence[Modality], codes: np.ndarray) -> ByBatch:
    """The cells of each batch among those in some rows, whose batches are ``codes``, ``(m,)``."""

    def of(rows: slice) -> Iterator[tuple[Modality, np.ndarray]]:
        for number in np.unique(codes[rows]):
            yield each[number], np.flatnonzero(codes[rows] == number)

    return of


def check_sizes(names: np.ndarray, where: str) -> None:
    """Refuse batches ``(m,)`` of cells that have too few cells to be known.

    Raises
    ------
    ValueError
        If one has fewer than 10.
    """
    unique, sizes = np.unique(names, return_counts=True)
    small = [f"{name!r} ({size})" for name, size in zip(unique.tolist(), sizes, strict=True) if size < MIN_BATCH_CELLS]
    if small:
        raise ScrclValueError(
            f"{where} has batches of fewer than {MIN_BATCH_CELLS} cells: {', '.join(small[:5])}{', …' if len(small) > 5 else ''}.",
            "Pass all cells of the batch, name the batch that these were processed with, or leave them out.",
            where=where,
        )


def find_shifts(features: np.ndarray, batches: np.ndarray, near: Near) -> np.ndarray:
    """What to take from the features of each batch so that counterparts lie together and the mean of all cells is 0.

    Parameters
    ----------
    features
        ``(n, d)`` features.
    batches
        ``(n,)`` batch of each cell, numbered from 0.
    near
        Gives that by which neighbours are found, from features.

    Returns
    -------
    ``(B, d)``, float32.
    """
    sizes = np.bincount(batches)
    members = sp.csr_array((np.ones(len(batches)), (batches, np.arange(len(batches)))))
    means = (members @ features.astype(np.float64)) / sizes[:, None]
    shifts = np.zeros_like(means)
    sample = sample_of_each(batches, ALIGNED_CELLS * len(sizes))
    points, of = features[sample], batches[sample]
    for _ in range(ROUNDS):
        moved = points - shifts[of].astype(np.float32)
        mnn_pairs = sp.triu(mutual_neighbors(near(moved), of, N_MUTUAL_NEIGHBORS)).tocoo()
        # A cell counts once, however many counterparts it has.
        number = np.bincount(np.concatenate(mnn_pairs.coords), minlength=len(sample))
        first, second = mnn_pairs.coords
        weights = 1 / np.maximum(number[first], number[second])
        differences = moved[first].astype(np.float64) - moved[second]
        shifts += batch_offsets(differences, np.stack([of[first], of[second]], 1), len(sizes), weights)
    return (shifts + sizes @ (means - shifts) / len(batches)).astype(np.float32)


def _place_beside(reference: np.ndarray, features: np.ndarray, near: Near) -> tuple[np.ndarray, CorrectionVectors]:
    """What to take from the features ``(m, d)`` of a batch, and how its cells move, to lie with those ``(n, d)`` of a reference."""
    of = _one_and_other(reference, features)
    found = find_shifts(np.concatenate([reference, features]), of, near)
    shift = found[1] - found[0]
    return shift, fit_correction_vectors(np.concatenate([reference, features - shift]), of, near, fixed=0)[1]


def _one_and_other(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Batches of the cells of one and of another array, one after the other."""
    return np.repeat([0, 1], [len(one), len(other)])
