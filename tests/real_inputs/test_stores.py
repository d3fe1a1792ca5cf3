"""Files of HDF5 and zarr stores, of earlier versions and of other programs, whole and broken."""

import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import anndata as ad
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy
import scipy.sparse as sp

import scrcl
from scrcl.cli import causes, inputs, main
from scrcl.cli.errors import UserError, as_message
from scrcl.cli.outputs import check_writable, write
from scrcl.utils.errors import ScrclError

from .builders import check_same, counts, normalised, read, write_0_6, write_loom, write_with_missing_filter


def refuse(path, *clues, **options):
    """Refused when it is read, or by the setup, in the words of the command line."""

    def set_up():
        with read(path, **options) as found:
            several = isinstance(found.data, mudata.MuData)
            (scrcl.SCRCL.setup_mudata if several else scrcl.SCRCL.setup_anndata)(found.data, **found.setup)

    with pytest.raises(ScrclError) as error:
        set_up()
    said = as_message(error.value, path)
    assert not [clue for clue in clues if clue not in said], said
    return said


def written(path, tmp_path):
    """What is read, after it was written as the command line does."""
    with read(path) as found:
        check_writable(found, tmp_path / "out.h5ad")
        write(found, tmp_path / "out.h5ad", tmp_path / "out.h5ad")
    return ad.read_h5ad(tmp_path / "out.h5ad")


@pytest.fixture
def file(tmp_path):
    counts().write_h5ad(tmp_path / "a.h5ad")
    return tmp_path / "a.h5ad"


# ---------------------------------------------------------------- what is read


def test_anndata_0_6(tmp_path):
    adata = counts()
    check_same(written(write_0_6(adata, tmp_path / "a.h5ad"), tmp_path), adata)
    write_0_6(adata, tmp_path / "raw.h5ad", in_raw=True)
    refuse(tmp_path / "raw.h5ad", "X of", "not raw counts", "Counts are in raw: `--layer raw`")
    check_same(read(tmp_path / "raw.h5ad", layer="raw").data, adata)


def test_what_scanpy_ships(tmp_path):
    """Old, and no counts in it: that is for the setup to say."""
    path = Path(scanpy.__file__).parent / "datasets" / "10x_pbmc68k_reduced.h5ad"
    assert read(path).data.shape == (700, 765)


def test_loom(tmp_path):
    adata = counts()
    found = read(write_loom(adata, tmp_path / "a.loom"))
    check_same(found.data, adata)
    assert list(found.data.obs["n"]) == list(range(adata.n_obs))
    assert read(tmp_path / "a.loom", layer="spliced").setup == {"layer": "spliced"}
    with h5py.File(tmp_path / "a.loom", "r+") as file:
        del file["col_attrs/CellID"]
    refuse(tmp_path / "a.loom", "CellID is not in it")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("packed", [False, True])
def test_zarr(version, packed, tmp_path):
    adata = counts()
    with ad.settings.override(zarr_write_format=version):
        adata.write_zarr(tmp_path / "a.zarr")
    path = tmp_path / "a.zarr"
    if packed:
        path = Path(shutil.make_archive(str(path), "zip", path))
    check_same(read(path).data, adata)
    assert read(path).data.obs["kind"].tolist() == adata.obs["kind"].tolist()
    if packed:
        path.rename(tmp_path / "moved.zip")  # no handle holds it


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", ">i4", "f8"])
@pytest.mark.parametrize("form", ["dense", "csr", "csc"])
def test_types_of_counts(dtype, form, tmp_path):
    adata = counts()
    dense = (adata.X.toarray() > 0 if dtype == "bool" else adata.X.toarray()).astype(dtype)
    expected = adata.copy()
    expected.X = sp.csr_matrix(dense.astype(np.float32))
    adata.X = dense if form == "dense" or dtype == ">i4" else sp.csr_matrix(dense).asformat(form)
    adata.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    with read(tmp_path / "a.h5ad") as found:
        check_same(found.data, expected)


# ---------------------------------------------------------------- names and columns


