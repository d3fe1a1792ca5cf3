"""Probabilities that mean what they say."""

import numpy as np
from scipy.optimize import minimize_scalar

#: Range of temperatures. At the hottest, labels that the features say nothing of leave all types equally probable.
COLDEST, HOTTEST = 0.2, 1000.0
#: Temperature where no cell can be held out: from one point of each type, probabilities are too even.
UNKNOWN_TEMPERATURE = 0.6


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    r"""Probabilities ``(n, C)`` at a temperature, :math:`p_c^{1/T} / \sum_{c'} p_{c'}^{1/T}`: more even above 1."""
    powers = probabilities ** (1 / temperature)
    return powers / powers.sum(1, keepdims=True)


def find_temperature(probabilities: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> float:
    """The temperature at which the types ``(n,)`` of cells are the most probable: Guo et al., ICML 2017.

    Parameters
    ----------
    probabilities
        ``(n, C)`` of cells that had no part in finding them.
    codes
        ``(n,)`` their types, from 0.
    weights
        ``(n,)`` how much each cell counts.

    Returns
    -------
    A temperature between ``COLDEST`` and ``HOTTEST``; ``UNKNOWN_TEMPERATURE`` where there are no cells.
    """
    if len(codes) == 0:
        return UNKNOWN_TEMPERATURE
    rows, floor = np.arange(len(codes)), np.finfo(np.float32).tiny

    def surprise(log_temperature: float) -> float:
        own = tempered(np.maximum(probabilities, floor), np.exp(log_temperature))[rows, codes]
        return float(-weights @ np.log(own))

    found = minimize_scalar(surprise, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def folds(codes: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """The fold ``(n,)`` in which each cell is held out, from 0: those of a type are spread evenly.

    A type of one cell cannot be learnt without it, so that it is never held out: -1.
    """
    rng = np.random.default_rng(seed)
    found = np.full(len(codes), -1)
    for code in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == code))
        if len(rows) > 1:
            found[rows] = (np.arange(len(rows)) + rng.integers(n_folds)) % n_folds
    return found


def calibration_error(probabilities: np.ndarray, codes: np.ndarray, n_bins: int = 15) -> float:
    """The expected calibration error of the most probable types: Naeini et al., AAAI 2015.

    The mean difference, over bins of equal width, between how probable the most probable type was and how often it was
    right.

    Parameters
    ----------
    probabilities
        ``(n, C)``, rows summing to 1.
    codes
        ``(n,)`` true types, from 0.
    n_bins
        Number of bins.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == codes
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, confidence - right, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(codes))
