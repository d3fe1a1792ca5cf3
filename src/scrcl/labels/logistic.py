"""Multinomial logistic regression, by scikit-learn, kept as plain arrays."""

import warnings
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

#: Inverse strength of the penalty, for points whose mean squared length is 1, and steps of the optimiser.
STRENGTH, MAX_STEPS = 30.0, 200
#: Power of the mean probability of a type in its share where hardly any cell is labelled, and steps by which shares are found.
#: Power 1 is expectation maximisation, by which rare types may vanish; 0 leaves all types as frequent as each other.
SHARE_POWER, SHARE_STEPS = 0.3, 20


@dataclass(frozen=True)
class Logistic:
    """Probabilities of types by a linear function of points.

    Attributes
    ----------
    coefficients
        ``(d, C)``.
    intercepts
        ``(C,)``; minus infinity for a type of which no point was known.
    shares
        ``(C,)`` shares of the types that the probabilities are for.
    """

    coefficients: np.ndarray
    intercepts: np.ndarray
    shares: np.ndarray

    @classmethod
    def fit(cls, points: np.ndarray, codes: np.ndarray, n_types: int, power: float = 0.0) -> Self:
        """Fit points ``(n, d)`` whose types ``(n,)`` are known, from 0.

        Parameters
        ----------
        points, codes
            Points and types.
        n_types
            Number of types ``C``, some of which may have no point.
        power
            A type counts as much as this power of the number of its points: 0, and all count the same; 1, and each point does.
        """
        there, own = np.unique(codes, return_inverse=True)
        intercepts = np.full(n_types, -np.inf)
        coefficients = np.zeros((points.shape[1], n_types))
        sizes, shares = np.bincount(own).astype(float), np.zeros(n_types)
        shares[there] = sizes**power / (sizes**power).sum()
        if len(there) == 1:
            intercepts[there] = 0.0
            return cls(coefficients, intercepts, shares)
        weights = (shares[there] / sizes)[own] * len(codes)
        model = LogisticRegression(C=STRENGTH, max_iter=MAX_STEPS, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(points, own, sample_weight=weights)
        weight, bias = model.coef_.T, model.intercept_
        if len(there) == 2:  # scikit-learn keeps one function, of the second
            weight, bias = np.hstack([-weight / 2, weight / 2]), np.array([-bias[0] / 2, bias[0] / 2])
        coefficients[:, there], intercepts[there] = weight, bias
        return cls(coefficients, intercepts, shares)

    def adapted(self, points: np.ndarray, power: float = SHARE_POWER) -> Self:
        """The same for types as frequent as they are among points ``(n, d)``: Saerens et al., Neural Computation 2002."""
        possible = self.shares > 0
        relative, found = self(points)[:, possible] / self.shares[possible], self.shares[possible]
        for _ in range(SHARE_STEPS):
            now = relative * found
            found = (now / now.sum(1, keepdims=True)).mean(0) ** power
            found /= found.sum()
        shares, intercepts = self.shares.copy(), self.intercepts.copy()
        intercepts[possible] += np.log(found / shares[possible])
        shares[possible] = found
        return replace(self, intercepts=intercepts, shares=shares)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Probabilities ``(m, C)`` of points ``(m, d)``; rows sum to 1."""
        return softmax(points @ self.coefficients + self.intercepts, axis=1)
