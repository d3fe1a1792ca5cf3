"""Principal components whose scale does not depend on that of the points."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from sklearn.decomposition import PCA


@dataclass(frozen=True)
class Components:
    """Leading principal components, scaled so that the mean squared length of the points is 1.

    Attributes
    ----------
    mean
        ``(d,)`` mean of the points.
    loadings
        ``(d, p)`` directions, all divided by the same length.
    """

    mean: np.ndarray
    loadings: np.ndarray

    @classmethod
    def fit(cls, points: np.ndarray, n_components: int) -> Self:
        """Find at most ``n_components`` of points ``(n, d)``, in their precision."""
        n = len(points)
        with np.errstate(invalid="ignore"):  # points that do not vary
            pca = PCA(min(n_components, *points.shape), svd_solver="covariance_eigh").fit(points)
        length = np.sqrt(max(pca.explained_variance_.sum() * (n - 1) / n, 1e-12))
        return cls(pca.mean_, (pca.components_.T / length).astype(pca.mean_.dtype))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Coordinates ``(m, p)`` of points ``(m, d)``."""
        return (points - self.mean) @ self.loadings
