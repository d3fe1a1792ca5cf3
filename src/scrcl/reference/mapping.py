"""How well new cells fit a reference, over plain arrays."""

import warnings
from dataclasses import dataclass
from typing import Self

import numpy as np
from scvi import settings
from statsmodels.nonparametric.smoothers_lowess import lowess

from scrcl.utils.checks import check_at_least
from scrcl.utils.errors import ScrclValueError, ScrclWarning
from scrcl.utils.words import counted

#: Minimum number of cells to compare distances between cells of similar signal, and not between all.
MIN_SCALE_CELLS = 50


@dataclass(frozen=True)
class DistanceScale:
    """Distribution of the distances of cells of a reference from their neighbours, by the strength of their signal.

    Cells with few counts are far from all others, because of noise; so a distance is compared with the distances of cells of similar
    signal.

    Attributes
    ----------
    signal
        ``(p,)`` logarithm of the signal, increasing.
    mean, deviation
        ``(p,)`` distance at that signal: its mean and its standard deviation.
    excess
        ``(n,)`` distances of the reference above the mean, in standard deviations, increasing.
    """

    signal: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    excess: np.ndarray

    @classmethod
    def fit(cls, signal: np.ndarray, distances: np.ndarray) -> Self:
        """Learn the scale from the signal ``(n,)`` of each cell, positive, and its distance ``(n,)`` from its neighbours."""
        x = np.log(np.maximum(signal, 1e-12))
        if len(x) < MIN_SCALE_CELLS or np.ptp(x) < 1e-6:
            mean, variance = np.full(len(x), distances.mean()), np.full(len(x), distances.var())
        else:
            options = {"frac": 0.3, "it": 0, "delta": 0.01 * np.ptp(x), "return_sorted": False}
            mean = lowess(distances, x, **options)
            variance = lowess((distances - mean) ** 2, x, **options)
        deviation = np.sqrt(np.maximum(variance, 1e-12))
        order = np.unique(x, return_index=True)[1]
        return cls(x[order], mean[order], deviation[order], np.sort((distances - mean) / deviation))

    def __call__(self, signal: np.ndarray, distances: np.ndarray) -> np.ndarray:
        """Distances ``(m,)`` of cells above the mean for their signal ``(m,)``, in standard deviations."""
        x = np.log(np.maximum(signal, 1e-12))
        return (distances - np.interp(x, self.signal, self.mean)) / np.interp(x, self.signal, self.deviation)

    def pvalues(self, excess: np.ndarray) -> np.ndarray:
        r"""Conformal p-values :math:`(1 + \#\{\text{reference} \ge x\}) / (n + 1)` (Bates et al., Ann. Stat. 2023).

        They are uniform for cells from the distribution of the reference.
        """
        n = len(self.excess)
        return (1 + n - np.searchsorted(self.excess, excess, side="left")) / (n + 1)


def check_level(alpha: float) -> None:
    """Refuse a level of a test that is not between 0 and 1."""
    check_at_least(alpha, 0.0, "alpha")
    if alpha > 1:
        raise ScrclValueError(
            f"alpha={alpha!r} is not valid.",
            "Pass a share of cells between 0 and 1, such as `alpha=0.05`.",
            command="Pass a share of cells between 0 and 1, such as 0.05.",
        )


def warn_if_coarse(alpha: float, n_cells: int) -> None:
    """Warn where no p-value by the cells of a model can be as small as the level of a test; a level of 0 flags nothing."""
    smallest = 1 / (n_cells + 1)
    if 0 < alpha < smallest:
        warnings.warn(
            ScrclWarning(
                f"alpha={alpha!r} flags no cell: with {counted(n_cells, 'cell')} in the model, no p-value is below {smallest:.2g}.",
                f"Pass `alpha={np.ceil(smallest * 1000) / 1000:g}` or more, or rank cells by `excess`.",
                command=f"Pass --alpha {np.ceil(smallest * 1000) / 1000:g} or more.",
            ),
            stacklevel=settings.warnings_stacklevel,
        )
