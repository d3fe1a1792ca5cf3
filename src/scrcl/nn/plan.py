"""Training plan and runner, where they differ from the variational defaults of scvi-tools."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from scvi import settings
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan, TrainRunner

from scrcl.utils.errors import ScrclWarning
from scrcl.utils.words import counted

from .module import SCRCLModule

#: Loggers of Lightning that list the hardware, advertise a logger, and say that the last epoch is reached.
CHATTY_LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out what Lightning says of every training; a level that the user has set is kept."""
    loggers = [logger for logger in map(logging.getLogger, CHATTY_LOGGERS) if logger.level == logging.NOTSET]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(GPU|TPU|HPU) available but not used")
            yield
    finally:
        for logger in loggers:
            logger.setLevel(logging.NOTSET)


class SCRCLTrainingPlan(TrainingPlan):
    """Training plan of SCRCL.

    Differs from :class:`scvi.train.TrainingPlan` in the defaults of the optimiser, whose variational values (``eps`` of
    0.01) do not suit this loss, and in the recorded metrics: the terms of the loss, and no evidence lower bound.

    Parameters
    ----------
    module
        The module to train.
    lr
        Learning rate of Adam.
    weight_decay
        Weight decay of Adam.
    eps
        Term added to the denominator of Adam.
    lr_scheduler_metric
        Metric watched when ``reduce_lr_on_plateau=True``.
    **kwargs
        Passed to :class:`scvi.train.TrainingPlan`, which passes unknown ones to the loss: ``alignment_weight``,
        ``neighborhood_weight``, ``cross_view_weight`` and ``labels_weight``.
    """

    module: SCRCLModule

    def __init__(
        self,
        module: SCRCLModule,
        *,
        lr: float = 3e-3,
        weight_decay: float = 1e-3,
        eps: float = 1e-8,
        lr_scheduler_metric: str = "train_loss",
        **kwargs: object,
    ) -> None:
        super().__init__(
            module, lr=lr, weight_decay=weight_decay, eps=eps, lr_scheduler_metric=lr_scheduler_metric, **kwargs
        )

    def configure_optimizers(self) -> dict[str, Any]:
        """Use the fused optimiser of torch on the CPU, which takes half of the time of a step."""
        config = super().configure_optimizers()
        if self.optimizer_name != "Custom" and self.module.device.type == "cpu":
            for group in config["optimizer"].param_groups:
                group["fused"] = True
        return config

    def optimizer_step(self, *args: object, **kwargs: object) -> None:
        """Count each change of the weights."""
        super().optimizer_step(*args, **kwargs)
        self.module.weights_changed()

    def initialize_train_metrics(self) -> None:
        """Record no evidence lower bound."""
        self.train_metrics: dict = {}

    def initialize_val_metrics(self) -> None:
        """Record no evidence lower bound."""
        self.val_metrics: dict = {}

    @torch.no_grad()  # inference tensors cannot be reduced over devices
    def compute_and_log_metrics(self, loss_output: LossOutput, metrics: dict, mode: str) -> None:
        """Record each term of the loss."""
        self.log_dict(
            {f"{name}_{mode}": value for name, value in loss_output.extra_metrics.items()},
            on_step=self.on_step,
            on_epoch=self.on_epoch,
            batch_size=loss_output.n_obs_minibatch,
            sync_dist=self.use_sync_dist,
        )


class SCRCLTrainRunner(TrainRunner):
    """Train runner that keeps the weights when the user interrupts training."""

    def __call__(self) -> None:
        """Run training; Ctrl-C stops it early and keeps a usable model."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGINT)
        try:
            with warnings.catch_warnings():
                # Training uses all cells, without validation, and often one minibatch an epoch.
                warnings.filterwarnings("ignore", message="You defined a `validation_step`")
                warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
                super().__call__()
        except (KeyboardInterrupt, SystemExit) as error:
            # Lightning turns Ctrl-C into SystemExit and leaves the signal ignored.
            if not any(isinstance(cause, KeyboardInterrupt) for cause in (error, error.__context__)):
                raise
            if self.trainer.current_epoch == 0:
                raise KeyboardInterrupt from None
            self.model.module.eval()
            self.model.to_device(self.device)
            self.model.train_indices = self.data_splitter.train_idx
            self.model.trainer = self.trainer
            self.model.is_trained_ = True
            warnings.warn(
                ScrclWarning(
                    f"Training was interrupted after {self.trainer.current_epoch} of {counted(self.trainer.max_epochs, 'epoch')}.",
                    "The model can be used as it is; call `model.train()` to continue.",
                ),
                stacklevel=settings.warnings_stacklevel,
            )
        finally:
            if in_main_thread:
                signal.signal(signal.SIGINT, handler)
