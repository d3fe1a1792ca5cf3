import pickle
from collections import OrderedDict
from pathlib import Path

import pytest

from scrcl.data.marker_resources import TERMS, read_plain_pickle, read_resource
from scrcl.utils.files import UnsafeFileError


class TestPickles:
    def test_plain_containers(self, tmp_path):
        value = {"a": [1, 2.5, None, "x"], "b": ({"c": True},)}
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
        assert read_plain_pickle(tmp_path / "a.pkl") == value

    @pytest.mark.parametrize("value", [Path("x"), OrderedDict(a=1), print])
    def test_classes_and_functions_are_refused(self, tmp_path, value):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": value}))
        with pytest.raises(UnsafeFileError, match="of the class"):
            read_plain_pickle(tmp_path / "a.pkl")


class TestCellconsensus:
    @pytest.fixture(scope="class")
    def sets(self):
        pytest.importorskip("cellconsensus")
        return read_resource("cellconsensus")

    def test_levels(self, sets):
        assert len(sets.genes) > 70
        assert sets.path("naive CD4+ T cell") == ["T / NK cell", "T cell", "CD4+ T cell", "naive CD4+ T cell"]
        assert sets.path("natural killer cell") == ["T / NK cell", "natural killer cell"]
        assert sets.path("plasmacytoid dendritic cell")[:2] == ["myeloid cell", "dendritic cell"]
        assert not [name for name in sets.genes if name.startswith(("other", "cancer"))]
        assert max(sets.genes["pancreatic beta cell"], key=sets.genes["pancreatic beta cell"].get) == "INS"

    def test_identifiers(self, sets):
        """Each name has an identifier, and those that differ from the source are terms of the ontology."""
        assert set(sets.terms) == set(sets.genes)
        package = pytest.importorskip("cellconsensus")
        terms = read_plain_pickle(Path(package.__file__).parent / "data" / "consensus_cache_full.pkl")["ct_info"]
        assert set(TERMS.values()) <= set(terms)
        assert sets.terms["B cell"] == "CL:0000236"
        assert terms[sets.terms["T / NK cell"]]["name"] == "lymphocyte"

    def test_former_symbols(self, sets):
        assert sets.aliases["IL8"] == "CXCL8"
        assert sets.source.startswith("cellconsensus 1.")
