"""Tables of SpatialData objects, with the coordinates of their cells."""

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from anndata import AnnData

from scrcl.utils.checks import check_key
from scrcl.utils.errors import ScrclTypeError, ScrclValueError
from scrcl.utils.names import as_names
from scrcl.utils.public import public
from scrcl.utils.words import counted

#: ``uns`` key under which SpatialData keeps which elements a table annotates.
ATTRIBUTES_KEY = "spatialdata_attrs"
#: ``obsm`` key of coordinates.
SPATIAL_KEY = "spatial"


@public
def from_spatialdata(
    sdata: Any, table: str | None = None, coordinate_system: str | Mapping[str, str] | None = None
) -> AnnData:
    """Take a table and the coordinates of its cells from a SpatialData object.

    Parameters
    ----------
    sdata
        A :class:`spatialdata.SpatialData`.
    table
        Name of the table; may be left out where there is only one.
    coordinate_system
        Coordinate system in which the cells are located, by the centroids of the shapes, points or labels that the table
        annotates, or one of each of these elements by its name; this needs spatialdata. By default the coordinates that the
        table itself has in ``obsm["spatial"]``, or else the centroids in ``"global"``, and in their only system for elements
        that have no such one, as :func:`spatialdata.concatenate` makes them.

    Returns
    -------
    A copy of the table, with coordinates in ``obsm["spatial"]``. The column of ``obs`` that names the annotated element of
    each cell, ``"region"`` by default there, distinguishes slices: pass it as ``sample_key``.

    Raises
    ------
    TypeError
        If ``sdata`` is no SpatialData object.
    KeyError
        If there is no such table, element or coordinate system.
    ValueError
        If there is no table, or there are several and none is named, or cells cannot be located.
    ImportError
        If centroids are needed and spatialdata is not installed.

    Examples
    --------
    >>> adata = scrcl.from_spatialdata(sdata)
    >>> scrcl.SCRCL.setup_anndata(adata, spatial_key="spatial", sample_key="region")
    """
    tables = getattr(sdata, "tables", None)
    if tables is None:
        raise ScrclTypeError(f"sdata must be a SpatialData object, not {type(sdata).__name__}.")
    names = ", ".join(map(repr, tables.keys()))
    if table is None:
        if not names:
            raise ScrclValueError(
                "sdata has no table.",
                "Add one of its cells: `sdata['table'] = spatialdata.models.TableModel.parse(adata)`.",
            )
        if len(tables) != 1:
            raise ScrclValueError(f"sdata has {len(tables)} tables, {names}.", "Name one: `table=...`.")
        table = next(iter(tables.keys()))
    check_key(table, tables, "table", "sdata.tables")
    adata = tables[table].copy()
    if coordinate_system is None and SPATIAL_KEY in adata.obsm:
        return adata
    adata.obsm[SPATIAL_KEY] = _centroids(sdata, adata, table, coordinate_system)
    return adata


def _centroids(sdata: Any, adata: AnnData, table: str, systems: str | Mapping[str, str] | None) -> np.ndarray:
    """Centroids ``(n, 2)`` or ``(n, 3)`` of the elements that the rows of a table annotate."""
    attributes = adata.uns.get(ATTRIBUTES_KEY) or {}
    region_key, instance_key = attributes.get("region_key"), attributes.get("instance_key")
    if region_key is None or instance_key is None:
        raise ScrclValueError(
            f"The table {table!r} annotates no elements of sdata, so that its cells cannot be located.",
            f"Put their coordinates into `sdata[{table!r}].obsm['spatial']`.",
        )
    try:
        from spatialdata import get_centroids
        from spatialdata.transformations import get_transformation
    except ImportError as error:
        raise ImportError(
            f"The table {table!r} has no coordinates of its own, and the centroids of the elements that it annotates require "
            "spatialdata: `pip install spatialdata`."
        ) from error
    for key in (region_key, instance_key):
        check_key(key, adata.obs, ATTRIBUTES_KEY, f"sdata[{table!r}].obs")
        missing = int(adata.obs[key].isna().sum())
        if missing:
            raise ScrclValueError(
                f"{key!r} is missing for {missing:,} of {counted(adata.n_obs, 'cell')} of the table {table!r}.",
                f"Leave these out: `sdata[{table!r}] = sdata[{table!r}][sdata[{table!r}].obs[{key!r}].notna()].copy()`.",
            )
    regions, instances = adata.obs[region_key], adata.obs[instance_key]
    elements = [name for kind in ("shapes", "points", "labels") for name in getattr(sdata, kind, {})]
    if isinstance(systems, Mapping):
        for region in regions.unique():
            check_key(region, systems, "The region", "coordinate_system")
    positions: dict[str, np.ndarray] = {}
    for region in regions.unique():
        check_key(region, dict.fromkeys(elements), f"The region that the table {table!r} annotates,", "sdata")
        wanted = systems[region] if isinstance(systems, Mapping) else systems
        present = list(get_transformation(sdata[region], get_all=True))
        system = wanted or (present[0] if len(present) == 1 else "global")
        where = f"the coordinate systems of the element {region!r}"
        check_key(system, dict.fromkeys(present), "coordinate_system", where)
        found = get_centroids(sdata[region], coordinate_system=system).compute()
        rows = np.flatnonzero(regions == region)
        if not found.index.is_unique:
            raise ScrclValueError(
                f"The index of the element {region!r} repeats {counted(int(found.index.duplicated().sum()), 'identifier')}.",
                f"Keep one of each: `sdata[{region!r}] = sdata[{region!r}][~sdata[{region!r}].index.duplicated()]`.",
            )
        at = found.index.get_indexer(instances.iloc[rows])
        if (at < 0).any():
            _refuse_unlocated(table, region, list(regions.unique()), instances.iloc[rows], found.index, at)
        positions[region] = found.to_numpy(dtype=np.float64)[at]
    if len({centroids.shape[1] for centroids in positions.values()}) != 1:
        raise ScrclValueError(
            f"Elements of the table {table!r} have coordinates in two and in three dimensions.",
            "Keep the rows of elements with the same dimensions.",
        )
    order = np.concatenate([np.flatnonzero(regions == region) for region in positions])
    return np.concatenate(list(positions.values()))[np.argsort(order)]


def _refuse_unlocated(
    table: str, region: str, regions: list[str], instances: pd.Series, index: pd.Index, at: np.ndarray
) -> NoReturn:
    """Refuse rows of a table without a shape, and say whether identifiers are of another type."""
    if (at < 0).all() and np.isin(as_names(instances), as_names(index)).any():
        column = f"sdata[{table!r}].obs[{instances.name!r}]"
        kind = "str" if index.dtype == object else str(index.dtype)
        raise ScrclValueError(
            f"Identifiers of cells are of type {instances.dtype} in the table {table!r} and of type {index.dtype} in the element "
            f"{region!r}, so that none is found.",
            f"Make them the same: `{column} = {column}.astype({kind!r})`.",
        )
    remedy = (
        f"sdata[{table!r}] = spatialdata.join_spatialelement_table(sdata=sdata, spatial_element_names={regions!r}, "
        f"table_name={table!r}, how='inner')[1]"
    )
    raise ScrclValueError(
        f"{counted((at < 0).sum(), 'cell')} of the table {table!r} {'is' if (at < 0).sum() == 1 else 'are'} not in the element {region!r}.",
        f"Keep the others: `{remedy}`.",
    )
