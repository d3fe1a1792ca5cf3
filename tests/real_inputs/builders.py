"""Small inputs of kinds that people have. A further kind is a function of five lines, and a test that uses it."""

import gzip
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp

from scrcl.cli.config import InputConfig
from scrcl.cli.inputs import Input
from scrcl.cli.inputs import read as read_input

from ..helpers import simulate

#: A filter of HDF5 that no plugin has.
NO_FILTER = 499


def read(path: Path, **options: Any) -> Input:
    """What the command line reads from a file with these options."""
    return read_input(InputConfig(input=path, **options))


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


def counts(n_cells: int = 40, n_genes: int = 30, seed: int = 0) -> ad.AnnData:
    """Counts of two types, none of whose cells is empty."""
    rng = np.random.default_rng(seed)
    mean = np.where(np.arange(n_cells)[:, None] % 2 == np.arange(n_genes) % 2, 3.0, 0.6)
    matrix = rng.poisson(mean).astype(np.float32)
    matrix[:, 0] += 1
    obs = pd.DataFrame({"kind": ["a", "b"] * (n_cells // 2)}, index=[f"c{number}" for number in range(n_cells)])
    return ad.AnnData(sp.csr_matrix(matrix), obs, pd.DataFrame(index=[f"G{number}" for number in range(n_genes)]))


def write_0_6(adata: ad.AnnData, path: Path, in_raw: bool = False) -> Path:
    """An .h5ad file as anndata 0.6 wrote it: ``obs`` and ``var`` are arrays of records."""
    with h5py.File(path, "w") as file:
        for name in ("X", *(["raw.X"] if in_raw else [])):
            matrix = adata.X if name == "raw.X" or not in_raw else adata.X.log1p()
            for part in ("data", "indices", "indptr"):
                file[f"{name}/{part}"] = getattr(matrix, part)
            file[name].attrs.update({"h5sparse_format": "csr", "h5sparse_shape": np.array(adata.shape)})
        for axis, names in (("obs", adata.obs_names), ("var", adata.var_names)):
            file[axis] = np.array([(name.encode(),) for name in names], dtype=[("index", "S8")])
        if in_raw:
            file["raw.var"] = file["var"][()]
    return path


def write_with_missing_filter(adata: ad.AnnData, path: Path) -> Path:
    """An .h5ad file whose counts are compressed by a plugin that is not there."""
    adata.X = adata.X.toarray()
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(adata.shape)
        properties.set_filter(NO_FILTER, h5py.h5z.FLAG_OPTIONAL, (0,))
        space = h5py.h5s.create_simple(adata.shape)
        dataset = h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F32LE, space, properties)
        dataset.write_direct_chunk((0, 0), adata.X.tobytes())
    return path


def write_loom(adata: ad.AnnData, path: Path) -> Path:
    """A loom file, with genes in rows."""
    with h5py.File(path, "w") as file:
        file["matrix"] = adata.X.toarray().T
        file["layers/spliced"] = adata.X.toarray().T * 2
        file["row_attrs/Gene"] = np.array(adata.var_names, dtype="S")
        file["col_attrs/CellID"] = np.array(adata.obs_names, dtype="S")
        file["col_attrs/n"] = np.arange(adata.n_obs)
    return path


def write_text(path: Path, text: str, packed: bool) -> Path:
    """Text, compressed or not; the name says so, too."""
    path = path.with_name(f"{path.name}.gz") if packed else path
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


def write_10x(
    adata: ad.AnnData,
    folder: Path,
    columns: int = 3,
    packed: Iterable[str] = ("matrix", "features", "barcodes"),
    features: str = "features",
    barcodes: Iterable[str] | None = None,
    cells_in_rows: bool = False,
    to_rows: Callable[[str], tuple[str, ...]] = lambda name: (f"ENSG{name[1:]:0>11}", name, "Gene Expression"),
) -> Path:
    """A folder of 10x with so many columns of features; each file compressed or not."""
    folder.mkdir()
    matrix = adata.X if cells_in_rows else adata.X.T
    scipy.io.mmwrite(folder / "matrix.mtx", matrix.astype(int))
    if "matrix" in packed:
        write_text(folder / "matrix.mtx", (folder / "matrix.mtx").read_text(), True)
        (folder / "matrix.mtx").unlink()
    rows = [to_rows(name) for name in adata.var_names]
    lines = [row[1:2] if columns == 1 else row[:columns] for row in rows]
    write_text(folder / f"{features}.tsv", "".join("\t".join(line) + "\n" for line in lines), "features" in packed)
    names = adata.obs_names if barcodes is None else barcodes
    write_text(folder / "barcodes.tsv", "".join(f"{name}\n" for name in names), "barcodes" in packed)
    return folder


def check_same(data: Any, adata: ad.AnnData) -> None:
    """The same cells, genes and counts."""
    assert list(data.obs_names) == list(adata.obs_names)
    assert list(data.var_names) == list(adata.var_names)
    matrix = data.X[:]
    np.testing.assert_array_equal(matrix.toarray() if sp.issparse(matrix) else matrix, adata.X.toarray())
