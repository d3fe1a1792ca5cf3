"""How cells move so that counterparts come together, type by type."""

import numpy as np
import pandas as pd
import pytest

from scrcl.reference.mnn_correction import CorrectionVectors, fit_correction_vectors
from scrcl.reference.modality_kinds import Embedding


@pytest.fixture(scope="module")
def cells():
    """Three types in two batches, of which the second moves each another way; it lacks the third type."""
    rng = np.random.default_rng(0)
    types = np.concatenate([np.repeat([0, 1, 2], 80), np.repeat([0, 1], 70)])
    batches = np.repeat([0, 1], [240, 140])
    effect = np.zeros((3, 10))
    effect[0, 4], effect[1, 5] = 3, -3
    features = 15 * np.eye(3, 10)[types] + rng.normal(size=(380, 10)) + effect[types] * batches[:, None]
    return features.astype(np.float32), batches, types


#: Distances are those of the features.
euclidean = Embedding(pd.Index([]), np.arange(10), np.zeros(10), 1.0, cosine=False)


def apart(features, batches, types, kind) -> float:
    return float(np.linalg.norm(np.diff([features[(types == kind) & (batches == b)].mean(0) for b in (0, 1)], axis=0)))


def moved(features: np.ndarray, batches: np.ndarray, corrections: list[CorrectionVectors]) -> np.ndarray:
    found = features.copy()
    for number, correction in enumerate(corrections):
        found[batches == number] = correction(features[batches == number], euclidean)
    return found


def test_each_type_moves_its_own_way(cells):
    features, batches, types = cells
    found = moved(features, batches, fit_correction_vectors(features, batches, euclidean))
    for kind in (0, 1):
        assert apart(features, batches, types, kind) > 2.5
        assert apart(found, batches, types, kind) < 0.7
    # Both go half of the way.
    own = [np.linalg.norm((found - features)[(types == 0) & (batches == b)].mean(0)) for b in (0, 1)]
    assert own == pytest.approx([1.5, 1.5], abs=0.4)
    alone = types == 2
    assert np.linalg.norm((found - features)[alone].mean(0)) < 0.3, "a type without counterparts stays"


def test_a_cell_moves_by_euclidean(cells):
    features, batches, _ = cells
    corrections = fit_correction_vectors(features, batches, euclidean)
    own = features[batches == 1]
    np.testing.assert_allclose(
        corrections[1](own, euclidean)[[3, 50]], corrections[1](own[[3, 50]], euclidean), atol=1e-4
    )


def test_a_fixed_batch_stays(cells):
    features, batches, types = cells
    corrections = fit_correction_vectors(features, batches, euclidean, fixed=0)
    np.testing.assert_array_equal(corrections[0](features[batches == 0], euclidean), features[batches == 0])
    found = moved(features, batches, corrections)
    assert apart(found, batches, types, 0) < 0.7
    assert apart(found, batches, types, 1) < 0.7


def test_batches_without_an_effect_hardly_move(cells):
    rng = np.random.default_rng(1)
    features = (15 * np.eye(3, 10)[rng.integers(3, size=300)] + rng.normal(size=(300, 10))).astype(np.float32)
    batches = rng.integers(2, size=300)
    found = moved(features, batches, fit_correction_vectors(features, batches, euclidean))
    assert np.linalg.norm(found - features, axis=1).mean() < 0.25 * np.linalg.norm(rng.normal(size=10))
