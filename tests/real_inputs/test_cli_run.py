"""Runs of the command line on data as people have them: nothing is lost in the end, and a saved model is used as it was."""

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import anndata as ad
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scrcl
import scrcl.cli.run
from scrcl.cli import main
from scrcl.cli.errors import UserError, as_message
from scrcl.cli.inputs import Input
from scrcl.cli.options import parse
from scrcl.cli.outputs import check_writable, write
from scrcl.cli.paths import check_paths
from scrcl.cli.run import file_names
from scrcl.utils.errors import ScrclKeyError, ScrclValueError

from ..helpers import build, simulate
from .builders import read

TYPES = np.array(["T cell [naive]", "B [/x] :smile:", "$a$ $b^"])
SMALL = ["--epochs", "2", "--n-clusters", "3"]


def command(*words):
    return main([str(word) for word in words])


def said(capsys):
    printed = capsys.readouterr()
    return " ".join((printed.out + printed.err).split())


# ------------------------------------------------- what cannot be written is found first


def nullable(adata):
    adata.obs_names = adata.obs_names.astype("string")
    adata.var["symbol"] = pd.array(adata.var_names, dtype="string")
    adata.obs["few"] = pd.array(["a", None, "b"] * 50, dtype="string")
    return adata


def reserved_column(adata):
    adata.var["_index"] = adata.var["index"] = "x"
    adata.obs["_index"] = "y"
    return adata


def name_of_the_index(adata):
    adata.obs["barcode"] = "other"
    adata.obs.index.name = "barcode"
    return adata


def slash(adata):
    adata.obs["a/b"] = 1
    return adata


@pytest.mark.parametrize("change", [nullable, reserved_column, name_of_the_index, slash])
@pytest.mark.parametrize("copied", [True, False])
def test_data_that_can_be_written(tmp_path, change, copied):
    simulate().write_h5ad(tmp_path / "in.h5ad")
    found = read(tmp_path / "in.h5ad") if copied else Input(simulate())
    columns = change(found.data).obs.shape[1]
    check_writable(found, tmp_path / "out.h5ad")
    write(found, tmp_path / "out.h5ad", tmp_path / "out.h5ad")
    result = ad.read_h5ad(tmp_path / "out.h5ad")
    assert list(result.obs_names) == list(simulate().obs_names)
    assert result.obs.shape[1] == columns
    assert (result.X != simulate().X).nnz == 0
    if change is reserved_column:
        assert set(result.var) == {"index", "index_"}


def mixed_column(adata):
    adata.obs["mixed"] = np.array([1, "a", None] * 50, dtype=object)


def mixed_variable(adata):
    adata.var["mixed"] = np.array([(1, 2), "a", None] * 40, dtype=object)


def mixed_table(adata):
    adata.obsm["mixed"] = pd.DataFrame({"m": np.array([1, "a", True] * 50, dtype=object)}, index=adata.obs_names)


def an_object(adata):
    adata.uns["mixed"] = {"inside": object()}


def mixed_raw(adata):
    adata.raw = adata.copy()
    adata.raw.var["mixed"] = np.array([(1, 2), "a", None] * 40, dtype=object)


@pytest.mark.parametrize("change", [mixed_column, mixed_variable, mixed_table, an_object, mixed_raw])
def test_data_that_cannot_be_written(tmp_path, change):
    found = Input(simulate())
    change(found.data)
    with pytest.raises(UserError, match="cannot be written.*mixed"):
        check_writable(found, tmp_path / "out.h5ad")


def test_modalities_that_cannot_be_written(tmp_path):
    adata = simulate()
    mixed_column(adata)
    data = mudata.MuData({"rna": simulate(), "other": adata})
    with pytest.raises(UserError, match="mixed"):
        check_writable(Input(data), tmp_path / "out.h5mu")


def test_no_room_is_found_first(tmp_path, monkeypatch):
    simulate().write_h5ad(tmp_path / "in.h5ad")
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10))
    with pytest.raises(UserError, match="are free"):
        check_writable(read(tmp_path / "in.h5ad"), tmp_path / "out.h5ad")


