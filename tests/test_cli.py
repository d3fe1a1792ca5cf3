"""The command line, as a user runs it."""

import os
import signal
import subprocess
import sys
import time

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi

import scrcl
from scrcl.cli import main

from .conftest import simulate


@pytest.fixture
def counts(tmp_path):
    adata = simulate()
    adata.layers["raw"] = adata.X.copy()
    adata.write_h5ad(tmp_path / "counts.h5ad")
    return tmp_path / "counts.h5ad"


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_run(counts, tmp_path, capsys):
    output = tmp_path / "out.h5ad"
    before = counts.read_bytes()
    options = ["--n-clusters", "4", "--layer", "raw", "--epochs", "3", "--plots", str(tmp_path / "plots" / "deep")]
    assert main(["run", str(counts), "-o", str(output), *options]) == 0
    assert counts.read_bytes() == before
    result = ad.read_h5ad(output)
    assert result.obsm["X_scrcl"].shape == (150, 256)
    assert result.obs["scrcl"].nunique() == 4
    record = result.uns["scrcl_run"]
    assert record["versions"]["scrcl"] == scrcl.__version__
    assert record["parameters"]["n_hidden"] == 128
    assert record["parameters"]["epochs"] == 3
    assert record["parameters"]["layer"] == "raw"
    assert record["seed"] == 0
    assert record["sizes"]["cells"] == 150
    assert record["sizes"]["clusters"] == 4
    assert set(record["seconds"]) >= {"reading", "features", "graph", "training", "inference", "clustering"}
    assert listing(tmp_path / "plots" / "deep") == ["cluster_sizes.png", "history.png", "umap.png"]
    assert listing(tmp_path) == ["counts.h5ad", "out.h5ad", "plots"]
    printed = capsys.readouterr()
    assert "150 cells, 4 clusters" in printed.out
    assert "training" in printed.err


def test_run_in_space(tmp_path):
    """Domains of two slices, as from Python, and a map of each."""
    adata = scrcl.datasets.layered_tissue(120)
    adata.write_h5ad(tmp_path / "tissue.h5ad")
    output, plots = tmp_path / "out.h5ad", tmp_path / "plots"
    options = ["--spatial-key", "spatial", "--sample-key", "slice", "--n-clusters", "3", "--epochs", "2"]
    assert main(["run", str(tmp_path / "tissue.h5ad"), "-o", str(output), *options, "--plots", str(plots)]) == 0
    result = ad.read_h5ad(output)
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_anndata(adata, spatial_key="spatial", sample_key="slice")
    model = scrcl.SCRCL(adata)
    model.train(2, enable_progress_bar=False)
    assert (result.obs["scrcl"].to_numpy() == model.get_clusters(n_clusters=3).to_numpy()).all()
    np.testing.assert_array_equal(result.obsm["spatial"], adata.obsm["spatial"])
    assert result.uns["scrcl_run"]["parameters"]["spatial_key"] == "spatial"
    assert {"spatial_slice1.png", "spatial_slice2.png"} < set(listing(plots))


def test_markers(counts, tmp_path):
    table, output = tmp_path / "markers.csv", tmp_path / "out.h5ad"
    options = ["--n-clusters", "3", "--epochs", "20", "--markers", str(table)]
    assert main(["run", str(counts), "-o", str(output), *options]) == 0
    markers = pd.read_csv(table)
    best = markers.groupby("group").head(1)
    assert len(best) == 3
    np.testing.assert_allclose(best["pvalue"], 1 / 1001)
    result = ad.read_h5ad(output)
    assert list(result.uns["scrcl_markers"]["names"].dtype.names) == ["0", "1", "2"]
    assert result.uns["scrcl_markers"]["names"]["0"][0] == best["gene"].iloc[0]
    assert listing(tmp_path) == ["counts.h5ad", "markers.csv", "out.h5ad"]


def test_markers_are_not_overwritten(counts, tmp_path, capsys):
    (tmp_path / "markers.csv").write_text("mine")
    assert main(["run", str(counts), "-o", str(tmp_path / "o.h5ad"), "--markers", str(tmp_path / "markers.csv")]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "markers.csv").read_text() == "mine"
    assert main(["run", str(counts), "-o", str(tmp_path / "o.h5ad"), "--markers", str(tmp_path / "o.h5ad")]) == 1
    assert "--markers names the output" in capsys.readouterr().err


def test_run_is_reproducible(counts, tmp_path):
    for name in ("a.h5ad", "b.h5ad"):
        assert main(["run", str(counts), "-o", str(tmp_path / name), "--epochs", "2", "--seed", "3"]) == 0
    a, b = (ad.read_h5ad(tmp_path / name) for name in ("a.h5ad", "b.h5ad"))
    np.testing.assert_array_equal(a.obsm["X_scrcl"], b.obsm["X_scrcl"])
    assert (a.obs["scrcl"] == b.obs["scrcl"]).all()


def test_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the default output is the demo's own, so that it can be run again
        assert main(["demo", "--epochs", "2"]) == 0
    printed = capsys.readouterr().out
    assert "published annotation" in printed
    assert "adjusted Rand index" in printed
    result = ad.read_h5ad(tmp_path / "scrcl-demo.h5ad")
    assert result.n_obs == 700
    assert listing(tmp_path) == ["scrcl-demo.h5ad"]


