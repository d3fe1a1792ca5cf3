"""How results with several tables are shown: a title and a short table, as text or, in notebooks, as HTML."""

from abc import ABC, abstractmethod
from html import escape

import numpy as np
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
            lines.append(_first(table).to_string(float_format="{:.2f}".format, na_rep="–"))
        return "\n".join([*lines, *_rest(table)])

    def _repr_html_(self) -> str:
        title, table = self._display()
        shown = _first(table).to_html(float_format="{:.2f}".format, na_rep="–", border=0) if len(table) else ""
        rest = "".join(f"<p>{line}</p>" for line in _rest(table))
        return f"<p>{escape(title)}</p>{shown}{rest}"


def _first(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are shown; None is a missing value, too."""
    return table.head(MAX_ROWS).where(table.notna(), np.nan)


def _rest(table: pd.DataFrame) -> list[str]:
    return [f"… {counted(len(table) - MAX_ROWS, 'more row')}"] if len(table) > MAX_ROWS else []
