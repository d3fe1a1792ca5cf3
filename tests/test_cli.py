"""The command line, as a user runs it."""

import gzip
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import click
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
import scvi
import torch

import scrcl
import scrcl.cli.outputs
from scrcl.cli import main
from scrcl.cli.caveats import find_caveats
from scrcl.cli.composition import Composition
from scrcl.cli.options import KINDS, METHODS, parse
from scrcl.cli.paths import check_paths
from scrcl.cli.progress import LOG_LEVELS
from scrcl.cli.summary import Cluster, Summary, describe_clusters

from .helpers import simulate
from .real_inputs.builders import read


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
    output.write_text("earlier")
    before = counts.read_bytes()
    options = ["--n-clusters", "4", "--layer", "raw", "--epochs", "3", "--plots", str(tmp_path / "plots" / "deep")]
    options += ["--overwrite"]
    assert main(["run", str(counts), "-o", str(output), *options]) == 0
    assert counts.read_bytes() == before
    result = ad.read_h5ad(output)
    assert result.obsm["X_scrcl"].shape == (150, 256 + 100)
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


@pytest.mark.slow
def test_run_in_space(tmp_path, capsys):
    """Domains of two slices, as from Python with the same seed, and a map of each."""
    adata = scrcl.datasets.layered_tissue(120)
    adata.write_h5ad(tmp_path / "tissue.h5ad")
    output, plots = tmp_path / "out.h5ad", tmp_path / "plots"
    options = ["--spatial-key", "spatial", "--sample-key", "slice", "--n-clusters", "3", "--epochs", "2"]
    options += ["--seed", "3"]
    options += ["--plots", str(plots), "--json"]
    assert main(["run", str(tmp_path / "tissue.h5ad"), "-o", str(output), *options]) == 0
    borders = pd.DataFrame(json.loads(capsys.readouterr().out)["borders"])
    result = ad.read_h5ad(output)
    scvi.settings.seed = 3
    scrcl.SCRCL.setup_anndata(adata, spatial_key="spatial", sample_key="slice")
    model = scrcl.SCRCL(adata)
    model.train(2, enable_progress_bar=False)
    np.testing.assert_array_equal(result.obsm["X_scrcl"], model.get_latent_representation())
    assert (result.obs["scrcl"].to_numpy() == model.get_clusters(n_clusters=3, seed=3).to_numpy()).all()
    np.testing.assert_array_equal(result.obsm["spatial"], adata.obsm["spatial"])
    assert result.uns["scrcl_run"]["parameters"]["spatial_key"] == "spatial"
    assert {"spatial_slice1.png", "spatial_slice2.png"} < set(listing(plots))
    expected = model.get_domain_borders(n_clusters=3, seed=3)
    assert borders[["domain", "neighbor", "verdict"]].equals(expected[["domain", "neighbor", "verdict"]])


@pytest.mark.slow
def test_run_with_batches(tmp_path, capsys):
    adata = simulate()
    adata.obs["donor"] = np.repeat(["a", "b"], [70, 80])
    counts = adata.X.toarray()
    counts[70:] *= np.random.default_rng(0).integers(1, 9, size=adata.n_vars)  # the second sees genes differently
    adata.X = sp.csr_matrix(counts)
    adata.write_h5ad(tmp_path / "donors.h5ad")
    command = [
        "run",
        str(tmp_path / "donors.h5ad"),
        "-o",
        str(tmp_path / "out.h5ad"),
        "--n-clusters",
        "3",
        "--epochs",
        "2",
    ]
    assert main([*command, "--batch-key", "plate"]) == 1
    assert "--batch-key" in capsys.readouterr().err
    assert main([*command, "--batch-key", "donor", "--plots", str(tmp_path / "plots")]) == 0
    result = ad.read_h5ad(tmp_path / "out.h5ad")
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_anndata(adata, batch_key="donor")
    model = scrcl.SCRCL(adata)
    model.train(2, enable_progress_bar=False)
    assert model.get_batch_report(n_clusters=3).corrected == ["rna"]
    np.testing.assert_allclose(result.obsm["X_scrcl"], model.get_latent_representation(), atol=1e-5)
    assert result.uns["scrcl_run"]["parameters"]["batch_key"] == "donor"
    assert "umap_donor.png" in listing(tmp_path / "plots")


