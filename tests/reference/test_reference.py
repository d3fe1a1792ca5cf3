import pandas as pd

from scrcl.reference.reference import joint_names


def test_names_that_two_modalities_have():
    names = joint_names({"rna": pd.Index(["CD4", "LYZ"]), "prot": pd.Index(["CD4", "CD8a"])})
    assert list(names) == ["CD4", "LYZ", "prot:CD4", "CD8a"]
