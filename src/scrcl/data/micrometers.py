"""Lengths in the unit of the coordinates or in micrometres, and the scale of coordinates."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from scrcl.utils.errors import ScrclTypeError, ScrclValueError

#: Diameter in micrometres of the spot whose diameter in pixels Space Ranger writes.
SPOT_DIAMETER = 65.0
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


def micrometers_per_unit(data: Any, name: str) -> float:
    """Micrometres per unit of the coordinates, from the scale factors of 10x in ``uns["spatial"]``.

    ``microns_per_pixel`` of Visium HD, or else the diameter of a spot in pixels, ``spot_diameter_fullres``. Data without scale
    factors, and slices with different ones, are refused.
    """
    entry = data.uns.get("spatial")
    libraries = entry.values() if isinstance(entry, Mapping) else ()
    scales = [scale for library in libraries if isinstance(library, Mapping) and (scale := _scale(library)) is not None]
    if not scales:
        raise ScrclValueError(
            f"{name} is in micrometres, but the scale of the coordinates is unknown: adata.uns['spatial'] has no scale factors.",
            f"Pass a length in units of the coordinates, as `{name}='50 units'`.",
        )
    if max(scales) > (1 + SCALE_TOLERANCE) * min(scales):
        raise ScrclValueError(
            f"{name} is in micrometres, but slices have {min(scales):g} to {max(scales):g} micrometres per unit.",
            "Multiply the coordinates of each slice by its scale, and pass a length in units.",
        )
    return float(np.mean(scales))


def _scale(library: Mapping) -> float | None:
    """Micrometres per pixel of a slice; ``None`` if unknown."""
    factors = library.get("scalefactors")
    factors = factors if isinstance(factors, Mapping) else {}
    per_pixel, diameter = factors.get("microns_per_pixel"), factors.get("spot_diameter_fullres")
    if per_pixel:
        return float(per_pixel)
    return SPOT_DIAMETER / float(diameter) if diameter else None
