import numpy as np
import pandas as pd
import pytest

from scrcl.utils.errors import ScrclTypeError
from scrcl.utils.names import as_groups, as_name, as_names, distinct

SAME = {
    "int64": np.array([1, 2, 1]),
    "int8": np.array([1, 2, 1], dtype=np.int8),
    "float64": np.array([1.0, 2.0, 1.0]),
    "float16": np.array([1, 2, 1], dtype=np.float16),
    "big-endian": np.array([1, 2, 1], dtype=">f8"),
    "text": np.array(["1", "2", "1"]),
    "bytes": np.array([b"1", b"2", b"1"]),
    "objects": np.array([1, 2.0, "1"], dtype=object),
    "categorical": pd.Categorical([1.0, 2.0, 1.0], categories=[2.0, 1.0, 3.0]),
    "Int64": pd.array([1, 2, 1], dtype="Int64"),
    "Float32": pd.array([1, 2, 1], dtype="Float32"),
    "string": pd.array(["1", "2", "1"], dtype="string"),
}


@pytest.mark.parametrize("kind", SAME)
def test_one_name_whatever_the_type(kind):
    assert as_names(SAME[kind]).tolist() == ["1", "2", "1"]
    assert as_names(pd.Series(SAME[kind], index=list("xyz"))).tolist() == ["1", "2", "1"]


@pytest.mark.parametrize(
    "values",
    [
        pd.array([1, None], dtype="Int64"),
        np.array([1.0, np.nan]),
        np.array(["1", None], dtype=object),
        np.array(["1", pd.NA], dtype=object),
        pd.Categorical(["1", None]),
        pd.array(["1", None], dtype="string"),
    ],
)
def test_missing(values):
    assert as_names(values).tolist() == ["1", None]


def test_others():
    assert as_names(np.array([True, False])).tolist() == as_names(pd.array([True, False], dtype="boolean")).tolist()
    assert as_names(pd.to_datetime(["2020-01-31", None])).tolist() == ["2020-01-31", None]  # type: ignore[arg-type]
    assert as_names([0.5, -1.0, 1e300, np.inf]).tolist() == ["0.5", "-1", "1e+300", "inf"]
    assert as_name("1.0") == "1.0"  # text stays as the user wrote it
    assert as_names([]).tolist() == []


def test_groups_are_ordered_as_their_values():
    assert as_groups([10, 9.0, None, 10]).categories.tolist() == ["9", "10"]
    assert as_groups(pd.Categorical(["b", "a"], categories=["b", "a"])).categories.tolist() == ["b", "a"]
    mixed = as_groups(np.array([1, "2b", "1", np.nan], dtype=object))
    assert mixed.codes.tolist() == [0, 1, 0, -1]
    assert mixed.categories.tolist() == ["1", "2b"]


def test_shared_names_are_preceded_by_their_key():
    assert distinct(["0", "1", "2"], ["B cell", "T cell", "B cell"]) == ["0: B cell", "T cell", "2: B cell"]
    assert distinct([], []) == []


def test_groups_of_containers_are_refused():
    with pytest.raises(ScrclTypeError, match="in containers"):
        as_groups([{"a": 1}, {"a": 1}])