def test_a_copy_of_an_old_file(tmp_path):
    """Before anndata 0.7, all of obsm is one table."""
    adata = simulate()
    adata.write_h5ad(tmp_path / "in.h5ad")
    pca = np.random.default_rng(0).random((150, 3))
    with h5py.File(tmp_path / "in.h5ad", "r+") as file:
        del file["obsm"]
        table = np.zeros(150, dtype=[("X_pca", "f8", (3,))])
        table["X_pca"] = pca
        file["obsm"] = table
    found = read(tmp_path / "in.h5ad")
    found.data.obsm["X_scrcl"] = pca + 1
    write(found, tmp_path / "out.h5ad", tmp_path / "out.h5ad")
    result = ad.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(result.obsm["X_pca"], pca)
    np.testing.assert_array_equal(result.obsm["X_scrcl"], pca + 1)


@pytest.mark.parametrize(
    ("options", "clue"),
    [
        (["-o", "out.csv"], "ends in .h5ad or .h5mu"),
        (["-o", "out"], "ends in .h5ad or .h5mu"),
        (["-o", "o.h5ad", "--markers", "m.tsv"], "ends in .csv"),
        (["-o", "o.h5ad", "--report", "r.txt"], "ends in .html or .pdf"),
        (["-o", "o.h5ad", "--save-model", "o.h5ad"], "--save-model names the file of -o"),
        (["-o", "o.h5ad", "--plots", "./o.h5ad"], "--plots names the file of -o"),
        (["-o", "o.h5ad", "--plots", "p", "--save-model", "p"], "--save-model names the file of --plots"),
        (["-o", "o.h5ad", "--plots", "o.h5ad/plots"], "is inside o.h5ad"),
        (["-o", "o.h5ad", "--save-model", "in.h5ad", "--overwrite"], "is the input"),
        (["-o", "o.h5ad", "--save-model", "file", "--overwrite"], "Not a directory"),
        (["-o", "o.h5ad", "--save-model", "file/m"], "Not a directory"),
        (["-o", "o.h5ad", "--save-model", "link"], "exists already"),
        (["-o", "o.h5ad", "--plots", "file"], "Not a directory"),
        (["-o", "there/is/no/o.h5ad"], "mkdir -p there/is/no"),
        (["-o", "o.h5ad", "--plots", "/proc/plots"], "cannot be made or written to"),
        (["-o", "o.h5ad", "--save-model", "/proc/model"], "cannot be made or written to"),
    ],
)
def test_paths_that_are_refused_first(tmp_path, monkeypatch, options, clue):
    monkeypatch.chdir(tmp_path)
    for name in ("in.h5ad", "file"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("nothing")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=clue):
        check_paths(parse(["run", "in.h5ad", *options]))
    assert sorted(tmp_path.iterdir()) == before


def test_inputs_that_are_refused_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for name in ("table.csv.zip", "in.h5ad", "model/model.pt"):
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match="unzip table.csv.zip"):
        check_paths(parse(["run", "table.csv.zip", "-o", "o.h5ad"]))
    with pytest.raises(UserError, match="Name the model first"):
        check_paths(parse(["predict", "in.h5ad", "model", "-o", "o.h5ad"]))


@pytest.mark.parametrize(
    ("name", "clue"),
    [
        ("a.rds", "anndataR::write_h5ad"),
        ("a.h5seurat", "SeuratDisk::Convert"),
        ("a.tar.gz", "tar -xf"),
        ("a.xlsx", "Save it as .csv"),
        ("a.parquet", "read_parquet"),
        ("a.mtx.gz", "Name the folder it is in: sub"),
        ("a.docx", "Name an .h5ad"),
    ],
)
def test_formats_that_are_not_read(tmp_path, monkeypatch, name, clue):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / name).write_text("x")
    with pytest.raises(UserError, match=f"sub/{name} is of no format that is read. .*{clue}"):
        check_paths(parse(["run", f"sub/{name}", "-o", "o.h5ad"]))


