import numpy as np
import pytest
import scipy.sparse as sp

from scrcl.genes.hierarchy import (
    MIN_CELL_SHARE,
    N_SCORED,
    Hierarchy,
    SampledCells,
    distinctive_genes,
    explain_level,
    name_by_level,
)

from .test_naming import expression, levels_of

#: A root of two (0), whose children are 1 and 2, and another root (3).
TREE = Hierarchy(np.array([-1, 0, 0, -1]))


def frequency(*lists: list[int], n_genes: int = 400) -> sp.csr_array:
    table = np.zeros((len(lists), n_genes))
    for row, genes in enumerate(lists):
        table[row, genes] = 1
    return sp.csr_array(table)


class TestHierarchy:
    def test_below_and_paths(self):
        chain = Hierarchy(np.array([-1, 0, 1, 0]))
        np.testing.assert_array_equal(chain.below[0], [True] * 4)
        np.testing.assert_array_equal(chain.below[1], [False, True, True, False])
        np.testing.assert_array_equal(chain.leaves, [False, False, True, True])
        assert chain.path(2) == [0, 1, 2]
        assert chain.children(-1).tolist() == [0]

    @pytest.mark.parametrize(
        ("names", "common"), [([1, 2], 0), ([1, 1], 1), ([1, 3], -1), ([1, -1], 1), ([-1, -1], -1), ([0, 2], 0)]
    )
    def test_what_names_have_in_common(self, names, common):
        assert TREE.common(np.array(names)) == common


class TestDistinctiveGenes:
    def test_by_hand(self):
        # Gene 0 is of 1 and 2, gene 1 of 1 only, gene 2 of 3 only, and gene 3 of 0 and 1, which are above each other.
        weights = distinctive_genes(frequency([3], [0, 1, 3], [0], [2], n_genes=4), TREE).toarray()
        np.testing.assert_allclose(weights[1], [np.sqrt(1 / 2), 1, 0, 1])
        np.testing.assert_allclose(weights[[0, 3]], [[0, 0, 0, 1], [0, 0, 1, 0]])

    def test_number_of_genes(self):
        rng = np.random.default_rng(0)
        weights = distinctive_genes(sp.csr_array(rng.random((4, 300))), TREE)
        assert (np.diff(weights.indptr) == N_SCORED).all()


class TestNames:
    """Genes 0-4 mark the first of four groups, 5-9 the second, 10-14 both."""

    LISTS = ([*range(10, 15)], [*range(5)], [*range(5, 10)], [*range(100, 105)])

    def name(self, *lists, tree=TREE, **kwargs):
        return name_by_level(levels_of(*expression()), frequency(*lists), tree, 0, **kwargs)

    def test_finest_names(self):
        naming = self.name(*self.LISTS)
        assert naming.choice.tolist() == [1, 2, -1, -1]
        assert naming.best[:2].tolist() == [1, 2]
        assert (naming.passed[[0, 1], [1, 2]] >= 0.8).all()
        assert (naming.passed[[0, 1], 0] >= naming.passed[[0, 1], [1, 2]]).all()

    def test_parent_of_names_that_are_alike(self):
        both = self.LISTS[0]
        assert self.name(both, both, both, self.LISTS[3]).choice.tolist() == [0, 0, -1, -1]

    def test_names_at_or_below_a_start(self):
        naming = self.name(*self.LISTS, start=np.array([0, 1, 0, -1]))
        assert naming.choice.tolist() == [1, 1, 0, -1]

    def test_scores_relative_to_other_groups(self):
        values, groups = expression()
        levels = levels_of(values, groups)
        merged = levels.merged(np.eye(4, dtype=bool)[[0, 1]])
        naming = name_by_level(merged, frequency(*self.LISTS), TREE, 0, reference=levels)
        # Groups of few cells are shrunk to the mean of these groups, which differs a little.
        np.testing.assert_allclose(naming.gene_score, self.name(*self.LISTS).gene_score[:2], atol=0.03)

    def test_reasons(self):
        names, genes = ["top", "left", "right", "other"], np.array([f"g{i}" for i in range(400)], dtype=object)
        naming = self.name(*self.LISTS)
        reasons = [explain_level(naming, group, TREE, names, genes) for group in range(4)]
        assert reasons[:2] == ["", ""]
        assert all(reasons[2:])

    def test_names_of_one_gene(self):
        naming = self.name([10], [0], [5], [100])
        genes = np.array([f"g{i}" for i in range(400)], dtype=object)
        for group in np.flatnonzero(naming.choice > 0).tolist():
            assert "a single gene" in explain_level(naming, group, TREE, ["top", "left", "right", "other"], genes)

    def test_a_name_without_genes(self):
        assert self.name([], *self.LISTS[1:]).choice.tolist() == [1, 2, -1, -1]


