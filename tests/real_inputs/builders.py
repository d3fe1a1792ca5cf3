"""Small inputs of kinds that people have. A further kind is a function of five lines, and a test that uses it."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from ..conftest import simulate


def typed(n_cells: int = 120, seed: int = 0) -> ad.AnnData:
    """Cells of three types with a batch, a slice, a position and an embedding each, and counts in a layer and in raw."""
    adata = simulate(n_cells, 60, seed=seed)
    adata.obs["kind"] = adata.obs["cell_type"].map({"0": "a", "1": "b", "2": "c"})
    adata.obs["plate"] = 1 + np.arange(n_cells) % 2
    adata.obsm["spatial"] = np.random.default_rng(seed).uniform(0, 100, (n_cells, 2))
    adata.obsm["X_own"] = np.random.default_rng(seed).normal(np.log1p(adata.X[:, :20].toarray()), 0.1)
    adata.obsm["table"] = pd.DataFrame(adata.obsm["X_own"][:, :5], index=adata.obs_names, columns=list("uvwxy"))
    adata.layers["umi"] = adata.X.copy()
    return adata


def lazy(adata: ad.AnnData, folder: Path, kind: str = "zarr") -> ad.AnnData:
    """The same, opened by ``read_lazy``: columns of ``obs`` are arrays of xarray, all others of dask."""
    pytest.importorskip("dask.array")
    pytest.importorskip("xarray")
    getattr(adata, f"write_{kind}")(folder / f"lazy.{kind}")
    return ad.experimental.read_lazy(folder / f"lazy.{kind}")


def normalised(adata: ad.AnnData) -> ad.AnnData:
    """The same with logarithms in X, and no layers."""
    adata = adata.copy()
    adata.layers.clear()
    adata.X = np.log1p(adata.X.toarray())
    return adata
