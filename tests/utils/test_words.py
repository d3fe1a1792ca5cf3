"""Words that depend on numbers."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

import scrcl
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


def uncounted() -> list[str]:
    """Numbers with separators of thousands before the plural of what is often counted, in messages of the package."""
    plural = re.compile(
        r" (of the )?([a-z]+ )?(cells|genes|names|values|batches|labels|edges|features|lists)\b(?! are the same)"
    )
    found = []
    for file in Path(scrcl.__file__).parent.rglob("*.py"):
        for text in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.JoinedStr)):
            for value, after in pairwise(text.values):
                if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant) and value.format_spec:
                    if ast.unparse(value.format_spec) == "f','" and plural.match(str(after.value)):
                        found.append(f"{file.name}: {ast.unparse(value)}{after.value!s}")
    return found


def test_one_is_singular_in_all_messages():
    assert not uncounted()
