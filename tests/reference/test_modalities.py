import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

from scrcl.data.counts import Counts
from scrcl.data.sources import Source
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.reference import agreement
from scrcl.reference.agreement import Agreement, join, own_structure, trust
from scrcl.reference.features import CountFeatures, Moments, variable_genes
from scrcl.reference.modalities import KINDS, Atac, Embedding, Protein, Rna, modality_from_dict
from scrcl.reference.prepare import variable_features
from scrcl.reference.reference import joint_names

from ..conftest import simulate


def source(counts, kind: str = "rna") -> Source:
    names = pd.Index([f"v{i}" for i in range(counts.shape[1])])
    if kind == "features":
        return Source(kind, names, "names", None, np.asarray(counts, dtype=np.float32), "features")
    return Source(kind, names, "names", lambda: Counts.of(sp.csr_array(counts), "counts"))


def poisson(n: int, n_variables: int, rate: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(1, rate, size=n_variables), size=(n, n_variables)).astype(np.float32)


def clustered(n: int, n_features: int, types: np.ndarray, seed: int, noise: float = 1.0) -> np.ndarray:
    """Unit rows around a centre for each type."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(types.max() + 1, n_features)) * 2
    return normalize(centers[types] + noise * rng.normal(size=(n, n_features))).astype(np.float32)


class TestKinds:
    def test_rna_has_the_features_of_one_modality(self):
        counts = sp.csr_array(simulate().X)
        wrapped = Counts.of(counts, "counts")
        columns = variable_genes(wrapped, Moments.of(wrapped), 50)
        totals = counts.sum(axis=1).astype(np.float64)
        alone = CountFeatures.fit(counts[:, columns], totals, 8)
        rna = Rna.fit(source(counts), 50, 8)
        np.testing.assert_array_equal(rna.columns, columns)
        np.testing.assert_array_equal(rna.features(source(counts)), alone.transform(counts[:, columns], totals))

    def test_protein_is_the_centred_log_ratio_across_cells(self):
        """The function of Seurat, protein by protein: ``log1p(x / exp(sum(log1p(x[x > 0])) / length(x)))``."""
        counts = poisson(60, 5, 20)
        counts[::3, 0] = 0
        ratios = np.empty(counts.shape)
        for p, x in enumerate(counts.T.astype(float)):
            ratios[:, p] = np.log1p(x / np.exp(np.log1p(x[x > 0]).sum() / len(x)))
        protein = Protein.fit(source(counts), 2000, 10)
        np.testing.assert_allclose(protein.expression(source(counts)).toarray(), ratios, rtol=1e-6)
        standardized = (ratios - ratios.mean(0)) / ratios.std(0)
        np.testing.assert_allclose(protein.features(source(counts)), standardized / np.sqrt(5), atol=1e-5)

    def test_many_proteins_are_reduced_to_principal_components(self):
        counts = poisson(80, 30, 20)
        protein = Protein.fit(source(counts), 2000, 6)
        ratios = protein.expression(source(counts)).toarray()
        expected = PCA(6).fit_transform((ratios - ratios.mean(0)) / ratios.std(0))
        found = protein.features(source(counts))
        scale = np.linalg.norm(found) / np.linalg.norm(expected)
        np.testing.assert_allclose(np.abs(found), np.abs(expected) * scale, atol=1e-4)

    def test_a_protein_without_counts_adds_nothing(self):
        counts = poisson(40, 4, 20)
        counts[:, 2] = 0
        protein = Protein.fit(source(counts), 2000, 10)
        assert protein.n_features == 3
        assert np.isfinite(protein.features(source(counts + 1))).all()

    def test_atac_is_lsi_without_the_first_component(self):
        counts = poisson(50, 40, 1)
        counts[:, 0] = np.maximum(counts[:, 0], 1)
        frequency = counts / counts.sum(1, keepdims=True)
        kept = counts.any(0)
        values = np.log1p(frequency * (50 / np.maximum((counts > 0).sum(0), 1)) * 1e4)[:, kept]
        u, s, _ = np.linalg.svd(values, full_matrices=False)
        expected = (u * s)[:, 1:5]
        expected -= expected.mean(0)
        expected /= np.sqrt((expected**2).sum(1).mean())
        atac = Atac.fit(source(counts), 20, 4)
        np.testing.assert_allclose(np.abs(atac.features(source(counts))), np.abs(expected), atol=1e-4)
        every = np.log1p(frequency * (50 / np.maximum((counts > 0).sum(0), 1)) * 1e4)
        np.testing.assert_allclose(atac.expression(source(counts)).toarray(), every[:, atac.columns], rtol=1e-5)

    def test_what_follows_the_depth_of_a_cell_is_dropped(self):
        rng = np.random.default_rng(0)
        types, depth = rng.integers(2, size=200), rng.lognormal(0, 0.7, size=200)
        rates = rng.gamma(1, 0.5, size=100)
        boost = np.where(np.arange(100) < 20, 8, 1)
        counts = rng.poisson(depth[:, None] * np.where(types[:, None] == 1, rates * boost, rates)).astype(np.float32)
        counts[:, 50] += 1
        atac = Atac.fit(source(counts), 20, 3)
        first = atac.features(source(counts))[:, 0]
        of_type = abs(np.corrcoef(first, types)[0, 1])
        assert of_type > 0.8
        assert np.isin(atac.columns, np.arange(20)).sum() > 10  # the peaks that tell the types apart; by chance 4

    def test_given_features_keep_their_geometry(self):
        features = np.random.default_rng(0).normal(5, 2, size=(30, 4)).astype(np.float32)
        given = Embedding.fit(source(features, "features"), 2000, 50)
        found = given.features(source(features, "features"))
        assert np.sqrt((found**2).sum(1).mean()) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(found[0] - found[1], (features[0] - features[1]) * given.scale, atol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_saved_and_read_again(self, kind):
        counts = poisson(60, 30, 3) + 1
        fitted = KINDS[kind].fit(source(counts, kind), 10, 5)
        again = modality_from_dict(fitted.to_dict())
        new = source(counts[:7] * 2, kind)
        np.testing.assert_array_equal(again.features(new), fitted.features(new))
        np.testing.assert_array_equal(again.expression(new).toarray(), fitted.expression(new).toarray())
        assert list(again.variables) == list(fitted.variables)
        # A cell has the same features whoever stands beside it.
        np.testing.assert_allclose(fitted.features(new, np.array([3])), fitted.features(new)[3:4], atol=1e-6)


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
            product = (matrix + agreement.LEAST_TRUST) @ weight
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
        assert own_structure([structured], 15) > 0.7
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


def test_variable_features_in_the_space_of_all_modalities():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(30, 4)), rng.normal(size=(30, 3))]
    parts = [part - part.mean(0) for part in parts]
    values = [np.maximum(rng.normal(size=(30, 5)), 0), np.maximum(rng.normal(size=(30, 2)), 0)]
    found = variable_features([sp.csr_array(value) for value in values], parts, [0.7, 0.3], 50)
    cells = np.concatenate([np.sqrt(0.7) * parts[0], np.sqrt(0.3) * parts[1]], 1)
    u = np.linalg.svd(cells, full_matrices=False)[0]
    every = np.concatenate(values, 1)
    expected = normalize((every - every.mean(0)).T @ u)
    assert found.shape == (7, 7)
    # The same up to a rotation of the axes.
    np.testing.assert_allclose(found @ found.T / 7, expected @ expected.T, atol=1e-4)


def test_names_that_two_modalities_have():
    names = joint_names({"rna": pd.Index(["CD4", "LYZ"]), "prot": pd.Index(["CD4", "CD8a"])})
    assert list(names) == ["CD4", "LYZ", "prot:CD4", "CD8a"]