def test_a_matrix_by_other_names_and_an_address(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kb").mkdir()
    (tmp_path / "kb" / "cells_x_genes.mtx").write_text("x")
    with pytest.raises(UserError, match=r"holds a matrix, cells_x_genes.mtx, but not .*features.tsv"):
        check_paths(parse(["run", "kb", "-o", "o.h5ad"]))
    with pytest.raises(SystemExit):
        parse(["run", "https://x.org/a.h5ad", "-o", "o.h5ad"])
    assert "https://x.org/a.h5ad is an address" in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_genes_of_the_model_elsewhere_in_the_file(tmp_path, capsys):
    path, adata = tmp_path / "in.h5ad", simulate()
    build(adata, epochs=1).save(tmp_path / "m")
    adata.var["symbol"] = adata.var_names
    adata.var_names = [f"ENSG{number:011}" for number in range(adata.n_vars)]
    adata.write_h5ad(path)
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "m"), str(path), "-o", str(tmp_path / "o.h5ad")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "which are read from the column 'symbol' of var" in said
    assert "adata" not in said


def test_pipes_are_refused_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("counts.csv")
    reading, writing = os.pipe()
    try:
        for name in ("counts.csv", f"/dev/fd/{reading}", "/dev/null", "-"):
            with pytest.raises(UserError, match=f"{name} is a pipe or a device.*Write it to a file first"):
                check_paths(parse(["run", "-o", "o.h5ad", "--", name]))
    finally:
        os.close(reading)
        os.close(writing)


def test_a_table_whose_direction_is_not_that_of_the_model(tmp_path, capsys):
    build(simulate(), epochs=1).save(tmp_path / "model")
    simulate(40).to_df().astype(int).T.to_csv(tmp_path / "in.csv")
    arguments = ["predict", tmp_path / "model", tmp_path / "in.csv", "-o", tmp_path / "o.h5ad"]
    assert main([str(word) for word in arguments]) == 1
    assert "Pass --transpose" in capsys.readouterr().err
    assert main([*map(str, arguments), "--transpose"]) == 0


def test_paths_that_are_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.h5ad").write_text("x")
    (tmp_path / "model").mkdir()
    options = ["--plots", "new/plots", "--save-model", "model", "--overwrite", "--markers", "M.CSV"]
    check_paths(parse(["run", "in.h5ad", "-o", "model/out.H5AD", *options]))


# ------------------------------------------------- what fails beside the output


