"""Cell types are found in real data with default settings. The tolerance is what seeds differ by, not more."""

import anndata as ad
import numpy as np
import pytest
import scvi
from sklearn.metrics import adjusted_rand_score

import scrcl

from .helpers import default_model, real_data

pytestmark = pytest.mark.slow


def trained(name: str) -> tuple[scrcl.SCRCL, np.ndarray, np.ndarray]:
    """A default model of a real data set, its cell types, and which cells are scored."""
    model = default_model(name)
    truth = model.adata.obs["cell_type"]
    scored = truth.isin(truth.value_counts().loc[lambda sizes: sizes >= 10].index).to_numpy()
    return model, np.asarray(truth, dtype=str), scored


@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("zheng_pbmc500", {}, 0.95),
        ("baron_mouse", {}, 0.85),
        ("baron_mouse", {"n_clusters": 10}, 0.85),
        ("cellbench_celseq2_5cl", {}, 0.9),
        ("cellbench_celseq2_5cl", {"n_clusters": 5}, 0.9),
    ],
)
def test_agreement_with_cell_types(name, options, least):
    model, truth, scored = trained(name)
    found = model.get_clusters(**options).to_numpy(dtype=str)
    assert adjusted_rand_score(truth[scored], found[scored]) >= least


def test_confidence_of_real_types():
    model, truth, _ = trained("zheng_pbmc500")
    assert model.estimate_n_clusters().best == 3
    probabilities = model.get_cluster_probabilities()
    assert (probabilities.max(axis=1) > 0.9).mean() > 0.9


@pytest.mark.parametrize("kind", ["bcell", "cd56_NK"])
def test_a_single_cell_type_is_not_divided_with_confidence(kind):
    adata = ad.read_h5ad(real_data("zheng_pbmc500.h5ad"))
    cells = adata[(adata.obs["cell_type"] == kind).to_numpy()].copy()
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_anndata(cells)
    model = scrcl.SCRCL(cells)
    model.train(enable_progress_bar=False)
    assert model.estimate_n_clusters().best == 1
    assert model.get_clusters().nunique() == 1
    with pytest.warns(UserWarning, match="2 clusters are poorly supported"):
        probabilities = model.get_cluster_probabilities(n_clusters=2)
    assert (probabilities.max(axis=1) > 0.9).mean() < 0.25


def test_noise_is_not_divided_with_confidence():
    """Counts drawn with the depths and the gene frequencies of real cells, and no types."""
    adata = ad.read_h5ad(real_data("zheng_pbmc500.h5ad"))
    totals, frequencies = (np.asarray(adata.X.sum(axis)).ravel() for axis in (1, 0))
    rates = totals[:, None] * frequencies / frequencies.sum()
    noise = np.random.default_rng(0).poisson(rates).astype(np.float32)
    null = ad.AnnData(noise[:, frequencies > 0])
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_anndata(null)
    model = scrcl.SCRCL(null)
    model.train(enable_progress_bar=False)
    assert model.estimate_n_clusters().best == 1
    with pytest.warns(UserWarning, match="3 clusters are poorly supported"):
        assert (model.get_cluster_probabilities(n_clusters=3).max(axis=1) > 0.9).mean() < 0.6
