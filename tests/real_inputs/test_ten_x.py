"""Folders of 10x, and of other programs that write the same."""

import pytest

from scrcl.cli.errors import UserError

from .builders import check_same, counts, read, write_10x


@pytest.mark.parametrize("features", ["features", "genes"])
@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize(
    "packed", [(), ("matrix", "features", "barcodes"), ("matrix",), ("features", "barcodes")], ids=str
)
def test_columns_and_compression(features, columns, packed, tmp_path):
    adata = counts()
    found = read(write_10x(adata, tmp_path / "a", columns, packed, features)).data
    check_same(found, adata)
    assert ("gene_ids" in found.var) == (columns > 1)
    assert ("feature_types" in found.var) == (columns > 2)


ROWS = {
    "identifier and kind, no name": lambda name: (name, "Gene Expression"),
    "a kind that is none of 10x": lambda name: (f"E{name}", name, "protein_coding"),
    "multiome": lambda name: (f"E{name}", name, "Gene Expression", "chr1", "1", "9"),
}


@pytest.mark.parametrize("how", ROWS)
def test_other_columns(how, tmp_path):
    adata = counts()
    check_same(read(write_10x(adata, tmp_path / "a", 6, to_rows=ROWS[how])).data, adata)


def test_names_are_kept_as_they_are_written(tmp_path):
    adata = counts()
    adata.var_names = ["NA", "nan", "007", *adata.var_names[3:]]
    adata.obs_names = [str(number) for number in range(adata.n_obs)]
    check_same(read(write_10x(adata, tmp_path / "a", to_rows=lambda name: ("id", name, "Gene Expression"))).data, adata)


def test_cells_in_rows(tmp_path):
    adata = counts()
    found = read(write_10x(adata, tmp_path / "a", cells_in_rows=True))
    check_same(found.data, adata)
    assert "cells in rows" in found.notes[0]


@pytest.mark.parametrize("change", [-5, -1, 1, 100])
def test_barcodes_that_do_not_fit(change, tmp_path):
    folder = write_10x(counts(), tmp_path / "a", barcodes=[f"c{number}" for number in range(40 + change)])
    with pytest.raises(UserError, match=f"{40 + change} barcodes.* where its matrix has 30 and 40") as error:
        read(folder)
    assert "damaged" not in str(error.value)
    assert ("the first is 'c0'" in str(error.value)) == (change == 1)


def test_files_that_are_broken(tmp_path):
    folder = write_10x(counts(), tmp_path / "a")
    whole = (folder / "matrix.mtx.gz").read_bytes()
    (folder / "matrix.mtx.gz").write_bytes(whole[:-200])
    with pytest.raises(UserError, match=r"end-of-stream marker.*Copy or download it again"):
        read(folder)
    (folder / "matrix.mtx.gz").write_bytes(b"%%MatrixMarket matrix coordinate integer general\n1 1 1\n1 1 1\n")
    with pytest.raises(UserError, match="not compressed"):
        read(folder)
    (folder / "matrix.mtx.gz").write_bytes(b"")
    with pytest.raises(UserError, match="it is empty"):
        read(folder)
    (folder / "matrix.mtx.gz").write_bytes(whole)
    (folder / "barcodes.tsv.gz").unlink()
    with pytest.raises(UserError, match="lacks barcodes.tsv.gz"):
        read(folder)