def break_plot(monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("no such colour")

    monkeypatch.setattr(scrcl.pl, "umap", fail)


def break_report(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no font")

    monkeypatch.setattr(scrcl.cli.run, "write_report", fail)


def break_markers(monkeypatch):
    def fail(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(scrcl.SCRCL, "get_marker_genes", fail)


def break_model(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scrcl.SCRCL, "save", fail)


def break_certainty(monkeypatch):
    def fail(*args, **kwargs):
        raise AttributeError("no mixture")

    monkeypatch.setattr(scrcl.SCRCL, "get_cluster_probabilities", fail)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failures", "missing"),
    [
        ({break_plot: "no such colour"}, {"plots/umap.png"}),  # the report draws its own map
        ({break_report: "no font", break_model: "No space left"}, {"r.html", "model"}),
        ({break_markers: "not enough memory", break_certainty: "no mixture"}, {"m.csv"}),
    ],
    ids=["plot", "report and model", "markers and certainty"],
)
def test_a_failure_beside_the_output_costs_nothing_else(tmp_path, monkeypatch, capsys, failures, missing):
    monkeypatch.chdir(tmp_path)
    simulate().write_h5ad("in.h5ad")
    everything = ["--plots", "plots", "--report", "r.html", "--markers", "m.csv", "--save-model", "model"]
    for fail in failures:
        fail(monkeypatch)
    assert command("run", "in.h5ad", "-o", "out.h5ad", *SMALL, *everything) == 1
    told = said(capsys)
    assert "out.h5ad is written" in told
    assert all(reason in told for reason in failures.values())
    assert ad.read_h5ad("out.h5ad").obs["scrcl"].nunique() == 3
    asked = ("plots/history.png", "plots/umap.png", "r.html", "m.csv", "model")
    assert {path for path in asked if not (tmp_path / path).exists()} == missing
    assert not list(tmp_path.glob(".*unfinished*"))


@pytest.mark.slow
def test_interrupted_after_the_output(tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    simulate().write_h5ad("in.h5ad")
    monkeypatch.setattr(scrcl.SCRCL, "save", interrupt)
    assert command("run", "in.h5ad", "-o", "out.h5ad", *SMALL, "--save-model", "model") == 130
    assert "Written: out.h5ad" in said(capsys)
    assert ad.read_h5ad("out.h5ad").n_obs == 150


# ------------------------------------------------- names


def test_names_of_pictures_differ():
    names = file_names(["a b", "a/b", "A?b", "a_b_2", "ä" * 300, "ä" * 300, "", "..", "../x"])
    assert names[0] == "a_b"
    assert len({name.lower() for name in names}) == len(names)
    assert all("/" not in name and len(f"{name}.png".encode()) < 256 for name in names)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ScrclValueError("n_clusters=3 is more than 2 cells.", "Ask for fewer."), "--n-clusters=3 is more than 2 cells. Ask for fewer."),
        (ScrclValueError("adata.obsm['s'] holds NaN.", "Drop them: `adata[x]`.", where="adata.obsm['s']"), "obsm['s'] of adata.h5ad holds NaN."),
        (ScrclValueError("mdata['r'].X is empty.", where="mdata['r'].X"), "X of the modality 'r' of adata.h5ad is empty."),
        (ScrclValueError("adata has 3 cells.", "Pass more.", where="adata"), "adata.h5ad has 3 cells. Pass more."),
        (ScrclKeyError("layer='adata.X' is not in adata.layers.", where="adata.layers"), "--layer='adata.X' is not in layers of adata.h5ad."),
        (ScrclValueError("max_epochs=0 is below 1.", "`train(5)`", command="Pass 5."), "--epochs=0 is below 1. Pass 5."),
        (ScrclValueError("n_neighbors=3 and n_clusters=3 differ.", options={"n_clusters": "--n-clusters"}), "n_neighbors=3 and --n-clusters=3 differ."),
        (UserError("model holds no counts."), "model holds no counts."),
        (UserError("'m/adata.h5ad' is not read.", "Pass `--layer x`."), "'m/adata.h5ad' is not read. Pass `--layer x`."),
    ],
)  # fmt: skip
def test_words_of_options(error, message):
    assert as_message(error, Path("adata.h5ad")) == message


# ------------------------------------------------- a saved model


@pytest.fixture(scope="module")
def layered(tmp_path_factory):
    """A run with counts in a layer, labels with brackets and slashes in names, and all that can be asked for."""
    folder = tmp_path_factory.mktemp("layered")
    adata = simulate(160)
    adata.layers["counts"] = adata.X.copy()
    adata.obs["type [x]"] = TYPES[adata.obs["cell_type"].astype(int)]
    adata.obs["donor?x"] = ["a b", "a/b"] * 80
    adata.X = sp.csr_matrix(np.floor(np.random.default_rng(0).random(adata.shape) * 9).astype(np.float32))
    adata.write_h5ad(folder / "in.h5ad")
    options = ["--layer", "counts", "--labels-key", "type [x]", "--batch-key", "donor?x", "--epochs", "10"]
    made = ["--save-model", folder / "model", "--plots", folder / "plots", "--report", folder / "report.html"]
    assert command("run", folder / "in.h5ad", "-o", folder / "out.h5ad", *options, *made) == 0
    return folder


@pytest.mark.slow
def test_a_report_of_names_with_brackets(layered):
    page = (layered / "report.html").read_text(encoding="utf-8")
    assert "without labels" not in page
    assert "over many clusterings" not in page
    assert (layered / "plots" / "umap_donor_x.png").exists()


def test_types_are_printed_as_they_are(layered, tmp_path, capsys):
    assert command("predict", layered / "model", layered / "in.h5ad", "-o", tmp_path / "[b] out.h5ad") == 0
    told = capsys.readouterr().out
    assert all(name in told for name in TYPES)
    assert "[b] out.h5ad" in told.replace("\n", "")


