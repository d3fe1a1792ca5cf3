"""Labels in one model: learnt from, carried to other cells, and doubted."""

import warnings
from typing import Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scvi
import torch

import scrcl
from scrcl.nn.losses import label_loss
from scrcl.utils.errors import ScrclWarning
from tests.helpers import build, calibration_error, real_data, simulate

from .test_batches import simulate as simulate_batches

SETUP: dict[str, Any] = {"labels_key": "annotation", "unlabeled_category": "Unknown"}


#: Cells of a model, and others of the same draw.
MODEL, NEW = slice(0, 200), slice(200, 300)


def label(adata: ad.AnnData, each: int | None = 5, without: tuple[str, ...] = (), seed: int = 0) -> ad.AnnData:
    """A copy in which so many cells of each type have their label; all by default."""
    rng = np.random.default_rng(seed)
    truth = adata.obs["cell_type"].astype(str).to_numpy()
    labels = np.full(len(truth), "Unknown", dtype=object)
    for kind in np.unique(truth):
        if kind not in without:
            rows = rng.permutation(np.flatnonzero(truth == kind))[:each]
            labels[rows] = kind
    adata = adata.copy()
    adata.obs["annotation"] = labels
    return adata


def right(found: pd.Series, adata: ad.AnnData) -> float:
    assert found.index.equals(adata.obs_names)
    return float((found.astype(str).to_numpy() == adata.obs["cell_type"].astype(str).to_numpy()).mean())


@pytest.fixture(scope="module")
def pool() -> ad.AnnData:
    """Cells of one draw: the first 300 are for the model."""
    return simulate(900, n_types=4)


@pytest.fixture(scope="module")
def data(pool) -> ad.AnnData:
    return label(pool[:300].copy())


@pytest.fixture(scope="module")
def model(data) -> scrcl.SCRCL:
    return build(data.copy(), epochs=20, setup=SETUP)


class TestPredict:
    def test_all_cells_of_the_model(self, model, data):
        found = model.predict()
        assert found.name == "scrcl_type"
        assert list(found.cat.categories) == ["0", "1", "2", "3", "unassigned"]
        assert right(found, data) > 0.98

    def test_probabilities(self, model):
        soft = model.predict(soft=True)
        assert list(soft.columns) == ["0", "1", "2", "3"]
        assert (soft.dtypes == np.float32).all()
        np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-5)
        assert (soft.idxmax(axis=1) == model.predict().astype(str)).all()

    def test_cells_of_the_model_by_number_and_by_name(self, model):
        every = model.predict(soft=True)
        rows = [7, 3, 250]
        pd.testing.assert_frame_equal(model.predict(indices=rows, soft=True), every.iloc[rows])
        again = model.adata[::-1].copy()
        pd.testing.assert_frame_equal(model.predict(again, soft=True), every[::-1], rtol=1e-4)

    def test_new_cells(self, model, pool):
        query = pool[300:].copy()
        assert right(model.predict(query, alpha=0), query) > 0.95

    def test_a_new_cell_does_not_depend_on_the_others(self, model):
        query = simulate(80, n_types=4, seed=9)
        every, alone = model.predict(query, soft=True), model.predict(query[[11]].copy(), soft=True)
        np.testing.assert_allclose(every.iloc[[11]], alone, atol=1e-5)
        assert model.predict(query).iloc[11] == model.predict(query, indices=[11]).iloc[0]

    def test_labels_of_new_cells_are_not_read(self, model):
        query = simulate(60, n_types=4, seed=9)
        expected = model.predict(query, soft=True)
        query.obs["annotation"] = "nonsense"
        pd.testing.assert_frame_equal(model.predict(query, soft=True), expected)

    def test_unassigned_at_the_rate_that_is_stated(self, model, pool):
        query = pool[300:].copy()
        alien = query.copy()
        alien.X = np.random.default_rng(0).permutation(query.X.toarray().T).T  # other genes
        alien.X[:, 0] += 1
        for alpha in (0.01, 0.1):
            share = (model.predict(query, alpha=alpha) == "unassigned").mean()
            assert share < 2.5 * alpha + 0.01
            assert (model.predict(alien, alpha=alpha) == "unassigned").mean() > 0.9
        assert "unassigned" not in set(model.predict(alien, alpha=0))
        assert "unassigned" not in set(model.predict())

    def test_a_level_below_all_pvalues_gives_a_warning(self, model, pool):
        """With 300 cells no p-value is below 1 / 301. Cells of the model are not tested."""
        alien = pool[600:620].copy()
        alien.X = alien.X[:, ::-1].copy()
        with pytest.warns(ScrclWarning, match=r"alpha=0.003 flags no cell: with 300 cells"):
            assert "unassigned" not in set(model.predict(alien, alpha=0.003))
        with warnings.catch_warnings():
            warnings.simplefilter("error", ScrclWarning)
            model.predict(alpha=0.003)
            model.predict(alien, alpha=0)

    def test_bad_arguments(self, model, trained):
        with pytest.raises(ValueError, match="alpha=.* is not valid"):
            model.predict(alpha=-1)
        for call in (trained.predict, trained.get_label_report):
            with pytest.raises(ValueError, match=r"has no labels.*setup_anndata\(adata, labels_key="):
                call()
        untrained = label(simulate())
        scrcl.SCRCL.setup_anndata(untrained, **SETUP)
        with pytest.raises(RuntimeError, match="[Tt]rain"):
            scrcl.SCRCL(untrained).predict()


