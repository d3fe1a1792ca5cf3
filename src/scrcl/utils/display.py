"""How results with several tables are shown: a title and a short table, as text or, in notebooks, as HTML."""

from abc import ABC, abstractmethod
from html import escape

import pandas as pd

from .words import counted

#: Rows of a table that are shown.
MAX_ROWS = 12


class Displayed(ABC):
    """A result that is shown by a title and the first rows of a table."""

    @abstractmethod
    def _display(self) -> tuple[str, pd.DataFrame]:
        """The title, one sentence without a full stop, and the table."""

    def __repr__(self) -> str:
        title, table = self._display()
        lines = [title]
        if len(table):
            lines.append(table.head(MAX_ROWS).to_string(float_format="{:.2f}".format, na_rep="–"))
        return "\n".join([*lines, *_rest(table)])

    def _repr_html_(self) -> str:
        title, table = self._display()
        shown = table.head(MAX_ROWS).to_html(float_format="{:.2f}".format, na_rep="–", border=0) if len(table) else ""
        rest = "".join(f"<p>{line}</p>" for line in _rest(table))
        return f"<p>{escape(title)}</p>{shown}{rest}"


def _rest(table: pd.DataFrame) -> list[str]:
    return [f"… {counted(len(table) - MAX_ROWS, 'more row')}"] if len(table) > MAX_ROWS else []
