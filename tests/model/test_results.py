import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from scvi.train import SaveCheckpoint

import scrcl
from scrcl.graph.placement import Placement, Query
from scrcl.model import results
from scrcl.nn.inference import View
from scrcl.reference.modality_kinds import Rna
from scrcl.utils.errors import ScrclValueError

from ..helpers import build, simulate
from ..saved.make_golden import in_space, train


def test_results_are_of_the_best_weights_that_a_checkpoint_loads(adata, tmp_path):
    """Results asked for while training, as a checkpoint does that saves the model, are of the weights at that time."""
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata, n_hidden=8, n_components=5)
    checkpoint = SaveCheckpoint(
        dirpath=str(tmp_path), monitor="neighborhood_loss_train", mode="max", load_best_on_end=True
    )

    class Look(Callback):
        def on_train_epoch_end(self, *args):
            model.is_trained_ = True
            model.get_latent_representation()

    model.train(
        6,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_checkpointing=True,
        callbacks=[checkpoint, Look()],
    )
    found = model.get_latent_representation()
    fresh = scrcl.SCRCL.load(checkpoint.best_model_path, adata=adata, accelerator="cpu")
    np.testing.assert_allclose(found, fresh.get_latent_representation(), atol=1e-6)


@pytest.mark.parametrize(("n_cells", "n_clusters"), [(100, 20), (150, 30), (60, 15), (40, 20)])
def test_the_number_of_clusters_is_honoured_on_few_cells(n_cells, n_clusters):
    model = build(simulate(n_cells), epochs=1)
    assert model.get_clusters(n_clusters=n_clusters).nunique() == n_clusters


def test_clusters_are_read_in_both_representations_and_of_the_refined_one_in_that_alone(adata):
    results = build(adata, epochs=1)._results
    cells = np.arange(0, adata.n_obs, 3)
    spaces = results.spaces(("aligned", None), cells)
    views: list[View] = [("aligned", None), ("refined", None)]
    refined = spaces[2].copy()
    assert views[1] not in results._cache.encoded.views  # of a part of the cells, the others are not needed
    smoothed = results.reference.smoothed(None, cells)
    np.testing.assert_array_equal(spaces[1], smoothed)
    for view, found in zip(views, (spaces[0], refined), strict=True):
        np.testing.assert_allclose(found, results.latent(view)[cells], atol=1e-6)
        alone = results.spaces(view, cells)
        np.testing.assert_allclose(alone[0], found, atol=1e-6)
        np.testing.assert_array_equal(alone[1], smoothed)
    assert len(results.spaces(views[1], cells)) == 2


def test_in_space_the_refined_representation_is_left_out():
    results = train(in_space(), {"spatial_key": "spatial", "sample_key": "slice"})._results
    cells = np.arange(10)
    latent, smoothed = results.spaces(("aligned", None), cells)
    np.testing.assert_array_equal(latent, results.latent(("aligned", None))[cells])
    np.testing.assert_array_equal(smoothed, results.reference.features[cells])


def test_in_space_views_of_the_surroundings_are_pooled():
    results = train(in_space(), {"spatial_key": "spatial", "sample_key": "slice"})._results
    reference = results.reference
    assert reference.spatial is not None
    pooled = results._pooled(("aligned", None), 0)
    assert len(pooled) == 1 + 2 * 4  # the latent space, and four views of logarithms and of standardised genes
    (rna,) = reference.modalities.values()
    assert isinstance(rna, Rna)
    parts = rna.counts.parts
    spaces = reference.domain_spaces(None, np.arange(reference.n_cells))
    np.testing.assert_array_equal(spaces[0], reference.spatial.features[:, parts["log"]])
    np.testing.assert_array_equal(spaces[4], reference.spatial.features[:, parts["standardized_log"]])
    full = np.zeros_like(reference.spatial.features)
    full[:, reference.spatial.kept] = reference.features
    np.testing.assert_array_equal(spaces[1], full[:, parts["log"]])
    assert results._pooled(("aligned", None), 0) is pooled
    np.testing.assert_array_equal(reference.domain_spaces(None, np.array([4, 9]))[2], spaces[2][[4, 9]])