class TestSets:
    @pytest.fixture(scope="class")
    def sets(self, pool) -> scrcl.SCRCL:
        """20 labels of each type."""
        return build(label(pool[:300].copy(), each=20), setup=SETUP, epochs=1)

    def test_sets_contain_the_type_of_most_cells(self, sets, pool):
        for data in (None, pool[300:].copy()):
            found = sets.predict(data, return_sets=True, alpha=0.1)
            truth = (pool[:300] if data is None else data).obs["cell_type"].astype(str)
            assert found.dtypes.eq(bool).all()
            assert found.index.equals(truth.index)
            covered = found.to_numpy()[np.arange(len(truth)), found.columns.get_indexer(truth)]
            assert 0.83 < covered.mean() <= 1
            assert found.sum(axis=1).mean() < 1.5

    def test_a_lower_level_gives_larger_sets(self, sets):
        strict, loose = (sets.predict(return_sets=True, alpha=alpha) for alpha in (0.01, 0.3))
        assert (strict | ~loose).to_numpy().all()
        assert strict.to_numpy().sum() > loose.to_numpy().sum()

    def test_empty_sets_of_cells_that_fit_nowhere(self, sets, pool):
        strange = pool[300:340].copy()
        strange.X = sp.csr_matrix(np.random.default_rng(0).poisson(5, size=strange.shape).astype(np.float32))
        assert sets.predict(strange, return_sets=True, alpha=0.1).to_numpy().sum() == 0

    def test_some_cells(self, sets, pool):
        whole = sets.predict(return_sets=True, alpha=0.1)
        pd.testing.assert_frame_equal(sets.predict(indices=[7, 2], return_sets=True, alpha=0.1), whole.iloc[[7, 2]])

    def test_training_has_no_part_in_sets(self, sets):
        longer = build(sets.adata.copy(), setup=SETUP, epochs=5)
        pd.testing.assert_frame_equal(
            longer.predict(return_sets=True, alpha=0.1), sets.predict(return_sets=True, alpha=0.1)
        )

    def test_labels_are_kept_on_request(self, sets):
        labels = sets.adata.obs["annotation"].astype(str)
        labelled = (labels != "Unknown").to_numpy()
        found = sets.predict(keep_labels=True).astype(str)
        assert (found[labelled] == labels[labelled]).all()
        assert found[~labelled].equals(sets.predict().astype(str)[~labelled])
        for table in (sets.predict(soft=True, keep_labels=True), sets.predict(return_sets=True, keep_labels=True)):
            assert (table.to_numpy()[labelled].sum(1) == 1).all()
            assert (table.columns[table.to_numpy()[labelled].argmax(1)] == labels[labelled]).all()

    def test_sets_or_probabilities(self, sets):
        with pytest.raises(ValueError, match="soft=True is passed beside return_sets=True"):
            sets.predict(soft=True, return_sets=True)

    def test_one_label_of_each_type(self, pool):
        model = build(label(pool[:300].copy(), 1), epochs=1, setup=SETUP)
        assert model.predict().notna().all()
        with pytest.raises(ValueError, match="return_sets=True requires at least two labels of a type"):
            model.predict(return_sets=True)


