"""No label reaches training, latents or clusters unless the user names it, and no label of a held-out cell ever."""

import re
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import scrcl

from .conftest import build, real_data, simulate


def run(adata: ad.AnnData):
    model = build(adata, epochs=10)
    return {
        "weights": np.concatenate([p.detach().numpy().ravel() for p in model.module.parameters()]),
        "history": model.history["train_loss"].to_numpy(dtype=float),
        "latent": model.get_latent_representation(),
        "refined": model.get_latent_representation(representation="refined"),
        "features": adata.obsm["X_scrcl_features"],
        "found": model.get_clusters().to_numpy(dtype=str),
        "leiden": model.get_clusters(method="leiden").to_numpy(dtype=str),
        "kmeans": model.get_clusters(method="kmeans").to_numpy(dtype=str),
        "given": model.get_clusters(n_clusters=4).to_numpy(dtype=str),
    }


@pytest.fixture(params=["simulated", "real"])
def data(request) -> ad.AnnData:
    if request.param == "simulated":
        return simulate()
    return ad.read_h5ad(real_data("zheng_pbmc500.h5ad"))


@pytest.mark.parametrize("change", ["shuffled", "absent", "one class", "numeric"])
def test_labels_have_no_effect(data, change):
    expected = run(data.copy())
    other = data.copy()
    labels = other.obs["cell_type"]
    if change == "shuffled":
        other.obs["cell_type"] = np.random.default_rng(0).permutation(labels)
    elif change == "absent":
        del other.obs["cell_type"]
    elif change == "one class":
        other.obs["cell_type"] = "same"
    else:
        other.obs["cell_type"] = np.arange(len(labels))
    assert "cell_type" in data.obs
    for name, value in run(other).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_no_source_file_names_a_label():
    """No column of `obs` is read but those that the user names, apart from the demo's comparison and the plots."""
    folder = Path(scrcl.__file__).parent
    # Examples are what users do.
    text = {
        file.relative_to(folder).as_posix(): re.sub(r"^ *(>>>|\.\.\.) .*$", "", file.read_text(), flags=re.MULTILINE)
        for file in folder.rglob("*.py")
    }
    readers = {name: content.count(".obs[") for name, content in text.items() if ".obs[" in content}
    # The demo's comparison, data that are simulated, and what is drawn.
    for name in [name for name in readers if name.startswith(("cli", "datasets", "pl/"))]:
        del readers[name]
    assert readers == {
        "model/genes.py": 1,
        "model/markers.py": 1,
        "model/fields.py": 1,
        "model/setup.py": 5,
        "data/sources.py": 5,
        "data/spatialdata.py": 1,
    }
    assert "adata.obs[key]" in text["model/genes.py"]  # groups that the user names
    assert ".obs[keys.MARKER_GROUPS_KEY] = self.get_clusters(" in text["model/markers.py"]
    # Messages name columns; none of these is read.
    assert text["model/setup.py"].count("{where}.obs[") == 5
    assert text["data/sources.py"].count("{where}.obs[") == 2
    # The batches and the labels that the user names, and which slice a cell in space is in.
    assert text["data/sources.py"].count("values = data.obs[key]") == 2
    assert "adata.obs[self.attr_key] = codes" in text["model/fields.py"]  # written for scvi-tools
    assert "data.obs[sample_key]" in text["data/sources.py"]
    # Which element of a SpatialData a row of its table belongs to.
    assert ".obs[attributes[name]]" in text["data/spatialdata.py"]


def test_labels_of_other_cells_have_no_effect(tmp_path):
    """With `labels_key`, what the unlabelled cells are makes no difference: the column is read, and no other."""
    adata = simulate()
    adata.obs["annotation"] = np.where(np.arange(adata.n_obs) < 30, adata.obs["cell_type"].astype(str), "Unknown")
    setup = {"labels_key": "annotation", "unlabeled_category": "Unknown"}
    other = adata.copy()
    other.obs["cell_type"] = np.random.default_rng(0).permutation(other.obs["cell_type"])
    expected, found = (build(data, epochs=10, setup=setup).predict(soft=True) for data in (adata, other))
    np.testing.assert_array_equal(found, expected)
