from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import scrcl
from scrcl.model.expression import gene_map, read_expression, read_groups, variables
from scrcl.utils.errors import ScrclValueError

from ..helpers import build, simulate


def test_expression_has_a_column_for_each_gene_kept(trained):
    rows = np.array([2, 3, 50])
    names, measured, numbers = variables(trained, None)
    expression = read_expression(trained, trained.adata, rows)
    assert expression.shape == (3, len(names))
    assert list(measured) == list(trained.adata.var_names)
    counts = trained.adata.X.toarray()[rows][:, measured.get_indexer(names)]
    np.testing.assert_array_equal(expression.toarray() > 0, counts > 0)
    assert list(numbers) == list(range(len(names)))


def test_a_modality_of_a_model_of_one(trained):
    with pytest.raises(ScrclValueError, match="modality='rna' is not in the model"):
        variables(trained, "rna")


def test_gene_maps_require_the_training_cells():
    model = build(simulate(), epochs=1)
    model.adata = simulate(40, seed=3)
    with pytest.raises(ScrclValueError, match="placed among the training cells.*adata=training_data"):
        gene_map(model)


def test_groups():
    adata = simulate(20)
    adata.obs["group"] = ["a", "b", None, "a"] * 5
    inside, groups, names = read_groups(adata, np.arange(1, 20), "group", min_groups=2)
    assert names == ["a", "b"]
    assert groups.n_groups == 2
    assert 1 not in inside  # the third cell has no group
    with pytest.raises(ScrclValueError, match="2 groups of cells, but at least 3"):
        read_groups(adata, np.arange(20), "group", min_groups=3)
    adata.obs["name"] = adata.obs_names
    with pytest.raises(ScrclValueError, match="a different value"):
        read_groups(adata, np.arange(20), "name", min_groups=2)


class TestSymbols:
    @pytest.fixture(scope="class")
    def model(self):
        adata = simulate()
        adata.var["symbol"] = [f"S{name[4:]}" for name in adata.var_names]
        adata.var.iloc[3, 0] = None
        return build(adata, epochs=2)

    def test_associations(self, model):
        plain = model.get_cell_gene_associations(genes=["gene5", "gene3"])
        named = model.get_cell_gene_associations(genes=["S5", "gene3"], gene_symbols="symbol")
        assert list(named.columns) == ["S5", "gene3"]
        either = model.get_cell_gene_associations(genes=["gene5", "S4"], gene_symbols="symbol")
        assert list(either.columns) == ["S5", "S4"]
        np.testing.assert_array_equal(named.to_numpy(), plain.to_numpy())
        with pytest.raises(KeyError, match="gene_symbols='symbols' is not in adata.var.*'symbol'"):
            model.get_cell_gene_associations(gene_symbols="symbols")

    def test_markers(self, model):
        plain = model.get_marker_genes(groupby="cell_type", n_permutations=0)
        named = model.get_marker_genes(groupby="cell_type", n_permutations=0, gene_symbols="symbol")
        expected = plain["gene"].map(lambda name: name if name == "gene3" else f"S{name[4:]}")
        assert named["gene"].tolist() == expected.tolist()
        assert set(model.adata.uns["scrcl_markers"]["names"]["0"]) == set(plain["gene"])

    def test_plot(self, model):
        markers = model.get_marker_genes(groupby="cell_type", n_permutations=0, gene_symbols="symbol")
        axes = scrcl.pl.associations_heatmap(model, markers, "cell_type", n_genes=2, gene_symbols="symbol")
        assert all(label.get_text().startswith(("S", "gene3")) for label in axes.get_xticklabels())
        plt.close("all")

    def test_map_of_genes(self, model):
        """The same points as by the names of the model, also with the column of other data."""
        plain: Any = scrcl.pl.gene_modules(model, genes=["gene5", "gene3"])
        named: Any = scrcl.pl.gene_modules(model, genes=["S5", "gene3"], gene_symbols="symbol")
        assert [text.get_text() for text in named.texts] == ["S5", "gene3"]
        np.testing.assert_array_equal([text.xy for text in plain.texts], [text.xy for text in named.texts])
        other = model.adata.copy()
        other.var["other"] = [f"T{name[4:]}" for name in other.var_names]
        axes: Any = scrcl.pl.gene_modules(model, genes=["T5"], gene_symbols="other", adata=other)
        assert axes.texts[0].xy == plain.texts[0].xy
        with pytest.raises(KeyError, match="gene_symbols='symbols' is not in adata.var"):
            scrcl.pl.gene_modules(model, genes=["S5"], gene_symbols="symbols")
        either: Any = scrcl.pl.gene_modules(model, genes=["gene5"], gene_symbols="symbol")
        assert [text.get_text() for text in either.texts] == ["S5"]
        with pytest.raises(KeyError, match="'gene500' is not in the data"):
            scrcl.pl.gene_modules(model, genes=["gene500"], gene_symbols="symbol")
        plt.close("all")
