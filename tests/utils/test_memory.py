import ctypes
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import scrcl
from scrcl.utils import memory

from ..helpers import build, simulate


class TestMemory:
    def test_lack_is_foreseen(self, monkeypatch):
        monkeypatch.setattr(memory, "available", lambda: 1e9)
        adata = simulate()
        scrcl.SCRCL.setup_anndata(adata)
        with pytest.warns(UserWarning, match=r"150 cells needs about 1\.5 GB of memory, but 1\.0 GB.*n_components"):
            model = scrcl.SCRCL(adata)
        monkeypatch.setattr(memory, "available", lambda: 1.0)
        with pytest.warns(UserWarning, match=r"batches of 50 cells.*smaller `batch_size`"):
            model.train(1, batch_size=50, enable_progress_bar=False)

    def test_no_warning_where_there_is_enough(self, adata, recwarn, monkeypatch):
        monkeypatch.setattr(memory, "available", lambda: 1.6e9)
        build(adata, epochs=1)
        assert not [warning for warning in recwarn if "of memory" in str(warning.message)]

    def test_what_is_free(self, monkeypatch):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=3e9))
        monkeypatch.setattr(Path, "read_text", lambda path: {"memory.max": "5e9", "memory.current": "4e9"}[path.name])
        assert memory.available() == 1e9
        monkeypatch.setattr(Path, "read_text", lambda path: "max")  # no limit of a container
        assert memory.available() == 3e9


@pytest.mark.parametrize("system", [lambda name: object(), ctypes.CDLL], ids=["without", "this one"])
def test_release_on_any_system(monkeypatch, system):
    monkeypatch.setattr(ctypes, "CDLL", system)
    memory.release()
