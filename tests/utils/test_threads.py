import pytest
import torch
from lightning.pytorch import Callback

import scrcl
from scrcl.utils import threads as threads_module
from scrcl.utils.threads import suited_threads, threads


class TestThreads:
    @pytest.mark.parametrize(
        ("n_entries", "now", "expected"),
        [(1000, 4, 1), (2_000_000, 4, 4), (1_200_000, 4, 2), (10**9, 4, 4), (1000, 3, 3), (1000, 8, 1)],
    )
    def test_as_many_as_are_worth_it(self, monkeypatch, n_entries, now, expected):
        """Four threads by default on eight cores; another number than these was set by the user."""
        monkeypatch.setattr(threads_module, "DEFAULT", 4)
        monkeypatch.setattr("os.cpu_count", lambda: 8)
        monkeypatch.setattr(torch, "get_num_threads", lambda: now)
        assert suited_threads(n_entries) == expected

    def test_restored_even_after_a_fault(self):
        before = torch.get_num_threads()
        found = []

        def work() -> None:
            with threads(10**9, before + 2):
                found.append(torch.get_num_threads())
                raise RuntimeError("a fault")

        with pytest.raises(RuntimeError, match="a fault"):
            work()
        assert found == [before + 2]
        assert torch.get_num_threads() == before

    def test_an_argument_overrules(self, adata):
        found = []

        class Look(Callback):
            def on_train_epoch_start(self, *args):
                found.append(torch.get_num_threads())

        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=8, n_components=5)
        before = torch.get_num_threads()
        model.train(1, accelerator="cpu", enable_progress_bar=False, n_threads=3, callbacks=[Look()])
        assert found == [3]
        assert torch.get_num_threads() == before
        with pytest.raises(ValueError, match="n_threads"):
            model.train(1, n_threads=0)
