import pandas as pd
import pytest

from scrcl.utils.gene_names import find_genes, one_to_one


@pytest.mark.parametrize(
    ("wanted", "present", "way"),
    [
        ("CD3D", "GRCh38_CD3D", "spelling"),
        ("CD3D", "GRCh38____CD3D", "spelling"),
        ("CD3D", "ENSG00000167286.10_CD3D", "spelling"),
        ("CD3D", "CD3D|ENSG00000167286", "spelling"),
        ("CD3D", " CD3D ", "spelling"),
        ("ENSG00000167286", "ENSG00000167286.10", "spelling"),
        ("ENSG00000167286.2", "ENSG00000167286", "spelling"),
        ("ENSG00000167286", "ENSG00000167286_CD3D", "spelling"),
        ("ENSMUSG00000032094", "mm10_ENSMUSG00000032094.1", "spelling"),
        ("CD3D", "Cd3d", "case"),
        ("Cd3d", "mm10_CD3D", "case"),
        ("IL8", "CXCL8", "former symbol"),
        ("CXCL8", "IL8", "former symbol"),
        ("CXCL8", "GRCh38_IL8", "former symbol"),
    ],
)
def test_ways_of_writing(wanted, present, way):
    found = find_genes(pd.Index([wanted]), pd.Index(["OTHER", present]), {"IL8": "CXCL8"})
    assert found.columns.tolist() == [1]
    assert found.rewritten == {way: {wanted: present}}


def test_the_exact_name_comes_first():
    found = find_genes(pd.Index(["Ins1", "INS1"]), pd.Index(["INS1", "Ins1"]))
    assert found.columns.tolist() == [1, 0]
    assert not found.rewritten


def test_a_spelling_of_several_columns_finds_none():
    found = find_genes(pd.Index(["RP11-1"]), pd.Index(["RP11-1.2", "RP11-1.3"]))
    assert found.columns.tolist() == [-1]


def test_a_former_symbol_that_is_the_name_of_another_gene():
    found = find_genes(pd.Index(["OLD"]), pd.Index(["NEW", "OLD"]), {"OLD": "NEW"})
    assert found.columns.tolist() == [1]


def test_orthologs():
    found = find_genes(pd.Index(["INS", "GCG"]), pd.Index(["ins", "gcga"]), orthologs={"GCG": "gcga"})
    assert found.columns.tolist() == [0, 1]
    assert found.rewritten == {"case": {"INS": "ins"}, "ortholog": {"GCG": "gcga"}}


def test_one_to_one():
    pairs = one_to_one(pd.Index(["a", "a", "b", "c", "c"]), pd.Index(["1", "2", "3", "4", "4"]))
    assert pairs == {"b": "3", "c": "4"}
