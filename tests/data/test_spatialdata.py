import sys
from types import ModuleType, SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scrcl

from ..conftest import simulate


def located() -> ad.AnnData:
    """Cells with coordinates."""
    adata = simulate(20)
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(size=(20, 2))
    return adata


class Sdata:
    """The part of a SpatialData object that is read: tables by name, and elements by item."""

    def __init__(self, tables: dict, elements: dict | None = None):
        self.tables, self._elements = tables, elements or {}

    def __getitem__(self, name: str):
        return self._elements[name]


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
    monkeypatch.setitem(sys.modules, "spatialdata", stub)
    elements = {
        "left": pd.DataFrame({"x": np.arange(10.0), "y": 0.0}),
        "right": pd.DataFrame({"x": np.arange(10.0), "y": 1.0}),
    }
    found = scrcl.from_spatialdata(Sdata({"table": annotating_table()}, elements), coordinate_system="aligned")
    expected = np.column_stack([np.tile(np.arange(10.0)[::-1], 2), np.repeat([0.0, 1.0], 10)])
    np.testing.assert_array_equal(found.obsm["spatial"], expected)
    elements["left"] = elements["left"].iloc[:5]
    with pytest.raises(ValueError, match="5 cells of the table 'table' are not among those of the element 'left'"):
        scrcl.from_spatialdata(Sdata({"table": annotating_table()}, elements), coordinate_system="aligned")


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
