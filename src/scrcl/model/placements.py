"""Where the cells of data lie, kept as long as the data are at hand and unchanged."""

from weakref import ref

from scrcl.graph.placement import Placement

#: Data objects whose placements are kept; the one used longest ago goes first.
MOST_KEPT = 4


class Placements:
    """The placements of all cells of a few data objects, which are referenced weakly.

    A copy, and what is unpickled, begins without any.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[ref[object], str, Placement]] = {}

    def get(self, data: object, fingerprint: str) -> Placement | None:
        """The placement that was kept of this object, if it has the same fingerprint."""
        entry = self._kept.pop(id(data), None)
        if entry is None or entry[0]() is not data or entry[1] != fingerprint:
            return None
        self._kept[id(data)] = entry  # the last one used is the last one to go
        return entry[2]

    def keep(self, data: object, fingerprint: str, placement: Placement) -> None:
        """Keep a placement of all cells of an object."""
        key, kept = id(data), self._kept
        kept[key] = ref(data, lambda _: kept.pop(key, None)), fingerprint, placement
        while len(kept) > MOST_KEPT:
            kept.pop(next(iter(kept)))

    def __reduce__(self) -> tuple:
        return Placements, ()
