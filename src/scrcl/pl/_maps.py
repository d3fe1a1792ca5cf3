"""Maps of cells: of the latent space, and of tissue."""

import logging
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from scrcl.data.columns import read_column
from scrcl.data.counts import Counts
from scrcl.data.sources import in_memory
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.utils import keys
from scrcl.utils.checks import Matrix, check_key, did_you_mean
from scrcl.utils.errors import ScrclKeyError, ScrclTypeError, ScrclValueError
from scrcl.utils.names import as_groups, as_names
from scrcl.utils.words import counted, listed

from ._panels import N_COLUMNS, draw_cells, legend_width, make_panels

logger = logging.getLogger("scvi.scrcl")
#: Resolutions of the image of a slice, the preferred one first.
RESOLUTIONS = ("hires", "lowres")
#: Options of scanpy that say where the values of genes are.
GENE_OPTIONS = ("layer", "use_raw", "gene_symbols")
#: Fewest cells of a UMAP, whose first coordinates are eigenvectors of their graph.
MIN_MAPPED = 5


def umap(
    adata: AnnData | MuData,
    color: str | Sequence[str] = keys.CLUSTERS_KEY,
    basis: str = keys.LATENT_KEY,
    ax: Axes | None = None,
    **kwargs: object,
) -> Axes | list[Axes]:
    """Plot a UMAP of the latent space.

    The map is computed on the first call, kept in ``adata.obsm["X_scrcl_umap"]``, and computed again if the latent
    representation has changed.

    Parameters
    ----------
    adata
        Data with the latent representation.
    color
        Key of ``adata.obs``, or name of a gene, by which cells are coloured; a list for one panel each. In a MuData, genes
        are named with their modality, ``"rna:Ins2"``. Counts of a gene are log-normalised, unless ``layer`` or ``use_raw``
        says what to draw: ``log(1 + c m / t)`` with the total ``t`` of the cell and the median ``m`` of all totals.
    basis
        Key of ``adata.obsm`` of the latent representation.
    ax
        Axes to draw on; new ones by default.
    **kwargs
        Passed to :func:`scanpy.pl.embedding`, such as ``layer`` or ``use_raw`` for the values of genes. With
        ``legend_loc="on data"``, the names of small clusters are beside them.

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
    names = _as_names(color)
    _check_one_panel(len(names), ax)
    cells = _color_values(adata, names, kwargs)
    points = kept_umap(adata, basis)
    _set_colors(cells, adata)
    cells.obsm[keys.UMAP_KEY] = points
    if kwargs.get("edges"):
        cells.obsp, cells.uns = adata.obsp, {**adata.uns, **cells.uns}
    if isinstance(mask := kwargs.get("mask_obs"), str):
        kwargs["mask_obs"] = read_column(adata, mask, "mask_obs").to_numpy()
    widths = [legend_width(cells.obs[name], kwargs) for name in names]
    panels = make_panels(len(names), min(len(names), N_COLUMNS), widths) if ax is None else [ax]
    for panel, name in zip(panels, names, strict=True):
        draw_cells(cells, keys.UMAP_KEY, name, panel, {"frameon": False, **kwargs})
    return panels[0] if isinstance(color, str) else panels


def spatial(
    adata: AnnData | MuData,
    color: str | Sequence[str] = keys.CLUSTERS_KEY,
    spatial_key: str = "spatial",
    sample_key: str | None = None,
    ax: Axes | None = None,
    **kwargs: object,
) -> Axes | list[Axes]:
    """Plot a map of the cells of each slice, on the image of the tissue if there is one.

    As in squidpy, the second coordinate points down, and images are taken from ``uns["spatial"]``, by the name of the
    slice. A single image is used for a single slice of any name.

    Parameters
    ----------
    adata
        Cells of one or several slices.
    color
        Key of ``adata.obs``, or name of a gene, by which cells are coloured; a list for panels of each.
    spatial_key
        Key of ``adata.obsm`` of the coordinates. The first two are drawn, on the same scale.
    sample_key
        Key of ``adata.obs`` of the slice of each cell; each slice has its own panel. By default, the one that the model of
        these data was set up with.
    ax
        Axes to draw on, for a single panel; new ones by default.
    **kwargs
        Passed to :func:`scanpy.pl.embedding`. On an image, ``size`` is relative to the size of the spots.

    Returns
    -------
    The axes, or a list of them for several panels: all slices of the first colour, then of the next.

    Raises
    ------
    KeyError
        If ``color``, ``spatial_key`` or ``sample_key`` is missing.
    ValueError
        If there are several panels for one ``ax``, or images of several slices but no ``sample_key``.

    Examples
    --------
    >>> tissue = scrcl.datasets.layered_tissue(n_cells=100)
    >>> axes = scrcl.pl.spatial(tissue, color="domain", sample_key="slice")
    """
    names = _as_names(color)
    check_key(spatial_key, adata.obsm, "spatial_key", "adata.obsm")
    slices = _slices(adata, sample_key or _setup_sample_key(adata, spatial_key))
    _check_one_panel(len(names) * len(slices), ax)
    cells = _color_values(adata, names, kwargs)
    points = _points(adata, spatial_key)
    _set_colors(cells, adata)
    widths = [legend_width(cells.obs[name], kwargs) for name in names]
    panels = _panels(len(names), len(slices), widths) if ax is None else [ax]
    for panel, (name, tissue) in zip(panels, product(names, slices), strict=True):
        titles = [tissue.name] if tissue.name and len(names) == 1 else [name, tissue.name]
        options: dict[str, object] = {"frameon": False, "title": ", ".join(filter(None, titles))}
        if pd.api.types.is_numeric_dtype(cells.obs[name]):  # one scale for all slices
            options |= {"vmin": cells.obs[name].min(), "vmax": cells.obs[name].max()}
        if tissue is not slices[-1]:  # the last slice has the legend for all
            options |= {"legend_loc": None, "colorbar_loc": None}
        # Not a view, which would drop the categories that only other slices have.
        part = AnnData(obs=cells.obs.iloc[tissue.rows], obsm={spatial_key: points[tissue.rows]}, uns=cells.uns)
        _draw_slice(part, spatial_key, tissue.library, panel, {**options, **kwargs, "color": name})
    return panels[0] if len(panels) == 1 else panels


def _as_names(color: object) -> list[str]:
    """The columns and genes of one or several panels."""
    names = [color] if isinstance(color, str) else list(color) if isinstance(color, Iterable) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise ScrclTypeError(
            f"color={color!r} names neither a column nor a gene.",
            "Pass a key of adata.obs or the name of a gene, or a list of them.",
        )
    return names


def _points(data: AnnData | MuData, key: str) -> np.ndarray:
    """The first two coordinates ``(n, 2)``, which may be missing for some cells."""
    where, values = f"adata.obsm[{key!r}]", in_memory(data.obsm[key])
    try:
        points = np.asarray(values.toarray() if sp.issparse(values) else values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ScrclValueError(
            f"{where} holds values other than numbers.", "Put x and y coordinates there.", where=where
        ) from error
    if points.ndim != 2 or points.shape[1] < 2 or len(points) == 0:
        raise ScrclValueError(
            f"{where} has the shape {points.shape}, not two or three columns of cells.",
            "Put x and y coordinates there.",
            where=where,
        )
    return points[:, :2]


class _Slice(NamedTuple):
    """Cells of a slice, and its entry in ``uns["spatial"]``."""

    name: str
    rows: np.ndarray
    library: Mapping[str, Mapping]


def _setup_sample_key(adata: AnnData | MuData, spatial_key: str) -> str | None:
    """The key of the slices that a model of these coordinates was set up with."""
    parameters = adata.uns.get(keys.PARAMS_KEY, {})
    key = parameters.get("sample_key") if parameters.get("spatial_key") == spatial_key else None
    return key if key in adata.obs else None


def _libraries(entry: object) -> dict[str, Mapping[str, Mapping]]:
    """The slices with an image, of an entry that may hold other things than slices, such as ``is_single`` of CELLxGENE."""
    libraries = entry.items() if isinstance(entry, Mapping) else ()
    slices = {str(name): library for name, library in libraries if isinstance(library, Mapping)}
    return {name: library for name, library in slices.items() if isinstance(library.get("images"), Mapping)}


def _slices(adata: AnnData | MuData, sample_key: str | None) -> list[_Slice]:
    libraries = _libraries(adata.uns.get("spatial"))
    if sample_key is None:
        if len(libraries) > 1:
            raise ScrclValueError(
                f"adata.uns['spatial'] has images of {len(libraries)} slices, {', '.join(map(repr, libraries))}.",
                "Pass the key of adata.obs with the slice of each cell: `sample_key=...`.",
                where="adata.uns['spatial']",
            )
        return [_Slice("", np.arange(adata.n_obs), next(iter(libraries.values()), {}))]
    samples = as_groups(read_column(adata, sample_key, "sample_key")).remove_unused_categories()
    single = next(iter(libraries.values())) if len(libraries) == len(samples.categories) == 1 else {}
    return [_Slice(name, np.flatnonzero(samples == name), libraries.get(name, single)) for name in samples.categories]


def _draw_slice(cells: AnnData, basis: str, library: Mapping[str, Mapping], ax: Axes, options: dict) -> None:
    images, factors = library.get("images", {}), library.get("scalefactors") or {}
    resolution = next((name for name in RESOLUTIONS if name in images), None)
    if resolution is not None:
        scale, diameter = float(factors.get(f"tissue_{resolution}_scalef", 1)), factors.get("spot_diameter_fullres")
        if diameter is None:
            cells.obsm[basis] = cells.obsm[basis] * scale
        else:  # scanpy then draws circles, whose size is their radius in the image
            options |= {"scale_factor": scale, "size": options.get("size", 1.0) * scale * float(diameter) / 2}
    color = str(options.pop("color"))
    draw_cells(cells, basis, color, ax, options)
    if resolution is None:
        ax.set_aspect("equal")
        ax.invert_yaxis()
    else:
        ax.imshow(images[resolution])
        height, width = images[resolution].shape[:2]
        ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _panels(n_colors: int, n_slices: int, widths: Sequence[float]) -> list[Axes]:
    """Axes: one row for each colour, or a single row of slices or of colours, which is broken if it is long."""
    number = n_colors * n_slices
    n_columns = min(n_slices if n_slices > 1 else n_colors, N_COLUMNS)
    # Of several slices, the last one has the legend.
    each = [width if slice_ == n_slices - 1 else 0.0 for width in widths for slice_ in range(n_slices)]
    return make_panels(number, n_columns, each)


def _check_one_panel(number: int, ax: Axes | None) -> None:
    if ax is not None and number != 1:
        raise ScrclValueError(
            f"ax is for one panel, but there are {number}.", "Leave out `ax`, or draw the panels one by one."
        )


def _color_values(data: AnnData | MuData, colors: Sequence[str], options: dict[str, object]) -> AnnData:
    """The values by which cells are coloured, as columns of ``obs``; removes ``GENE_OPTIONS`` from the options.

    Raises
    ------
    KeyError
        If a colour is neither in ``obs`` nor a gene.
    """
    places = {name: options.pop(name, None) for name in GENE_OPTIONS}
    return AnnData(obs=pd.DataFrame({name: _values(data, name, places) for name in colors}, index=data.obs_names))


def _values(data: AnnData | MuData, name: str, places: Mapping[str, object]) -> pd.Series:
    if name in data.obs:
        return read_column(data, name, "color")
    modality, _, gene = name.partition(":") if isinstance(data, MuData) else ("", "", name)
    source = data.mod.get(modality) if isinstance(data, MuData) else data
    if source is not None:
        where = f"mdata[{modality!r}]" if isinstance(data, MuData) else "adata"
        for argument, slot in (("layer", "layers"), ("gene_symbols", "var")):
            if places[argument] is not None:
                check_key(str(places[argument]), getattr(source, slot), argument, f"{where}.{slot}")
        values = _values_of_gene(source, gene, places, where)
        if values is not None:
            return values
    if isinstance(data, MuData):
        of = next((key for key, part in data.mod.items() if gene in part.var_names or name in part.var_names), None)
        if of is not None:
            known = name if name in data.mod[of].var_names else gene
            raise ScrclKeyError(
                f"color={name!r} is not in mdata.obs, and does not name a modality.",
                f"Name it with the gene: {f'{of}:{known}'!r}.",
            )
    present = list(data.obs.columns)
    similar = did_you_mean(gene, [*present, *([] if source is None else source.var_names)])
    column = None if source is None else _column_of(source, gene)
    raise ScrclKeyError(
        f"color={name!r} is not in adata.obs, and is not the name of a gene.",
        f"Present in adata.obs: {', '.join(map(repr, present)) or 'none'}.{similar}"
        if column is None
        else f"It is in a column of var: pass `gene_symbols={column!r}`.",
        where="adata.obs",
    )


def _values_of_gene(data: AnnData, gene: str, places: Mapping[str, object], where: str) -> pd.Series | None:
    """The values of a gene where scanpy's plots look for them, if it is there; counts are log-normalised if no place is asked for."""
    layer, use_raw, symbols = places["layer"], places["use_raw"], places["gene_symbols"]
    if use_raw is None:
        use_raw = data.raw is not None and layer is None
    table = data.raw if use_raw else data
    names = table.var_names if symbols is None else pd.Index(as_names(in_memory(table.var[symbols])))
    columns = np.flatnonzero(names == gene)
    if len(columns) == 0:
        return None
    if len(columns) > 1:
        raise ScrclValueError(
            f"color={gene!r} is the name of {len(columns)} genes.",
            f"Make names unique first: `{where}.var_names_make_unique()`."
            if symbols is None
            else f"Name one of them as in var_names, and leave out `gene_symbols`: {listed([repr(name) for name in table.var_names[columns]], 5)}.",
        )
    part = table[:, columns]
    column = in_memory(part.X if use_raw or layer is None else part.layers[layer])
    values = pd.Series(np.asarray(column.todense() if sp.issparse(column) else column).ravel(), data.obs_names)
    return values if layer is not None or places["use_raw"] is not None else _logarithms(values, table.X)


