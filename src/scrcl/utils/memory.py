"""Estimates of memory, and warnings before work that needs more than is free."""

import warnings
from pathlib import Path

import psutil
from scvi import settings

from .errors import ScrclWarning

#: Measured memory of a cell while it is prepared, encoded and clustered, with a margin: values of 4 bytes for each feature
#: and for each hidden unit, and bytes for each neighbour.
VALUES_PER_FEATURE, VALUES_PER_HIDDEN, BYTES_PER_NEIGHBOR = 3, 3, 60
#: Values of 4 bytes for each feature and each hidden unit of a cell in a training step.
VALUES_PER_TRAINED_FEATURE, VALUES_PER_TRAINED_HIDDEN = 3, 40
#: Bytes of libraries and blocks, for any number of cells.
FIXED_BYTES = 1.5e9


def bytes_of_model(n_cells: int, n_features: int, n_hidden: int, n_neighbors: int) -> float:
    """Bytes for a model of ``n_cells`` cells, without its counts."""
    return (
        n_cells
        * (4.0 * (VALUES_PER_FEATURE * n_features + VALUES_PER_HIDDEN * n_hidden) + BYTES_PER_NEIGHBOR * n_neighbors)
        + FIXED_BYTES
    )


def bytes_of_training(n_cells: int, n_features: int, n_hidden: int) -> float:
    """Bytes for a training step on ``n_cells`` cells."""
    return n_cells * 4.0 * (VALUES_PER_TRAINED_FEATURE * n_features + VALUES_PER_TRAINED_HIDDEN * n_hidden)


def available() -> float:
    """Free bytes, within the limit of a container."""
    free = float(psutil.virtual_memory().available)
    limit = Path("/sys/fs/cgroup/memory.max")
    used = Path("/sys/fs/cgroup/memory.current")
    try:
        return min(free, float(limit.read_text()) - float(used.read_text()))
    except (OSError, ValueError):  # no such limit
        return free


def warn_of_model(n_cells: int, n_features: int, n_hidden: int, n_neighbors: int, in_memory: bool) -> None:
    """Warn if a model of ``n_cells`` cells, with counts in memory or not, needs more memory than is free."""
    warn_if_short(
        bytes_of_model(n_cells, n_features, n_hidden, n_neighbors),
        f"A model of {n_cells:,} cells",
        "Pass a smaller `n_components`, or fewer cells and place the others later"
        + (", and leave the counts in the file: `anndata.read_h5ad(path, backed='r')`." if in_memory else "."),
        "Pass fewer cells.",
    )


def warn_if_short(needed: float, work: str, remedy: str, command: str) -> None:
    """Warn if more memory is needed than is free, with the remedy in Python and on the command line."""
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
