import pandas as pd
import pytest

from scrcl.data.marker_sets import arrange, is_name, read_marker_sets


class TestArrange:
    def test_parents_come_first(self):
        genes, parents = arrange({"c": {}, "b": {"g": 1.0}, "a": {}}, {"c": "b", "b": "a"}, "hierarchy")
        assert list(genes) == ["a", "b", "c"]
        assert parents == {"b": "a", "c": "b"}

    @pytest.mark.parametrize("parents", [{"a": "b", "b": "c", "c": "a"}, {"a": "a"}, {"x": "a", "a": "b", "b": "a"}])
    def test_cycles(self, parents):
        with pytest.raises(ValueError, match="hierarchy has a cycle: "):
            arrange(dict.fromkeys(parents, {}), parents, "hierarchy")


class TestRead:
    def test_lists_are_plain(self):
        sets = read_marker_sets({"a": ["x", "y", "x"]})
        assert sets.lists == {"a": ["x", "y"]}
        assert not sets.by_level

    def test_equal_weights_are_none(self):
        table = pd.DataFrame({"source": ["a", "a"], "target": ["x", "y"], "weight": [1.0, 1.0]})
        assert not read_marker_sets(table).by_level
        assert read_marker_sets(table.assign(weight=[1.0, 2.0])).genes == {"a": {"x": 1.0, "y": 2.0}}

    def test_numbers_of_parents(self):
        sets = read_marker_sets({"b": ["x"], "c": ["y"]}, {"b": "a", "c": "a"})
        assert list(sets.genes) == ["a", "b", "c"]
        assert sets.parent_numbers.tolist() == [-1, 0, 0]
        assert sets.path("c") == ["a", "c"]


def test_names_of_collections_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").write_text("")
    assert is_name("cellconsensus")
    assert not any(map(is_name, ("lists.gmt", "lists", tmp_path / "x", {"a": []})))
