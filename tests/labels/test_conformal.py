import numpy as np
import pytest

from scrcl.labels.conformal import calibrate, prediction_sets


def exchangeable(n_each: int, n_new: int, seed: int, n_types: int = 3):
    """Probabilities of labelled cells and of new cells of the same types, which overlap."""
    rng = np.random.default_rng(seed)

    def draw(codes: np.ndarray) -> np.ndarray:
        logits = rng.normal(size=(len(codes), n_types))
        logits[np.arange(len(codes)), codes] += 2
        return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    codes, new = np.repeat(np.arange(n_types), n_each), np.repeat(np.arange(n_types), n_new)
    return draw(codes), codes, rng.integers(5, size=len(codes)), draw(new), new


class TestPvalues:
    def test_by_hand(self):
        held_out = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
        calibration = calibrate(held_out, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
        by_fold = np.array([[[0.95, 0.05]], [[0.5, 0.5]]])
        # Type 0: of 0.9 in fold 0 and 0.6 in fold 1, only the first is at most that of the cell. Type 1: neither is.
        np.testing.assert_allclose(calibration.pvalues(by_fold, 0.5), [[2 / 3, 1 / 3]])

    def test_types_of_few_cells_are_compared_with_all(self):
        held_out = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
        calibration = calibrate(held_out, np.array([0, 0, 1]), np.array([0, 0, 0]))
        pvalues = calibration.pvalues(np.array([[[0.85, 0.15]]]), 0.3)
        np.testing.assert_allclose(pvalues, [[3 / 4, 1 / 4]])
        np.testing.assert_allclose(calibration.pvalues(np.array([[[0.85, 0.15]]]), 0.4), [[2 / 3, 1 / 4]])

    def test_cells_without_label_or_fold_do_not_count(self):
        held_out = np.array([[0.9, 0.1], [0.5, 0.5], [np.nan, np.nan]])
        calibration = calibrate(held_out, np.array([0, -1, 1]), np.array([0, -1, -1]))
        assert calibration.fold.tolist() == [0, -1, -1]
        np.testing.assert_allclose(calibration.pvalues(np.array([[[0.95, 0.05]]]), 0.5), [[1, 1 / 2]])


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_coverage_of_each_type(alpha):
    covered = []
    for seed in range(20):
        held_out, codes, fold, probabilities, new = exchangeable(40, 200, seed)
        pvalues = calibrate(held_out, codes, fold).pvalues(np.stack([probabilities] * 5), alpha)
        sets = prediction_sets(pvalues, probabilities, 3, alpha)
        covered.append([sets[new == kind, kind].mean() for kind in range(3)])
    mean, error = np.mean(covered, 0), np.std(covered, 0) / np.sqrt(20)
    assert (mean > 1 - alpha - 3 * error).all()
    assert (mean < 1 - alpha + 1 / 41 + 3 * error).all()


def test_new_types_where_they_are_the_most_probable():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    sets = prediction_sets(np.array([[0.5, 0.01, 1.0], [0.01, 0.02, 1.0]]), probabilities, 2, 0.1)
    assert sets.tolist() == [[True, False, False], [False, False, True]]
