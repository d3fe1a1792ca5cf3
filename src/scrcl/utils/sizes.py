"""Sizes that several subpackages share, and sampling by them."""

from typing import Final

import numpy as np

#: Cells of a sample, and most cells of training on the whole graph.
SAMPLE_CELLS: Final = 20_000
#: Most cells of a block of counts.
BLOCK_CELLS: Final = 4096
#: Most entries of a block of counts, or of scores of cells by genes.
BLOCK_ENTRIES: Final = 20_000_000
#: Most entries of a dense block of counts that is normalised.
DENSE_ENTRIES: Final = 1_000_000


def draw(n: int, number: int, seed: int) -> np.ndarray:
    """A random sample of ``number`` of the numbers below ``n``; all of them if there are no more."""
    return np.arange(n) if n <= number else np.random.default_rng(seed).choice(n, number, replace=False)


def sample_cells(n: int) -> np.ndarray:
    """The same sample of ``SAMPLE_CELLS`` of ``n`` cells in each call, increasing; all if there are no more."""
    return np.sort(draw(n, SAMPLE_CELLS, 0))
