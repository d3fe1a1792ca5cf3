"""The report of a run, as it looks in a browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anndata as ad
import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.colors import to_rgb

import scrcl
from scrcl.cli import main
from scrcl.cli.composition import compose, measure, quality
from scrcl.cli.html_report import _code
from scrcl.cli.symbols import find_symbols
from scrcl.data.counts import Counts

from .helpers import simulate

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (360, 1400)
#: Pixels around a name in which there must be a dot of its cluster.
BESIDE = 10
#: Page that shows another one at some width, as windows are at least 500 pixels wide, and keeps what it says of itself.
FRAME = """
<!doctype html>
<body style="margin: 0">
<script>addEventListener("message", (it) => document.body.setAttribute("data-facts", encodeURIComponent(JSON.stringify(it.data))))</script>
<iframe src="PAGE" style="border: 0; display: block; width: WIDTHpx; height: HEIGHTpx"></iframe>
"""
#: Script that says what the browser sees.
MEASURE = """
<script>
const box = (node) => { const it = node.getBoundingClientRect(); return [it.left, it.top + scrollY, it.right, it.bottom + scrollY]; };
const outside = [...document.querySelectorAll("body *")].filter((it) => it.getBoundingClientRect().right > innerWidth + 1 && !it.closest(".wide"));
const facts = {
  inner: innerWidth, width: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight,
  outside: outside.map((it) => it.outerHTML.slice(0, 200)),
  tags: [...document.querySelectorAll(".tag")].map((it) => ({name: it.textContent, color: it.dataset.color, box: box(it)})),
  text: document.body.innerText,
};
parent.postMessage(facts, "*");
</script>
"""


def page_of(folder: Path, adata: ad.AnnData, *options: str) -> Path:
    """The report of a run on these data."""
    adata.write_h5ad(folder / "cells.h5ad")
    page = folder / "report.html"
    words = ["run", folder / "cells.h5ad", "-o", folder / "out.h5ad", "--epochs", 20, "--report", page, *options]
    assert main([str(word) for word in words]) == 0
    return page


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Labels of two of three types, two donors, identifiers of Ensembl, and damaged cells."""
    adata = simulate(240)
    rng = np.random.default_rng(0)
    damaged = np.arange(240) >= 215
    counts = adata.X.toarray()
    counts[damaged] = rng.binomial(counts[damaged].astype(int), 0.15)
    counts[:, -1] = rng.poisson(np.where(damaged, 30, 3))
    adata.X = sp.csr_matrix(counts.astype(np.float32))
    adata.var["feature_name"] = [*adata.var_names[:-1], "MT-CO1"]
    adata.var_names = [f"ENSG{number:011d}" for number in range(adata.n_vars)]
    types = adata.obs["cell_type"].map({"0": "T cell", "1": "B cell", "2": "Unknown"}).astype(str)
    adata.obs["type"] = types.where(np.arange(240) % 4 < 3, "Unknown")
    adata.obs["donor"] = np.where(types == "T cell", "d1", rng.choice(["d1", "d2"], 240))
    options = ("--labels-key", "type", "--unlabeled-category", "Unknown", "--batch-key", "donor")
    return page_of(tmp_path_factory.mktemp("labelled"), adata, *options)


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    """Domains of two slices, hardly supported."""
    adata = scrcl.datasets.layered_tissue(150)
    options = ("--spatial-key", "spatial", "--sample-key", "slice", "--n-clusters", "4")
    return page_of(tmp_path_factory.mktemp("tissue"), adata, *options)


@pytest.fixture
def page(request):
    return request.getfixturevalue(request.param)


