"""Sparse matrices of SciPy."""

import scipy.sparse as sp


def row_slice(matrix: sp.csr_array, rows: slice) -> sp.csr_array:
    """Consecutive rows ``(m, G)`` of a matrix ``(n, G)``, which may share its values; SciPy copies them entry by entry."""
    start, stop, _ = rows.indices(matrix.shape[0])
    ends = matrix.indptr[start : stop + 1]
    entries = slice(ends[0], ends[-1])
    shape = (stop - start, matrix.shape[1])
    return sp.csr_array((matrix.data[entries], matrix.indices[entries], ends - ends[0]), shape)
