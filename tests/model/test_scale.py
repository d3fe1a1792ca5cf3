"""Batches, inference in chunks, several devices, checkpoints and foreseen lack of memory."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import scvi
import torch

import scrcl
from scrcl.graph.adjacency import query_weights, symmetric_adjacency
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.nn import inference
from scrcl.nn.batches import BATCH_CELLS, LEAF_CELLS, GraphBatches, GraphDataModule, neighborhoods
from scrcl.nn.inference import encode, encode_new
from scrcl.nn.sparse import to_torch
from scrcl.utils import memory

from ..conftest import build, simulate


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3000, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def adjacency(points):
    return symmetric_adjacency(nearest_neighbors(points, 10).to_sparse())


class TestBatches:
    def test_neighborhoods_divide_the_points(self, points):
        leaves = neighborhoods(points, np.random.default_rng(0))
        np.testing.assert_array_equal(np.sort(np.concatenate(leaves)), np.arange(3000))
        sizes = [len(leaf) for leaf in leaves]
        assert max(sizes) <= LEAF_CELLS
        assert min(sizes) >= LEAF_CELLS // 2

    def test_neighborhoods_are_near(self, points):
        """By hand: points of a leaf lie closer to each other than points at random."""
        leaves = neighborhoods(points, np.random.default_rng(0))
        inside = np.mean([np.linalg.norm(points[leaf] - points[leaf].mean(0), axis=1).mean() for leaf in leaves])
        assert inside < 0.75 * np.linalg.norm(points - points.mean(0), axis=1).mean()

    def test_neighborhoods_of_duplicate_cells(self):
        leaves = neighborhoods(np.ones((500, 3), np.float32), np.random.default_rng(0))
        np.testing.assert_array_equal(np.sort(np.concatenate(leaves)), np.arange(500))

    def test_batches_of_an_epoch(self, points, adjacency):
        numbered = np.arange(3000, dtype=np.float32)[:, None]
        batches = GraphBatches(numbered, adjacency, points, 7, seed=0)
        dense = adjacency.toarray()
        epochs, kept = [], 0.0
        for _ in range(2):
            cells = []
            for batch in batches:
                rows = batch["features"].numpy()[:, 0].astype(int)
                cells.append(rows)
                np.testing.assert_array_equal(batch["adjacency"].to_dense().numpy(), dense[np.ix_(rows, rows)])
                kept += batch["adjacency"].values().sum().item()
            assert len(cells) == len(batches) == 7
            assert {len(rows) for rows in cells} <= {3000 // 7, 3000 // 7 + 1}
            np.testing.assert_array_equal(np.sort(np.concatenate(cells)), np.arange(3000))
            epochs.append(np.concatenate(cells))
        assert (epochs[0] != epochs[1]).any(), "each epoch draws batches anew"
        assert kept / 2 > 2.5 * adjacency.nnz / 7, "random batches would keep a seventh of the edges"
        again = [batch["features"].numpy()[:, 0] for batch in GraphBatches(numbered, adjacency, points, 7, seed=0)]
        np.testing.assert_array_equal(np.concatenate(again), epochs[0])

    @pytest.mark.parametrize(
        ("n", "batch_size", "expected"),
        [(10, None, 1), (20_001, None, -(-20_001 // BATCH_CELLS)), (10, 3, 4), (10, 99, 1)],
    )
    def test_number_of_batches(self, n, batch_size, expected):
        module = GraphDataModule(np.zeros((n, 1), np.float32), sp.csr_array((n, n)), np.zeros((n, 1)), batch_size)
        assert module.n_batches == expected
        assert len(module.train_dataloader()) == expected

    @pytest.mark.parametrize("batch_size", [1, 2, 40, 75, 10_000])
    def test_training_in_batches(self, batch_size):
        adata = simulate()
        scvi.settings.seed = 0
        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=16, n_refined=8, n_components=10)
        model.train(2, batch_size=batch_size, enable_progress_bar=False)
        assert len(model.history["train_loss"]) == 2
        assert np.isfinite(model.history["train_loss"].to_numpy(dtype=float)).all()
        assert np.isfinite(model.get_latent_representation()).all()

    def test_a_batch_of_all_cells_is_the_whole_graph(self):
        expected = build(simulate()).get_latent_representation()
        adata = simulate()
        scvi.settings.seed = 0
        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=16, n_refined=8, n_components=10)
        model.train(5, accelerator="cpu", batch_size=150, enable_progress_bar=False)
        np.testing.assert_array_equal(model.get_latent_representation(), expected)

    def test_batches_find_the_same_types(self):
        from sklearn.metrics import adjusted_rand_score

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
        with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1"):
            trained.train(1, batch_size=batch_size)


class TestInference:
    @staticmethod
    def whole_graph(module, features, propagation):
        with torch.inference_mode():
            module.eval()
            views = module.inference(torch.from_numpy(features), to_torch(propagation))
            refined = module.generative(views["hidden_1"], views["hidden_2"])
        return {
            ("aligned", None): torch.cat([views["embedding_1"], views["embedding_2"]], 1).numpy(),
            ("refined", None): torch.cat([refined["refined_1"], refined["refined_2"]], 1).numpy(),
        }

    @pytest.mark.parametrize("chunk", [1, 37, 150])
    def test_chunks_give_what_the_whole_graph_gives(self, trained, monkeypatch, chunk):
        monkeypatch.setattr(inference, "CHUNK_CELLS", chunk)
        reference = trained._reference
        found = encode(trained.module, reference.features, reference.propagation, reference.weights).latent
        expected = self.whole_graph(trained.module, reference.features, reference.propagation)
        for name, latent in expected.items():
            np.testing.assert_allclose(found[name], latent, atol=1e-5)

    @pytest.mark.parametrize("chunk", [1, 37])
    def test_new_cells_in_chunks(self, trained, monkeypatch, chunk):
        """As rows of the graph in which new cells receive and send nothing."""
        monkeypatch.setattr(inference, "CHUNK_CELLS", chunk)
        reference = trained._reference
        features = reference.read(trained._sources(simulate(60, seed=9)))
        received, own = query_weights(reference.adjacency, reference.query_neighbors(features)[0])
        hidden = encode(trained.module, reference.features, reference.propagation, reference.weights).hidden
        found = encode_new(
            trained.module, features, received, own, np.ones((60, 1), np.float32), reference.features, hidden
        )
        joined = sp.csr_array(
            sp.block_array([[reference.propagation, None], [received, own * sp.eye_array(60, dtype=np.float32)]])
        )
        expected = self.whole_graph(trained.module, np.concatenate([reference.features, features]), joined)
        for name, latent in expected.items():
            np.testing.assert_allclose(found[name], latent[150:], atol=1e-5)


def test_mixed_precision(adata):
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata, n_hidden=16, n_refined=8, n_components=10)
    model.train(2, accelerator="cpu", precision="bf16-mixed", batch_size=50, enable_progress_bar=False)
    assert np.isfinite(model.history["train_loss"].to_numpy(dtype=float)).all()
    assert model.get_latent_representation().dtype == np.float32


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
from scrcl.nn import batches
from tests.conftest import simulate

sizes, graph_batch = [], batches.graph_batch
batches.graph_batch = lambda features, adjacency: sizes.append(len(features)) or graph_batch(features, adjacency)
adata = simulate()
scvi.settings.seed = 0
scrcl.SCRCL.setup_anndata(adata)
model = scrcl.SCRCL(adata, n_hidden=16, n_refined=8, n_components=10)
model.train(3, batch_size=50, accelerator="cpu", devices=2, strategy="ddp", enable_progress_bar=False)
weights = sum(float(weight.detach().double().abs().sum()) for weight in model.module.parameters())
clusters = model.get_clusters(n_clusters=3).value_counts().tolist()
found = {"sizes": sizes, "weights": weights, "clusters": clusters, "backend": torch.distributed.get_backend()}
Path(f"rank{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(found))
"""


