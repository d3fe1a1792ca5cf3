"""Progress of long work: phases and steps, shown by a listener (of the command line) or else by a bar."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import Progress

T = TypeVar("T")

#: Seconds after which a bar is shown.
DELAY = 5.0


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
        yield from _bar(steps, total)
        return
    for done, step in enumerate(steps):
        yield step
        listener.advance(done + 1, total)


def _bar(steps: Iterable[T], total: int) -> Iterator[T]:
    """Iterate over the steps, with a bar on a terminal or in a notebook after ``DELAY`` seconds."""
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not (console.is_terminal or console.is_jupyter))
    task, start = bar.add_task(_phase.get(), total=total), monotonic()
    try:
        for done, step in enumerate(steps):
            yield step
            bar.update(task, completed=done + 1)
            if not bar.live.is_started and monotonic() - start > DELAY:
                bar.start()
    finally:
        bar.stop()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report progress to the listener instead of showing bars."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