def test_predict_reads_the_layer_of_the_model(layered, tmp_path):
    assert command("predict", layered / "model", layered / "in.h5ad", "-o", tmp_path / "out.h5ad") == 0
    result, run = ad.read_h5ad(tmp_path / "out.h5ad"), ad.read_h5ad(layered / "out.h5ad")
    assert (result.obs["scrcl"] == run.obs["scrcl"]).all()
    assert (result.obs["scrcl_type"] == run.obs["scrcl_type"]).all()
    assert result.obs["scrcl_known"].all()
    np.testing.assert_allclose(result.obsm["X_scrcl"], run.obsm["X_scrcl"], atol=1e-5)
    assert (result.X != ad.read_h5ad(layered / "in.h5ad").X).nnz == 0


@pytest.mark.slow
def test_counts_in_another_place_than_those_of_the_model(layered, tmp_path, capsys):
    adata = ad.read_h5ad(layered / "in.h5ad")
    expected = ad.read_h5ad(layered / "out.h5ad").obs["scrcl"]
    adata.X, adata.layers["umi"] = adata.layers.pop("counts"), adata.X
    adata.write_h5ad(tmp_path / "in.h5ad")
    shown = ["predict", layered / "model", tmp_path / "in.h5ad", "-o", tmp_path / "out.h5ad"]
    assert command(*shown) == 1
    assert "--layer X" in said(capsys)
    assert command(*shown, "--layer", "X") == 0
    assert (ad.read_h5ad(tmp_path / "out.h5ad").obs["scrcl"] == expected).all()
    assert command(*shown, "--layer", "umi", "--overwrite") == 0
    assert not ad.read_h5ad(tmp_path / "out.h5ad").obs["scrcl_known"].any()
    # A zarr store is written as a whole, and keeps its own X.
    adata.layers["umi"], adata.X = adata.X, adata.layers["umi"]
    adata.write_zarr(tmp_path / "in.zarr")
    shown[2] = tmp_path / "in.zarr"
    assert command(*shown, "--layer", "umi", "--overwrite") == 0
    result = ad.read_h5ad(tmp_path / "out.h5ad")
    assert (result.obs["scrcl"] == expected).all()
    assert set(result.layers) - {None} == {"umi"}
    assert (result.X != adata.X).nnz == 0


