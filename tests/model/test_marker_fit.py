import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scrcl.data.marker_sets import read_marker_sets
from scrcl.data.sources import anndata_sources
from scrcl.genes.associations import Groups
from scrcl.model.marker_fit import MAX_SAMPLED_CELLS, Naming, PlacedMarkers, logarithms_of

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


class TestSampledCells:
    """Two modalities of three and two genes, read in blocks of different sizes; genes 1 and 4 mark names."""

    def naming(self, values: np.ndarray, hierarchy: dict[str, str] | None) -> Naming:
        sets = read_marker_sets({"all": ["x", "y"], "a": ["x"], "b": ["y"]}, hierarchy)
        genes = pd.Index(["p", "x", "q", "r", "y"])

        def reader(columns: slice, step: int):
            def read(rows):
                for start in range(0, len(rows), step):
                    part = rows[start : start + step]
                    yield slice(start, start + len(part)), sp.csr_array(values[part][:, columns])

            return read

        placed = PlacedMarkers(sets, genes, {"x": 1, "y": 4}, {})
        return Naming(None, placed, (reader(slice(0, 3), 100), reader(slice(3, 5), 70)), 0.5, 0)

    def test_cells_of_each_group_with_the_genes_of_the_names(self):
        sizes = np.array([30, 2 * MAX_SAMPLED_CELLS, 7])
        codes = np.random.default_rng(0).permutation(np.repeat(np.arange(3), sizes))
        rows = np.arange(len(codes)) + 5
        # Each value says which cell and gene it is of.
        values = np.arange(5 * (len(codes) + 5)).reshape(-1, 5) + 1.0
        cells = self.naming(values, {"a": "all", "b": "all"}).sample(rows, Groups(codes, 3))
        assert cells is not None
        assert cells.columns.tolist() == [1, 4]
        assert np.bincount(cells.groups).tolist() == [30, MAX_SAMPLED_CELLS, 7]
        np.testing.assert_allclose(np.bincount(cells.groups, cells.n_cells), sizes)
        found = cells.values.toarray().astype(int) - 1
        assert (found % 5 == [1, 4]).all()
        of_cell = found // 5
        assert (of_cell[:, 0] == of_cell[:, 1]).all()
        assert len(np.unique(of_cell[:, 0])) == len(of_cell)
        np.testing.assert_array_equal(codes[of_cell[:, 0] - 5], cells.groups)

    def test_none_without_parents(self):
        assert self.naming(np.ones((4, 5)), None).sample(np.arange(4), Groups(np.array([0, 1, 0, 1]), 2)) is None
