import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.utils.errors import ScrclValueError

from ..helpers import build, simulate


@pytest.fixture(scope="module")
def part_of_the_cells():
    """A model of some cells, and the others."""
    everything = simulate(300)
    return build(everything[:200].copy(), epochs=40), everything[200:].copy()


class TestClusters:
    @pytest.mark.parametrize("method", ["consensus", "kmeans", "leiden"])
    def test_new_cells_join_the_right_clusters(self, part_of_the_cells, method):
        model, others = part_of_the_cells
        found = model.get_clusters(others, n_clusters=3, method=method)
        assert adjusted_rand_score(others.obs["cell_type"], found) > 0.9

    def test_number_of_clusters(self, trained):
        estimate = trained.estimate_n_clusters()
        assert trained.get_clusters().nunique() == estimate.best
        assert estimate.curve.index.name == "n_clusters"
        assert (np.diff(estimate.curve["connectivity"]) >= 0).all()
        with pytest.raises(ValueError, match="representation"):
            trained.estimate_n_clusters(representation="best")

    def test_clusters(self, trained):
        clusters = trained.get_clusters(n_clusters=4)
        assert list(clusters.cat.categories) == ["0", "1", "2", "3"]
        sizes = clusters.value_counts(sort=False).loc[["0", "1", "2", "3"]]
        assert (np.diff(sizes) <= 0).all()
        assert list(clusters.index) == list(trained.adata.obs_names)

    def test_kmeans_against_scikit_learn(self, trained):
        from sklearn.cluster import KMeans

        expected = KMeans(3, n_init=20, random_state=5).fit_predict(trained.get_latent_representation())
        assert adjusted_rand_score(expected, trained.get_clusters(n_clusters=3, method="kmeans", seed=5)) == 1

    def test_refined_representation_can_be_clustered(self, trained):
        assert trained.get_clusters(n_clusters=3, representation="refined").nunique() == 3

    def test_leiden_seeks_the_number_of_clusters(self, trained):
        assert trained.get_clusters(n_clusters=5, method="leiden").nunique() == 5

    def test_number_of_clusters_is_found(self, part_of_the_cells):
        model, _ = part_of_the_cells
        for method in ("consensus", "kmeans", "leiden"):
            assert model.get_clusters(method=method).nunique() == 3


@pytest.mark.parametrize("resolution", [5.0, 0.1])
@pytest.mark.parametrize("choice", [{}, {"method": "kmeans"}, {"method": "consensus", "n_clusters": 3}])
def test_a_resolution_that_nothing_reads_is_refused(trained, choice, resolution):
    with pytest.raises(ScrclValueError, match=r"resolution=.*method='leiden'"):
        trained.get_clusters(resolution=resolution, **choice)


def test_a_resolution_beside_a_number_is_refused_and_alone_is_read(trained):
    with pytest.raises(ScrclValueError, match="resolution=1.0 is not read beside n_clusters=3"):
        trained.get_clusters(method="leiden", resolution=1.0, n_clusters=3)
    few, many = (trained.get_clusters(method="leiden", resolution=r).nunique() for r in (0.1, 5.0))
    assert few < many
    usual, same = trained.get_clusters(method="leiden"), trained.get_clusters(method="leiden", resolution=0.1)
    pd.testing.assert_series_equal(usual, same)


@pytest.fixture(scope="module")
def types():
    """A trained model of three clear types, and its data."""
    return build(simulate(), epochs=40)


