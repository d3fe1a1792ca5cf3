"""A warning before work that needs more memory than is free, and the release of memory after work."""

import ctypes
import warnings
from contextlib import suppress
from pathlib import Path

import psutil
from scvi import settings

from .errors import ScrclWarning

#: Measured bytes of libraries and blocks, for any number of cells.
FIXED_BYTES = 1.5e9


def available() -> float:
    """Free bytes, within the limit of a container."""
    free = float(psutil.virtual_memory().available)
    limit = Path("/sys/fs/cgroup/memory.max")
    used = Path("/sys/fs/cgroup/memory.current")
    try:
        return min(free, float(limit.read_text()) - float(used.read_text()))
    except (OSError, ValueError):  # no such limit
        return free


def warn_if_short(needed: float, work: str, remedy: str, command: str) -> None:
    """Warn if more bytes are needed than are free, with the remedy in Python and on the command line."""
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


def release() -> None:
    """Return freed memory to the system; the C library of Linux keeps what arrays of a few megabytes took."""
    with suppress(AttributeError, OSError, TypeError):  # other systems have no such function
        ctypes.CDLL(None).malloc_trim(0)
