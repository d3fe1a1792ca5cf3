import numpy as np
import pytest

from scrcl.genes.naming import MarkerList, Naming, name_groups


@pytest.fixture
def scores():
    """Three groups; genes 0-4 mark the first, 5-9 the second, nothing the third."""
    scores = np.random.default_rng(0).normal(0, 0.3, size=(3, 300))
    scores[0, :5] += 3
    scores[1, 5:10] += 3
    return scores


def name(scores: np.ndarray, *lists: range, absent: int = 0, n_samples: int = 1000, seed: int = 0) -> Naming:
    """Names where a gene is up if it scores more than 1; each list has some genes more that do not vary."""
    markers = [MarkerList(np.array(columns), len(columns) + absent) for columns in lists]
    return name_groups(scores, scores > 1, markers, 0.5, seed, n_samples)


def test_right_list_or_none(scores):
    found = name(scores, range(5), range(5, 10), range(50, 54))
    assert found.choice.tolist() == [0, 1, 3]
    random = np.sqrt(5) / scores.std(1)
    np.testing.assert_allclose(found.score[:, 0], (scores[:, :5].mean(1) - scores.mean(1)) * random)
    np.testing.assert_array_equal(found.support[0], [1, 0, 0])
    assert (found.confidence[:2] > 0.99).all()
    assert found.pvalue[0, 0] < 0.01 < found.pvalue[0, 1]


def test_none_where_the_right_list_is_not_given(scores):
    assert name(scores, range(5, 10), range(50, 54)).choice.tolist() == [2, 0, 2]


def test_a_list_needs_the_support_of_its_markers(scores):
    scores[2, 20] = 9
    found = name(scores, range(20, 25), range(5))
    assert found.support[2, 0] == 0.2
    assert found.pvalue[2, 0] < 0.05
    assert found.choice[2] == 2


def test_markers_that_do_not_vary_speak_against_a_list(scores):
    assert name(scores, range(5), absent=4).choice[0] == 0
    assert name(scores, range(5), absent=5).choice[0] == 1


def test_contested_name_gets_low_confidence(scores):
    scores[2, 20:24] = [4, 3, 2, 2]
    scores[2, 30:34] = [3, 4, 2, 2]
    found = name(scores, range(20, 24), range(30, 34), range(5))
    assert found.confidence[2] < 0.8 < found.confidence[0]


def test_single_gene_is_compared_with_all_others(scores):
    better = (scores[0] >= scores[0, 0]).sum()
    assert name(scores, range(1)).pvalue[0, 0] == (1 + better) / 301


def test_random_lists_are_rarely_chosen():
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(40, 500))
    chosen = []
    for seed in range(5):
        markers = [MarkerList(rng.choice(500, 6, replace=False), 6) for _ in range(4)]
        chosen.append(name_groups(scores, scores > -9, markers, 0.5, seed, 200).choice < 4)
    assert np.mean(chosen) < 0.1