class TestTree:
    def test_the_default_cut_is_the_default_clusters(self, types):
        tree = types.get_cluster_tree()
        pd.testing.assert_series_equal(tree.cut(), types.get_clusters())
        assert tree.n_clusters == types.estimate_n_clusters().best == 3

    def test_splits_between_types_have_all_evidence_and_others_have_none(self, types):
        splits = types.get_cluster_tree().splits
        between, within = splits[splits["supported"]], splits[~splits["supported"]]
        assert len(between) == 2
        assert (between["verdict"] == "type").all()
        assert (between["pvalue"] < 0.01).all()
        assert (between["stability"] > 0.7).all()
        assert (between["n_genes_left"] + between["n_genes_right"] > 10).all()
        assert between["distance"].min() > within["distance"].max()
        assert (within["n_genes_left"] + within["n_genes_right"] == 0).all()
        assert not (within["pvalue"] < 0.05).any()

    def test_genes_of_a_split_are_those_that_were_simulated(self, types):
        splits = types.get_cluster_tree().splits
        expression = types.adata.to_df()
        for _, split in splits[splits["supported"]].iterrows():
            clusters = types.get_clusters().astype(str)
            left, right = (clusters.isin(split[side].split("+")) for side in ("left", "right"))
            for gene in split["genes_left"].split(", "):
                assert expression.loc[left, gene].mean() > 2 * expression.loc[right, gene].mean()

    def test_the_evidence_is_found_once(self, types, monkeypatch):
        splits = types.get_cluster_tree().splits
        monkeypatch.setattr(types, "_compare_sides", None)
        pd.testing.assert_frame_equal(types.get_cluster_tree().splits, splits)

    def test_without_evidence_there_is_the_connectivity(self, types):
        full, bare = types.get_cluster_tree(), types.get_cluster_tree(evidence=False)
        pd.testing.assert_series_equal(bare.splits["connectivity"], full.splits["connectivity"])
        assert bare.splits["pvalue"].isna().all()

    def test_labels_are_ignored_and_the_tree_is_the_same_after_load(self, types, tmp_path):
        tree = types.get_cluster_tree()
        types.save(tmp_path / "model")
        loaded = scrcl.SCRCL.load(tmp_path / "model", adata=types.adata)
        pd.testing.assert_frame_equal(loaded.get_cluster_tree().splits, tree.splits)
        alone = scrcl.SCRCL.load(tmp_path / "model")
        pd.testing.assert_series_equal(alone.get_cluster_tree(evidence=False).cut(), tree.cut())
        with pytest.raises(ScrclValueError, match="evidence=False"):
            alone.get_cluster_tree()

    def test_the_order_of_the_data_does_not_change_the_evidence(self, types, tmp_path):
        types.save(tmp_path / "model")
        order = np.random.default_rng(0).permutation(types.adata.n_obs)
        loaded = scrcl.SCRCL.load(tmp_path / "model", adata=types.adata[order].copy())
        pd.testing.assert_frame_equal(loaded.get_cluster_tree().splits, types.get_cluster_tree().splits)


class TestSubclusters:
    def test_a_cluster_of_two_types_is_divided_and_one_of_one_type_is_not(self, types):
        adata = types.adata
        pair = build(adata[adata.obs["cell_type"].isin(adata.obs["cell_type"].unique()[:2])].copy(), epochs=40)
        pair._results._cache.clusterings.clear()
        whole = pair.get_clusters()
        assert whole.nunique() == 2
        one = pair.get_subclusters("0")
        assert set(one) == {"0"}
        assert one.index.equals(whole.index[whole == "0"])
        two = pair.get_subclusters("1", n_clusters=2)
        assert set(two) == {"1.0", "1.1"}

    def test_clusters_that_are_not_there_are_refused(self, types):
        with pytest.raises(ValueError, match="cluster='9'"):
            types.get_subclusters("9")

    def test_models_with_labels_and_of_files_are_divided_too(self, tmp_path):
        adata = simulate()
        adata.obs["type"] = adata.obs["cell_type"].astype(str)
        adata.write_h5ad(tmp_path / "counts.h5ad")
        backed = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r")
        model = build(backed, epochs=2, setup={"labels_key": "type", "unlabeled_category": "unknown"})
        cells = model.get_clusters()
        largest = model.get_subclusters("0", n_clusters=2)
        assert largest.index.equals(cells.index[cells == "0"])
        assert set(largest) == {"0.0", "0.1"}