@pytest.mark.slow
def test_run_with_several_columns_of_batches_and_a_condition(tmp_path, capsys):
    adata = simulate(200)
    for number, (name, values) in enumerate({"run": ["r1", "r2"], "donor": [1, 2], "state": ["c", "t"]}.items()):
        adata.obs[name] = np.repeat(values * (4 // 2**number), 25 * 2**number)[:200]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    command = [
        "run",
        str(tmp_path / "cells.h5ad"),
        "-o",
        str(tmp_path / "out.h5ad"),
        "--n-clusters",
        "3",
        "--epochs",
        "2",
    ]
    with pytest.raises(SystemExit):
        main([*command, "--condition-key", "state"])
    assert "--condition-key requires batches" in " ".join(capsys.readouterr().err.split())
    assert main([*command, "--batch-key", "state", "--condition-key", "state"]) == 1
    assert "--condition-key='state' is confounded with --batch-key='state'" in " ".join(capsys.readouterr().err.split())
    keys = ["--batch-key", "run", "--batch-key", "donor", "--condition-key", "state"]
    model = str(tmp_path / "model")
    assert main([*command, *keys, "--save-model", model, "--plots", str(tmp_path / "plots")]) == 0
    assert {"umap_run.png", "umap_donor.png", "umap_state.png"} < set(listing(tmp_path / "plots"))
    parameters = ad.read_h5ad(tmp_path / "out.h5ad").uns["scrcl_run"]["parameters"]
    assert (parameters["batch_key"], parameters["condition_key"]) == ("run, donor", "state")
    setup = scrcl.SCRCL.load_registry(model)["setup_args"]
    assert (list(setup["batch_key"]), setup["condition_key"]) == (["run", "donor"], "state")
    predicted = str(tmp_path / "predicted.h5ad")
    assert main(["predict", model, str(tmp_path / "cells.h5ad"), "-o", predicted]) == 0
    adata.obs = adata.obs.drop(columns="state")
    adata.write_h5ad(tmp_path / "without.h5ad")
    assert main(["predict", model, str(tmp_path / "without.h5ad"), "-o", predicted, "--overwrite"]) == 1
    assert "trained with this --condition-key" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("option", ["--markers", "--tree"])
def test_tables_are_not_overwritten(counts, tmp_path, capsys, option):
    table, output = str(tmp_path / "table.csv"), str(tmp_path / "o.h5ad")
    Path(table).write_text("mine")
    assert main(["run", str(counts), "-o", output, option, table]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert Path(table).read_text() == "mine"
    assert main(["run", str(counts), "-o", output, option, output]) == 1
    assert f"{option} names the file of -o" in capsys.readouterr().err
    assert main(["run", str(counts), "-o", output, option, str(tmp_path / "table.txt")]) == 1
    assert "ends in .csv" in capsys.readouterr().err


@pytest.mark.slow
def test_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--epochs", "2"]) == 0
    check_paths(parse(["demo"]))  # the default output is the demo's own, so that it can be run again
    printed = capsys.readouterr().out
    assert "Published annotation" in printed
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
    # In the words of options: no call of Python, and no name of an argument.
    assert not re.search(r"setup_|adata|mdata|scanpy\.|\(\)|\b\w+_\w+=", error.replace("tmp_path", ""))


class TestRefusals:
    def test_missing_input(self, tmp_path, capsys):
        refuse(["run", tmp_path / "no.h5ad", "-o", tmp_path / "out.h5ad"], capsys, "does not exist")

    @pytest.mark.parametrize(
        ("content", "clue"),
        [
            (b"text", "not an HDF5 file"),
            (b"", "it is empty"),
            (b"\x89HDF\r\n\x1a\n truncated", "download it again"),
        ],
    )
    @pytest.mark.parametrize("name", ["in.h5ad", "in.h5mu", "in.h5"])
    def test_input_that_is_broken(self, tmp_path, capsys, name, content, clue):
        (tmp_path / name).write_bytes(content)
        refuse(["run", tmp_path / name, "-o", tmp_path / "out.h5ad"], capsys, "cannot be read", clue)
        assert listing(tmp_path) == [name]

    def test_input_that_is_cut_off(self, counts, tmp_path, capsys):
        (tmp_path / "in.h5ad").write_bytes(counts.read_bytes()[:20_000])
        refuse(["run", tmp_path / "in.h5ad", "-o", tmp_path / "out.h5ad"], capsys, "truncated file")

    def test_input_of_another_kind(self, counts, tmp_path, capsys):
        (tmp_path / "a.rds").write_text("R")
        refuse(["run", tmp_path / "a.rds", "-o", tmp_path / "o.h5ad"], capsys, "Convert it in R", "write_h5ad")
        (tmp_path / "a.doc").write_text("x")
        refuse(
            ["run", tmp_path / "a.doc", "-o", tmp_path / "o.h5ad"],
            capsys,
            "of no format that is read",
            ".h5mu",
            ".zarr",
        )
        (tmp_path / "matrix.mtx").write_text("")
        refuse(["run", tmp_path / "matrix.mtx", "-o", tmp_path / "o.h5ad"], capsys, "Name the folder it is in")
        (tmp_path / "outs" / "filtered_feature_bc_matrix").mkdir(parents=True)
        refuse(["run", tmp_path / "outs", "-o", tmp_path / "o.h5ad"], capsys, "outs/filtered_feature_bc_matrix")
        (tmp_path / "fake.h5ad").mkdir()
        refuse(["run", tmp_path / "fake.h5ad", "-o", tmp_path / "o.h5ad"], capsys, "neither a matrix of 10x")
        refuse(["run", counts, "-o", tmp_path / "o.h5ad", "--transpose"], capsys, "--transpose is for tables")
        refuse(["run", counts, "-o", tmp_path / "o.h5ad", "--modalities", "rna=rna"], capsys, "--modalities is for")
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["x"] = [1]
        refuse(
            ["run", tmp_path / "other.h5", "-o", tmp_path / "o.h5ad"], capsys, "neither AnnData, nor MuData", "It has x"
        )

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

    def test_a_failed_run_keeps_the_output_that_was_there(self, counts, tmp_path, capsys):
        (tmp_path / "out.h5ad").write_text("precious")
        refuse(["run", counts, "-o", tmp_path / "out.h5ad", "--overwrite", "--layer", "no"], capsys, "--layer='no'")
        assert (tmp_path / "out.h5ad").read_text() == "precious"
        assert listing(tmp_path) == ["counts.h5ad", "out.h5ad"]

    def test_unwritable_output(self, counts, tmp_path, capsys):
        refuse(["run", counts, "-o", tmp_path / "no" / "out.h5ad"], capsys, "mkdir -p")
        refuse(["run", counts, "-o", tmp_path], capsys, "is a folder")

    def test_unwritable_plots(self, counts, tmp_path, capsys):
        refuse(["run", counts, "-o", tmp_path / "o.h5ad", "--plots", counts], capsys, "is the input, which is never")
        (tmp_path / "file").write_text("")
        plots = tmp_path / "file" / "plots"
        refuse(
            ["run", counts, "-o", tmp_path / "o.h5ad", "--plots", plots], capsys, "cannot be made", "Not a directory"
        )

    @pytest.mark.slow
    def test_failure_while_writing(self, counts, tmp_path, capsys, monkeypatch):
        def fail(group, key, value):
            group["half"] = np.zeros(10)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(scrcl.cli.outputs, "write_elem", fail)
        refuse(["run", counts, "-o", tmp_path / "out.h5ad", "--epochs", "1"], capsys, "No space left on device")
        assert listing(tmp_path) == ["counts.h5ad"]

    def test_n_clusters(self, counts, tmp_path, capsys):
        refuse(
            ["run", counts, "-o", tmp_path / "o.h5ad", "--n-clusters", "151"],
            capsys,
            "--n-clusters=151 is more than the 150 cells",
        )

    @pytest.mark.parametrize(
        "options",
        [
            ["--epochs", "0"],
            ["--epochs", "many"],
            ["--batch-size", "0"],
            ["--n-clusters", "1"],
            ["--seed", "-1"],
            ["--device", "mps"],
            ["--device", "cuda:x"],
            ["--method", "dbscan"],
            ["--resolution", "0", "--method", "leiden"],
            ["--resolution", "1"],
            ["--modalities", "rna"],
            ["--modalities", "rna=dna"],
            ["--resolution", "inf", "--method", "leiden"],
            ["--sample-key", "slice"],
            ["--unlabeled-category", "x"],
        ],
    )
    def test_options_out_of_range(self, counts, tmp_path, capsys, options):
        """Refused before any work, as wrong usage, by the name of the option."""
        with pytest.raises(SystemExit) as stop:
            main(["run", str(counts), "-o", str(tmp_path / "o.h5ad"), *options])
        assert stop.value.code == 2
        assert options[0] in capsys.readouterr().err.splitlines()[-1]

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_device_that_is_not_there(self, counts, tmp_path, capsys):
        refuse(["run", counts, "-o", tmp_path / "o.h5ad", "--device", "cuda"], capsys, "--device cuda does not exist")

    def test_a_report_that_cannot_be_made(self, counts, tmp_path, capsys, monkeypatch):
        refuse(["run", counts, "-o", tmp_path / "o.h5ad", "--report", tmp_path / "r.doc"], capsys, "in .html or .pdf")
        monkeypatch.setitem(sys.modules, "weasyprint", None)
        refuse(["run", counts, "-o", tmp_path / "o.h5ad", "--report", tmp_path / "r.pdf"], capsys, "needs WeasyPrint")
        assert listing(tmp_path) == ["counts.h5ad"]

    def test_an_error_in_json(self, tmp_path, capsys):
        assert main(["run", str(tmp_path / "no.h5ad"), "-o", str(tmp_path / "o.h5ad"), "--json"]) == 1
        assert "does not exist" in json.loads(capsys.readouterr().out)["error"]

    @pytest.mark.parametrize(
        ("options", "clue"),
        [
            (["--layer", "no"], "--layer='no' is not in the layers of"),
            (["--spatial-key", "no"], "--spatial-key='no' is not in obsm of"),
        ],
    )
    def test_what_is_not_in_the_file(self, counts, tmp_path, capsys, options, clue):
        refuse(["run", counts, "-o", tmp_path / "out.h5ad", *options], capsys, clue)
        assert listing(tmp_path) == ["counts.h5ad"]

    def test_data_that_are_no_counts(self, tmp_path, capsys):
        adata = simulate()
        adata.X = adata.X * 0.5
        adata.write_h5ad(tmp_path / "in.h5ad")
        clues = ["X of", "not whole numbers", "`--layer counts`"]
        refuse(["run", tmp_path / "in.h5ad", "-o", tmp_path / "o.h5ad"], capsys, *clues)

    def test_cells_without_counts(self, tmp_path, capsys):
        adata = simulate()
        adata.X[3] = 0
        adata.write_h5ad(tmp_path / "in.h5ad")
        refuse(
            ["run", tmp_path / "in.h5ad", "-o", tmp_path / "o.h5ad"], capsys, "1 of 150 cells", "from the file first"
        )

    def test_too_few_cells(self, tmp_path, capsys):
        simulate(n_cells=10).write_h5ad(tmp_path / "in.h5ad")
        refuse(
            ["run", tmp_path / "in.h5ad", "-o", tmp_path / "o.h5ad"],
            capsys,
            "in.h5ad has 10 cells",
            "require at least 16",
            "Pass more cells",
        )

    @pytest.mark.parametrize(
        ("arguments", "name"),
        [
            (["run", "in.h5ad", "-o", "o.h5ad", "--epoch", "3"], "--epochs"),
            (["run", "in.h5ad", "--ouput", "o.h5ad"], "--output"),
            (["predict", "m", "in.h5ad", "-o", "o.h5ad", "--alfa", "0"], "--alpha"),
            (["demo", "--n_clusters", "3"], "--n-clusters"),
            pytest.param(
                ["predct"],
                "predict",
                marks=pytest.mark.skipif(not hasattr(click, "NoSuchCommand"), reason="an earlier click"),
            ),
        ],
    )
    def test_slips_are_met_with_the_right_name(self, capsys, arguments, name):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        assert re.search(f"Did you mean .*'{name}'", capsys.readouterr().err)

    @pytest.mark.parametrize(
        "options",
        [["--alpha", "1"], ["--alpha", "nan"], ["--layer", "umi", "--raw"], ["--epochs", "3"], ["--alpha", "-0.1"]],
    )
    def test_options_of_predict_out_of_range(self, capsys, options):
        with pytest.raises(SystemExit) as stop:
            main(["predict", "m", "in.h5ad", "-o", "o.h5ad", *options])
        assert stop.value.code == 2
        assert options[0] in capsys.readouterr().err.splitlines()[-1]

    def test_wrong_usage(self, capsys):
        for arguments in ([], ["run"], ["run", "in.h5ad"], ["walk"]):
            with pytest.raises(SystemExit) as stop:
                main(arguments)
            assert stop.value.code == 2
        capsys.readouterr()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_writes_nothing(counts, tmp_path):
    command = [sys.executable, "-m", "scrcl", "run", counts, "-o", tmp_path / "out.h5ad", "--epochs", "100000"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    late = threading.Timer(300, process.kill)
    try:
        late.start()
        assert process.stderr is not None
        assert any(line.endswith("training\n") for line in process.stderr), "training never began"
        assert [name for name in listing(tmp_path) if name.endswith(".unfinished")]
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        late.cancel()
        process.kill()
    assert process.returncode == 130
    assert "Written: nothing" in error
    assert listing(tmp_path) == ["counts.h5ad"]


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert scrcl.__version__ in capsys.readouterr().out


def run_python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["run", "--help"], ["run", "x", "--epochs", "0"]])
def test_answers_that_need_no_work_import_nothing_heavy(arguments):
    code = """
import sys
from scrcl.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("|", *sorted({name.partition(".")[0] for name in sys.modules}))
"""
    done = run_python("-c", code, *arguments)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.rpartition("|")[2].split()
    assert "rich_click" in loaded
    heavy = {
        "torch",
        "scanpy",
        "anndata",
        "mudata",
        "scvi",
        "lightning",
        "matplotlib",
        "pandas",
        "numpy",
        "sklearn",
        "h5py",
    }
    assert not heavy & set(loaded)


def test_warnings_of_honesty_are_shown_and_log_levels_restored(tmp_path, capsys):
    """Noise has no clusters: the command says so, and loggers are afterwards as they were."""
    noise = np.random.default_rng(0).poisson(1.0, size=(120, 40)).astype(np.float32)
    ad.AnnData(sp.csr_matrix(noise)).write_h5ad(tmp_path / "noise.h5ad")
    loggers = [logging.getLogger(name) for name in LOG_LEVELS]
    before = [logger.level for logger in loggers]
    scvi_level = scvi.settings.verbosity
    command = ["run", str(tmp_path / "noise.h5ad"), "-o", str(tmp_path / "out.h5ad"), "--epochs", "2"]
    assert main([*command, "--n-clusters", "4"]) == 0
    assert "4 clusters are poorly supported" in "".join(capsys.readouterr())
    assert [logger.level for logger in loggers] == before
    assert scvi.settings.verbosity == scvi_level


@pytest.mark.slow
def test_the_package_is_imported_when_it_is_used():
    code = """
import sys, scrcl
public = {"SCRCL", "BatchReport", "BatchSpaces", "ClusterTree", "LabelReport", "NumberOfClusters", "datasets"}
public |= {"from_spatialdata", "pl"}
assert public == set(scrcl.__all__) <= set(dir(scrcl))
assert "torch" not in sys.modules and scrcl.__version__
try:
    scrcl.SCRLC
except AttributeError as error:
    assert "SCRLC" in str(error)
else:
    raise AssertionError
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    from scrcl import NumberOfClusters, from_spatialdata

    assert all(callable(found) for found in (NumberOfClusters, from_spatialdata, scrcl.pl.umap, scrcl.datasets.pbmc700))
    assert scrcl.SCRCL.__name__ == "SCRCL"


@pytest.mark.slow
def test_python_m():
    done = run_python("-m", "scrcl", "--version")
    assert done.stdout.split() == ["scrcl", scrcl.__version__]


def test_choices_are_those_of_the_model():
    from scrcl.model import options
    from scrcl.reference import modality_kinds

    assert METHODS == options.METHODS
    assert set(KINDS) | {"features"} == set(modality_kinds.KINDS)


# ----------------------------------------------------------------------- inputs


def write_ranger(adata, folder, features=()):
    """What 10x writes: an .h5 file and a folder, of genes and maybe other features."""
    kinds = ["Gene Expression"] * (adata.n_vars - len(features)) + ["Antibody Capture"] * len(features)
    ids = [f"ENSG{number:011}" for number in range(adata.n_vars)]
    with h5py.File(folder / "ranger.h5", "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(adata.X, name).astype(np.int32)
        group["shape"] = np.array([adata.n_vars, adata.n_obs])
        group["barcodes"] = np.array(adata.obs_names, dtype="S")
        for name, values in (("id", ids), ("name", adata.var_names), ("feature_type", kinds)):
            group[f"features/{name}"] = np.array(values, dtype="S")
        group["features/genome"] = np.array(["x"] * adata.n_vars, dtype="S")
    (folder / "ranger").mkdir()
    with gzip.open(folder / "ranger" / "matrix.mtx.gz", "wb") as file:
        scipy.io.mmwrite(file, adata.X.T)
    lines = ("\t".join(line) + "\n" for line in zip(ids, adata.var_names, kinds, strict=True))
    for name, text in (("features", "".join(lines)), ("barcodes", "".join(f"{name}\n" for name in adata.obs_names))):
        with gzip.open(folder / "ranger" / f"{name}.tsv.gz", "wt") as file:
            file.write(text)


class TestInputs:
    """Whatever form counts come in, they are the same."""

    @pytest.fixture
    def same(self, adata):
        def check(found, genes=slice(None)):
            data = found.data
            assert list(data.obs_names) == list(adata.obs_names)
            assert list(data.var_names) == list(adata.var_names[genes])
            matrix = data.X[:]
            np.testing.assert_array_equal(
                matrix.toarray() if sp.issparse(matrix) else matrix, adata.X[:, genes].toarray()
            )

        return check

    def test_h5ad(self, adata, same, tmp_path):
        adata.layers["raw"] = adata.X.copy()
        adata.write_h5ad(tmp_path / "a.h5ad")
        same(read(tmp_path / "a.h5ad"))
        assert not sp.issparse(read(tmp_path / "a.h5ad").data.X)  # still in the file
        same(read(tmp_path / "a.h5ad", layer="raw"))
        shutil.copyfile(tmp_path / "a.h5ad", tmp_path / "b.h5")  # whatever it is called
        same(read(tmp_path / "b.h5"))

    def test_by_genes(self, adata, same, tmp_path):
        adata.X = sp.csc_matrix(adata.X)
        adata.write_h5ad(tmp_path / "a.h5ad")
        same(read(tmp_path / "a.h5ad"))

    def test_zarr(self, adata, same, tmp_path):
        adata.layers["raw"] = adata.X.copy()
        adata.write_zarr(tmp_path / "a.zarr")
        same(read(tmp_path / "a.zarr"))
        assert read(tmp_path / "a.zarr", layer="raw").setup == {"layer": "raw"}

    @pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz", "a.txt"])
    def test_tables(self, adata, same, tmp_path, name):
        table = adata.to_df().astype(int)
        separator = "," if ".csv" in name else "\t"
        table.to_csv(tmp_path / name, sep=separator)
        found = read(tmp_path / name)
        same(found)
        assert "150 cells of 120 genes" in found.notes[0]
        table.T.to_csv(tmp_path / name, sep=separator)
        same(read(tmp_path / name, transpose=True))

    def test_10x(self, adata, same, tmp_path):
        write_ranger(adata, tmp_path)
        for name in ("ranger.h5", "ranger"):
            same(read(tmp_path / name))
        for file in list((tmp_path / "ranger").iterdir()):  # as on GEO
            file.rename(file.with_name(f"GSM1_{file.name}"))
        same(read(tmp_path / "ranger"))

    def test_10x_with_other_features(self, adata, same, tmp_path):
        write_ranger(adata, tmp_path, features=adata.var_names[-3:])
        for name in ("ranger.h5", "ranger"):
            found = read(tmp_path / name)
            same(found, slice(0, -3))
            assert "Left out: 3 features that are no genes (Antibody Capture)." in found.notes[0]

    def test_names_that_occur_twice(self, adata, tmp_path):
        adata.var_names = ["gene0", "gene0", *adata.var_names[2:]]
        write_ranger(adata, tmp_path)
        for name in ("ranger.h5", "ranger"):
            found = read(tmp_path / name)
            assert list(found.data.var_names[:3]) == ["gene0", "gene0-1", "gene2"]
            assert "1 name of a gene occurs more than once" in found.notes[0]

    def test_folders_that_lack_files(self, adata, tmp_path, capsys):
        write_ranger(adata, tmp_path)
        (tmp_path / "ranger" / "barcodes.tsv.gz").unlink()
        refuse(["run", tmp_path / "ranger", "-o", tmp_path / "o.h5ad"], capsys, "lacks barcodes.tsv.gz")
        (tmp_path / "ranger" / "b_matrix.mtx.gz").write_bytes(b"")
        refuse(["run", tmp_path / "ranger", "-o", tmp_path / "o.h5ad"], capsys, "holds several matrices")

    @pytest.mark.parametrize(
        ("text", "clue"),
        [
            ("", "it is empty"),
            ("cell,a,b\nc1,1,2\nc2,x,3\n", "'x' is not a number"),
            ("cell,a,b\nc1,1,2\nc2,,3\n", "a value is missing"),
            ("cell,a,b\nc1,1,2\nc2,1\n", "a value is missing"),
            ("cell,a,b\nc1,1,2\nc2,1,2,3\n", "differ in length"),
            ("cell|a|b\nc1|1|2\nc2|1|2\n", "no delimiter"),
            ("c1,1,2\nc2,3,4\n", "no names of genes"),
            ("gene,c1,c2\nACTB,1,2\nGAPDH,3,4\n", "Pass --transpose"),
        ],
    )
    def test_tables_that_are_none(self, tmp_path, capsys, text, clue):
        (tmp_path / "a.csv").write_text(text)
        refuse(["run", tmp_path / "a.csv", "-o", tmp_path / "o.h5ad"], capsys, clue)

    def test_broken_zarr(self, tmp_path, capsys):
        (tmp_path / "a.zarr").mkdir()
        (tmp_path / "a.zarr" / "zarr.json").write_text("{")
        refuse(["run", tmp_path / "a.zarr", "-o", tmp_path / "o.h5ad"], capsys, "cannot be read as a zarr store")

    def test_modalities(self, tmp_path, capsys):
        path = tmp_path / "a.h5mu"
        two_modalities().write_h5mu(path)
        refuse(["run", path, "-o", tmp_path / "o.h5mu"], capsys, "'rna', 'prot'", "--modalities rna=rna,prot=protein")
        refuse(["run", path, "-o", tmp_path / "o.h5mu", "--modalities", "dna=rna"], capsys, "--modalities='dna'")
        options = ["--modalities", "rna=rna,prot=protein"]
        refuse(["run", path, "-o", tmp_path / "o.h5ad", *options], capsys, "ends in .h5mu")
        refuse(["run", path, "-o", tmp_path / "o.h5mu", *options, "--layer", "raw"], capsys, "--layer rna=raw")
        refuse(["run", path, "-o", tmp_path / "o.h5mu", *options, "--layer", "rna=no"], capsys, "the layers of 'rna'")
        found = read(path, layer="rna=raw", modalities={"rna": "rna", "prot": "protein"})
        assert found.setup == {"modalities": {"rna": "rna", "prot": "protein"}, "layers": {"rna": "raw"}}


def two_modalities():
    rna, prot = simulate(), simulate(n_genes=12, seed=0)
    rna.layers["raw"] = rna.X.copy()
    prot.var_names = [f"prot{number}" for number in range(12)]
    return mudata.MuData({"rna": rna, "prot": prot})


@pytest.mark.slow
def test_run_on_several_modalities(tmp_path):
    two_modalities().write_h5mu(tmp_path / "a.h5mu")
    options = ["--modalities", "rna=rna,prot=protein", "--n-clusters", "3", "--epochs", "3"]
    assert main(["run", str(tmp_path / "a.h5mu"), "-o", str(tmp_path / "o.h5mu"), *options]) == 0
    result = mudata.read_h5mu(tmp_path / "o.h5mu")
    assert result.obs["scrcl"].nunique() == 3
    assert result.obsm["X_scrcl"].shape[0] == 150
    assert result.uns["scrcl_run"]["parameters"]["modalities"] == {"rna": "rna", "prot": "protein"}
    assert list(result.mod) == ["rna", "prot"]
    assert "raw" in result["rna"].layers


@pytest.mark.slow
def test_run_on_a_10x_file(tmp_path, capsys):
    """Also that a log has one line for each phase, and other ways to train and cluster."""
    adata = simulate()
    write_ranger(adata, tmp_path)
    options = ["--epochs", "3", "--batch-size", "64", "--device", "cpu", "--method", "leiden", "--resolution", "0.5"]
    assert main(["run", str(tmp_path / "ranger.h5"), "-o", str(tmp_path / "o.h5ad"), *options]) == 0
    lines = capsys.readouterr().err.splitlines()
    phases = [line.split(" s  ", 1)[1] for line in lines if re.match(r"\s+\d+\.\d s  ", line)]
    assert phases[:3] == ["loading", "reading", "features"]
    assert phases[-1] == "writing"
    assert len(lines) == len(phases)
    result = ad.read_h5ad(tmp_path / "o.h5ad")
    np.testing.assert_array_equal(result.X.toarray(), adata.X.toarray())
    parameters = result.uns["scrcl_run"]["parameters"]
    assert parameters["method"] == "leiden"
    assert parameters["resolution"] == 0.5
    assert parameters["batch_size"] == 64
    scvi.settings.seed = 0
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata)
    model.train(3, batch_size=64, accelerator="cpu", enable_progress_bar=False)
    assert (result.obs["scrcl"] == model.get_clusters(method="leiden", resolution=0.5)).all()


# ---------------------------------------------------------------------- reports


def test_markers_report_and_json(counts, tmp_path, capsys):
    page, table, tree = tmp_path / "page.html", tmp_path / "markers.csv", tmp_path / "tree.csv"
    options = ["--n-clusters", "3", "--epochs", "20", "--json", "--report", str(page), "--markers", str(table)]
    options += ["--tree", str(tree)]
    assert main(["run", str(counts), "-o", str(tmp_path / "out.h5ad"), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    result = ad.read_h5ad(tmp_path / "out.h5ad")
    best = pd.read_csv(table).groupby("group").head(1)
    assert len(best) == 3
    np.testing.assert_allclose(best["pvalue"], 1 / 1001)
    assert list(result.uns["scrcl_markers"]["names"].dtype.names) == ["0", "1", "2"]
    assert result.uns["scrcl_markers"]["names"]["0"][0] == best["gene"].iloc[0]
    sizes = result.obs["scrcl"].value_counts()
    assert {cluster["name"]: cluster["cells"] for cluster in found["clusters"]} == sizes.to_dict()
    assert sum(cluster["share"] for cluster in found["clusters"]) == pytest.approx(1)
    assert all(0 <= cluster["uncertain"] <= 1 and 0 < cluster["confidence"] <= 1 for cluster in found["clusters"])
    # The markers are of the block of genes that the type has more of.
    for cluster in found["clusters"]:
        kind = int(result.obs["cell_type"][result.obs["scrcl"] == cluster["name"]].mode()[0])
        assert all(
            gene in [f"gene{number}" for number in range(40 * kind, 40 * kind + 20)] for gene in cluster["markers"]
        )
        assert cluster["markers"]
    assert found["n_clusters_given"]
    assert found["n_clusters_estimate"]["curve"]["connectivity"]
    assert found["versions"]["scrcl"] == scrcl.__version__
    assert found["sizes"]["cells"] == 150
    assert found["command"].startswith("scrcl run ")

    # The three types are two splits apart, and no more.
    splits = pd.read_csv(tree, index_col="split")
    assert splits.index[0] == "all"
    assert splits["supported"].sum() == 2
    assert (splits["verdict"][splits["supported"]] == "type").all()
    assert splits.reset_index()["connectivity"].tolist() == pytest.approx(
        [row["connectivity"] for row in found["splits"]]
    )
    assert result.uns["scrcl_run"]["seconds"]["evidence"] > 0

    text = page.read_text(encoding="utf-8")
    assert "Which clusters are real" in text
    assert splits["genes_left"].iloc[0] in text
    for shown in (found["command"], scrcl.__version__, "150", "3", "clusters asked for", "What is uncertain"):
        assert shown in text
    assert all(cluster["markers"][0] in text for cluster in found["clusters"])
    assert text.count("data:image/png;base64,") == 4  # the map, the numbers of clusters, the tree, the markers
    # It can be passed on: nothing is fetched.
    assert not re.search(r"""<(script|link|iframe)|src="(?!data:)|url\(|@import""", text)
    assert listing(tmp_path) == ["counts.h5ad", "markers.csv", "out.h5ad", "page.html", "tree.csv"]


