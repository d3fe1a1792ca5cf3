"""Lengths in the unit of the coordinates or in micrometres, and the scale of coordinates."""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scrcl.graph.slices import Slices
from scrcl.utils.errors import ScrclTypeError, ScrclValueError

from .columns import read_column

#: Diameter in micrometres of the spot whose diameter in pixels Space Ranger writes.
SPOT_DIAMETER = 65.0
#: Distance in micrometres between the centres of adjacent spots of Visium.
SPOT_DISTANCE = 100.0
#: Columns of ``obs``: position on the array of 10x; the region, as spatialdata-io names it, with the size of bins in micrometres;
#: and centroids in micrometres.
ARRAY_COLUMNS, REGION, BIN_SIZE = ("array_row", "array_col"), "region", r"square_0*(\d+)um"
MICROMETER_COLUMNS = (("x_centroid", "y_centroid"), ("center_x", "center_y"))
#: Relative difference of the scales of slices below which they are the same.
SCALE_TOLERANCE = 0.02
#: Units as users write them.
MICROMETERS, UNITS = ("µm", "μm", "um", "micron", "microns", "micrometer", "micrometers"), ("unit", "units")


def parse_length(value: object, name: str) -> tuple[float, bool]:
    """A length from text such as ``"50 µm"`` or ``"50 units"``: the number, and whether it is in micrometres."""
    if not isinstance(value, str):
        raise ScrclTypeError(f"{name} must be a number or text such as '50 µm', not {type(value).__name__}.")
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(\S+)\s*", value)
    unit = match.group(2).lower() if match else ""
    if match is None or unit not in (*MICROMETERS, *UNITS) or not 0 < float(match.group(1)) < np.inf:
        raise ScrclValueError(
            f"{name}={value!r} is not a length.",
            f"Pass micrometres, `{name}='50 µm'`, or units of the coordinates, `{name}='50 units'`; a number means steps.",
        )
    return float(match.group(1)), unit in MICROMETERS


def micrometers_per_unit(data: AnnData | MuData, slices: Slices, name: str) -> float:
    """Micrometres per unit of the coordinates of cells, the same in all slices.

    Found, in this order, from the rows and columns of the cells on the array, ``array_row`` and ``array_col`` of 10x; from
    centroids in micrometres beside the coordinates, as Xenium and MERSCOPE name them; and from the scale factors of 10x in
    ``uns["spatial"]``, in the slices that it names. Refused are other data, and slices with different scales.
    """
    scales = _from_array(data, slices, name) or _from_centroids(data, slices) or _from_factors(data, slices)
    if not scales:
        raise ScrclValueError(
            f"{name} is in micrometres, but the scale of the coordinates is unknown: adata.uns['spatial'] has no scale factors.",
            "Write micrometres per unit there, 1.0 if they are the unit as for Xenium and MERSCOPE: "
            "`adata.uns['spatial'] = {'slice': {'scalefactors': {'microns_per_pixel': 1.0}}}`, "
            f"or pass a length in units, as `{name}='50 units'`.",
        )
    if max(scales) > (1 + SCALE_TOLERANCE) * min(scales):
        raise ScrclValueError(
            f"{name} is in micrometres, but slices have {min(scales):g} to {max(scales):g} micrometres per unit.",
            "Multiply the coordinates of each slice by its scale, and pass a length in units.",
        )
    return float(np.mean(scales))


def _from_array(data: AnnData | MuData, slices: Slices, name: str) -> list[float]:
    """Scale of each slice in which coordinates are positions on the array of Visium or Visium HD, shifted, turned and scaled."""
    if not set(ARRAY_COLUMNS) <= set(data.obs) or slices.coordinates.shape[1] != 2:
        return []
    columns = [pd.to_numeric(read_column(data, key, "obs"), errors="coerce") for key in ARRAY_COLUMNS]
    position = np.column_stack(columns).astype(np.float64)
    scales = []
    for _, rows in slices:
        pitch = _pitch(data, position[rows], rows)
        if pitch is None:
            return []
        micrometers = (position[rows] - position[rows].mean(0)) * pitch
        units = slices.coordinates[rows] - slices.coordinates[rows].mean(0)
        if np.linalg.matrix_rank(micrometers) < 2 or np.linalg.matrix_rank(units) < 2:
            return []
        turned = np.linalg.lstsq(units, micrometers, rcond=None)[0]
        stretch = np.linalg.svd(turned, compute_uv=False)
        unexplained = ((micrometers - units @ turned) ** 2).sum() / (micrometers**2).sum()
        if unexplained > SCALE_TOLERANCE:
            return []
        if stretch[0] > (1 + SCALE_TOLERANCE) * stretch[1]:
            raise ScrclValueError(
                f"{name} is in micrometres, but a unit of the coordinates is {stretch[1]:.3g} µm in one direction and "
                f"{stretch[0]:.3g} µm in another, as of rows and columns of an array.",
                "Pass coordinates in pixels or micrometres, or a number of steps.",
            )
        scales.append(float(stretch.mean()))
    return scales


def _pitch(data: AnnData | MuData, position: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
    """Micrometres between rows, and between columns, of an array; ``None`` if unknown.

    In Visium, only every other column of a row has a spot. The bins of Visium HD fill a square grid; their size is in the name
    of the region, as ``square_008um``.
    """
    if not np.isfinite(position).all():
        return None
    if len(np.unique(position.sum(1) % 2)) == 1 and len(np.unique(position[:, 0] % 2)) == 2:
        return SPOT_DISTANCE * np.array([np.sqrt(0.75), 0.5])
    regions = set() if REGION not in data.obs else set(read_column(data, REGION, "obs").iloc[rows].astype(str))
    sizes = {float(size) for region in regions for size in re.findall(BIN_SIZE, region)}
    return np.full(2, sizes.pop()) if len(sizes) == 1 else None


def _from_centroids(data: AnnData | MuData, slices: Slices) -> list[float]:
    """A scale of 1 if the coordinates are centroids in micrometres."""
    for columns in MICROMETER_COLUMNS:
        if set(columns) <= set(data.obs):
            centroids = [pd.to_numeric(read_column(data, key, "obs"), errors="coerce") for key in columns]
            if np.allclose(slices.coordinates[:, :2], np.column_stack(centroids), rtol=1e-3):
                return [1.0]
    return []


def _from_factors(data: AnnData | MuData, slices: Slices) -> list[float]:
    """Scale of each slice in ``uns["spatial"]``; only of those that the cells are from, if it has their names."""
    entry = data.uns.get("spatial")
    libraries = dict(entry) if isinstance(entry, Mapping) else {}
    present = {slices.names[number] for number in np.unique(slices.samples)}
    libraries = {name: library for name, library in libraries.items() if name in present} or libraries
    factors = [library.get("scalefactors") for library in libraries.values() if isinstance(library, Mapping)]
    scales = [_scale(each) for each in factors if isinstance(each, Mapping)]
    return [scale for scale in scales if scale is not None]


def _scale(factors: Mapping) -> float | None:
    """Micrometres per pixel of a slice; ``None`` if unknown."""
    per_pixel, diameter = factors.get("microns_per_pixel"), factors.get("spot_diameter_fullres")
    if per_pixel:
        return float(per_pixel)
    # The spots of Visium HD are its bins.
    return float(factors.get("bin_size_um") or SPOT_DIAMETER) / float(diameter) if diameter else None
