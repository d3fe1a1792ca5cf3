import copy

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import scvi
from sklearn.metrics import roc_auc_score

import scrcl
from scrcl.model.options import ClusterOptions

from ..helpers import build, simulate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("full_inference")]

COLUMNS = ["cluster", "probability", "runner_up", "runner_up_probability", "outlier_score", "doublet_score"]


@pytest.fixture(scope="module")
def model():
    return build(simulate(300), epochs=40)


def doublets(adata: ad.AnnData, number: int, seed: int = 0) -> ad.AnnData:
    """Cells whose counts are those of two cells of different types."""
    rng = np.random.default_rng(seed)
    types = adata.obs["cell_type"].to_numpy(str)
    first = rng.choice(adata.n_obs, number)
    second = [rng.choice(np.flatnonzero(types != types[cell])) for cell in first]
    made = ad.AnnData(adata.X[first] + adata.X[second], var=adata.var[[]])
    made.obs_names = [f"doublet{number}" for number in range(made.n_obs)]
    return made


def test_probabilities(model):
    found = model.get_cluster_probabilities(n_clusters=3, method="mixture")
    clusters = model.get_clusters(n_clusters=3)
    assert list(found.columns) == list(clusters.cat.categories)
    assert (found.dtypes == np.float32).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert (found.idxmax(axis=1) == clusters.astype(str)).mean() > 0.95
    assert not found.equals(model.get_cluster_probabilities(n_clusters=3, method="consensus"))


def test_report(model):
    report = model.get_cell_report(n_clusters=3)
    probabilities = model.get_cluster_probabilities(n_clusters=3, method="mixture")
    assert list(report.columns) == COLUMNS
    pd.testing.assert_series_equal(report["cluster"], model.get_clusters(n_clusters=3), check_names=False)
    for cell in report.index[::50]:
        own = report.at[cell, "cluster"]
        assert report.at[cell, "probability"] == probabilities.at[cell, own]
        others = probabilities.loc[cell].drop(own)
        assert report.at[cell, "runner_up"] == others.idxmax()
        assert report.at[cell, "runner_up_probability"] == others.max()
    assert abs(report["outlier_score"].median()) < 0.5


def test_new_cells_one_by_one(model):
    new = simulate(40, seed=5)
    new.obs_names = [f"new{number}" for number in range(40)]
    together = model.get_cell_report(new, n_clusters=3)
    alone = model.get_cell_report(new[[4]].copy(), n_clusters=3)
    pd.testing.assert_frame_equal(alone, together.iloc[[4]], rtol=1e-4, check_categorical=False)
    pd.testing.assert_frame_equal(
        model.get_cell_report(new, indices=[4, 2], n_clusters=3), together.iloc[[4, 2]], rtol=1e-4
    )
    assert len(model._results._cache.certainties) == 1  # not learned again


def test_cells_of_the_model_are_known(model):
    some = model.adata[[7, 3]].copy()
    expected = model.get_cell_report(n_clusters=3).iloc[[7, 3]]
    pd.testing.assert_frame_equal(model.get_cell_report(some, n_clusters=3), expected)


def test_doublets_are_told_from_cells(model):
    singles = simulate(100, seed=0)
    reports = [model.get_cell_report(cells, n_clusters=3) for cells in (doublets(singles, 60), simulate(60, seed=0))]
    for column, sign, least in (("probability", -1, 0.58), ("doublet_score", 1, 0.95)):
        of_doublets, of_singles = (sign * report[column].to_numpy() for report in reports)
        assert (of_doublets[:, None] > of_singles).mean() > least


def test_a_type_that_was_left_out_is_outlying():
    cells = simulate(400, n_types=4)
    new = (cells.obs["cell_type"] == "3").to_numpy()
    model = build(cells[~new].copy()[:200], epochs=40)
    report = model.get_cell_report(cells, n_clusters=3)
    query = ~cells.obs_names.isin(model.adata.obs_names)
    assert roc_auc_score(new[query], report["outlier_score"][query]) > 0.95


def test_outlier_score_adds_two_distances(model):
    report, quality = model.get_cell_report(n_clusters=3), model.get_mapping_quality(n_clusters=3)
    options, data, query = model._clustered(None, None, 3, "aligned", 0, None)
    mixture_input = model._mixture_input(query, options, data, None)
    far = model._results.certainty(options).outlier_scores(*mixture_input)
    np.testing.assert_allclose(report["outlier_score"], (far + quality["excess"]) / 2**0.5, rtol=1e-5, atol=1e-6)


