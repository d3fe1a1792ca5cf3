"""The report on batches, by hand."""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scrcl.reference.batch_report import BatchReport, report_batches
from scrcl.reference.batches import Batches


def test_the_report_by_hand():
    # Two clusters on a line, far apart: in the first, cells of both batches take turns; the second is of one batch.
    points = np.concatenate([np.arange(40.0), 1000 + np.arange(10.0)])[:, None]
    codes = np.concatenate([np.arange(40) % 2, np.zeros(10, dtype=int)])
    clusters = pd.Series(pd.Categorical(["0"] * 40 + ["1"] * 10))
    graph = sp.csr_array((np.ones(2), ([0, 1], [1, 0])), shape=(50, 50))
    mixing = {"rna": np.array([0.2, 0.6]), "prot": np.array([0.5, 0.4])}
    separation = {"rna": np.array([1.4, 1.3]), "prot": np.array([1.2, 1.5])}
    batches = Batches(("a", "b"), codes, mixing, separation, {}, {"rna": np.array([[1.0], [-1.0]])}, {})
    report = report_batches(batches, graph, points, clusters, 1)
    assert report.corrected == ["rna"]
    assert report.batches["cells"].tolist() == [30, 20]
    assert report.batches["separation"].tolist() == [1.4, 1.5]
    assert report.batches["before"].tolist() == [0.2, 0.4]
    np.testing.assert_allclose(report.batches["mutual_neighbors"], [1 / 30, 1 / 20])
    # The nearest cell is of the other batch, for all of the 20 cells of "a" in the first cluster and none of the second.
    np.testing.assert_allclose(report.batches["after"], [20 / 30 / (20 / 49), 1 / (30 / 49)])
    assert report.clusters["cells"].tolist() == [40, 10]
    assert report.clusters["only_in"].isna().tolist() == [True, False]
    assert report.clusters.loc["1", "only_in"] == "a"
    np.testing.assert_allclose(report.clusters[["a", "b"]], [[2 / 3, 1], [1 / 3, 0]])
    assert report.clusters.loc["1", "mixing"] == 0


def test_what_is_shown():
    table = pd.DataFrame({"cells": [30, 20], "separation": [1.4, 1.5]}, index=["a", "b"])
    clusters = pd.DataFrame({"cells": [40, 10], "only_in": [None, "a"]}, index=["0", "1"])
    report = BatchReport(["rna"], table, clusters)
    lines = repr(report).splitlines()
    assert lines[0] == "BatchReport: 2 batches; an effect is corrected in rna; cluster 1 is only in a"
    assert len(lines) == 4
    assert "<table" in report._repr_html_()
    none = BatchReport([], table, clusters.iloc[:1])
    assert repr(none).startswith("BatchReport: 2 batches; no effect is corrected\n")
