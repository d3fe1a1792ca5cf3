import numpy as np
import pandas as pd

from scrcl.cluster.components import Components
from scrcl.labels.annotation import Annotation
from scrcl.labels.cell_labels import Labels
from scrcl.labels.conformal import TypeSets, calibrate
from scrcl.labels.logistic import Logistic
from scrcl.labels.report import report_labels


def example() -> Annotation:
    """Six cells worked out by hand: the second is labelled b, but said to be a; the last one is the only c."""
    labels = Labels(("a", "b", "c"), np.array([0, 1, 1, -1, -1, 2]))
    held_out = np.full((6, 4), np.nan)
    held_out[:3] = [[0.9, 0.1, 0, 0], [0.8, 0.2, 0, 0], [0.3, 0.6, 0.1, 0]]
    probabilities = np.eye(4)[[0, 0, 1, 3, 3, 2]]
    components = Components(np.zeros(1, np.float32), np.ones((1, 1), np.float32))
    classifier = Logistic(np.zeros((1, 4)), np.zeros(4), np.full(4, 0.25))
    sets = TypeSets(components, (classifier,), calibrate(held_out, labels.codes, np.zeros(6, dtype=int)), 3)
    names = ("a", "b", "c", "new 1")
    return Annotation(labels, names, components, classifier, 1.0, probabilities, held_out, sets)


CLUSTERS = pd.Series(pd.Categorical(["0", "0", "0", "1", "1", "2"]))


def test_cells_with_the_most_doubtful_first():
    report = report_labels(example(), CLUSTERS, np.arange(6), pd.Index(list("uvwxyz")))
    assert report.cells.index.tolist() == ["v", "w", "u", "z"]
    assert report.cells["label"].tolist() == ["b", "b", "a", "c"]
    assert report.cells["predicted"].tolist() == ["a", "b", "a", None]
    np.testing.assert_array_equal(report.cells["probability"], [0.2, 0.6, 0.9, np.nan])


def test_confusions():
    report = report_labels(example(), CLUSTERS, np.arange(6), pd.Index(list("uvwxyz")))
    assert report.confusions.index.tolist() == report.confusions.columns.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(report.confusions, [[1, 0, 0], [1, 1, 0], [0, 0, 0]])


def test_clusters():
    clusters = report_labels(example(), CLUSTERS, np.arange(6), pd.Index(list("uvwxyz"))).clusters
    assert clusters.index.tolist() == ["0", "1", "2"]
    assert clusters["cells"].tolist() == [3, 2, 1]
    assert clusters["labelled"].tolist() == [3, 0, 1]
    assert clusters["label"].tolist() == ["b", None, "c"]
    np.testing.assert_allclose(clusters["agreement"], [2 / 3, np.nan, 1])
    assert clusters["predicted"].tolist() == ["a", "new 1", "c"]


def test_cells_in_the_order_of_other_data():
    report = report_labels(example(), CLUSTERS, np.array([2, 3, 0]), pd.Index(["w", "x", "u"]))
    assert report.cells.index.tolist() == ["w", "u"]
    assert report.cells["probability"].tolist() == [0.6, 0.9]


def test_what_is_shown_by_hand():
    """Of the two labels "b", one is said to be "a"; the only "c" was never predicted."""
    report = report_labels(example(), CLUSTERS, np.arange(6), pd.Index(list("uvwxyz")))
    table = report.by_label()
    assert table["cells"].to_dict() == {"a": 1, "b": 2, "c": 0}
    np.testing.assert_array_equal(table["agreement"], [1, 0.5, np.nan])
    assert table["confused_with"].tolist() == [None, "a", None]
    np.testing.assert_array_equal(table["share"], [np.nan, 0.5, np.nan])
    lines = repr(report).splitlines()
    assert lines[0].startswith("LabelReport: 4 labelled cells of 3 types; ")
    assert lines[0].endswith(" agrees with 67% of the labels")
    assert len(lines) == 6
    assert "<table" in report._repr_html_()