def query_of(known: list[int], n_new: int, rows: list[int] | None = None) -> Query:
    placement = Placement(np.array(known), np.zeros((n_new, 3)), None, np.ones((n_new, 1)))
    return Query(placement) if rows is None else Query(placement, np.array(rows))


def test_values_of_known_and_of_new_cells_in_the_order_asked_for():
    query = query_of([2, -1, 0, -1], 2)
    np.testing.assert_array_equal(query.combine(np.array([10, 11, 12]), lambda: np.array([7, 8])), [12, 7, 10, 8])

    def never() -> np.ndarray:
        raise AssertionError("there are no new cells")

    np.testing.assert_array_equal(query_of([1, 1], 0).combine(np.array([10, 11, 12]), never), [11, 11])


def test_some_cells_of_a_placement_in_any_order_and_twice():
    query = query_of([2, -1, 0, -1], 2, [3, 0, 1, 3])
    np.testing.assert_array_equal(query.reference_index, [-1, 2, -1, -1])
    np.testing.assert_array_equal(query.new, [1, 0, 1])
    of_new = np.array([7, 8])
    np.testing.assert_array_equal(query.combine(np.array([10, 11, 12]), lambda: of_new[query.new]), [8, 12, 7, 8])


def test_loading_and_training_make_new_results(adata):
    """Changes by hand are reported; a fused optimiser does not count its changes itself."""
    model = build(adata, epochs=1)
    first = model._results
    assert model._results is first
    model.to_device("cpu")
    assert model._results is first
    weights = {name: value.clone() + 1 for name, value in model.module.state_dict().items()}
    model.module.load_state_dict(weights)
    second = model._results
    assert second is not first
    plan = torch.nn.ModuleDict({"module": model.module})
    plan.load_state_dict({f"module.{name}": value for name, value in weights.items()})  # as Lightning does
    third = model._results
    assert third is not second
    with torch.no_grad():
        next(iter(model.module.parameters())).mul_(2)
    model.module.weights_changed()
    fourth = model._results
    assert fourth is not third
    model.train(1, accelerator="cpu", enable_progress_bar=False, plan_kwargs={"optimizer": "AdamW"})
    assert model._results is not fourth


def test_a_copy_keeps_its_own_results(adata):
    model = build(adata, epochs=1)
    model.get_latent_representation()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin._results.are_of(twin.module)
        assert not twin._results.are_of(model.module)
        kept = model._results
        twin.module.weights_changed()
        assert model._results is kept


def test_results_between_two_steps_are_of_the_weights_at_that_time(adata):
    """Callbacks may ask for results after each batch."""
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata, n_hidden=8, n_components=5)
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, *args):
            model.is_trained_ = True
            seen.append(model.get_latent_representation())
            model.module.train()

    model.train(2, accelerator="cpu", enable_progress_bar=False, callbacks=[Look()], batch_size=50)
    assert len(seen) == 6
    assert all(not np.array_equal(one, other) for one, other in pairwise(seen))


def test_weights_that_a_callback_changes_at_the_end_are_seen(adata):
    """As stochastic weight averaging does, in place."""
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata, n_hidden=8, n_components=5)

    class Average(Callback):
        def on_train_end(self, trainer, pl_module):
            model.is_trained_ = True
            self.before = model.get_latent_representation()
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.mul_(-1)

    average = Average()
    model.train(1, accelerator="cpu", enable_progress_bar=False, callbacks=[average])
    assert not np.allclose(model.get_latent_representation(), average.before)


def test_more_clusters_than_are_clustered_are_refused_before_any_work(trained, monkeypatch):
    monkeypatch.setattr(results, "CLUSTERED_CELLS", 40)
    monkeypatch.setattr(results.Results, "_ensemble", None)
    with pytest.raises(ScrclValueError, match="n_clusters=41 is more than the 40 cells"):
        trained.get_clusters(n_clusters=41)
