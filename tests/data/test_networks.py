import logging
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scrcl
from scrcl.data.networks import check_identifiers, read_gene_sets, read_network

from ..helpers import build, simulate

GENES = pd.Index(["A", "B", "C", "D", "E"])
EDGES = pd.DataFrame(
    {"source": ["A", "B", "A", "X", "C"], "target": ["B", "A", "C", "A", "C"], "weight": [1, -3, 2, 1, 1]}
)
#: A-B at the stronger weight of both directions, A-C; the loop and the unknown gene are left out.
EXPECTED = np.zeros((5, 5))
EXPECTED[0, 1] = EXPECTED[1, 0] = 3
EXPECTED[0, 2] = EXPECTED[2, 0] = 2


@pytest.mark.parametrize("form", ["decoupler", "omnipath", "positions", "csv", "tsv without header"])
def test_forms_of_a_network(form, tmp_path):
    source: Any = EDGES
    if form == "omnipath":
        # OmniPath has UniProt accessions in source and target, beside the symbols.
        renamed = EDGES.rename(columns={"source": "source_genesymbol", "target": "target_genesymbol"})
        source = renamed.assign(source="P01308", target="P01275")
    elif form == "positions":
        source = EDGES.set_axis(["from", "to", "weight"], axis=1)
    elif form == "csv":
        source = tmp_path / "network.csv"
        EDGES.to_csv(source, index=False)
    elif form == "tsv without header":
        source = str(tmp_path / "network.tsv")
        EDGES.to_csv(source, index=False, header=False, sep="\t")
    network = read_network(source, GENES, GENES)
    np.testing.assert_array_equal(network.similarity.toarray(), EXPECTED)
    assert network.unknown.tolist() == ["X"]
    assert (network.n_genes, network.n_pairs, network.form) == (4, 2, "network")


SETS = {"one": ["A", "B", "C"], "two": ["A", "B"], "three": ["Y"]}


@pytest.mark.parametrize("form", ["dictionary", "gmt", "table"])
def test_forms_of_gene_sets(form, tmp_path):
    source: Any = SETS
    if form == "gmt":
        source = tmp_path / "sets.gmt"
        source.write_text(
            "".join(f"{name}\tno link\t" + "\t".join(genes) + "\n" for name, genes in SETS.items()) + "\n"
        )
        assert read_gene_sets(source, "markers") == SETS
    elif form == "table":
        source = pd.DataFrame(
            [(name, gene) for name, genes in SETS.items() for gene in genes], columns=["source", "target"]
        )
        assert read_gene_sets(source, "markers") == SETS
    network = read_network(source, GENES, GENES)
    # A pair in a set of m genes is tied by 1 / (m - 1).
    expected = np.zeros((5, 5))
    expected[:3, :3] = 0.5
    expected[[0, 1], [1, 0]] = 1.5
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(network.similarity.toarray(), expected)
    assert network.form == "gene sets"
    assert network.unknown.tolist() == ["Y"]


DATA = pd.Index(["Ins1", "Ins2", "Gcg", "Sst"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["INS1", "INS2", "Gcg"], "differ from the genes of the data by case.*'INS1', the data have 'Ins1'.*organism"),
        (["ENSMUSG00000035804", "ENSMUSG00000000215"], "net has 'ENSMUSG00000035804', the data have 'Ins1'.*Map"),
        (["Foo", "Bar"], "None of the 2 genes of net is in the data.*'Foo', the data have 'Ins1'"),
        ([], "net names no gene"),
    ],
)
def test_other_identifiers(given, message):
    with pytest.raises(ValueError, match=message):
        check_identifiers(given, DATA, "net")


def test_version_of_identifiers():
    with pytest.raises(ValueError, match="by case or version"):
        check_identifiers(["ENSG00000141510.2"], pd.Index(["ENSG00000141510", "ENSG00000000003"]), "net")


def test_names_that_fit_are_accepted():
    check_identifiers(["Ins1", "Foo", "INS2"], DATA, "net")
    check_identifiers(
        ["Ins1", *(f"Foo{i}" for i in range(50))], pd.Index([*DATA, *(f"Bar{i}" for i in range(50))]), "net"
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (EDGES[:0], "has no edges"),
        (EDGES[["source"]], "not the two ends of an edge"),
        (EDGES.assign(weight="much"), "weights that are not numbers"),
        (EDGES.assign(weight=np.nan), "NaN or infinite weights"),
        (pd.DataFrame({"source": ["A"], "target": ["A"]}), "joins no two of the genes"),
        ("nothing.gmt", "is not a file"),
        ("nothing.csv", "is not a file"),
        ({}, "holds no set"),
        ({"a": "ABC"}, "Pass a dictionary of lists"),
        (3, "Pass a dictionary of lists"),
    ],
)
def test_bad_networks(wrong, message):
    with pytest.raises(ValueError, match=message):
        read_network(wrong, GENES, GENES)


