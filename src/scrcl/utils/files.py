"""Files of tensors, numbers, text and plain containers: reading one runs no code that it holds."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import numpy as np
import torch

from .errors import ScrclTypeError


class UnsafeFileError(ValueError):
    """A file holds more than tensors, numbers, text and plain containers."""


class NotMade:
    """Stands for an object of an earlier file, which is not made: holds what it was to be made from."""

    parts: list[Any]

    def __new__(cls, *parts: Any) -> Self:
        """Keep the parts, whether the object was to be made by its class or by a function."""
        made = super().__new__(cls)
        made.parts = list(parts)
        return made

    def __setstate__(self, state: Any) -> None:
        self.parts.append(state)


class SavedType(NotMade):
    """A type of numbers or of objects."""

    def type(self) -> np.dtype:
        """The type, if it is one of numbers."""
        code, order = self.parts[0], self.parts[-1][1]
        return np.dtype(order.replace("|", "") + code)


class SavedArray(NotMade):
    """An array."""

    def array(self) -> np.ndarray:
        """The array, of numbers or of what its list holds."""
        _, shape, saved_type, by_column, values = self.parts[-1]
        order: Literal["F", "C"] = "F" if by_column else "C"
        if isinstance(values, list):
            array = np.empty(len(values), dtype=object)
            array[:] = [_made(value) for value in values]
            return array.reshape(shape, order=order)
        return np.frombuffer(values, dtype=saved_type.type()).reshape(shape, order=order).copy()


class SavedScalar(NotMade):
    """A number of NumPy."""

    def number(self) -> Any:
        """The number."""
        saved_type, value = self.parts
        return np.frombuffer(value, dtype=saved_type.type())[0].item()


def _empty(factory: type) -> dict:
    """A dictionary in the place of one with a default."""
    return {}


#: What is made in the place of what earlier files name; no function of theirs is run.
INSTEAD: dict[str, Any] = {
    "builtins.dict": dict,
    "builtins.slice": NotMade,
    "collections.defaultdict": _empty,
    "numpy.dtype": SavedType,
    "numpy.ndarray": NotMade,
} | {
    f"numpy.{core}.multiarray.{name}": made
    for core in ("core", "_core")
    for name, made in (("_reconstruct", SavedArray), ("scalar", SavedScalar))
}
#: Whatever else they hold of these, so that the versions of these do not matter.
NOT_MADE = ("pandas.", "pyarrow.")


def to_plain(value: Any, name: str) -> Any:
    """Turn arrays into tensors, names into text, and mappings into dictionaries, so that `torch.load` needs no code.

    Parameters
    ----------
    value
        Numbers, text, arrays of them, tensors, and any nesting of mappings, lists and tuples.
    name
        What it is, for messages.

    Raises
    ------
    TypeError
        If there is anything else in it.
    """
    if value is None or isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "biuf":
            # A copy where the array is not in order or may not be written to, which tensors cannot be made from.
            return torch.from_numpy(np.require(value, requirements=["C", "W"]))
        return [to_plain(item, name) for item in value.tolist()]
    if isinstance(value, Mapping):
        return {to_plain(key, name): to_plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [to_plain(item, f"{name}[{number}]") for number, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    raise ScrclTypeError(
        f"{name} is of type {type(value).__name__}, which cannot be saved.", "Pass numbers, text or plain lists."
    )


def from_plain(value: Any) -> Any:
    """Turn tensors back into arrays."""
    return value.numpy() if isinstance(value, torch.Tensor) else _nested(value, from_plain)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of :func:`torch.save`, on the CPU.

    Files of earlier versions hold NumPy arrays, which are put together from their numbers, and pandas objects, which
    are :class:`NotMade`.

    Raises
    ------
    UnsafeFileError
        If the file holds anything else, which making might run code.
    OSError, RuntimeError, ValueError, pickle.UnpicklingError
        If it is damaged, or no such file.
    """
    found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    unknown = [name for name in found if name not in INSTEAD and not name.startswith(NOT_MADE)]
    if unknown:
        raise UnsafeFileError(f"it holds {', '.join(sorted(unknown))}, by which code may be run")
    with torch.serialization.safe_globals([(INSTEAD.get(name, NotMade), name) for name in found]):
        content = _made(torch.load(path, map_location="cpu", weights_only=True))
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__} and no model")
    return content


def arrays_in(value: Any) -> list[np.ndarray]:
    """The arrays that an object that is not made was to be made from, in their order."""
    if isinstance(value, SavedArray):
        return [value.array()]
    if isinstance(value, NotMade):
        value = value.parts
    elif isinstance(value, Mapping):
        value = list(value.values())
    return [array for item in value for array in arrays_in(item)] if isinstance(value, list | tuple) else []


def _made(value: Any) -> Any:
    """Put arrays and numbers of earlier files together."""
    if isinstance(value, SavedArray):
        return value.array()
    if isinstance(value, SavedScalar):
        return value.number()
    return _nested(value, _made)


def _nested(value: Any, change: Callable[[Any], Any]) -> Any:
    """Change what is in containers."""
    if isinstance(value, Mapping):
        return {key: change(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [change(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value