def browse(page: Path, width: int, folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What a browser of some width sees: facts, and the pixels ``(height, width, 3)``."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    measured = folder / "measured.html"
    measured.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")

    def run(height: int, *options: str) -> str:
        frame = FRAME.replace("PAGE", measured.as_uri()).replace("WIDTH", str(width)).replace("HEIGHT", str(height))
        (folder / "frame.html").write_text(frame, encoding="utf-8")
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += [
            "--hide-scrollbars",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={max(width, 500)},{height}",
        ]
        command += ["--virtual-time-budget=5000", *options, (folder / "frame.html").as_uri()]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    facts = json.loads(unquote(re.search('data-facts="([^"]*)"', run(900, "--dump-dom"))[1]))  # type: ignore[index]
    run(facts["height"], f"--screenshot={folder / 'page.png'}")
    return facts, plt.imread(folder / "page.png")[:, :width, :3]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", ["labelled", "tissue"], indirect=True)
def test_in_a_browser(page, width, tmp_path):
    facts, pixels = browse(page, width, tmp_path)
    assert facts["inner"] == width
    assert facts["width"] <= width
    assert not facts["outside"]
    assert "`" not in facts["text"]
    assert "--report for" not in facts["text"]
    result = ad.read_h5ad(page.parent / "out.h5ad")
    assert sorted(tag["name"] for tag in facts["tags"]) == sorted(result.obs["scrcl"].astype(str).unique())
    for tag in facts["tags"]:
        left, top, right, bottom = tag["box"]
        assert left >= 0
        assert right <= width
        around = pixels[int(top) - BESIDE : int(bottom) + BESIDE, max(int(left) - BESIDE, 0) : int(right) + BESIDE]
        of_cluster = np.abs(around - np.array(to_rgb(tag["color"]))).max(2) < 0.05
        assert of_cluster.sum() >= 8, f"no dot of cluster {tag['name']} beside its name"
    boxes = [tag["box"] for tag in facts["tags"]]
    for number, (left, top, right, bottom) in enumerate(boxes):
        assert not [1 for a, b, c, d in boxes[:number] if left < c and right > a and top < d and bottom > b]


def text_of(page: Path) -> str:
    """The text of a page, without pictures and style."""
    html = page.read_text(encoding="utf-8")
    text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL)
    return " ".join(text.split())


SECTIONS = ["What is uncertain", "Names", "Tree of clusters", "Quality control", "Batches and samples", "Settings"]


@pytest.mark.parametrize("page", ["labelled", "tissue"], indirect=True)
def test_sections(page):
    html = page.read_text(encoding="utf-8")
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", html)
    assert [name for name in headings if name in SECTIONS] == SECTIONS


def test_labels_are_shown(labelled):
    text = text_of(labelled)
    types = ad.read_h5ad(labelled.parent / "out.h5ad").obs["scrcl_type"].astype(str)
    assert "a model that also learned from the labels in type" in text
    assert "without labels" not in text
    for name, size in types.value_counts().items():
        assert f"{name} {size}" in text
    assert "What is new" in text
    assert "Confusions" in text
    new = types[types.str.startswith("new")]
    assert len(new)
    assert f"{len(new)} cells in {new.nunique()} group" in text
    names = re.search("Names cluster name why (.*?) Tree of clusters", text)
    assert names is not None
    assert "T cell" in names[1]
    assert "labelled cells are labelled B cell" in names[1]


def test_symbols_are_shown(labelled):
    text = text_of(labelled)
    assert re.search(r"\bgene\d+, gene\d+", text)
    assert "ENSG" not in text


def test_quality_of_cells(labelled):
    """The medians of the table, computed anew."""
    result = ad.read_h5ad(labelled.parent / "out.h5ad")
    totals = pd.Series(np.asarray(result.X.sum(1)).ravel(), result.obs_names)
    mitochondrial = np.asarray(result.X[:, -1].todense()).ravel() / totals
    table = re.search("Quality control cluster counts genes mitochondrial (.*?) Medians", text_of(labelled))
    assert table is not None
    for name, cells in result.obs.groupby("scrcl", observed=True).groups.items():
        row = f"{name} {totals[cells].median():,.0f} "
        assert row in table[1]
        assert f"{mitochondrial[cells].median():.1%}" in table[1]


def test_batches_by_cluster(labelled):
    result = ad.read_h5ad(labelled.parent / "out.h5ad")
    counts = pd.crosstab(result.obs["scrcl"], result.obs["donor"])
    single = [name for name in counts.index if counts.loc[name, "d2"] == 0]
    assert single
    text = text_of(labelled)
    assert "nearly only in one donor" in text
    assert all(f" {name} (100% in d1)" in text for name in single)
    assert "Mixing of batches among similar cells" in text