class TestNew:
    @pytest.mark.parametrize("held", ["0", "3"])
    def test_a_type_without_a_label(self, held, pool):
        data = label(pool[:300].copy(), 20, without=(held,))
        model = build(data.copy(), epochs=20, setup=SETUP)
        found, own = model.predict(), (data.obs["cell_type"] == held).to_numpy()
        assert (found[own] == "new 1").mean() > 0.9
        assert (found[~own] == "new 1").mean() < 0.05
        soft = model.predict(soft=True)
        assert list(soft.columns)[-1] == "new 1"
        query = pool[300:].copy()
        of_held = (query.obs["cell_type"] == held).to_numpy()
        assert (model.predict(query, alpha=0)[of_held] == "new 1").mean() > 0.9

    def test_nothing_is_new_where_all_types_are_labelled(self, model):
        assert not [name for name in model.predict().cat.categories if name.startswith("new")]

    def test_names_that_are_taken(self):
        data = label(simulate(300, n_types=4), 20, without=("3",))
        data.obs["annotation"] = data.obs["annotation"].replace({"1": "new 1"})
        found = build(data, epochs=20, setup=SETUP).predict()
        assert list(found.cat.categories) == ["0", "2", "new 1", "new 2", "unassigned"]


class TestWhatIsLabelled:
    def test_none_is_the_model_without_labels(self):
        bare = simulate()
        expected = build(bare.copy())
        none = label(bare, 0)
        with pytest.warns(UserWarning, match="has no label for any cell"):
            model = build(none, setup=SETUP)
        np.testing.assert_array_equal(model.get_latent_representation(), expected.get_latent_representation())
        for name, curve in expected.history.items():
            np.testing.assert_array_equal(model.history[name], curve)
        assert set(model.history) == set(expected.history)
        assert (model.get_clusters() == expected.get_clusters()).all()
        with pytest.raises(ValueError, match="has no labels"):
            model.predict()

    def test_a_weight_of_zero_trains_as_without_labels(self):
        bare = simulate()
        expected = build(bare.copy()).get_latent_representation()
        data = label(bare)
        scvi.settings.seed = 0
        scrcl.SCRCL.setup_anndata(data, **SETUP)
        model = scrcl.SCRCL(data, n_hidden=16, n_refined=8, n_components=10)
        model.train(5, accelerator="cpu", enable_progress_bar=False, plan_kwargs={"labels_weight": 0.0})
        np.testing.assert_array_equal(model.get_latent_representation(), expected)
        assert right(model.predict(), data) > 0.9

    def test_all(self):
        data = label(simulate(), None)
        model = build(data.copy(), epochs=20, setup={"labels_key": "annotation"})
        assert right(model.predict(), data) > 0.98
        assert "label_loss_train" in model.history

    def test_one_cell_of_each_type(self):
        data = label(simulate(300, n_types=4), 1)
        model = build(data.copy(), epochs=20, setup=SETUP)
        assert right(model.predict(), data) > 0.9
        assert model.get_label_report(n_clusters=4).cells["probability"].isna().all()

    def test_one_cell_of_one_type(self):
        data = label(simulate(300, n_types=4), 5)
        rows = np.flatnonzero(data.obs["annotation"] == "2")[1:]
        data.obs.iloc[rows, data.obs.columns.get_loc("annotation")] = "Unknown"
        assert right(build(data.copy(), epochs=20, setup=SETUP).predict(), data) > 0.9

    def test_a_single_type(self):
        data = label(simulate(300, n_types=4), 20, without=("1", "2", "3"))
        found = build(data.copy(), epochs=20, setup=SETUP).predict()
        own = (data.obs["cell_type"] == "0").to_numpy()
        assert (found[own] == "0").mean() > 0.9
        assert found[~own].str.startswith("new").mean() > 0.8

    def test_labels_of_one_batch_are_carried_to_the_other(self):
        data = simulate_batches()
        data.obs["annotation"] = np.where(data.obs["batch"] == "b0", data.obs["cell_type"], "Unknown")
        model = build(data.copy(), epochs=30, setup={**SETUP, "batch_key": "batch"})
        other = (data.obs["batch"] == "b1").to_numpy()
        assert (model.predict().astype(str) == data.obs["cell_type"])[other].mean() > 0.9
        query = simulate_batches((80,), first=5, seed=5)  # of a batch never seen
        assert right(model.predict(query, alpha=0), query) > 0.9

    def test_missing_values_and_categories_without_cells(self):
        data = label(simulate())
        values = data.obs["annotation"].replace({"Unknown": None}).astype("category")
        expected = build(data.copy(), setup=SETUP).predict(soft=True)
        data.obs["annotation"] = values.cat.add_categories(["never there"])
        found = build(data, setup={"labels_key": "annotation"}).predict(soft=True)
        pd.testing.assert_frame_equal(found, expected)

    def test_training_in_batches(self):
        data = label(simulate(500, n_types=4))
        scvi.settings.seed = 0
        scrcl.SCRCL.setup_anndata(data, **SETUP)
        model = scrcl.SCRCL(data, n_hidden=16, n_refined=8, n_components=10)
        model.train(10, batch_size=128, accelerator="cpu", enable_progress_bar=False)
        assert right(model.predict(), data) > 0.95

    @pytest.mark.slow
    def test_the_contrast_draws_labels_together(self):
        data = label(simulate(), None)
        truth = data.obs["cell_type"].astype(int).to_numpy()

        def contrast(weight: float, seed: int) -> float:
            scvi.settings.seed = seed
            scrcl.SCRCL.setup_anndata(data, **SETUP)
            model = scrcl.SCRCL(data, n_hidden=16, n_refined=8, n_components=10)
            model.train(5, accelerator="cpu", enable_progress_bar=False, plan_kwargs={"labels_weight": weight})
            latent = torch.from_numpy(model.get_latent_representation())
            return label_loss(latent[:, :16], latent[:, 16:32], torch.from_numpy(truth)).item()

        with_labels, without = (np.mean([contrast(weight, seed) for seed in range(5)]) for weight in (100.0, 0.0))
        assert with_labels < 0.95 * without


