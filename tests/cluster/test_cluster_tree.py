import numpy as np
import pandas as pd
import pytest
import scipy.cluster.hierarchy
import scipy.sparse as sp

from scrcl.cluster.cluster_tree import ClusterTree
from scrcl.cluster.clustering import Clustering
from scrcl.cluster.tree import NestedClusters

SIZES = np.array([50, 40, 30, 20, 10])


def tree(across: float = 0.0) -> ClusterTree:
    """Leaves 3 and 4 are joined, then 0 and that, then 1 and 2, then all; only the first split has edges across."""
    labels = np.repeat(np.arange(5), SIZES)
    linkage = np.array([[3, 4, 0.2, 30], [0, 5, 0.5, 80], [1, 2, 0.6, 70], [6, 7, 0.9, 150]], dtype=float)
    leaves = Clustering(np.zeros((150, 1)), labels, probabilities=np.eye(5, dtype=np.float32)[labels])
    edges = np.diag(10.0 * SIZES)
    edges[3, 4] = edges[4, 3] = 100.0
    edges[1, 2] = edges[2, 1] = across
    columns = ["distance", "n_genes_left", "n_genes_right", "genes_left", "genes_right", "pvalue", "stability"]
    evidence = [[0.1, 0, 0, "", "", np.nan, 0.4], [0.5, 4, 2, "A", "B", 0.001, 0.9]]
    evidence += [[0.6, 9, 3, "C", "D", 0.2, 0.8], [0.9, 20, 9, "E", "F", 1e-9, 1.0]]
    nested = NestedClusters(leaves, linkage, edges)
    return ClusterTree(nested, pd.Index([f"c{i}" for i in range(150)]), pd.DataFrame(evidence, columns=columns))


def test_names_are_those_of_the_default_cut_and_stay_when_the_line_moves():
    found = tree()
    assert found.n_clusters == 4
    assert found.leaf_names == ["0", "1", "2", "3.0", "3.1"]
    assert found.sizes.to_dict() == {
        "all": 150, "1+2": 70, "0+3": 80, "3": 30, "3.1": 10, "3.0": 20, "2": 30, "1": 40, "0": 50,
    }  # fmt: skip
    assert found.cut().value_counts().to_dict() == {"0": 50, "1": 40, "2": 30, "3": 30}
    assert set(found.cut(n_clusters=5)) == {"0", "1", "2", "3.0", "3.1"}
    assert set(found.cut(n_clusters=2)) == {"0+3", "1+2"}
    assert set(found.cut(n_clusters=1)) == {"all"}


def test_the_table_has_a_row_for_each_split_from_the_root_on():
    splits = tree().splits
    assert splits.index.tolist() == ["all", "1+2", "0+3", "3"]
    sides = splits[["left", "right", "n_left", "n_right"]].to_numpy().tolist()
    assert sides[0] == ["0+3", "1+2", 80, 70]
    assert sides[-1] == ["3.0", "3.1", 20, 10]
    assert splits["supported"].tolist() == [True, True, True, False]
    assert splits["verdict"].tolist() == ["type", "type", "type", "none"]
    assert tree().first_splits.index.tolist() == ["all", "1+2", "0+3", "3"]
    assert tree(across=1e4).first_splits.index.tolist() == ["all", "0", "1+2", "2"]


@pytest.mark.parametrize(
    ("criteria", "clusters"),
    [
        ({"connectivity": 10.0}, {"0", "1", "2", "3.0", "3.1"}),
        ({"min_genes": 7}, {"0+3", "1", "2"}),
        ({"min_distance": 0.55}, {"0+3", "1", "2"}),
        ({"alpha": 0.01}, {"0", "3", "1+2"}),
        ({"min_stability": 0.85}, {"0", "3", "1+2"}),
        ({"min_genes": 7, "alpha": 0.01}, {"0+3", "1+2"}),
        ({"min_genes": 100}, {"all"}),
    ],
)
def test_the_line_can_be_moved(criteria, clusters):
    assert set(tree().cut(**criteria)) == clusters


def test_splits_that_many_edges_cross_are_not_supported():
    found = tree(across=300.0)
    assert found.leaf_names == ["1", "0.0", "0.1", "2.0", "2.1"]
    assert found.splits.loc["0", "verdict"] == "continuum"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_clusters": 6}, "n_clusters=6 is not between 1 and the 5 leaves"),
        ({"n_clusters": 0}, "n_clusters=0"),
        ({"n_clusters": 3, "alpha": 0.1}, "n_clusters=3 is given beside alpha"),
        ({"connectivity": "low"}, "connectivity='low'"),
        ({"alpha": -1}, "alpha=-1"),
    ],
)
def test_cuts_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        tree().cut(**arguments)


def test_the_linkage_is_valid_for_scipy_and_newick_has_all_names():
    found = tree()
    drawn = scipy.cluster.hierarchy.dendrogram(found.linkage, labels=found.leaf_names, no_plot=True)
    assert sorted(drawn["ivl"]) == sorted(found.leaf_names)
    assert found.to_newick() == "(('0':0.5,('3.0':0.2,'3.1':0.2)'3':0.3)'0+3':0.4,('1':0.6,'2':0.6)'1+2':0.3)'all';"


def test_one_leaf_is_one_cluster():
    leaves = Clustering(np.zeros((20, 1)), np.zeros(20, dtype=int), probabilities=np.ones((20, 1), dtype=np.float32))
    nested = NestedClusters.build(leaves, np.empty((0, 4)), sp.csr_array((20, 20)))
    found = ClusterTree(nested, pd.RangeIndex(20).astype(str), pd.DataFrame(columns=tree().evidence.columns))
    assert set(found.cut()) == {"0"}
    assert len(found.splits) == 0
    assert found.to_newick() == "'0';"
    assert repr(found).startswith("ClusterTree of 20 cells: 1 leaf, 1 cluster by default")


def test_the_representations_are_short():
    found = tree()
    assert len(repr(found).splitlines()) == 7
    assert "<table" in found._repr_html_()


def test_criteria_that_the_tree_has_no_evidence_for_are_refused():
    found = tree()
    bare = ClusterTree(found.nested, found.cell_names, pd.DataFrame(index=range(4), columns=found.evidence.columns))
    assert set(bare.cut(connectivity=10.0)) == {"0", "1", "2", "3.0", "3.1"}
    with pytest.raises(ValueError, match="min_genes requires evidence.*evidence=False"):
        bare.cut(min_genes=3)
