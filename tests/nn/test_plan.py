"""Training that is interrupted, and what stopping and schedules watch."""

import os
import signal
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

import scrcl
from scrcl.nn.module import SCRCLModule
from scrcl.nn.plan import SCRCLTrainingPlan


class TestInterruption:
    @pytest.fixture
    def listening(self):
        """Ctrl-C raises KeyboardInterrupt, also where a shell that runs the tests in the background ignores it."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.usefixtures("listening")
    @pytest.mark.parametrize("interrupt", ["signal", "exception"])
    def test_ctrl_c_keeps_a_usable_model(self, adata, interrupt):
        class Interrupt(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                if trainer.current_epoch == 3:
                    if interrupt == "exception":
                        raise KeyboardInterrupt
                    os.kill(os.getpid(), signal.SIGINT)

        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=8)
        handler = signal.getsignal(signal.SIGINT)
        with pytest.warns(UserWarning, match="interrupted after 3 of 50 epochs"):
            model.train(50, enable_progress_bar=False, callbacks=[Interrupt()])
        assert signal.getsignal(signal.SIGINT) == handler
        assert model.is_trained
        assert len(model.history["train_loss"]) >= 3
        assert np.isfinite(model.get_latent_representation()).all()
        model.train(2, enable_progress_bar=False)

    def test_other_errors_are_not_swallowed(self, adata):
        class Fail(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                raise SystemExit(3)

        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=8)
        with pytest.raises(SystemExit):
            model.train(5, enable_progress_bar=False, callbacks=[Fail()])


class TestWhatIsWatched:
    def test_early_stopping_watches_the_loss(self, adata):
        scrcl.SCRCL.setup_anndata(adata)
        options: dict[str, Any] = {"early_stopping": True, "early_stopping_patience": 5, "enable_progress_bar": False}
        stopped = scrcl.SCRCL(adata, n_hidden=8)
        stopped.train(60, plan_kwargs={"lr": 0, "weight_decay": 0}, early_stopping_min_delta=1, **options)
        assert len(stopped.history["train_loss"]) < 60
        learning = scrcl.SCRCL(adata, n_hidden=8)
        learning.train(20, early_stopping_min_delta=0, **{**options, "early_stopping_patience": 19})
        assert len(learning.history["train_loss"]) == 20

    def test_learning_rate_schedule_watches_the_loss(self, adata):
        scrcl.SCRCL.setup_anndata(adata)
        model = scrcl.SCRCL(adata, n_hidden=8)
        plan = {"reduce_lr_on_plateau": True, "lr_patience": 0, "lr_threshold": 1e6}
        model.train(5, plan_kwargs=plan, enable_progress_bar=False)
        rates = model.history["lr-Adam"].iloc[:, 0]
        assert rates.iloc[-1] < rates.iloc[0]


def test_the_optimiser_is_fused_on_the_cpu():
    module = SCRCLModule(np.ones((9, 4), np.float32), 3, 6, 4, temperature=1.0, dropout_rate=0.0)
    for optimizer in ("Adam", "AdamW"):
        groups = SCRCLTrainingPlan(module, optimizer=optimizer).configure_optimizers()["optimizer"].param_groups
        assert all(group["fused"] for group in groups)
    custom = SCRCLTrainingPlan(module, optimizer="Custom", optimizer_creator=lambda p: torch.optim.SGD(p, lr=0.1))
    assert not custom.configure_optimizers()["optimizer"].param_groups[0]["fused"]
