"""Sizes that several parts of the package share."""

from typing import Final

import numpy as np

#: Cells that stand for all where a sample suffices, and up to which training is on the whole graph.
SAMPLE_CELLS: Final = 20_000
#: Cells read from counts at once, if they then have no more entries than `BLOCK_ENTRIES`.
BLOCK_CELLS: Final = 4096
#: Entries of a block of counts, or of scores of cells by genes.
BLOCK_ENTRIES: Final = 20_000_000
#: Entries of a block of counts that is normalised, several copies of which are dense.
DENSE_ENTRIES: Final = 1_000_000


def draw(n: int, number: int, seed: int) -> np.ndarray:
    """Some of ``n`` things by number, drawn at random; all where there are no more."""
    return np.arange(n) if n <= number else np.random.default_rng(seed).choice(n, number, replace=False)


def sample_cells(n: int) -> np.ndarray:
    """The cells that stand for all ``n``, increasing: all, or ``SAMPLE_CELLS`` drawn at random, always the same."""
    return np.sort(draw(n, SAMPLE_CELLS, 0))
