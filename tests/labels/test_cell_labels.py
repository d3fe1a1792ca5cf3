import numpy as np
import scipy.sparse as sp

from scrcl.labels.cell_labels import Labels

NAMES = np.array(["b", None, "a", "b", None, "a"], dtype=object)


def test_labels_are_numbered_by_name():
    labels = Labels.from_values(NAMES)
    assert labels is not None
    assert labels.names == ("a", "b")
    np.testing.assert_array_equal(labels.codes, [1, -1, 0, 1, -1, 0])
    np.testing.assert_array_equal(labels.labelled, [True, False, True, True, False, True])


def test_no_label_at_all():
    assert Labels.from_values(np.array([None, None], dtype=object)) is None
    assert Labels.from_values(np.empty(0, dtype=object)) is None


def test_edges_between_labels_are_cut_and_no_others():
    rng = np.random.default_rng(0)
    dense = np.triu(rng.random((6, 6)) < 0.8, 1).astype(np.float32)
    dense += dense.T
    labels = Labels.from_values(NAMES)
    assert labels is not None
    expected = dense.copy()
    for i in range(6):
        for j in range(6):
            if NAMES[i] is not None and NAMES[j] is not None and NAMES[i] != NAMES[j]:
                expected[i, j] = 0
    assert (expected != dense).any()
    found = labels.remove_conflicts(sp.csr_array(dense))
    np.testing.assert_array_equal(found.toarray(), expected)
    assert found.dtype == np.float32
    assert found.has_canonical_format
