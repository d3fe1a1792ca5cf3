"""Tables of counts, as R, pandas and spreadsheets write them."""

import gzip

import numpy as np
import pandas as pd
import pytest

from scrcl.cli.errors import UserError

from .builders import check_same, counts, read

COUNTS = counts(12, 8)
TABLE = pd.DataFrame(COUNTS.X.toarray().astype(int), COUNTS.obs_names, COUNTS.var_names)


def as_r(table, separator=" ", quoted=True):
    """As ``write.table`` of R, which writes nothing above the names of the rows."""
    quote = '"' if quoted else ""
    rows = [separator.join(f"{quote}{name}{quote}" for name in table.columns)]
    rows += [separator.join([f"{quote}{name}{quote}", *map(str, row)]) for name, *row in table.itertuples()]
    return "\n".join(rows) + "\n"


def csv(table=TABLE, **options):
    return table.to_csv(**options)


READ = {
    "R, spaces": ("a.txt", as_r(TABLE)),
    "R, tabs": ("a.tsv", as_r(TABLE, "\t", quoted=False)),
    "R, commas": ("a.csv", as_r(TABLE, ",")),
    "semicolons": ("a.csv", csv(sep=";")),
    "tabs in .csv": ("a.csv", csv(sep="\t")),
    "commas in .txt": ("a.txt", csv()),
    "byte order mark": ("a.csv", "\ufeff" + csv()),
    "ends of lines of Windows": ("a.csv", csv(lineterminator="\r\n")),
    "ends of lines of old Macs": ("a.csv", csv(lineterminator="\r")),
    "all quoted": ("a.csv", csv(quoting=1)),
    "comments": ("a.tsv", "# by a program, 2020\n#more\n" + csv(sep="\t")),
    "a header that begins with #": ("a.tsv", csv(sep="\t", index_label="#cell")),
    "blank lines": ("a.csv", "\n" + csv() + "\n\n"),
    "spaces after commas": ("a.csv", csv().replace(",", ", ")),
    "a delimiter at the end of lines": ("a.csv", csv().replace("\n", ",\n")),
    "a delimiter at the end, but of the header": ("a.csv", csv().replace("\n", ",\n").replace(",\n", "\n", 1)),
    "empty rows of a spreadsheet": ("a.csv", csv() + "," * 8 + "\n" + "," * 8 + "\n"),
    "values as floats": ("a.csv", csv(TABLE.astype(float))),
    "a name of the names": ("a.csv", csv(index_label="Cell Barcode")),
}


@pytest.mark.parametrize("how", READ)
def test_ways_to_write_the_same_table(how, tmp_path):
    name, text = READ[how]
    (tmp_path / name).write_bytes(text.encode())
    check_same(read(tmp_path / name).data, COUNTS)


@pytest.mark.parametrize("kind", ["gz", "gz without its ending", "ending without gz", "utf-16"])
def test_encodings(kind, tmp_path):
    data = csv().encode("utf-16" if kind == "utf-16" else "utf-8")
    path = tmp_path / ("a.csv.gz" if kind in ("gz", "ending without gz") else "a.csv")
    path.write_bytes(gzip.compress(data) if kind.startswith("gz") else data)
    check_same(read(path).data, COUNTS)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("which", ["cells", "genes", "both"])
@pytest.mark.parametrize("first", [0, 1, 100])
def test_names_that_are_numbers(which, transpose, first, tmp_path):
    table, expected = TABLE.copy(), COUNTS.copy()
    if which != "genes":
        table.index = expected.obs_names = [str(first + number) for number in range(len(table))]
    if which != "cells":
        table.columns = expected.var_names = [str(first + number) for number in range(table.shape[1])]
    (table.T if transpose else table).to_csv(tmp_path / "a.csv")
    check_same(read(tmp_path / "a.csv", transpose=transpose).data, expected)
    (tmp_path / "a.csv").write_text(as_r(table.T if transpose else table, ","))
    check_same(read(tmp_path / "a.csv", transpose=transpose).data, expected)


def test_names_are_kept_as_they_are_written(tmp_path):
    """Neither is 'NA' missing, nor is '007' 7, nor '1e5' 100000."""
    genes = ["NA", "nan", "1e5", "007", "HLA-A", "x,y", "null", "#9"]
    TABLE.set_axis(genes, axis=1).to_csv(tmp_path / "a.csv")
    assert list(read(tmp_path / "a.csv").data.var_names) == genes
    TABLE.set_axis(genes, axis=1).T.to_csv(tmp_path / "a.csv")
    assert list(read(tmp_path / "a.csv", transpose=True).data.var_names) == genes


def with_column(name, values, at=0):
    table = TABLE.copy()
    table.insert(at, name, values)
    return table


def replaced(value, row=3, column=2):
    table = TABLE.astype(object)
    table.iloc[row, column] = value
    return table


