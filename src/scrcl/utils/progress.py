"""How far long work has come: a bar where it takes long, or whatever a listener makes of it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")

#: Seconds before a bar is shown.
DELAY = 5.0


class Listener(Protocol):
    """What is told of progress."""

    def begin(self, phase: str) -> None:
        """A phase begins; the one before is over."""

    def advance(self, done: int, total: int) -> None:
        """So many of so many steps of the phase are done."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_phase: ContextVar[str] = ContextVar("phase", default="")


def begin(phase: str) -> None:
    """Say that a phase begins."""
    _phase.set(phase)
    listener = _listener.get()
    if listener is not None:
        listener.begin(phase)


def track(steps: Iterable[T], total: int) -> Iterator[T]:
    """Pass through the steps of the present phase, and tell how many are done."""
    listener = _listener.get()
    if listener is None:
        yield from tqdm(steps, total=total, desc=_phase.get(), delay=DELAY, leave=False)
        return
    for done, step in enumerate(steps):
        yield step
        listener.advance(done + 1, total)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell the listener, and show no bars of our own."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
