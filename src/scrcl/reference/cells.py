"""Cells that are asked for, before any is read."""

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
    """``m`` cells that are asked for.

    Attributes
    ----------
    names
        ``(m,)`` their names.
    sources
        The data of each modality.
    batches
        ``(m,)`` name of the batch of each, where the reference has batches.
    slices
        Where they are in space, where the reference is.
    graph
        ``(m, m)`` their spatial graph, binary and symmetric, where the reference was built with one that was given.
    """

    names: pd.Index
    sources: Mapping[str, Source]
    batches: np.ndarray | None = None
    slices: Slices | None = None
    graph: sp.csr_array | None = None

    @property
    def fingerprint(self) -> bytes | None:
        """What changes when anything does that is read of these cells; ``None`` where that cannot be seen."""
        positions = () if self.slices is None else (self.slices.coordinates, self.slices.samples)
        return fingerprint(self.names, self.sources, (self.batches, *positions, self.graph))
