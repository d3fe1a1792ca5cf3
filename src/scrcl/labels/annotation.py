"""From a few labels to types of all cells, over plain arrays.

Types are predicted from points that labels may have had a part in. Labels are judged, new types are found and
probabilities are calibrated by features that no label had a part in: where labels pulled their own cells together, a
label would confirm itself.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from .calibration import find_temperature, folds, tempered
from .cell_labels import UNLABELED, Labels
from .logistic import SHARE_POWER, Logistic
from .novelty import find_new

#: Parts of the labelled cells that are held out in turn.
N_FOLDS = 5
#: How many times as probable as its label another type must be for the label not to be learnt from, by the labels of the others.
CONTRADICTED = 10.0
#: Principal components of the points that are read.
N_COMPONENTS = 50


@dataclass(frozen=True)
class Space:
    """The leading principal components of points, whose mean squared length is 1: so a penalty means the same whatever they are.

    Attributes
    ----------
    mean
        ``(d,)`` mean of the points.
    components
        ``(d, p)`` directions, all divided by the same length.
    """

    mean: np.ndarray
    components: np.ndarray

    @classmethod
    def fit(cls, points: np.ndarray) -> Self:
        """Learn it from points ``(n, d)``."""
        mean = points.mean(0, dtype=np.float64)
        squares, directions = np.linalg.eigh(
            (points.T @ points).astype(np.float64) / len(points) - np.outer(mean, mean)
        )
        squares, directions = squares[::-1][:N_COMPONENTS], directions[:, ::-1][:, :N_COMPONENTS]
        directions *= np.sign(directions[np.abs(directions).argmax(0), np.arange(directions.shape[1])])
        length = np.sqrt(max(squares.sum(), 1e-12))
        return cls(mean.astype(np.float32), (directions / length).astype(np.float32))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points ``(m, d)`` in the space, ``(m, p)``, float32."""
        return (points - self.mean) @ self.components


@dataclass(frozen=True)
class Annotation:
    """Types of cells, as learnt from labels.

    Attributes
    ----------
    labels
        The labels that were given.
    names
        Names of the ``K`` types: the ``C`` that were given, and new ones.
    space, classifier, temperature
        How the types of a point are found.
    probabilities
        ``(n, K)`` of all cells; rows sum to 1.
    held_out
        ``(n, K)`` of labelled cells, by their features and the labels of the other folds; NaN for cells without a label,
        and for the only cell of a type.
    """

    labels: Labels
    names: tuple[str, ...]
    space: Space
    classifier: Logistic
    temperature: float
    probabilities: np.ndarray
    held_out: np.ndarray

    def assign(self, points: np.ndarray) -> np.ndarray:
        """Probabilities ``(m, K)`` of further points ``(m, d)``; rows sum to 1."""
        return tempered(self.classifier(self.space(points)), self.temperature)


def annotate(
    points: np.ndarray, features: np.ndarray, labels: Labels, seed: int = 0, batches: np.ndarray | None = None
) -> Annotation:
    """Learn types from labels, and find types that no label names.

    Parameters
    ----------
    points
        ``(n, d)`` points of all cells, from which types are predicted; labels may have had a part in them.
    features
        ``(n, d')`` features of all cells that no label had a part in, by which labels are judged.
    labels
        Labels of some of the cells.
    seed
        Seed of the folds and of the division of new cells into types.
    batches
        ``(n,)`` number of the batch of each cell; all of one by default.
    """
    space, codes, n_given = Space.fit(points), labels.codes, len(labels.names)
    reduced, unseen = space(points), Space.fit(features)(features)
    nearest_type = _learn(unseen, codes, n_given)[1].argmax(1)
    new = find_new(unseen, codes, nearest_type, seed, batches)
    names = (*labels.names, *_new_names(int(new.max()) + 1, labels.names))
    known = np.where(new < 0, codes, n_given + new)
    held_out = _hold_out(unseen, codes, known, len(names), seed)
    rows = np.flatnonzero(~np.isnan(held_out[:, 0]))
    # A labelled cell stands for all cells of its type.
    sizes = np.bincount(np.where(known != UNLABELED, known, nearest_type), minlength=len(names))
    weights = sizes[codes[rows]] / np.bincount(codes[rows], minlength=len(names))[codes[rows]]
    temperature = find_temperature(held_out[rows], codes[rows], weights)
    # Judged before calibration, by which wrong labels make all probabilities even.
    contradicted = rows[held_out[rows].max(1) > CONTRADICTED * held_out[rows, codes[rows]]]
    held_out[rows] = tempered(held_out[rows], temperature)
    trusted = known.copy()
    trusted[contradicted] = UNLABELED
    lost = np.isin(known, np.setdiff1d(known, trusted))  # a type of which no label is trusted stays
    classifier, probabilities = _learn(reduced, np.where(lost, known, trusted), len(names))
    return Annotation(labels, names, space, classifier, temperature, tempered(probabilities, temperature), held_out)


def _learn(points: np.ndarray, codes: np.ndarray, n_types: int) -> tuple[Logistic, np.ndarray]:
    """A classifier learnt from the points of known types, and the probabilities ``(n, n_types)`` of all."""
    known = codes != UNLABELED
    # A few labels of each type tell nothing of how frequent it is; those of all cells do.
    share = known.mean()
    classifier = Logistic.fit(points[known], codes[known], n_types, share)
    classifier = classifier.adapted(points, SHARE_POWER + (1 - SHARE_POWER) * share)
    return classifier, classifier(points)


def _hold_out(points: np.ndarray, codes: np.ndarray, known: np.ndarray, n_types: int, seed: int) -> np.ndarray:
    """Probabilities ``(n, n_types)`` of labelled points without their own label; what is new counts as known."""
    labelled = np.flatnonzero(codes != UNLABELED)
    fold = np.full(len(codes), -1)
    fold[labelled] = folds(codes[labelled], N_FOLDS, seed)
    found = np.full((len(codes), n_types), np.nan)
    for number in range(N_FOLDS):
        held = fold == number
        if held.any():
            found[held] = _learn(points, np.where(held, UNLABELED, known), n_types)[0](points[held])
    return found


def _new_names(number: int, taken: tuple[str, ...]) -> list[str]:
    """Names of new types that no given one has: "new 1" and so on."""
    candidates = (f"new {i}" for i in range(1, number + len(taken) + 1))
    return [name for name in candidates if name not in taken][:number]
