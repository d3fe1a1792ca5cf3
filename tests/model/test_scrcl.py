"""SCRCL as a user meets it."""

import copy
import os
import pickle
import signal
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import scvi
from lightning.pytorch import Callback
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.graph.adjacency import symmetric_adjacency

from ..conftest import build, simulate


class TestPreparation:
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

    def test_graph_of_the_user(self, adata):
        rng = np.random.default_rng(0)
        adata.obsp["mine"] = sp.csr_matrix((rng.random((150, 150)) < 0.03) * rng.random((150, 150)))
        adata.uns["mine"] = {"connectivities_key": "mine"}
        model = build(adata, setup={"neighbors_key": "mine"})
        expected = symmetric_adjacency(adata.obsp["mine"])
        assert (model._reference.adjacency != expected).nnz == 0
        assert (adata.obsp["scrcl_connectivities"] != sp.csr_matrix(expected)).nnz == 0
        other = build(simulate())
        assert not np.allclose(model.get_latent_representation(), other.get_latent_representation())

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
        assert model.get_latent_representation().shape == (150, 32)
        assert other.get_latent_representation().shape == (150, 5)

    @pytest.mark.parametrize("form", ["dense", "csc", "int64", "float64", "view", "fortran", "array", "layer"])
    def test_form_of_the_counts_does_not_matter(self, form):
        expected = build(simulate()).get_latent_representation()
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

    def test_backed_counts(self, tmp_path):
        expected = build(simulate()).get_latent_representation()
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

    def test_annbatch_is_refused(self):
        with pytest.raises(NotImplementedError, match="setup_anndata"):
            scrcl.SCRCL.setup_annbatch(None)


