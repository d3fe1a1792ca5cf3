"""Cells that a model has not seen: where they go, and how well they fit."""

import anndata as ad
import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import adjusted_rand_score

from scrcl.reference.mapping import DistanceScale

from ..helpers import build, real_data, simulate


def test_pvalues_by_hand():
    """Five distances of equal signal; 3 of them reach the mean, 1 the largest, none more."""
    distances = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    scale = DistanceScale.fit(np.ones(5), distances)
    np.testing.assert_allclose(scale(np.ones(3), np.array([3.0, 5.0, 9.0])) * np.sqrt(2), [0, 2, 6])
    excess = scale(np.ones(3), np.array([3.0, 5.0, 9.0]))
    np.testing.assert_allclose(scale.pvalues(excess), [4 / 6, 2 / 6, 1 / 6])


def test_pvalues_are_uniform_for_more_of_the_same():
    rng = np.random.default_rng(0)

    def draw(n):
        signal = rng.lognormal(0, 0.5, size=n)
        return signal, 1 / signal + 0.1 * rng.normal(size=n) * (1 + signal)

    scale = DistanceScale.fit(*draw(3000))
    signal, distances = draw(2000)
    pvalues = scale.pvalues(scale(signal, distances))
    assert kstest(pvalues, "uniform").pvalue > 1e-3
    weak = signal < np.median(signal)
    assert abs((pvalues[weak] < 0.1).mean() - (pvalues[~weak] < 0.1).mean()) < 0.06


class TestMappingQuality:
    @pytest.fixture(scope="class")
    @staticmethod
    def without_one_type():
        adata = simulate(600, n_types=4)
        known = adata[adata.obs["cell_type"] != "3"].copy()
        return build(known[:300].copy(), epochs=10), known[300:].copy(), adata[adata.obs["cell_type"] == "3"].copy()

    def test_a_type_never_seen_is_flagged(self, without_one_type):
        model, known, new = without_one_type
        fits, does_not = (model.get_mapping_quality(cells, n_clusters=3) for cells in (known, new))
        assert fits["outlier"].mean() < 0.15
        assert does_not["outlier"].mean() > 0.8
        assert not fits["known"].any()

    def test_columns(self, without_one_type):
        model, known, _ = without_one_type
        quality = model.get_mapping_quality(known, n_clusters=3)
        np.testing.assert_array_equal(quality["cluster"], model.get_clusters(known, n_clusters=3))
        probabilities = model.get_cluster_probabilities(known, n_clusters=3, method="consensus")
        expected = [probabilities.loc[cell, cluster] for cell, cluster in quality["cluster"].items()]
        np.testing.assert_allclose(quality["confidence"], expected)
        assert quality.index.equals(known.obs_names)
        np.testing.assert_array_equal(quality["outlier"], quality["pvalue"] <= 0.05)

    def test_companions_do_not_matter(self, without_one_type):
        model, known, new = without_one_type
        together = model.get_mapping_quality(ad.concat([new, known]), n_clusters=3)
        alone = model.get_mapping_quality(known, indices=[5, 2], n_clusters=3)
        columns = ["confidence", "distance", "excess", "pvalue"]
        np.testing.assert_allclose(alone[columns], together.loc[alone.index, columns], rtol=1e-4)

    def test_cells_of_the_model(self, without_one_type):
        model = without_one_type[0]
        quality = model.get_mapping_quality(n_clusters=3)
        assert quality["known"].all()
        assert (quality["pvalue"] <= 0.2).mean() == pytest.approx(0.2, abs=0.01)

    @pytest.mark.parametrize("alpha", [-1.0, "5%", np.nan])
    def test_alpha_out_of_range(self, without_one_type, alpha):
        with pytest.raises(ValueError, match="alpha=.* is not valid"):
            without_one_type[0].get_mapping_quality(alpha=alpha)


@pytest.mark.slow
def test_a_real_type_never_seen():
    """Regulatory T cells, for a model of B and NK cells: labels choose what is left out, and score."""
    adata = ad.read_h5ad(real_data("zheng_pbmc500.h5ad"))
    types = adata.obs["cell_type"].to_numpy()
    rng = np.random.default_rng(0)
    others = rng.permutation(np.flatnonzero(types != "regulatory T"))
    model = build(adata[others[60:]].copy(), epochs=5)
    known = model.get_mapping_quality(adata[others[:60]].copy(), n_clusters=2)
    new = model.get_mapping_quality(adata[types == "regulatory T"].copy(), n_clusters=2)
    assert known["outlier"].mean() < 0.15
    assert new["outlier"].mean() > 0.3
    assert new["excess"].median() > known["excess"].quantile(0.9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zheng_pbmc500", "cellbench_celseq2_5cl"])
def test_a_fifth_held_out_goes_where_training_on_all_puts_it(name):
    adata = ad.read_h5ad(real_data(f"{name}.h5ad"))
    truth = adata.obs["cell_type"].to_numpy(dtype=str)
    adata = ad.AnnData(adata.X, obs=adata.obs[[]], var=adata.var[[]])
    n_clusters = len(np.unique(truth))
    held_out = np.random.default_rng(0).random(adata.n_obs) < 0.2
    every = build(adata.copy(), epochs=20).get_clusters(n_clusters=n_clusters)[held_out]
    placed = build(adata[~held_out].copy(), epochs=20).get_clusters(adata[held_out].copy(), n_clusters=n_clusters)
    assert adjusted_rand_score(every, placed) >= 0.9
    assert adjusted_rand_score(truth[held_out], placed) >= adjusted_rand_score(truth[held_out], every) - 0.02


def test_new_cells_in_approximate_search(monkeypatch):
    """Cells of the model are recognised, and others placed, where neighbours are found approximately."""
    from scrcl.graph import neighbors

    monkeypatch.setattr(neighbors, "EXACT_TARGETS", 200)
    adata = simulate(500)
    model = build(adata, n_neighbors=10)
    new = simulate(80, seed=4)
    new.obs_names = [f"new{i}" for i in range(80)]
    mixed = ad.concat([adata[400:].copy(), new])
    latent = model.get_latent_representation(mixed)
    np.testing.assert_array_equal(latent[:100], model.get_latent_representation(indices=np.arange(400, 500)))
    np.testing.assert_allclose(model.get_latent_representation(mixed, indices=[150]), latent[[150]], atol=1e-5)
