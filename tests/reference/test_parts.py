import numpy as np
import pandas as pd

from scrcl.reference.parts import joint_names, side_by_side, split_features


def test_names_that_two_modalities_have():
    names = joint_names({"rna": pd.Index(["CD4", "LYZ"]), "prot": pd.Index(["CD4", "CD8a"])})
    assert list(names) == ["CD4", "LYZ", "prot:CD4", "CD8a"]


def test_features_are_split_as_they_were_joined():
    parts = [np.arange(6.0).reshape(3, 2), np.ones((3, 1))]
    for part, found in zip(parts, split_features(side_by_side(parts), [2, 1]), strict=True):
        np.testing.assert_array_equal(found, part)
