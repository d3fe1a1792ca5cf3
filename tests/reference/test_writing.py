import numpy as np
import pytest

import scrcl

from ..helpers import build, simulate


def test_what_is_written_is_a_copy():
    model = build(simulate())
    before = model.get_latent_representation(simulate(20, seed=3))
    model.adata.obsm["X_scrcl_features"][:] = 0
    model.adata.obsp["scrcl_connectivities"].data[:] = 7
    model.adata.obsp["scrcl_connectivities"].indices[:] = 0
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    fresh = build(simulate())
    fresh.train(1, accelerator="cpu", enable_progress_bar=False)
    np.testing.assert_array_equal(fresh._reference.features, model._reference.features)
    np.testing.assert_array_equal(fresh._reference.adjacency.indices, model._reference.adjacency.indices)
    assert before.any()


def test_distances_of_an_earlier_model_do_not_stay(adata):
    build(adata, epochs=1)
    assert "scrcl_distances" in adata.obsp
    adata.obsp["mine"], adata.uns["mine"] = adata.obsp["scrcl_connectivities"], {"connectivities_key": "mine"}
    build(adata, epochs=1, setup={"neighbors_key": "mine"})
    assert "scrcl_distances" not in adata.obsp
    assert "distances_key" not in adata.uns["scrcl_neighbors"]


@pytest.mark.parametrize(
    ("options", "there", "absent"),
    [
        ({}, {"n_spatial_neighbors"}, {"radius"}),
        ({"spatial_graph": "delaunay"}, set(), {"radius", "n_spatial_neighbors"}),
        ({"spatial_graph": "radius", "radius": 200.0}, {"radius"}, {"n_spatial_neighbors"}),
    ],
)
def test_only_options_that_were_used_are_reported(options, there, absent):
    adata = scrcl.datasets.layered_tissue(100, 1, 30)
    scrcl.SCRCL.setup_anndata(adata, spatial_key="spatial")
    scrcl.SCRCL(adata, n_components=5, **options)
    assert there <= set(adata.uns["scrcl"])
    assert not absent & set(adata.uns["scrcl"])
