"""Data and models that many tests use."""

import os
from functools import cache
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scvi

import scrcl
from scrcl.graph.slices import Slices, read_slices

#: Whether the test that runs now may take long.
running: dict[str, bool] = {"slow": True}


def simulate(n_cells: int = 150, n_genes: int = 120, n_types: int = 3, seed: int = 0) -> ad.AnnData:
    """Counts of cell types that each express their own block of genes more."""
    rng = np.random.default_rng(seed)
    types = rng.integers(n_types, size=n_cells)
    rates = rng.gamma(1.0, 0.8, size=n_genes)
    boost = np.ones((n_types, n_genes))
    for kind, genes in enumerate(np.array_split(np.arange(n_genes), n_types)):
        boost[kind, genes[: len(genes) // 2]] = 8
    counts = rng.poisson(rates * boost[types] * rng.lognormal(0, 0.3, size=(n_cells, 1)))
    counts[:, 0] = np.maximum(counts[:, 0], 1)  # no empty cell
    return ad.AnnData(
        sp.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame({"cell_type": pd.Categorical(types.astype(str))}, index=[f"cell{i}" for i in range(n_cells)]),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]),
    )


def build(adata: ad.AnnData, seed: int = 0, epochs: int = 5, setup: dict | None = None, **kwargs) -> scrcl.SCRCL:
    """A small model, trained for a few epochs."""
    scvi.settings.seed = seed
    scrcl.SCRCL.setup_anndata(adata, **(setup or {}))
    model = scrcl.SCRCL(adata, **{"n_hidden": 16, "n_refined": 8, "n_components": 10, **kwargs})
    model.train(epochs, accelerator="cpu", enable_progress_bar=False)
    return model


def real_data(name: str) -> Path:
    """Path of a labelled real data set, or skip. For tests that are marked slow."""
    assert running["slow"], "a test that reads real data is marked @pytest.mark.slow"
    folder = os.environ.get("SCRCL_DATA") or Path(__file__).parents[2] / "shared" / "data"
    path = Path(folder) / name
    if not path.is_file():
        pytest.skip(f"{name} is neither in $SCRCL_DATA nor in ../shared/data")
    return path


@cache
def default_model(name: str) -> scrcl.SCRCL:
    """A model of a real data set with default settings. No test may change it."""
    adata = ad.read_h5ad(real_data(f"{name}.h5ad"))
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata)
    model.train(enable_progress_bar=False)
    return model


def slices_of(points, samples=None) -> Slices:
    return read_slices(points, samples, "adata.obsm['spatial']", "adata.obs['sample']")


def marked(kind: int) -> set[str]:
    """The genes that a simulated type expresses more."""
    return {f"gene{i}" for i in range(40 * kind, 40 * kind + 20)}


def calibration_error(probabilities: np.ndarray, codes: np.ndarray, n_bins: int = 15) -> float:
    """The expected calibration error of the most probable types (Naeini et al., AAAI 2015), in bins of equal width."""
    confidence, is_right = probabilities.max(1), probabilities.argmax(1) == codes
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, confidence - is_right, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(codes))
