"""Files of tensors, numbers, text and plain containers, which are read without running code from them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from .errors import ScrclTypeError, ScrclValueError

#: What an object is saved as: numbers, text, arrays and containers of these, by name.
State: TypeAlias = dict[str, Any]


class UnsafeFileError(ValueError):
    """A file with objects other than tensors, numbers, text and plain containers."""


def as_path(path: object, argument: str) -> Path:
    """Return a path in which a leading ``~`` is the home of its user.

    Parameters
    ----------
    path
        Name of a file or folder.
    argument
        Name of the argument, for messages.

    Raises
    ------
    TypeError
        If it is no path.
    ValueError
        If it is an address.
    """
    if not isinstance(path, str | os.PathLike):
        raise ScrclTypeError(
            f"{argument} is of type {type(path).__name__}, not a path.", "Pass the name of a file or folder."
        )
    if "://" in os.fspath(path):
        raise ScrclValueError(
            f"{argument}={os.fspath(path)!r} is an address, not a file or folder.", "Name one on this machine."
        )
    return Path(os.path.expanduser(path))


def to_state(value: object) -> Any:
    """Turn dataclasses, sparse matrices and indexes, nested in any way, into dictionaries, lists and arrays.

    These do not depend on the classes. A class whose instances are saved in another form has `to_dict` and `from_dict`; the
    attribute ``kind`` distinguishes the subclasses of one class.
    """
    if isinstance(value, sp.csr_array):
        return {name: getattr(value, name) for name in ("data", "indices", "indptr", "shape")}
    if isinstance(value, pd.Index):
        return value.to_numpy(dtype=object)
    if isinstance(value, Mapping):
        return {key: to_state(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_state(item) for item in value]
    if not is_dataclass(value):
        return value
    if hasattr(value, "to_dict"):
        return value.to_dict()
    state = {field.name: to_state(getattr(value, field.name)) for field in fields(value)}
    return {**state, "kind": value.kind} if hasattr(value, "kind") else state


def from_state(kind: Any, state: Any) -> Any:
    """The inverse of :func:`to_state` for an object of the type ``kind``, which may be a type hint.

    Fields that the state lacks have their defaults.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if NoneType in arguments:
        return None if state is None else from_state(arguments[0], state)
    if origin is dict:
        return {key: from_state(arguments[1], item) for key, item in state.items()}
    if origin in (list, tuple, Sequence):
        items = [from_state(arguments[0], item) for item in state]
        return tuple(items) if origin is tuple else items
    if kind is sp.csr_array:
        return sp.csr_array((state["data"], state["indices"], state["indptr"]), shape=state["shape"])
    if kind is pd.Index:
        return pd.Index(state)
    if not is_dataclass(kind):
        return state
    if hasattr(kind, "from_dict"):
        return kind.from_dict(state)
    cls: Any = kind
    cls = next((sub for sub in cls.__subclasses__() if sub.kind == state["kind"]), cls)
    hints = get_type_hints(cls)
    return cls(**{f.name: from_state(hints[f.name], state[f.name]) for f in fields(cls) if f.name in state})


def to_plain(value: object, name: str) -> object:
    """Turn arrays into tensors, names into text, and mappings into dictionaries, so that `torch.load` runs no code.

    Parameters
    ----------
    value
        Numbers, text, arrays of them, tensors, and any nesting of mappings, lists and tuples.
    name
        Name of the value in messages.

    Raises
    ------
    TypeError
        If it contains anything else.
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
            # Tensors require arrays that are contiguous and writeable; others are copied.
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
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, Mapping):
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [from_plain(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def read(path: str | os.PathLike[str]) -> State:
    """Read a file of :func:`torch.save`, on the CPU.

    Raises
    ------
    UnsafeFileError
        If the file contains other objects, whose creation might run code.
    OSError, RuntimeError, ValueError, pickle.UnpicklingError
        If it is damaged, or not such a file.
    """
    unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    if unsafe:
        raise UnsafeFileError(f"it holds {', '.join(sorted(unsafe))}, by which code may be run")
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__} and no model")
    return content
