r"""Sets of types that contain the true one with a given probability, over plain arrays.

Notation: ``n`` cells, ``K`` types.
"""

from dataclasses import dataclass

import numpy as np

from scrcl.cluster.components import Components

from .cell_labels import NO_LABEL
from .logistic import Logistic


@dataclass(frozen=True)
class Calibration:
    """Probabilities of labelled cells that were held out, by which types of other cells are admitted.

    Attributes
    ----------
    fold
        ``(n,)`` fold in which a labelled cell is held out, -1 for other cells.
    codes
        ``(n,)`` number of its type.
    probability
        ``(n,)`` probability of its type by the labels of the other folds.
    """

    fold: np.ndarray
    codes: np.ndarray
    probability: np.ndarray

    def pvalues(self, by_fold: np.ndarray, alpha: float) -> np.ndarray:
        r"""P-values ``(m, K)`` of the hypotheses that a cell is of each type, of cross-conformal prediction.

        .. math:: p_c(x) = \frac{1 + \sum_f \left|\{i \in f : y_i = c,\ q_f(i, c) \le q_f(x, c)\}\right|}{n_c + 1}

        with the probability :math:`q_f` of a type by the labels that are not in fold :math:`f`, and the number :math:`n_c` of
        held-out cells of the type (Vovk, Annals of Mathematics and Artificial Intelligence 2015; class by class as in Vovk et al.,
        Algorithmic Learning in a Random World, 2005). A type of so few cells that no p-value can be as small as ``alpha`` is
        compared with the held-out cells of all types; one without held-out cells, too.

        Parameters
        ----------
        by_fold
            ``(F, m, K)`` probabilities of cells by the labels that are not in each fold.
        alpha
            Level below which types are refused.
        """
        n_folds, m, n_types = by_fold.shape
        held_out = self.fold >= 0
        sizes = np.bincount(self.codes[held_out], minlength=n_types)
        few = (sizes + 1) * alpha < 1
        counts = np.zeros((m, n_types))
        for number in range(n_folds):
            in_fold = self.fold == number
            every = np.sort(self.probability[in_fold])
            for kind in range(n_types):
                own = every if few[kind] else np.sort(self.probability[in_fold & (self.codes == kind)])
                counts[:, kind] += np.searchsorted(own, by_fold[number, :, kind], side="right")
        return (1 + counts) / (1 + np.where(few, held_out.sum(), sizes))


@dataclass(frozen=True)
class TypeSets:
    """Sets of types of cells, by features that no label influenced.

    Attributes
    ----------
    components
        Components of the features.
    classifiers
        A classifier for each fold, learned from the labels of the other folds.
    calibration
        Held-out probabilities.
    n_labelled
        Number of types with labels; further ones are new.
    """

    components: Components
    classifiers: tuple[Logistic, ...]
    calibration: Calibration
    n_labelled: int

    def __call__(self, features: np.ndarray, alpha: float) -> np.ndarray:
        """Whether each type is in the set of a cell ``(m, K)`` with features ``(m, d)``.

        Of cells that are exchangeable with the labelled ones of their type, a share ``1 - alpha`` has sets with their type.
        """
        points = self.components(features)
        by_fold = np.stack([classifier(points) for classifier in self.classifiers])
        return prediction_sets(self.calibration.pvalues(by_fold, alpha), by_fold.mean(0), self.n_labelled, alpha)


def prediction_sets(pvalues: np.ndarray, probabilities: np.ndarray, n_labelled: int, alpha: float) -> np.ndarray:
    """Whether each type ``(m, K)`` is in the set of a cell: its p-value is above ``alpha``.

    Types from ``n_labelled`` on are new. No label shows how they vary, so each is in the set of the cells of which it is the most
    probable type.
    """
    sets = pvalues > alpha
    best = probabilities.argmax(1)
    sets[:, n_labelled:] = np.arange(n_labelled, pvalues.shape[1]) == best[:, None]
    return sets


def calibrate(held_out: np.ndarray, codes: np.ndarray, fold: np.ndarray) -> Calibration:
    """The calibration of held-out probabilities ``(n, K)`` of cells with types ``(n,)`` and folds ``(n,)``."""
    rows = (codes != NO_LABEL) & (fold >= 0)
    probability = np.zeros(len(codes))
    probability[rows] = held_out[rows, codes[rows]]
    return Calibration(np.where(rows, fold, -1), np.where(rows, codes, 0), probability)
