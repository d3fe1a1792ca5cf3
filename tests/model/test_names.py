"""Names of clusters, from lists and hierarchies of markers, by any names of genes."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scrcl
from scrcl.utils.errors import ScrclWarning

from ..helpers import build, marked, simulate

#: Type 0 and 1 are kinds of "a", type 2 is of "b"; the genes of each type, most specific first.
HIERARCHY = {"a0": "a", "a1": "a"}
WEIGHTED = {
    "a": {gene: 1.0 for kind in (0, 1) for gene in sorted(marked(kind))[:8]},
    "a0": {gene: 1 + 0.1 * rank for rank, gene in enumerate(sorted(marked(0)))},
    "a1": {gene: 1 + 0.1 * rank for rank, gene in enumerate(sorted(marked(1)))},
    "b": {gene: 1 + 0.1 * rank for rank, gene in enumerate(sorted(marked(2)))},
}


@pytest.fixture(scope="module")
def few_kept() -> scrcl.SCRCL:
    """A model that keeps 30 of 120 genes; no test may change it or its data."""
    return build(simulate(), epochs=5, n_top_genes=30)


class TestNames:
    LISTS = {"first": sorted(marked(0))[:6], "second": sorted(marked(1))[:6]}

    def test_right_names_and_none(self, model):
        found = model.get_cluster_names(self.LISTS, groupby="cell_type")
        assert found["label"].is_unique
        assert found["name"].tolist() == ["first", "second", "none of these"]
        assert (found["confidence"][:2] > 0.75).all()
        assert found["reason"].tolist() == ["", "", "No gene of the lists is higher here than in the other clusters."]
        speaking = found.loc["0", "genes"].split(", ")
        assert len(speaking) >= 4
        assert set(speaking) <= set(self.LISTS["first"])

    def test_no_confidence_beside_none(self, model):
        found = model.get_cluster_names(self.LISTS, groupby="cell_type")
        assert (found["confidence"].isna() == (found["name"] == "none of these")).all()

    def test_genes_that_are_not_kept_are_scored(self, few_kept):
        kept = set(few_kept._reference.genes)
        lists = {f"type {kind}": sorted(marked(kind) - kept)[:5] for kind in range(3)}
        assert all(len(genes) == 5 for genes in lists.values())
        found = few_kept.get_cluster_names(lists, groupby="cell_type")
        assert found["name"].tolist() == ["type 0", "type 1", "type 2"]
        assert found["missing"].tolist() == ["", "", ""]

    def test_score_does_not_depend_on_what_is_kept(self, model, few_kept):
        left, right = (it.get_cluster_names(self.LISTS, groupby="cell_type") for it in (model, few_kept))
        pd.testing.assert_frame_equal(left, right, rtol=1e-3)

    def test_missing_genes_are_named(self, model):
        lists = {"first": [*sorted(marked(0))[:6], "Foo"], "nothing": ["Bar"]}
        with pytest.warns(ScrclWarning, match="1 list of which the data have no gene: 'nothing'"):
            found = model.get_cluster_names(lists, groupby="cell_type")
        assert found.attrs["missing"] == {"first": ["Foo"], "nothing": ["Bar"]}
        assert found.attrs["used"] == {"first": 6, "nothing": 0}
        assert found.loc["0", "name"] == "first"
        assert found.loc["0", "missing"] == "Foo"

    def test_another_case_is_read_with_a_warning(self, model):
        lists = {"first": [*sorted(marked(0))[:6], "GENE30"]}
        with pytest.warns(ScrclWarning, match=r"another case: 'GENE30' \('gene30'\)"):
            found = model.get_cluster_names(lists, groupby="cell_type")
        assert found.attrs["missing"] == {"first": []}

    def test_after_load(self, model, tmp_path):
        expected = model.get_cluster_names(self.LISTS, groupby="cell_type")
        model.save(tmp_path / "model")
        loaded = scrcl.SCRCL.load(tmp_path / "model", adata=simulate())
        pd.testing.assert_frame_equal(loaded.get_cluster_names(self.LISTS, groupby="cell_type"), expected, rtol=1e-3)

    def test_new_cells_with_other_genes(self, model):
        """Cells of another experiment, in another order of genes, one of which is missing and one new."""
        adata = simulate(seed=1)
        order = np.random.default_rng(0).permutation(120)
        gone = self.LISTS["first"][0]
        adata = adata[:, order]
        adata = adata[:, adata.var_names != gone].copy()
        with pytest.warns(UserWarning, match="missing"):
            names = model.get_cluster_names(self.LISTS, adata)
        assert names["missing"][names["best"] == "first"].iloc[0] == gone
        adata.obs["cell_type"] = adata.obs["cell_type"].where(adata.obs["cell_type"] != "2")
        found = model.get_cluster_names(self.LISTS, adata, "cell_type")
        assert found["name"].tolist() == ["first", "second"]

    def test_counts_in_a_file(self, model, tmp_path):
        simulate().write_h5ad(tmp_path / "a.h5ad")
        backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
        found = model.get_cluster_names(self.LISTS, backed, "cell_type")
        backed.file.close()
        pd.testing.assert_frame_equal(found, model.get_cluster_names(self.LISTS, groupby="cell_type"), rtol=1e-3)

    def test_random_lists_have_no_name(self, model):
        rng = np.random.default_rng(0)
        adata = simulate()
        adata.X = sp.csr_matrix(rng.permuted(adata.X.toarray(), axis=0))
        lists = {str(number): rng.choice(adata.var_names, 4, replace=False).tolist() for number in range(10)}
        found = model.get_cluster_names(lists, adata, "cell_type")
        assert (found["name"] == "none of these").all()
        assert (found["reason"] != "").all()

    def test_needs_no_refinement_but_training(self):
        adata = simulate()
        scrcl.SCRCL.setup_anndata(adata)
        untrained = scrcl.SCRCL(adata, n_hidden=8)
        with pytest.raises(RuntimeError, match="train"):
            untrained.get_cluster_names(self.LISTS, groupby="cell_type")
        untrained.train(1, plan_kwargs={"cross_view_weight": 0}, enable_progress_bar=False)
        found = untrained.get_cluster_names(self.LISTS, groupby="cell_type")
        assert found["name"].tolist() == ["first", "second", "none of these"]


class TestLevels:
    def test_the_finest_name_and_its_path(self, model):
        found = model.get_cluster_names(WEIGHTED, groupby="cell_type", hierarchy=HIERARCHY)
        assert found["name"].tolist() == ["a0", "a1", "b"]
        assert found["path"].tolist() == ["a > a0", "a > a1", "b"]
        assert (found["confidence"] >= 0.8).all()
        assert set(str(found.loc["0", "genes"]).split(", ")) <= marked(0)
        assert "cell_type_ontology_term_id" not in found

    def test_the_parent_where_the_children_are_alike(self, model):
        alike = WEIGHTED | {"a0": WEIGHTED["a"], "a1": WEIGHTED["a"]}
        found = model.get_cluster_names(alike, groupby="cell_type", hierarchy=HIERARCHY)
        # In so few genes, half of which mark a type, random sets score as high as the first.
        assert found["name"].tolist()[1:] == ["a", "b"]
        assert str(found.loc["1", "reason"]).startswith(("a0 and a1 fit about as well", "No name below a"))

    def test_unsure_where_hardly_any_marker_is_up(self, model):
        few = {
            "x": {**dict.fromkeys(sorted(marked(0))[:2], 1.0), **{f"gene{i}": 1.1 for i in range(25, 40)}},
            "b": WEIGHTED["b"],
        }
        found = model.get_cluster_names(few, groupby="cell_type")
        assert found["name"].tolist() == ["unsure", "unsure", "b"]
        assert found["confidence"].isna().tolist() == [True, True, False]
        assert found.loc["0", "reason"]

    def test_a_parent_needs_no_genes_of_its_own(self, model):
        lists = {name: list(genes) for name, genes in WEIGHTED.items() if name != "a"}
        found = model.get_cluster_names(lists, groupby="cell_type", hierarchy=HIERARCHY)
        assert found["path"].tolist() == ["a > a0", "a > a1", "b"]

    def test_weights_of_a_table_of_decoupler(self, model):
        rows = [
            (name, gene, weight) for name, genes in WEIGHTED.items() if name != "a" for gene, weight in genes.items()
        ]
        table = pd.DataFrame(rows, columns=["source", "target", "weight"])
        found = model.get_cluster_names(table, groupby="cell_type")
        assert found["name"].tolist() == ["a0", "a1", "b"]

    def test_random_counts_have_no_name(self, model):
        adata = simulate()
        adata.X = sp.csr_matrix(np.random.default_rng(0).permuted(adata.X.toarray(), axis=0))
        assert (model.get_cluster_names(WEIGHTED, adata, "cell_type", hierarchy=HIERARCHY)["name"] == "unsure").all()

    def test_nested_clusters_agree_with_their_parents(self, model):
        tree = model.get_cluster_tree(evidence=False)
        found = model.get_cluster_names(WEIGHTED, hierarchy=HIERARCHY, tree=tree)
        assert list(found.index) == list(tree.sizes.index)
        names, nested = tree.names, tree.nested
        named = 0
        for split, sides in enumerate(nested.sides):
            parent, children = names[nested.n_leaves + split], names[sides]
            for child in children:
                if found.loc[parent, "name"] != "unsure" and found.loc[child, "name"] != "unsure":
                    assert str(found.loc[child, "path"]).startswith(str(found.loc[parent, "path"]))
                    named += 1
        assert named
        clusters = model.get_cluster_names(WEIGHTED, hierarchy=HIERARCHY)
        assert found.loc[clusters.index, "name"].tolist() == clusters["name"].tolist()

    def test_clusters_above_have_a_name_only_if_all_that_are_named_below_share_it(self, model):
        """Two of three names have nothing in common, so their union has no name, and neither has the whole, whatever the third is."""
        lists = {name: WEIGHTED[name] for name in ("a0", "a1", "b")}
        found = model.get_cluster_names(lists, tree=model.get_cluster_tree(evidence=False))
        above = found.index[found.index.str.contains("+", regex=False) | (found.index == "all")]
        below = {name: found.loc[found.index.str.fullmatch(r"\d+"), "name"] for name in above}
        assert len(set(below["all"]) - {"unsure"}) > 1
        for name in above:
            parts = below["all"] if name == "all" else below["all"][name.split("+")]
            named = set(parts) - {"unsure"}
            assert found.loc[name, "name"] == (named.pop() if len(named) == 1 else "unsure")

    def test_names_of_cells_are_written_on_request(self, model):
        adata = simulate()
        found = model.get_cluster_names(WEIGHTED, adata, "cell_type", hierarchy=HIERARCHY, key_added="name")
        assert adata.obs["name"].astype(str).tolist() == found["name"].reindex(adata.obs["cell_type"]).tolist()
        assert adata.uns["scrcl_names"]["markers"] == "passed by the user"
        assert "cell_type_ontology_term_id" not in adata.obs


class TestGenes:
    LISTS = {"first": sorted(marked(0))[:6], "second": sorted(marked(1))[:6]}

    @pytest.mark.parametrize(
        "rename",
        [
            lambda name: name.upper(),
            lambda name: f"GRCh38_{name}",
            lambda name: f"{name}.7",
            lambda name: f"ENSG{int(name[4:]):011d}_{name}",
        ],
        ids=["case", "genome", "version", "identifier"],
    )
    def test_lists_that_are_written_otherwise(self, model, rename):
        lists = {name: [rename(gene) for gene in genes] for name, genes in self.LISTS.items()}
        with pytest.warns(ScrclWarning, match="12 genes that the data have"):
            found = model.get_cluster_names(lists, groupby="cell_type")
        assert found["name"].tolist() == ["first", "second", "none of these"]
        assert found.attrs["used"] == {"first": 6, "second": 6}

    def test_a_column_of_symbols(self, model):
        adata = simulate()
        adata.var["symbol"] = [f"S{name[4:]}" for name in adata.var_names]
        lists = {name: [f"S{gene[4:]}" for gene in genes] for name, genes in self.LISTS.items()}
        with pytest.raises(ValueError, match="pass `gene_symbols='symbol'`"):
            model.get_cluster_names(lists, adata, "cell_type")
        found = model.get_cluster_names(lists, adata, "cell_type", gene_symbols="symbol")
        assert found["name"].tolist() == ["first", "second", "none of these"]
        assert set(str(found.loc["0", "genes"]).split(", ")) <= set(lists["first"])
        with pytest.raises(KeyError, match=r"gene_symbols='symbl' is not in adata.var.*Did you mean 'symbol'"):
            model.get_cluster_names(lists, adata, "cell_type", gene_symbols="symbl")

    def test_orthologs(self, model):
        lists = {name: [f"Ortholog{gene[4:]}" for gene in genes] for name, genes in self.LISTS.items()}
        table = pd.DataFrame({"mouse": [f"Ortholog{i}" for i in range(120)], "fish": [f"gene{i}" for i in range(120)]})
        for orthologs in (table, table[["fish", "mouse"]], dict(zip(table["mouse"], table["fish"], strict=True))):
            found = model.get_cluster_names(lists, groupby="cell_type", orthologs=orthologs)
            assert found["name"].tolist() == ["first", "second", "none of these"]

    def test_lists_of_a_json_file(self, model, tmp_path):
        (tmp_path / "lists.json").write_text(json.dumps(self.LISTS))
        found = model.get_cluster_names(tmp_path / "lists.json", groupby="cell_type")
        assert found["name"].tolist() == ["first", "second", "none of these"]


class TestForms:
    """Lists as they are in files of others."""

    LISTS = TestNames.LISTS

    def test_missing_values_and_space_around_names(self, model):
        untidy = {name: [*(f" {gene}" for gene in genes), None, np.nan, ""] for name, genes in self.LISTS.items()}
        tidy = model.get_cluster_names(self.LISTS, groupby="cell_type")
        pd.testing.assert_frame_equal(model.get_cluster_names(untidy, groupby="cell_type"), tidy)

    def test_weights_of_names_with_space_around_them(self, model):
        untidy = {name: {f" {gene} ": weight for gene, weight in genes.items()} for name, genes in WEIGHTED.items()}
        tidy = model.get_cluster_names(WEIGHTED, groupby="cell_type", hierarchy=HIERARCHY)
        found = model.get_cluster_names(untidy, groupby="cell_type", hierarchy=HIERARCHY)
        pd.testing.assert_frame_equal(found, tidy)

    @pytest.mark.parametrize("columns", [("cell type", "official gene symbol"), ("cell_name", "Symbol")])
    def test_tables_of_panglaodb_and_cellmarker(self, model, columns):
        rows = [(name, gene, "Hs") for name, genes in self.LISTS.items() for gene in genes]
        table = pd.DataFrame(rows, columns=[*columns, "species"])
        found = model.get_cluster_names(table, groupby="cell_type")
        assert found["name"].tolist() == ["first", "second", "none of these"]

    def test_no_parent_in_a_hierarchy(self, model):
        found = model.get_cluster_names(WEIGHTED, groupby="cell_type", hierarchy={**HIERARCHY, "a": None, "b": None})
        expected = model.get_cluster_names(WEIGHTED, groupby="cell_type", hierarchy=HIERARCHY)
        pd.testing.assert_frame_equal(found, expected)


class TestBadInput:
    @pytest.mark.parametrize(
        ("markers", "arguments", "error", "message"),
        [
            ("cellconcensus", {}, ValueError, "markers='cellconcensus' is neither a file nor .* Did you mean 'cellconsensus'"),
            ({"a": []}, {}, ValueError, "1 list without a gene: 'a'.*leave it out"),
            ({"a": ["gene1"], "b": ["gene2"]}, {"hierarchy": {"a": "b", "b": "a"}}, ValueError, "hierarchy has a cycle: .*a.*b"),
            ({"a": ["gene1"]}, {"hierarchy": {"a": "a"}}, ValueError, "hierarchy has a cycle: a > a"),
            ({"alpha": ["gene1"]}, {"hierarchy": {"alhpa": "x"}}, ValueError, "'alhpa', which is not a name.*Did you mean 'alpha'"),
            ({"a": ["gene1"]}, {"hierarchy": [("a", "b")]}, TypeError, "hierarchy is of type list"),
            ({"a": {"gene1": -1.0, "gene2": 2.0}}, {}, ValueError, "weights that are not positive"),
            ({"a": {"gene1": "x", "gene2": 2.0}}, {}, ValueError, "weights that are not numbers"),
            ({"a": ["gene1"]}, {"orthologs": {"mouse1": "gene2"}}, ValueError, "orthologs has none of the genes"),
            ({"a": ["gene1"]}, {"orthologs": 3}, TypeError, "orthologs is of type int"),
            ({"a": ["gene1"]}, {"orthologs": "no.csv"}, ValueError, "orthologs='no.csv' cannot be read"),
            ("no.json", {}, ValueError, "markers='no.json' is not a file"),
            ({"a": None}, {}, ValueError, "markers has None for 'a', not a list of genes"),
            ({"a": [None, " "]}, {}, ValueError, "1 list without a gene: 'a'"),
            ({"all": {"a": ["gene1"]}}, {}, ValueError, "markers has lists within 'all'.*as `hierarchy`"),
            ({"a": ["gene1"]}, {"hierarchy": {"all": ["a"]}}, TypeError, "hierarchy has several names for one"),
            ({"a": ["gene1"]}, {"tree": 3, "groupby": None}, TypeError, "tree is of type int.*get_cluster_tree"),
            ({"a": ["gene1"]}, {"key_added": 3}, TypeError, "key_added=3 is not text"),
            ({"a": ["gene1"]}, {"key_added": "cell_type"}, ValueError, "'cell_type' is the column of the clusters"),
        ],
        ids=range(19),
    )  # fmt: skip
    def test_message(self, model, markers, arguments, error, message):
        with pytest.raises(error, match=message):
            model.get_cluster_names(markers, **{"groupby": "cell_type", **arguments})

    def test_hardly_any_gene_of_long_lists(self, model):
        """Markers of another organism, of which a few names are the same by chance."""
        lists = {"a": [f"Other{i}" for i in range(200)], "b": ["gene1", *(f"Thing{i}" for i in range(200))]}
        with pytest.raises(ValueError, match="Only 1 of the 401 genes of markers"):
            model.get_cluster_names(lists, groupby="cell_type")

    def test_a_tree_beside_groups(self, model):
        with pytest.raises(ValueError, match="groupby='cell_type' is given beside tree"):
            model.get_cluster_names(WEIGHTED, groupby="cell_type", tree=model.get_cluster_tree(evidence=False))

    def test_one_gene_a_list(self, model):
        lists = {"a0": {"gene3": 1.0}, "b": {"gene83": 2.0}}
        found = model.get_cluster_names(lists, groupby="cell_type")
        assert set(found["name"]) <= {"a0", "b", "unsure"}
        for row in found[found["name"] != "unsure"].itertuples():
            assert "a single gene" in row.reason


class TestCellconsensus:
    def test_blood(self):
        pytest.importorskip("cellconsensus")
        adata = scrcl.datasets.pbmc700()
        model = build(adata, epochs=2)
        with pytest.raises(ValueError, match="hierarchy is given beside"):
            model.get_cluster_names("cellconsensus", groupby="bulk_labels", hierarchy={"B cell": "x"})
        found = model.get_cluster_names("cellconsensus", groupby="bulk_labels", key_added="name")
        assert found.loc["CD19+ B", "name"] in ("B cell", "naive/immature B cell", "memory B cell")
        assert str(found.loc["CD14+ Monocyte", "path"]).startswith("myeloid cell")
        assert str(found.loc["CD56+ NK", "path"]).startswith("T / NK cell")
        assert found["cell_type_ontology_term_id"].str.match(r"CL:\d{7}$|unknown$").all()
        assert adata.uns["scrcl_names"]["markers"].startswith("cellconsensus 1.")
        expected = found["cell_type_ontology_term_id"].reindex(adata.obs["bulk_labels"]).tolist()
        assert adata.obs["cell_type_ontology_term_id"].tolist() == expected

        # Identifiers of others are replaced with a warning, our own without one.
        model.get_cluster_names("cellconsensus", groupby="bulk_labels", key_added="name")
        del adata.uns["scrcl_names"]
        with pytest.warns(ScrclWarning, match="held identifiers already"):
            model.get_cluster_names("cellconsensus", groupby="bulk_labels", key_added="name")

    def test_a_column_of_few_of_its_genes(self):
        pytest.importorskip("cellconsensus")
        adata = scrcl.datasets.pbmc700()
        adata.var["symbol"] = adata.var_names
        adata.var_names = [f"ENSG{number:011d}" for number in range(adata.n_vars)]
        model = build(adata, epochs=1)
        with pytest.raises(ValueError, match="pass `gene_symbols='symbol'`"):
            model.get_cluster_names("cellconsensus", groupby="bulk_labels")

    def test_without_the_extra(self, model, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"is not installed. Install it: `pip install 'scrcl\[names\]'`"):
            model.get_cluster_names("cellconsensus", groupby="cell_type")

    def test_another_organism(self, model):
        pytest.importorskip("cellconsensus")
        with pytest.raises(
            ValueError, match="Only 1 of the .* genes of markers is in the data .cellconsensus .* human symbols"
        ):
            model.get_cluster_names("cellconsensus", groupby="cell_type")


@pytest.fixture(scope="module")
def model() -> scrcl.SCRCL:
    """A model trained long enough to tell the types apart; no test may change it or its data."""
    return build(simulate(), epochs=40)
