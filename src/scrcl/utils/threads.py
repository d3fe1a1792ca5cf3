"""Numbers of threads: for few cells, synchronisation costs more than further threads gain."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from threadpoolctl import threadpool_limits

#: Entries of an array for each useful thread, measured by `benchmarks/threads.py`.
ENTRIES_PER_THREAD: Final = 500_000
#: Threads of torch when this package is imported: one for each core, or ``OMP_NUM_THREADS``.
DEFAULT: Final = torch.get_num_threads()


def suited_threads(n_entries: int) -> int:
    """Number of threads for arrays of ``n_entries`` entries.

    A number set by :func:`torch.set_num_threads` is kept, unless it is the number of cores, which Scanpy sets.
    """
    current = torch.get_num_threads()
    if current not in (DEFAULT, os.cpu_count()):
        return current
    return max(1, min(DEFAULT, n_entries // ENTRIES_PER_THREAD))


@contextmanager
def threads(n_entries: int, n_threads: int | None = None) -> Iterator[None]:
    """Context with the threads for arrays of ``n_entries`` entries, or with ``n_threads``."""
    before = torch.get_num_threads()
    number = suited_threads(n_entries) if n_threads is None else n_threads
    with threadpool_limits(number):
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)