REFUSED = {
    "no names of cells": (csv(index=False), "no names of cells", "call the column 'name'"),
    "no header": (csv(header=False), "no names of genes", "first row"),
    "neither": (csv(header=False, index=False), "no names of genes"),
    "no names of cells, and types first": (
        csv(with_column("kind", COUNTS.obs["kind"]), index=False),
        "names of cells",
        "'a'",
    ),
    "types": (csv(with_column("kind", COUNTS.obs["kind"])), "'a' is not a number", "column 'kind'"),
    "truth": (csv(with_column("is_t", np.arange(12) % 2 == 0)), "'True' is not a number", "column 'is_t'"),
    "clusters": (csv(with_column("seurat_clusters", range(12))), "'seurat_clusters'", "Remove the column"),
    "cell_type as numbers": (csv(with_column("cell_type", range(12), 8)), "'cell_type'"),
    "totals of all": (csv(with_column("total", range(12), 8)), "'total'"),
    "coordinates": (csv(with_column("x", range(12)).assign(y=1)), "'x', 'y'"),
    "totals": (csv(with_column("nCount_RNA", range(12), 8)), "'nCount_RNA'"),
    "an index that was written twice": (csv(with_column("Unnamed: 0", range(12))), "'Unnamed: 0'"),
    "reads of no gene": (csv(with_column("__no_feature", range(12), 8)), "'__no_feature'", "belong to no gene"),
    "reads of no gene by STAR": (csv(with_column("N_unmapped", range(12))), "'N_unmapped'", "Remove the column"),
    "a value that is missing": (csv(replaced(None)), "a value is missing (row 'c3', column 'G2')"),
    "NA": (csv(replaced(None), na_rep="NA"), "'NA' is not a number (row 'c3', column 'G2')"),
    "a word": (csv(replaced("low")), "'low' is not a number (row 'c3', column 'G2')"),
    "commas in numbers": (csv(replaced("1,5"), sep=";"), "'1,5' is not a number"),
    "cells twice": (csv(TABLE.set_axis(["c0", *TABLE.index[:-1]])), "'c0', 2 times"),
    "a gene without a name": (csv(TABLE.set_axis(["G0", "", *TABLE.columns[2:]], axis=1)), "no name in column 3"),
    "a cell without a name": (csv(TABLE.set_axis(["c0", "", *TABLE.index[2:]])), "no name in line 3"),
    "values beyond the header": (as_r(TABLE, ",").replace("\n", ",\n", 1).replace("\n", ",7\n"), "no name in column 9"),
    "a long row": (csv() * 5 + "x" + ",1" * 20 + "\n", "differ in length"),
    "one row": ("cell,G0,G1\n", "one row only"),
    "a web page": ("<!DOCTYPE html><html></html>", "web page", "Download it again"),
    "nothing": ("", "it is empty"),
    "blanks": ("\n\n", "it is empty"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_refused(how, tmp_path):
    text, *clues = REFUSED[how]
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError) as error:
        read(tmp_path / "a.csv")
    assert not [clue for clue in clues if clue not in str(error.value)], error.value


def test_names_unlike_all_others_are_told(tmp_path):
    """A column of whole numbers may describe cells; beside identifiers of Ensembl, its name says so."""
    rng = np.random.default_rng(0)
    names = [f"ENSG{number:011}" for number in range(30)]
    table = pd.DataFrame(rng.poisson(2.0, (12, 30)), [f"c{number}" for number in range(12)], names)
    table.to_csv(tmp_path / "a.csv")
    table.assign(mystery=range(12)).to_csv(tmp_path / "b.csv")
    assert not any("Ensembl" in note for note in read(tmp_path / "a.csv").notes)
    assert any("Ensembl but for mystery" in note for note in read(tmp_path / "b.csv").notes)


@pytest.mark.parametrize("how", ["no names of genes", "no names of cells", "clusters", "gene length"])
def test_refused_with_genes_in_rows(how, tmp_path):
    text, clue = {
        "no names of genes": (csv(TABLE.T, index=False), "no names of genes"),
        "no names of cells": (csv(TABLE.T, header=False), "no names of cells"),
        "clusters": (csv(with_column("cluster", range(12)).T), "Remove the row"),
        "gene length": (csv(TABLE.T.assign(biotype="coding")), "'coding' is not a number"),
    }[how]
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=clue):
        read(tmp_path / "a.csv", transpose=True)


def test_genes_in_the_other_direction(tmp_path):
    table = TABLE.set_axis(["Actb", "Gapdh", "mt-Nd1", "Rpl3", *"abcd"], axis=1)
    table.to_csv(tmp_path / "a.csv")
    with pytest.raises(UserError, match="Leave --transpose out"):
        read(tmp_path / "a.csv", transpose=True)
    table.T.to_csv(tmp_path / "b.csv")
    with pytest.raises(UserError, match="Pass --transpose"):
        read(tmp_path / "b.csv")


def test_genes_that_occur_twice_are_numbered(tmp_path):
    TABLE.set_axis(["G0", "G0", *TABLE.columns[2:]], axis=1).to_csv(tmp_path / "a.csv")
    found = read(tmp_path / "a.csv")
    assert list(found.data.var_names[:2]) == ["G0", "G0-1"]
    assert "occurs more than once" in found.notes[-1]


def test_another_delimiter_is_told(tmp_path):
    (tmp_path / "a.csv").write_text(csv(sep=";"))
    assert "semicolons" in read(tmp_path / "a.csv").notes[1]


@pytest.mark.parametrize(
    ("start", "clue"), [(b"PK\x03\x04", "zip"), (b"\x89HDF\r\n\x1a\n", "HDF5"), (b"\xd0\xcf\x11\xe0", "Excel")]
)
def test_files_that_are_no_text(start, clue, tmp_path):
    (tmp_path / "a.csv").write_bytes(start + bytes(100))
    with pytest.raises(UserError, match=clue):
        read(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(csv(TABLE.rename(columns={"G0": "µ"})).encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        read(tmp_path / "b.csv")
