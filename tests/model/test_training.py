"""Training: what is recorded, batches, several devices, checkpoints."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scvi
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from scvi.train._logger import SimpleLogger
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.model.training import _HistoryLogger
from scrcl.utils.errors import ScrclValueError

from ..helpers import build, simulate


class TestTraining:
    def test_history_holds_the_terms_of_the_loss_and_nothing_else(self, adata):
        model = build(adata, epochs=6)
        terms = {f"{name}_loss_train" for name in ("alignment", "neighborhood", "cross_view")}
        assert set(model.history) == {"train_loss", *terms}
        assert all(len(curve) == 6 for curve in model.history.values())
        first = {name: curve.iloc[0, 0] for name, curve in model.history.items()}
        weights = {"alignment": 1, "neighborhood": 100, "cross_view": 1}
        total = sum(weight * first[f"{name}_loss_train"] for name, weight in weights.items())
        assert first["train_loss"] == pytest.approx(total, rel=1e-5)
        assert model.history["train_loss"].iloc[-1, 0] < first["train_loss"]

    def test_weights_of_the_losses(self, adata):
        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=8)
        names = ("alignment", "neighborhood", "cross_view")
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

    def test_training_goes_on(self, adata):
        model = build(adata, epochs=3)
        before = model.get_latent_representation()
        clusters = model.get_clusters(n_clusters=4)
        model.train(4, enable_progress_bar=False)
        assert len(model.history["train_loss"]) == 7
        assert list(model.history["train_loss"].index) == list(range(7))
        assert not np.array_equal(model.get_latent_representation(), before)
        assert len(model.get_clusters(n_clusters=4)) == len(clusters)

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


class Fault(Callback):
    def on_train_epoch_start(self, *args):
        raise RuntimeError("a fault")


def test_training_that_failed_leaves_the_refinement_untrained(adata):
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata, n_hidden=8, n_components=5)
    with pytest.raises(RuntimeError, match="a fault"):
        model.train(1, accelerator="cpu", enable_progress_bar=False, callbacks=[Fault()])
    assert not model.refinement_trained_
    model.train(1, accelerator="cpu", enable_progress_bar=False, plan_kwargs={"cross_view_weight": 0})
    with pytest.raises(RuntimeError, match="refinement is not trained"):
        model.get_gene_embedding()


class TestBatches:
    @pytest.mark.parametrize("batch_size", [1, 2, 25, 59, 10_000])
    def test_training_in_batches(self, batch_size):
        adata = simulate(60)
        scvi.settings.seed = 0
        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=16, n_refined=8, n_components=10)
        model.train(2, batch_size=batch_size, enable_progress_bar=False)
        assert len(model.history["train_loss"]) == 2
        assert np.isfinite(model.history["train_loss"].to_numpy(dtype=float)).all()
        assert np.isfinite(model.get_latent_representation()).all()

    def test_a_batch_of_all_cells_is_the_whole_graph(self, trained):
        expected = trained.get_latent_representation()
        adata = simulate()
        scvi.settings.seed = 0
        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=16, n_refined=8, n_components=10)
        model.train(5, accelerator="cpu", batch_size=150, enable_progress_bar=False)
        np.testing.assert_array_equal(model.get_latent_representation(), expected)

    @pytest.mark.slow
    def test_batches_find_the_same_types(self):

        adata = simulate(600)
        truth = adata.obs["cell_type"].to_numpy()
        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata)
        model.train(10, batch_size=100, enable_progress_bar=False)
        assert adjusted_rand_score(truth, model.get_clusters(n_clusters=3, method="kmeans")) > 0.95

    def test_isolated_cells_and_batches_without_edges(self):
        """A graph with hardly an edge: most cells have no neighbour, most batches no inner edge."""
        adata = simulate()
        graph = sp.csr_matrix((np.ones(2), ([0, 1], [1, 0])), shape=(150, 150))
        adata.obsp["connectivities"] = graph
        adata.uns["neighbors"] = {"connectivities_key": "connectivities"}
        scrcl.SCRCL.setup_anndata(adata, neighbors_key="neighbors")
        model = scrcl.SCRCL(adata, n_hidden=16, n_refined=8, n_components=10)
        model.train(2, batch_size=30, enable_progress_bar=False)
        assert np.isfinite(model.get_latent_representation()).all()
        assert model.get_clusters(n_clusters=3).notna().all()

    @pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
    def test_batch_size_out_of_range(self, trained, batch_size):
        with pytest.raises(ValueError, match="batch_size=.* is not valid"):
            trained.train(1, batch_size=batch_size)


def run_script(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    (folder / "script.py").write_text(script)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(folder / "script.py"), *arguments]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=600
    )


DEVICES = """
import json
import os
from pathlib import Path
import torch
import scvi
import scrcl
from scrcl.utils.errors import ScrclValueError
from scrcl.nn import minibatches
from tests.model.test_batches import simulate

