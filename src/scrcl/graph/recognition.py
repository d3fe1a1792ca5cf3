"""Cells that are found again: by name and content, or by content alone."""

from functools import cached_property

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

#: How far the features of one cell may be apart when they are computed twice, relative to their length. Rounding differs
#: with the number of cells projected at once; two profiles differ by far more.
SAME_FEATURES = 1e-4
#: Random directions by which cells are looked up. Each is over all features, so that it does not matter which of them vary.
DIRECTIONS = 8
#: Cells projected at once.
CHUNK = 2**16


class Recognition:
    """Find cells again by all of their features.

    Parameters
    ----------
    features
        ``(n, d)`` features of the known cells.
    names
        ``(n,)`` their names, if they are known.
    """

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
        for start in range(0, len(features), CHUNK):
            points[start : start + CHUNK] = features[start : start + CHUNK].astype(np.float64) @ directions
        return points


def same_features(features: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether features ``(m, d)`` and ``(m, d)`` are the same up to rounding, row by row."""
    tolerance = SAME_FEATURES * np.maximum(np.linalg.norm(features, axis=1), 1e-3)
    return np.linalg.norm(features - known, axis=1) <= tolerance


def named_rows(known: pd.Index | None, names: pd.Index) -> np.ndarray:
    """Rows ``(m,)`` of cells by name among known ones, -1 for others. Where a name occurs again, so does the cell."""
    if known is None:
        return np.full(len(names), -1)
    return _numbered(known).get_indexer(_numbered(names))


def _numbered(names: pd.Index) -> pd.Index:
    """Names as text that are unique: one that occurs again is numbered."""
    names = names.astype(str)
    if names.is_unique:
        return names
    again = pd.Series(names).groupby(names.to_numpy(), sort=False).cumcount().to_numpy()
    return pd.Index([f"{name}\n{number}" if number else name for name, number in zip(names, again, strict=True)])
