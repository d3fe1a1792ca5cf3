"""Maps of cells: of the latent space, and of tissue."""

import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from scrcl.data.sources import in_memory, read_column
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.utils import keys
from scrcl.utils.checks import check_key
from scrcl.utils.names import as_groups

from ._plots import _axes

#: Panels side by side, and inches of each.
N_COLUMNS, PANEL = 4, 3.6
#: Images of a slice, the one to prefer first.
RESOLUTIONS = ("hires", "lowres")


@overload
def umap(
    adata: AnnData | MuData,
    color: str = keys.CLUSTERS_KEY,
    basis: str = keys.LATENT_KEY,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes: ...


@overload
def umap(
    adata: AnnData | MuData,
    color: list[str] | tuple[str, ...],
    basis: str = keys.LATENT_KEY,
    ax: Axes | None = None,
    **kwargs: Any,
) -> list[Axes]: ...


def umap(
    adata: AnnData | MuData,
    color: str | list[str] | tuple[str, ...] = keys.CLUSTERS_KEY,
    basis: str = keys.LATENT_KEY,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes | list[Axes]:
    """Plot a UMAP of the latent space.

    The map is computed on the first call, kept in ``adata.obsm["X_scrcl_umap"]``, and computed anew when the latent
    representation has changed.

    Parameters
    ----------
    adata
        Data with the latent representation.
    color
        Key of ``adata.obs``, or name of a gene, to colour cells by; several for a panel of each. Genes of several
        modalities are named with theirs, ``"rna:Ins2"``.
    basis
        Key of ``adata.obsm`` of the latent representation.
    ax
        Axes to draw on; new ones by default.
    **kwargs
        Passed to :func:`scanpy.pl.embedding`, such as ``layer`` or ``use_raw`` for the values of genes.

    Returns
    -------
    The axes, or a list of them for several colours.

    Raises
    ------
    KeyError
        If ``color`` or ``basis`` is missing.
    ValueError
        If there are several colours for one ``ax``.

    Examples
    --------
    >>> ax = scrcl.pl.umap(adata)
    >>> axes = scrcl.pl.umap(adata, color=["scrcl", "bulk_labels", "CD79A"])
    """
    names = [color] if isinstance(color, str) else list(color)
    _check_one_panel(len(names), ax)
    values = _cells(adata, names, dict(kwargs))
    points = kept_umap(adata, basis)
    cells = adata if isinstance(adata, AnnData) and isinstance(adata.obs, pd.DataFrame) else values
    cells.obsm[keys.UMAP_KEY] = points
    options = {"frameon": False, **kwargs, "show": False}
    if len(names) == 1:
        ax = sc.pl.embedding(cells, keys.UMAP_KEY, color=names[0], **{"ax": _axes(ax), **options})
        assert isinstance(ax, Axes)
        return ax if isinstance(color, str) else [ax]
    return list(sc.pl.embedding(cells, keys.UMAP_KEY, color=names, **options))


def spatial(
    adata: AnnData | MuData,
    color: str | list[str] | tuple[str, ...] = keys.CLUSTERS_KEY,
    spatial_key: str = "spatial",
    sample_key: str | None = None,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes | list[Axes]:
    """Plot a map of the cells in each slice, on the image of the tissue where there is one.

    As in squidpy, the second coordinate points down, and images are taken from ``uns["spatial"]``, where they go by the
    name of the slice; a single one goes with a single slice.

    Parameters
    ----------
    adata
        Cells of one or several slices.
    color
        Key of ``adata.obs``, or name of a gene, to colour cells by; several for panels of each.
    spatial_key
        Key of ``adata.obsm`` of the coordinates, of which the first two are drawn, on the same scale.
    sample_key
        Key of ``adata.obs`` of the slice of each cell; each slice has its own panel. By default that of the model that
        was built on the data.
    ax
        Axes to draw on, for a single panel; new ones by default.
    **kwargs
        Passed to :func:`scanpy.pl.embedding`. ``size`` is relative to that of the spots where an image tells it.

    Returns
    -------
    The axes, or a list of them for several panels: slice by slice, for each colour in turn.

    Raises
    ------
    KeyError
        If ``color``, ``spatial_key`` or ``sample_key`` is missing.
    ValueError
        If there are several panels for one ``ax``, or images of several slices and nothing tells the slices of the cells.

    Examples
    --------
    >>> tissue = scrcl.datasets.layered_tissue(n_cells=100)
    >>> axes = scrcl.pl.spatial(tissue, color="domain", sample_key="slice")
    """
    names = [color] if isinstance(color, str) else list(color)
    check_key(spatial_key, adata.obsm, "spatial_key", "adata.obsm")
    slices = list(_slices(adata, sample_key or _known_sample_key(adata, spatial_key)))
    _check_one_panel(len(names) * len(slices), ax)
    cells = _cells(adata, names, kwargs)
    cells.obsm[spatial_key] = np.asarray(in_memory(adata.obsm[spatial_key]))[:, :2].astype(np.float64)
    _set_colors(cells, adata, names)
    drawn = []
    for place, name, spatial in zip(
        _panels(len(names), len(slices), ax), np.repeat(names, len(slices)), slices * len(names), strict=True
    ):
        title = spatial.name if spatial.name and len(names) == 1 else ", ".join(filter(None, (name, spatial.name)))
        options: dict[str, Any] = {"frameon": False, "title": title, **_scale(cells.obs[name])}
        if spatial is not slices[-1]:  # the last slice has the legend for all
            options |= {"legend_loc": None, "colorbar_loc": None}
        # Not a view, which would drop the categories that other slices have.
        part = AnnData(
            obs=cells.obs.iloc[spatial.rows],
            obsm={spatial_key: cells.obsm[spatial_key][spatial.rows]},
            uns=cells.uns,
        )
        _draw_slice(part, str(name), spatial_key, spatial, place, {**options, **kwargs})
        drawn.append(place)
    return drawn[0] if len(drawn) == 1 else drawn


class _Slice(NamedTuple):
    """Cells of a slice, and what is in ``uns["spatial"]`` of it."""

    name: str
    rows: np.ndarray
    library: Mapping[str, Any]


def _known_sample_key(adata: AnnData | MuData, spatial_key: str) -> str | None:
    """The slices of the model that was built on the data, if it has these coordinates."""
    parameters = adata.uns.get(keys.PARAMS_KEY, {})
    known = parameters.get("sample_key") if parameters.get("spatial_key") == spatial_key else None
    return known if known in adata.obs else None


def _libraries(entry: Any) -> dict[str, Mapping[str, Any]]:
    """The slices with an image, of an entry that may hold other things than slices, such as ``is_single`` of CELLxGENE."""
    libraries = entry.items() if isinstance(entry, Mapping) else ()
    slices = {str(name): library for name, library in libraries if isinstance(library, Mapping)}
    return {name: library for name, library in slices.items() if isinstance(library.get("images"), Mapping)}


def _slices(adata: AnnData | MuData, sample_key: str | None) -> Iterator[_Slice]:
    libraries = _libraries(adata.uns.get("spatial"))
    if sample_key is None:
        if len(libraries) > 1:
            raise ValueError(
                f"adata.uns['spatial'] has images of {len(libraries)} slices, {', '.join(map(repr, libraries))}. Say which "
                "cells are in which: `sample_key=...`, a key of adata.obs."
            )
        yield _Slice("", np.arange(adata.n_obs), next(iter(libraries.values()), {}))
        return
    check_key(sample_key, adata.obs, "sample_key", "adata.obs")
    samples = as_groups(read_column(adata.obs, sample_key, "adata.obs")).remove_unused_categories()
    for sample in samples.categories:
        alone = next(iter(libraries.values())) if len(libraries) == len(samples.categories) == 1 else {}
        yield _Slice(sample, np.flatnonzero(samples == sample), libraries.get(sample, alone))


def _draw_slice(
    cells: AnnData, name: str, spatial_key: str, spatial: _Slice, ax: Axes, options: dict[str, Any]
) -> None:
    images, factors = spatial.library.get("images", {}), spatial.library.get("scalefactors") or {}
    resolution = next((name for name in RESOLUTIONS if name in images), None)
    if resolution is not None:
        scale = float(factors.get(f"tissue_{resolution}_scalef", 1))
        diameter = factors.get("spot_diameter_fullres")
        if diameter is None:
            cells.obsm[spatial_key] = cells.obsm[spatial_key] * scale
        else:  # scanpy then draws circles, whose size is their radius in the image
            options |= {"scale_factor": scale, "size": options.get("size", 1.0) * scale * float(diameter) / 2}
    sc.pl.embedding(cells, spatial_key, color=name, **{**options, "show": False, "ax": ax})
    if resolution is not None:
        ax.imshow(images[resolution])
        height, width = images[resolution].shape[:2]
        ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    else:
        ax.set_aspect("equal")
        ax.invert_yaxis()


def _panels(n_colors: int, n_slices: int, ax: Axes | None) -> list[Axes]:
    """Axes, in a row for each colour if there are several."""
    number = n_colors * n_slices
    if number == 1:
        return [_axes(ax)]
    n_columns = min(number if n_colors == 1 or n_slices == 1 else n_slices, N_COLUMNS)
    n_rows = -(-number // n_columns)
    size = PANEL * n_columns, PANEL * n_rows
    panels = list(plt.subplots(n_rows, n_columns, squeeze=False, layout="constrained", figsize=size)[1].ravel())
    for empty in panels[number:]:
        empty.remove()
    return panels[:number]


def _check_one_panel(number: int, ax: Axes | None) -> None:
    if ax is not None and number != 1:
        raise ValueError(f"ax is for one panel, but there are {number}. Leave ax out, or draw them one by one.")


def _cells(data: AnnData | MuData, colors: Sequence[str], options: dict[str, Any]) -> AnnData:
    """What cells are coloured by, as columns of ``obs``; takes out the options that tell where values of genes are.

    Raises
    ------
    KeyError
        If a colour is neither in ``obs`` nor a gene.
    """
    places = {name: options.pop(name, None) for name in ("layer", "use_raw", "gene_symbols")}
    columns = [_values(data, name, places) for name in colors]
    return AnnData(obs=pd.DataFrame(dict(zip(colors, columns, strict=True)), index=data.obs_names))


def _values(data: AnnData | MuData, name: str, places: dict[str, Any]) -> pd.Series:
    if name in data.obs:
        return read_column(data.obs, name, "adata.obs")
    gene, source = name, data
    if isinstance(data, MuData):
        modality, _, gene = name.partition(":")
        source = data.mod.get(modality)
    if isinstance(source, AnnData):
        places = dict(places)
        if places["use_raw"] is None:
            places["use_raw"] = source.raw is not None and places["layer"] is None
        table = (source.raw if places["use_raw"] else source).var
        if gene in (table.index if places["gene_symbols"] is None else table[places["gene_symbols"]].array):
            return sc.get.obs_df(source, keys=[gene], **places)[gene]
    present = ", ".join(map(repr, data.obs.columns)) or "none"
    raise KeyError(f"color={name!r} is not in adata.obs, and is no name of a gene. Present in adata.obs: {present}.")


def _set_colors(cells: AnnData, data: AnnData | MuData, names: Sequence[str]) -> None:
    """Give categories the colours that they have in the data, or else scanpy's, for all panels and for later plots."""
    for name in names:
        values = cells.obs[name]
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            continue
        cells.obs[name] = values.astype("category")
        number, key = len(cells.obs[name].cat.categories), f"{name}_colors"
        colors = list(data.uns.get(key, ()))
        if len(colors) < number:
            palettes = (sc.pl.palettes.default_20, sc.pl.palettes.default_28, sc.pl.palettes.default_102)
            colors = next((palette[:number] for palette in palettes if len(palette) >= number), ["grey"] * number)
            if not data.is_view:
                data.uns[key] = colors
        cells.uns[key] = colors


def _scale(values: pd.Series) -> dict[str, float]:
    """One scale of colours for all slices."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return {}
    return {"vmin": float(values.min()), "vmax": float(values.max())}


def kept_umap(adata: AnnData | MuData, basis: str) -> np.ndarray:
    """The map ``(n, 2)`` of a latent representation, kept in the data and computed where it is not of that one."""
    check_key(basis, adata.obsm, "basis", "adata.obsm")
    latent = np.ascontiguousarray(in_memory(adata.obsm[basis]))
    source = zlib.crc32(latent.tobytes())
    if keys.UMAP_KEY not in adata.obsm or adata.uns.get(keys.UMAP_SOURCE_KEY) != source:
        adata.obsm[keys.UMAP_KEY] = umap_coordinates(latent)
        adata.uns[keys.UMAP_SOURCE_KEY] = source
    return np.asarray(in_memory(adata.obsm[keys.UMAP_KEY]))


def umap_coordinates(latent: np.ndarray, seed: int = 0) -> np.ndarray:
    """Two-dimensional UMAP coordinates ``(n, 2)`` of a latent representation ``(n, d)``, float32."""
    from umap import UMAP

    n_neighbors = min(15, len(latent) - 1)
    found = nearest_neighbors(latent, n_neighbors)
    itself = np.arange(len(latent))[:, None]
    # UMAP counts a point as its own nearest neighbour.
    indices = np.concatenate([itself, found.indices], 1)
    distances = np.concatenate([np.zeros_like(itself, dtype=np.float32), found.distances], 1)
    mapper = UMAP(n_neighbors=n_neighbors + 1, random_state=seed, n_jobs=1, precomputed_knn=(indices, distances, None))
    with warnings.catch_warnings():
        # New points will not be mapped, so that UMAP's search index is not missed.
        warnings.filterwarnings("ignore", message="precomputed_knn", category=UserWarning)
        return mapper.fit_transform(latent).astype(np.float32)
