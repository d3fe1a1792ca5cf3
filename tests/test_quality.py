"""Cell types are found in real data with default settings. The tolerance is what seeds differ by, not more."""

from functools import cache

import anndata as ad
import numpy as np
import pytest
import scvi
from sklearn.metrics import adjusted_rand_score

import scrcl

from .conftest import real_data


@cache
def trained(name: str) -> tuple[scrcl.SCRCL, np.ndarray, np.ndarray]:
    """A default model of a real data set, its cell types, and which cells are scored."""
    adata = ad.read_h5ad(real_data(f"{name}.h5ad"))
    truth = adata.obs["cell_type"]
    scored = truth.isin(truth.value_counts().loc[lambda sizes: sizes >= 10].index).to_numpy()
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata)
    model.train(enable_progress_bar=False)
    return model, np.asarray(truth, dtype=str), scored


@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("zheng_pbmc500", {}, 0.95),
        ("baron_mouse", {}, 0.85),
        ("baron_mouse", {"n_clusters": 10}, 0.85),
        ("baron_mouse", {"n_clusters": 10, "method": "kmeans"}, 0.85),
    ],
)
def test_agreement_with_cell_types(name, options, least):
    model, truth, scored = trained(name)
    found = model.get_clusters(**options).to_numpy(dtype=str)
    assert adjusted_rand_score(truth[scored], found[scored]) >= least