class TestTraining:
    def test_history_holds_the_terms_of_the_loss_and_nothing_else(self, adata):
        model = build(adata, epochs=6)
        terms = {f"{name}_loss_train" for name in ("alignment", "neighborhood", "cross_view", "spread")}
        assert set(model.history) == {"train_loss", *terms}
        assert all(len(curve) == 6 for curve in model.history.values())
        first = {name: curve.iloc[0, 0] for name, curve in model.history.items()}
        weights = {"alignment": 1, "neighborhood": 100, "cross_view": 1, "spread": 60}
        total = sum(weight * first[f"{name}_loss_train"] for name, weight in weights.items())
        assert first["train_loss"] == pytest.approx(total, rel=1e-5)
        assert model.history["train_loss"].iloc[-1, 0] < first["train_loss"]

    def test_weights_of_the_losses(self, adata):
        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=8)
        names = ("alignment", "neighborhood", "cross_view", "spread")
        for kept in names:
            weights = {f"{name}_weight": 3.0 if name == kept else 0.0 for name in names}
            model.train(1, plan_kwargs=weights, enable_progress_bar=False)
            history = {name: curve.iloc[-1, 0] for name, curve in model.history.items()}
            assert history["train_loss"] == pytest.approx(3 * history[f"{kept}_loss_train"], rel=1e-5)

    def test_same_seed_same_result(self):
        one, two, other = (build(simulate(), seed=seed) for seed in (3, 3, 4))
        np.testing.assert_array_equal(one.get_latent_representation(), two.get_latent_representation())
        pd.testing.assert_series_equal(one.get_clusters(), two.get_clusters())
        assert not np.array_equal(one.get_latent_representation(), other.get_latent_representation())

    def test_early_stopping_watches_the_loss(self, adata):
        scrcl.SCRCL.setup_anndata(adata)
        options: dict[str, Any] = {"early_stopping": True, "early_stopping_patience": 5, "enable_progress_bar": False}
        stopped = scrcl.SCRCL(adata, n_hidden=8)
        stopped.train(60, plan_kwargs={"lr": 0, "weight_decay": 0}, early_stopping_min_delta=1, **options)
        assert len(stopped.history["train_loss"]) < 60
        learning = scrcl.SCRCL(adata, n_hidden=8)
        learning.train(20, early_stopping_min_delta=0, **{**options, "early_stopping_patience": 19})
        assert len(learning.history["train_loss"]) == 20

    def test_training_goes_on(self, adata):
        model = build(adata, epochs=3)
        before = model.get_latent_representation()
        clusters = model.get_clusters(n_clusters=4)
        model.train(4, enable_progress_bar=False)
        assert len(model.history["train_loss"]) == 7
        assert list(model.history["train_loss"].index) == list(range(7))
        assert not np.array_equal(model.get_latent_representation(), before)
        assert len(model.get_clusters(n_clusters=4)) == len(clusters)

    def test_learning_rate_schedule_watches_the_loss(self, adata):
        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=8)
        plan = {"reduce_lr_on_plateau": True, "lr_patience": 0, "lr_threshold": 1e6}
        model.train(5, plan_kwargs=plan, enable_progress_bar=False)
        rates = model.history["lr-Adam"].iloc[:, 0]
        assert rates.iloc[-1] < rates.iloc[0]

    @pytest.fixture
    def listening(self):
        """Ctrl-C raises KeyboardInterrupt, also where a shell that runs the tests in the background ignores it."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.usefixtures("listening")
    @pytest.mark.parametrize("interrupt", ["signal", "exception"])
    def test_ctrl_c_keeps_a_usable_model(self, adata, interrupt):
        class Interrupt(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                if trainer.current_epoch == 3:
                    if interrupt == "exception":
                        raise KeyboardInterrupt
                    os.kill(os.getpid(), signal.SIGINT)

        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=8)
        handler = signal.getsignal(signal.SIGINT)
        with pytest.warns(UserWarning, match="interrupted after 3 of 50 epochs"):
            model.train(50, enable_progress_bar=False, callbacks=[Interrupt()])
        assert signal.getsignal(signal.SIGINT) == handler
        assert model.is_trained
        assert len(model.history["train_loss"]) >= 3
        assert np.isfinite(model.get_latent_representation()).all()
        model.train(2, enable_progress_bar=False)

    def test_other_errors_are_not_swallowed(self, adata):
        class Fail(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                raise SystemExit(3)

        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=8)
        with pytest.raises(SystemExit):
            model.train(5, enable_progress_bar=False, callbacks=[Fail()])

    def test_dropout_acts_when_training_goes_on(self, adata):
        model = build(adata, dropout_rate=0.5)
        model.get_latent_representation()
        modes = []

        class Look(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                modes.append(model.module.dropout.training)

        model.train(2, enable_progress_bar=False, callbacks=[Look()])
        assert modes == [True, True]

    def test_untrained_model_has_no_results(self, adata):
        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata)
        for method in (model.get_latent_representation, model.get_clusters):
            with pytest.raises(RuntimeError, match="train"):
                method()


class TestResults:
    def test_latent_representation(self, trained):
        for representation, width in (("aligned", 16), ("refined", 8)):
            latent = trained.get_latent_representation(representation=representation)
            assert latent.shape == (150, 2 * width)
            assert latent.dtype == np.float32
            norms = np.linalg.norm(latent.reshape(150, 2, width), axis=2)
            np.testing.assert_allclose(norms, 1, rtol=1e-5)

    def test_results_cannot_change_the_model(self, trained):
        latent = trained.get_latent_representation()
        latent[:] = 0
        assert trained.get_latent_representation().any()

    @pytest.mark.parametrize("form", ["list", "array", "mask", "negative"])
    def test_indices(self, trained, form):
        rows = np.array([7, 3, 3, 149])
        asked = {"list": rows.tolist(), "array": rows, "mask": np.isin(np.arange(150), rows), "negative": rows - 150}
        expected = np.unique(rows) if form == "mask" else rows
        latent, clusters = trained.get_latent_representation(), trained.get_clusters(n_clusters=3)
        np.testing.assert_array_equal(trained.get_latent_representation(indices=asked[form]), latent[expected])
        found = trained.get_clusters(indices=asked[form], n_clusters=3)
        np.testing.assert_array_equal(found.to_numpy(), clusters.to_numpy()[expected])
        assert list(found.index) == list(trained.adata.obs_names[expected])

    @pytest.mark.parametrize("method", ["consensus", "kmeans", "leiden"])
    @pytest.mark.parametrize("change", ["copy", "shuffled", "subset", "renamed", "in place"])
    def test_cells_of_the_model_are_recognised(self, change, method):
        """The graph of the model is used for its cells wherever they stand, and whatever they are called."""
        model = build(simulate())
        latent = model.get_latent_representation()
        clusters = model.get_clusters(n_clusters=3, method=method).to_numpy()
        rows = np.arange(150)
        other = model.adata
        if change in ("shuffled", "subset"):
            rows = np.random.default_rng(0).permutation(150)[: 150 if change == "shuffled" else 40]
        if change == "in place":
            rows = np.arange(0, 150, 2)
            other._inplace_subset_obs(rows)
        else:
            other = other[rows].copy()
        if change == "renamed":
            other.obs_names = [f"other{i}" for i in range(150)]
        np.testing.assert_array_equal(model.get_latent_representation(other), latent[rows])
        found = model.get_clusters(other, n_clusters=3, method=method)
        np.testing.assert_array_equal(found.to_numpy(), clusters[rows])
        assert list(found.index) == list(other.obs_names)

    def test_new_cells_do_not_depend_on_their_companions(self, trained):
        new = simulate(60, seed=9)
        together = trained.get_latent_representation(new)
        alone = np.concatenate([trained.get_latent_representation(new, indices=[i]) for i in range(60)])
        np.testing.assert_allclose(alone, together, atol=1e-4)
        mixed = ad.concat([trained.adata[:50], new[::-1]])
        result = trained.get_latent_representation(mixed)
        np.testing.assert_array_equal(result[:50], trained.get_latent_representation()[:50])
        np.testing.assert_allclose(result[50:][::-1], together, atol=1e-4)

    @pytest.mark.parametrize("method", ["consensus", "kmeans", "leiden"])
    def test_new_cells_join_the_right_clusters(self, method):
        everything = simulate(300)
        model = build(everything[:200].copy(), epochs=40)
        found = model.get_clusters(everything[200:], n_clusters=3, method=method)
        assert adjusted_rand_score(everything.obs["cell_type"][200:], found) > 0.9

    def test_cluster_probabilities(self, trained):
        adata = trained.adata
        found = trained.get_cluster_probabilities(n_clusters=3)
        clusters = trained.get_clusters(n_clusters=3)
        assert found.index.equals(adata.obs_names)
        assert list(found.columns) == list(clusters.cat.categories)
        assert (found.dtypes == np.float32).all()
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
        assert (found.idxmax(axis=1) == clusters.astype(str)).mean() > 0.95
        some = trained.get_cluster_probabilities(adata[[7, 3]].copy(), n_clusters=3)
        pd.testing.assert_frame_equal(some, found.iloc[[7, 3]])
        pd.testing.assert_frame_equal(trained.get_cluster_probabilities(indices=[7, 3], n_clusters=3), some)
        new = simulate(20, seed=5)
        placed = trained.get_cluster_probabilities(new, n_clusters=3)
        np.testing.assert_allclose(placed.sum(axis=1), 1, rtol=1e-5)
        alone = trained.get_cluster_probabilities(new[[4]].copy(), n_clusters=3)
        np.testing.assert_allclose(alone, placed.iloc[[4]], rtol=1e-5)
        with pytest.raises(ValueError, match="n_clusters"):
            trained.get_cluster_probabilities(n_clusters=1)

    def test_number_of_clusters(self, trained):
        estimate = trained.estimate_n_clusters()
        assert trained.get_clusters().nunique() == estimate.best
        assert estimate.curve.index.name == "n_clusters"
        assert estimate.curve["votes"].sum() == 6
        with pytest.raises(ValueError, match="representation"):
            trained.estimate_n_clusters(representation="best")

    def test_new_cells_against_a_dense_forward_pass(self, trained):
        """A new cell gets what the network gives when it joins the graph by one-way edges."""
        import torch
        import torch.nn.functional as F

        new = simulate(3, seed=11)
        reference, module = trained._reference, trained.module
        features = reference.read(trained._sources(new))
        read = features[:, 2 * features.shape[1] // 4 :]  # the two stabilised normalisations of four
        read = read / np.linalg.norm(read, axis=1, keepdims=True)
        distances = np.linalg.norm(reference.neighbor_features[None] - read[:, None], axis=2)
        n, k = reference.n_cells, reference.n_neighbors
        degree = reference.adjacency.sum(axis=1) + 1
        for i in range(3):
            looped = np.zeros((n + 1, n + 1))
            looped[:n, :n] = reference.adjacency.toarray()
            looped[n, np.argsort(distances[i])[:k]] = 1
            looped += np.eye(n + 1)
            scale = np.append(degree, k + 1) ** -0.5
            dense = torch.from_numpy((scale[:, None] * looped * scale).astype(np.float32))
            x = torch.from_numpy(np.vstack([reference.features, features[[i]]]))
            with torch.no_grad():
                encoder = module.neighborhood_encoder
                hidden = F.leaky_relu(encoder.convolution_1(dense @ x))
                hidden = F.leaky_relu(encoder.convolution_2(dense @ hidden))
                second = F.normalize(F.leaky_relu(encoder.linear(hidden)))[-1]
                first = F.normalize(F.relu(module.cell_encoder.linear(x)))[-1]
            expected = torch.cat([first, second]).numpy()
            np.testing.assert_allclose(trained.get_latent_representation(new)[i], expected, atol=1e-5)

    def test_data_can_be_exchanged(self):
        model, new = build(simulate()), simulate(25, seed=8)
        expected = model.get_latent_representation(new)
        model.adata = new
        np.testing.assert_array_equal(model.get_latent_representation(), expected)
        assert list(model.get_clusters().index) == list(new.obs_names)

    def test_genes_are_matched_by_name(self, trained):
        expected = trained.get_latent_representation()
        adata = simulate()
        order = np.random.default_rng(0).permutation(adata.n_vars)
        np.testing.assert_array_equal(trained.get_latent_representation(adata[:, order].copy()), expected)
        extra = sp.csr_matrix(np.random.default_rng(1).poisson(3, size=(150, 4)).astype(np.float32))
        names = pd.DataFrame(index=[f"extra{i}" for i in range(4)])
        wider = ad.concat([adata, ad.AnnData(extra, obs=adata.obs[[]], var=names)], axis=1)
        np.testing.assert_array_equal(trained.get_latent_representation(wider[:, ::-1].copy()), expected)

    def test_missing_genes_are_reported(self, trained):
        fewer = simulate()[:, 3:].copy()
        with pytest.warns(UserWarning, match=r"3 of the 119 genes .* gene0, gene1, gene2"):
            found = trained.get_latent_representation(fewer)
        zeroed = simulate()
        # The total of a cell is taken over the genes that are there.
        zeroed.X = sp.csr_matrix(zeroed.X.toarray() * (np.arange(120) >= 3))
        np.testing.assert_allclose(found, trained.get_latent_representation(zeroed), atol=1e-5)

    def test_data_with_other_genes_are_refused(self, trained):
        other = simulate(20)
        other.var_names = [f"ENSG{i}" for i in range(120)]
        with pytest.raises(ValueError, match="genes that the model reads are missing.*gene identifiers"):
            trained.get_clusters(other)

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

    def test_number_of_clusters_is_found(self):
        model = build(simulate(), epochs=40)
        for method in ("consensus", "kmeans", "leiden"):
            assert model.get_clusters(method=method).nunique() == 3


class TestSaveAndLoad:
    @pytest.fixture
    def saved(self, trained, tmp_path):
        trained.save(tmp_path / "model", save_anndata=True)
        return tmp_path / "model"

    @pytest.mark.parametrize("data", ["saved", "given", "fresh", "none"])
    def test_results_are_the_same(self, trained, saved, data):
        fresh = simulate()
        adata = {"saved": None, "given": trained.adata, "fresh": fresh, "none": False}[data]
        model = scrcl.SCRCL.load(saved, adata=adata, accelerator="cpu")
        asked = fresh if data == "none" else None
        latent = trained.get_latent_representation()
        np.testing.assert_array_equal(model.get_latent_representation(asked), latent)
        refined = trained.get_latent_representation(representation="refined")
        np.testing.assert_array_equal(model.get_latent_representation(asked, representation="refined"), refined)
        for options in ({}, {"n_clusters": 3}, {"method": "kmeans"}, {"method": "leiden"}):
            pd.testing.assert_series_equal(model.get_clusters(asked, **options), trained.get_clusters(**options))
        new = simulate(25, seed=8)
        np.testing.assert_allclose(
            model.get_latent_representation(new), trained.get_latent_representation(new), atol=1e-6
        )

    def test_other_cells_can_be_loaded(self, trained, saved):
        new = simulate(25, seed=8)
        model = scrcl.SCRCL.load(saved, adata=new)
        np.testing.assert_allclose(model.get_latent_representation(), trained.get_latent_representation(new), atol=1e-6)

    def test_genes_in_another_order_and_more_of_them_can_be_loaded(self, trained, saved, recwarn):
        adata = simulate()[:, ::-1].copy()
        model = scrcl.SCRCL.load(saved, adata=adata)
        np.testing.assert_array_equal(model.get_latent_representation(), trained.get_latent_representation())
        assert not [w for w in recwarn if "var_names" in str(w.message)]

    def test_other_genes_are_refused(self, saved):
        other = simulate()
        other.var_names = other.var_names.str.upper()
        with pytest.raises(ValueError, match="missing from adata.var_names"):
            scrcl.SCRCL.load(saved, adata=other)

    def test_everything_else_is_kept(self, trained, saved):
        model = scrcl.SCRCL.load(saved)
        assert model.is_trained
        assert model.init_params_ == trained.init_params_
        pd.testing.assert_frame_equal(model.history["train_loss"], trained.history["train_loss"])
        assert str(model.module) == str(trained.module)

    def test_training_goes_on_after_loading(self, trained, saved):
        for adata in (None, False):
            model = scrcl.SCRCL.load(saved, adata=adata)
            model.train(2, enable_progress_bar=False)
            assert len(model.history["train_loss"]) == 7

    def test_a_loaded_model_can_be_saved(self, trained, saved, tmp_path):
        scrcl.SCRCL.load(saved, adata=False).save(tmp_path / "again")
        model = scrcl.SCRCL.load(tmp_path / "again", adata=simulate())
        np.testing.assert_array_equal(model.get_latent_representation(), trained.get_latent_representation())

    def test_model_of_another_device_is_put_where_asked(self, trained, saved):
        """The file is read onto the device asked for, whatever device it was saved from."""
        import torch

        stored = torch.load(saved / "model.pt", map_location="meta", weights_only=False)
        assert {tensor.device.type for tensor in stored["model_state_dict"].values() if hasattr(tensor, "device")} == {
            "meta"
        }
        model = scrcl.SCRCL.load(saved, adata=False, accelerator="cpu")
        assert {parameter.device.type for parameter in model.module.parameters()} == {"cpu"}

    def test_prefix(self, trained, tmp_path):
        trained.save(tmp_path / "model", prefix="mine_")
        model = scrcl.SCRCL.load(tmp_path / "model", adata=simulate(), prefix="mine_")
        np.testing.assert_array_equal(model.get_latent_representation(), trained.get_latent_representation())

    def test_graph_of_the_user_is_not_needed_for_loading(self, adata, tmp_path):
        sc.pp.neighbors(adata, n_neighbors=5, use_rep="X")
        model = build(adata, setup={"neighbors_key": "neighbors"})
        model.save(tmp_path / "model")
        loaded = scrcl.SCRCL.load(tmp_path / "model", adata=simulate())
        np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())

    def test_space_of_the_user(self, adata, tmp_path):
        adata.obsm["X_mine"] = np.random.default_rng(0).normal(size=(150, 6))
        model = build(adata, setup={"features_key": "X_mine"})
        model.save(tmp_path / "model")
        loaded = scrcl.SCRCL.load(tmp_path / "model", adata=adata.copy())
        np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())

    def test_copies(self, trained):
        for twin in (copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))):
            np.testing.assert_array_equal(twin.get_latent_representation(), trained.get_latent_representation())

    def test_no_data(self, saved):
        with pytest.raises(ValueError, match="Pass `adata`"):
            scrcl.SCRCL.load(saved, adata=False).get_clusters()

    def test_missing_folder(self, tmp_path):
        with pytest.raises(ValueError, match="holds no saved model"):
            scrcl.SCRCL.load(tmp_path / "nothing")

    @pytest.mark.parametrize("damage", ["truncated", "text", "empty", "other pickle"])
    def test_damaged_folder(self, saved, damage):
        file = saved / "model.pt"
        content = {
            "truncated": file.read_bytes()[:2000],
            "text": b"not a model",
            "empty": b"",
            "other pickle": pickle.dumps([1, 2]),
        }
        file.write_bytes(content[damage])
        with pytest.raises(ValueError, match="damaged"):
            scrcl.SCRCL.load(saved)

    def test_model_of_another_class(self, adata, tmp_path):
        scvi.model.SCVI.setup_anndata(adata)
        scvi.model.SCVI(adata).save(tmp_path / "scvi")
        with pytest.raises(ValueError, match="class SCVI, not SCRCL"):
            scrcl.SCRCL.load(tmp_path / "scvi", adata=adata)
