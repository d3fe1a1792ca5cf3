"""Recognition of known cells by name and features, or by features alone."""

from functools import cached_property

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

#: Largest distance between the features of one cell that are computed twice, relative to their length. Rounding depends on
#: the number of cells projected at once; different profiles differ by far more.
SAME_FEATURES = 1e-4
#: Number of random directions of the search tree. Each combines all features, whichever of them vary.
DIRECTIONS = 8
#: Cells projected at once.
PROJECTED_CELLS = 2**16


class Recognition:
    """Find known cells by all of their features ``(n, d)``, and by their names ``(n,)``, if these are not ``None``."""

    def __init__(self, features: np.ndarray, names: pd.Index | None) -> None:
        self._features, self._names = features, names

    def __call__(self, features: np.ndarray, names: pd.Index) -> np.ndarray:
        """Rows ``(m,)`` among the known cells of cells with features ``(m, d)`` and ``names``, -1 for others."""
        rows = named_rows(self._names, names)
        named = np.flatnonzero(rows >= 0)
        rows[named[~same_features(features[named], self._features[rows[named]])]] = -1
        others = np.flatnonzero(rows < 0)
        if len(others):
            rows[others] = self._search(features[others])
        return rows

    def _search(self, features: np.ndarray) -> np.ndarray:
        nearest = self._tree.query(self._project(features))[1]
        return np.where(same_features(features, self._features[nearest]), nearest, -1)

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self._project(self._features))

    def _project(self, features: np.ndarray) -> np.ndarray:
        directions = np.random.default_rng(0).normal(size=(features.shape[1], DIRECTIONS))
        points = np.empty((len(features), DIRECTIONS))
        for start in range(0, len(features), PROJECTED_CELLS):
            points[start : start + PROJECTED_CELLS] = (
                features[start : start + PROJECTED_CELLS].astype(np.float64) @ directions
            )
        return points


def same_features(features: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether features ``(m, d)`` and ``(m, d)`` are equal up to rounding, row by row."""
    tolerance = SAME_FEATURES * np.maximum(np.linalg.norm(features, axis=1), 1e-3)
    return np.linalg.norm(features - known, axis=1) <= tolerance


def named_rows(known: pd.Index | None, names: pd.Index) -> np.ndarray:
    """Rows ``(m,)`` of cells by name among known ones, -1 for others. Repeated names are matched in their order."""
    if known is None:
        return np.full(len(names), -1)
    return _numbered(known).get_indexer(_numbered(names))


def _numbered(names: pd.Index) -> pd.Index:
    """Unique names as text: repetitions are numbered."""
    names = names.astype(str)
    if names.is_unique:
        return names
    repetition = pd.Series(names).groupby(names.to_numpy(), sort=False).cumcount().to_numpy()
    return pd.Index([f"{name}\n{number}" if number else name for name, number in zip(names, repetition, strict=True)])
