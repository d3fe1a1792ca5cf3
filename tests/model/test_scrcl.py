"""SCRCL as a user meets it."""

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
import scvi
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.graph.adjacency import symmetric_adjacency

from ..helpers import build, simulate


class TestPreparation:
    @pytest.mark.slow
    def test_example_of_the_documentation(self, tmp_path):
        adata = simulate()
        adata.layers["counts"] = adata.X.copy()
        sc.pp.normalize_total(adata)
        scrcl.SCRCL.setup_anndata(adata, layer="counts")
        model = scrcl.SCRCL(adata)
        model.train(max_epochs=40, enable_progress_bar=False)
        adata.obsm["X_scrcl"] = model.get_latent_representation()
        adata.obs["scrcl"] = model.get_clusters()
        model.save(tmp_path / "model")
        model = scrcl.SCRCL.load(tmp_path / "model", adata=adata)
        new = simulate(30)
        new.layers["counts"] = new.X
        clusters = model.get_clusters(new)
        assert len(clusters) == 30
        assert adjusted_rand_score(adata.obs["cell_type"], adata.obs["scrcl"]) > 0.9

    def test_what_is_prepared_can_be_seen(self, adata):
        build(adata, n_top_genes=50, n_neighbors=7)
        assert adata.obsm["X_scrcl_features"].shape == (150, 40)
        graph = adata.obsp["scrcl_connectivities"]
        assert (graph != graph.T).nnz == 0
        assert set(graph.data) == {1}
        assert graph.diagonal().sum() == 0
        assert (adata.obsp["scrcl_distances"].getnnz(axis=1) == 7).all()
        assert adata.var["scrcl_genes"].sum() == 50
        genes = adata.varp["scrcl_gene_graph"]
        assert (genes.getnnz(axis=1) == np.where(adata.var["scrcl_genes"], 5, 0)).all()
        assert adata.uns["scrcl"]["n_neighbors"] == 7
        sc.tl.leiden(adata, neighbors_key="scrcl_neighbors", flavor="igraph", n_iterations=2)

    def test_prepared_data_can_be_written(self, adata, tmp_path):
        build(adata)
        adata.write_h5ad(tmp_path / "a.h5ad")
        again = ad.read_h5ad(tmp_path / "a.h5ad")
        assert (again.obsp["scrcl_connectivities"] != adata.obsp["scrcl_connectivities"]).nnz == 0

    def test_cell_graph_against_brute_force(self, adata):
        build(adata, n_neighbors=6)
        stabilized = adata.obsm["X_scrcl_features"][:, 20:].astype(np.float64)
        points = stabilized / np.linalg.norm(stabilized, axis=1, keepdims=True)
        distances = np.linalg.norm(points[:, None] - points[None], axis=2)
        np.fill_diagonal(distances, np.inf)
        expected = np.zeros(distances.shape)
        np.put_along_axis(expected, np.argsort(distances, axis=1)[:, :6], 1, axis=1)
        np.testing.assert_array_equal(adata.obsp["scrcl_connectivities"].toarray(), np.maximum(expected, expected.T))

    def test_graph_of_the_user(self, trained, adata):
        rng = np.random.default_rng(0)
        adata.obsp["mine"] = sp.csr_matrix((rng.random((150, 150)) < 0.03) * rng.random((150, 150)))
        adata.uns["mine"] = {"connectivities_key": "mine"}
        model = build(adata, setup={"neighbors_key": "mine"})
        expected = symmetric_adjacency(adata.obsp["mine"])
        assert (model._reference.adjacency != expected).nnz == 0
        assert (adata.obsp["scrcl_connectivities"] != sp.csr_matrix(expected)).nnz == 0
        assert not np.allclose(model.get_latent_representation(), trained.get_latent_representation())

    def test_space_of_the_user(self, adata):
        rng = np.random.default_rng(0)
        adata.obsm["X_mine"] = rng.normal(3, 20, size=(150, 6))
        model = build(adata, setup={"features_key": "X_mine"})
        features = adata.obsm["X_scrcl_features"]
        mine = adata.obsm["X_mine"]
        expected = (mine - mine.mean(0)) / np.sqrt(((mine - mine.mean(0)) ** 2).sum(1).mean())
        np.testing.assert_allclose(features, expected, atol=1e-5)
        latent = model.get_latent_representation()
        order = rng.permutation(150)
        np.testing.assert_array_equal(model.get_latent_representation(adata[order].copy()), latent[order])
        with pytest.raises(KeyError, match="features_key='X_mine' is not in adata.obsm"):
            model.get_latent_representation(simulate(20, seed=3))

    def test_on_top_of_scvi_on_the_same_data(self, adata):
        scvi.model.SCVI.setup_anndata(adata)
        other = scvi.model.SCVI(adata, n_latent=5)
        other.train(2, accelerator="cpu", enable_progress_bar=False)
        adata.obsm["X_scVI"] = other.get_latent_representation()
        model = build(adata, setup={"features_key": "X_scVI"})
        assert model.get_latent_representation().shape == (150, 32 + 5)
        assert other.get_latent_representation().shape == (150, 5)

    @pytest.mark.parametrize("form", ["dense", "csc", "int64", "float64", "view", "fortran", "array", "layer"])
    def test_form_of_the_counts_does_not_matter(self, trained, form):
        expected = trained.get_latent_representation()
        adata, setup = simulate(), {}
        if form == "dense":
            adata.X = adata.X.toarray()
        elif form == "fortran":
            adata.X = np.asfortranarray(adata.X.toarray())
        elif form == "csc":
            adata.X = sp.csc_matrix(adata.X)
        elif form == "array":
            adata.X = sp.csr_array(adata.X)
        elif form in ("int64", "float64"):
            adata.X = adata.X.astype(form)
        elif form == "view":
            padded = simulate(170)
            padded = ad.concat([padded[:20], adata])
            padded.obs_names_make_unique()
            adata = padded[20:]
            assert adata.is_view
        elif form == "layer":
            adata.layers["counts"] = adata.X
            adata.X = np.full(adata.shape, np.nan)
            setup = {"layer": "counts"}
        np.testing.assert_array_equal(build(adata, setup=setup).get_latent_representation(), expected)

    def test_backed_counts(self, trained, tmp_path):
        expected = trained.get_latent_representation()
        simulate().write_h5ad(tmp_path / "a.h5ad")
        backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
        np.testing.assert_array_equal(build(backed).get_latent_representation(), expected)

    def test_counts_of_the_user_stay_as_they_are(self, adata):
        before = adata.X.copy()
        build(adata)
        assert (adata.X != before).nnz == 0
        assert adata.X.has_sorted_indices

    def test_summary(self, trained, capsys):
        print(trained)
        assert "n_hidden: 16" in capsys.readouterr().out

    def test_annbatch_is_refused_and_the_store_is_read_without(self, adata, tmp_path):
        path = tmp_path / "collection.zarr" / "dataset_0"  # as in a collection of annbatch
        adata.write_zarr(path)
        with pytest.raises(NotImplementedError, match="minibatches of independent cells") as error:
            scrcl.SCRCL.setup_annbatch(str(path.parent))
        code = str(error.value).split("`")[1]
        lazy = eval(code.split("(", 1)[1][:-1], {"anndata": ad, "path": path})
        eval(code.replace("anndata.experimental.read_lazy(path)", "lazy"), {"SCRCL": scrcl.SCRCL, "lazy": lazy})
        scvi.settings.seed = 0
        model = scrcl.SCRCL(lazy, n_hidden=16, n_refined=8, n_components=10)
        model.train(2, accelerator="cpu", enable_progress_bar=False)
        expected = build(adata, epochs=2, n_hidden=16, n_refined=8, n_components=10)
        np.testing.assert_array_equal(model.get_latent_representation(), expected.get_latent_representation())