class TestMixtures:
    """The first group has a share of cells of the first type; the others are of the second type, with lower levels."""

    LISTS: tuple[list[int], ...] = ([], *TestNames.LISTS[1:])

    def mixed(self, share: float):
        values, groups = expression()
        rng = np.random.default_rng(1)
        first = np.arange(40) < round(share * 40)
        values[:40, :10] = np.log1p(rng.poisson(np.where(first[:, None], [3] * 5 + [0.05] * 5, [0.05] * 5 + [1] * 5)))
        return values, groups

    def name(self, values, groups, **kwargs):
        cells = SampledCells(sp.csr_array(values[:, :15]), np.arange(15), groups.codes, np.ones(len(values)))
        levels = levels_of(values, groups)
        return name_by_level(levels, frequency(*self.LISTS), TREE, 0, cells=cells, **kwargs)

    def test_a_mixture_has_the_name_of_the_parent(self):
        values, groups = self.mixed(0.6)
        by_means = name_by_level(levels_of(values, groups), frequency(*self.LISTS), TREE, 0)
        assert by_means.choice[0] == 1
        naming = self.name(values, groups)
        assert naming.choice.tolist() == [0, 2, -1, -1]
        # The cells of the first type, as they were drawn.
        assert naming.cell_share[0, 1] == pytest.approx(0.6, abs=0.03)
        assert naming.alternative[0, 1] == 2
        reason = explain_level(naming, 0, TREE, ["top", "left", "right", "other"], np.arange(400).astype(object))
        assert reason.endswith("of the cells fit left better than right.")

    def test_most_of_the_cells_are_enough(self):
        values, groups = self.mixed(0.9)
        naming = self.name(values, groups)
        assert naming.choice[0] == 1
        assert naming.cell_share[0, 1] > MIN_CELL_SHARE

    def test_names_at_the_top_have_no_parent_to_stay_at(self):
        naming = self.name(*self.mixed(0.6))
        assert (naming.cell_share[:, [0, 3]] == 1).all()

    def test_cells_stand_for_others(self):
        values, groups = self.mixed(0.6)
        every = SampledCells(sp.csr_array(values[:, :15]), np.arange(15), groups.codes, np.ones(len(values)))
        drawn = np.flatnonzero((np.arange(160) >= 40) | (np.arange(160) % 2 == 0))
        some = SampledCells(
            every.values[drawn], every.columns, every.groups[drawn], np.where(groups.codes[drawn] == 0, 2.0, 1.0)
        )
        levels = levels_of(values, groups)
        union = np.array([[True, True, False, False], [False, False, True, True]])
        shares = [
            name_by_level(
                levels.merged(union), frequency(*self.LISTS), TREE, 0, reference=levels, cells=cells.merged(union)
            ).cell_share[0, 2]
            for cells in (every, some)
        ]
        # 16 of the first 40 cells, and all of the second 40.
        np.testing.assert_allclose(shares, 56 / 80, atol=0.02)