sizes, graph_minibatch = [], minibatches.graph_minibatch
minibatches.graph_minibatch = lambda features, *others: sizes.append(len(features)) or graph_minibatch(features, *others)
adata = simulate((80, 70))
scvi.settings.seed = 0
scrcl.SCRCL.setup_anndata(adata, batch_key="batch")
model = scrcl.SCRCL(adata, n_hidden=16, n_refined=8, n_components=10)
model.train(3, batch_size=50, accelerator="cpu", devices=2, strategy="ddp", enable_progress_bar=False)
weights = sum(float(weight.detach().double().abs().sum()) for weight in model.module.parameters())
clusters = model.get_clusters(n_clusters=3).value_counts().tolist()
found = {"sizes": sizes, "weights": weights, "clusters": clusters, "backend": torch.distributed.get_backend()}
found["corrected"] = model.get_batch_report(n_clusters=3).corrected
Path(f"rank{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_two_devices(tmp_path):
    """Two processes share the batches of each epoch, and end with the same weights."""
    done = run_script(DEVICES, tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("rank*")} == {"rank0.json", "rank1.json"}
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first["backend"] == "gloo"
    assert first["corrected"] == ["rna"], "the cells are of two batches"
    # 150 cells in 4 batches, the next multiple of 2 above 150 / 50; each process has 2 of them in each of 3 epochs.
    for sizes in (first.pop("sizes"), second.pop("sizes")):
        assert len(sizes) == 6
        assert sum(sizes) in range(3 * 74, 3 * 76 + 1)
    assert first == second, "weights and clusters are the same"


KILLED = """
import os
import signal
import sys
import scvi
import scrcl
from scrcl.utils.errors import ScrclValueError
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from scvi.train import SaveCheckpoint
from tests.helpers import simulate


class Kill(Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.current_epoch == 4:
            os.kill(os.getpid(), signal.SIGKILL)


adata = simulate()
scvi.settings.seed = 0
scrcl.SCRCL.setup_anndata(adata)
model = scrcl.SCRCL(adata, n_hidden=16, n_refined=8, n_components=10)
newest = SaveCheckpoint(sys.argv[1], filename="{epoch}", monitor="epoch", mode="max")
model.train(10, enable_checkpointing=True, callbacks=[newest, Kill()], enable_progress_bar=False)
"""


@pytest.mark.slow
def test_killed_training_goes_on_from_its_checkpoint(tmp_path):
    done = run_script(KILLED, tmp_path, str(tmp_path / "checkpoints"))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch=3"]
    model = scrcl.SCRCL.load(tmp_path / "checkpoints" / "epoch=3", adata=simulate())
    before = model.get_latent_representation()
    model.train(6, enable_progress_bar=False)
    assert model.get_latent_representation().shape == before.shape
    assert not np.allclose(model.get_latent_representation(), before)


TUNED = """
import os
import ray
import scvi
from ray import tune
from scvi.autotune import run_autotune
import scrcl
from scrcl.utils.errors import ScrclValueError
from tests.helpers import simulate

adata = simulate()
scrcl.SCRCL.setup_anndata(adata)
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
space = {"model_params": {"n_hidden": tune.grid_search([8, 16])}, "train_params": {"max_epochs": 2}}
found = run_autotune(
    scrcl.SCRCL, adata, "train_loss", "min", space, num_samples=1, scheduler="fifo", searcher="random", seed=0,
    resources={"cpu": 1}, logging_dir=os.path.abspath("tuned"), ignore_reinit_error=True,
)
table = found.result_grid.get_dataframe()
print("TRIED", sorted(table["config/model_params/n_hidden"]), table["train_loss"].notna().all(), found.result_grid.num_errors)
"""


@pytest.mark.slow
def test_search_for_hyperparameters(tmp_path):
    for package in ("ray", "hyperopt", "scib_metrics"):
        pytest.importorskip(package, reason="what scvi.autotune needs is installed by scvi-tools[autotune]")
    done = run_script(TUNED, tmp_path)
    assert "TRIED [8, 16] True 0" in done.stdout, done.stderr


class Recorder(Logger):
    """A logger of the user's own."""

    name, version = "own", 0

    def __init__(self):
        super().__init__()
        self.found: list[dict] = []

    def log_metrics(self, metrics, step=None):
        self.found.append(dict(metrics))

    def log_hyperparams(self, *args, **kwargs):
        pass


@pytest.mark.parametrize("several", [False, True, None])
def test_a_logger_of_ones_own_leaves_the_history(adata, several):
    model, own = build(adata, epochs=1), Recorder()
    model.train(2, enable_progress_bar=False, logger=False if several is None else [own] if several else own)
    assert len(model.history["train_loss"]) == 3
    scrcl.pl.history(model)
    assert several is None or {"train_loss", "epoch"} <= set().union(*own.found)


def test_the_history_is_that_of_the_logger_of_scvi_tools(adata):
    """Values, names of the axes and the file, by epoch and by step."""
    own, theirs = _HistoryLogger(), SimpleLogger()
    for epoch in range(3):
        for logger in (own, theirs):
            logger.log_metrics({"train_loss_step": epoch / 7}, 2 * epoch)
            logger.log_metrics({"train_loss": epoch / 3, "lr": 0.1, "epoch": epoch}, 2 * epoch + 1)
    assert own.history.keys() == theirs.history.keys()
    for name, table in theirs.history.items():
        pd.testing.assert_frame_equal(own.history[name], table.astype(float), check_index_type=False)


def test_the_history_can_be_kept_in_a_file(adata, tmp_path):
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata, n_hidden=8, n_components=5)
    model.train(2, enable_progress_bar=False, log_save_dir=str(tmp_path))
    (file,) = tmp_path.rglob("history.pkl")
    pd.testing.assert_frame_equal(pd.read_pickle(file)["train_loss"], model.history["train_loss"])


