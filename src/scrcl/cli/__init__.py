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

from .errors import UserError, in_options
from .options import check_paths, parse
from .progress import Phases


class Result(Protocol):
    """What a command found."""

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
    results, console = Console(), Console(stderr=True)
    try:
        check_paths(arguments)
        with Phases(console) as phases:
            phases.begin("loading")
            found = _work(arguments, shlex.join(["scrcl", *argv]), phases)
    except (UserError, ValueError, KeyError, TypeError, OSError, MemoryError, RuntimeError) as error:
        message = in_options(error, getattr(arguments, "input", None))
        console.print("[bold red]error:[/] ", end="")
        console.print(message, markup=False, highlight=False, soft_wrap=True)
        if arguments.json:
            print(json.dumps({"error": message}))
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted. Nothing was written.")
        return 130
    if arguments.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        found.print(results)
    return 0


def _work(arguments: argparse.Namespace, command: str, phases: Phases) -> Result:
    if arguments.command == "predict":
        from .predict import predict

        return predict(arguments, command, phases)
    from .run import run

    return run(arguments, command, phases)
