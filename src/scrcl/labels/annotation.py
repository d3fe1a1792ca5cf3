"""Types of all cells, learned from the labels of a few, over plain arrays.

Types are predicted from points that labels may have influenced. Labels are checked, new types found, and probabilities
calibrated by features that no label influenced: where labels drew their own cells together, a label would confirm itself.
"""

from dataclasses import dataclass

import numpy as np

from scrcl.cluster.components import Components

from .calibration import find_temperature, folds, tempered
from .cell_labels import NO_LABEL, Labels
from .conformal import TypeSets, calibrate
from .logistic import SHARE_POWER, Logistic
from .novelty import find_new

#: Folds of the labelled cells, held out in turn.
N_FOLDS = 5
#: A label is not learned from if its held-out cell is this many times as probable under another type.
MAX_ODDS_AGAINST_LABEL = 10.0
#: Principal components of the points and of the features.
LABEL_COMPONENTS = 50


@dataclass(frozen=True)
class Annotation:
    """Types of cells, learned from labels.

    Attributes
    ----------
    labels
        The labels that were passed.
    names
        Names of the ``K`` types: the ``C`` labelled ones, and new ones.
    components, classifier, temperature
        The steps that predict the type of a point.
    probabilities
        ``(n, K)`` of all cells; rows sum to 1.
    held_out
        ``(n, K)`` of labelled cells, by their features and the labels of the other folds; NaN for cells without a label,
        and for the only cell of a type.
    sets
        Sets of types that features admit.
    """

    labels: Labels
    names: tuple[str, ...]
    components: Components
    classifier: Logistic
    temperature: float
    probabilities: np.ndarray
    held_out: np.ndarray
    sets: TypeSets

    def assign(self, points: np.ndarray) -> np.ndarray:
        """Probabilities ``(m, K)`` of new points ``(m, d)``; rows sum to 1."""
        return tempered(self.classifier(self.components(points)), self.temperature)


def annotate(
    points: np.ndarray, features: np.ndarray, labels: Labels, seed: int = 0, batches: np.ndarray | None = None
) -> Annotation:
    """Learn types from labels of some of ``n`` cells, and find types that no label names.

    Types are predicted from ``points`` ``(n, d)``, float32, which labels may have influenced; labels are checked by
    ``features`` ``(n, d')``, float32, which no label influenced. ``batches`` ``(n,)`` are numbers; a single batch by default.
    The seed is that of the folds and of the division of new cells into types.
    """
    components, codes, n_labels = Components.fit(points, LABEL_COMPONENTS), labels.codes, len(labels.names)
    reduced, of_features = components(points), Components.fit(features, LABEL_COMPONENTS)
    unseen = of_features(features)
    nearest_type = _learn(unseen, codes, n_labels)[1].argmax(1)
    new = find_new(unseen, codes, nearest_type, seed, batches)
    names = (*labels.names, *_new_names(int(new.max()) + 1, labels.names))
    types = np.where(new < 0, codes, n_labels + new)
    held_out, fold, classifiers = _hold_out(unseen, codes, types, len(names), seed)
    sets = TypeSets(of_features, classifiers, calibrate(held_out, codes, fold), n_labels)
    rows = np.flatnonzero(~np.isnan(held_out[:, 0]))
    # A labelled cell counts for all cells of its type.
    sizes = np.bincount(np.where(types != NO_LABEL, types, nearest_type), minlength=len(names))
    weights = sizes[codes[rows]] / np.bincount(codes[rows], minlength=len(names))[codes[rows]]
    temperature = find_temperature(held_out[rows], codes[rows], weights)
    # Before calibration, in which wrong labels make all probabilities even.
    contradicted = rows[held_out[rows].max(1) > MAX_ODDS_AGAINST_LABEL * held_out[rows, codes[rows]]]
    held_out[rows] = tempered(held_out[rows], temperature)
    trusted = types.copy()
    trusted[contradicted] = NO_LABEL
    lost = np.isin(types, np.setdiff1d(types, trusted))  # a type that would lose all of its labels keeps them
    classifier, probabilities = _learn(reduced, np.where(lost, types, trusted), len(names))
    return Annotation(
        labels,
        names,
        components,
        classifier,
        temperature,
        tempered(probabilities, temperature),
        held_out,
        sets,
    )


def _learn(points: np.ndarray, codes: np.ndarray, n_types: int) -> tuple[Logistic, np.ndarray]:
    """A classifier learned from the points that have a type, and the probabilities ``(n, n_types)`` of all points."""
    labelled = codes != NO_LABEL
    # A few labels do not show how frequent a type is; the labels of all cells do.
    share = labelled.mean()
    classifier = Logistic.fit(points[labelled], codes[labelled], n_types, share)
    classifier = classifier.adapted(points, SHARE_POWER + (1 - SHARE_POWER) * share)
    return classifier, classifier(points)


def _hold_out(
    points: np.ndarray, codes: np.ndarray, types: np.ndarray, n_types: int, seed: int
) -> tuple[np.ndarray, np.ndarray, tuple[Logistic, ...]]:
    """Probabilities ``(n, n_types)`` of labelled points without their own label, their folds, and a classifier for each fold.

    The new types are learned, too.
    """
    labelled = np.flatnonzero(codes != NO_LABEL)
    fold = np.full(len(codes), -1)
    fold[labelled] = folds(codes[labelled], N_FOLDS, seed)
    held_out = np.full((len(codes), n_types), np.nan)
    classifiers = []
    for number in np.unique(fold[fold >= 0]):
        rows = fold == number
        classifiers.append(_learn(points, np.where(rows, NO_LABEL, types), n_types)[0])
        held_out[rows] = classifiers[-1](points[rows])
        fold[rows] = len(classifiers) - 1
    return held_out, fold, tuple(classifiers)


def _new_names(number: int, taken: tuple[str, ...]) -> list[str]:
    """Names of new types, "new 1" and so on, without those that a label has."""
    candidates = (f"new {i}" for i in range(1, number + len(taken) + 1))
    return [name for name in candidates if name not in taken][:number]
