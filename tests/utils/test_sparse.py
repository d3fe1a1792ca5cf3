"""Sparse matrices."""

import numpy as np
import pytest
import scipy.sparse as sp

from scrcl.utils.sparse import row_slice


@pytest.mark.parametrize("rows", [slice(None), slice(0, 3), slice(2, 7), slice(5, 100), slice(4, 4)])
def test_rows_are_those_of_scipy(rows):
    matrix = sp.random_array((9, 6), density=0.4, format="csr", rng=np.random.default_rng(0))
    found, expected = row_slice(matrix, rows), matrix[rows]
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.toarray(), expected.toarray())
    assert found.has_canonical_format
