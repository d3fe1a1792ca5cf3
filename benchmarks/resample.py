"""Simulate any number of cells from real labelled data sets, and write them to disk block by block.

    python benchmarks/resample.py million.h5ad --cells 1000000

Each cell is drawn from a Poisson distribution around the mean of two real cells of one type of one data set, so that
differences between and within types are realistic. The genes of different data sets are matched by the rank of their mean,
so that all express the same columns. `obs["cell_type"]` is the data set and the type.
"""

import argparse
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import sparse_dataset, write_elem

#: Sets that cells are drawn from: of different tissues, none with the cells of another.
SETS = (
    "baron_mouse",
    "cellbench_3cl_2batches",
    "cellbench_celseq2_5cl",
    "mouse_bladder_2100",
    "pbmc_10x_4k_top2000",
    "worm_neuron",
    "zheng_pbmc500",
)
N_GENES = 5_000
#: Classes with fewer cells give no cells.
SMALLEST_CLASS = 10
#: Cells written at once.
BLOCK = 20_000
#: How arrays are stored: of five million cells, the 30 GB that they would be otherwise are written twice, with the results.
STORED = {"compression": "lzf", "shuffle": True}


def sources(data: Path) -> tuple[sp.csr_array, np.ndarray]:
    """The cells of the sets of a folder over common columns, and the type of each."""
    counts, types = [], []
    for path in (data / f"{name}.h5ad" for name in SETS):
        adata = ad.read_h5ad(path)
        names = adata.obs["cell_type"].astype(str)
        kept = (names.map(names.value_counts()) >= SMALLEST_CLASS).to_numpy()
        matrix = sp.csr_array(adata.X, dtype=np.float32)[kept]
        by_mean = np.argsort(-matrix.mean(axis=0), kind="stable")[:N_GENES]
        matrix = matrix[:, by_mean]
        matrix.resize(matrix.shape[0], N_GENES)
        counts.append(matrix)
        types.append(path.stem + ": " + names[kept].to_numpy())
    return sp.csr_array(sp.vstack(counts)), np.concatenate(types)


def draw(counts: sp.csr_array, types: np.ndarray, n: int, seed: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """Counts and types of ``n`` cells, none without counts."""
    rng = np.random.default_rng(seed)
    order = np.argsort(types, kind="stable")
    _, code, sizes = np.unique(types, return_inverse=True, return_counts=True)
    starts = np.cumsum(sizes) - sizes
    first = rng.integers(len(types), size=n)
    second = order[starts[code[first]] + (rng.random(n) * sizes[code[first]]).astype(int)]
    mean = sp.csr_matrix(counts[first] + counts[second])
    mean.data = rng.poisson(mean.data / 2).astype(np.float32)
    mean.eliminate_zeros()
    mean.sort_indices()  # as files of counts usually are
    empty = np.flatnonzero(mean.getnnz(1) == 0)
    if len(empty):
        mean = mean.tolil()
        mean[empty, 0] = 1
        mean = mean.tocsr()
    return sp.csr_matrix(mean, dtype=np.float32), types[first]


def write(path: Path, data: Path, n: int, seed: int) -> None:
    counts, types = sources(data)
    labels = []
    with h5py.File(path, "w") as file:
        for number, start in enumerate(range(0, n, BLOCK)):
            block, block_types = draw(counts, types, min(BLOCK, n - start), seed * 1_000_003 + number)
            labels.append(block_types)
            if number:
                sparse_dataset(file["X"]).append(block)
            else:
                # The entries of millions of cells are more than 32-bit numbers count.
                block.indptr = block.indptr.astype(np.int64)
                write_elem(file, "X", block, dataset_kwargs=STORED)
        obs = pd.DataFrame({"cell_type": pd.Categorical(np.concatenate(labels))}, index=[f"cell{i}" for i in range(n)])
        write_elem(file, "obs", obs)
        write_elem(file, "var", pd.DataFrame(index=[f"rank{i}" for i in range(N_GENES)]))
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
            write_elem(file, name, {})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    write(arguments.output, arguments.data, arguments.cells, arguments.seed)