def test_a_trial_run_leaves_a_model_that_can_be_used(adata):
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata, n_hidden=8, n_components=5)
    model.train(5, fast_dev_run=True, enable_progress_bar=False)
    assert np.isfinite(model.get_latent_representation()).all()
    model.train(2, enable_progress_bar=False)
    assert len(model.history["train_loss"]) >= 2


@pytest.mark.parametrize(
    "options",
    [{"limit_train_batches": 0}, {"limit_train_batches": 0.0}, {"max_steps": 0}, {"max_time": {"seconds": 0}}],
)
def test_training_without_a_step_is_none(adata, options):
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata, n_hidden=8, n_components=5)
    with pytest.raises(ScrclValueError, match="before its first step"):
        model.train(2, enable_progress_bar=False, **options)
    assert not model.is_trained_
    with pytest.raises(RuntimeError, match="train"):
        model.get_latent_representation()
    model.train(1, enable_progress_bar=False)
    latent = model.get_latent_representation()
    with pytest.raises(ScrclValueError, match="before its first step"):
        model.train(2, enable_progress_bar=False, **options)
    assert len(model.history["train_loss"]) == 1
    np.testing.assert_array_equal(model.get_latent_representation(), latent)


@pytest.mark.parametrize(
    "options",
    [{"devices": 0}, {"devices": "x"}, {"max_steps": "a"}, {"limit_train_batches": -1}, {"strategy": "x"}],
    ids=str,
)
def test_options_that_the_trainer_refuses(adata, options):
    model = build(adata, epochs=1)
    with pytest.raises(ScrclValueError, match="The trainer refuses its options"):
        model.train(2, accelerator="cpu", enable_progress_bar=False, **options)


def test_lightning_is_quiet(tmp_path):
    """Neither a list of hardware, nor an advertisement, nor a line on the last epoch; a level that was set is kept."""
    script = """
import logging
import warnings
import scrcl
from tests.helpers import simulate
adata = simulate()
scrcl.SCRCL.setup_anndata(adata)
model = scrcl.SCRCL(adata)
model.train(2, enable_progress_bar=False)
print("--- as asked for ---")
logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.INFO)
model.train(2, enable_progress_bar=False)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True
    )
    output = run.stdout + run.stderr
    print(output)
    quiet, _, told = run.stderr.partition("GPU available")
    for word in ("TPU", "GPU", "Tip", "litlogger", "litmodels", "Trainer.fit"):
        assert word not in run.stdout
        assert word not in quiet
    assert told
