"""Map of domains at several scales."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from scrcl.data.columns import read_column
from scrcl.utils.checks import check_key
from scrcl.utils.errors import ScrclTypeError, ScrclValueError
from scrcl.utils.names import as_groups
from scrcl.utils.words import counted

from ._maps import palette, spatial


def domain_scales(
    adata: AnnData | MuData,
    scales: Sequence[str] | Mapping[str, str],
    spatial_key: str = "spatial",
    sample_key: str | None = None,
    **kwargs: Any,
) -> list[Axes]:
    """Plot domains at several scales, one map of the tissue for each, in matching colours.

    A domain has the colour of the domain at the scale before it with which it shares most cells, if no other domain shares
    more, so that what stays the same looks the same. The titles have the number of domains, and the adjusted Rand index with
    the scale before.

    Parameters
    ----------
    adata
        Cells of one or several slices.
    scales
        Keys of ``adata.obs`` with the domains at each scale, from small to large, of models that were trained with another
        ``spatial_smoothing`` each; or a dictionary of titles and keys.
    spatial_key
        Key of ``adata.obsm`` of the coordinates.
    sample_key
        Key of ``adata.obs`` of the slice of each cell, as in :func:`spatial`.
    **kwargs
        Passed to :func:`spatial`.

    Returns
    -------
    The axes: all slices at the first scale, then at the next.

    Raises
    ------
    KeyError
        If a key is missing.
    TypeError
        If ``scales`` is neither a list nor a dictionary.
    ValueError
        If there are fewer than two scales, or a scale is there twice.

    Examples
    --------
    >>> tissue = scrcl.datasets.layered_tissue(n_cells=300)
    >>> scrcl.SCRCL.setup_anndata(tissue, spatial_key="spatial", sample_key="slice")
    >>> for scale in ["60 units", "120 units"]:
    ...     spatial_model = scrcl.SCRCL(tissue, spatial_smoothing=scale)
    ...     spatial_model.train(2)
    ...     tissue.obs[scale] = spatial_model.get_clusters(n_clusters=5)
    >>> axes = scrcl.pl.domain_scales(tissue, ["60 units", "120 units"])
    """
    if "color" in kwargs:
        raise ScrclTypeError(
            f"color={kwargs['color']!r} is not an argument of `domain_scales`.", "Pass columns of domains as `scales`."
        )
    columns = _columns(scales)
    if sample_key is not None:
        check_key(sample_key, adata.obs, "sample_key", "adata.obs")
    domains = {title: as_groups(read_column(adata, key, "scales")) for title, key in columns.items()}
    colors = match_colors([values.codes for values in domains.values()])
    of_number = palette(max((max(numbers, default=0) + 1 for numbers in colors), default=1))
    check_key(spatial_key, adata.obsm, "spatial_key", "adata.obsm")
    titles = _titles(domains)
    cells = AnnData(obs=pd.DataFrame(dict(zip(titles, domains.values(), strict=True)), index=adata.obs_names))
    cells.obsm[spatial_key], cells.uns = adata.obsm[spatial_key], dict(adata.uns)
    for key in [sample_key, adata.uns.get("scrcl", {}).get("sample_key")]:
        if key is not None and key in adata.obs:
            cells.obs[key] = read_column(adata, key, "sample_key").to_numpy()
    for title, numbers in zip(titles, colors, strict=True):
        cells.uns[f"{title}_colors"] = [of_number[number] for number in numbers]
    axes = spatial(cells, color=titles, spatial_key=spatial_key, sample_key=sample_key, **kwargs)
    return axes if isinstance(axes, list) else [axes]


def match_colors(scales: Sequence[np.ndarray]) -> list[list[int]]:
    """Number of the colour of each domain at each scale, such that domains that share cells have the same.

    Parameters
    ----------
    scales
        ``(n,)`` domain of each cell at each scale, numbered from 0, negative for none.

    Returns
    -------
    Lists of numbers by domain. Two domains of one scale never have the same. Domains of consecutive scales are matched such
    that pairs share as many cells as possible; one without a partner has the lowest number that is free.
    """
    colors = [list(range(int(scales[0].max(initial=-1)) + 1))]
    for before, after in pairwise(scales):
        both = (before >= 0) & (after >= 0)
        shared = np.zeros((len(colors[-1]), int(after.max(initial=-1)) + 1), dtype=np.int64)
        np.add.at(shared, (before[both], after[both]), 1)
        numbers = np.full(shared.shape[1], -1)
        for old, new in zip(*linear_sum_assignment(-shared), strict=True):
            if shared[old, new]:
                numbers[new] = colors[-1][old]
        free = np.setdiff1d(np.arange(len(numbers) + len(colors[-1]) + int(numbers.max(initial=0)) + 1), numbers)
        numbers[numbers < 0] = free[: (numbers < 0).sum()]
        colors.append(numbers.tolist())
    return colors


def _columns(scales: object) -> dict[str, str]:
    """The key of ``obs`` by title."""
    if isinstance(scales, Mapping):
        columns = {str(title): key for title, key in scales.items()}
    elif isinstance(scales, Collection) and not isinstance(scales, str):
        columns = {str(key): key for key in scales}
    else:
        raise ScrclTypeError(
            f"scales={scales!r} is neither a list nor a dictionary.",
            "Pass the keys of adata.obs with the domains at each scale.",
        )
    if len(columns) < max(2, len(scales)):
        raise ScrclValueError(
            f"scales={scales!r} has {counted(len(columns), 'different scale')}.",
            "Pass the keys of adata.obs with the domains at two scales or more.",
        )
    return columns


def _titles(domains: Mapping[str, pd.Categorical]) -> list[str]:
    """Titles with the number of domains, and the adjusted Rand index with the scale before."""
    titles, before = [], None
    for title, values in domains.items():
        codes = values.codes
        number = len(np.unique(codes[codes >= 0]))
        text = f"{title}: {number} domain{'' if number == 1 else 's'}"
        if before is not None:
            both = (before >= 0) & (codes >= 0)
            text += f" (ARI {adjusted_rand_score(before[both], codes[both]):.2f})"
        titles.append(text)
        before = codes
    return titles
