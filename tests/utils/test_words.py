"""Words that depend on numbers."""

import pytest

from scrcl.utils.words import counted, listed


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("cell",), "0 cells"),
        (1, ("cell",), "1 cell"),
        (2000, ("cell",), "2,000 cells"),
        (1, ("cell lacks", "cells lack"), "1 cell lacks"),
        (2, ("batch", "batches"), "2 batches"),
    ],
)
def test_what_is_counted(number, words, said):
    assert counted(number, *words) == said


@pytest.mark.parametrize(
    ("names", "most", "said"),
    [
        ([], None, ""),
        (["a"], None, "a"),
        (["a", "b"], 2, "a and b"),
        (["a", "b", "c"], None, "a, b and c"),
        (["a", "b", "c", "d"], 2, "a, b and 2 more"),
    ],
)
def test_names_in_a_sentence(names, most, said):
    assert listed(names, most) == said