def with_nullable(adata):
    adata.obs_names = adata.obs_names.astype("string")
    adata.obs["text"] = pd.array(["a", None] * 20, dtype="string")
    adata.obs["whole"] = pd.array(["a"] * 40, dtype="string")
    adata.obs["number"] = pd.array([1, None] * 20, dtype="Int64")
    adata.obs["truth"] = pd.array([True, None] * 20, dtype="boolean")
    adata.obs["type"] = pd.Categorical(["a", None] * 20, categories=pd.array(["a", "never"], dtype="string"))
    adata.var["symbol"] = pd.array(adata.var_names, dtype="string")
    return adata


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_nullable_columns(ending, tmp_path):
    adata = with_nullable(counts())
    with ad.settings.override(allow_write_nullable_strings=True):
        getattr(adata, f"write_{ending}")(tmp_path / f"a.{ending}")
    with ad.settings.override(allow_write_nullable_strings=False):
        out = written(tmp_path / f"a.{ending}", tmp_path)
    check_same(out, counts())
    for name in ("text", "type"):
        assert out.obs[name].isna().tolist() == [False, True] * 20
        assert set(out.obs[name].dropna()) == {"a"}
    assert out.obs["whole"].tolist() == ["a"] * 40
    assert out.obs["number"].dtype == "Int64"
    assert out.obs["truth"].dtype == "boolean"
    assert list(out.var["symbol"]) == list(out.var_names)


@pytest.mark.parametrize("axis", ["obs", "var"])
@pytest.mark.parametrize("name", ["features", "_index"])
def test_column_called_index(axis, name, tmp_path):
    """Of SeuratDisk: the names are in one entry, a column is called ``_index``."""
    adata = counts()
    getattr(adata, axis)[name if name != "_index" else "x"] = getattr(adata, axis).index
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        if name == "features":
            file[axis].attrs["_index"] = "features"
        file[axis].attrs["column-order"] = np.array(["_index"], dtype=h5py.string_dtype())
    out = written(tmp_path / "a.h5ad", tmp_path)
    check_same(out, adata)
    assert list(getattr(out, axis)["index"]) == list(getattr(adata, axis).index)


def test_bytes(tmp_path):
    """Text of fixed length, as h5py writes it."""
    adata = counts()
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        del file["obs/_index"], file["obs/kind"]
        file["obs/_index"] = np.array(adata.obs_names, dtype="S")
        file["obs/kind"] = np.array(adata.obs["kind"], dtype="S")
    out = written(tmp_path / "a.h5ad", tmp_path)
    check_same(out, adata)
    assert out.obs["kind"].tolist() == adata.obs["kind"].tolist()


def test_names_that_are_missing(tmp_path):
    adata = counts()
    adata.obs_names = pd.Index(pd.array(["c0", None, *adata.obs_names[2:]], dtype="string"))
    with ad.settings.override(allow_write_nullable_strings=True):
        adata.write_h5ad(tmp_path / "a.h5ad")
    refuse(tmp_path / "a.h5ad", "obs of", "1 name of cells")


# ---------------------------------------------------------------- counts that are elsewhere


@pytest.fixture(params=["h5ad", "zarr"])
def elsewhere(request, tmp_path):
    """Counts of all genes in ``raw``, logarithms of some as ``X``, counts in a layer, too."""
    adata = counts()
    some = normalised(adata)[:, :20].copy()
    some.raw = adata
    some.layers["scaled"] = -some.X
    some.obsm["X_pca"] = np.ones((40, 2))
    path = tmp_path / f"a.{request.param}"
    getattr(some, f"write_{request.param}")(path)
    some.layers["umi"] = adata[:, :20].X
    getattr(some, f"write_{request.param}")(tmp_path / f"b.{request.param}")
    return path


