"""Marker genes that an option names, and the names of clusters from them."""

from pathlib import Path

import pandas as pd

from scrcl.data.marker_resources import read_resource
from scrcl.data.marker_sets import MarkerSets, is_name, read_marker_sets
from scrcl.utils.errors import ScrclValueError

from .paths import suffix


def read_sets(markers: str) -> MarkerSets:
    """Read the marker genes of a file, or of a collection by its name."""
    return read_resource(markers) if is_name(markers) else read_marker_sets(_table(markers))


def records(names: pd.DataFrame) -> list[dict[str, object]]:
    """The names and their evidence in plain containers; a missing number is None."""
    rows = names.reset_index().astype(object)
    return [
        {str(key): value for key, value in row.items()} for row in rows.where(rows.notna(), None).to_dict("records")
    ]


def _table(markers: str) -> pd.DataFrame | str:
    """A table of markers that is a file, or the path of any other file."""
    reader = {".csv": ",", ".tsv": "\t"}.get(suffix(Path(markers)))
    if reader is None:
        return markers
    try:
        return pd.read_csv(markers, sep=reader)
    except (OSError, ValueError) as error:
        raise ScrclValueError(
            f"markers={markers!r} cannot be read: {error}.", "Name a table with columns source and target."
        ) from error
