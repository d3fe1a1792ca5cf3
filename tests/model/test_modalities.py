import warnings
from typing import Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import scvi
from mudata import MuData
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.utils import memory

from ..helpers import real_data, simulate

KINDS = {"rna": "rna", "prot": "protein"}


def simulate_pair(n: int = 180, seed: int = 0, alike: bool = False) -> MuData:
    """Three types: genes tell type 0 from the others, proteins tell type 2 from the others; or both tell all."""
    rng = np.random.default_rng(seed)
    types = rng.integers(3, size=n)
    of_genes, of_proteins = (types, types) if alike else (np.minimum(types, 1), np.maximum(types, 1) - 1)
    rates = rng.gamma(1, 1, size=100)
    genes = rates * np.where(np.arange(100) // 25 == of_genes[:, None], 8, 1)
    levels = np.where(np.arange(12) // (4 if alike else 6) == of_proteins[:, None], 60, 10)
    depth = rng.lognormal(0, 0.2, size=(n, 1))
    cells = pd.DataFrame({"cell_type": types.astype(str)}, index=[f"cell{i}" for i in range(n)])
    rna = ad.AnnData(sp.csr_matrix(rng.poisson(genes * depth).astype(np.float32)), obs=cells[[]].copy())
    rna.var_names = [f"gene{i}" for i in range(100)]
    prot = ad.AnnData(rng.poisson(levels * depth).astype(np.float32), obs=cells[[]].copy())
    prot.var_names = [f"protein{i}" for i in range(12)]
    mdata = MuData({"rna": rna, "prot": prot})
    mdata.obs["cell_type"] = cells["cell_type"]
    return mdata


def build(mdata: MuData, kinds: dict[str, str] | None = None, epochs: int = 10, seed: int = 0, **setup) -> scrcl.SCRCL:
    scvi.settings.seed = seed
    scrcl.SCRCL.setup_mudata(mdata, kinds or KINDS, **setup)
    model = scrcl.SCRCL(mdata, n_hidden=16, n_refined=8, n_components=10)
    model.train(epochs, accelerator="cpu", enable_progress_bar=False)
    return model


def with_modality(mdata: MuData, name: str, adata: ad.AnnData) -> MuData:
    return MuData({**{other: mdata[other].copy() for other in mdata.mod}, name: adata})


@pytest.fixture
def mdata() -> MuData:
    return simulate_pair()


@pytest.fixture(scope="module")
def trained() -> scrcl.SCRCL:
    """A trained model that no test may change."""
    return build(simulate_pair())


class TestClusters:
    def test_all_modalities_find_what_none_finds_alone(self, trained):
        types = trained.adata.obs["cell_type"]
        assert adjusted_rand_score(types, trained.get_clusters(n_clusters=3)) > 0.95
        assert adjusted_rand_score(types, trained.get_clusters()) > 0.95  # and how many there are
        for modality, alike in (("rna", ("1", "2")), ("prot", ("0", "1"))):
            clusters = trained.get_clusters(n_clusters=2, modality=modality)
            assert adjusted_rand_score(types.isin(alike), clusters) > 0.95

    @pytest.mark.slow
    def test_probabilities_and_number(self, trained):
        found = trained.get_cluster_probabilities(n_clusters=3, modality="rna")
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
        assert trained.estimate_n_clusters().best == 3

    def test_kmeans_and_leiden(self, trained):
        for method in ("kmeans", "leiden"):
            assert trained.get_clusters(n_clusters=3, method=method).nunique() == 3


class TestLatent:
    def test_shape_and_rows(self, trained):
        for modality, n_own in ((None, 30), ("rna", 20), ("prot", 10)):
            latent = trained.get_latent_representation(modality=modality)
            assert latent.shape == (180, 32 + n_own)
            assert latent.dtype == np.float32
            np.testing.assert_allclose(np.linalg.norm(latent[:, :16], axis=1), 1, atol=1e-5)
            refined = trained.get_latent_representation(modality=modality, representation="refined")
            assert refined.shape == (180, 16 + n_own)

    def test_all_modalities_are_the_weighted_mean(self, trained):
        weights = trained.get_modality_weights().to_numpy()
        views = [trained.get_latent_representation(modality=name)[:, 16:32] for name in KINDS]
        mean = sum(weight[:, None] * view for weight, view in zip(weights.T, views, strict=True))
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        np.testing.assert_allclose(trained.get_latent_representation()[:, 16:32], mean, atol=1e-5)

    def test_known_cells_wherever_they_stand(self, trained):
        rows = np.array([150, 3, 77])
        part = MuData({name: trained.adata[name][rows].copy() for name in KINDS})
        np.testing.assert_array_equal(
            trained.get_latent_representation(part), trained.get_latent_representation(indices=rows)
        )
        np.testing.assert_array_equal(trained.get_modality_weights(part), trained.get_modality_weights(indices=rows))

    def test_new_cells_do_not_depend_on_each_other(self, trained):
        new = simulate_pair(40, seed=1)
        together = trained.get_latent_representation(new)
        assert together.shape == (40, 32 + 30)
        backwards = MuData({name: new[name][::-1].copy() for name in KINDS})
        np.testing.assert_allclose(trained.get_latent_representation(backwards), together[::-1], atol=1e-5)
        alone = MuData({name: new[name][5:6].copy() for name in KINDS})
        np.testing.assert_allclose(trained.get_latent_representation(alone), together[5:6], atol=1e-5)
        np.testing.assert_allclose(
            trained.get_modality_weights(alone), trained.get_modality_weights(new, indices=[5]), atol=1e-5
        )

    def test_new_cells_join_their_type(self):
        mdata = simulate_pair(240)
        model = build(MuData({name: mdata[name][:180].copy() for name in KINDS}))
        new = MuData({name: mdata[name][180:].copy() for name in KINDS})
        clusters = model.get_clusters(new, n_clusters=3)
        assert adjusted_rand_score(mdata.obs["cell_type"].iloc[180:], clusters) > 0.9

    def test_cells_unlike_all_others_are_flagged(self, trained):
        assert trained.get_mapping_quality(n_clusters=3)["known"].all()
        new = simulate_pair(40, seed=1)
        strange = MuData({"rna": new["rna"][:, ::-1].copy(), "prot": new["prot"].copy()})
        strange["rna"].var_names = new["rna"].var_names  # other genes under the names of these
        found = [trained.get_mapping_quality(cells, n_clusters=3) for cells in (new, strange)]
        assert not found[0]["known"].any()
        assert found[1]["excess"].mean() > found[0]["excess"].mean() + 1

    def test_variables_in_another_order_and_missing_ones(self, trained):
        new = simulate_pair(20, seed=1)
        expected = trained.get_latent_representation(new)
        turned = MuData({name: new[name][:, ::-1].copy() for name in KINDS})
        np.testing.assert_allclose(trained.get_latent_representation(turned), expected, atol=1e-5)
        fewer = MuData({"rna": new["rna"].copy(), "prot": new["prot"][:, 1:].copy()})
        with pytest.warns(UserWarning, match="1 of the 12 variables of 'prot' of the model are missing"):
            assert np.isfinite(trained.get_latent_representation(fewer)).all()

    def test_one_modality_alone(self, mdata):
        model = build(mdata, {"rna": "rna"})
        assert (model.get_modality_weights() == 1).all(axis=None)
        np.testing.assert_array_equal(
            model.get_latent_representation(modality="rna"), model.get_latent_representation()
        )
        types = mdata.obs["cell_type"].isin(["1", "2"])
        assert adjusted_rand_score(types, model.get_clusters(n_clusters=2)) > 0.95

    @pytest.mark.slow
    def test_batches(self, mdata):
        scvi.settings.seed = 0
        scrcl.SCRCL.setup_mudata(mdata, KINDS)
        model = scrcl.SCRCL(mdata, n_hidden=16, n_refined=8, n_components=10)
        model.train(10, batch_size=60, accelerator="cpu", enable_progress_bar=False)
        assert adjusted_rand_score(mdata.obs["cell_type"], model.get_clusters(n_clusters=3)) > 0.95


class TestWeights:
    def test_rows_sum_to_one(self, trained):
        weights = trained.get_modality_weights()
        assert list(weights.columns) == ["rna", "prot"]
        assert weights.index.equals(trained.adata.obs_names)
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
        np.testing.assert_array_equal(trained.adata.obsm["scrcl_modality_weights"], weights)

    @pytest.mark.parametrize("kind", ["features", "protein", "rna"])
    @pytest.mark.slow
    def test_noise_hardly_counts(self, kind):
        rng, mdata = np.random.default_rng(0), simulate_pair(alike=True)
        noise = ad.AnnData(
            rng.poisson(rng.gamma(2, 10, size=30), size=(180, 30)).astype(np.float32) + 1,
            obs=pd.DataFrame(index=mdata.obs_names),
            obsm={"X": rng.normal(size=(180, 10))},
        )
        larger = with_modality(mdata, "noise", noise)
        with pytest.warns(UserWarning, match="No other modality agrees with 'noise'"):
            model = build(larger, KINDS | {"noise": kind}, features_keys={"noise": "X"} if kind == "features" else None)
        assert model.get_modality_weights()["noise"].mean() < 0.05
        assert adjusted_rand_score(mdata.obs["cell_type"], model.get_clusters(n_clusters=3)) > 0.95

    def test_mixed_up_cells_are_noticed(self):
        """Of three modalities, the one whose cells were permuted loses its weight."""
        mdata = simulate_pair(alike=True)
        genes = np.random.default_rng(0).permutation(100)
        three = {"rna": mdata["rna"][:, genes[:50]].copy(), "half": mdata["rna"][:, genes[50:]].copy()}
        intact = MuData({**three, "prot": mdata["prot"].copy()})
        kinds = {"rna": "rna", "half": "rna", "prot": "protein"}
        before = build(intact, kinds, epochs=1).get_modality_weights()["half"].mean()
        mixed = MuData({name: intact[name].copy() for name in kinds})
        mixed["half"].X = mixed["half"].X[np.random.default_rng(1).permutation(180)]
        with pytest.warns(UserWarning, match="Check how cells were matched"):
            after = build(mixed, kinds, epochs=1).get_modality_weights()["half"].mean()
        assert after < before / 4

    def test_two_modalities_that_contradict_each_other(self, mdata):
        mdata["prot"].X = mdata["prot"].X[np.random.default_rng(1).permutation(180)]
        with pytest.warns(UserWarning, match="'rna' or with 'prot'"):
            build(mdata, epochs=1)

    def test_no_warning_where_modalities_agree(self, mdata):
        # Here genes and proteins share one division of three types, in part.
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="No other modality")
            build(mdata, epochs=1)


class TestGenes:
    def test_markers_of_all_modalities_and_of_one(self, trained):
        markers = trained.get_marker_genes(groupby="cell_type", n_permutations=0)
        best = {group: table["gene"].iloc[:4].tolist() for group, table in markers.groupby("group", observed=True)}
        assert all(name in {f"gene{i}" for i in range(25)} for name in best["0"])
        assert any(name.startswith("protein") for name in best["2"])
        proteins = trained.get_marker_genes(groupby="cell_type", n_permutations=20, modality="prot", key_added="found")
        assert len(proteins) == 3 * 12
        assert set(proteins.query("group == '2'")["gene"].iloc[:6]) == {f"protein{i}" for i in range(6, 12)}
        assert proteins["pvalue"].between(1 / 21, 1).all()
        assert trained.adata.uns["found"]["names"]["2"][0].startswith("protein")

    def test_fold_change_of_proteins(self, trained):
        found = trained.get_marker_genes(groupby="cell_type", n_permutations=0, modality="prot")
        found = found.query("group == '2'").set_index("gene")["log2_fold_change"]
        inside = (trained.adata.obs["cell_type"] == "2").to_numpy()
        counts = trained.adata["prot"].X
        expected = np.log2(counts[inside].mean(0) / counts[~inside].mean(0))
        np.testing.assert_allclose(found[trained.adata["prot"].var_names], expected, atol=1e-4)

    def test_associations(self, trained):
        every = trained.get_cell_gene_associations(groupby="cell_type")
        assert every.shape == (3, 112)
        proteins = trained.get_cell_gene_associations(groupby="cell_type", modality="prot")
        pd.testing.assert_frame_equal(every[proteins.columns], proteins)
        assert trained.get_cell_gene_associations(modality="prot", n_top=3).shape == (180, 12)
        assert trained.get_cell_gene_associations(genes="protein3").shape == (180, 1)
        with pytest.raises(KeyError, match="'gene3'"):
            trained.get_cell_gene_associations(genes="gene3", modality="prot")

    def test_embedding_and_modules(self, trained):
        assert trained.get_gene_embedding().shape == (112, 8)
        assert list(trained.get_gene_embedding("prot").index) == list(trained.adata["prot"].var_names)
        assert len(trained.get_gene_modules(2)) == 112

    def test_names_by_genes_and_proteins(self, trained):
        lists = {"first": ["gene1", "gene2", "gene3"], "last": ["protein7", "protein8", "protein9"]}
        names = trained.get_cluster_names(lists, groupby="cell_type")["name"]
        assert names["2"] == "last"
        with pytest.raises(ValueError, match="markers"):
            trained.get_cluster_names({"first": lists["first"]}, groupby="cell_type", modality="prot")

    def test_given_features_have_associations_but_no_markers(self, mdata):
        mdata["rna"].obsm["X"] = np.log1p(mdata["rna"].X.toarray()[:, :8])
        mdata["rna"].obsm["X"] = pd.DataFrame(mdata["rna"].obsm["X"], mdata.obs_names, columns=list("abcdefgh"))
        model = build(mdata, {"rna": "features", "prot": "protein"}, features_keys={"rna": "X"})
        assert set(model.get_marker_genes(n_permutations=0)["gene"]) == set(mdata["prot"].var_names)
        assert list(model.get_cell_gene_associations(modality="rna", genes=["c"]).columns) == ["c"]
        with pytest.raises(ValueError, match="has embeddings only"):
            model.get_marker_genes(modality="rna")


class TestSaving:
    def test_with_data(self, trained, tmp_path):
        trained.save(tmp_path / "model", save_anndata=True)
        assert (tmp_path / "model" / "mdata.h5mu").is_file()
        loaded = scrcl.SCRCL.load(tmp_path / "model", accelerator="cpu")
        for modality in (None, "prot"):
            np.testing.assert_array_equal(
                loaded.get_latent_representation(modality=modality),
                trained.get_latent_representation(modality=modality),
            )
        pd.testing.assert_frame_equal(loaded.get_modality_weights(), trained.get_modality_weights())
        loaded.train(1, accelerator="cpu", enable_progress_bar=False)

    def test_without_data_and_with_other_data(self, trained, tmp_path):
        trained.save(tmp_path / "model")
        new = simulate_pair(30, seed=2)
        expected = trained.get_latent_representation(new)
        without = scrcl.SCRCL.load(tmp_path / "model", adata=False, accelerator="cpu")
        np.testing.assert_allclose(without.get_latent_representation(new), expected, atol=1e-6)
        without.save(tmp_path / "again")
        again = scrcl.SCRCL.load(tmp_path / "again", adata=new, accelerator="cpu")
        np.testing.assert_allclose(again.get_latent_representation(), expected, atol=1e-6)
        assert again.get_cell_gene_associations(modality="prot", genes="protein1").shape == (30, 1)

    def test_given_features_travel(self, mdata, tmp_path):
        mdata["rna"].obsm["X"] = np.log1p(mdata["rna"].X.toarray()[:, :8])
        model = build(mdata, {"rna": "features", "prot": "protein"}, features_keys={"rna": "X"})
        model.save(tmp_path / "model", save_anndata=True)
        loaded = scrcl.SCRCL.load(tmp_path / "model", accelerator="cpu")
        np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
        without = scrcl.SCRCL.load(tmp_path / "model", adata=False, accelerator="cpu")
        without.save(tmp_path / "again")
        again = scrcl.SCRCL.load(tmp_path / "again", adata=mdata, accelerator="cpu")
        np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())
        narrow = MuData({name: mdata[name].copy() for name in KINDS})
        narrow["rna"].obsm["X"] = narrow["rna"].obsm["X"][:, :5] + 1
        with pytest.raises(ValueError, match="5 columns, but the model was built on 8"):
            loaded.get_latent_representation(narrow)

    def test_the_modalities_stay_as_they_are(self, mdata):
        before = {name: mdata[name].copy() for name in KINDS}
        same = {name: mdata[name] for name in KINDS}
        model = build(mdata, epochs=1)
        model.get_marker_genes(groupby="cell_type", n_permutations=0)
        assert list(mdata.mod) == list(KINDS)
        for name, old in before.items():
            new = mdata[name]
            assert new is same[name]
            assert (sp.csr_array(new.X) != sp.csr_array(old.X)).nnz == 0
            assert list(new.obs) == list(old.obs)
            assert list(new.var) == list(old.var)
            assert set(new.obsm) == set(old.obsm)
            assert set(new.uns) == set(old.uns)


