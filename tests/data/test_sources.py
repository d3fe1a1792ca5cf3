"""What sources match by name, pad and refuse."""

import re
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest

import scrcl
from scrcl.data import counts as counts_module
from scrcl.data.counts import Counts
from scrcl.data.sources import EMBEDDING, KEPT, RNA, Source, anndata_sources
from scrcl.utils.errors import ScrclWarning

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


class TestCostOfMissingGenes:
    """The warning has the figures of the benchmark."""

    def test_figures_are_those_of_the_benchmark(self):
        results = Path(__file__).parents[2] / "benchmarks" / "results" / "missing.md"
        if not results.exists():
            pytest.skip("the benchmarks are not part of the source distribution")
        rows = re.findall(r"^\| (\d+)% \| (.+) \|$", results.read_text(), re.MULTILINE)
        found = {int(share) / 100: [float(cell) for cell in cells.split(" | ")[:4]] for share, cells in rows}
        del found[0.0]
        assert found == {share: [*clusters, *types] for share, (clusters, types) in KEPT.items()}

    @pytest.mark.parametrize(
        ("n_missing", "said"),
        [
            (
                1,
                "These are 0.8%; on six data sets with 5% missing, 99.6% .* and 98.6% their type .* 98.0% and 94.4% in the worst",
            ),
            (
                48,
                "These are 40.0%; on six data sets with 40% missing, 97.2% .* and 92.8% their type .* 89.7% and 77.3% in the worst",
            ),
            (
                60,
                "These are 50.0%; on six data sets with 45% missing, .* and 91.7% their type .* 89.9% and 75.9% in the worst",
            ),
        ],
    )
    def test_shares(self, n_missing, said):
        adata = simulate(20)
        source = anndata_sources(adata[:, n_missing:].copy(), None, None)["rna"]
        with pytest.warns(
            ScrclWarning, match=f"{n_missing} of the 120 genes of the model are missing.*{said}"
        ) as found:
            next(source.blocks(adata.var_names, np.arange(120)))
        message = found[0].message
        assert isinstance(message, ScrclWarning)
        assert "type" in message.as_command("new.h5ad")  # on the command line, too

    def test_more_than_half(self):
        adata = simulate(20)
        source = anndata_sources(adata[:, 61:].copy(), None, None)["rna"]
        with pytest.raises(ValueError, match="lacks 61 of the 120 genes"):
            next(source.blocks(adata.var_names, np.arange(120)))

    def test_proteins(self):
        """What was measured on genes is not said of others."""
        matrix = np.ones((3, 2), np.float32)
        source = Source(
            "protein", pd.Index(["a", "b"]), "mdata['prot']", lambda: Counts.of(matrix, "x"), modality="prot"
        )
        with pytest.warns(ScrclWarning, match="1 of the 3 variables of 'prot'") as found:
            next(source.blocks(pd.Index(["a", "b", "c"]), np.arange(3)))
        assert "type" not in str(found[0].message)


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
            with pytest.raises(ValueError, match="adata.var_names lacks .* genes? of the model"):
                list(self.source(matrix).blocks(wanted, needed))

    def test_cells_whose_counts_are_in_other_columns(self, matrix):
        matrix[5, :11] = 0
        with pytest.raises(ValueError, match="1 of 11 cells in adata.X has no counts"):
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
