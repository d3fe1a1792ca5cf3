"""Multinomial logistic regression by scikit-learn, as plain arrays."""

import warnings
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

#: Inverse strength of the penalty, for points whose mean squared length is 1, and most iterations of the optimiser.
INVERSE_PENALTY, MAX_ITERATIONS = 30.0, 200
#: Power of the mean probability of a type in its share if very few cells are labelled, and iterations that find the shares.
#: Power 1 is expectation maximisation, in which rare types may vanish; power 0 gives all types the same share.
SHARE_POWER, SHARE_ITERATIONS = 0.3, 20


@dataclass(frozen=True)
class Logistic:
    """Probabilities of types from a linear function of points.

    Attributes
    ----------
    coefficients
        ``(d, C)``.
    intercepts
        ``(C,)``; minus infinity for a type without points.
    shares
        ``(C,)`` share of each type that the probabilities assume.
    """

    coefficients: np.ndarray
    intercepts: np.ndarray
    shares: np.ndarray

    @classmethod
    def fit(cls, points: np.ndarray, codes: np.ndarray, n_types: int, power: float = 0.0) -> Self:
        """Fit points ``(n, d)`` with types ``(n,)``, numbered from 0 to ``n_types - 1``; some types may have no point.

        The weight of a type is this power of the number of its points: with 0 all types count the same, with 1 all points.
        """
        present, type_of_point = np.unique(codes, return_inverse=True)
        intercepts = np.full(n_types, -np.inf)
        coefficients = np.zeros((points.shape[1], n_types))
        sizes, shares = np.bincount(type_of_point).astype(float), np.zeros(n_types)
        shares[present] = sizes**power / (sizes**power).sum()
        if len(present) == 1:
            intercepts[present] = 0.0
            return cls(coefficients, intercepts, shares)
        weights = (shares[present] / sizes)[type_of_point] * len(codes)
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=MAX_ITERATIONS, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(points, type_of_point, sample_weight=weights)
        weight, bias = model.coef_.T, model.intercept_
        if len(present) == 2:  # scikit-learn keeps only the function of the second type
            weight, bias = np.hstack([-weight / 2, weight / 2]), np.array([-bias[0] / 2, bias[0] / 2])
        coefficients[:, present], intercepts[present] = weight, bias
        return cls(coefficients, intercepts, shares)

    def adapted(self, points: np.ndarray, power: float = SHARE_POWER) -> Self:
        """Adapt the shares of the types to points ``(n, d)`` (Saerens et al., Neural Computation 2002)."""
        possible = self.shares > 0
        relative, adapted = self(points)[:, possible] / self.shares[possible], self.shares[possible]
        for _ in range(SHARE_ITERATIONS):
            weighted = relative * adapted
            adapted = (weighted / weighted.sum(1, keepdims=True)).mean(0) ** power
            adapted /= adapted.sum()
        shares, intercepts = self.shares.copy(), self.intercepts.copy()
        intercepts[possible] += np.log(adapted / shares[possible])
        shares[possible] = adapted
        return replace(self, intercepts=intercepts, shares=shares)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Probabilities ``(m, C)`` of points ``(m, d)``; rows sum to 1."""
        return softmax(points @ self.coefficients + self.intercepts, axis=1)
