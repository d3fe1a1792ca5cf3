"""Requested cells, before any is read."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scrcl.data.fingerprint import fingerprint
from scrcl.data.sources import Source
from scrcl.graph.slices import Slices


@dataclass(frozen=True)
class Cells:
    """``m`` requested cells.

    Attributes
    ----------
    names
        ``(m,)`` names.
    sources
        The data of each modality.
    batches
        ``(m,)`` names of their batches, if the reference has batches.
    slices
        Their positions in space, if the reference is spatial.
    graph
        ``(m, m)`` their spatial graph, binary and symmetric, if the user passed the graph of the reference.
    conditions
        ``(m,)`` names of their conditions, if these are protected.
    """

    names: pd.Index
    sources: Mapping[str, Source]
    batches: np.ndarray | None = None
    slices: Slices | None = None
    graph: sp.csr_array | None = None
    conditions: np.ndarray | None = None

    @property
    def fingerprint(self) -> str | None:
        """A hash of all that is read of these cells; ``None`` if changes cannot be detected."""
        positions = () if self.slices is None else (self.slices.coordinates, self.slices.samples)
        return fingerprint(self.names, self.sources, (self.batches, *positions, self.graph, self.conditions))