def test_domains_are_not_called_clusters(tissue):
    text = text_of(tissue)
    assert text.count("domain") > 10
    # What remains is of the tree of clusters.
    assert not re.search(r"\d clusters|[Cc]luster \d|clusters? (found|asked)", text)
    assert "n_spatial_neighbors" in text


def test_several_modalities_with_few_labels(tmp_path):
    """Also one label only, and counts of one thing."""
    rna, protein = simulate(60, 60), simulate(60, 12, seed=1)
    protein.var_names = [f"p{number}" for number in range(12)]
    mdata = mudata.MuData({"rna": rna, "prot": protein})
    mdata.obs["type"] = ["T cell"] * 4 + ["Unknown"] * 56
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    page = tmp_path / "report.html"
    words = ["run", tmp_path / "cells.h5mu", "-o", tmp_path / "out.h5mu", "--epochs", 1, "--report", page]
    words += ["--modalities", "rna=rna,prot=protein", "--labels-key", "type", "--unlabeled-category", "Unknown"]
    assert main([str(word) for word in words]) == 0
    text = text_of(page)
    assert "60 cells 60 features of rna 12 features of prot 1 type " in text
    assert "modalities rna: rna, prot: protein" in text
    assert "Few cells are labelled T cell (4 cells): predictions of this type are uncertain" in text
    assert not re.search(r"\b1 (types|cells|clusters|features)\b", text)


def test_no_defaults_of_space_without_space(labelled):
    assert "spatial" not in text_of(labelled)
    assert not [
        name for name in ad.read_h5ad(labelled.parent / "out.h5ad").uns["scrcl_run"]["parameters"] if "smooth" in name
    ]


def test_what_is_written_is_named(tmp_path, capsys):
    adata = simulate(60, 60)
    adata.obs["type"] = adata.obs["cell_type"].astype(str)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    command = [
        "run",
        str(tmp_path / "cells.h5ad"),
        "-o",
        str(tmp_path / "out.h5ad"),
        "--epochs",
        "1",
        "--n-clusters",
        "2",
    ]
    assert main([*command, "--labels-key", "type"]) == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    result = ad.read_h5ad(tmp_path / "out.h5ad")
    named = re.findall(r"(obsm|obs|uns)\['(\w+)'\]", last)
    assert all(key in getattr(result, slot) for slot, key in named)
    assert {key for slot, key in named if slot == "obs"} == {"scrcl", "scrcl_type", "scrcl_type_confidence"}


class TestComposition:
    def test_shares_as_if_batches_were_of_one_size(self):
        """Of 30 cells of "a" and 10 of "b", by hand."""
        clusters = pd.Series(["0"] * 30 + ["1"] * 10)
        obs = pd.DataFrame({"plate": ["a"] * 25 + ["b"] * 5 + ["a"] * 5 + ["b"] * 5})
        (found,) = compose(clusters, obs, {"plate": True})
        assert found.corrected
        assert found.shares["0"] == pytest.approx({"a": 25 / 30 / (25 / 30 + 0.5), "b": 0.5 / (25 / 30 + 0.5)})
        assert found.shares["1"] == pytest.approx({"a": 0.25, "b": 0.75})
        assert found.only_in == {}

    def test_clusters_of_one_batch(self):
        (found,) = compose(pd.Series(list("0011")), pd.DataFrame({"donor": list("abbb")}), {})
        assert found.only_in == {"1": "b"}
        assert not found.corrected

    def test_numbers_and_missing_samples(self):
        obs = pd.DataFrame({"plate": [1.0, 2.0, None, 1.0, 2.0, 1.0]})
        (found,) = compose(pd.Series(list("000111")), obs, {"plate": True})
        assert found.names == ["1", "2"]
        assert found.shares["0"] == pytest.approx({"1": 0.4, "2": 0.6})

    def test_many_batches_that_were_named(self):
        obs = pd.DataFrame({"batch": [str(number % 40) for number in range(400)]})
        clusters = pd.Series(["0", "1"] * 200)
        assert compose(clusters, obs, {}) == []
        assert len(compose(clusters, obs, {"batch": True})[0].names) == 40

    @pytest.mark.parametrize("names", [["a"] * 60, [str(number) for number in range(60)]])
    def test_columns_that_say_nothing_are_left_out(self, names):
        assert compose(pd.Series(["0", "1"] * 30), pd.DataFrame({"batch": names}), {}) == []


