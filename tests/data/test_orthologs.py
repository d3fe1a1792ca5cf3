import pandas as pd
import pytest

from scrcl.data.orthologs import read_orthologs

LISTS = {"a": ["INS", "GCG"], "b": ["TTR"]}


def test_either_order_and_only_single_counterparts():
    table = pd.DataFrame({"mouse": ["Ins1", "Ins2", "Gcg", "Ttr", None], "human": ["INS", "INS", "GCG", "TTR", "X"]})
    assert read_orthologs(table, LISTS) == {"GCG": "Gcg", "TTR": "Ttr"}
    assert read_orthologs(table[["human", "mouse"]], LISTS) == {"GCG": "Gcg", "TTR": "Ttr"}
    assert read_orthologs(None, LISTS) == {}


def test_files(tmp_path):
    table = pd.DataFrame({"human": ["GCG"], "mouse": ["Gcg"]})
    table.to_csv(tmp_path / "o.csv", index=False)
    table.to_csv(tmp_path / "o.tsv", index=False, sep="\t")
    for name in ("o.csv", "o.tsv"):
        assert read_orthologs(tmp_path / name, LISTS) == {"GCG": "Gcg"}


def test_three_columns():
    with pytest.raises(ValueError, match="orthologs has 3 columns"):
        read_orthologs(pd.DataFrame(columns=["a", "b", "c"]), LISTS)
    with pytest.raises(ValueError, match="orthologs is empty"):
        read_orthologs({}, LISTS)
