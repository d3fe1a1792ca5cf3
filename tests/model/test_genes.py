"""What the model says of genes, as a user meets it."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.model.expression import gene_map

from ..helpers import build, marked, simulate


@pytest.fixture(scope="module")
def model() -> scrcl.SCRCL:
    """A model trained long enough to tell the types apart; no test may change it or its data."""
    return build(simulate(), epochs=40)


class TestEmbedding:
    def test_shape_and_names(self, model):
        embedding = model.get_gene_embedding()
        kept = model.adata.var_names[model.adata.var["scrcl_genes"]]
        assert embedding.shape == (len(kept), 8)
        assert embedding.index.equals(kept)
        assert (embedding.to_numpy() >= 0).all()

    def test_it_is_the_embedding_of_the_refinement(self, model):
        """The refined views computed from it by the formula are those of the model."""
        import torch

        from scrcl.graph.adjacency import normalized_adjacency
        from scrcl.nn.sparse import to_torch

        reference = model._reference
        with torch.inference_mode():
            propagation = to_torch(normalized_adjacency(reference.adjacency))
            features = torch.from_numpy(reference.features)
            views = model.module.inference(features, propagation @ features, propagation)
            cells = [model.module.to_genes(views[f"hidden_{v}"]).numpy() for v in (1, 2)]
        refined = [x @ model.get_gene_embedding().to_numpy() for x in cells]
        expected = np.hstack([z / np.linalg.norm(z, axis=1, keepdims=True) for z in refined])
        found = model.get_latent_representation(representation="refined")
        np.testing.assert_allclose(found[:, : expected.shape[1]], expected, atol=1e-5)

    @pytest.mark.slow
    def test_modules_are_the_blocks_of_the_simulation(self, model):
        truth = pd.Series({gene: kind for kind in range(3) for gene in marked(kind)})
        agreement = []
        for seed in range(3):
            modules = build(simulate(), epochs=100, seed=seed).get_gene_modules(n_modules=3)
            both = truth.index.intersection(modules.index)
            agreement.append(adjusted_rand_score(truth[both], modules[both].astype(str)))
        assert np.mean(agreement) > 0.8
        assert model.get_gene_modules(n_modules=3).equals(model.get_gene_modules(n_modules=3))
        sizes = model.get_gene_modules(resolution=3.0).value_counts()
        assert list(sizes) == sorted(sizes, reverse=True)


class TestAssociations:
    def test_groups_are_means_of_cells(self, model):
        every = list(model._reference.genes)
        by_cell = model.get_cell_gene_associations(genes=every)
        by_group = model.get_cell_gene_associations(groupby="cell_type")
        expected = by_cell.groupby(model.adata.obs["cell_type"].to_numpy()).mean()
        np.testing.assert_allclose(by_group, expected, atol=1e-4)
        assert list(by_group.index) == ["0", "1", "2"]
        assert list(by_group.columns) == every

    def test_top_is_the_highest_of_all(self, model):
        top = model.get_cell_gene_associations(n_top=7, sparse=True)
        every = model.get_cell_gene_associations(genes=top.columns).to_numpy()
        expected = np.where((every >= np.sort(every, 1)[:, [-7]]) & (every > 0), every, 0)
        np.testing.assert_allclose(top.sparse.to_coo().toarray(), expected, rtol=1e-5)
        assert all(isinstance(kind, pd.SparseDtype) for kind in top.dtypes)
        pd.testing.assert_frame_equal(model.get_cell_gene_associations(n_top=7), top.sparse.to_dense())

    def test_marker_genes_are_associated_with_their_cells(self, model):
        means = model.get_cell_gene_associations(groupby="cell_type")
        for kind in range(3):
            best = means.columns[np.argsort(-means.loc[str(kind)].to_numpy())[:10]]
            assert set(best) <= marked(kind)

    def test_what_the_network_has_learnt_are_marker_genes_too(self, model):
        learnt = model.get_cell_gene_associations(groupby="cell_type", method="network")
        for kind in range(3):
            best = learnt.columns[np.argsort(-learnt.loc[str(kind)].to_numpy())[:10]]
            assert len(set(best) & marked(kind)) >= 9

    def test_the_map_of_the_network_reads_its_hidden_units(self, model):
        """Those of the network itself, the mean of both branches; also of new cells, alone and together."""
        import torch

        from scrcl.graph.adjacency import normalized_adjacency
        from scrcl.nn.sparse import to_torch

        reference = model._reference
        with torch.inference_mode():
            propagation = to_torch(normalized_adjacency(reference.adjacency))
            features = torch.from_numpy(reference.features)
            views = model.module.inference(features, propagation @ features, propagation)
        hidden = (views["hidden_1"] + views["hidden_2"]).numpy() / 2
        every = list(reference.genes)
        found = model.get_cell_gene_associations(genes=every, method="network")
        loadings = gene_map(model, "network").loadings
        np.testing.assert_allclose(found, (hidden - hidden.mean(0)) @ loadings, atol=1e-4)
        new = simulate(30, seed=5)
        together = model.get_cell_gene_associations(new, genes=every, method="network")
        alone = model.get_cell_gene_associations(new[[7]].copy(), genes=every, method="network")
        np.testing.assert_allclose(alone, together.iloc[[7]], atol=1e-4)

    def test_the_map_of_the_network_is_saved(self, model, tmp_path):
        model.save(tmp_path / "model")
        again = scrcl.SCRCL.load(tmp_path / "model", adata=False)
        cells = model.adata[:20].copy()
        expected = model.get_cell_gene_associations(indices=np.arange(20), method="network")
        np.testing.assert_allclose(again.get_cell_gene_associations(cells, method="network"), expected, atol=1e-4)

    def test_order_and_subset_of_cells(self, model):
        genes = ["gene3", "gene50"]
        expected = model.get_cell_gene_associations(genes=genes)
        order = np.random.default_rng(0).permutation(150)[:80]
        part = model.adata[order].copy()
        for found in (
            model.get_cell_gene_associations(part, genes=genes),
            model.get_cell_gene_associations(indices=order, genes=genes),
        ):
            np.testing.assert_allclose(found, expected.iloc[order], atol=1e-5)
            assert found.index.equals(expected.index[order])

    def test_new_cells_do_not_depend_on_their_companions(self, model):
        new = simulate(30, seed=5)
        together = model.get_cell_gene_associations(new, genes=["gene3", "gene50"])
        alone = model.get_cell_gene_associations(new[[7]].copy(), genes=["gene3", "gene50"])
        np.testing.assert_allclose(alone, together.iloc[[7]], atol=1e-4)
        shuffled = new[:, np.random.default_rng(0).permutation(120)].copy()
        np.testing.assert_allclose(
            model.get_cell_gene_associations(shuffled, genes=["gene3", "gene50"]), together, atol=1e-4
        )

    def test_one_gene_and_no_cells(self, model):
        assert model.get_cell_gene_associations(genes="gene3").shape == (150, 1)
        assert model.get_cell_gene_associations(indices=[], genes="gene3").shape == (0, 1)
        assert model.get_cell_gene_associations(indices=[]).shape[0] == 0

    @pytest.mark.parametrize("with_data", [True, False])
    def test_save_and_load(self, model, tmp_path, with_data):
        new = simulate(20, seed=5)
        model.save(tmp_path / "model")
        loaded = scrcl.SCRCL.load(tmp_path / "model", adata=simulate() if with_data else False)
        for adata in (new, simulate()):
            pd.testing.assert_frame_equal(
                loaded.get_cell_gene_associations(adata), model.get_cell_gene_associations(adata), rtol=1e-4, atol=1e-4
            )
        pd.testing.assert_frame_equal(loaded.get_gene_embedding(), model.get_gene_embedding())
        expected = model.get_marker_genes(simulate(), "cell_type", n_permutations=20)
        pd.testing.assert_frame_equal(
            loaded.get_marker_genes(simulate(), "cell_type", n_permutations=20), expected, rtol=1e-3, atol=1e-3
        )

    def test_training_on_without_the_data_needs_them(self, model, tmp_path):
        model.save(tmp_path / "model")
        loaded = scrcl.SCRCL.load(tmp_path / "model", adata=False)
        loaded.train(1, enable_progress_bar=False)
        with pytest.raises(ValueError, match=r"counts are not saved.*SCRCL.load\(dir_path, adata=training_data\)"):
            loaded.get_cell_gene_associations(simulate(20, seed=5))
        loaded.save(tmp_path / "again")
        again = scrcl.SCRCL.load(tmp_path / "again", adata=simulate())
        assert again.get_cell_gene_associations(genes="gene3").shape == (150, 1)

    def test_training_changes_the_associations(self):
        adata = simulate()
        changing = build(adata, epochs=2)
        before = changing.get_cell_gene_associations(genes="gene3")
        changing.train(20, enable_progress_bar=False)
        assert not np.allclose(changing.get_cell_gene_associations(genes="gene3"), before)


class TestBadInput:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda m: m.get_cell_gene_associations(genes=["Gene3"]), KeyError, "'Gene3' is not in the data. Did you mean 'gene3'"),
            (lambda m: m.get_cell_gene_associations(genes=[]), ValueError, "genes is empty"),
            (lambda m: m.get_cell_gene_associations(n_top=0), ValueError, "n_top"),
            (lambda m: m.get_cell_gene_associations(groupby="nothing"), KeyError, "groupby='nothing' is not in adata.obs"),
            (lambda m: m.get_cell_gene_associations(simulate()[:, :50].copy()), ValueError, "lacks .* genes of the model"),
            (lambda m: m.get_marker_genes(groupby="nothing"), KeyError, "groupby='nothing' is not in adata.obs. Present: 'cell_type'"),
            (lambda m: m.get_marker_genes(groupby="cell_type", groups="9"), KeyError, "'9' is not in groupby='cell_type'. Present: '0', '1', '2'"),
            (lambda m: m.get_marker_genes(groupby="cell_type", groups=[]), ValueError, "groups is empty"),
            (lambda m: m.get_marker_genes(groupby="cell_type", layer="x"), KeyError, "layer='x' is not in adata.layers"),
            (lambda m: m.get_marker_genes(groupby="cell_type", n_permutations=-1), ValueError, "n_permutations"),
            (lambda m: m.get_marker_genes(groupby="cell_type", n_top=0), ValueError, "n_top"),
            (lambda m: m.get_marker_genes(one_group(), "same"), ValueError, "has 1 group of cells, but at least 2"),
            (lambda m: m.get_marker_genes(one_group(), "own"), ValueError, "a different value for most cells"),
            (lambda m: m.get_cluster_names({"a": ["ENSG00000141510"]}), ValueError, "markers has .ENSG00000141510., the data have"),
            (lambda m: m.get_cluster_names({"a": ["Foo"]}), ValueError, "None of the 1 gene of markers is in the data"),
            (lambda m: m.get_cluster_names({}), ValueError, "markers holds no set"),
            (lambda m: m.get_cluster_names({"a": "gene1"}), ValueError, "Pass a dictionary of lists"),
            (lambda m: m.get_cluster_names({"a": ["gene1"]}, min_support=2), ValueError, "min_support=2 is above 1"),
            (lambda m: m.get_cluster_names({"a": ["gene1"]}, groupby="x"), KeyError, "groupby='x'"),
            (lambda m: m.get_cell_gene_associations(method="map"), ValueError, "method=.* is not valid"),
            (lambda m: m.get_gene_modules(n_modules=0), ValueError, "n_modules"),
            (lambda m: m.get_gene_modules(n_modules=1000), ValueError, "n_modules=1000 is more than"),
            (lambda m: m.get_gene_modules(resolution=-1), ValueError, "resolution"),
        ],
        ids=range(23),
    )  # fmt: skip
    def test_message(self, model, call, error, message):
        with pytest.raises(error, match=message):
            call(model)

    def test_gene_that_is_not_kept(self, adata):
        small = build(adata, n_top_genes=20, epochs=1)
        left_out = next(gene for gene in adata.var_names if not adata.var.loc[gene, "scrcl_genes"])
        with pytest.raises(KeyError, match=rf"'{left_out}' is in the data, but not among the 20.*n_top_genes"):
            small.get_cell_gene_associations(genes=[left_out])

    def test_refinement_that_is_not_trained(self, adata, tmp_path):
        untrained = build(adata, epochs=1)
        scrcl.SCRCL.setup_anndata(adata)
        untrained = scrcl.SCRCL(adata, n_hidden=8)
        calls = ("get_gene_embedding", "get_gene_modules", "get_cell_gene_associations", "get_marker_genes")
        for call in calls:
            with pytest.raises(RuntimeError, match="train"):
                getattr(untrained, call)()
        untrained.train(1, plan_kwargs={"cross_view_weight": 0}, enable_progress_bar=False)
        untrained.save(tmp_path / "model")
        for it in (untrained, scrcl.SCRCL.load(tmp_path / "model", adata=adata)):
            for call in calls:
                with pytest.raises(RuntimeError, match="cross_view_weight=0.*'cross_view_weight': 1.0"):
                    getattr(it, call)()
        untrained.train(1, enable_progress_bar=False)
        untrained.get_gene_embedding()
        untrained.train(1, plan_kwargs={"cross_view_weight": 0}, enable_progress_bar=False)
        untrained.get_gene_embedding()


def one_group() -> ad.AnnData:
    adata = simulate()
    adata.obs["same"] = "a"
    adata.obs["own"] = adata.obs_names
    return adata


def test_modules_that_no_resolution_gives_advise_what_there_is(monkeypatch):
    """`get_gene_modules` has no k-means to advise; two groups of genes without a tie are two modules at least."""
    model = build(simulate(), epochs=1)
    embedding = model.get_gene_embedding()
    apart = np.where(np.arange(len(embedding))[:, None] < 60, [1.0, 0], [0, 1.0])
    apart = apart + 0.01 * np.random.default_rng(0).random(apart.shape)
    monkeypatch.setattr(model, "get_gene_embedding", lambda: pd.DataFrame(apart, index=embedding.index))
    with pytest.warns(UserWarning, match="No resolution of Leiden gives 1 modules; the nearest gives 2") as caught:
        model.get_gene_modules(n_modules=1)
    assert not any("kmeans" in str(warning.message) for warning in caught)
