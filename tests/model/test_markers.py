import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from scipy.stats import kstest

import scrcl

from ..helpers import build, marked, simulate


class TestMarkers:
    def test_table(self, model):
        table = model.get_marker_genes(groupby="cell_type", n_permutations=99)
        n_genes = len(model._reference.genes)
        assert len(table) == 3 * n_genes
        assert list(table["group"].cat.categories) == ["0", "1", "2"]
        for kind, part in table.groupby("group", observed=True):
            assert part["score"].is_monotonic_decreasing
            assert set(part["gene"][:10]) <= marked(int(kind))
            assert (part["pvalue"][:10] == 0.01).all()
        assert (table["score_low"] <= table["score"]).all()
        # The first p-values are all the same, and the z-scores that rank genes are all different.
        np.testing.assert_allclose(table["z_score"] * (table["score_high"] - table["score"]) / 1.96, table["score"])
        assert not table["z_score"].duplicated().any()
        assert (table["pvalue"] <= table["pvalue_adjusted"]).all()
        means = model.get_cell_gene_associations(groupby="cell_type")
        first = table.set_index(["group", "gene"]).loc[("1", "gene50")]
        np.testing.assert_allclose(first["specificity"], (means.loc["1"] - means.drop("1").max())["gene50"], atol=1e-4)

    def test_fold_change_and_fractions_against_scanpy(self, model):
        adata = simulate()
        table = model.get_marker_genes(adata, "cell_type", n_permutations=0)
        sc.pp.normalize_total(adata, target_sum=model._reference.modalities["rna"].counts.target)
        sc.pp.log1p(adata)
        sc.tl.rank_genes_groups(adata, "cell_type", method="t-test", pts=True)
        expected = sc.get.rank_genes_groups_df(adata, None).set_index(["group", "names"])
        found = table.set_index(["group", "gene"])
        expected = expected.loc[found.index]
        np.testing.assert_allclose(found["fraction_in"], expected["pct_nz_group"], atol=1e-9)
        np.testing.assert_allclose(found["fraction_out"], expected["pct_nz_reference"], atol=1e-9)
        # scanpy takes the exponential of the mean logarithm, here it is the mean itself
        assert np.corrcoef(found["log2_fold_change"], expected["logfoldchanges"])[0, 1] > 0.98

    def test_groups_and_number_of_genes(self, model):
        every = model.get_marker_genes(groupby="cell_type", n_permutations=20)
        one = model.get_marker_genes(groupby="cell_type", groups="2", n_top=4, n_permutations=20)
        expected = every[every["group"] == "2"][:4].reset_index(drop=True)
        pd.testing.assert_frame_equal(one, expected)

    def test_own_clusters(self):
        adata = simulate()
        mine = build(adata, epochs=40)
        table = mine.get_marker_genes(n_permutations=10)
        adata.obs["scrcl"] = mine.get_clusters()
        assert set(table["group"]) == set(adata.obs["scrcl"])
        assert table.equals(mine.get_marker_genes(groupby="scrcl", n_permutations=10))

    def test_own_clusters_are_not_plotted_by_other_ones(self, model):
        adata = model.adata.copy()
        for clusters, key in ((model.get_clusters(), "scrcl"), (["a", "b"] * 75, "scrcl_marker_groups")):
            adata.obs["scrcl"] = clusters
            model.get_marker_genes(adata, n_permutations=0)
            assert adata.uns["scrcl_markers"]["params"]["groupby"] == key
        assert "scrcl_marker_groups" not in adata.obs

    def test_cells_without_a_group_are_left_out(self, model):
        adata = simulate()
        adata.obs["some"] = adata.obs["cell_type"].where(adata.obs["cell_type"] != "2")
        found = model.get_marker_genes(adata, "some", n_permutations=0)
        expected = model.get_marker_genes(adata[adata.obs["cell_type"] != "2"].copy(), "cell_type", n_permutations=0)
        np.testing.assert_allclose(found["score"], expected["score"], atol=1e-3)

    def test_order_of_cells_and_genes(self, model):
        expected = model.get_marker_genes(simulate(), "cell_type", n_permutations=0).set_index(["group", "gene"])
        rng = np.random.default_rng(0)
        adata = simulate()[rng.permutation(150)][:, rng.permutation(120)].copy()
        found = model.get_marker_genes(adata, "cell_type", n_permutations=0).set_index(["group", "gene"])
        np.testing.assert_allclose(found.loc[expected.index, "score"], expected["score"], atol=1e-3)

    @pytest.mark.parametrize(
        "plot",
        ["", "_dotplot", "_heatmap", "_matrixplot", "_stacked_violin", "_tracksplot", "_violin"],
    )
    def test_scanpy_draws_them(self, model, plot):
        adata = simulate()
        model.get_marker_genes(adata, "cell_type", n_permutations=9)
        options = {} if plot in ("", "_violin") else {"dendrogram": False}
        getattr(sc.pl, f"rank_genes_groups{plot}")(adata, n_genes=3, key="scrcl_markers", show=False, **options)
        plt.close("all")

    def test_scanpy_reads_them_and_they_can_be_written(self, model, tmp_path):
        adata = simulate()
        table = model.get_marker_genes(adata, "cell_type", n_permutations=9)
        adata.write_h5ad(tmp_path / "a.h5ad")
        read = sc.get.rank_genes_groups_df(ad.read_h5ad(tmp_path / "a.h5ad"), "1", key="scrcl_markers")
        expected = table[table["group"] == "1"]
        assert list(read["names"]) == list(expected["gene"])
        np.testing.assert_allclose(read["pvals_adj"], expected["pvalue_adjusted"])

    def test_permuted_cells_give_uniform_pvalues(self, model):
        """Each gene is permuted by itself, so that the p-values of a group are independent."""
        adata = simulate(n_genes=120)
        rng = np.random.default_rng(0)
        adata.layers["permuted"] = sp.csr_matrix(rng.permuted(adata.X.toarray(), axis=0))
        table = model.get_marker_genes(adata, "cell_type", layer="permuted", n_permutations=300)
        for _, part in table.groupby("group", observed=True):
            assert kstest(part["pvalue"], "uniform").pvalue > 0.01
        seen = model.get_marker_genes(adata, "cell_type", n_permutations=300)
        assert kstest(seen["pvalue"], "uniform").pvalue < 1e-6

    def test_clusters_of_nothing(self):
        """Cells without types: p-values of the counts that were clustered are too small, of held-out counts they are
        not."""
        rng = np.random.default_rng(0)
        rates = rng.gamma(2.0, 2.0, size=150)
        counts = rng.poisson(rates, size=(300, 150))
        seen = rng.binomial(counts, 0.5)
        adata = ad.AnnData(seen.astype(np.float32), layers={"held_out": (counts - seen).astype(np.float32)})
        model = build(adata, epochs=30)
        adata.obs["found"] = model.get_clusters(n_clusters=3)
        same = model.get_marker_genes(groupby="found", n_permutations=200)
        other = model.get_marker_genes(groupby="found", layer="held_out", n_permutations=200)
        assert (same["pvalue"] < 0.05).mean() > 0.15
        assert (other["pvalue"] < 0.05).mean() < 0.13
        for _, part in other.groupby("group", observed=True):
            assert kstest(part["pvalue"], "uniform").pvalue > 0.01


@pytest.fixture(scope="module")
def model() -> scrcl.SCRCL:
    """A model trained long enough to tell the types apart; no test may change it or its data."""
    return build(simulate(), epochs=40)