@pytest.mark.slow
def test_predict_reads_raw_as_the_run_did(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adata = simulate(160)
    adata.raw = adata.copy()
    adata.X = adata.X.log1p()
    adata.write_h5ad("in.h5ad")
    assert command("run", "in.h5ad", "-o", "out.h5ad", "--raw", *SMALL, "--save-model", "m") == 0
    assert command("predict", "m", "in.h5ad", "-o", "same.h5ad") == 0
    run, same = ad.read_h5ad("out.h5ad"), ad.read_h5ad("same.h5ad")
    assert same.obs["scrcl_known"].all()
    assert (run.obs["scrcl"] == same.obs["scrcl"]).all()


def test_a_batch_column_that_is_missing(layered, tmp_path, capsys):
    adata = ad.read_h5ad(layered / "in.h5ad")
    del adata.obs["donor?x"]
    adata.write_h5ad(tmp_path / "in.h5ad")
    assert command("predict", layered / "model", tmp_path / "in.h5ad", "-o", tmp_path / "out.h5ad") == 1
    told = said(capsys)
    assert "donor?x" in told
    assert "model was trained" in told


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--n-clusters", "4", "--seed", "2"], ["--method", "leiden"]])
def test_predict_without_labels(tmp_path, monkeypatch, capsys, options):
    """Training cells get the clusters of the run, and new ones those of the model in Python, in its columns."""
    monkeypatch.chdir(tmp_path)
    adata = simulate(160)
    adata.write_h5ad("in.h5ad")
    assert command("run", "in.h5ad", "-o", "out.h5ad", "--epochs", "2", "--save-model", "m", *options) == 0
    assert command("predict", "m", "in.h5ad", "-o", "same.h5ad") == 0
    run, same = ad.read_h5ad("out.h5ad"), ad.read_h5ad("same.h5ad")
    assert (run.obs["scrcl"].astype(str) == same.obs["scrcl"].astype(str)).all()
    query = simulate(60, seed=5)
    query.write_h5ad("query.h5ad")
    capsys.readouterr()
    assert command("predict", "m", "query.h5ad", "-o", "new.h5ad", "--alpha", "0.05", "--json") == 0
    printed, new = json.loads(capsys.readouterr().out), ad.read_h5ad("new.h5ad")
    model = scrcl.SCRCL.load("m", adata=False)
    number, seed = (4, 2) if "4" in options else (None, 0)
    quality = model.get_mapping_quality(query, n_clusters=number, seed=seed)
    of_consensus = "--method" not in options
    for name in quality.columns.drop(["cluster"] if of_consensus else ["cluster", "confidence"]):
        np.testing.assert_array_equal(new.obs[f"scrcl_{name}"], quality[name])
    assert printed["outliers"] == quality["outlier"].sum()
    assert printed["clusters"] == {k: v for k, v in new.obs["scrcl"].value_counts().items() if v}
    assert ("scrcl_probability" in new.obs) == of_consensus
    if of_consensus:
        assert (new.obs["scrcl"].astype(str) == quality["cluster"].astype(str)).all()
        probabilities = model.get_cluster_probabilities(query, n_clusters=number, seed=seed)
        expected = [row[name] for (_, row), name in zip(probabilities.iterrows(), quality["cluster"], strict=True)]
        np.testing.assert_allclose(new.obs["scrcl_probability"], expected)
    assert "scrcl_type" not in new.obs


@pytest.mark.slow
def test_predict_in_space(tmp_path, monkeypatch):
    """Also that a picture of each slice is kept, whatever their names."""
    monkeypatch.chdir(tmp_path)
    adata = scrcl.datasets.layered_tissue(100)
    adata.obs["slice"] = adata.obs["slice"].cat.rename_categories(["a b", "a/b"])
    adata.write_h5ad("in.h5ad")
    options = ["--spatial-key", "spatial", "--sample-key", "slice", *SMALL, "--save-model", "m", "--plots", "p"]
    assert command("run", "in.h5ad", "-o", "out.h5ad", *options) == 0
    assert len(list((tmp_path / "p").glob("spatial_a_b*.png"))) == 2
    assert command("predict", "m", "in.h5ad", "-o", "same.h5ad") == 0
    run, same = ad.read_h5ad("out.h5ad"), ad.read_h5ad("same.h5ad")
    assert (run.obs["scrcl"] == same.obs["scrcl"]).all()


@pytest.mark.slow
def test_predict_of_modalities(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rna, prot = simulate(), simulate(n_genes=12, seed=0)
    rna.layers["counts"] = rna.X.copy()
    prot.var_names = [f"prot{number}" for number in range(12)]
    mudata.MuData({"rna": rna, "prot": prot}).write_h5mu("in.h5mu")
    options = ["--modalities", "rna=rna,prot=protein", "--layer", "rna=counts", *SMALL, "--save-model", "m"]
    assert command("run", "in.h5mu", "-o", "out.h5mu", *options) == 0
    assert command("predict", "m", "in.h5mu", "-o", "same.h5mu") == 0
    assert command("predict", "m", "in.h5mu", "-o", "x.h5mu", "--layer", "rna=X") == 0
    run, same, other = (mudata.read_h5mu(f"{name}.h5mu") for name in ("out", "same", "x"))
    assert (run.obs["scrcl"] == same.obs["scrcl"]).all()
    assert (run.obs["scrcl"] == other.obs["scrcl"]).all()
    assert set(other["rna"].layers) - {None} == {"counts"}  # anndata 0.13 lists X too


def test_a_model_that_is_not_trained(tmp_path, capsys):
    adata = simulate()
    adata.write_h5ad(tmp_path / "in.h5ad")
    scrcl.SCRCL.setup_anndata(adata)
    scrcl.SCRCL(adata).save(tmp_path / "m")
    assert command("predict", tmp_path / "m", tmp_path / "in.h5ad", "-o", tmp_path / "out.h5ad") == 1
    assert "is not trained" in said(capsys)


def test_a_file_of_other_modalities_than_the_model(layered, tmp_path, capsys):
    """The remedy is not an option that predict does not have."""
    mudata.MuData({"rna": simulate()}).write_h5mu(tmp_path / "in.h5mu")
    assert command("predict", layered / "model", tmp_path / "in.h5mu", "-o", tmp_path / "out.h5mu") == 1
    message = said(capsys)
    assert "trained on one" in message
    assert "write_h5ad('rna.h5ad')" in message
    assert "--modalities" not in message