def test_counts_in_raw(elsewhere, tmp_path):
    refuse(elsewhere, "X of", "Counts are in raw: `--layer raw`.")
    refuse(elsewhere, "layers['scaled'] of", "`--layer raw`", layer="scaled")
    refuse(elsewhere.with_stem("b"), "X of", "`--layer umi`")
    found = read(elsewhere, layer="raw")
    check_same(found.data, counts())
    assert "raw of" in found.notes[0]
    assert "layer" not in found.setup
    write(found, tmp_path / "out.h5ad", tmp_path / "out.h5ad")
    out = ad.read_h5ad(tmp_path / "out.h5ad")
    check_same(out, counts())
    assert "X_pca" in out.obsm
    read(elsewhere.with_stem("b"), layer="umi")


def test_counts_in_x_but_not_in_the_layer(tmp_path):
    adata = counts()
    adata.layers["scaled"] = adata.X.log1p()
    adata.write_h5ad(tmp_path / "a.h5ad")
    refuse(tmp_path / "a.h5ad", "layers['scaled'] of", "Counts are in X: leave out `--layer`", layer="scaled")
    refuse(tmp_path / "a.h5ad", "--layer='raw' is not in the layers", layer="raw")


def test_a_layer_called_raw_comes_first(tmp_path):
    adata = counts()
    adata.raw = normalised(adata)
    adata.layers["raw"] = adata.X * 2
    adata.write_h5ad(tmp_path / "a.h5ad")
    found = read(tmp_path / "a.h5ad", layer="raw")
    assert found.setup == {"layer": "raw"}
    assert found.data.layers["raw"][:].sum() == adata.X.sum() * 2


def test_no_x(tmp_path):
    adata = counts()
    adata.raw = adata
    adata.X = None
    adata.write_h5ad(tmp_path / "a.h5ad")
    refuse(tmp_path / "a.h5ad", "X of", "is empty", "`--layer raw`")


def test_counts_of_a_modality_in_raw(tmp_path):
    rna = normalised(counts())
    rna.raw = counts()
    protein = counts(n_genes=6, seed=1)
    protein.var_names = [f"p{number}" for number in range(6)]
    mudata.MuData({"rna": rna[:, :20].copy(), "prot": protein}).write_h5mu(tmp_path / "a.h5mu")
    kinds = {"rna": "rna", "prot": "protein"}
    refuse(tmp_path / "a.h5mu", "X of the modality 'rna'", "`--layer rna=raw`", modalities=kinds)
    found = read(tmp_path / "a.h5mu", layer="rna=raw", modalities=kinds)
    check_same(found.data.mod["rna"], counts())
    assert found.setup == {"modalities": kinds}
    assert found.data.n_vars == 36


def test_option_raw(tmp_path):
    """The run reads it, says so, and leaves no handle."""
    adata = normalised(counts())
    adata.raw = counts()
    adata.write_h5ad(tmp_path / "a.h5ad")
    command = ["run", str(tmp_path / "a.h5ad"), "-o", str(tmp_path / "o.h5ad"), "--epochs", "1", "--n-clusters", "2"]
    assert main([*command, "--raw"]) == 0
    out = ad.read_h5ad(tmp_path / "o.h5ad")
    check_same(out, counts())
    assert out.uns["scrcl_run"]["parameters"]["layer"] == "raw"


# ---------------------------------------------------------------- handles


def test_files_are_closed(file, tmp_path):
    with read(file) as found:
        assert found.data.X[:2].shape == (2, 30)
        with pytest.raises(OSError, match="open"):
            h5py.File(file, "r+")
    h5py.File(file, "r+").close()
    with pytest.raises(ScrclError) as error:
        read(file, layer="no")
    assert error.value is not None  # what was raised does not keep the file open
    h5py.File(file, "r+").close()


# ---------------------------------------------------------------- what cannot be read


HOLD = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"


@pytest.mark.slow
def test_locked(file):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        try:
            with read(file):
                pass
        except ScrclError:
            said = refuse(file, "unable to lock file", "HDF5_USE_FILE_LOCKING=FALSE")
        else:
            pytest.skip("this file system has no locks")
        finally:
            holder.communicate()
    assert "damaged" not in said


