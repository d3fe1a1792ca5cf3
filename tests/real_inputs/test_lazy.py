"""Data that ``anndata.experimental.read_lazy`` opened: every call has the result that it has of the same data in memory."""

import numpy as np
import pandas as pd
import pytest

import scrcl

from ..helpers import build
from .builders import lazy, typed

pytestmark = pytest.mark.slow

SETUPS = {
    "plain": {},
    "layer": {"layer": "umi"},
    "batches": {"batch_key": "plate"},
    "labels": {"labels_key": "kind", "unlabeled_category": "c"},
    "embedding": {"features_key": "X_own"},
    "table": {"features_key": "table"},
    "space": {"spatial_key": "spatial", "sample_key": "plate"},
}


@pytest.mark.parametrize("name", SETUPS)
def test_the_same_as_in_memory(name, tmp_path):
    adata = typed()
    models = [build(data, epochs=2, setup=SETUPS[name]) for data in (adata, lazy(adata, tmp_path))]
    first, second = (model.get_latent_representation() for model in models)
    np.testing.assert_allclose(first, second, atol=1e-6)
    one, other = (model.get_clusters(n_clusters=3) for model in models)
    pd.testing.assert_series_equal(one, other, check_names=False)
    if name == "labels":
        one, other = (model.predict() for model in models)
        pd.testing.assert_series_equal(one, other, check_names=False)
    # As further data, whose cells are those of the model.
    again = models[0].get_latent_representation(lazy(adata, tmp_path, "h5ad"))
    np.testing.assert_allclose(again, models[0].get_latent_representation(), atol=1e-5)


def test_genes_groups_and_plots(tmp_path):
    adata = typed()
    data = lazy(adata, tmp_path)
    model, other = build(data, epochs=2), build(adata, epochs=2)
    pd.testing.assert_frame_equal(
        model.get_marker_genes(groupby="kind", n_permutations=0),
        other.get_marker_genes(groupby="kind", n_permutations=0),
    )
    assert len(model.get_marker_genes(n_permutations=0))
    data.obs["scrcl"] = model.get_clusters(n_clusters=3)
    data.obsm["X_scrcl"] = model.get_latent_representation()
    pd.testing.assert_frame_equal(model.get_mapping_quality(), other.get_mapping_quality(), check_names=False)
    assert list(model.get_cell_gene_associations(groupby="kind").index) == ["a", "b", "c"]
    scrcl.pl.umap(data, color=["kind", "plate"])
    scrcl.pl.spatial(data, color="kind", sample_key="plate")
    scrcl.pl.cluster_sizes(data)
    assert "scrcl" in data.to_memory().obs