def test_two_devices(tmp_path):
    """Two processes share the batches of each epoch, and end with the same weights."""
    done = run_script(DEVICES, tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("rank*")} == {"rank0.json", "rank1.json"}
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first["backend"] == "gloo"
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
from lightning.pytorch import Callback
from scvi.train import SaveCheckpoint
from tests.conftest import simulate


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


def test_killed_training_goes_on_from_its_checkpoint(tmp_path):
    done = run_script(KILLED, tmp_path, str(tmp_path / "checkpoints"))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch=3"]
    model = scrcl.SCRCL.load(tmp_path / "checkpoints" / "epoch=3", adata=simulate())
    before = model.get_latent_representation()
    model.train(6, enable_progress_bar=False)
    assert model.get_latent_representation().shape == before.shape
    assert not np.allclose(model.get_latent_representation(), before)


def test_a_checkpoint_leaves_nothing_of_its_weights(adata, tmp_path):
    """Saving in mid-training embeds cells for the genes; the trained model must not answer with that."""
    from scvi.train import SaveCheckpoint

    expected = build(simulate()).get_latent_representation()
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata, n_hidden=16, n_refined=8, n_components=10)
    every = SaveCheckpoint(str(tmp_path), filename="{epoch}", monitor="epoch", mode="max", save_top_k=-1)
    model.train(5, accelerator="cpu", enable_checkpointing=True, callbacks=[every], enable_progress_bar=False)
    np.testing.assert_array_equal(model.get_latent_representation(), expected)
    first, last = (scrcl.SCRCL.load(tmp_path / f"epoch={epoch}", adata=simulate()) for epoch in (1, 4))
    maps = [model._fitted_gene_map().loadings for model in (first, last)]
    assert not np.allclose(maps[0], maps[1])


