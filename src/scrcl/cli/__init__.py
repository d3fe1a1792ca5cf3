"""The command line: ``scrcl run``, ``scrcl predict``, ``scrcl names`` and ``scrcl demo``.

What takes seconds to import is imported when the arguments are known to be right.
"""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from .config import NamesConfig, PredictConfig, RunConfig
from .errors import OPTIONS, RUN_OPTIONS
from .options import parse
from .paths import check_paths
from .progress import Phases

if TYPE_CHECKING:
    from .names import Named
    from .predict import Predicted
    from .summary import Summary


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments; by default the arguments of the process.

    Returns
    -------
    Exit status: 0 success, 1 an error that is explained on standard error, 130 interrupted.

    Raises
    ------
    SystemExit
        With status 2 after wrong usage, 0 after help.
    """
    config = parse(sys.argv[1:] if argv is None else argv)
    # Results go to standard output; progress and errors to standard error.
    # Names of files, types and clusters may look like markup.
    results, console = (Console(stderr=stderr, markup=False, emoji=False, highlight=False) for stderr in (False, True))
    phases = Phases(console, config.input, RUN_OPTIONS if isinstance(config, RunConfig) else OPTIONS)
    try:
        check_paths(config)
        with phases:
            phases.begin("loading")
            result = _work(config, phases)
    except Exception as error:  # noqa: BLE001 (no traceback for users)
        message = phases.message(error)
        if phases.written:
            message += f" Written: {', '.join(phases.written)}."
        _print_error(console, message)
        if config.json:
            print(json.dumps({"error": message}))
        return 1
    except KeyboardInterrupt:
        console.print(f"Interrupted. Written: {', '.join(phases.written) or 'nothing'}.", soft_wrap=True)
        return 130
    if config.json:
        print(json.dumps(result.as_json(), indent=2, default=str))
    else:
        result.print(results)
    if result.missing:
        missing = "; ".join(f"{what}: {reason}" for what, reason in result.missing.items())
        _print_error(console, f"{config.output} is written. Missing beside it: {missing}")
    return 1 if result.missing else 0


def _print_error(console: Console, message: str) -> None:
    console.print("error: ", style="bold red", end="")
    console.print(message, soft_wrap=True)


def _work(config: RunConfig | PredictConfig | NamesConfig, phases: Phases) -> "Summary | Predicted | Named":
    if isinstance(config, NamesConfig):
        from .names import name

        return name(config, phases)
    if isinstance(config, PredictConfig):
        from .predict import predict

        return predict(config, phases)
    from .run import run

    return run(config, phases)
