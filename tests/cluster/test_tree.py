import numpy as np
import pytest
import scipy.cluster.hierarchy
import scipy.sparse as sp
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score

from scrcl.cluster.clustering import Clustering
from scrcl.cluster.tree import (
    MAX_CONNECTIVITY,
    NestedClusters,
    average_linkage,
    build_leaves,
    coassociation,
    find_leaves,
)
from scrcl.graph.adjacency import symmetric_adjacency
from scrcl.graph.neighbors import nearest_neighbors


def test_coassociation_is_the_mean_over_pairs_of_cells():
    rng = np.random.default_rng(0)
    members, weights = rng.integers(4, size=(30, 5)), rng.random(5)
    groups = rng.permutation(np.repeat(np.arange(6), 5))
    together = (members[:, None] == members[None]) @ weights / weights.sum()
    expected = [[together[np.ix_(groups == a, groups == b)].mean() for b in range(6)] for a in range(6)]
    np.testing.assert_allclose(coassociation(members, weights, groups), expected)


def test_average_linkage_of_groups_is_that_of_their_points():
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 6, 12)
    distances = squareform(rng.random(66))
    groups = np.repeat(np.arange(12), sizes)
    points = distances[np.ix_(groups, groups)]
    expected = scipy.cluster.hierarchy.linkage(squareform(points, checks=False), "average")
    found = average_linkage(distances, sizes)
    np.testing.assert_allclose(found[:, 2], expected[-11:, 2])
    for n_clusters in range(2, 12):
        by_points = scipy.cluster.hierarchy.cut_tree(expected, n_clusters).ravel()
        by_groups = scipy.cluster.hierarchy.cut_tree(np.column_stack([found[:, :3], _leaves_below(found)]), n_clusters)
        assert adjusted_rand_score(by_points, by_groups.ravel()[groups]) == 1
    assert found[-1, 3] == sizes.sum()


def _leaves_below(linkage: np.ndarray) -> np.ndarray:
    counts = [1] * (len(linkage) + 1)
    for a, b in linkage[:, :2].astype(int):
        counts.append(counts[a] + counts[b])
    return np.array(counts[len(linkage) + 1 :], dtype=float)


class TestLeaves:
    # Groups 0 and 1 join first, then 2 and 3, then both pairs, then 4, a fragment of 3 cells, and last 5.
    linkage = np.array(
        [[0, 1, 0.1, 40], [2, 3, 0.2, 40], [6, 7, 0.3, 80], [4, 8, 0.4, 83], [5, 9, 0.9, 103]], dtype=float
    )
    sizes = np.array([20, 20, 20, 20, 3, 20])

    @pytest.mark.parametrize(
        ("max_leaves", "min_cells", "leaves"),
        [
            (40, 10, [[0], [1], [2], [3], [5]]),
            (4, 10, [[0, 1], [2], [3], [5]]),
            (3, 10, [[0, 1], [2, 3], [5]]),
            (40, 21, [[0, 1], [2, 3]]),  # the 20 cells of group 5 are too few
            (1, 10, [[0, 1, 2, 3, 5]]),
            (40, 3, [[0], [1], [2], [3], [4], [5]]),
        ],
    )
    def test_the_highest_splits_with_enough_cells_are_made(self, max_leaves, min_cells, leaves):
        found = find_leaves(self.linkage, self.sizes, max_leaves, min_cells)
        assert sorted(np.flatnonzero(found == leaf).tolist() for leaf in range(found.max() + 1)) == leaves

    def test_fragments_join_the_leaf_that_they_are_most_often_with(self):
        rng = np.random.default_rng(0)
        truth = np.repeat([0, 1, 2], [60, 40, 20])
        noisy = [np.where(rng.random(120) < 0.1, rng.integers(3, size=120), truth) for _ in range(40)]
        members = np.column_stack(noisy)
        members[:4] = np.where(rng.random((4, 40)) < 0.6, 3, 0)  # mostly by themselves
        leaves, linkage = build_leaves(members, np.ones(40), np.arange(120), max_leaves=3)
        np.testing.assert_array_equal(leaves, truth)
        assert linkage[-1, 3] == 120

    def test_too_few_cells_are_one_leaf(self):
        leaves, linkage = build_leaves(np.zeros((12, 1), dtype=int), np.ones(1), np.arange(12))
        assert set(leaves) == {0}
        assert linkage.shape == (0, 4)


