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
#: Power of the mean probability of a type in its share, and steps by which shares are found. Power 1 is expectation
#: maximisation, by which rare types vanish; 0 leaves all types as frequent as each other.
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
    """

    coefficients: np.ndarray
    intercepts: np.ndarray

    @classmethod
    def fit(cls, points: np.ndarray, codes: np.ndarray, n_types: int, weights: np.ndarray | None = None) -> Self:
        """Fit points ``(n, d)`` whose types ``(n,)`` are known, from 0; all types count the same.

        Parameters
        ----------
        points, codes
            Points and types.
        n_types
            Number of types ``C``, some of which may have no point.
        weights
            ``(n,)`` weights of points within their type; the same for all by default.
        """
        there, own = np.unique(codes, return_inverse=True)
        intercepts = np.full(n_types, -np.inf)
        coefficients = np.zeros((points.shape[1], n_types))
        if len(there) == 1:
            intercepts[there] = 0.0
            return cls(coefficients, intercepts)
        weights = np.ones(len(codes)) if weights is None else weights
        balanced = weights / np.bincount(own, weights)[own] * len(codes) / len(there)
        model = LogisticRegression(C=STRENGTH, max_iter=MAX_STEPS, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(points, own, sample_weight=balanced)
        weight, bias = model.coef_.T, model.intercept_
        if len(there) == 2:  # scikit-learn keeps one function, of the second
            weight, bias = np.hstack([-weight / 2, weight / 2]), np.array([-bias[0] / 2, bias[0] / 2])
        coefficients[:, there], intercepts[there] = weight, bias
        return cls(coefficients, intercepts)

    def adapted(self, points: np.ndarray) -> Self:
        """The same for types as frequent as they are among points ``(n, d)``: Saerens et al., Neural Computation 2002."""
        even = self(points)
        shares = np.ones(even.shape[1])
        for _ in range(SHARE_STEPS):
            found = even * shares
            found /= found.sum(1, keepdims=True)
            shares = found.mean(0) ** SHARE_POWER
        with np.errstate(divide="ignore"):  # a type that cannot be has no share
            return replace(self, intercepts=self.intercepts + np.log(shares / shares.max()))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Probabilities ``(m, C)`` of points ``(m, d)``; rows sum to 1."""
        return softmax(points @ self.coefficients + self.intercepts, axis=1)
