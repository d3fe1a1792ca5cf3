"""The command line: ``scrcl run``, ``scrcl predict`` and ``scrcl demo``.

What takes seconds to import is imported when the arguments are known to be right.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from rich.console import Console

from .errors import in_options
from .options import check_paths, parse
from .progress import Phases


class Result(Protocol):
    """What a command found.

    Attributes
    ----------
    missing
        What could not be made beside the output, and why.
    """

    missing: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """In plain containers."""

    def print(self, console: Console) -> None:
        """As tables."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments; those of the process by default.

    Returns
    -------
    Exit status: 0 success, 1 an error that is explained on standard error, 2 wrong usage, 130 interrupted.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = parse(argv)
    # Results go to standard output; progress and errors to standard error.
    # Names of files, types and clusters may look like markup.
    results, console = (Console(stderr=stderr, markup=False, emoji=False, highlight=False) for stderr in (False, True))
    phases = Phases(console)
    try:
        check_paths(arguments)
        with phases:
            phases.begin("loading")
            found = _work(arguments, shlex.join(["scrcl", *argv]), phases)
    except Exception as error:  # noqa: BLE001 (no traceback, whatever it is)
        message = in_options(error, getattr(arguments, "input", None))
        if phases.written:
            message += f" Written: {', '.join(phases.written)}."
        _print_error(console, message)
        if arguments.json:
            print(json.dumps({"error": message}))
        return 1
    except KeyboardInterrupt:
        console.print(f"Interrupted. Written: {', '.join(phases.written) or 'nothing'}.", soft_wrap=True)
        return 130
    if arguments.json:
        print(json.dumps(found.as_json(), indent=2, default=str))
    else:
        found.print(results)
    if found.missing:
        missing = "; ".join(f"{what}: {reason}" for what, reason in found.missing.items())
        _print_error(console, f"{arguments.output} is written. What is missing beside it: {missing}")
    return 1 if found.missing else 0


def _print_error(console: Console, message: str) -> None:
    console.print("error: ", style="bold red", end="")
    console.print(message, soft_wrap=True)


def _work(arguments: argparse.Namespace, command: str, phases: Phases) -> Result:
    if arguments.command == "predict":
        from .predict import predict

        return predict(arguments, command, phases)
    from .run import run

    return run(arguments, command, phases)
