"""What is written to data can be saved, and read by scanpy, muon, Harmony and the model hub."""

import json
import warnings
from importlib.metadata import version

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


def test_model_hub(tmp_path):
    """As the page on saving shows it, without the upload."""
    hub = pytest.importorskip("huggingface_hub")
    from scvi.hub import HubMetadata, HubModel

    model = build(simulate())
    folder = tmp_path / "model"
    model.save(folder, save_anndata=True)
    metadata = HubMetadata.from_dir(folder, anndata_version=version("anndata"), model_parent_module="scrcl")
    card = hub.ModelCard("---\nlicense: cc-by-4.0\nlibrary_name: scrcl\n---\n# Cell types\n")
    HubModel(str(folder), metadata=metadata, model_card=card).save()
    assert json.loads((folder / "_scvi_required_metadata.json").read_text())["model_cls_name"] == "SCRCL"
    pulled = HubModel(str(folder))
    pulled.load_model(accelerator="cpu")
    assert isinstance(pulled.model, scrcl.SCRCL)
    np.testing.assert_array_equal(pulled.model.get_latent_representation(), model.get_latent_representation())
