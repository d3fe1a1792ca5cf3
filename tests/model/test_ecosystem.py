"""What is written to data can be saved, and read by scanpy, muon, Harmony and the model hub."""

import json
import re
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import scrcl

from ..helpers import build, simulate
from ..saved.make_golden import several, train


def test_associations_are_written_with_the_data(tmp_path, adata):
    model = build(adata)
    adata.obsm["associations"] = model.get_cell_gene_associations(n_top=5)
    adata.write_h5ad(tmp_path / "with.h5ad")
    read = ad.read_h5ad(tmp_path / "with.h5ad").obsm["associations"]
    pd.testing.assert_frame_equal(read, adata.obsm["associations"], check_column_type=False)
    assert ((read > 0).sum(axis=1) <= 5).all()


@pytest.mark.slow
def test_muon_draws_the_joint_graph(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        muon = pytest.importorskip("muon")
    mdata = several()
    train(mdata, {"modalities": {"rna": "rna", "prot": "protein"}})
    muon.tl.umap(mdata, neighbors_key="scrcl_neighbors")
    assert mdata.obsm["X_umap"].shape == (150, 2)
    assert np.isfinite(mdata.obsm["X_umap"]).all()
    sc.tl.leiden(mdata, neighbors_key="scrcl_neighbors", flavor="igraph", n_iterations=2, key_added="communities")
    alone = ad.AnnData(obs=mdata.obs[[]].copy(), obsp=dict(mdata.obsp), uns=dict(mdata.uns))
    sc.tl.leiden(alone, neighbors_key="scrcl_neighbors", flavor="igraph", n_iterations=2)
    assert list(mdata.obs["communities"]) == list(alone.obs["leiden"])
    mdata.write(tmp_path / "with.h5mu")


def test_corrected_by_harmony(adata):
    """The call of docs/coming_from.md."""
    harmonypy = pytest.importorskip("harmonypy")
    adata.obs["batch"] = np.where(np.arange(adata.n_obs) % 2, "first", "second")
    sc.pp.pca(adata, n_comps=10)
    adata.obsm["X_harmony"] = harmonypy.run_harmony(adata.obsm["X_pca"], adata.obs, "batch").Z_corr
    model = build(adata, setup={"features_key": "X_harmony"})
    assert model.get_latent_representation().shape == (150, 32 + 10)


@pytest.mark.filterwarnings("ignore:No (revision was passed|collection found)")
def test_model_hub(tmp_path, monkeypatch):
    """The page on saving, block by block, with a folder in the place of the hub."""
    hub = pytest.importorskip("huggingface_hub")
    page = Path(__file__).parents[2] / "docs" / "saving.md"
    if not page.exists():
        pytest.skip("only in the repository, not in the source distribution")
    blocks = re.findall(r"```python\n(.*?)```", page.read_text().split("## Models on a hub")[1], re.DOTALL)
    uploaded = tmp_path / "hub"

    def upload_file(api, path_or_fileobj, path_in_repo, **kwargs):
        uploaded.mkdir(exist_ok=True)
        source = path_or_fileobj if isinstance(path_or_fileobj, bytes) else Path(path_or_fileobj).read_bytes()
        (uploaded / path_in_repo).write_bytes(source)

    def upload_folder(api, folder_path, **kwargs):
        for file in Path(folder_path).iterdir():
            upload_file(api, file, file.name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub.HfApi, "upload_file", upload_file)
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(hub, "create_repo", lambda *args, **kwargs: None)
    monkeypatch.setattr(hub.ModelCard, "push_to_hub", lambda card, *args, **kwargs: card.save(tmp_path / "card.md"))
    monkeypatch.setattr(hub.ModelCard, "load", lambda name, **kwargs: hub.ModelCard((tmp_path / "card.md").read_text()))
    for owner in ("scvi.hub._model", "huggingface_hub"):  # scvi-tools 1.4, and 1.5
        monkeypatch.setattr(f"{owner}.snapshot_download", lambda **kwargs: str(uploaded), raising=False)

    names = {"model": build(simulate()), "my_cells": simulate(40, seed=7), "scrcl": scrcl}
    latent = names["model"].get_latent_representation()
    exec(blocks[0], names)
    assert json.loads((uploaded / "_scvi_required_metadata.json").read_text())["model_cls_name"] == "SCRCL"
    pull, own_cells = blocks[1].split("hub_model.load_model")
    exec(pull, names)
    assert isinstance(names["model"], scrcl.SCRCL)
    np.testing.assert_array_equal(names["model"].get_latent_representation(), latent)
    exec("hub_model.load_model" + own_cells, names)
    assert len(names["hub_model"].model.get_latent_representation()) == 40
