"""Features of several modalities side by side, and one name for each of their variables."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.preprocessing import normalize

from .features import column_slices
from .modality import Modality
from .spatial import SpatialReference


def n_inputs(modalities: Mapping[str, Modality], spatial: SpatialReference | None) -> list[int]:
    """Number of features of each modality that the model reads: in space, only those that vary there."""
    numbers = [modality.n_features for modality in modalities.values()]
    return numbers if spatial is None else [int(spatial.kept[part].sum()) for part in column_slices(numbers)]


def neighbor_features(
    modalities: Mapping[str, Modality], parts: Sequence[np.ndarray], spatial: SpatialReference | None
) -> list[np.ndarray]:
    """Features of each modality for the neighbour search, from its features ``(n, d_m)``."""
    if spatial is not None:
        return [normalize(part) for part in parts]
    return [modality.neighbor_features(part) for modality, part in zip(modalities.values(), parts, strict=True)]


def side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Features ``(n, d_m)`` of modalities in one array; no copy of a single one."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, 1)


def split_features(features: np.ndarray, numbers: Sequence[int]) -> list[np.ndarray]:
    """The inverse of :func:`side_by_side`, for modalities with these numbers of features."""
    return [features[:, part] for part in column_slices(numbers)]


def joint_names(variables: dict[str, pd.Index]) -> pd.Index:
    """One name for each variable of all modalities."""
    if len(variables) == 1:
        return next(iter(variables.values()))
    names: dict[str, None] = {}
    for modality, modality_names in variables.items():
        taken = set(names)
        names |= dict.fromkeys(f"{modality}:{name}" if name in taken else name for name in modality_names)
    return pd.Index(list(names))