def _column_of(data: AnnData, gene: str) -> str | None:
    """The column of ``var`` that has a name, if there is one."""
    return next((key for key in data.var.columns if (in_memory(data.var[key]) == gene).any()), None)


def _logarithms(values: pd.Series, matrix: Matrix) -> pd.Series:
    """Log-normalised values of a gene, if they are counts of the matrix."""
    counts = values.to_numpy(np.float64)
    if not counts.any() or (counts < 0).any() or (counts % 1).any():
        return values
    try:
        totals = np.concatenate([block.sum(1) for _, block in Counts.of(matrix, "adata.X").blocks()])
    except ScrclValueError:  # only this gene has whole numbers
        return values
    return pd.Series(np.log1p(counts * np.median(totals) / np.maximum(totals, 1)), values.index)


def _set_colors(cells: AnnData, data: AnnData | MuData) -> None:
    """Give categories the colours that they have in the data, or else scanpy's, for all panels and for later plots."""
    for name, values in cells.obs.items():
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            continue
        try:
            cells.obs[name] = values.astype("category")
        except TypeError as error:
            raise ScrclTypeError(
                f"color={name!r} is a column of containers ({error}).", "Pass one of text or numbers."
            ) from error
        number, key = len(cells.obs[name].cat.categories), f"{name}_colors"
        colors = list(data.uns.get(key, ()))
        if len(colors) < number:
            colors = palette(number)
            if not data.is_view:
                data.uns[key] = colors
        cells.uns[key] = colors


