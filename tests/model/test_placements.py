"""Cells of one data object are placed once, and again when anything that is read of them has changed."""

import copy
import gc
import pickle

import numpy as np
import pytest

import scrcl
from scrcl.graph.placement import Placement
from scrcl.model.placements import MOST_KEPT, Placements
from scrcl.reference.reference import Reference

from ..helpers import build, simulate
from .test_space import layers


class Data:
    pass


def placement() -> Placement:
    return Placement(np.array([0]), np.zeros((0, 2)), None, np.ones((0, 1)))


def test_placements_go_with_their_data_and_with_age():
    placements, data = Placements(), [Data() for _ in range(MOST_KEPT + 1)]
    for each in data:
        placements.keep(each, "1", placement())
    assert placements.get(data[0], "1") is None
    found = placements.get(data[1], "1")
    assert found is not None
    assert placements.get(data[1], "2") is None  # changed, and forgotten
    assert placements.get(data[1], "1") is None
    del each, data[2:]
    gc.collect()
    assert not placements._kept
    for again in (copy.deepcopy(placements), pickle.loads(pickle.dumps(placements))):
        assert not again._kept


@pytest.fixture
def placed(monkeypatch) -> list[int]:
    """Numbers of cells that were read and placed."""
    found: list[int] = []
    place = Reference.place

    def counted(self, cells, rows=None):
        found.append(len(cells.names) if rows is None else len(rows))
        return place(self, cells, rows)

    monkeypatch.setattr(Reference, "place", counted)
    return found


def test_a_loaded_model_reads_its_cells_once(tmp_path, placed):
    model = build(simulate())
    model.save(tmp_path / "m")
    loaded = scrcl.SCRCL.load(tmp_path / "m", adata=simulate())
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
    loaded.get_clusters(n_clusters=3)
    loaded.get_mapping_quality(indices=[3, 1])
    loaded.get_latent_representation(batch_size=7, representation="refined")
    assert placed == [150]


def test_new_cells_are_read_once_and_few_of_them_alone(trained, placed):
    new = simulate(60, seed=9)
    few = trained.get_latent_representation(new, indices=[50, 2])
    every = trained.get_latent_representation(new, batch_size=7)
    assert placed == [2, 60]
    np.testing.assert_allclose(few, every[[50, 2]], atol=1e-5)
    np.testing.assert_array_equal(trained.get_latent_representation(new, indices=[50, 2]), every[[50, 2]])
    trained.get_clusters(new, n_clusters=3)
    trained.get_cell_report(new, n_clusters=3)
    assert placed == [2, 60]


@pytest.mark.parametrize("change", ["in place", "swapped", "renamed genes", "other layer"])
def test_changed_data_are_placed_again(trained, change):
    data, other = simulate(60, seed=9), simulate(60, seed=10)
    before = trained.get_latent_representation(data)
    expected = trained.get_latent_representation(other)
    assert np.abs(before - expected).max() > 0.1
    if change == "in place":
        data.X = data.X.toarray()
        trained.get_latent_representation(data)
        data.X[:] = other.X.toarray()
    elif change in ("swapped", "other layer"):
        data.X = other.X
    else:
        data.var_names = data.var_names[::-1]
        data.X = other.X[:, ::-1].copy()
    np.testing.assert_allclose(trained.get_latent_representation(data), expected, atol=1e-5)


def test_training_cells_that_change_become_new(trained):
    data = simulate()
    assert trained.get_mapping_quality(data)["known"].all()
    data.X[3] = data.X[100]
    known = trained.get_mapping_quality(data)["known"]
    assert known.all()  # cell 3 is now cell 100 under another name
    data.X = data.X.copy() * 2
    assert trained.get_mapping_quality(data)["known"].sum() < 150


def test_in_space_slices_are_read_once(placed):
    adata = layers()
    scrcl.SCRCL.setup_anndata(adata, spatial_key="spatial")
    model = scrcl.SCRCL(adata, n_hidden=8, n_components=5)
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    new = layers(seed=5)
    every = model.get_latent_representation(new)
    pieces = model.get_latent_representation(new, batch_size=9)
    some = model.get_latent_representation(new, indices=[4, 200, 11])
    assert placed == [new.n_obs]
    np.testing.assert_array_equal(pieces, every)
    np.testing.assert_array_equal(some, every[[4, 200, 11]])
    new.obsm["spatial"] = new.obsm["spatial"][::-1].copy()
    assert np.abs(model.get_latent_representation(new) - every).max() > 1e-3


def test_the_result_does_not_depend_on_batch_size_when_cells_are_encoded(trained):
    first, second = simulate(60, seed=9), simulate(60, seed=9)
    np.testing.assert_allclose(
        trained.get_latent_representation(first, batch_size=7), trained.get_latent_representation(second), atol=1e-5
    )


def test_equal_training_cells_are_found_by_name():
    adata = simulate()
    adata.X = adata.X[np.r_[0:75, 0:75]].copy()
    model = build(adata)
    latent = model.get_latent_representation()
    np.testing.assert_array_equal(model.get_latent_representation(adata.copy()), latent)
    order = np.random.default_rng(0).permutation(150)
    np.testing.assert_array_equal(model.get_latent_representation(adata[order].copy()), latent[order])
    adata.obs_names = [f"x{i}" for i in range(150)]
    assert model.get_mapping_quality(adata.copy())["known"].all()
