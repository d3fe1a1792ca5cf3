"""The phases of a run: a bar for each on a terminal, a line for each in a log; and notes between them."""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from scrcl.utils.errors import PoorSupportWarning, ScrclWarning
from scrcl.utils.progress import listening

from .errors import OPTIONS, as_message

#: Levels of the loggers of the libraries while the command runs.
LOG_LEVELS = {
    "lightning.pytorch": logging.ERROR,
    "lightning.pytorch.utilities.rank_zero": logging.ERROR,
    "lightning.fabric.utilities.seed": logging.ERROR,
    "scvi": logging.WARNING,
}


class Phases:
    """Shows the phases of a run, and keeps their seconds, files and notes.

    Parameters
    ----------
    console
        Where they are shown.
    source
        The input, for messages.
    options
        Option of each argument, for messages.

    Attributes
    ----------
    seconds
        Seconds that each phase took.
    written
        Files and folders that are written.
    notes
        Notes for the user, each once.
    missing
        What could not be made beside the output, and why.
    """

    def __init__(self, console: Console, source: Path | None, options: Mapping[str, str] = OPTIONS) -> None:
        self.missing: dict[str, str] = {}
        self._source, self._options = source, options
        self.seconds: dict[str, float] = {}
        self.written: list[str] = []
        self.notes: list[str] = []
        self.console = console
        self._start = time.perf_counter()
        self._present: tuple[str, TaskID, float] | None = None
        columns = (
            TextColumn("{task.description:<20}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end()
        self._progress.stop()

    def begin(self, phase: str) -> None:
        """A phase begins; the one before is over."""
        if self._present is not None and self._present[0] == phase:
            return
        self._end()
        now = time.perf_counter()
        self._present = phase, self._progress.add_task(phase, total=None), now
        if self._progress.disable:
            self.show(f"{now - self._start:8.1f} s  {phase}")

    def advance(self, done: int, total: int) -> None:
        """``done`` of ``total`` steps of the phase are done."""
        if self._present is not None:
            self._progress.update(self._present[1], total=total, completed=done)

    def show(self, line: str) -> None:
        """Show a line."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def note(self, *texts: str) -> None:
        """Keep notes, and show each the first time."""
        for text in dict.fromkeys(texts):
            if text not in self.notes:
                self.notes.append(text)
                self.show(f"note: {text}")

    def message(self, error: BaseException | ScrclWarning) -> str:
        """An error or a warning in the words of the command."""
        return as_message(error, self._source, self._options)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Make something beside the output; a failure ends the block, and is reported."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (the output must not be lost)
            self.missing[what] = self.message(error)
            self.show(f"error: {what}: {self.missing[what]}")

    def wrote(self, path: Path) -> None:
        """Keep that a file or folder is written."""
        self.written.append(str(path))

    def _end(self) -> None:
        if self._present is None:
            return
        phase, task, start = self._present
        self.seconds[phase] = self.seconds.get(phase, 0) + time.perf_counter() - start
        total = self._progress.tasks[task].total or 1
        self._progress.update(task, total=total, completed=total)
        self._present = None


@contextmanager
def quiet(phases: Phases, caveats: list[str] | None = None, reported: bool = False) -> Iterator[None]:
    """Show progress instead of what the libraries write; our own warnings become notes, and maybe caveats."""
    before = {name: logging.getLogger(name).level for name in LOG_LEVELS}
    for name, level in LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)

    def note(warning: Warning | str, *_: object) -> None:
        if isinstance(warning, ScrclWarning):
            message = phases.message(warning)
            if reported and "--report" in warning.command:  # there is one
                message = message.removesuffix(warning.command).strip()
            phases.note(message)
            if caveats is not None and isinstance(warning, PoorSupportWarning) and message not in caveats:
                caveats.append(message)

    with warnings.catch_warnings(), listening(phases):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", category=ScrclWarning)
        warnings.showwarning = note  # type: ignore[assignment]
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
