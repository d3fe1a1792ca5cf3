import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA

from scrcl.data.counts import Counts
from scrcl.data.sources import Source
from scrcl.reference.features import CountFeatures, Moments, variable_genes
from scrcl.reference.modality import Modality
from scrcl.reference.modality_kinds import KINDS, Atac, Embedding, Protein, Rna
from scrcl.utils.files import from_state, to_state

from ..helpers import simulate


def source(counts, kind: str = "rna") -> Source:
    names = pd.Index([f"v{i}" for i in range(counts.shape[1])])
    if kind == "features":
        return Source(kind, names, "names", None, np.asarray(counts, dtype=np.float32), "features")
    return Source(kind, names, "names", lambda: Counts.of(sp.csr_array(counts), "counts"))


def poisson(n: int, n_variables: int, rate: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(1, rate, size=n_variables), size=(n, n_variables)).astype(np.float32)


class TestKinds:
    def test_rna_has_the_features_of_one_modality(self):
        counts = sp.csr_array(simulate().X)
        wrapped = Counts.of(counts, "counts")
        columns = variable_genes(wrapped, Moments.by_batch(wrapped, np.zeros(wrapped.n_cells, dtype=int)), 50)
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
        again = from_state(Modality, to_state(fitted))
        new = source(counts[:7] * 2, kind)
        np.testing.assert_array_equal(again.features(new), fitted.features(new))
        np.testing.assert_array_equal(again.expression(new).toarray(), fitted.expression(new).toarray())
        assert list(again.variables) == list(fitted.variables)
        # A cell has the same features whoever stands beside it.
        np.testing.assert_allclose(fitted.features(new, np.array([3])), fitted.features(new)[3:4], atol=1e-6)