class TestRefused:
    @pytest.mark.parametrize(
        ("labels", "setup", "error", "message"),
        [
            (None, {"unlabeled_category": "Unknown"}, ValueError, "requires labels. Pass `labels_key="),
            (None, {"labels_key": "annotation"}, KeyError, "labels_key='annotation' is not in adata.obs"),
            (None, {"labels_key": ["a", "b"]}, TypeError, r"labels_key=\['a', 'b'\] is not one key of adata.obs"),
            ("unassigned", {"labels_key": "annotation"}, ValueError, "pass `unlabeled_category='unassigned'`"),
            ("numbers", {"labels_key": "annotation"}, ValueError, "150 different values for 150 cells"),
        ],
    )
    def test_at_setup(self, adata, labels, setup, error, message):
        if labels == "numbers":
            adata.obs["annotation"] = np.linspace(0, 1, adata.n_obs)
        elif labels is not None:
            adata.obs["annotation"] = np.where(np.arange(adata.n_obs) < 9, labels, "a")
        with pytest.raises(error, match=message):
            scrcl.SCRCL.setup_anndata(adata, **setup)

    def test_a_type_that_seems_to_be_none(self, adata):
        adata.obs["annotation"] = np.where(np.arange(adata.n_obs) < 9, "unknown", "a")
        with pytest.warns(UserWarning, match="pass `unlabeled_category='unknown'`"):
            scrcl.SCRCL.setup_anndata(adata, labels_key="annotation", unlabeled_category="Unknown")

    def test_a_weight_without_labels(self, adata):
        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=8, n_components=5)
        with pytest.raises(ValueError, match="labels_weight.*the model has none"):
            model.train(1, plan_kwargs={"labels_weight": 2.0})
        with pytest.raises(ValueError, match="early_stopping_monitor=.* is not valid"):
            model.train(1, early_stopping_monitor="label_loss_train")


