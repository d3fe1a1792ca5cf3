import warnings

import numpy as np
import pandas as pd
import pytest

from scrcl.utils.errors import ScrclWarning

from ..helpers import simulate


class TestResults:
    def test_latent_representation(self, trained):
        for representation, width in (("aligned", 16), ("refined", 8)):
            latent = trained.get_latent_representation(representation=representation)
            assert latent.shape == (150, 2 * width + 20)
            assert latent.dtype == np.float32
            norms = np.linalg.norm(latent[:, : 2 * width].reshape(150, 2, width), axis=2)
            np.testing.assert_allclose(norms, 1, rtol=1e-5)
            own = trained._reference.neighbor_features
            np.testing.assert_allclose(latent[:, 2 * width :], 0.5 * own, rtol=1e-5)

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

    @pytest.mark.parametrize("method", [pytest.param("mixture", marks=pytest.mark.slow), "consensus"])
    def test_cluster_probabilities(self, trained, method):
        adata = trained.adata
        found = trained.get_cluster_probabilities(n_clusters=3, method=method)
        clusters = trained.get_clusters(n_clusters=3)
        assert found.index.equals(adata.obs_names)
        assert list(found.columns) == list(clusters.cat.categories)
        assert (found.dtypes == np.float32).all()
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
        assert (found.idxmax(axis=1) == clusters.astype(str)).mean() > 0.95
        some = trained.get_cluster_probabilities(adata[[7, 3]].copy(), n_clusters=3, method=method)
        pd.testing.assert_frame_equal(some, found.iloc[[7, 3]])
        pd.testing.assert_frame_equal(
            trained.get_cluster_probabilities(indices=[7, 3], n_clusters=3, method=method), some
        )
        new = simulate(20, seed=5)
        placed = trained.get_cluster_probabilities(new, n_clusters=3, method=method)
        np.testing.assert_allclose(placed.sum(axis=1), 1, rtol=1e-5)
        alone = trained.get_cluster_probabilities(new[[4]].copy(), n_clusters=3, method=method)
        np.testing.assert_allclose(alone, placed.iloc[[4]], rtol=1e-5)
        with pytest.raises(ValueError, match="n_clusters"):
            trained.get_cluster_probabilities(n_clusters=1)


@pytest.mark.parametrize("alpha", [7, 1.5, -0.1, "a", np.nan])
def test_a_level_that_is_none_is_refused(trained, alpha):
    with pytest.raises(ValueError, match="alpha"):
        trained.get_mapping_quality(alpha=alpha)


def test_a_level_below_all_pvalues_is_told(trained):
    """With 150 cells no p-value is below 1 / 151."""
    new = simulate(20, seed=7)
    new.X = new.X[:, ::-1].copy()
    with pytest.warns(ScrclWarning, match=r"alpha=0.006 flags no cell: with 150 cells .* 0.0066. Pass `alpha=0.007`"):
        assert not trained.get_mapping_quality(new, alpha=0.006)["outlier"].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ScrclWarning)
        assert trained.get_mapping_quality(new, alpha=0.007)["outlier"].any()
        trained.get_mapping_quality(new, alpha=0)