@pytest.mark.slow
def test_report_as_pdf(tmp_path, monkeypatch):
    pytest.importorskip("weasyprint", exc_type=(ImportError, OSError))  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--epochs", "1", "--n-clusters", "2", "--report", "page.pdf"]) == 0
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


class TestCaveats:
    def test_splits_without_genes(self):
        splits = pd.DataFrame(
            {"left": ["0+2", "0", "1.0"], "right": ["1", "2", "1.1"], "verdict": ["type", "suspicious", "none"]},
            index=["all", "0+2", "1"],
        )
        summary = self.summary([Cluster("0", 100, 0.5, 0.9, 0.0, "1", 0.1, ["a"], 1)] * 3)
        summary.tree = SimpleNamespace(first_splits=splits)
        (caveat,) = find_caveats(summary, "consensus")
        assert caveat.startswith("The split of 0 from 2 ")
        assert "doublets" in caveat

    def test_domains_along_a_gradient(self):
        summary = self.summary([Cluster("0", 100, 0.5, 0.9, 0.0, "1", 0.1, ["a"], 1)] * 3)
        summary.parameters = {"spatial_key": "spatial"}
        summary.borders = pd.DataFrame(
            {
                "domain": ["0", "0", "1"],
                "neighbor": ["1", "2", "2"],
                "sharpness": [0.1, 0.9, np.nan],
                "verdict": ["continuum", "border", "unclear"],
            }
        )
        (caveat,) = find_caveats(summary, "consensus")
        assert caveat.startswith("The tissue changes gradually between domains 0 and 1:")
        assert summary.as_json()["borders"][2] == {
            "domain": "1",
            "neighbor": "2",
            "sharpness": None,
            "verdict": "unclear",
        }

    def summary(self, clusters, given=False, best=3, runner_ups=()):
        curve = pd.DataFrame({"connectivity": [0.0, 0.1, 0.3]}, index=[1, 2, 3])
        estimate = scrcl.NumberOfClusters(best, list(runner_ups), curve)
        return Summary("scrcl", "a", clusters, given, estimate, {}, {}, 0, {}, {}, {})

    def test_clusters(self):
        clusters = pd.Series(pd.Categorical(["0", "0", "0", "1"]))
        probabilities = pd.DataFrame({"0": [0.9, 0.8, 0.4, 0.3], "1": [0.1, 0.2, 0.6, 0.7]})
        markers = pd.DataFrame(
            {
                "group": ["0", "0", "0", "1"],
                "gene": ["a", "b", "c", "a"],
                "score_low": [1.0, 0.5, 0.2, -1.0],
                "pvalue": [0.001, 0.2, 0.001, 0.001],
                "specificity": [0.5, 0.5, -0.1, 0.1],
            }
        )
        first, second = describe_clusters(clusters, probabilities, markers)
        assert (first.cells, first.share, first.markers, first.specific) == (3, 0.75, ["a", "c"], 1)
        assert first.confidence == pytest.approx(0.7)
        assert first.uncertain == pytest.approx(1 / 3)
        assert (first.next, second.next) == ("1", "0")
        assert first.next_probability == pytest.approx(0.3)
        assert (second.markers, second.specific, second.uncertain) == ([], 0, 0)

    def test_quality_and_batches(self):
        summary = self.summary([Cluster(name, 100, 1 / 3, 0.9, 0.0, "1", 0.1, ["a"], 1) for name in "012"])
        summary.quality = {
            "": {"counts": 900, "mitochondrial": 0.06},
            "0": {"counts": 299, "mitochondrial": 0.05},
            "1": {"counts": 301, "mitochondrial": 0.13},
            "2": {"counts": 9000, "mitochondrial": 0.11},
        }
        summary.compositions = [Composition("donor", True, {"2": {"a": 0.96, "b": 0.04}}, {"2": "a"})]
        single, few, mitochondrial = find_caveats(summary, "consensus")
        assert few.startswith("The cells of cluster 0 (median 299) have few counts (median of all cells 900)")
        assert mitochondrial.startswith("The cells of cluster 1 (median 13%) have many mitochondrial counts")
        assert single.startswith("Cluster 2 (96% in a) is nearly only in one donor:")
        summary.parameters = {"spatial_key": "spatial"}
        assert [
            caveat for caveat in find_caveats(summary, "kmeans") if "luster 0" in caveat or "clusters" in caveat
        ] == []

    def test_sentences(self):
        sure = Cluster("0", 100, 0.5, 0.9, 0.0, "1", 0.1, ["a"], 1)
        assert find_caveats(self.summary([sure] * 3), "consensus") == []
        (caveat,) = find_caveats(self.summary([sure] * 3, runner_ups=[4, 2]), "consensus")
        assert "4 and 2 are also supported" in caveat
        (caveat,) = find_caveats(self.summary([sure] * 2, given=True), "consensus")
        assert caveat == "2 clusters were asked for; the estimate is 3."
        assert find_caveats(self.summary([sure] * 3, given=True, runner_ups=[3]), "consensus") == []
        (caveat,) = find_caveats(self.summary([sure] * 2, runner_ups=[2, 4]), "consensus")
        assert caveat == "2 clusters were found; the estimate is 3 (4 is also supported)."
        unsure = Cluster("1", 5, 0.5, 0.4, 0.6, "0", 0.5, [], 0)
        caveats = " ".join(find_caveats(self.summary([sure, sure, unsure]), "consensus"))
        for clue in (
            "Cluster 1 (5 cells) is small:",
            "Many cells of cluster 1 (60%; next most probable: 0)",
            "No marker gene is higher in cluster 1 than",
        ):
            assert clue in caveats
        assert "leiden gives no confidence" in find_caveats(self.summary([sure] * 3), "leiden")[0]

    def test_one_sentence_of_a_kind(self):
        """However many clusters it holds for; what concerns most of the results first."""
        unsure = [Cluster(str(number), 5 - number % 5, 0.05, 0.4, 0.6, "0", 0.5, [], 0) for number in range(12)]
        summary = self.summary(unsure, best=12)
        summary.quality = {"": {"counts": 900.0, "mitochondrial": 0.06}}
        summary.quality |= {str(number): {"counts": 100.0, "mitochondrial": 0.3} for number in range(12)}
        shares = {str(number): {"{a}": 1.0} for number in range(12)}
        summary.compositions = [Composition("donor", True, shares, dict.fromkeys(shares, "{a}"))]
        splits = pd.DataFrame({"left": ["0", "1"], "right": ["2", "3"], "verdict": ["suspicious"] * 2})
        summary.tree = SimpleNamespace(first_splits=splits)
        first, tree, *of_clusters = find_caveats(summary, "consensus", ["12 clusters are poorly supported."])
        assert first == "12 clusters are poorly supported."
        assert tree.startswith("The splits of 0 from 2 and 1 from 3 in the tree of clusters are")
        assert [caveat.split("(")[0] for caveat in of_clusters] == [
            "Clusters 0 ",
            "The cells of clusters 0 ",
            "The cells of clusters 0 ",
            "No marker gene is higher in any of clusters 0, 1, 2, 3, 4, 5 and 6 more than in all others: they may be parts of others.",
            "Many cells of clusters 0 ",
            "Clusters 0 ",
        ]
        assert of_clusters[0].startswith("Clusters 0 (100% in {a}), 1 (100% in {a}), 2 (100% in {a})")
        assert of_clusters[-1].startswith(
            "Clusters 0 (5 cells), 1 (4 cells), 2 (3 cells), 3 (2 cells), 4 (1 cell), 5 (5 cells) and 6 more are small"
        )


