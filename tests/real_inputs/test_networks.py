"""Networks and gene sets from a file: the same as from a table, with and without a header."""

import gzip
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest

from scrcl.data.networks import read_gene_sets, read_network
from scrcl.utils.errors import ScrclValueError

GENES = pd.Index([f"G{number}" for number in range(30)])
EDGES = pd.DataFrame([(f"G{i}", f"G{j}") for i in range(30) for j in range(i)], columns=["source", "target"]).assign(
    weight=np.random.default_rng(0).uniform(0.1, 1, 435)
)


def write(path, table=EDGES, separator=",", header=("from", "to", "weight"), index=False):
    table.to_csv(path, sep=separator, header=False if header is None else list(header), index=index)
    return path


@pytest.mark.parametrize("separator", [",", "\t", ";", " "])
@pytest.mark.parametrize(
    "header", [("from", "to", "weight"), ("source", "target", "weight"), ("a", "b", "Weight"), None]
)
@pytest.mark.parametrize("suffix", [".csv", ".txt.gz", ".tsv.xz"])
def test_a_file_is_read_as_its_table(tmp_path, separator, header, suffix):
    path = write(tmp_path / f"net{suffix}", separator=separator, header=header)
    found, expected = read_network(path, GENES, GENES), read_network(EDGES, GENES, GENES)
    assert abs(found.similarity - expected.similarity).max() < 1e-12
    assert found.n_genes == expected.n_genes == 30
    assert len(found.unknown) == 0


def test_no_weights_rows_by_number_and_other_encodings(tmp_path):
    expected = read_network(EDGES[["source", "target"]], GENES, GENES)
    for header in (("from", "to"), None):
        path = write(tmp_path / "net.tsv", EDGES[["source", "target"]], "\t", header)
        assert abs(read_network(path, GENES, GENES).similarity - expected.similarity).max() == 0
    path = write(tmp_path / "of_r.csv", index=True)
    weighed = read_network(EDGES, GENES, GENES).similarity
    assert abs(read_network(path, GENES, GENES).similarity - weighed).max() < 1e-12
    path.write_bytes(b"\xef\xbb\xbf" + write(tmp_path / "plain.csv").read_bytes().replace(b"\n", b"\r\n"))
    assert abs(read_network(path, GENES, GENES).similarity - weighed).max() < 1e-12
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        read_network(path, GENES, GENES)


def test_genes_that_are_numbers_or_called_na(tmp_path):
    numbers = EDGES.assign(**{name: EDGES[name].str[1:] for name in ("source", "target")})
    genes = GENES.str[1:]
    for header in (("from", "to", "weight"), None):
        path = write(tmp_path / "net.csv", numbers, header=header)
        found = read_network(path, genes, genes)
        assert (
            abs(found.similarity - read_network(numbers.astype({"source": int}), genes, genes).similarity).max() < 1e-12
        )
    named = EDGES.replace("G3", "NA")
    genes = pd.Index(["NA" if gene == "G3" else gene for gene in GENES])
    found = read_network(write(tmp_path / "na.csv", named), genes, genes)
    assert found.similarity.nnz == 2 * len(EDGES)


def test_weights_that_are_negative_or_missing(tmp_path):
    signed = EDGES.assign(weight=EDGES["weight"] * np.where(np.arange(len(EDGES)) % 2, 1, -1))
    found = read_network(write(tmp_path / "signed.csv", signed), GENES, GENES)
    assert abs(found.similarity - read_network(EDGES, GENES, GENES).similarity).max() < 1e-12
    for value, words in (("", "NaN"), ("high", "not numbers"), ("NA", "not numbers")):
        broken = EDGES.astype({"weight": object})
        broken.loc[3, "weight"] = value
        with pytest.raises(ValueError, match=words):
            read_network(write(tmp_path / "broken.csv", broken), GENES, GENES)


@pytest.mark.parametrize("suffix", [".gmt", ".gmt.gz", ".v2024.GMT"])
def test_gene_sets_of_msigdb(tmp_path, suffix):
    sets = {'A "SET"': ["G1", "G2", "G3"], "B,;#": ["G2", "G4"], "EMPTY": []}
    lines = [f"{name}\thttps://example.org/{name}\t" + "\t".join(genes) for name, genes in sets.items()]
    path = tmp_path / f"sets{suffix}"
    text = "\r\n".join([lines[0], "", *lines[1:], ""]).encode()
    path.write_bytes(gzip.compress(text) if suffix.endswith(".gz") else text)
    found, expected = read_network(path, GENES, GENES), read_network(sets, GENES, GENES)
    assert abs(found.similarity - expected.similarity).max() == 0
    assert (found.n_genes, found.n_pairs) == (4, 4)


@pytest.mark.parametrize("header", [("set", "gene"), None])
def test_gene_sets_in_a_file_as_in_a_table(tmp_path, header):
    sets = pd.DataFrame({"source": [f"set {number % 7}" for number in range(30)], "target": GENES})
    found = read_network(write(tmp_path / "sets.csv", sets, header=header), GENES, GENES)
    expected = read_network(sets, GENES, GENES)
    assert found.form == expected.form == "gene sets"
    assert abs(found.similarity - expected.similarity).max() < 1e-12
    assert found.n_genes == 30


def test_many_gene_sets_take_no_time():
    """Groups are found once, not once for each set."""
    rng = np.random.default_rng(0)
    genes = pd.Index([f"G{number}" for number in range(20_000)])
    sets = pd.DataFrame({"source": rng.integers(0, 4000, 200_000), "target": genes[rng.integers(0, 20_000, 200_000)]})
    sets["source"] = "set " + sets["source"].astype(str)
    begin = time.process_time()
    read_network(sets, genes[:2000], genes)
    assert time.process_time() - begin < 8  # 1.3 s; it took 23 s


@pytest.mark.parametrize(
    ("name", "argument", "clue"),
    [
        ("a.parquet", "gene_network", r"`gene_network=pandas.read_parquet\('.*a.parquet'\)`"),
        ("a.xlsx", "markers", r"`markers=pandas.read_excel\('.*a.xlsx'\)`"),
        ("a.csv", "markers", r"`markers=pandas.read_csv\('.*a.csv'\)`"),
        ("a.csv.gz", "markers", r"`markers=pandas.read_csv\('.*a.csv.gz'\)`"),
        ("none.gmt", "markers", "is not a file"),
    ],
)
def test_files_that_another_function_reads(tmp_path, name, argument, clue):
    if name != "none.gmt":
        (tmp_path / name).write_bytes(b"PAR1")
    genes = pd.Index(["G0", "G1"])
    reader = read_gene_sets if argument == "markers" else partial(read_network, genes=genes, all_genes=genes)
    with pytest.raises(ScrclValueError, match=clue):
        reader(str(tmp_path / name), argument=argument)


def test_a_table_of_all_pairs_and_an_address():
    genes = pd.Index([f"G{number}" for number in range(30)])
    with pytest.raises(ScrclValueError, match="columns 'G0', .* 'G5', …, not the two ends"):
        read_network(pd.DataFrame(np.eye(30), genes, genes), genes, genes)
    with pytest.raises(ScrclValueError, match="'https://x.org/net.csv' is an address"):
        read_network("https://x.org/net.csv", genes, genes)