def refuse(arguments, capsys, *clues):
    assert main([str(argument) for argument in arguments]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "error:" in error
    assert "Traceback" not in error
    for clue in clues:
        assert clue in error


class TestRefusals:
    def test_missing_input(self, tmp_path, capsys):
        refuse(["run", tmp_path / "no.h5ad", "-o", tmp_path / "out.h5ad"], capsys, "is not a file")

    @pytest.mark.parametrize("content", [b"text", b"", b"\x89HDF\r\n\x1a\n truncated"])
    def test_input_that_is_not_h5ad(self, tmp_path, capsys, content):
        (tmp_path / "in.h5ad").write_bytes(content)
        refuse(["run", tmp_path / "in.h5ad", "-o", tmp_path / "out.h5ad"], capsys, "cannot be read as an .h5ad file")
        assert listing(tmp_path) == ["in.h5ad"]

    @pytest.mark.parametrize("how", ["same", "relative", "symbolic link", "hard link"])
    def test_input_as_output(self, counts, tmp_path, capsys, monkeypatch, how):
        before = counts.read_bytes()
        output = counts
        if how == "relative":
            monkeypatch.chdir(tmp_path)
            output = "counts.h5ad"
        elif how == "symbolic link":
            output = tmp_path / "link.h5ad"
            output.symlink_to(counts)
        elif how == "hard link":
            output = tmp_path / "link.h5ad"
            os.link(counts, output)
        refuse(["run", counts, "-o", output, "--overwrite"], capsys, "is the input, which is never overwritten")
        assert counts.read_bytes() == before

    def test_existing_output(self, counts, tmp_path, capsys):
        (tmp_path / "out.h5ad").write_text("precious")
        refuse(["run", counts, "-o", tmp_path / "out.h5ad"], capsys, "exists already", "--overwrite")
        assert (tmp_path / "out.h5ad").read_text() == "precious"
        assert main(["run", str(counts), "-o", str(tmp_path / "out.h5ad"), "--overwrite", "--epochs", "1"]) == 0
        assert ad.read_h5ad(tmp_path / "out.h5ad").n_obs == 150

    def test_a_failed_run_keeps_the_output_that_was_there(self, counts, tmp_path, capsys):
        (tmp_path / "out.h5ad").write_text("precious")
        refuse(["run", counts, "-o", tmp_path / "out.h5ad", "--overwrite", "--layer", "no"], capsys, "layer='no'")
        assert (tmp_path / "out.h5ad").read_text() == "precious"
        assert listing(tmp_path) == ["counts.h5ad", "out.h5ad"]

    def test_unwritable_output(self, counts, tmp_path, capsys):
        refuse(["run", counts, "-o", tmp_path / "no" / "out.h5ad"], capsys, "cannot be written")
        refuse(["run", counts, "-o", tmp_path], capsys, "is a folder")

    def test_unwritable_plots(self, counts, tmp_path, capsys):
        refuse(["run", counts, "-o", tmp_path / "o.h5ad", "--plots", counts], capsys, "for plots cannot be made")

    def test_failure_while_writing(self, counts, tmp_path, capsys, monkeypatch):
        def fail(group, key, value):
            group["half"] = np.zeros(10)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(scrcl.cli, "write_elem", fail)
        refuse(["run", counts, "-o", tmp_path / "out.h5ad", "--epochs", "1"], capsys, "No space left on device")
        assert listing(tmp_path) == ["counts.h5ad"]

    @pytest.mark.parametrize("n_clusters", ["1", "151"])
    def test_n_clusters(self, counts, tmp_path, capsys, n_clusters):
        refuse(["run", counts, "-o", tmp_path / "o.h5ad", "--n-clusters", n_clusters], capsys, "--n-clusters")

    def test_epochs(self, counts, tmp_path, capsys):
        refuse(["run", counts, "-o", tmp_path / "o.h5ad", "--epochs", "0"], capsys, "max_epochs")

    @pytest.mark.parametrize(
        ("options", "clue"),
        [
            (["--layer", "no"], "layer='no' is not in the layers of"),
            (["--spatial-key", "no"], "--spatial-key='no' is not in obsm of"),
            (["--sample-key", "slice"], "Name their coordinates, too"),
        ],
    )
    def test_what_is_not_in_the_file(self, counts, tmp_path, capsys, options, clue):
        refuse(["run", counts, "-o", tmp_path / "out.h5ad", *options], capsys, clue)
        assert listing(tmp_path) == ["counts.h5ad"]

    def test_data_that_are_no_counts(self, tmp_path, capsys):
        adata = simulate()
        adata.X = adata.X * 0.5
        adata.write_h5ad(tmp_path / "in.h5ad")
        refuse(["run", tmp_path / "in.h5ad", "-o", tmp_path / "o.h5ad"], capsys, "not whole numbers", "layer=")

    def test_wrong_usage(self, capsys):
        for arguments in ([], ["run"], ["run", "in.h5ad"], ["walk"]):
            with pytest.raises(SystemExit) as stop:
                main(arguments)
            assert stop.value.code == 2
        capsys.readouterr()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_writes_nothing(counts, tmp_path):
    command = [sys.executable, "-m", "scrcl.cli", "run", counts, "-o", tmp_path / "out.h5ad", "--epochs", "100000"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while not any(name.endswith(".unfinished") for name in listing(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Nothing was written" in error
    assert listing(tmp_path) == ["counts.h5ad"]


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert scrcl.__version__ in capsys.readouterr().out