def test_a_model_that_cannot_be_saved_leaves_what_was_there(trained, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    trained.save(folder)
    before = (folder / "model.pt").read_bytes()

    def fail(state, path, **kwargs):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match=r"cannot be saved to dir_path=.*No space left.*Free space"):
        trained.save(folder, overwrite=True)
    with pytest.raises(OSError, match="No space left"):
        trained.save(tmp_path / "other")
    assert (folder / "model.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


class TestMemory:
    def test_lack_is_foreseen(self, monkeypatch):
        monkeypatch.setattr(memory, "available", lambda: 1e9)
        adata = simulate()
        scrcl.SCRCL.setup_anndata(adata)
        with pytest.warns(UserWarning, match=r"150 cells will need about 1\.5 GB of memory, but 1\.0 GB.*n_components"):
            model = scrcl.SCRCL(adata)
        monkeypatch.setattr(memory, "available", lambda: 1.0)
        with pytest.warns(UserWarning, match=r"batches of 50 cells.*smaller `batch_size`"):
            model.train(1, batch_size=50, enable_progress_bar=False)

    def test_no_warning_where_there_is_enough(self, adata, recwarn):
        build(adata, epochs=1)
        assert not [warning for warning in recwarn if "of memory" in str(warning.message)]

    def test_estimates_grow_with_the_cells(self):
        million, thousand = (memory.for_cells(n, 200, 128, 15) for n in (1_000_000, 1_000))
        assert 900 < (million - memory.FIXED) / (thousand - memory.FIXED) < 1100
        assert 4e9 < million < 16e9


TUNED = """
import os
import ray
import scvi
from ray import tune
from scvi.autotune import run_autotune
import scrcl
from tests.conftest import simulate

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


def test_search_for_hyperparameters(tmp_path):
    for package in ("ray", "hyperopt", "scib_metrics"):
        pytest.importorskip(package, reason="what scvi.autotune needs is installed by scvi-tools[autotune]")
    done = run_script(TUNED, tmp_path)
    assert "TRIED [8, 16] True 0" in done.stdout, done.stderr
