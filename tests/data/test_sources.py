"""What sources match by name, pad and refuse."""

import re

import mudata
import numpy as np
import pandas as pd
import pytest

import scrcl
from scrcl.data import counts as counts_module
from scrcl.data.counts import Counts
from scrcl.data.sources import EMBEDDING, RNA, Source, anndata_sources

from ..helpers import simulate
from ..saved.make_golden import several


class TestTotalsOfMuData:
    @pytest.fixture(scope="class")
    def model(self):
        mdata = several()
        scrcl.SCRCL.setup_mudata(mdata, modalities={"rna": "rna", "prot": "protein"})
        model = scrcl.SCRCL(mdata, n_hidden=8, n_components=5, n_top_genes=40)
        model.train(1, accelerator="cpu", enable_progress_bar=False)
        return model

    def cut(self, genes) -> mudata.MuData:
        mdata = several(3)
        return mudata.MuData({"rna": mdata["rna"][:, genes].copy(), "prot": mdata["prot"].copy()})

    def test_data_cut_to_the_genes_kept_are_refused(self, model):
        kept = model._reference.modalities["rna"].variables
        with pytest.raises(ValueError, match=r"mdata\['rna'\].* lacks 80 of the 120 genes of the model"):
            model.get_latent_representation(self.cut(kept))

    def test_genes_that_only_totals_need_are_named(self, model):
        names = model._reference.modalities["rna"]
        spare = names.names.difference(names.variables)[:3]
        whole = model.get_latent_representation(self.cut(names.names))
        message = f"3 of the 120 variables of 'rna' in the total counts of a cell .*{re.escape(spare[0])}"
        with pytest.warns(UserWarning, match=message):
            found = model.get_latent_representation(self.cut(names.names.difference(spare)))
        assert np.linalg.norm(found - whole) < 0.2 * np.linalg.norm(whole)


class TestBlocks:
    """Twenty columns, of which eleven and one that is missing count for totals."""

    names = pd.Index([f"c{i}" for i in range(20)])
    wanted = pd.Index([*(f"c{i}" for i in range(10, -1, -1)), "gone"])

    @pytest.fixture
    def matrix(self) -> np.ndarray:
        return np.random.default_rng(0).poisson(3, size=(11, 20)).astype(np.float32) + 1

    def source(self, matrix: np.ndarray) -> Source:
        return Source(RNA, self.names, "adata.var_names", lambda: Counts.of(matrix, "adata.X"))

    @pytest.mark.parametrize("rows", [None, np.array([0, 3, 4, 10])])
    def test_columns_in_the_order_asked_for_and_totals_over_what_is_wanted(self, matrix, rows, monkeypatch):
        monkeypatch.setattr(counts_module, "BLOCK_CELLS", 4)
        needed = np.array([3, 0, 7])  # c7, c10, c3
        with pytest.warns(UserWarning, match="1 of the 12 genes in the total counts of a cell .* gone"):
            blocks = list(self.source(matrix).blocks(self.wanted, needed, rows))
        asked = matrix if rows is None else matrix[rows]
        assert len(blocks) == 3
        np.testing.assert_array_equal(
            np.concatenate([block.counts.toarray() for block in blocks]), asked[:, [7, 10, 3]]
        )
        np.testing.assert_array_equal(np.concatenate([block.totals for block in blocks]), asked[:, :11].sum(1))
        covered = np.concatenate([np.arange(len(asked))[block.rows] for block in blocks])
        np.testing.assert_array_equal(covered, np.arange(len(asked)))

    def test_a_missing_column_is_0_and_said(self, matrix):
        needed = np.arange(12)
        with pytest.warns(UserWarning, match="1 of the 12 genes of the model .* gone") as caught:
            (block,) = self.source(matrix).blocks(self.wanted, needed)
        assert len(caught) == 1
        np.testing.assert_array_equal(block.counts.toarray()[:, :11], matrix[:, 10::-1])
        assert block.counts[:, [11]].nnz == 0

    def test_too_many_missing(self, matrix):
        """Of those that features are computed from, or of those that totals are taken over."""
        lacking = pd.Index([*self.names[:4], *(f"gone{i}" for i in range(5))])
        for wanted, needed in ((self.wanted, np.array([11])), (lacking, np.arange(3))):
            with pytest.raises(ValueError, match="adata.var_names lacks .* genes of the model"):
                list(self.source(matrix).blocks(wanted, needed))

    def test_cells_whose_counts_are_in_other_columns(self, matrix):
        matrix[5, :11] = 0
        with pytest.raises(ValueError, match="1 of 11 cells in adata.X have no counts"):
            list(self.source(matrix).blocks(self.names[:11], np.arange(3)))


def test_the_source_of_anndata(adata):
    adata.layers["counts"] = adata.X
    adata.X = None
    (source,) = anndata_sources(adata, "counts", None).values()
    assert source.kind == RNA
    assert source.counts is not None
    np.testing.assert_array_equal(source.counts.read().toarray(), simulate().X.toarray())
    adata.obsm["X_own"] = pd.DataFrame({"a": np.arange(150.0), "b": 1.0}, index=adata.obs_names)
    (source,) = anndata_sources(adata, "counts", "X_own").values()
    assert source.kind == EMBEDDING
    np.testing.assert_array_equal(source.features(2, np.array([3, 5])), [[3, 1], [5, 1]])
    with pytest.raises(ValueError, match=r"adata.obsm\['X_own'\] has 2 columns, but the model was built on 3"):
        source.features(3)
