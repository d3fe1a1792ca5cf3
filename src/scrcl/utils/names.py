"""Names of categories, such as batches and labels, independent of the type of their values."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from .errors import ScrclTypeError

#: Whole numbers up to this are exact in double precision.
LARGEST_EXACT = 2**53


def as_name(value: object) -> str:
    """The name of one value: 1, 1.0 and ``"1"`` have the same name."""
    if type(value) is str:
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float | np.floating) and abs(float(value)) <= LARGEST_EXACT and float(value).is_integer():
        return str(int(value))
    # Timestamps of whole days are written as days.
    return str(value).removesuffix(" 00:00:00") if isinstance(value, pd.Timestamp) else str(value)


def as_names(values: object) -> np.ndarray:
    """Names ``(n,)`` of values of any type; ``None`` for missing values.

    Raises
    ------
    TypeError
        If values are containers.
    """
    try:
        codes, distinct = pd.factorize(_series(values))
    except TypeError as error:
        raise ScrclTypeError(
            f"Names of batches, labels, slices or genes are in containers ({error}).", "Pass text or numbers."
        ) from error
    return np.array([*map(as_name, distinct), None], dtype=object)[codes]


def as_groups(values: object) -> pd.Categorical:
    """Values ``(n,)`` of any type as categories by name, in the order of the values."""
    names = as_names(values)
    categories = dict.fromkeys(map(as_name, pd.Categorical(_series(values)).categories))
    return pd.Categorical(names, categories=list(categories))


def distinct(keys: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names ``(k,)``; those that several keys have are preceded by their key and a colon."""
    numbers = Counter(names)
    return [name if numbers[name] == 1 else f"{key}: {name}" for key, name in zip(keys, names, strict=True)]


def _series(values: object) -> pd.Series:
    """Values in the byte order of the machine, which pandas requires."""
    series = pd.Series(values)
    return series.astype(series.dtype.newbyteorder("=")) if isinstance(series.dtype, np.dtype) else series
