import numpy as np
import pytest
from sklearn.preprocessing import normalize

from scrcl.graph.neighbors import nearest_neighbors
from scrcl.reference import agreement
from scrcl.reference.agreement import Agreement, join, own_structure, trust
from scrcl.reference.modality_kinds import Rna

from .test_modality_kinds import poisson, source


def clustered(n: int, n_features: int, types: np.ndarray, seed: int, noise: float = 1.0) -> np.ndarray:
    """Unit rows around a centre for each type."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(types.max() + 1, n_features)) * 2
    return normalize(centers[types] + noise * rng.normal(size=(n, n_features))).astype(np.float32)


class TestAgreement:
    def test_against_loops(self):
        rng = np.random.default_rng(0)
        spaces = [normalize(rng.normal(size=(25, d))).astype(np.float32) for d in (3, 5, 4)]
        agreement = Agreement.fit(spaces, 4, (1, 1, 1))
        near = []
        for space in spaces:
            distances = ((space[:, None] - space) ** 2).sum(-1)
            np.fill_diagonal(distances, np.inf)
            near.append(np.argsort(distances, 1)[:, :4])
        gains = np.empty((25, 3, 3))
        for i in range(25):
            for s in range(3):
                for t in range(3):
                    gains[i, s, t] = np.mean([spaces[t][i] @ spaces[t][j] for j in near[s][i]])
                    gains[i, s, t] -= np.mean(spaces[t] @ spaces[t][i])
        np.testing.assert_allclose(agreement.gains, gains, atol=1e-6)
        for i in range(25):
            for s in range(3):
                for t in range(3):
                    around = [i, *near[s][i]]
                    share = gains[around, s, t].sum() / max(gains[around, t, t].sum(), 1e-6)
                    assert agreement.pairwise[i, s, t] == pytest.approx(np.clip(share, 0, 1), abs=1e-4)

    def test_trust_is_the_leading_eigenvector(self):
        rng = np.random.default_rng(1)
        pairwise, structure = rng.random((10, 3, 3)), rng.random(3)
        weights = trust(pairwise, structure)
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
        assert (weights > 0).all()
        for matrix, weight in zip(pairwise, weights, strict=True):
            matrix = matrix.copy()
            np.fill_diagonal(matrix, structure)
            product = (matrix + agreement.MIN_TRUST) @ weight
            np.testing.assert_allclose(product / product.sum(), weight, atol=1e-5)

    @pytest.mark.parametrize(
        ("matrix", "structure", "expected"),
        [
            ([[1, 0.6], [0.6, 1]], [0.8, 0.8], [0.5, 0.5]),
            ([[1, 0], [0, 1]], [0.0, 0.0], [0.5, 0.5]),  # nothing agrees with anything
            ([[1, 0], [0, 1]], [0.9, 0.3], [0.98, 0.02]),  # a contradiction
            ([[1, 0.7, 0], [0.7, 1, 0], [0, 0, 1]], [0.8, 0.8, 0.8], [0.495, 0.495, 0.01]),  # one against two
        ],
    )
    def test_trust_by_hand(self, matrix, structure, expected):
        found = trust(np.array([matrix], dtype=float), np.array(structure))
        np.testing.assert_allclose(found[0], expected, atol=0.01)

    def test_structure(self):
        types = np.random.default_rng(0).integers(4, size=400)
        structured = clustered(400, 12, types, 0)
        noise = normalize(np.random.default_rng(1).normal(size=(400, 12))).astype(np.float32)
        assert own_structure([structured], 15) > 0.65
        assert own_structure([noise], 15) < 0.05
        assert own_structure([noise, structured], 15) == own_structure([structured], 15)
        assert own_structure([noise[:, :1]], 15) == 0

    def test_counts_of_one_profile_have_no_structure(self):
        """Though the components of two normalisations of the same counts predict each other."""
        counts = poisson(300, 200, 5) + 1
        rna = Rna.fit(source(counts), 100, 10)
        assert own_structure(rna.structure_features(rna.features(source(counts))), 15) < 0.05

    def test_weights_of_noise_and_of_mixed_up_cells(self):
        rng = np.random.default_rng(0)
        types = rng.integers(4, size=400)
        first, second = clustered(400, 12, types, 0), clustered(400, 20, types, 1)
        noise = normalize(rng.normal(size=(400, 8))).astype(np.float32)
        mixed = second[rng.permutation(400)]

        def fit(*spaces):
            return Agreement.fit(spaces, 15, [own_structure([space], 15) for space in spaces])

        intact = fit(first, second).weights.mean(0)
        np.testing.assert_allclose(intact, 0.5, atol=0.1)
        assert fit(first, second, noise).weights.mean(0)[2] < 0.05
        assert fit(first, clustered(400, 9, types, 2), mixed).weights.mean(0)[2] < 0.05
        assert fit(first, mixed).overall[0, 1] < 0.1

    def test_a_modality_that_sees_a_type_less_well_counts_less_for_it(self):
        """The second does not tell types 0 and 1 apart, the first does all."""
        rng = np.random.default_rng(0)
        types = rng.integers(4, size=600)
        full, blind = clustered(600, 12, types, 0, 0.7), clustered(600, 12, np.maximum(types, 1), 1, 0.7)
        weights = Agreement.fit([full, blind], 15, (0.8, 0.8)).weights[:, 1]
        assert weights[types <= 1].mean() < weights[types >= 2].mean() - 0.05

    def test_new_cells_one_by_one(self):
        types = np.random.default_rng(0).integers(3, size=200)
        spaces = [clustered(200, 6, types, seed) for seed in (0, 1)]
        agreement = Agreement.fit([space[:180] for space in spaces], 10, (0.8, 0.8))
        points = [space[180:] for space in spaces]

        def weigh(rows):
            known, new = [space[:180] for space in spaces], [point[rows] for point in points]
            near = [nearest_neighbors(*both) for both in zip(known, [10, 10], new, strict=True)]
            return agreement.weights_of(known, new, near)

        together = weigh(np.arange(20))
        np.testing.assert_allclose(np.concatenate([weigh([i]) for i in range(20)]), together, atol=1e-6)
        np.testing.assert_allclose(together.mean(0), agreement.weights.mean(0), atol=0.1)

    def test_join(self):
        rng = np.random.default_rng(0)
        spaces = [normalize(rng.normal(size=(6, d))) for d in (3, 4)]
        weights = rng.dirichlet([1, 1], size=6)
        joined = join(spaces, weights)
        expected = sum(np.sqrt(weights[1, m] * weights[4, m]) * (space[1] @ space[4]) for m, space in enumerate(spaces))
        assert joined[1] @ joined[4] == pytest.approx(expected, abs=1e-6)
        np.testing.assert_allclose(np.linalg.norm(joined, axis=1), 1, atol=1e-6)
