import re
import sys
from types import ModuleType, SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scrcl

from ..helpers import simulate


def located() -> ad.AnnData:
    """Cells with coordinates."""
    adata = simulate(20)
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(size=(20, 2))
    return adata


class Sdata:
    """The part of a SpatialData object that is read: tables by name, and elements by item."""

    def __init__(self, tables: dict, elements: dict | None = None):
        self.tables, self.shapes = tables, elements or {}

    def __getitem__(self, name: str):
        return self.shapes[name]


def annotating_table() -> ad.AnnData:
    adata = simulate(20)
    adata.obs["region"] = pd.Categorical(np.repeat(["left", "right"], 10))
    adata.obs["instance_id"] = np.tile(np.arange(10)[::-1], 2)
    adata.uns["spatialdata_attrs"] = {
        "region": ["left", "right"],
        "region_key": "region",
        "instance_key": "instance_id",
    }
    return adata


def test_table_with_coordinates():
    adata = located()
    found = scrcl.from_spatialdata(Sdata({"table": adata}))
    assert found is not adata
    np.testing.assert_array_equal(found.obsm["spatial"], adata.obsm["spatial"])
    scrcl.SCRCL.setup_anndata(found, spatial_key="spatial")


def test_coordinates_of_annotated_elements(monkeypatch):
    """Rows are matched to the instances of their element, here in the opposite order."""

    def get_centroids(element, coordinate_system):
        assert coordinate_system == "aligned"
        return SimpleNamespace(compute=lambda: element)

    stub = ModuleType("spatialdata")
    stub.get_centroids = get_centroids  # type: ignore[attr-defined]
    part = ModuleType("spatialdata.transformations")
    part.get_transformation = lambda element, get_all: {"aligned": None}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spatialdata", stub)
    monkeypatch.setitem(sys.modules, "spatialdata.transformations", part)
    elements = {
        "left": pd.DataFrame({"x": np.arange(10.0), "y": 0.0}),
        "right": pd.DataFrame({"x": np.arange(10.0), "y": 1.0}),
    }
    found = scrcl.from_spatialdata(Sdata({"table": annotating_table()}, elements), coordinate_system="aligned")
    expected = np.column_stack([np.tile(np.arange(10.0)[::-1], 2), np.repeat([0.0, 1.0], 10)])
    np.testing.assert_array_equal(found.obsm["spatial"], expected)
    elements["left"] = elements["left"].iloc[:5]
    with pytest.raises(ValueError, match="5 cells of the table 'table' are not in the element 'left'"):
        scrcl.from_spatialdata(Sdata({"table": annotating_table()}, elements), coordinate_system="aligned")
    elements["left"] = elements["right"].iloc[[0, *range(10)]]
    with pytest.raises(ValueError, match="The index of the element 'left' repeats 1 identifier"):
        scrcl.from_spatialdata(Sdata({"table": annotating_table()}, elements))
    elements["left"] = elements["right"].set_axis([str(number) for number in range(10)])
    with pytest.raises(
        ValueError, match="of type int64 in the table 'table' and of type (object|str) in the element 'left'"
    ):
        scrcl.from_spatialdata(Sdata({"table": annotating_table()}, elements))
    with pytest.raises(KeyError, match="coordinate_system='align'.*Did you mean 'aligned'"):
        scrcl.from_spatialdata(Sdata({"table": annotating_table()}, elements), coordinate_system="align")
    table = annotating_table()
    table.obs.loc["cell3", "region"] = np.nan
    with pytest.raises(ValueError, match="'region' is missing for 1 of 20 cells"):
        scrcl.from_spatialdata(Sdata({"table": table}, elements))
    del elements["left"]
    with pytest.raises(KeyError, match="'left' is not in sdata. Present: 'right'"):
        scrcl.from_spatialdata(Sdata({"table": annotating_table()}, elements))
    with pytest.raises(ValueError, match="sdata has no table"):
        scrcl.from_spatialdata(Sdata({}, elements))


