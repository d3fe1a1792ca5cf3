"""How much memory work will need, said before it starts."""

import warnings
from pathlib import Path

import psutil
from scvi import settings

from .errors import ScrclWarning

#: Numbers of 4 bytes that a cell takes while its features are computed and it is embedded and clustered, for each of
#: its features and hidden units; bytes for each of its neighbours; measured, with something to spare.
PER_FEATURE, PER_HIDDEN, PER_NEIGHBOR = 3, 3, 60
#: Numbers of 4 bytes that a hidden unit of a cell takes in a training step.
PER_TRAINED = 40
#: Bytes that libraries and blocks take whatever the number of cells.
FIXED = 1.5e9


def for_cells(n_cells: int, n_features: int, n_hidden: int, n_neighbors: int) -> float:
    """Bytes that a model of so many cells needs, the counts not included."""
    return n_cells * (4.0 * (PER_FEATURE * n_features + PER_HIDDEN * n_hidden) + PER_NEIGHBOR * n_neighbors) + FIXED


def for_batch(n_cells: int, n_features: int, n_hidden: int) -> float:
    """Bytes that a training step on so many cells needs."""
    return n_cells * 4.0 * (3 * n_features + PER_TRAINED * n_hidden)


def available() -> float:
    """Bytes that are free, also by the limit of a container."""
    free = float(psutil.virtual_memory().available)
    limit = Path("/sys/fs/cgroup/memory.max")
    used = Path("/sys/fs/cgroup/memory.current")
    try:
        return min(free, float(limit.read_text()) - float(used.read_text()))
    except (OSError, ValueError):  # no such limit
        return free


def warn_of_model(n_cells: int, n_features: int, n_hidden: int, n_neighbors: int, in_memory: bool) -> None:
    """Warn if a model of so many cells, whose counts are in memory or not, needs more memory than there is."""
    warn_if_short(
        for_cells(n_cells, n_features, n_hidden, n_neighbors),
        f"A model of {n_cells:,} cells",
        "Pass a smaller `n_components`, or fewer cells and place the others later"
        + (", and leave the counts in the file: `anndata.read_h5ad(path, backed='r')`." if in_memory else "."),
        "Pass fewer cells.",
    )


def warn_if_short(needed: float, work: str, remedy: str, command: str) -> None:
    """Warn if more memory is needed than there is, and say what to change in Python, and on the command line."""
    free = available()
    if needed > free:
        warnings.warn(
            ScrclWarning(
                f"{work} needs about {needed / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free.",
                remedy,
                command=command,
            ),
            stacklevel=settings.warnings_stacklevel,
        )