class TestQuality:
    def test_by_hand(self):
        matrix = sp.csr_matrix(np.array([[1, 1, 2], [0, 0, 5], [9, 0, 1]], np.float32))
        obs = pd.DataFrame({"predicted_doublet": [True, False, False]})
        cells = measure(Counts.of(matrix, "adata.X"), pd.Index(["A", "B", "mt-Co1"]), obs)
        assert cells["counts"].tolist() == [4, 5, 10]
        assert cells["genes"].tolist() == [3, 1, 2]
        np.testing.assert_allclose(cells["mitochondrial"], [0.5, 1, 0.1])
        assert cells["doublet score"].tolist() == [1, 0, 0]
        found = quality(cells, pd.Series(["0", "1", "0"]))
        assert list(found) == ["", "0", "1"]
        assert found["0"]["counts"] == 7
        assert found[""]["genes"] == 2

    def test_without_mitochondrial_genes_and_doublets(self):
        cells = measure(
            Counts.of(np.ones((2, 2), np.float32), "adata.X"), pd.Index(["A", "B"]), pd.DataFrame(index=[0, 1])
        )
        assert list(cells) == ["counts", "genes"]


class TestSymbols:
    @pytest.mark.parametrize("column", ["gene_symbols", "feature_name", "gene_short_name", "Symbol"])
    @pytest.mark.parametrize("names", [["ENSG00000000001", "ENSG00000000002.5"], ["ENSMUSG00000000001", "FBgn0000001"]])
    def test_identifiers_are_replaced(self, column, names):
        assert find_symbols(pd.DataFrame({column: ["INS", "GCG"]}, names)) == dict(
            zip(names, ["INS", "GCG"], strict=True)
        )

    def test_shared_and_missing_symbols(self):
        names = [f"ENSG{number:011d}" for number in range(4)]
        symbols = pd.Categorical(["MATR3", "MATR3", None, ""])
        assert find_symbols(pd.DataFrame({"gene_name": symbols}, names)) == {
            names[0]: f"MATR3 ({names[0]})",
            names[1]: f"MATR3 ({names[1]})",
        }

    @pytest.mark.parametrize("var", [{"gene_symbols": ["INS", "GCG"]}, {"chromosome": ["1", "2"]}])
    def test_names_that_are_no_identifiers_stay(self, var):
        names = ["INS", "GCG"] if "gene_symbols" in var else ["ENSG00000000001", "ENSG00000000002"]
        assert find_symbols(pd.DataFrame(var, names)) == {}


def test_code_in_messages_is_marked_up():
    assert str(_code("Pass `<b>` & `--x`.")) == "Pass <code>&lt;b&gt;</code> &amp; <code>--x</code>."


def test_names_from_lists(tmp_path, capsys):
    """Names by symbols, where the data have identifiers; in obs, in the report and in the last line."""
    adata = simulate()
    adata.var["gene_symbols"] = adata.var_names
    adata.var_names = [f"ENSG{number:011d}" for number in range(adata.n_vars)]
    lists = {f"type {kind}": [f"gene{40 * kind + number}" for number in range(6)] for kind in range(3)}
    (tmp_path / "lists.json").write_text(json.dumps(lists))
    page = page_of(tmp_path, adata, "--names", str(tmp_path / "lists.json"), "--n-clusters", "3")
    result = ad.read_h5ad(tmp_path / "out.h5ad")
    assert (result.obs["scrcl_name"].astype(str) == "type " + result.obs["cell_type"].astype(str)).mean() > 0.95
    assert "obs['scrcl_name']" in capsys.readouterr().out.splitlines()[-1]
    names = re.search("Names cluster name why (.*?) Tree of clusters", text_of(page))
    assert names is not None
    for cluster, cells in result.obs.groupby("scrcl", observed=True):
        assert f"{cluster} {cells['scrcl_name'].mode()[0]} " in names[1]