def nested(seed: int = 0, n: int = 200) -> tuple[NestedClusters, np.ndarray]:
    """Five leaves of different sizes, joined at random, in a random graph; and the graph."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(5, n, p=[0.4, 0.25, 0.15, 0.12, 0.08])
    labels[:5] = np.arange(5)
    linkage = average_linkage(squareform(rng.random(10)), np.bincount(labels))
    graph = np.triu(rng.random((n, n)) < 0.05, 1) * rng.random((n, n))
    graph += graph.T
    leaves = Clustering(rng.normal(size=(n, 2)), labels, probabilities=rng.random((n, 5)).astype(np.float32))
    return NestedClusters.build(leaves, linkage, sp.csr_array(graph)), graph


class TestNestedClusters:
    @pytest.mark.parametrize(
        ("seed", "n", "factor"), [(0, 400, 1), (1, 300, 1), (2, 250, 1), (3, 160, 1.25), (4, 90, 5 / 3)]
    )
    def test_connectivity_is_that_of_the_dense_graph(self, seed, n, factor):
        tree, graph = nested(seed, n)
        labels = tree.leaves.labels
        members = [{leaf} for leaf in range(5)]
        for (a, b), connectivity in zip(tree.linkage[:, :2].astype(int), tree.connectivity, strict=True):
            members.append(members[a] | members[b])
            inside = [np.isin(labels, list(members[side])) for side in (a, b)]
            smaller, larger = sorted(inside, key=np.sum)
            across, degrees = graph[np.ix_(smaller, larger)].sum(), graph[smaller].sum()
            assert connectivity == pytest.approx(factor * 2 * across / degrees / smaller.mean() ** 0.4)

    def test_random_halves_are_connected_and_components_are_not(self):
        rng = np.random.default_rng(0)
        labels = rng.integers(2, size=400)
        leaves = Clustering(rng.normal(size=(400, 2)), labels, probabilities=np.eye(2, dtype=np.float32)[labels])
        linkage = np.array([[0, 1, 0.5, 400]])
        graph = rng.random((400, 400)) < 0.1
        graph |= graph.T
        assert NestedClusters.build(leaves, linkage, sp.csr_array(graph * 1.0)).connectivity[0] > 1
        apart = graph & (labels[:, None] == labels)
        assert NestedClusters.build(leaves, linkage, sp.csr_array(apart * 1.0)).connectivity[0] < 0.01

    def test_splits_are_made_below_splits_that_are_made(self):
        tree, _ = nested()
        for bits in range(16):
            supported = np.array([bits >> split & 1 for split in range(4)], dtype=bool)
            made = tree.made(supported)
            assert not (made & ~supported).any()
            for split in range(4):
                above = [other for other in range(split + 1, 4) if tree.below[5 + other][tree.below[5 + split]].all()]
                assert made[split] == (supported[split] and supported[above].all())

    @pytest.mark.parametrize("n_clusters", [1, 2, 3, 4, 5])
    def test_cut_by_height_is_that_of_scipy(self, n_clusters):
        tree, _ = nested(2)
        by_scipy = scipy.cluster.hierarchy.cut_tree(
            np.column_stack([tree.linkage[:, :3], _leaves_below(tree.linkage)]), n_clusters
        ).ravel()
        found = tree.cut(tree.highest(n_clusters))
        assert found.n_clusters == n_clusters
        assert adjusted_rand_score(by_scipy[tree.leaves.labels], found.labels) == 1
        assert (np.diff(np.bincount(found.labels)) <= 0).all()

    def test_probabilities_are_means_over_the_cells_of_a_cluster(self):
        tree, _ = nested(1)
        made = tree.highest(3)
        found = tree.cut(made)
        sizes = np.bincount(tree.leaves.labels)
        assert tree.leaves.probabilities is not None
        assert found.probabilities is not None
        shares = []
        for node in tree.clusters(made):
            inside = tree.below[node]
            shares.append(np.average(tree.leaves.probabilities[:, inside], axis=1, weights=sizes[inside]))
        expected = np.column_stack(shares) / np.sum(shares, axis=0)[:, None]
        np.testing.assert_allclose(found.probabilities, expected, rtol=1e-5)

    def test_small_sides_can_be_refused(self):
        tree, _ = nested()
        smallest = tree.sizes[tree.sides[:, 1]]
        for min_cells in (1, int(smallest.max()), int(smallest.max()) + 1):
            expected = (tree.connectivity < MAX_CONNECTIVITY) & (smallest >= min_cells)
            np.testing.assert_array_equal(tree.supported(min_cells), expected)

    def test_a_few_cells_far_from_all_others_are_separate_although_their_edges_cross(self):
        """With 15 neighbours, half of the edges of 20 cells may lead to others."""
        rng = np.random.default_rng(0)
        points = rng.normal(size=(300, 10))
        labels = np.repeat([0, 1], [280, 20])
        graph = symmetric_adjacency(nearest_neighbors(points, 15).to_sparse())
        linkage = np.array([[0, 1, 0.5, 300]])
        leaves = Clustering(points, labels, probabilities=np.eye(2, dtype=np.float32)[labels])
        by_edges = NestedClusters.build(leaves, linkage, graph).connectivity
        among_others = NestedClusters.build(leaves, linkage, graph, points).connectivity
        apart = NestedClusters.build(leaves, linkage, graph, points + 5 * labels[:, None]).connectivity
        assert apart == 0
        assert min(by_edges, among_others) > 2 * MAX_CONNECTIVITY

    @pytest.mark.parametrize("seed", range(3))
    def test_neighbors_outside_are_those_by_brute_force(self, seed):
        tree, _ = nested(seed)
        labels, points = tree.leaves.labels, tree.leaves.points
        tree = NestedClusters(tree.leaves, tree.linkage, tree.edges, points)
        distances = ((points[:, None] - points) ** 2).sum(2)
        np.fill_diagonal(distances, np.inf)
        nearest = distances.argsort(1)
        for smaller, outside in zip(tree.sides[:, 1], tree.outside, strict=True):
            inside, size = tree.below[smaller][labels], tree.sizes[smaller]
            if size > 30:
                assert np.isnan(outside)
            else:
                expected = (~inside)[nearest[inside, : max(3, size // 3)]].mean()
                assert outside == pytest.approx(expected)
