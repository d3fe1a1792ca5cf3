"""Errors and warnings as objects: what is wrong, where, and what to do; Python and the command line each render them."""

import re
from collections.abc import Mapping


class _Message(Exception):
    """The fields of an error or a warning.

    Parameters
    ----------
    what
        One sentence that says what is wrong: ``<argument>=<value> <what is wrong>.``
    remedy
        What to do about it in Python, as sentences; code in backticks must work when typed.
    command
        The same for the command line; by default ``remedy`` where this holds no code, else nothing.
    where
        The place in the data that ``what`` names, as Python writes it, such as ``adata.layers['counts']``.
    options
        Option of each further argument that ``what`` names, such as ``{"n_clusters": "--n-clusters"}``.
    """

    def __init__(
        self,
        what: str,
        remedy: str = "",
        *,
        command: str | None = None,
        where: str = "",
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.what, self.remedy, self.where, self.options = what, remedy, where, dict(options or {})
        self.command = ("" if "`" in remedy else remedy) if command is None else command
        super().__init__(" ".join(part for part in (what, remedy) if part))

    def __str__(self) -> str:
        # KeyError shows the representation of its argument, which escapes quotes.
        return " ".join(part for part in (self.what, self.remedy) if part)

    def __reduce__(self) -> tuple:
        return _restore, (type(self), self.__dict__)

    def as_command(self, source: str, options: Mapping[str, str] | None = None) -> str:
        """The message for users of the command line.

        Parameters
        ----------
        source
            The file that was read; it stands for the data.
        options
            Option of each argument by which ``what`` may begin.
        """
        # The place apart, so that no name in it is taken for an argument.
        parts = self.what.split(self.where) if self.where else [self.what]
        argument = re.split("[= ]", parts[0], maxsplit=1)[0]
        parts[0] = (options or {}).get(argument, argument) + parts[0].removeprefix(argument)
        for argument, option in self.options.items():
            parts = [part.replace(argument, option) for part in parts]
        what = _in_file(self.where, source).join(parts)
        return " ".join(part for part in (what, self.command) if part)


def _in_file(where: str, source: str) -> str:
    """A place in the data as one in the file: ``adata.X`` is ``X of counts.h5ad``."""
    owner, bracket, place = where.partition("['")
    if owner == "mdata" and bracket:
        modality, _, place = place.partition("']")
        source = f"the modality {modality!r} of {source}"
    else:
        _, _, place = where.partition(".")
    return f"{place.removeprefix('.')} of {source}" if place else source


def _restore(kind: type[_Message], state: dict) -> _Message:
    message = kind.__new__(kind)
    message.__dict__.update(state)
    return message


class ScrclError(_Message):
    """Something that the user can put right. Raised as one of its kinds, which are also exceptions of Python."""


class ScrclValueError(ScrclError, ValueError):
    """An argument or data with an unsuitable value."""


class ScrclTypeError(ScrclError, TypeError):
    """An argument of an unsuitable type, or one that does not exist."""


class ScrclKeyError(ScrclError, KeyError):
    """A key or name that is not there."""


class ScrclWarning(_Message, UserWarning):
    """Something that the user should know, in the same form."""


class PoorSupportWarning(ScrclWarning):
    """A result that the data support poorly."""
