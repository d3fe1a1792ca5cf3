import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from scrcl.reference.prepare import variable_features


def test_variable_features_in_the_space_of_all_modalities():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(30, 4)), rng.normal(size=(30, 3))]
    parts = [part - part.mean(0) for part in parts]
    values = [np.maximum(rng.normal(size=(30, 5)), 0), np.maximum(rng.normal(size=(30, 2)), 0)]
    found = variable_features([sp.csr_array(value) for value in values], parts, [0.7, 0.3], 50)
    cells = np.concatenate([np.sqrt(0.7) * parts[0], np.sqrt(0.3) * parts[1]], 1)
    u = np.linalg.svd(cells, full_matrices=False)[0]
    every = np.concatenate(values, 1)
    expected = normalize((every - every.mean(0)).T @ u)
    assert found.shape == (7, 7)
    # The same up to a rotation of the axes.
    np.testing.assert_allclose(found @ found.T / 7, expected @ expected.T, atol=1e-4)
