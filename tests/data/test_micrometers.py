"""Lengths that users write, and the scale of coordinates."""

import anndata as ad
import numpy as np
import pytest

from scrcl.data.micrometers import micrometers_per_unit, parse_length
from scrcl.utils.errors import ScrclTypeError, ScrclValueError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 µm", (50, True)),
        ("50µm", (50, True)),
        ("12.5 um", (12.5, True)),
        ("1e2 microns", (100, True)),
        (" .5 units ", (0.5, False)),
        ("3 Units", (3, False)),
    ],
)
def test_lengths(text, expected):
    assert parse_length(text, "spatial_smoothing") == expected


@pytest.mark.parametrize("text", ["50", "µm", "50 mm", "-5 µm", "0 units", "inf units", "", "50 µm wide"])
def test_text_that_is_no_length(text):
    with pytest.raises(ScrclValueError, match="is not a length. Pass micrometres, `spatial_smoothing='50 µm'`"):
        parse_length(text, "spatial_smoothing")


def test_other_types_are_no_length():
    with pytest.raises(ScrclTypeError, match="must be a number or text"):
        parse_length(None, "spatial_smoothing")


def with_factors(**factors: dict) -> ad.AnnData:
    libraries = {name: {"scalefactors": values} for name, values in factors.items()}
    return ad.AnnData(np.ones((2, 1)), uns={"spatial": libraries | {"is_single": True}})


def test_the_scale_is_that_of_10x():
    assert micrometers_per_unit(with_factors(a={"spot_diameter_fullres": 130.0}), "x") == pytest.approx(0.5)
    high_definition = {"spot_diameter_fullres": 7.3, "microns_per_pixel": 0.27}
    assert micrometers_per_unit(with_factors(a=high_definition, b=high_definition), "x") == pytest.approx(0.27)


def test_an_unknown_scale_is_refused():
    for data in (ad.AnnData(np.ones((2, 1))), with_factors(a={}), with_factors()):
        with pytest.raises(ScrclValueError, match="the scale of the coordinates is unknown"):
            micrometers_per_unit(data, "spatial_smoothing")


def test_slices_of_different_scales_are_refused():
    with pytest.raises(ScrclValueError, match="slices have 0.5 to 1 micrometres per unit"):
        micrometers_per_unit(with_factors(a={"microns_per_pixel": 0.5}, b={"microns_per_pixel": 1.0}), "x")
