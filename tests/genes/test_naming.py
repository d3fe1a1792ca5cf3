import numpy as np
import pytest
import scipy.sparse as sp

from scrcl.genes.associations import Groups
from scrcl.genes.naming import MIN_SCORE, GeneScores, GroupLevels, Naming, explain_name, name_groups

#: Genes 0-4 mark the first group, 5-9 the second, 10-14 the first two alike; the others mark nothing.
FIRST, SECOND, BOTH, NOTHING = np.arange(5), np.arange(5, 10), np.arange(10, 15), np.arange(100, 104)


def expression(seed: int = 0, n_groups: int = 4, n_genes: int = 400) -> tuple[np.ndarray, Groups]:
    """Log-normalised expression of 40 cells of each group."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(n_groups), 40)
    rate = np.tile(rng.gamma(1, 1, n_genes), (n_groups, 1))
    rate[:, :15] = 0.05
    rate[0, FIRST] = rate[1, SECOND] = 3
    rate[:2, BOTH] = 3
    return np.log1p(rng.poisson(rate[codes])), Groups(codes, n_groups)


def levels_of(values: np.ndarray, groups: Groups) -> GroupLevels:
    return GroupLevels.from_blocks([(slice(0, len(values)), sp.csr_array(values))], groups)


@pytest.fixture
def levels() -> GroupLevels:
    return levels_of(*expression())


def name(levels: GroupLevels, *lists: np.ndarray, min_support: float = 0.5, seed: int = 0) -> Naming:
    return name_groups(levels, list(lists), min_support, seed)


def why(naming: Naming, *lists: np.ndarray, absent: dict | None = None) -> list[str]:
    names = ["one", "two", "three"][: len(lists)]
    genes = np.array([f"g{number}" for number in range(naming.up.shape[1])], dtype=object)
    return [explain_name(naming, group, names, genes, absent or {}) for group in range(len(naming.choice))]


class TestLevels:
    def test_against_all_cells_at_once(self):
        values, groups = expression()
        order = np.random.default_rng(1).permutation(len(values))
        values, groups = values[order], Groups(groups.codes[order], 4)
        blocks = [(slice(start, start + 37), sp.csr_array(values[start : start + 37])) for start in range(0, 160, 37)]
        levels = GroupLevels.from_blocks(blocks, groups)
        parts = [values[groups.codes == group] for group in range(4)]
        np.testing.assert_allclose(levels.mean, [part.mean(0) for part in parts])
        np.testing.assert_array_equal(levels.n_expressing, [(part > 0).sum(0) for part in parts])
        np.testing.assert_allclose(levels.variance, np.mean([part.var(0, ddof=1) for part in parts], 0), atol=1e-12)
        np.testing.assert_allclose(levels.overall, values.mean(0))

    def test_modalities_side_by_side(self):
        values, groups = expression()
        joined = GroupLevels.concatenate([levels_of(values[:, :7], groups), levels_of(values[:, 7:], groups)])
        np.testing.assert_allclose(joined.mean, levels_of(values, groups).mean)
        assert joined.variance.shape == (400,)


class TestScores:
    def test_by_hand(self):
        mean = np.array([[0.0], [0.2], [2.0], [2.2], [1.0]])
        scores = GeneScores.fit(mean, np.array([0.25 - 1e-3]))
        # 6 (low - high)^2 is largest for 0, 0.2, 1 and 2, 2.2: 17.3; for 0, 0.2 and the others it is 16.0
        assert scores.low == pytest.approx(0.4)
        assert scores.high == 2.2
        way = np.clip((mean - 0.4) / 1.8, 0, 1)
        above = np.maximum(mean - 0.4, 0)
        expected = way**2 * np.sqrt(above / (above + 0.5)) * above / np.maximum(mean, 1e-12)
        np.testing.assert_allclose(scores(mean), expected)

    def test_gene_of_most_groups_scores_high_in_all_of_them(self):
        """As CD3 in blood, most of whose clusters are T cells."""
        mean = np.array([[2.0], [2.0], [2.0], [2.0], [2.0], [0.0]])
        found = GeneScores.fit(mean, np.array([0.25]))(mean)
        assert (found[:5] > 0.8).all()
        assert found[5] == 0

    def test_gene_of_which_another_group_has_more_scores_low(self):
        """As NKG7 in cytotoxic T cells, beside NK cells."""
        mean = np.array([[4.0], [1.5], [0.0], [0.0]])
        found = GeneScores.fit(mean, np.array([0.25]))(mean)
        assert found[1] < 0.25 < 0.8 < found[0]

    def test_gene_that_all_have_scores_low(self):
        mean = np.array([[5.0], [5.2], [4.9], [5.1]])
        assert GeneScores.fit(mean, np.array([0.01]))(mean).max() < 0.1


class TestNames:
    def test_right_list_or_none(self, levels):
        found = name(levels, FIRST, SECOND, NOTHING)
        assert found.choice.tolist() == [0, 1, 3, 3]
        np.testing.assert_allclose(found.score[:, 1], found.gene_score[:, SECOND].mean(1))
        np.testing.assert_array_equal(found.support[0], [1, 0, 0])
        assert (found.confidence[:2] > 0.99).all()
        assert found.pvalue[0, 0] < 0.01 < found.pvalue[0, 1]

    def test_none_where_the_right_list_is_not_given(self, levels):
        assert name(levels, SECOND, NOTHING).choice.tolist() == [2, 0, 2, 2]

    def test_genes_that_several_groups_share(self, levels):
        found = name(levels, BOTH)
        assert found.choice.tolist() == [0, 0, 1, 1]

    def test_overlapping_lists_are_told_apart_by_the_genes_of_their_own(self, levels):
        found = name(levels, np.r_[FIRST, BOTH], np.r_[SECOND, BOTH])
        assert found.choice.tolist() == [0, 1, 2, 2]

    def test_a_list_needs_the_support_of_its_genes(self, levels):
        few = np.r_[FIRST[:2], NOTHING]
        assert name(levels, few, SECOND).choice[0] == 2
        assert name(levels, few, SECOND, min_support=0.1).support[0, 0] == pytest.approx(2 / 6)

    @pytest.mark.parametrize("size", [1, 2])
    def test_short_lists(self, levels, size):
        found = name(levels, FIRST[:size], SECOND[:size])
        assert found.choice.tolist() == [0, 1, 2, 2]

    def test_single_gene_is_compared_with_all_of_similar_expression(self, levels):
        found = name(levels, FIRST[:1])
        expressed = levels.n_expressing.sum(0) >= 3
        better = (found.gene_score[0, expressed] >= found.gene_score[0, 0]).sum()
        assert found.pvalue[0, 0] == pytest.approx((1 + better) / (1 + expressed.sum()))

    def test_list_of_which_little_was_measured_counts_less(self, levels):
        best = name(levels, FIRST).gene_score[0, FIRST].argmax()
        lists = [FIRST[[best]], FIRST]
        assert name(levels, *lists).choice[0] == 0
        assert name_groups(levels, lists, 0.5, 0, np.array([0.25, 1])).choice[0] == 1

    def test_gene_that_no_cell_expresses(self):
        values, groups = expression()
        values[:, 0] = 0
        found = name(levels_of(values, groups), FIRST, FIRST[:1])
        assert found.choice[0] == 0
        assert found.support[0, 0] == 0.8
        assert found.score[0, 1] == 0

    def test_group_of_one_cell(self):
        values, groups = expression()
        codes = groups.codes.copy()
        codes[-1] = 4
        found = name(levels_of(values, Groups(codes, 5)), FIRST, SECOND)
        assert found.choice.tolist() == [0, 1, 2, 2, 2]
        assert np.isfinite(found.score).all()

    def test_two_groups(self):
        values, groups = expression()
        found = name(levels_of(values[:80], Groups(groups.codes[:80], 2)), FIRST, SECOND, BOTH)
        assert found.choice.tolist() == [0, 1]

    def test_contested_name_gets_low_confidence(self, levels):
        found = name(levels, BOTH[:3], np.r_[BOTH[3:], FIRST[:1]], SECOND)
        assert found.confidence[0] < 0.9
        assert found.alternative[0] in (0, 1)
        assert found.alternative[0] != found.choice[0]

    def test_random_lists_are_rarely_chosen(self):
        """Lists of random genes: in groups that differ in some genes, and in groups that differ in none."""
        rng = np.random.default_rng(3)
        for n_marked in (0, 15):
            values, groups = expression(seed=1)
            if not n_marked:
                values = rng.permuted(values, axis=0)
            levels = levels_of(values, groups)
            named = []
            for seed in range(40):
                lists = [rng.choice(400, size, replace=False) for size in (1, 2, 3, 6)]
                named.append(name_groups(levels, lists, 0.5, seed, n_random=300, n_samples=2).choice < 4)
            assert np.mean(named) <= 0.05

    def test_order_of_groups_and_lists_does_not_matter(self, levels):
        values, groups = expression()
        turned = levels_of(values, Groups(3 - groups.codes, 4))
        expected, found = name(levels, FIRST, SECOND), name(turned, SECOND, FIRST)
        np.testing.assert_allclose(found.score[::-1, ::-1], expected.score)
        assert found.choice[::-1].tolist() == [1, 0, 2, 2]


class TestReasons:
    def test_empty_where_sure(self, levels):
        assert why(name(levels, FIRST, SECOND), FIRST, SECOND)[:2] == ["", ""]

    def test_nothing_is_up(self, levels):
        assert why(name(levels, FIRST, SECOND), FIRST, SECOND)[3] == (
            "No gene of the lists is higher here than in the other clusters."
        )

    def test_too_few_are_up(self, levels):
        lists = np.r_[FIRST[:2], NOTHING], SECOND
        found = why(name(levels, *lists), *lists, absent={"one": ["x"]})[0]
        assert found == (
            "one scores highest, but only 2 of its 6 genes are up (g0, g1). The data lack 1 of the 7 genes of one."
        )

    def test_hardly_higher(self):
        """Genes that all cells express, and these somewhat more."""
        values, groups = expression()
        values[:, 20:25] = np.random.default_rng(0).normal(3, 0.3, (160, 5))
        values[groups.codes == 2, 20:25] += 0.5
        lists = np.arange(20, 25), FIRST
        found = name(levels_of(values, groups), *lists)
        assert found.support[2, 0] > 0.5
        assert found.score[2, 0] < MIN_SCORE
        assert "barely higher here than elsewhere" in why(found, *lists)[2]

    def test_random_genes_score_as_high(self):
        values, groups = expression()
        values[groups.codes == 2, 50:350] += 3
        lists = np.arange(60, 63), FIRST
        found = name(levels_of(values, groups), *lists)
        assert found.choice[2] == 2
        assert "of random sets of as many genes score as high" in why(found, *lists)[2]

    def test_one_gene(self, levels):
        found = why(name(levels, FIRST[:1]), FIRST[:1], absent={"one": ["x", "y"]})[0]
        assert found == "The name is based on a single gene, g0. The data lack 2 of the 3 genes of one."

    def test_contested(self, levels):
        lists = BOTH[:3], np.r_[BOTH[3:], BOTH[:1]]
        found = name(levels, *lists)
        assert found.confidence[0] < 0.9
        assert why(found, *lists)[0] == f"{['one', 'two'][found.alternative[0]]} fits nearly as well."
