import numpy as np
import pytest

from scrcl.cluster.borders import MIN_SCORE, Border, NestedDomains, Surroundings, domain_borders
from scrcl.cluster.clustering import Clustering
from scrcl.cluster.tree import MAX_CONNECTIVITY, NestedClusters
from scrcl.graph.slices import Slices
from scrcl.graph.spatial import spatial_graph

N_ZONES, WIDTH = 3, 30.0


def tissue(kind: str, n: int = 900, seed: int = 0, difference: float = 1.5) -> tuple[Slices, np.ndarray, np.ndarray]:
    """Three zones beside each other, whose features differ by steps at their borders, or change steadily from left to right."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, WIDTH, size=(n, 2))
    zone = (points[:, 0] / WIDTH * N_ZONES).astype(int)
    level = {"steps": zone, "gradient": points[:, 0] / WIDTH * N_ZONES - 0.5, "flat": np.ones(n)}[kind]
    features = rng.normal(size=(n, 6))
    features[:, 0] += difference * level
    return Slices(points, np.zeros(n, dtype=np.int64), ("all cells",)), features, zone


def verdicts(slices: Slices, features: np.ndarray, labels: np.ndarray) -> dict[tuple[int, int], str]:
    return {(a, b): border.verdict for a, b, _, border in domain_borders(slices, features, labels)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("kind", "verdict"), [("steps", "border"), ("gradient", "continuum"), ("flat", "none")])
def test_steps_and_gradients(kind, verdict, seed):
    assert verdicts(*tissue(kind, seed=seed)) == {(0, 1): verdict, (1, 2): verdict}


def test_the_share_of_the_difference_at_the_border():
    """A step on a gradient."""
    slices, steps, zone = tissue("steps", n=8_000)
    features = steps.copy()
    features[:, 0] += 1.5 * (slices.coordinates[:, 0] / WIDTH * N_ZONES - 0.5)
    [(_, _, _, border), _] = domain_borders(slices, features, zone)
    # The means on both sides are 10 times the distance between cells apart. Few cells near the border, which are on the wrong
    # side of it, make it less sharp.
    gradient = 1.5 * 10 * Surroundings(slices, features, zone).spacing[0] / (WIDTH / N_ZONES)
    assert 0.5 < border.sharpness < 1.5 / (1.5 + gradient) + 0.05


@pytest.mark.parametrize(("kind", "verdict"), [("gradient", "continuum"), ("islands", "border")])
def test_lobules(kind, verdict):
    """Zones around the middle of each lobule of a liver, and islands of the same size."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 60, size=(3600, 2))
    radius = np.linalg.norm(points % 20 - 10, axis=1)
    features = rng.normal(size=(3600, 6))
    features[:, 0] += 3 * (radius / 10 if kind == "gradient" else radius > 6)
    slices = Slices(points, np.zeros(3600, dtype=np.int64), ("all cells",))
    assert verdicts(slices, features, (radius > 6).astype(int)) == {(0, 1): verdict}


@pytest.mark.parametrize("seed", range(3))
def test_noise_that_decides_the_domain_is_no_difference(seed):
    """Each cell is in the domain to which its own features belong."""
    slices, features, _ = tissue("flat", seed=seed)
    drawn = (features[:, 0] > features[:, 0].mean()).astype(int)
    assert set(verdicts(slices, features, drawn).values()) <= {"none", "unclear"}
    # The sides of labels themselves would differ by far more than noise.
    assert (features[drawn == 1, 0].mean() - features[drawn == 0, 0].mean()) * np.sqrt(225) > 3 * MIN_SCORE


def test_domains_that_do_not_meet_are_apart():
    slices, features, zone = tissue("steps")
    away = Slices(slices.coordinates, (zone > 0).astype(np.int64), ("a", "b"))
    assert verdicts(away, features, zone) == {(1, 2): "border"}
    few = np.where(np.hypot(*(slices.coordinates - 3).T) < 1, 3, zone)
    assert verdicts(slices, features, few)[0, 3] == "unclear"


