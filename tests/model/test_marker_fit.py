import numpy as np
import pandas as pd
import pytest

from scrcl.data.marker_sets import read_marker_sets
from scrcl.data.sources import anndata_sources
from scrcl.genes.associations import Groups
from scrcl.model.marker_fit import Naming, PlacedMarkers, logarithms_of

from ..helpers import build, marked, simulate

LISTS = {f"type {kind}": sorted(marked(kind))[:6] for kind in range(3)}


def test_names_without_a_model_are_those_of_a_model():
    adata = simulate()
    expected = build(adata, epochs=1).get_cluster_names(LISTS, groupby="cell_type")

    sources = anndata_sources(adata, None, None)
    logarithms = {"rna": logarithms_of(sources["rna"])}
    naming = Naming.of(adata, sources, logarithms, read_marker_sets(LISTS))
    codes = adata.obs["cell_type"].cat.codes.to_numpy().astype(int)
    found = naming.of_groups(np.arange(adata.n_obs), Groups(codes, 3), ["0", "1", "2"], "name")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3)
    assert adata.obs["name"].astype(str).tolist() == [f"type {code}" for code in codes]


def test_frequencies_and_missing_genes():
    sets = read_marker_sets({"a": {"x": 4.0, "y": 1.0, "gone": 2.0}, "b": {"y": 3.0}})
    placed = PlacedMarkers(sets, pd.Index(["y", "x"]), {"x": 1, "y": 0}, {})
    np.testing.assert_allclose(placed.frequency.toarray(), np.array([[0.25, 1], [1, 0]]))
    assert placed.missing == {"a": ["gone"], "b": []}
    assert placed.used == {"a": 2, "b": 1}
    assert placed.distinctive_missing == {"a": ["gone"], "b": []}


@pytest.mark.parametrize("order", [["x", "y"], ["y", "x"]])
def test_columns_do_not_repeat(order):
    sets = read_marker_sets({"a": order})
    assert PlacedMarkers(sets, pd.Index(["g"]), {"x": 0, "y": 0}, {}).columns_of("a").tolist() == [0]