def test_save_and_load(model, data, tmp_path):
    model.save(tmp_path / "model")
    query = simulate(60, n_types=4, seed=9)
    loaded = scrcl.SCRCL.load(tmp_path / "model", adata=data.copy())
    for adata in (None, query):
        np.testing.assert_allclose(loaded.predict(adata, soft=True), model.predict(adata, soft=True), atol=1e-4)
    report, expected = loaded.get_label_report(n_clusters=4), model.get_label_report(n_clusters=4)
    pd.testing.assert_frame_equal(report.confusions, expected.confusions)
    on_query = scrcl.SCRCL.load(tmp_path / "model", adata=query)  # which has no labels
    np.testing.assert_allclose(on_query.predict(soft=True), model.predict(query, soft=True), atol=1e-4)
    registry = scrcl.SCRCL.load_registry(tmp_path / "model")
    assert registry["field_registries"]["labels"]["state_registry"]["unlabeled_category"] == "Unknown"


def test_several_modalities():
    rna, other = simulate(200, 90), simulate(200, 20)
    other.obs["cell_type"] = rna.obs["cell_type"]
    mdata = mudata.MuData({"rna": rna, "prot": other})
    mdata.obs["annotation"] = label(rna).obs["annotation"]
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_mudata(mdata, {"rna": "rna", "prot": "protein"}, **SETUP)
    model = scrcl.SCRCL(mdata, n_hidden=16, n_refined=8, n_components=10)
    model.train(20, accelerator="cpu", enable_progress_bar=False)
    assert right(model.predict(), rna) > 0.95
    query = mudata.MuData({"rna": rna[:50].copy(), "prot": other[50:100].copy()})
    query["prot"].obs_names = query["rna"].obs_names
    assert model.predict(mudata.MuData(query.mod), alpha=0).notna().all()


def test_new_cells_of_several_modalities():
    """As many columns as cells of the model; the proteins alone tell two of the types apart."""
    rna, prot = simulate(300, 90, n_types=3), simulate(300, 24, n_types=3)
    for part in (rna, prot):
        part.obs["cell_type"] = rna.obs["cell_type"].astype(str)
    known, new = (mudata.MuData({"rna": rna[rows].copy(), "prot": prot[rows].copy()}) for rows in (MODEL, NEW))
    known.obs["annotation"] = label(rna[MODEL].copy(), 10).obs["annotation"].to_numpy()
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_mudata(known, {"rna": "rna", "prot": "protein"}, **SETUP)
    model = scrcl.SCRCL(known, n_hidden=16, n_refined=8, n_components=10)
    model.train(20, accelerator="cpu", enable_progress_bar=False)
    soft = model.predict(new, soft=True)
    assert right(model.predict(new, alpha=0), rna[NEW]) > 0.9
    pd.testing.assert_frame_equal(model.predict(new, indices=[5, 2], soft=True), soft.iloc[[5, 2]], rtol=1e-4)
    pd.testing.assert_frame_equal(model.predict(new[:1].copy(), soft=True), soft[:1], rtol=1e-4)
    with pytest.raises(TypeError, match="MuData"):
        model.predict(rna[NEW].copy())


