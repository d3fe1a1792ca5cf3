import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scrcl.utils.checks import (
    BLOCK_VALUES,
    OtherNames,
    as_counts,
    as_features,
    as_rows,
    check_at_least,
    check_genes,
    check_groups,
    check_key,
    match_genes,
)


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ([2, 0, 2], [2, 0, 2]),
        ([-1, -4], [3, 0]),
        (1, [1]),
        ([True, False, False, True], [0, 3]),
        ([], []),
        (slice(1, None, 2), [1, 3]),
        (range(2), [0, 1]),
        (np.array([3], dtype=np.uint8), [3]),
    ],
)
def test_rows_of_four_cells(asked, rows):
    np.testing.assert_array_equal(as_rows(asked, 4), rows)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([4], "out of bounds.*from 0 to 3"),
        ([-5], "out of bounds.*from 0 to 3"),
        ([True] * 3, "boolean dimension is 3|boolean axis is 3"),
        ([0.0], "whole numbers"),
        (["c1", "c2"], r"names such as 'c1', not numbers .*get_indexer"),
        (pd.Index(["c1", "c2"]), r"get_indexer"),
        ({1, 2}, "of type set"),
        ((row for row in (1, 2)), "of type generator"),
    ],
)
def test_rows_that_are_none(asked, message):
    with pytest.raises((ValueError, TypeError), match=message):
        as_rows(asked, 4)


@pytest.mark.parametrize(
    ("value", "lowest", "fine"),
    [(1, 1, True), (np.int32(2), 1, True), (0, 1, False), (1.0, 1, False), (True, 1, False), ("1", 1, False)]
    + [(0.0, 0.0, True), (3, 0.0, True), (np.nan, 0.0, False), (np.inf, 0.0, False), (-1e-9, 0.0, False)],
)
def test_numbers_from_a_lowest_on(value, lowest, fine):
    if fine:
        check_at_least(value, lowest, "n")
    else:
        wanted = "a whole number" if isinstance(lowest, int) else "a number"
        with pytest.raises(
            ValueError, match=re.escape(f"n={value!r} is not valid. Pass {wanted} of at least {lowest}.")
        ):
            check_at_least(value, lowest, "n")


def test_genes_are_matched_up_to_a_half():
    present = pd.Index([f"g{i}" for i in range(9)])
    for further in (["x"], list("qrstuvwxy")):
        columns, missing, read_as = match_genes(present, pd.Index([*present[::-1], *further]))
        np.testing.assert_array_equal(columns, [*range(8, -1, -1), *[-1] * len(further)])
        assert list(missing) == further
        assert not read_as
    with pytest.raises(ValueError, match=r"10 of the 19 genes .* \(for example 'p'; the data have 'g0'\)"):
        match_genes(present, pd.Index([*present, *"pqrstuvwxy"]))
    with pytest.raises(ValueError, match="'g0'"):
        match_genes(pd.Index(["g0", "g0"]), present)


@pytest.mark.parametrize(
    "spelled",
    [
        lambda names: names.str.lower(),
        lambda names: names + " ",
        lambda names: names + ".12",
        lambda names: "GRCh38_" + names,
        lambda names: "mm10___" + names,
        lambda names: [f"ENSG{number:011}.7_{name}" for number, name in enumerate(names)],
        lambda names: names + "|ENSMUSG00000000001",
    ],
    ids=["case", "spaces", "versions", "genome", "genome of STAR", "identifier before", "identifier after"],
)
def test_genes_in_another_spelling(spelled):
    wanted = pd.Index([f"GENE{i}" for i in range(9)])
    found = match_genes(pd.Index(spelled(wanted)), wanted)
    assert list(found.columns) == list(range(9))
    names = ad.AnnData(np.zeros((1, 9)), var=pd.DataFrame(index=spelled(wanted)))
    assert list(eval(found.read_as.strip("`"), {"adata": names})) == list(wanted)


def test_genes_in_other_names_of_the_same_columns():
    present, wanted = pd.Index([f"ENSG{i}" for i in range(10)]), pd.Index([f"g{i}" for i in range(10)])
    twice = OtherNames("the column 'b' of var", pd.Index(["g0", "g0", *wanted[2:]]), "", "", same_columns=True)
    found = match_genes(
        present, wanted, find_others=lambda: [twice._replace(names=wanted[:5]), twice._replace(names=wanted[::-1])]
    )
    assert list(found.columns) == list(range(9, -1, -1))
    assert found.read_as == "the column 'b' of var"
    with pytest.raises(ValueError, match="lacks 10 of the 10 genes"):
        match_genes(present, wanted, find_others=lambda: [twice])
    with pytest.raises(ValueError, match=r"but raw has them. Use it: `x`."):
        match_genes(present, wanted, find_others=lambda: [OtherNames("raw", wanted, "`x`", "y")])


