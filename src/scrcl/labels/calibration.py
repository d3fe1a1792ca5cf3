"""Calibration of the probabilities of types."""

import numpy as np
from scipy.optimize import minimize_scalar

#: Range of temperatures. At the highest, labels that are unrelated to the features make all types equally probable.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.2, 1000.0
#: Temperature where no cell can be held out: with one point of each type, probabilities are too even.
DEFAULT_TEMPERATURE = 0.6


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    r"""Probabilities ``(n, C)`` at a temperature, :math:`p_c^{1/T} / \sum_{c'} p_{c'}^{1/T}`: more even above 1."""
    powers = probabilities ** (1 / temperature)
    return powers / powers.sum(1, keepdims=True)


def find_temperature(probabilities: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> float:
    """The temperature that maximises the likelihood of types ``(n,)``, numbered from 0 (Guo et al., ICML 2017).

    From the probabilities ``(n, C)`` of cells that were held out, and the weight ``(n,)`` of each cell. It is between
    ``MIN_TEMPERATURE`` and ``MAX_TEMPERATURE``; ``DEFAULT_TEMPERATURE`` if there are no cells.
    """
    if len(codes) == 0:
        return DEFAULT_TEMPERATURE
    rows, smallest = np.arange(len(codes)), np.finfo(np.float32).tiny

    def negative_log_likelihood(log_temperature: float) -> float:
        true = tempered(np.maximum(probabilities, smallest), np.exp(log_temperature))[rows, codes]
        return float(-weights @ np.log(true))

    bounds = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded").x))


def folds(codes: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """The fold ``(n,)`` in which each cell is held out, from 0; the cells of a type are spread evenly.

    The only cell of a type is never held out, as the type cannot be learned without it: -1. Unlike
    :class:`sklearn.model_selection.StratifiedKFold`, this accepts types of fewer cells than folds.
    """
    rng = np.random.default_rng(seed)
    fold = np.full(len(codes), -1)
    for code in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == code))
        if len(rows) > 1:
            fold[rows] = (np.arange(len(rows)) + rng.integers(n_folds)) % n_folds
    return fold
