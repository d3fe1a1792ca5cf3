"""``scrcl names`` on files, from lists in each format."""

import json
import re

import anndata as ad
import mudata
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
    (tmp_path / "empty.json").write_text('{"a": [], "b": ["gene1"]}')
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
    error = capsys.readouterr().err
    assert "--names='cellconcensus' is neither" in error
    assert "Did you mean 'cellconsensus'" in error


def test_symbols_of_a_run(path, capsys):
    """A column of any name, beside names of genes of any kind, in all that is written."""
    adata = ad.read_h5ad("in.h5ad")
    own = adata.var_names
    adata.var["mine"] = own
    adata.var_names = [f"probe{number}" for number in range(adata.n_vars)]
    adata.write_h5ad("probes.h5ad")
    words = ["run", "probes.h5ad", "-o", "out.h5ad", "--epochs", "20", "--n-clusters", "3", "--names", "lists.json"]
    assert main([*words, "--gene-symbols", "mines"]) == 1
    assert (
        "--gene-symbols='mines' is not in var of probes.h5ad. Present: 'mine'. Did you mean 'mine'?"
        in capsys.readouterr().err
    )
    files = ["--markers", "markers.csv", "--tree", "tree.csv", "--report", "report.html", "--json"]
    assert main([*words, "--gene-symbols", "mine", *files]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in found["names"]} == set(LISTS)
    assert found["parameters"]["gene_symbols"] == "mine"
    assert set(pd.read_csv("markers.csv")["gene"]) <= set(own)
    assert set(", ".join(pd.read_csv("tree.csv")["genes_left"].dropna()).split(", ")) <= set(own)
    assert "probe1" not in (path / "report.html").read_text()


def test_several_modalities(path, capsys):
    """Clusters of all modalities are named by RNA, where scrcl run read it; other files say which modality that is."""
    rna = ad.read_h5ad("in.h5ad")
    rna.layers["counts"] = rna.X.copy()
    rna.X = np.log1p(rna.X)
    mdata = mudata.MuData({"gex": rna, "prot": simulate(n_genes=12, seed=0)})
    mdata.obs["scrcl"] = rna.obs["scrcl"]
    mdata.write_h5mu("plain.h5mu")
    mdata.uns["scrcl_run"] = {
        "parameters": {"layer": "gex=counts,prot=raw", "modalities": {"prot": "protein", "gex": "rna"}}
    }
    mdata.write_h5mu("run.h5mu")
    words = ["--markers", "lists.json", "-o", "out.h5mu", "--json"]
    assert main(["names", "run.h5mu", *words]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["names"]] == list(LISTS)
    written = mudata.read_h5mu("out.h5mu")
    assert written.obs["scrcl_name"].tolist() == [f"type {kind}" for kind in rna.obs["cell_type"]]
    assert list(written.mod) == ["gex", "prot"]
    assert main(["names", "run.h5mu", "--markers", "lists.json", "-o", "out.h5ad"]) == 1
    assert "ends in .h5mu" in capsys.readouterr().err
    assert main(["names", "plain.h5mu", *words, "--overwrite"]) == 1
    assert "--modalities gex=rna,prot=protein" in capsys.readouterr().err
    assert main(["names", "plain.h5mu", *words, "--overwrite", "--modalities", "prot=protein"]) == 1
    assert "--modalities names no modality of RNA" in capsys.readouterr().err
    more = ["--overwrite", "--modalities", "gex=rna", "--layer", "gex=counts"]
    assert main(["names", "plain.h5mu", *words, *more]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["names"]] == list(LISTS)


def test_counts_that_a_run_took_from_raw(path, capsys):
    """They are X of what it wrote."""
    adata = ad.read_h5ad("in.h5ad")
    adata.uns["scrcl_run"] = {"parameters": {"layer": "raw"}}
    adata.write_h5ad("run.h5ad")
    assert main(["names", "run.h5ad", "--markers", "lists.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["names"][0]["name"] == "type 0"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--markers", "cellconcensus"],
            "--markers='cellconcensus' is neither a file nor .* Did you mean 'cellconsensus'",
        ),
        (["--markers", "no.json"], "--markers='no.json' is not a file"),
        (["--markers", "no.csv"], "--markers='no.csv' cannot be read"),
        (["--markers", "empty.json"], "--markers has 1 list without a gene: 'a'"),
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


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("cellconcensus", "--names='cellconcensus' is neither a file nor .* Did you mean 'cellconsensus'"),
        ("no.csv", "--names='no.csv' cannot be read"),
        ("empty.json", "--names has 1 list without a gene: 'a'"),
    ],
)
def test_lists_of_a_run_are_refused_before_work(path, capsys, names, said):
    """By the name of its option, as --markers is a table that it writes."""
    assert main(["run", "in.h5ad", "-o", "out.h5ad", "--names", names]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(said, error), error
    assert "features" not in error
    assert not (path / "out.h5ad").exists()