def test_genes_by_name():
    kept, every = pd.Index(["CD4", "LYZ"]), pd.Index(["CD4", "LYZ", "NKG7"])
    np.testing.assert_array_equal(check_genes(["LYZ", "CD4"], kept, every), [1, 0])
    np.testing.assert_array_equal(check_genes("LYZ", kept, every), [1])
    identifiers = pd.Index([f"ENSG{number}" for number in range(len(every))])
    both = ["CD4", str(identifiers[every.get_loc("LYZ")])]
    np.testing.assert_array_equal(check_genes(both, kept, every, identifiers), [0, 1])
    for wrong, message in (("NKG7", "not among the 2"), ("lyz", "Did you mean 'LYZ'"), ("foo", "names like 'CD4'")):
        with pytest.raises(KeyError, match=message):
            check_genes(wrong, kept, every)


def test_one_value_in_the_place_of_several():
    assert check_groups(1, ["1", "2"], "kind") == check_groups([1.0], ["1", "2"], "kind") == ["1"]  # type: ignore[arg-type]
    np.testing.assert_array_equal(check_genes(7, pd.Index(["7"]), pd.Index(["7"])), [0])  # type: ignore[arg-type]


def test_keys_that_are_no_key():
    for key in (["kind"], pd.Series(["a"]), np.array(["kind"]), {"kind"}):
        with pytest.raises(TypeError, match=f"groupby is of type {type(key).__name__}, not one key of adata.obs"):
            check_key(key, {"kind": 1}, "groupby", "adata.obs")  # type: ignore[arg-type]


def test_groups_by_name():
    assert check_groups("b", ["a", "b"], "key") == ["b"]
    assert check_groups([1, "a"], ["a", "1"], "key") == ["1", "a"]
    with pytest.raises(KeyError, match="'c' is not in groupby='key'. Present: 'a', 'b'"):
        check_groups(["a", "c"], ["a", "b"], "key")


def test_given_features_keep_their_values():
    values = np.arange(6.0).reshape(3, 2)
    found = as_features(np.asfortranarray(values), "X")
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, values)
    with pytest.raises(ValueError, match="Expected 2D array"):
        as_features(values[0], "X")


class TestCounts:
    """What is taken for counts, and in which form."""

    @pytest.mark.parametrize(
        ("data", "dtype"), [([2, 1, 3], np.float32), ([2, 1, 3], np.int64), ([2, 0, 3], float), ([1, 1, 1], bool)]
    )
    def test_unsorted_rows_with_duplicates_and_zeros(self, data, dtype):
        matrix = sp.csr_matrix((np.array(data, dtype=dtype), [2, 0, 2], [0, 3, 3]), shape=(2, 4))
        before = [array.copy() for array in (matrix.data, matrix.indices, matrix.indptr)]
        expected = np.zeros((2, 4))
        np.add.at(expected, (0, [2, 0, 2]), np.array(data, dtype=float))
        counts = as_counts(matrix, "X")
        assert counts.dtype == np.float32
        assert counts.has_canonical_format
        assert (counts.data > 0).all()
        np.testing.assert_array_equal(counts.toarray(), expected)
        for array, original in zip((matrix.data, matrix.indices, matrix.indptr), before, strict=True):
            np.testing.assert_array_equal(array, original)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (0.5, r"1 value that is not a whole number \(e\.g\. 0\.5\)"),
            (-1, "negative values"),
            (np.nan, "1 NaN"),
            (np.inf, "1 infinite"),
            (-np.inf, "1 infinite"),
            (2.0**40, "too large"),
        ],
    )
    def test_values_that_are_no_counts_at_any_place(self, value, message):
        values = np.ones((1, 2 * BLOCK_VALUES + 3))
        values[0, -1] = value
        with pytest.raises(ValueError, match=message):
            as_counts(values, "X")

    def test_no_values(self):
        assert as_counts(np.zeros((3, 2)), "X").nnz == 0