class TestLabels:
    @pytest.fixture(scope="class")
    @staticmethod
    def run_with_labels(tmp_path_factory):
        """A file with some labels, what a run makes of it, and the model that it saves."""
        folder = tmp_path_factory.mktemp("labels")
        adata = simulate(240)
        adata.obs["annotation"] = np.where(np.arange(240) < 60, adata.obs["cell_type"].astype(str), "Unknown")
        adata.write_h5ad(folder / "counts.h5ad")
        options = [
            "--labels-key",
            "annotation",
            "--unlabeled-category",
            "Unknown",
            "--save-model",
            str(folder / "model"),
        ]
        plots = ["--plots", str(folder / "plots")]
        assert (
            main(
                ["run", str(folder / "counts.h5ad"), "-o", str(folder / "out.h5ad"), "--epochs", "10", *options, *plots]
            )
            == 0
        )
        return folder, adata

    def test_types_of_all_cells(self, run_with_labels):
        folder, adata = run_with_labels
        result = ad.read_h5ad(folder / "out.h5ad")
        assert (result.obs["scrcl_type"].astype(str) == adata.obs["cell_type"].astype(str)).mean() > 0.95
        assert result.obs["scrcl_type_confidence"].between(1 / 3, 1).all()
        assert result.uns["scrcl_run"]["parameters"]["labels_key"] == "annotation"
        assert "umap_scrcl_type.png" in listing(folder / "plots")

    def test_carried_to_other_cells(self, run_with_labels, tmp_path, capsys):
        folder, _ = run_with_labels
        query = simulate(60, seed=5)
        query.write_h5ad(tmp_path / "query.h5ad")
        output = tmp_path / "out.h5ad"
        command = ["predict", str(folder / "model"), str(tmp_path / "query.h5ad"), "-o", str(output)]
        assert main([*command, "--alpha", "0", "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        result = ad.read_h5ad(output)
        expected = scrcl.SCRCL.load(folder / "model", adata=False).predict(query, alpha=0)
        assert (result.obs["scrcl_type"].astype(str) == expected.astype(str)).all()
        assert printed["types"] == result.obs["scrcl_type"].value_counts().loc[lambda sizes: sizes > 0].to_dict()
        assert result.obsm["X_scrcl"].shape[0] == 60
        assert main(command) == 1  # the output exists
        assert "--overwrite" in capsys.readouterr().err

    def test_refused(self, run_with_labels, tmp_path, capsys):
        folder, _ = run_with_labels
        counts, output = str(folder / "counts.h5ad"), str(tmp_path / "out.h5ad")
        assert main(["predict", str(tmp_path), counts, "-o", output]) == 1
        assert "holds no saved model" in capsys.readouterr().err
        assert main(["run", counts, "-o", output, "--labels-key", "nothing"]) == 1
        assert "--labels-key='nothing' is not in obs of" in capsys.readouterr().err
        assert main(["run", counts, "-o", output, "--save-model", str(folder / "model")]) == 1
        assert "--save-model" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            main(["run", counts, "-o", output, "--unlabeled-category", "Unknown"])
        assert "--labels-key" in capsys.readouterr().err