@pytest.mark.slow
def test_four_kinds_at_once(mdata):
    rng, types = np.random.default_rng(0), mdata.obs["cell_type"].astype(int).to_numpy()
    peaks = rng.poisson(np.where(np.arange(200) // 60 == types[:, None], 2, 0.4)).astype(np.float32)
    atac = ad.AnnData(sp.csr_matrix(peaks), obs=pd.DataFrame(index=mdata.obs_names))
    atac.var_names = [f"chr1:{i}00-{i}99" for i in range(200)]
    space = ad.AnnData(np.zeros((180, 1), np.float32), obs=pd.DataFrame(index=mdata.obs_names))
    space.obsm["X_pca"] = np.random.default_rng(0).normal(size=(180, 5))
    larger = with_modality(with_modality(mdata, "atac", atac), "space", space)
    kinds = {**KINDS, "atac": "atac", "space": "features"}
    with pytest.warns(UserWarning, match="agrees with 'space'"):  # which is noise
        model = build(larger, kinds, features_keys={"space": "X_pca"})
    assert model.get_modality_weights().shape == (180, 4)
    assert adjusted_rand_score(mdata.obs["cell_type"], model.get_clusters(n_clusters=3)) > 0.95
    assert model.get_gene_embedding().shape[0] == 100 + 12 + 200 + 5
    assert model.get_marker_genes(modality="atac", n_permutations=0, n_top=1)["gene"].str.startswith("chr1").all()


def test_counts_in_a_layer(mdata):
    expected = build(mdata, epochs=2).get_latent_representation()
    moved = MuData({name: mdata[name].copy() for name in KINDS})
    moved["prot"].layers["counts"] = moved["prot"].X.copy()
    moved["prot"].X = np.log1p(moved["prot"].X)
    found = build(moved, epochs=2, layers={"prot": "counts"})
    np.testing.assert_array_equal(found.get_latent_representation(), expected)
    assert len(found.get_marker_genes(groupby=None, n_permutations=0, modality="prot", n_top=1))


def test_a_view_becomes_data_of_its_own(mdata):
    view = mdata[:150]
    model = build(view, epochs=1)
    assert not view.is_view
    assert model.get_latent_representation().shape == (150, 32 + 30)


def test_the_same_seed_gives_the_same(mdata):
    first, second = (build(simulate_pair(), epochs=2).get_latent_representation() for _ in range(2))
    np.testing.assert_array_equal(first, second)


class TestFaults:
    @pytest.mark.parametrize(
        ("setup", "error", "match"),
        [
            ({"modalities": {}}, ValueError, "does not give each modality a kind"),
            ({"modalities": ["rna"]}, ValueError, "does not give each modality a kind"),
            ({"modalities": {"rna": "genes"}}, ValueError, "Pass one of 'rna', 'protein', 'atac', 'features'"),
            ({"modalities": {"adt": "protein"}}, KeyError, "'adt' is not in mdata.mod. Present: 'rna', 'prot'"),
            ({"modalities": KINDS, "layers": {"prot": "counts"}}, KeyError, "Present: none"),
            ({"modalities": KINDS, "layers": {"adt": "counts"}}, KeyError, "'adt' is not in modalities"),
            ({"modalities": KINDS, "features_keys": {"prot": "X"}}, ValueError, "of the kind 'protein'"),
            ({"modalities": {"rna": "features"}}, ValueError, "features_keys does not name"),
            ({"modalities": {"rna": "features"}, "features_keys": {"rna": "X"}}, KeyError, "'X' is not in mdata"),
        ],
    )
    def test_arguments(self, mdata, setup, error, match):
        with pytest.raises(error, match=match):
            scrcl.SCRCL.setup_mudata(mdata, **setup)

    def test_no_mudata(self, mdata):
        with pytest.raises(TypeError, match="setup_anndata"):
            scrcl.SCRCL.setup_mudata(mdata["rna"], KINDS)

    def test_other_cells(self, mdata):
        lacking = MuData({"rna": mdata["rna"].copy(), "prot": mdata["prot"][:100].copy()})
        with pytest.raises(ValueError, match=r"80 of 180 cells lack the modality 'prot'.*intersect_obs"):
            scrcl.SCRCL.setup_mudata(lacking, KINDS)

    def test_other_order(self, mdata):
        turned = MuData({"rna": mdata["rna"].copy(), "prot": mdata["prot"][::-1].copy()})
        with pytest.raises(ValueError, match="'prot' are in another order") as caught:
            scrcl.SCRCL.setup_mudata(turned, KINDS)
        mend = str(caught.value).split("`")[1].removeprefix("mdata = ")
        mended = eval(mend, {"mudata": mudata, "mdata": turned})
        scrcl.SCRCL.setup_mudata(mended, KINDS)
        assert mended["prot"].obs_names.equals(mended["rna"].obs_names)

    def test_new_cells_that_lack_a_modality(self, trained):
        new = simulate_pair(30, seed=1)
        with pytest.raises(ValueError, match="lack the modality 'prot'"):
            trained.get_latent_representation(MuData({"rna": new["rna"].copy(), "prot": new["prot"][:20].copy()}))
        with pytest.raises(KeyError, match="'prot' is not in mdata.mod"):
            trained.get_clusters(MuData({"rna": new["rna"].copy()}))
        with pytest.raises(TypeError, match="adata is of type AnnData, not MuData"):
            trained.get_latent_representation(new["rna"])

    def test_one_feature(self, mdata):
        narrow = MuData({"rna": mdata["rna"].copy(), "prot": mdata["prot"][:, :1].copy()})
        with pytest.raises(ValueError, match="'prot' has only one feature"):
            scrcl.SCRCL.setup_mudata(narrow, KINDS)

    @pytest.mark.parametrize("name", ["rna", "prot"])
    def test_no_counts(self, mdata, name):
        mdata[name].X = mdata[name].X * 0.5
        with pytest.raises(ValueError, match=rf"mdata\['{name}'\].X holds .* that are not whole numbers"):
            scrcl.SCRCL.setup_mudata(mdata, KINDS)

    def test_cell_without_counts(self, mdata):
        mdata["prot"].X[3] = 0
        with pytest.raises(ValueError, match=r"1 of 180 cells in mdata\['prot'\].X has no counts"):
            scrcl.SCRCL.setup_mudata(mdata, KINDS)

    def test_nan_in_features(self, mdata):
        mdata["rna"].obsm["X"] = np.full((180, 3), np.nan)
        with pytest.raises(
            ValueError, match=r"mdata\['rna'\].obsm\['X'\] is not a table of finite numbers: Input contains NaN"
        ):
            scrcl.SCRCL.setup_mudata(mdata, {"rna": "features"}, features_keys={"rna": "X"})

    def test_features_that_do_not_vary(self, mdata):
        mdata["rna"].obsm["X"] = np.ones((180, 3))
        with pytest.raises(ValueError, match="'rna' is the same for all cells"):
            scrcl.SCRCL.setup_mudata(mdata, {"rna": "features"}, features_keys={"rna": "X"})

    def test_proteins_that_do_not_vary(self, mdata):
        mdata["prot"].X = np.ones_like(mdata["prot"].X)
        scrcl.SCRCL.setup_mudata(mdata, KINDS)
        with pytest.raises(ValueError, match="'prot' is the same for all cells"):
            scrcl.SCRCL(mdata)

    @pytest.mark.parametrize("n_peaks", [2, 5])
    def test_peaks_that_say_nothing(self, mdata, n_peaks):
        atac = ad.AnnData(np.ones((180, n_peaks), np.float32), obs=pd.DataFrame(index=mdata.obs_names))
        larger = with_modality(mdata, "atac", atac)
        scrcl.SCRCL.setup_mudata(larger, KINDS | {"atac": "atac"})
        with pytest.raises(ValueError, match="2 peaks" if n_peaks == 2 else "'atac' is the same for all cells"):
            scrcl.SCRCL(larger)

    def test_one_for_the_other(self, trained, mdata, tmp_path):
        with pytest.raises(TypeError, match="setup_mudata"):
            scrcl.SCRCL.setup_anndata(mdata)
        trained.save(tmp_path / "model")
        with pytest.raises(TypeError, match="adata is of type AnnData, not MuData"):
            scrcl.SCRCL.load(tmp_path / "model", adata=simulate(), accelerator="cpu")

    def test_names_that_occur_twice(self, mdata):
        mdata["prot"].var_names = ["same"] * 12
        with pytest.raises(ValueError, match=r"mdata\['prot'\].var_names_make_unique"):
            scrcl.SCRCL.setup_mudata(mdata, KINDS)

    def test_lack_of_memory_is_foreseen(self, mdata, monkeypatch):
        monkeypatch.setattr(memory, "available", lambda: 1e9)
        scrcl.SCRCL.setup_mudata(mdata, KINDS)
        with pytest.warns(UserWarning, match=r"A model of 180 cells needs about 1\.5 GB of memory, but 1\.0 GB"):
            scrcl.SCRCL(mdata, n_components=10)

    def test_too_few_cells(self, mdata):
        small = MuData({name: mdata[name][:10].copy() for name in KINDS})
        scrcl.SCRCL.setup_mudata(small, KINDS)
        with pytest.raises(ValueError, match="mdata has 10 cells, but 15 neighbours of each require at least 16"):
            scrcl.SCRCL(small)

    def test_unknown_modality_of_the_model(self, trained):
        for method in (trained.get_latent_representation, trained.get_clusters, trained.get_marker_genes):
            with pytest.raises(KeyError, match="modality='adt' is not in the model. Present: 'rna', 'prot'"):
                method(modality="adt")

    def test_a_layer_of_which_modality(self, trained):
        with pytest.raises(ValueError, match="layer='counts' is of one modality. Name it: `modality='rna'`"):
            trained.get_marker_genes(layer="counts")

    def test_a_model_of_one_modality(self):
        adata = simulate()
        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=16, n_refined=8, n_components=10)
        model.train(1, accelerator="cpu", enable_progress_bar=False)
        with pytest.raises(ValueError, match="setup_mudata"):
            model.get_modality_weights()
        with pytest.raises(ValueError, match="modality='rna' is not in the model, which has one modality"):
            model.get_clusters(modality="rna")
        with pytest.raises(TypeError, match="adata is of type MuData, not AnnData"):
            model.get_latent_representation(simulate_pair(20))


@pytest.mark.slow
def test_real_cells():
    """CITE-seq of PBMC, the number of types given: what RNA alone does not find is found with proteins."""
    read = mudata.read_h5mu(real_data("cite_pbmc_inhouse.h5mu"))
    truth = read.obs["cell_type"].to_numpy(str)
    scored = ~np.isin(truth, ["unknown", "CD16+ monocytes"])  # no type, and seven cells
    cells = pd.DataFrame(index=read.obs_names)
    mdata = MuData({name: ad.AnnData(read[name].X, obs=cells.copy(), var=read[name].var[[]].copy()) for name in KINDS})
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_mudata(mdata, KINDS)
    model = scrcl.SCRCL(mdata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    assert adjusted_rand_score(truth[scored], model.get_clusters(n_clusters=5)[scored]) > 0.98
    assert adjusted_rand_score(truth[scored], model.get_clusters(n_clusters=5, modality="rna")[scored]) > 0.62


@pytest.mark.slow
def test_coordinates_with_several_modalities(tmp_path):
    """As with one: layers are found, a slice that is new is placed among its own cells, and the model is saved."""

    def tissue(seed: int) -> mudata.MuData:
        rna = scrcl.datasets.layered_tissue(150, 2, 60, seed=0)
        counts = np.random.default_rng(seed).poisson(rna.X[:, :20].toarray() * 3 + 1).astype(np.float32)
        prot = sc.AnnData(counts, obs=rna.obs[[]].copy(), var=pd.DataFrame(index=[f"p{i}" for i in range(20)]))
        mdata = mudata.MuData({"rna": rna, "prot": prot})
        mdata.obsm["spatial"] = rna.obsm["spatial"]
        mdata.obs["slice"] = rna.obs["slice"].to_numpy()
        return mdata

    mdata = tissue(0)
    kinds = {"rna": "rna", "prot": "protein"}
    setup: Any = {"modalities": kinds, "spatial_key": "spatial", "sample_key": "slice"}
    for mode in ("replace", "join"):
        scrcl.SCRCL.setup_mudata(mdata, **setup)
        model = scrcl.SCRCL(mdata, n_hidden=16, n_components=10, spatial_mode=mode)
        model.train(5, accelerator="cpu", enable_progress_bar=False)
        edges = sp.coo_array(mdata.obsp["scrcl_connectivities"])
        slices = mdata.obs["slice"].to_numpy()
        if mode == "replace":
            assert (slices[edges.row] == slices[edges.col]).all()
        clusters = model.get_clusters(n_clusters=5)
        assert clusters.nunique() == 5
        weights = model.get_modality_weights()
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
        latent = model.get_latent_representation()
        # The cells again, as data that the model does not know by identity.
        np.testing.assert_allclose(model.get_latent_representation(tissue(0)), latent, atol=1e-5)
        new = model.get_latent_representation(tissue(1))
        assert np.isfinite(new).all()
        assert np.abs(new - latent).max() > 1e-3
        np.testing.assert_allclose(model.get_modality_weights(tissue(1)).sum(axis=1), 1, atol=1e-5)
    model.save(tmp_path / "model")
    again = scrcl.SCRCL.load(tmp_path / "model", adata=mdata, accelerator="cpu")
    np.testing.assert_allclose(again.get_latent_representation(), latent, atol=1e-6)
    with pytest.raises(ValueError, match="spatial_key"):
        scrcl.SCRCL.setup_mudata(mdata, modalities=kinds, sample_key="slice")
