"""Cells are known again wherever they stand, new ones are placed, and genes are matched by name."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from ..helpers import build, simulate


class TestQuery:
    @pytest.mark.parametrize("method", ["consensus", "kmeans", "leiden"])
    @pytest.mark.parametrize("change", ["copy", "shuffled", "subset", "renamed", "in place"])
    def test_cells_of_the_model_are_recognised(self, trained, change, method):
        """The graph of the model is used for its cells wherever they stand, and whatever they are called."""
        model = build(simulate()) if change == "in place" else trained
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
            expected = np.concatenate([first, second, read[i] / 2])
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
        with pytest.raises(ValueError, match="lacks .* genes of the model.*gene identifiers"):
            trained.get_clusters(other)
