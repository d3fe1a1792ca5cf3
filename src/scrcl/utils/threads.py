"""How many threads small work is given: on few cells, waiting for one another costs more than they give."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from threadpoolctl import threadpool_limits

#: Entries of an array for which a further thread pays, measured by `benchmarks/threads.py`.
ENTRIES_PER_THREAD: Final = 500_000
#: Threads of torch when this package is imported: one for each core, or what ``OMP_NUM_THREADS`` says.
DEFAULT: Final = torch.get_num_threads()


def suited_threads(n_entries: int) -> int:
    """Threads for work on arrays of so many entries.

    A number set by :func:`torch.set_num_threads` counts, unless it is that of the cores: Scanpy sets that one, too.
    """
    now = torch.get_num_threads()
    if now not in (DEFAULT, os.cpu_count()):
        return now
    return max(1, min(DEFAULT, n_entries // ENTRIES_PER_THREAD))


@contextmanager
def threads(n_entries: int, n_threads: int | None = None) -> Iterator[None]:
    """Work with as many threads as suit arrays of so many entries, or with ``n_threads``; then with as many as before."""
    before = torch.get_num_threads()
    number = suited_threads(n_entries) if n_threads is None else n_threads
    with threadpool_limits(number):
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)