def test_in_space():
    tissue = scrcl.datasets.layered_tissue(n_cells=240, n_slices=2)
    model = build(tissue.copy(), epochs=20, setup={"spatial_key": "spatial", "sample_key": "slice"})
    report = model.get_cell_report(n_clusters=5)
    assert "doublet_score" not in report
    found = model.get_cluster_probabilities(n_clusters=5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    right = report["cluster"].to_numpy(str) == found.idxmax(axis=1).to_numpy(str)
    assert right.mean() > 0.8
    again = model.get_cell_report(tissue.copy(), n_clusters=5)
    pd.testing.assert_frame_equal(again, report)
    new = scrcl.datasets.layered_tissue(n_cells=120, n_slices=1, seed=1)
    new.obs_names = [f"new{number}" for number in range(120)]
    assert model.get_cell_report(new, n_clusters=5)["probability"].between(0, 1).all()


def test_several_modalities():
    rna, other = simulate(200, 90), simulate(200, 20)
    mdata = mudata.MuData({"rna": rna, "prot": other})
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_mudata(mdata, {"rna": "rna", "prot": "protein"})
    model = scrcl.SCRCL(mdata, n_hidden=16, n_refined=8, n_components=10)
    model.train(20, accelerator="cpu", enable_progress_bar=False)
    report = model.get_cell_report(n_clusters=3)
    assert list(report.columns) == COLUMNS
    query = mudata.MuData({name: part[:40].copy() for name, part in (("rna", rna), ("prot", other))})
    for part in query.mod.values():
        part.obs_names = [f"new{number}" for number in range(40)]
    query = mudata.MuData(query.mod)
    together = model.get_cell_report(query, n_clusters=3)
    alone = model.get_cell_report(query[[4]].copy(), n_clusters=3)
    pd.testing.assert_frame_equal(alone, together.iloc[[4]], rtol=1e-4, check_categorical=False)
    assert (together["cluster"].to_numpy(str) == report["cluster"][:40].to_numpy(str)).mean() > 0.9


def test_mean_probability_is_the_agreement_of_the_trees(model):
    report = model.get_cell_report(n_clusters=4)
    _, agreement = model._results._ensemble(("aligned", None), 0, 4).cut(4)
    assert report["probability"].mean() == pytest.approx(min(agreement, 0.999), abs=1e-3)


def test_another_representation(model):
    """Of the clusters and probabilities of that representation, and kept apart from the others."""
    found = model.get_cell_report(n_clusters=3, representation="refined")
    clusters = model.get_clusters(n_clusters=3, representation="refined")
    pd.testing.assert_series_equal(found["cluster"], clusters, check_names=False)
    probabilities = model.get_cluster_probabilities(n_clusters=3, representation="refined")
    own = probabilities.to_numpy()[np.arange(len(found)), found["cluster"].cat.codes]
    np.testing.assert_allclose(found["probability"], own, rtol=1e-6)
    default = model.get_cell_report(n_clusters=3)
    assert not np.allclose(found["outlier_score"], default["outlier_score"])
    with pytest.raises(ValueError, match="representation"):
        model.get_cell_report(n_clusters=3, representation="latent")


def test_one_modality():
    """Of the proteins alone, the types that only genes tell apart are one cluster."""
    rna, prot = simulate(200, 90), simulate(200, 20)
    prot.X[:, 13:] = simulate(200, 20, n_types=1, seed=1).X[:, 13:]  # what the third type has more of
    mdata = mudata.MuData({"rna": rna, "prot": prot})
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_mudata(mdata, {"rna": "rna", "prot": "protein"})
    model = scrcl.SCRCL(mdata, n_hidden=16, n_refined=8, n_components=10)
    model.train(20, accelerator="cpu", enable_progress_bar=False)
    for modality, number in (("rna", 3), ("prot", 2)):
        found = model.get_cell_report(n_clusters=number, modality=modality)
        clusters = model.get_clusters(n_clusters=number, modality=modality)
        pd.testing.assert_series_equal(found["cluster"], clusters, check_names=False)
        assert found["probability"].between(0, 1).all()
    with pytest.raises((KeyError, ValueError), match="adt"):
        model.get_cell_report(n_clusters=2, modality="adt")


def test_what_is_saved_is_what_was_found(model, tmp_path):
    expected = model.get_cell_report(n_clusters=3)
    new = simulate(20, seed=5)
    expected_new = model.get_cell_report(new, n_clusters=3)
    model.save(tmp_path / "model")
    loaded = scrcl.SCRCL.load(tmp_path / "model", adata=model.adata.copy(), accelerator="cpu")
    assert loaded._results._cache.certainties.keys() == model._results._cache.certainties.keys() != set()
    pd.testing.assert_frame_equal(loaded.get_cell_report(n_clusters=3), expected)
    pd.testing.assert_frame_equal(loaded.get_cell_report(new, n_clusters=3), expected_new, rtol=1e-4)
    loaded.module.weights_changed()
    assert not loaded._results._cache.certainties
    pd.testing.assert_frame_equal(loaded.get_cell_report(n_clusters=3), expected, rtol=1e-4)  # found again


def test_training_on_forgets_the_mixture(model):
    other = copy.deepcopy(model)
    other.get_cell_report(n_clusters=3)
    assert other._results._cache.certainties
    other.train(1, accelerator="cpu", enable_progress_bar=False)
    assert not other._results._cache.certainties


def test_batches():
    adata = simulate(200)
    adata.obs["batch"] = np.where(np.arange(200) % 2 == 0, "a", "b")
    model = build(adata, epochs=20, setup={"batch_key": "batch"})
    report = model.get_cell_report(n_clusters=3)
    certainty = model._results.certainty(ClusterOptions(n_clusters=3))
    assert certainty.mixture.shifts.shape[0] == 2
    new = simulate(60, seed=3)
    new.obs_names = [f"new{number}" for number in range(60)]
    new.obs["batch"] = np.where(np.arange(60) < 30, "a", "never seen")
    found = model.get_cell_report(new, n_clusters=3)
    assert found.notna().all(axis=None)
    assert report["probability"].median() > 0.5
    codes = model._batch_codes(new, [0, 40])
    assert codes is not None
    assert codes.tolist() == [0, -1]


def test_bad_arguments(model):
    with pytest.raises(ValueError, match="method"):
        model.get_cluster_probabilities(method="forest")
    with pytest.raises(ValueError, match="n_clusters"):
        model.get_cell_report(n_clusters=1)
    with pytest.raises(ValueError, match="seed"):
        model.get_cell_report(seed=-1)