def test_new_cells_of_known_and_of_new_batches():
    """Types are those of the reference in a batch that the model knows, and in one that it never saw."""
    cells = simulate_batches((120, 100), effect=1.0)
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str)
    model = build(label(cells, 10), epochs=20, setup={**SETUP, "batch_key": "batch"})
    for query in (simulate_batches((50, 50), seed=8), simulate_batches((60,), first=5, seed=5)):
        query.obs["cell_type"] = query.obs["cell_type"].astype(str)
        query.obs_names = [f"new{number}" for number in range(query.n_obs)]
        assert right(model.predict(query, alpha=0), query) > 0.85
    nameless = query.copy()
    del nameless.obs["batch"]
    with pytest.raises(KeyError, match="batch"):
        model.predict(nameless)


def test_a_new_slice_in_space():
    """Layers of another slice, whose cells are seen among their own neighbours."""
    tissue = scrcl.datasets.layered_tissue(n_cells=240, n_slices=2)
    tissue.obs["cell_type"] = tissue.obs["domain"].astype(str)
    first = tissue[tissue.obs["slice"] == tissue.obs["slice"].iloc[0]].copy()
    second = tissue[tissue.obs["slice"] != tissue.obs["slice"].iloc[0]].copy()
    model = build(label(first, 15), epochs=20, setup={**SETUP, "spatial_key": "spatial", "sample_key": "slice"})
    found = model.predict(second, alpha=0)
    assert right(found, second) > 0.3  # chance is 0.2
    pd.testing.assert_frame_equal(
        model.predict(second, indices=[7, 3], soft=True), model.predict(second, soft=True).iloc[[7, 3]], rtol=1e-4
    )
    scrambled = second.copy()
    scrambled.obsm["spatial"] = np.random.default_rng(0).permutation(second.obsm["spatial"])
    assert right(model.predict(scrambled, alpha=0), second) < right(found, second) - 0.05


def test_in_space():
    tissue = scrcl.datasets.layered_tissue(n_cells=240, n_slices=2)
    tissue.obs["cell_type"] = tissue.obs["domain"].astype(str)
    data = label(tissue, 10)
    setup = {**SETUP, "spatial_key": "spatial", "sample_key": "slice"}
    model = build(data.copy(), epochs=20, setup=setup)
    assert right(model.predict(), data) > 0.55  # borders of five layers are blurred; chance is 0.2
    again = model.predict(tissue.copy())
    assert (again == model.predict()).mean() > 0.95


@pytest.fixture(scope="module")
def wrong() -> tuple[ad.AnnData, np.ndarray]:
    """All cells labelled, a tenth of them wrongly."""
    data = label(simulate(300, n_types=4), None)
    rng = np.random.default_rng(1)
    flipped = np.zeros(300, dtype=bool)
    flipped[rng.permutation(300)[:30]] = True
    labels = data.obs["annotation"].astype(int).to_numpy(copy=True)
    labels[flipped] = (labels[flipped] + rng.integers(1, 4, 30)) % 4
    data.obs["annotation"] = labels.astype(str)
    return data, flipped


def noise(seed: int) -> ad.AnnData:
    """Pure noise, of which every cell has a label drawn at random."""
    rng = np.random.default_rng(seed)
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(1.0, (400, 200)).astype(np.float32)))
    adata.obs["annotation"] = np.where(rng.random(400) < 0.5, "a", "b")
    return adata


