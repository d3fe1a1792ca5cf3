"""Words of messages that depend on a number or on how many things are named."""

from collections.abc import Sequence


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number and what is counted: ``1 cell``, ``2,000 cells``.

    Parameters
    ----------
    number
        How many there are.
    singular
        Word after 1; with its verb where there is one, such as ``cell lacks``.
    plural
        Word after other numbers, such as ``cells lack``; ``singular`` with an s by default.
    """
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def listed(names: Sequence[str], most: int | None = None) -> str:
    """Names in a sentence: ``a``, ``a and b``, ``a, b and c``; after ``most``, how many more there are."""
    if most is not None and len(names) > most:
        names = [*names[:most], f"{len(names) - most:,} more"]
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
