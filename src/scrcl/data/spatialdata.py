"""Tables of SpatialData objects, with the coordinates of their cells."""

from typing import Any

import numpy as np
from anndata import AnnData

from scrcl.utils.checks import check_key

#: ``uns`` key under which SpatialData keeps which elements a table annotates.
ATTRIBUTES_KEY = "spatialdata_attrs"
#: ``obsm`` key of coordinates.
SPATIAL_KEY = "spatial"


def from_spatialdata(sdata: Any, table: str | None = None, coordinate_system: str | None = None) -> AnnData:
    """Take a table and the coordinates of its cells from a SpatialData object.

    Parameters
    ----------
    sdata
        A :class:`spatialdata.SpatialData`.
    table
        Name of the table; may be left out where there is only one.
    coordinate_system
        Coordinate system in which the cells are located, by the centroids of the shapes, points or labels that the table
        annotates; this needs spatialdata. By default the coordinates that the table itself has in
        ``obsm["spatial"]``, or else the centroids in ``"global"``.

    Returns
    -------
    A copy of the table, with coordinates in ``obsm["spatial"]``. The column of ``obs`` that names the annotated element of
    each cell, ``"region"`` by default there, tells slices apart: pass it as ``sample_key``.

    Raises
    ------
    TypeError
        If ``sdata`` is no SpatialData object.
    KeyError
        If there is no such table, element or coordinate system.
    ValueError
        If there are several tables and none is named, or cells cannot be located.
    ImportError
        If centroids are needed and spatialdata is not installed.

    Examples
    --------
    >>> adata = scrcl.from_spatialdata(sdata)
    >>> scrcl.SCRCL.setup_anndata(adata, spatial_key="spatial", sample_key="region")
    """
    tables = getattr(sdata, "tables", None)
    if tables is None:
        raise TypeError(f"sdata must be a SpatialData object, not {type(sdata).__name__}.")
    names = ", ".join(map(repr, tables.keys()))
    if table is None:
        if len(tables) != 1:
            raise ValueError(f"sdata has {len(tables)} tables{f', {names}' if names else ''}. Name one: `table=...`.")
        table = next(iter(tables.keys()))
    check_key(table, tables, "table", "sdata.tables")
    adata = tables[table].copy()
    if coordinate_system is None and SPATIAL_KEY in adata.obsm:
        return adata
    adata.obsm[SPATIAL_KEY] = _centroids(sdata, adata, table, coordinate_system or "global")
    return adata


def _centroids(sdata: Any, adata: AnnData, table: str, coordinate_system: str) -> np.ndarray:
    """Centroids ``(n, 2)`` or ``(n, 3)`` of the elements that the rows of a table annotate."""
    attributes = adata.uns.get(ATTRIBUTES_KEY)
    if attributes is None:
        raise ValueError(
            f"The table {table!r} annotates no elements of sdata, so that its cells cannot be located. Put their "
            f"coordinates into sdata[{table!r}].obsm['spatial']."
        )
    try:
        from spatialdata import get_centroids
    except ImportError as error:
        raise ImportError(
            f"The table {table!r} has no coordinates of its own, and to find those of the elements it annotates needs "
            "spatialdata: `pip install spatialdata`."
        ) from error
    regions, instances = (adata.obs[attributes[name]] for name in ("region_key", "instance_key"))
    positions: dict[str, np.ndarray] = {}
    for region in regions.unique():
        found = get_centroids(sdata[region], coordinate_system=coordinate_system).compute()
        rows = np.flatnonzero(regions == region)
        at = found.index.get_indexer(instances.iloc[rows])
        if (at < 0).any():
            raise ValueError(
                f"{(at < 0).sum():,} cells of the table {table!r} are not among those of the element {region!r}. Keep the "
                "others: `spatialdata.match_element_to_table`."
            )
        positions[region] = found.to_numpy(dtype=np.float64)[at]
    width = {found.shape[1] for found in positions.values()}
    if len(width) != 1:
        raise ValueError(
            f"Elements of the table {table!r} have coordinates in two and in three dimensions. Choose some."
        )
    located = np.empty((adata.n_obs, width.pop()))
    for region, found in positions.items():
        located[np.flatnonzero(regions == region)] = found
    return located