def of_shapes(spatialdata, change=lambda shapes: shapes, names=("left", "right")):
    """A real SpatialData object of some slices, whose shapes may be changed."""
    adata = annotating_table()
    adata = adata[adata.obs["region"].isin(names)].copy()
    table = spatialdata.models.TableModel.parse(
        adata, region=list(names), region_key="region", instance_key="instance_id", overwrite_metadata=True
    )
    points = np.random.default_rng(0).uniform(size=(10, 2))
    parse = spatialdata.models.ShapesModel.parse
    shapes = {name: change(parse(points + len(name), geometry=0, radius=0.1)) for name in names}
    return spatialdata.SpatialData(shapes=shapes, tables={"table": table})


@pytest.mark.parametrize("names", [("left",), ("left", "right")])
@pytest.mark.parametrize(
    "change",
    [
        lambda shapes: shapes.iloc[:6],
        lambda shapes: shapes.set_axis(shapes.index.astype(str)),
        lambda shapes: shapes.iloc[[0, *range(10)]],
    ],
    ids=["missing", "text", "twice"],
)
def test_remedies_with_spatialdata(names, change):
    spatialdata = pytest.importorskip("spatialdata")
    sdata = of_shapes(spatialdata, change, names)
    for _ in names:
        try:
            scrcl.from_spatialdata(sdata)
        except ValueError as error:
            exec(re.findall("`([^`]*)`", str(error))[-1], {"sdata": sdata, "spatialdata": spatialdata})
    assert len(scrcl.from_spatialdata(sdata)) in (6 * len(names), 10 * len(names))


def test_slices_with_a_system_each():
    spatialdata = pytest.importorskip("spatialdata")
    parts = {name: of_shapes(spatialdata, names=(name,)) for name in ("left", "right")}
    joined = spatialdata.concatenate(parts, concatenate_tables=True)
    found = scrcl.from_spatialdata(joined)
    assert set(found.obs["region"]) == {"left-left", "right-right"}
    expected = np.vstack([scrcl.from_spatialdata(part).obsm["spatial"] for part in parts.values()])
    np.testing.assert_allclose(found.obsm["spatial"], expected)
    systems = {"left-left": "global-left", "right-right": "global-right"}
    np.testing.assert_allclose(scrcl.from_spatialdata(joined, coordinate_system=systems).obsm["spatial"], expected)
    with pytest.raises(KeyError, match="coordinate_system='global-left' is not in .*'right-right'"):
        scrcl.from_spatialdata(joined, coordinate_system="global-left")
    with pytest.raises(KeyError, match="The region='right-right' is not in coordinate_system"):
        scrcl.from_spatialdata(joined, coordinate_system={"left-left": "global-left"})


def test_real_spatialdata():
    spatialdata = pytest.importorskip("spatialdata")
    adata = annotating_table()
    points = np.random.default_rng(0).uniform(size=(10, 2))
    shapes = {
        name: spatialdata.models.ShapesModel.parse(points + shift, geometry=0, radius=0.1)
        for name, shift in [("left", 0), ("right", 5)]
    }
    table = spatialdata.models.TableModel.parse(
        adata, region=["left", "right"], region_key="region", instance_key="instance_id", overwrite_metadata=True
    )
    found = scrcl.from_spatialdata(spatialdata.SpatialData(shapes=shapes, tables={"table": table}))
    np.testing.assert_allclose(found.obsm["spatial"], np.vstack([points[::-1], points[::-1] + 5]))


def test_faults_of_spatialdata(monkeypatch):
    with pytest.raises(TypeError, match="must be a SpatialData object, not AnnData"):
        scrcl.from_spatialdata(located())
    both = Sdata({"a": located(), "b": located()})
    with pytest.raises(ValueError, match="2 tables, 'a', 'b'. Name one"):
        scrcl.from_spatialdata(both)
    with pytest.raises(KeyError, match="table='c' is not in sdata.tables. Present: 'a', 'b'"):
        scrcl.from_spatialdata(both, table="c")
    bare = annotating_table()
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(ImportError, match="pip install spatialdata"):
        scrcl.from_spatialdata(Sdata({"table": bare}))
    del bare.uns["spatialdata_attrs"]
    with pytest.raises(ValueError, match="cannot be located"):
        scrcl.from_spatialdata(Sdata({"table": bare}))