def test_bad_files(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("one\tA\n")
    with pytest.raises(ValueError, match="line of 'one' has 2 fields"):
        read_network(path, GENES, GENES)
    path = tmp_path / "edges.csv.gz"
    path.write_bytes(b"no gzip")
    with pytest.raises(ValueError, match=r"cannot be read as a table: Not a gzipped file"):
        read_network(path, GENES, GENES)
    path = tmp_path / "edges.csv"
    path.write_text("")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        read_network(path, GENES, GENES)
    path.write_text("A\nB\n")
    with pytest.raises(ValueError, match="one column only"):
        read_network(path, GENES, GENES)


def edges_of_the_data() -> pd.DataFrame:
    return pd.DataFrame({"source": [f"gene{i}" for i in range(60)], "target": [f"gene{i + 60}" for i in range(60)]})


class TestModel:
    def test_replaced_graph(self):
        adata = simulate()
        build(adata, gene_network=edges_of_the_data(), gene_network_mode="replace")
        kept = adata.var["scrcl_genes"].to_numpy(dtype=float)
        expected = np.diag(kept)
        expected[np.arange(60), np.arange(60, 120)] = expected[np.arange(60, 120), np.arange(60)] = (
            kept[:60] * kept[60:]
        )
        np.testing.assert_array_equal(adata.varp["scrcl_gene_graph"].toarray(), expected)
        assert adata.uns["scrcl"]["gene_network"] == "replace"

    def test_joined_graph(self):
        plain, joined = simulate(), simulate()
        build(plain)
        build(joined, gene_network=edges_of_the_data())
        own, both = (a.varp["scrcl_gene_graph"].toarray() for a in (plain, joined))
        expected = own.copy()
        kept = plain.var["scrcl_genes"].to_numpy()
        ends = np.flatnonzero(kept[:60] & kept[60:])
        expected[ends, ends + 60] = expected[ends + 60, ends] = 1
        np.testing.assert_array_equal(both, expected)

    def test_network_has_an_effect(self):
        embeddings = [
            build(simulate(), gene_network=network).get_gene_embedding() for network in (None, edges_of_the_data())
        ]
        assert not np.allclose(embeddings[0], embeddings[1])

    def test_unknown_genes_are_reported(self, tmp_path, caplog):
        adata = simulate()
        network = pd.concat([edges_of_the_data(), pd.DataFrame({"source": ["gene1"], "target": ["Trp53"]})])
        logger = logging.getLogger("scvi")
        caplog.set_level(logging.INFO, logger="scvi")
        propagate, logger.propagate = logger.propagate, True
        try:
            build(adata, gene_network=network)
        finally:
            logger.propagate = propagate
        assert "1 of its 121 genes is not in the data: Trp53" in caplog.text
        adata.write_h5ad(tmp_path / "a.h5ad")
        report = ad.read_h5ad(tmp_path / "a.h5ad").uns["scrcl_gene_network"]
        assert list(report["unknown"]) == ["Trp53"]
        assert (report["genes"], report["pairs"], report["mode"]) == (121, 59, "join")  # one gene varies in no cell

    def test_report_without_unknown_genes_can_be_written(self, tmp_path):
        adata = simulate()
        build(adata, gene_network=edges_of_the_data())
        adata.write_h5ad(tmp_path / "a.h5ad")
        build(adata)
        assert "scrcl_gene_network" not in adata.uns

    @pytest.mark.parametrize("with_data", [True, False])
    def test_saved_with_the_model(self, tmp_path, with_data):
        adata = simulate()
        model = build(adata, gene_network=edges_of_the_data(), gene_network_mode="replace")
        model.save(tmp_path / "model")
        loaded = scrcl.SCRCL.load(tmp_path / "model", adata=adata.copy() if with_data else False)
        pd.testing.assert_frame_equal(loaded.get_gene_embedding(), model.get_gene_embedding())
        assert not isinstance(loaded.init_params_["non_kwargs"]["gene_network"], pd.DataFrame)
        loaded.train(1, enable_progress_bar=False)

    def test_errors_come_before_any_work(self):
        adata = simulate()
        scrcl.SCRCL.setup_anndata(adata)
        with pytest.raises(ValueError, match="differ from the genes of the data by case"):
            scrcl.SCRCL(adata, gene_network=pd.DataFrame({"source": ["GENE1"], "target": ["GENE2"]}))
        with pytest.raises(ValueError, match="gene_network_mode=.* is not valid"):
            scrcl.SCRCL(adata, gene_network=edges_of_the_data(), gene_network_mode="add")  # type: ignore[arg-type]
        assert "X_scrcl_features" not in adata.obsm
