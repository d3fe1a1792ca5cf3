"""Errors in the words of the command line."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from scrcl.utils.errors import ScrclError, ScrclWarning

from .config import NamesConfig, PredictConfig, RunConfig

#: Option of each argument.
OPTIONS = {
    field.name: f"--{field.name.replace('_', '-')}"
    for config in (RunConfig, PredictConfig, NamesConfig)
    for field in fields(config)
}
OPTIONS |= {"max_epochs": "--epochs", "accelerator": "--device", "dir_path": "MODEL"}
#: The same for ``scrcl run``, whose ``--markers`` is a file to write.
RUN_OPTIONS = OPTIONS | {"markers": "--names"}


class UserError(ScrclError):
    """An error that the command line finds, with a remedy for its users."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy, command=remedy)


def as_message(
    error: BaseException | ScrclWarning, source: Path | None = None, options: Mapping[str, str] = OPTIONS
) -> str:
    """Render an error or a warning for a user of the command line.

    Parameters
    ----------
    error
        What was raised.
    source
        The file that was read.
    options
        Option of each argument by which the message may begin.
    """
    if isinstance(error, ScrclError | ScrclWarning):
        # Errors of the command line name options, and files, which may be called like an argument.
        return error.as_command(str(source or "the data"), None if isinstance(error, UserError) else options)
    message = str(error)
    if isinstance(error, MemoryError) or "out of memory" in message:
        return "There is not enough memory. Pass a smaller `--batch-size`, `--device cpu`, or fewer cells."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename is not None else f"{error.strerror}."
    return f"Unexpected {type(error).__name__}: {message.rstrip('.')}. Please report it, with the command."