def test_slices_may_differ_by_a_constant():
    first, features, zone = tissue("steps", seed=1)
    second, others, zones = tissue("steps", seed=2)
    others = others + np.random.default_rng(0).normal(scale=20, size=6)
    slices = Slices(
        np.concatenate([first.coordinates, second.coordinates[zones != 2]]),
        np.repeat([0, 1], [len(zone), (zones != 2).sum()]),
        ("a", "b"),
    )
    joint = np.concatenate([features, others[zones != 2]])
    labels = np.concatenate([zone, zones[zones != 2]])
    found = {(a, b): border for a, b, _, border in domain_borders(slices, joint, labels)}
    assert {pair: border.verdict for pair, border in found.items()} == {(0, 1): "border", (1, 2): "border"}
    assert found[0, 1].sharpness == pytest.approx(1, abs=0.2)


def test_neither_the_order_of_cells_nor_the_scale_of_coordinates_matters():
    slices, features, zone = tissue("gradient")
    order = np.random.default_rng(0).permutation(len(zone))
    other = Slices(1000 * slices.coordinates[order], slices.samples[order], slices.names)
    for (*pair, border), (*same, again) in zip(
        domain_borders(slices, features, zone), domain_borders(other, features[order], zone[order]), strict=True
    ):
        assert pair == same
        assert again.n_cells == border.n_cells
        np.testing.assert_allclose([again.sharpness, again.score], [border.sharpness, border.score], rtol=1e-6)


def test_contacts_are_neighbors_of_the_other_domain():
    slices, features, zone = tissue("flat", n=60)
    distances = np.linalg.norm(slices.coordinates[:, None] - slices.coordinates[None], axis=2)
    nearest = np.argsort(distances, axis=1)[:, 1:7]
    expected = sum((zone[i], zone[j]) in ((0, 1), (1, 0)) for i in range(60) for j in nearest[i])
    assert Surroundings(slices, features, zone).contacts[0, 1] == expected


def test_positions_and_slices_of_few_cells():
    """One cell in a slice, all cells at one position, and features that do not vary have no border, and are no error."""
    slices = Slices(np.zeros((9, 2)), np.array([0] * 8 + [1]), ("a", "b"))
    found = domain_borders(slices, np.ones((9, 3)), np.array([0, 0, 0, 0, 1, 1, 1, 1, 0]))
    assert [border.verdict for *_, border in found] == ["unclear"]
    slices, features, zone = tissue("steps")
    assert set(verdicts(slices, np.ones_like(features), zone).values()) == {"none"}


@pytest.mark.parametrize(("kind", "n_domains"), [("steps", 3), ("gradient", 1)])
def test_splits_of_a_tree_are_supported_by_borders(kind, n_domains):
    slices, features, zone = tissue(kind)
    leaves = Clustering(features, zone, probabilities=np.eye(3)[zone])
    linkage = np.array([[0, 1, 0.5, 600], [2, 3, 0.9, 900]])
    graph = spatial_graph(slices)
    tree = NestedDomains.in_space(leaves, linkage, graph, slices, features)
    assert tree.made(tree.supported()).sum() + 1 == n_domains
    # In the spatial graph itself, zones of a gradient have few edges between each other, too.
    assert (NestedClusters.build(leaves, linkage, graph).connectivity < MAX_CONNECTIVITY).all()
    assert (tree.connectivity == [border.connectivity for border in tree.borders]).all()


def test_sides_without_a_border_are_compared_by_edges():
    slices, features, zone = tissue("steps")
    away = Slices(slices.coordinates, zone.astype(np.int64), ("a", "b", "c"))
    leaves = Clustering(features, zone, probabilities=np.eye(3)[zone])
    linkage, graph = np.array([[0, 1, 0.5, 600], [2, 3, 0.9, 900]]), spatial_graph(away)
    tree = NestedDomains.in_space(leaves, linkage, graph, away, features)
    np.testing.assert_array_equal(tree.connectivity, NestedClusters.build(leaves, linkage, graph).connectivity)
    assert [border.verdict for border in tree.borders] == ["unclear", "unclear"]


def test_verdicts():
    assert Border(0.45, 10.0, (50, 50)).verdict == "border"
    assert Border(0.35, 10.0, (50, 50)).verdict == "continuum"
    assert Border(0.9, 3.0, (50, 50)).verdict == "none"
    assert Border(0.9, 3.0, (50, 50)).connectivity == 1
    assert Border().verdict == "unclear"
    assert np.isnan(Border().connectivity)
