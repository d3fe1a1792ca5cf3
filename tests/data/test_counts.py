"""Counts that are not in memory give what they give in memory, and are never read whole."""

import anndata as ad
import dask.array as da
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from anndata.io import sparse_dataset

from scrcl.data import counts
from scrcl.data.counts import Counts
from scrcl.reference import features
from scrcl.reference.features import Moments

from ..helpers import build, simulate

BLOCK = 32


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(counts, "BLOCK_CELLS", BLOCK)


class Disk:
    """A matrix that gives rows, by slices or numbers, and remembers how many it gave at once."""

    def __init__(self, matrix):
        self._matrix, self.most = matrix, 0
        self.shape, self.dtype = matrix.shape, matrix.dtype

    def __getitem__(self, rows):
        assert isinstance(rows, slice | np.ndarray)
        found = self._matrix[rows]
        self.most = max(self.most, found.shape[0])
        return found


def h5ad(adata, folder):
    adata.write_h5ad(folder / "a.h5ad")
    return ad.read_h5ad(folder / "a.h5ad", backed="r")


def dense_h5ad(adata, folder):
    adata.X = adata.X.toarray()
    return h5ad(adata, folder)


def lazy_zarr(adata, folder):
    adata.write_zarr(folder / "a.zarr")
    lazy = ad.experimental.read_lazy(folder / "a.zarr")
    return ad.AnnData(lazy.X, obs=adata.obs, var=adata.var)


def zarr_dataset(adata, folder):
    adata.write_zarr(folder / "a.zarr")
    return ad.AnnData(sparse_dataset(zarr.open_group(folder / "a.zarr", mode="r")["X"]), obs=adata.obs, var=adata.var)


def dask_array(adata, folder):
    return ad.AnnData(da.from_array(adata.X.toarray(), chunks=(40, 50)), obs=adata.obs, var=adata.var)


FORMS = [h5ad, dense_h5ad, lazy_zarr, zarr_dataset, dask_array]


@pytest.mark.parametrize("form", FORMS)
def test_same_result_as_in_memory(trained, form, tmp_path):
    lazy = form(simulate(), tmp_path)
    model = build(lazy)
    np.testing.assert_array_equal(model.get_latent_representation(), trained.get_latent_representation())
    clusters = model.get_clusters(n_clusters=3)
    np.testing.assert_array_equal(clusters, trained.get_clusters(n_clusters=3))


@pytest.mark.parametrize("form", FORMS)
def test_new_cells_same_as_in_memory(trained, form, tmp_path):
    new = simulate(70, seed=5)
    chosen = [50, 3, 3, 66, 0]
    expected = trained.get_latent_representation(new, indices=chosen)
    np.testing.assert_allclose(
        trained.get_latent_representation(form(simulate(70, seed=5), tmp_path), indices=chosen), expected, atol=1e-5
    )


def test_layer_that_is_lazy(trained, tmp_path):
    adata = simulate()
    expected = trained.get_latent_representation()
    adata.layers["counts"] = da.from_array(adata.X.toarray(), chunks=(64, 120))
    adata.X = None
    np.testing.assert_array_equal(build(adata, setup={"layer": "counts"}).get_latent_representation(), expected)


def test_counts_are_never_read_whole():
    counts = simulate().X
    disk = Disk(counts)
    wrapped = Counts.of(disk, "counts")
    wrapped.check()
    moments = Moments.by_batch(wrapped, np.zeros(wrapped.n_cells, dtype=int))
    columns = features.variable_genes(wrapped, moments, 50)
    assert sum(block.shape[0] for _, block in wrapped.select(columns).blocks()) == 150
    assert disk.most == BLOCK
    np.testing.assert_array_equal(moments[0].totals, counts.sum(axis=1).A1)
    np.testing.assert_allclose(moments[0].variance, counts.toarray().astype(np.float64).var(0, ddof=1), rtol=1e-9)


def test_only_blocks_with_cells_asked_for_are_read():
    disk = Disk(simulate().X)
    rows = np.array([1, 2, 40, 149])
    read = Counts.of(disk, "counts").read(rows)
    np.testing.assert_array_equal(read.toarray(), simulate().X[rows].toarray())
    seen = [rows[place].tolist() for place, _ in Counts.of(disk, "counts").blocks(rows)]
    assert seen == [[1, 2], [40], [149]]


def test_of_a_large_block_few_cells_are_read_alone(monkeypatch):
    monkeypatch.setattr("scrcl.data.counts.BLOCK_CELLS", 400)
    matrix = sp.csr_matrix(np.arange(1, 801, dtype=np.float32).reshape(400, 2))
    disk, rows = Disk(matrix), np.array([3, 200, 399])
    np.testing.assert_array_equal(Counts.of(disk, "counts").read(rows).toarray(), matrix[rows].toarray())
    assert disk.most == 3
    many = np.arange(0, 400, 4)
    np.testing.assert_array_equal(Counts.of(disk, "counts").read(many).toarray(), matrix[many].toarray())
    assert disk.most == 400


def test_counts_by_genes_in_a_file_are_refused(tmp_path):
    adata = simulate()
    adata.X = sp.csc_matrix(adata.X)
    with pytest.raises(ValueError, match=r"stored by genes.*to_memory\(\)"):
        build(h5ad(adata, tmp_path))


def test_values_that_are_no_counts_in_a_later_block(tmp_path):
    adata = simulate()
    adata.X[149, 0] = 0.5
    with pytest.raises(ValueError, match="not a whole number"):
        build(h5ad(adata, tmp_path))


def test_unreadable_block():
    class Broken(Disk):
        def __getitem__(self, rows):
            if rows.start >= 64:
                raise OSError("Can't read data (wrong checksum)")
            return super().__getitem__(rows)

    with pytest.raises(ValueError, match="cannot be read from cell 64 on: .*checksum.*Check that its file"):
        Counts.of(Broken(simulate().X), "adata.X").read()


@pytest.mark.parametrize("largest", [3, 300, 70_000])
def test_packed_counts_are_the_same(largest):
    rng = np.random.default_rng(0)
    matrix = sp.csr_array(rng.integers(0, largest, (150, 9)) * (rng.random((150, 9)) < 0.3), dtype=np.float32)
    packed = Counts.of(Disk(matrix), "counts").packed()
    for rows in (slice(None), slice(5, 7), slice(31, 140), np.array([2, 33, 64, 149])):
        np.testing.assert_array_equal(sp.csr_array(packed.matrix[rows]).toarray(), matrix[rows].toarray())
    columns, cells = np.array([1, 4, 8]), np.array([0, 40, 149])
    read = packed.select(columns).read(cells)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read.toarray(), matrix[cells][:, columns].toarray())
    some = Counts.of(matrix, "counts").packed(cells)
    np.testing.assert_array_equal(some.read().toarray(), matrix[cells].toarray())


def test_few_counts_of_a_file_are_read_once(monkeypatch):
    class Once(Disk):
        def __getitem__(self, rows):
            read.append(rows)
            return super().__getitem__(rows)

    read: list[slice] = []
    matrix = simulate().X
    monkeypatch.setattr(counts, "ESTIMATED_CELLS", 10)
    kept = Counts.of(Once(matrix), "counts").kept()
    before = len(read)
    np.testing.assert_array_equal(kept.read().toarray(), matrix.toarray())
    assert before == len(read)
    monkeypatch.setattr(counts, "KEPT_ENTRIES", matrix.nnz // 2)
    Counts.of(Once(matrix), "counts").kept().read()
    assert len(read) > before + 2
