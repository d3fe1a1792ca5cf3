"""Lengths that users write, and the scale of coordinates."""

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree

from scrcl.data.micrometers import micrometers_per_unit, parse_length
from scrcl.data.sources import read_positions
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


def scale(data: ad.AnnData, sample_key: str | None = None) -> float:
    return micrometers_per_unit(data, read_positions(data, "spatial", sample_key), "spatial_smoothing")


def cells(points: np.ndarray | None = None, **obs: object) -> ad.AnnData:
    """Cells at some points, with these columns of ``obs``."""
    points = np.random.default_rng(0).uniform(0, 500, size=(40, 2)) if points is None else points
    return ad.AnnData(
        np.ones((len(points), 1)),
        obs=pd.DataFrame(obs, index=[f"cell{number}" for number in range(len(points))]),
        obsm={"spatial": points},
    )


def with_factors(**factors: dict) -> ad.AnnData:
    data = cells()
    data.uns["spatial"] = {name: {"scalefactors": values} for name, values in factors.items()} | {"is_single": True}
    return data


def turned(points: np.ndarray, degrees: float = 20.0) -> np.ndarray:
    """Points in an image that is turned and mirrored."""
    angle = np.deg2rad(degrees)
    return 40.0 + points @ np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]])


def visium(per_micrometer: float) -> ad.AnnData:
    """Spots at 100 µm from each other, in pixels, with their rows and columns on the array."""
    row, column = (values.ravel() for values in np.mgrid[3:15, 10:40])
    on_array = (row + column) % 2 == 0
    row, column = row[on_array], column[on_array]
    return cells(
        turned(per_micrometer * np.column_stack([50.0 * column, 50 * np.sqrt(3) * row])),
        array_row=row,
        array_col=column,
    )


def test_the_scale_is_that_of_10x():
    assert scale(with_factors(a={"spot_diameter_fullres": 130.0})) == pytest.approx(0.5)
    high_definition = {"spot_diameter_fullres": 7.3, "microns_per_pixel": 0.27}
    assert scale(with_factors(a=high_definition, b=high_definition)) == pytest.approx(0.27)
    # The diameter is that of a bin.
    assert scale(with_factors(a={"spot_diameter_fullres": 16.0, "bin_size_um": 8.0})) == pytest.approx(0.5)


def test_the_positions_on_the_array_of_visium_have_a_scale():
    """As in tables of spatialdata-io, which have no scale factors."""
    data = visium(4.0)
    assert scale(data) == pytest.approx(0.25)
    nearest = cKDTree(data.obsm["spatial"]).query(data.obsm["spatial"], 2)[0][:, 1]
    assert np.median(nearest) * scale(data) == pytest.approx(100)
    # Coordinates in the pixels of a smaller image than that of the scale factors.
    data.uns["spatial"] = {"a": {"scalefactors": {"spot_diameter_fullres": 65 * 16.0}}}
    assert scale(data) == pytest.approx(0.25)
    data.obs = data.obs.astype(str)  # as in a table of text
    assert scale(data) == pytest.approx(0.25)


def test_the_bins_of_visium_hd_have_a_scale():
    row, column = (values.ravel() for values in np.mgrid[100:120, 7:30])
    points = turned(29.2 * np.column_stack([column, row]))
    data = cells(points, array_row=row, array_col=column, region="Mouse_Brain_square_008um")
    assert scale(data) == pytest.approx(8 / 29.2)
    del data.obs["region"]
    with pytest.raises(ScrclValueError, match="the scale of the coordinates is unknown"):
        scale(data)


def test_rows_and_columns_of_an_array_are_no_coordinates():
    data = visium(1.0)
    data.obsm["spatial"] = data.obs[["array_row", "array_col"]].to_numpy().astype(float)
    data.uns["spatial"] = {"a": {"scalefactors": {"spot_diameter_fullres": 89.4}}}
    with pytest.raises(ScrclValueError, match="50 µm in one direction and 86.6 µm in another"):
        scale(data)


def test_positions_elsewhere_do_not_matter():
    """Coordinates that differ from the array, as after an alignment of slices by a spline."""
    data = visium(4.0)
    data.obsm["spatial"] = np.random.default_rng(0).uniform(size=(data.n_obs, 2))
    data.uns["spatial"] = {"a": {"scalefactors": {"microns_per_pixel": 2.0}}}
    assert scale(data) == 2


@pytest.mark.parametrize("columns", [("x_centroid", "y_centroid"), ("center_x", "center_y")])
def test_centroids_in_micrometers(columns):
    data = cells()
    data.obs[list(columns)] = data.obsm["spatial"].astype(np.float32)
    assert scale(data) == 1
    data.obsm["spatial"] = data.obsm["spatial"] / 0.2125  # pixels of the image
    with pytest.raises(ScrclValueError, match="the scale of the coordinates is unknown"):
        scale(data)


def test_an_unknown_scale_is_refused_with_a_remedy_that_works():
    for data in (cells(), with_factors(a={}), with_factors()):
        with pytest.raises(ScrclValueError, match="the scale of the coordinates is unknown") as caught:
            scale(data)
        remedy = re.search(r"`adata\.(uns\['spatial'\] = .*?)`", str(caught.value))
        assert remedy is not None
        exec(f"data.{remedy.group(1)}", {"data": data})
        assert scale(data) == 1


def test_slices_of_different_scales_are_refused():
    data = with_factors(a={"microns_per_pixel": 0.5}, b={"microns_per_pixel": 1.0})
    with pytest.raises(ScrclValueError, match="slices have 0.5 to 1 micrometres per unit"):
        scale(data)
    # Only the slices that the cells are from count.
    data.obs["slice"] = "b"
    assert scale(data, "slice") == 1
    both = ad.concat({"a": visium(4.0), "b": visium(2.0)}, label="slice")
    with pytest.raises(ScrclValueError, match="slices have 0.25 to 0.5 micrometres per unit"):
        scale(both, "slice")
