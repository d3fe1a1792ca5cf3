"""``scrcl names`` on files, from lists in each format."""

import json
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scrcl.cli import main

from ..helpers import marked, simulate

LISTS = {f"type {kind}": sorted(marked(kind))[:6] for kind in range(3)}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adata = simulate()
    adata.obs["scrcl"] = adata.obs["cell_type"]
    adata.write_h5ad("in.h5ad")
    (tmp_path / "lists.json").write_text(json.dumps(LISTS))
    (tmp_path / "lists.gmt").write_text("".join(f"{name}\t.\t{chr(9).join(genes)}\n" for name, genes in LISTS.items()))
    rows = [(name, gene) for name, genes in LISTS.items() for gene in genes]
    pd.DataFrame(rows, columns=["source", "target"]).to_csv("lists.csv", index=False)
    pd.DataFrame(rows, columns=["source", "target"]).to_csv("lists.tsv", index=False, sep="\t")
    return tmp_path


@pytest.mark.parametrize("markers", ["lists.json", "lists.gmt", "lists.csv", "lists.tsv"])
def test_names_in_json(path, capsys, markers):
    assert main(["names", "in.h5ad", "--markers", markers, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["names"]] == ["type 0", "type 1", "type 2"]
    assert found["outputs"] == {}


def test_files(path, capsys):
    words = ["names", "in.h5ad", "--markers", "lists.json", "-o", "out.h5ad", "--table", "names.csv"]
    assert main(words) == 0
    assert "type 0" in capsys.readouterr().out
    adata = ad.read_h5ad("out.h5ad")
    assert adata.obs["scrcl_name"].tolist() == [f"type {kind}" for kind in adata.obs["cell_type"]]
    assert adata.uns["scrcl_names"]["n_names"] == 3
    assert pd.read_csv("names.csv")["name"].tolist() == ["type 0", "type 1", "type 2"]
    assert main(words) == 1
    assert "out.h5ad exists already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_counts_of_the_run(path, capsys):
    """Counts in the layer that scrcl run read, beside normalised values."""
    adata = ad.read_h5ad("in.h5ad")
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X)
    adata.uns["scrcl_run"] = {"parameters": {"layer": "counts"}}
    adata.write_h5ad("run.h5ad")
    assert main(["names", "run.h5ad", "--markers", "lists.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["names"][0]["name"] == "type 0"
    assert main(["names", "run.h5ad", "--markers", "lists.json", "--layer", "X"]) == 1
    assert "counts" in capsys.readouterr().err


def test_symbols_in_a_column(path, capsys):
    adata = ad.read_h5ad("in.h5ad")
    adata.var["own"] = adata.var_names
    adata.var_names = [f"ENSG{number:011}" for number in range(adata.n_vars)]
    adata.write_h5ad("ids.h5ad")
    assert main(["names", "ids.h5ad", "--markers", "lists.json"]) == 1
    assert "--gene-symbols" in capsys.readouterr().err
    assert main(["names", "ids.h5ad", "--markers", "lists.json", "--gene-symbols", "own", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["names"][2]["name"] == "type 2"


def test_names_of_a_run(path, capsys):
    adata = ad.read_h5ad("in.h5ad")
    adata.var["gene_name"] = adata.var_names
    adata.var_names = [f"ENSG{number:011}" for number in range(adata.n_vars)]
    adata.write_h5ad("ids.h5ad")
    words = ["run", "ids.h5ad", "-o", "out.h5ad", "--epochs", "20", "--n-clusters", "3", "--json"]
    assert main([*words, "--names", "lists.json", "--report", "report.html"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in found["names"]} == set(LISTS)
    written = ad.read_h5ad("out.h5ad")
    assert (written.obs["scrcl_name"].str.removeprefix("type ") == written.obs["cell_type"].astype(str)).mean() > 0.9
    page = (path / "report.html").read_text()
    assert all(f"<span>{name}</span>" in page for name in LISTS)
    assert main([*words, "--overwrite", "--names", "cellconcensus"]) == 1
    assert "Did you mean 'cellconsensus'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--markers", "cellconcensus"],
            "--markers='cellconcensus' is neither a file nor .* Did you mean 'cellconsensus'",
        ),
        (["--markers", "no.json"], "--markers='no.json' is not a file"),
        (["--markers", "no.csv"], "--markers no.csv cannot be read"),
        (["--markers", "lists.json", "--groupby", "foo"], "--groupby='foo' is not in obs of in.h5ad.*scrcl run"),
        (["--markers", "lists.json", "--table", "names.txt"], "wrong suffix"),
        (["--markers", "lists.json", "--orthologs", "no.csv"], "--orthologs='no.csv' cannot be read"),
    ],
)
def test_messages(path, capsys, words, said):
    assert main(["names", "in.h5ad", *words]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(said, error), error
    assert "adata" not in error
