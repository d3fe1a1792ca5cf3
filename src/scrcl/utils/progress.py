"""Progress of long work: phases and steps, shown by a listener (of the command line) or else by a bar."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")

#: Seconds after which a bar is shown.
DELAY = 2.0


class Listener(Protocol):
    """Receives progress."""

    def begin(self, phase: str) -> None:
        """A phase begins, and the previous one ends."""

    def advance(self, done: int, total: int) -> None:
        """``done`` of ``total`` steps of the phase are done."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_phase: ContextVar[str] = ContextVar("phase", default="")


def begin(phase: str) -> None:
    """Begin a phase."""
    _phase.set(phase)
    listener = _listener.get()
    if listener is not None:
        listener.begin(phase)


def track(steps: Iterable[T], total: int) -> Iterator[T]:
    """Iterate over the steps of the current phase, and report their number."""
    listener = _listener.get()
    if listener is None:
        shown = sys.stderr.isatty() or "ipykernel" in sys.modules
        yield from tqdm(steps, _phase.get(), total, delay=DELAY, leave=False, disable=not shown)
        return
    for done, step in enumerate(steps):
        yield step
        listener.advance(done + 1, total)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report progress to the listener instead of showing bars."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