def test_plugin(tmp_path):
    said = refuse(write_with_missing_filter(counts(), tmp_path / "a.h5ad"), "plugin", "`pip install hdf5plugin`")
    assert "damaged" not in said


def test_not_permitted(file, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "open", denied)
    refuse(file, "Permission denied", f"`chmod u+rX {file}`")


@pytest.mark.parametrize("name", ["a.h5ad", "a.h5mu", "a.h5", "a.loom", "a.zarr.zip"])
@pytest.mark.parametrize(
    ("content", "clue"),
    [
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\n<?xml version='1.0'?><Error>AccessDenied</Error>", "error message of a server"),
        (b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
        (b"", "it is empty"),
    ],
)
def test_files_that_are_something_else(name, content, clue, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert "damaged" not in refuse(tmp_path / name, clue)


def test_gzip(file):
    """The remedy works when it is typed."""
    for name in ("b.h5ad.gz", "b.h5ad"):
        (file.parent / name).write_bytes(gzip.compress(file.read_bytes()))
        said = refuse(file.parent / name, "compressed with gzip")
        subprocess.run(said.split("`")[1], shell=True, check=True)
    check_same(read(file.parent / "unpacked-b.h5ad").data, counts())


def test_cut_off_and_damaged(tmp_path):
    adata = counts()
    adata.X = sp.csr_matrix(np.random.default_rng(0).poisson(3, adata.shape).astype(np.float32))
    adata.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    whole = (tmp_path / "a.h5ad").read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(whole[: len(whole) // 2])
    refuse(tmp_path / "cut.h5ad", "truncated file", "download it again")
    with h5py.File(tmp_path / "a.h5ad") as file:
        at = file["X/data"].id.get_chunk_info(0).byte_offset
    (tmp_path / "bad.h5ad").write_bytes(whole[:at] + bytes(50) + whole[at + 50 :])
    refuse(tmp_path / "bad.h5ad", "filter returned failure", "download it again")


def test_of_a_later_version(file):
    with h5py.File(file, "r+") as opened:
        opened["obs"].attrs["encoding-version"] = "9.0"
    said = refuse(file, "encoding_version='9.0'", "pip install -U anndata")
    assert "damaged" not in said


def test_inconsistent(file):
    """What anndata says of it is quoted."""
    with h5py.File(file, "r+") as opened:
        del opened["obs/kind"]
    assert "damaged" not in refuse(file, "kind")


def test_mistakes_of_this_package_are_not_those_of_the_file(file, monkeypatch):
    def fails(*args):
        return no_such_name  # type: ignore[name-defined]  # noqa: F821

    for wrong, kind in ((fails, NameError), (lambda path, group, *rest: group.no_such_attribute, AttributeError)):
        monkeypatch.setattr(inputs, "_read_in_blocks", wrong)
        if kind is AttributeError:  # as if it were in the package
            monkeypatch.setattr(causes, "PACKAGE", Path(__file__).parent)
        with pytest.raises(kind, match="no_such"):
            read(file)
    with pytest.raises(UserError, match="cannot be read as a table"), causes.explained(file, "a table"):
        h5py.File(file)["nothing"]


def test_no_cells(tmp_path):
    counts()[:0].copy().write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(UserError, match="holds no cells. Check how it was filtered"):
        read(tmp_path / "in.h5ad")


def test_two_genomes_of_10x(tmp_path):
    adata, path = counts(), tmp_path / "in.h5"
    with h5py.File(path, "w") as file:
        for genome in ("GRCh38", "mm10"):
            group = file.create_group(genome)
            for name, values in (
                ("barcodes", adata.obs_names),
                ("genes", adata.var_names),
                ("gene_names", adata.var_names),
            ):
                group[name] = np.array(values, dtype="S")
            for name in ("data", "indices", "indptr"):
                group[name] = getattr(adata.X, name).astype(int)
            group["shape"] = adata.shape[::-1]
    with pytest.raises(UserError, match=r"more than one genome.*`scanpy.read_10x_h5\(path, genome=...\)`"):
        read(path)
