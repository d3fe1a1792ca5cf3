"""What all kinds of modalities share: cells of several batches are read in one pass."""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scrcl.reference.modality import joint_names, side_by_side, split_features
from scrcl.reference.modality_kinds import KINDS

from .test_modality_kinds import poisson, source


def test_cells_are_read_as_their_batch_is():
    counts = sp.csr_array(poisson(30, 25, 4))
    data = source(counts, "rna")
    modality = KINDS["rna"].fit(data, 20, 5)
    own = modality.adaptation(data, np.arange(12))
    adapted = modality.adapted(own)
    codes = np.arange(30) % 2
    found = modality.features(data, None, codes, [{}, own])
    for number, each in enumerate((modality, adapted)):
        np.testing.assert_array_equal(found[codes == number], each.features(data)[codes == number])
    assert not np.allclose(modality.features(data), adapted.features(data))
    some = np.array([3, 4, 20])
    np.testing.assert_allclose(modality.features(data, some, codes[some], [{}, own]), found[some], atol=1e-5)


def test_a_kind_without_anything_of_a_batch_stays_as_it_is():
    counts = sp.csr_array(poisson(30, 40, 2))
    data = source(counts, "atac")
    modality = KINDS["atac"].fit(data, 20, 5)
    assert modality.adaptation(data, np.arange(10)) == {}


def test_only_rna_knows_the_counts_of_a_cell():
    counts = poisson(30, 40, 3)
    some, totals = np.array([2, 7, 20]), counts.sum(1)
    data = source(counts, "rna")
    found = KINDS["rna"].fit(data, 20, 5).log_counts(data, some)
    assert found is not None
    np.testing.assert_allclose(found, np.log(totals[some] / np.median(totals)), rtol=1e-6)
    assert KINDS["atac"].fit(source(counts, "atac"), 20, 5).log_counts(source(counts, "atac")) is None


def test_names_that_two_modalities_have():
    names = joint_names({"rna": pd.Index(["CD4", "LYZ"]), "prot": pd.Index(["CD4", "CD8a"])})
    assert list(names) == ["CD4", "LYZ", "prot:CD4", "CD8a"]


def test_features_are_split_as_they_were_joined():
    parts = [np.arange(6.0).reshape(3, 2), np.ones((3, 1))]
    for part, found in zip(parts, split_features(side_by_side(parts), [2, 1]), strict=True):
        np.testing.assert_array_equal(found, part)
