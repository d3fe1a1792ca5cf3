import pandas as pd

from scrcl.utils.display import MAX_ROWS, Displayed


class Result(Displayed):
    def __init__(self, table):
        self.table = table

    def _display(self):
        return "Result of <b>", self.table


def test_long_tables_are_cut():
    result = Result(pd.DataFrame({"value": range(1000)}))
    lines = repr(result).splitlines()
    assert lines[0] == "Result of <b>"
    assert len(lines) == 1 + 1 + MAX_ROWS + 1
    assert lines[-1] == "… 988 more rows"
    assert result._repr_html_().count("<tr") == 1 + MAX_ROWS


def test_names_are_no_markup():
    html = Result(pd.DataFrame({"<i>": ["<script>"]}, index=["a&b"]))._repr_html_()
    assert "<b>" not in html
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_missing_values_and_numbers_are_short():
    text = repr(Result(pd.DataFrame({"x": [0.123456, None]})))
    assert "0.12" in text
    assert "0.123" not in text
    assert "–" in text


def test_none_is_a_missing_value():
    result = Result(pd.DataFrame({"name": ["a", None]}))
    assert "None" not in repr(result) + result._repr_html_()


def test_no_rows():
    empty = Result(pd.DataFrame({"x": []}))
    assert repr(empty) == "Result of <b>"
    assert empty._repr_html_() == "<p>Result of &lt;b&gt;</p>"
