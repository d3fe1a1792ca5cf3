"""Training."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
from lightning.pytorch.utilities import rank_zero_only
from scvi.model._utils import use_distributed_sampler
from scvi.train._logger import SimpleLogger

from scrcl.nn.minibatches import GraphDataModule
from scrcl.nn.plan import SCRCLTrainingPlan, SCRCLTrainRunner, quiet_lightning
from scrcl.utils.checks import check_at_least, check_option
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.memory import warn_if_short
from scrcl.utils.progress import begin
from scrcl.utils.threads import threads
from scrcl.utils.words import counted

from .base import SCRCLBase
from .scvi_compat import (
    as_options,
    check_callbacks,
    check_split,
    check_trainer_options,
    explain_refused_options,
    find_device,
    warn_of_settings,
)

#: Passes over the cells, and minibatches after which no further pass begins, if `max_epochs` is not given.
DEFAULT_EPOCHS, DEFAULT_STEPS = 50, 250

#: Metrics recorded at each epoch.
METRICS = (
    "train_loss",
    "alignment_loss_train",
    "neighborhood_loss_train",
    "cross_view_loss_train",
    "label_loss_train",
)

#: Options of training that are weights and rates.
PLAN_OPTIONS = (
    "lr",
    "weight_decay",
    "alignment_weight",
    "neighborhood_weight",
    "cross_view_weight",
    "labels_weight",
)


class TrainingMixin(SCRCLBase):
    """Training of :class:`scrcl.SCRCL`."""

    _training_plan_cls = SCRCLTrainingPlan
    _train_runner_cls = SCRCLTrainRunner

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        load_sparse_tensor: bool = False,
        batch_size: int | None = None,
        early_stopping: bool = False,
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_config: Any = None,
        plan_kwargs: dict[str, Any] | None = None,
        datamodule: None = None,
        trainer_config: Any = None,
        n_threads: int | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the model on the cells it was built on. A further call continues training.

        Parameters
        ----------
        max_epochs
            Number of passes over the cells. By default 50, or fewer if 250 minibatches are reached before.
        accelerator, devices
            Where to train, as in :class:`lightning.pytorch.trainer.Trainer`. Several devices share the minibatches of an
            epoch.
        train_size, validation_size, datasplitter_kwargs, datamodule
            Arguments of :meth:`scvi.model.SCVI.train`. The model is trained on all cells: values that would hold some out,
            or add others, are refused.
        shuffle_set_split, load_sparse_tensor
            Arguments of :meth:`scvi.model.SCVI.train` without effect: no cells are held out, and the graph is sparse.
        batch_size
            Number of cells of a minibatch, which consists of random neighbourhoods and the graph among their cells. By
            default all cells and the whole graph up to 20,000 cells, and 1,024 cells beyond;
            ``scvi.settings.batch_size`` and ``scvi.settings.dl_num_workers`` have no effect.
        early_stopping
            Stop when ``train_loss`` no longer falls. :class:`scvi.train.Trainer` lists the options, which are passed
            as ``early_stopping_patience`` and so on.
        plan_kwargs
            Options of :class:`~scrcl.nn.plan.SCRCLTrainingPlan`: ``lr``, ``weight_decay``, and the weights of the
            losses, ``alignment_weight``, ``neighborhood_weight``, ``cross_view_weight`` and, if there are labels,
            ``labels_weight``; with 0, the network does not learn from labels.
        plan_config, trainer_config
            Options of the plan and of the trainer, as a dictionary or as a configuration of :mod:`scvi.train`, of which
            only values that differ from its defaults are used. ``plan_kwargs`` and named arguments take precedence.
        n_threads
            Number of threads of torch while training on CPU. By default as many as are worthwhile for minibatches of this
            size, one for a few thousand cells; a number set by :func:`torch.set_num_threads` that differs from that of the
            cores is respected. It is reset after training.
        **trainer_kwargs
            Passed to :class:`scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If an argument is out of range or unknown, or training ends before its first step.

        Notes
        -----
        The progress bar is turned off by ``enable_progress_bar=False``. Ctrl-C ends training early and leaves a
        usable model. ``history`` holds ``train_loss`` and its unweighted terms ``alignment_loss_train``,
        ``neighborhood_loss_train``, ``cross_view_loss_train`` and, if there are labels, ``label_loss_train``, by epoch.

        Examples
        --------
        >>> model = scrcl.SCRCL(adata)
        >>> model.train(max_epochs=2)
        >>> model.history["train_loss"].shape
        (2, 1)
        """
        check_split(train_size, validation_size, datasplitter_kwargs, datamodule)
        plan_kwargs = as_options(plan_config, "plan_config") | as_options(plan_kwargs, "plan_kwargs")
        trainer_kwargs = as_options(trainer_config, "trainer_config") | trainer_kwargs
        check_trainer_options(trainer_kwargs, self.train)
        check_callbacks(trainer_kwargs.get("callbacks") or ())
        if batch_size is not None:
            check_at_least(batch_size, 1, "batch_size")
        warn_of_settings(batch_size)
        reference = self._reference
        # With a weight of 0, training is that without labels.
        labels = None if plan_kwargs.get("labels_weight") == 0 else reference.labels
        adjacency = reference.adjacency if labels is None else labels.remove_conflicts(reference.adjacency)
        codes = None if labels is None else labels.codes
        data = GraphDataModule(reference.features, adjacency, reference.minibatch_points, batch_size, codes)
        if n_threads is not None:
            check_at_least(n_threads, 1, "n_threads")
        if max_epochs is None:
            max_epochs = min(DEFAULT_EPOCHS, -(-DEFAULT_STEPS // data.n_minibatches))
        check_at_least(max_epochs, 1, "max_epochs")
        n_batch = min(data.batch_size, reference.n_cells)
        warn_if_short(
            4 * n_batch * (3 * reference.n_features + 40 * self._module_kwargs["n_hidden"]),  # measured
            f"Training on minibatches of {counted(n_batch, 'cell')}",
            "Pass a smaller `batch_size`.",
            "Pass a smaller --batch-size.",
        )
        find_device(accelerator)
        _check_plan_kwargs(self._training_plan_cls, self._module_cls.loss, plan_kwargs)
        if self._setup("labels_key") is None and "labels_weight" in plan_kwargs:
            setup = self._setup_call(labels_key="cell_type", unlabeled_category="Unknown")
            raise ScrclValueError(
                "plan_kwargs['labels_weight'] requires labels, but the model has none.", f"Name them: {setup}."
            )
        monitors = {"early_stopping_monitor": "train_loss", "checkpointing_monitor": "train_loss"}
        trainer_kwargs = {**monitors, "log_every_n_steps": 1, **trainer_kwargs}
        metrics = METRICS if labels is not None else METRICS[:-1]
        for name in monitors:
            check_option(trainer_kwargs[name], metrics, name)
        earlier = self.is_trained_ if self.refinement_trained_ is None else self.refinement_trained_
        begin("training")
        self.module.train()  # Lightning keeps the mode it finds
        # The first logger makes the history.
        own = _HistoryLogger(
            save_dir=trainer_kwargs.get("log_save_dir"),
            save_log_on_disk=use_distributed_sampler(trainer_kwargs.get("strategy")),  # as in `scvi.train.Trainer`
        )
        trainer_kwargs["logger"] = [own, *_loggers(trainer_kwargs.get("logger"))]
        before, version = (self.is_trained_, self.history_), self.module.weights_version
        with explain_refused_options(), quiet_lightning():
            runner = self._train_runner_cls(
                self,
                training_plan=self._training_plan_cls(self.module, **plan_kwargs),
                data_splitter=data,
                max_epochs=max_epochs,
                accelerator=accelerator,
                devices=devices,
                early_stopping=early_stopping,
                **trainer_kwargs,
            )
        with (
            quiet_lightning(),
            threads(n_batch * self._module_kwargs["n_hidden"] * len(reference.modalities), n_threads),
        ):
            try:
                runner()
                has_learned = self.module.weights_version > version
            finally:
                self.module.weights_changed()  # also by callbacks that average or load weights
        if not has_learned:
            self.is_trained_, self.history_ = before
            raise ScrclValueError(
                "The trainer ended before its first step, so nothing was learned.",
                "Raise or leave out the option that ends it, such as `limit_train_batches`, `max_steps` or `max_time`.",
            )
        history = getattr(self.trainer.logger, "history", None)
        if not self.history_ and isinstance(history, dict):  # a trial run before has left none to continue
            self.history_ = history
        self.refinement_trained_ = bool(earlier or plan_kwargs.get("cross_view_weight", 1.0) > 0)


class _HistoryLogger(SimpleLogger):
    """The logger of scvi-tools, but with lists in place of tables that grow value by value, which is slow.

    It leaves the metrics as they are, since there may be other loggers.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._values: dict[tuple[str, str], list[tuple[int, float]]] = {}

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None) -> None:
        axis, point = ("epoch", int(metrics["epoch"])) if "epoch" in metrics else ("step", step or 0)
        for name, value in metrics.items():  # in their order
            if name not in ("epoch", "step"):
                self._values.setdefault((axis, name), []).append((point, float(value)))

    @property
    def history(self) -> dict[str, pd.DataFrame]:
        return {
            name: pd.DataFrame(values, columns=[axis, name]).set_index(axis)
            for (axis, name), values in self._values.items()
        }


def _loggers(logger: Any) -> list[Any]:
    """The loggers of the option of the trainer."""
    if logger is None or isinstance(logger, bool):  # True is the logger of the history
        return []
    return list(logger) if isinstance(logger, Iterable) else [logger]


def _check_plan_kwargs(plan: type, loss: Callable, plan_kwargs: dict[str, Any]) -> None:
    """Refuse options that neither the training plan nor the loss has."""
    options: set[str] = set()
    for function in (*(vars(c)["__init__"] for c in plan.__mro__ if "__init__" in vars(c)), loss):
        options.update(inspect.signature(function).parameters)
    unknown = sorted(set(plan_kwargs) - options)
    if unknown:
        raise ScrclValueError(
            f"plan_kwargs has unknown options: {', '.join(unknown)}.",
            f"Known are {', '.join(PLAN_OPTIONS)} and the options of scvi.train.TrainingPlan.",
        )
    for name in PLAN_OPTIONS:
        if name in plan_kwargs:
            check_at_least(plan_kwargs[name], 0.0, f"plan_kwargs[{name!r}]")
    if plan_kwargs.get("reduce_lr_on_plateau"):
        check_option(
            plan_kwargs.get("lr_scheduler_metric", "train_loss"), METRICS, "plan_kwargs['lr_scheduler_metric']"
        )