def palette(number: int) -> list[str]:
    """Colours of scanpy for a number of categories."""
    palettes = (sc.pl.palettes.default_20, sc.pl.palettes.default_28, sc.pl.palettes.default_102)
    return next((list(colors[:number]) for colors in palettes if len(colors) >= number), ["grey"] * number)


def kept_umap(adata: AnnData | MuData, basis: str) -> np.ndarray:
    """The map ``(n, 2)`` of a latent representation: the one kept in the data, or a new one if that is of another one."""
    check_key(basis, adata.obsm, "basis", "adata.obsm")
    latent = np.ascontiguousarray(in_memory(adata.obsm[basis]))
    source = zlib.crc32(latent.tobytes())
    if keys.UMAP_KEY not in adata.obsm or adata.uns.get(keys.UMAP_SOURCE_KEY) != source:
        adata.obsm[keys.UMAP_KEY] = umap_coordinates(latent)
        adata.uns[keys.UMAP_SOURCE_KEY] = source
    return np.asarray(in_memory(adata.obsm[keys.UMAP_KEY]))


def umap_coordinates(latent: np.ndarray, seed: int = 0) -> np.ndarray:
    """Two-dimensional UMAP coordinates ``(n, 2)`` of a latent representation ``(n, d)``, float32; announced in the log."""
    if len(latent) < MIN_MAPPED:
        raise ScrclValueError(
            f"A map of {counted(len(latent), 'point')} cannot be drawn.",
            f"Pass at least {MIN_MAPPED} cells or genes.",
        )
    logger.info(
        f"UMAP of {counted(len(latent), 'cell')}. The first one in a process takes about 15 seconds more, to compile it."
    )
    from umap import UMAP

    n_neighbors = min(15, len(latent) - 1)
    neighbors = nearest_neighbors(latent, n_neighbors)
    # UMAP counts a point as its own nearest neighbour.
    indices = np.column_stack([np.arange(len(latent)), neighbors.indices])
    distances = np.column_stack([np.zeros(len(latent), dtype=np.float32), neighbors.distances])
    mapper = UMAP(n_neighbors=n_neighbors + 1, random_state=seed, n_jobs=1, precomputed_knn=(indices, distances, None))
    with warnings.catch_warnings():
        # No new points will be mapped, so UMAP's search index is not needed.
        warnings.filterwarnings("ignore", message="precomputed_knn", category=UserWarning)
        return mapper.fit_transform(latent).astype(np.float32)
