"""Arguments of scvi-tools: used if they have a meaning here, else refused with a remedy."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from scvi import settings
from scvi.model._utils import parse_device_args
from scvi.train import Trainer

from scrcl.utils.errors import ScrclTypeError, ScrclValueError, ScrclWarning
from scrcl.utils.public import unknown_argument

#: Why some of them have no meaning.
GRAPH_NEEDED = "the model learns from the graph of its cells, which minibatches of single cells do not have."
#: Defaults of settings of scvi-tools that are not used here.
DEFAULT_BATCH_SIZE, DEFAULT_WORKERS = 128, 0
_CORRECT = (
    "The only covariates that are corrected are batches: pass them as `batch_key`, a key or a list of keys. Correct others first, with scVI or Harmony, "
    "and pass the corrected embedding: `features_key='X_scVI'`."
)
#: Values of `precision` that mean single precision.
SINGLE_PRECISION = (None, 32, "32", "32-true")
#: Arguments of the setup of other models, and what to do here.
UNREGISTERED = {
    "categorical_covariate_keys": _CORRECT,
    "continuous_covariate_keys": _CORRECT,
    "size_factor_key": "Leave it out: the total of each cell is taken from its counts.",
    "rna_layer": "Name the layer of each modality: `layers={'rna': 'counts'}`.",
    "protein_layer": "Name the layer of each modality: `layers={'prot': 'counts'}`.",
}


def check_split(train_size: object, validation_size: object, datasplitter_kwargs: object, datamodule: object) -> None:
    """Refuse to hold cells out, or to train on other data."""
    for name, value, allowed in (("train_size", train_size, 1), ("validation_size", validation_size, 0)):
        if value is not None and value != allowed:
            raise ScrclValueError(
                f"{name}={value!r} would hold cells out, but the model is trained on all cells of its graph.",
                "Leave it out. To test on new cells, build the model on `adata[train].copy()` and pass `adata[test]` to its "
                "methods.",
            )
    if datasplitter_kwargs:
        raise ScrclValueError(
            f"datasplitter_kwargs={datasplitter_kwargs!r} cannot be used, as no cells are held out.",
            "Leave it out; `batch_size` is the number of cells in a minibatch.",
        )
    if datamodule is not None:
        raise ScrclValueError(f"datamodule cannot be used: {GRAPH_NEEDED}", "Build the model on AnnData or MuData.")


def check_setup(kwargs: Mapping[str, object], setup: Callable) -> None:
    """Refuse arguments of other models, and misspelt arguments of a setup."""
    if "source_registry" in kwargs or not kwargs:
        return
    name, value = next(iter(kwargs.items()))
    if name in UNREGISTERED:
        raise ScrclTypeError(f"{name}={value!r} is not an argument of the setup of this model.", UNREGISTERED[name])
    raise unknown_argument(name, value, inspect.signature(setup).parameters, setup.__name__)


def as_options(config: Any, name: str) -> dict[str, Any]:
    """Options of a mapping, or the options of a configuration of scvi-tools that differ from its defaults, which suit other models."""
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        if not callable(getattr(config, "to_kwargs", None)):
            raise ScrclValueError(
                f"{name}={config!r} is not valid.", "Pass a dictionary or a configuration of scvi.train."
            )
        usual = type(config)().to_kwargs()
        return {name: value for name, value in config.to_kwargs().items() if name not in usual or value != usual[name]}
    return dict(config)


def check_callbacks(callbacks: object) -> None:
    """Refuse callbacks that require validation metrics, as callbacks of `scvi.autotune` may."""
    for callback in callbacks if isinstance(callbacks, Iterable) else [callbacks]:
        for attribute in ("monitor", "_metrics"):
            metrics = getattr(callback, attribute, None) or ()
            if isinstance(metrics, str):
                metrics = [metrics]
            for metric in metrics.values() if isinstance(metrics, Mapping) else metrics:
                if "validation" in str(metric):
                    raise ScrclValueError(
                        f"{metric!r} is not recorded, as no cells are held out for validation.",
                        "Use 'train_loss': `run_autotune(..., metrics='train_loss', mode='min')`, or `early_stopping=True`.",
                    )


def check_trainer_options(trainer_kwargs: Mapping[str, Any], train: Callable) -> None:
    """Refuse options that neither the trainer of scvi-tools nor that of Lightning knows, and those that do not work here."""
    arguments = inspect.signature(train).parameters
    options = sorted({name for trainer in Trainer.__mro__ for name in inspect.signature(trainer).parameters})
    for name, value in trainer_kwargs.items():
        if name not in options:
            raise unknown_argument(name, value, arguments, "train", options, "scvi.train.Trainer")
    precision, plugins = trainer_kwargs.get("precision"), trainer_kwargs.get("plugins") or ()
    for plugin in plugins if isinstance(plugins, (list, tuple)) else [plugins]:
        if "precision" in type(plugin).__name__.lower():
            precision = getattr(plugin, "precision", type(plugin).__name__)
    if precision not in SINGLE_PRECISION:
        raise ScrclValueError(
            f"precision={precision!r} is not supported: the model is trained and used in single precision.",
            "Leave it out.",
        )


@contextmanager
def explain_refused_options() -> Iterator[None]:
    """Name what the trainer says of options that it refuses when it is built."""
    try:
        yield
    except (AttributeError, TypeError, ValueError, MisconfigurationException) as error:
        cause = " ".join(str(error).split()).rstrip(".")
        raise ScrclValueError(
            f"The trainer refuses its options: {cause}.", "Correct the option that this names, or leave it out."
        ) from error


def find_device(accelerator: str, device: int | str = "auto") -> torch.device:
    """The device that arguments of scvi-tools name."""
    if accelerator == "mps":
        raise ScrclValueError(
            "accelerator='mps' is not supported: on Apple GPUs, PyTorch has no sparse matrices in compressed form, which the "
            "graph of the cells requires.",
            "Pass `accelerator='cpu'`, or leave it out.",
            command="Pass --device cpu.",
        )
    try:
        return parse_device_args(accelerator, device, return_device="torch", validate_single_device=True)[2]
    except Exception as error:  # Lightning raises many kinds
        cause = " ".join(str(error).split()).rstrip(".!")
        raise ScrclValueError(
            f"accelerator={accelerator!r} with device {device!r} is not available: {cause}.",
            "Pass `accelerator='cpu'`, or leave it out.",
            command="Pass --device cpu.",
        ) from error


def warn_of_settings(batch_size: int | None) -> None:
    """Warn of settings of scvi-tools that have no effect."""
    unused = []
    if batch_size is None and settings.batch_size != DEFAULT_BATCH_SIZE:
        unused.append(f"scvi.settings.batch_size={settings.batch_size} (pass `batch_size`)")
    if settings.dl_num_workers != DEFAULT_WORKERS:
        unused.append(f"scvi.settings.dl_num_workers={settings.dl_num_workers} (all data are in memory)")
    if unused:
        warnings.warn(
            ScrclWarning(f"Without effect on this model: {', '.join(unused)}."), stacklevel=settings.warnings_stacklevel
        )


def check_deterministic(give_mean: object, return_dist: object, dataloader: object) -> None:
    """Refuse samples and distributions of a representation that is deterministic."""
    if isinstance(give_mean, str):
        raise ScrclValueError(
            f"give_mean={give_mean!r} is not a boolean.", f"Name the argument: `representation={give_mean!r}`."
        )
    if not give_mean or return_dist:
        asked = "return_dist=True" if return_dist else f"give_mean={give_mean!r}"
        raise ScrclValueError(
            f"{asked} asks for a distribution, but each cell has one representation, without uncertainty.",
            "Leave it out; for the confidence of clusters, call `model.get_cluster_probabilities()`.",
        )
    if dataloader is not None:
        raise ScrclValueError(
            f"dataloader cannot be used: {GRAPH_NEEDED}", "Pass `adata`, and `batch_size` for less memory."
        )


def swapped(modalities: Mapping[str, object], names: Iterable[str], kinds: Iterable[str]) -> str:
    """The remedy if names and kinds of modalities were exchanged, else nothing."""
    names, kinds = set(names), set(kinds)
    turned = {
        (name if name in names else kind): (kind if name in names else name)
        for name, kind in modalities.items()
        if isinstance(kind, str)
    }
    fits = len(turned) == len(modalities) and set(turned) <= names and set(turned.values()) <= kinds
    return f"Names come first: `modalities={turned!r}`." if fits and turned != dict(modalities) else ""