class TestLabelsDoNotJudgeThemselves:
    @pytest.mark.parametrize("seed", range(2))
    @pytest.mark.slow
    def test_random_labels_of_noise(self, seed):
        model = build(noise(seed), epochs=15, setup=SETUP, n_hidden=32)
        cells = model.get_label_report(n_clusters=2).cells
        assert abs((cells["predicted"] == cells["label"]).mean() - 0.5) < 4 * np.sqrt(0.25 / 400)
        assert cells["probability"].between(0.3, 0.7).all()  # 0.38 to 0.62 of five seeds

    @pytest.mark.slow
    def test_random_labels_of_real_types(self):
        """Types are there, but the labels have nothing to do with them."""
        data = simulate(400, n_types=4)
        data.obs["annotation"] = np.random.default_rng(0).permutation(np.arange(400) % 4).astype(str)
        model = build(data.copy(), epochs=15, setup=SETUP, n_hidden=32)
        cells = model.get_label_report(n_clusters=4).cells
        assert abs((cells["predicted"] == cells["label"]).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)
        assert cells["probability"].between(0.1, 0.45).all()

    @pytest.mark.parametrize("kind", ["batches", "space"])
    def test_labels_have_no_part_in_what_is_prepared(self, kind):
        data = simulate_batches() if kind == "batches" else scrcl.datasets.layered_tissue(n_cells=200, n_slices=2)
        keys = {"batch_key": "batch"} if kind == "batches" else {"spatial_key": "spatial", "sample_key": "slice"}
        data.obs["annotation"] = np.random.default_rng(0).choice(["a", "b", "Unknown"], data.n_obs)
        prepared = []
        for setup in (keys, {**keys, **SETUP}):
            adata = data.copy()
            scrcl.SCRCL.setup_anndata(adata, **setup)
            reference = scrcl.SCRCL(adata, n_hidden=8, n_components=10)._reference
            prepared.append((reference.features, reference.smoothed(), reference.adjacency.toarray()))
        for without, with_labels in zip(*prepared, strict=True):
            np.testing.assert_array_equal(without, with_labels)

    @pytest.mark.slow
    def test_training_has_no_part_in_the_report(self):
        """The same labels are judged in the same way however strongly the network learnt from them."""
        reports = []
        for weight in (0.0, 1000.0):
            data = label(simulate(300, n_types=4), 30, without=("3",))
            scrcl.SCRCL.setup_anndata(data, **SETUP)
            model = scrcl.SCRCL(data, n_hidden=16, n_refined=8, n_components=10)
            model.train(5, accelerator="cpu", enable_progress_bar=False, plan_kwargs={"labels_weight": weight})
            reports.append(model.get_label_report(n_clusters=4))
        pd.testing.assert_frame_equal(reports[0].cells, reports[1].cells)
        pd.testing.assert_frame_equal(reports[0].confusions, reports[1].confusions)


class TestReport:
    def test_flipped_labels_come_first(self, wrong):
        data, flipped = wrong
        model = build(data.copy(), epochs=20, setup=SETUP)
        report = model.get_label_report(n_clusters=4)
        assert len(report.cells) == 300
        first = report.cells.index[:30]
        assert np.isin(first, data.obs_names[flipped]).mean() > 0.9
        assert right(model.predict(), data) > 0.97
        assert (report.cells["label"].reindex(data.obs_names) == data.obs["annotation"]).all()
        off = report.confusions.to_numpy().sum() - np.trace(report.confusions.to_numpy())
        assert off == pytest.approx(30, abs=5)

    def test_clusters_without_labels(self):
        data = label(simulate(300, n_types=4), 20, without=("3",))
        model = build(data.copy(), epochs=20, setup=SETUP)
        report = model.get_label_report(n_clusters=4)
        clusters = model.get_clusters(n_clusters=4)
        assert report.clusters["cells"].tolist() == clusters.value_counts(sort=False).tolist()
        bare = report.clusters[report.clusters["labelled"] == 0]
        assert len(bare) == 1
        assert bare["label"].isna().all()
        assert bare["agreement"].isna().all()
        assert bare["predicted"].tolist() == ["new 1"]
        assert report.clusters["labelled"].sum() == 60
        assert len(report.cells) == 60


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zheng_pbmc500", "cellbench_celseq2_5cl"])
def test_real_types(name):
    adata = ad.read_h5ad(real_data(f"{name}.h5ad"))
    data = label(adata, 20)
    data.obs["cell_type"] = data.obs["cell_type"].astype(str)
    model = build(data.copy(), epochs=50, setup=SETUP, n_hidden=128, n_refined=32, n_components=50)
    rest = (data.obs["annotation"] == "Unknown").to_numpy()
    assert (model.predict().astype(str) == data.obs["cell_type"])[rest].mean() > 0.95
    soft = model.predict(soft=True)
    codes = soft.columns.get_indexer(data.obs["cell_type"])
    assert calibration_error(soft.to_numpy()[rest], codes[rest]) < 0.06
