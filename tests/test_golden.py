"""The package gives what it gave before: seeded results on small data, recorded by `tests/saved/make_golden.py`.

Names and labels are the same to the letter. Numbers may differ by rounding, as sums are taken in another order on other
machines.
"""

import numpy as np
import pytest

from .saved.make_golden import FILE, models, results

pytestmark = pytest.mark.usefixtures("full_inference")

#: Largest difference, relative to the largest value of an array.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def trained():
    return models()


@pytest.mark.parametrize("name", ["anndata", "embedding", "space", "mudata"])
def test_results_are_as_recorded(trained, name):
    found = results(name, *trained[name])
    with np.load(FILE) as recorded:
        expected = {key.split("/")[1]: recorded[key] for key in recorded if key.startswith(f"{name}/")}
    assert set(found) == set(expected)
    for key, value in expected.items():
        if value.dtype.kind in "US":
            np.testing.assert_array_equal(found[key], value, err_msg=key)
        else:
            np.testing.assert_allclose(
                found[key], value, rtol=0, atol=TOLERANCE * np.nanmax(np.abs(value)), err_msg=key
            )
