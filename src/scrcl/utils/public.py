"""What every public function does around its work: arguments are checked by name, and settings of others do not reach it."""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from functools import wraps
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import sklearn
import torch

from .errors import ScrclTypeError

F = TypeVar("F", bound=Callable)
C = TypeVar("C", bound=type)

#: What arguments are called elsewhere, and here: the first that there is.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "epochs": ("max_epochs",),
    "n_epochs": ("max_epochs",),
    "num_epochs": ("max_epochs",),
    "k": ("n_clusters", "n_neighbors", "n_modules"),
    "n": ("n_top", "n_genes", "n_clusters"),
    "n_top": ("n_genes", "n_top_genes"),
    "n_top_genes": ("n_genes", "n_top"),
    "n_genes": ("n_top_genes", "n_top"),
    "n_hvg": ("n_top_genes",),
    "n_pcs": ("n_components",),
    "n_comps": ("n_components",),
    "n_latent": ("n_hidden", "n_refined"),
    "dropout": ("dropout_rate",),
    "network": ("gene_network",),
    "random_state": ("seed",),
    "random_seed": ("seed",),
    "cells": ("indices",),
    "subset": ("indices",),
    "rows": ("indices",),
    "data": ("adata", "mdata"),
    "adata": ("mdata",),
    "mdata": ("adata",),
    "query": ("adata",),
    "query_adata": ("adata",),
    "adata_query": ("adata",),
    "reference": ("reference_model",),
    "model": ("reference_model",),
    "path": ("dir_path",),
    "dir": ("dir_path",),
    "filename": ("dir_path",),
    "key": ("groupby", "color", "features_key", "labels_key"),
    "group_by": ("groupby",),
    "cluster_key": ("groupby", "key"),
    "clusters": ("groupby", "groups", "n_clusters"),
    "use_rep": ("representation", "features_key", "basis"),
    "obsm_key": ("features_key", "basis"),
    "rep": ("representation",),
    "embedding": ("features_key", "basis"),
    "algorithm": ("method",),
    "batch": ("batch_key",),
    "sample": ("sample_key",),
    "library_key": ("sample_key",),
    "label": ("labels_key",),
    "labels": ("labels_key",),
    "label_key": ("labels_key",),
    "unknown": ("unlabeled_category",),
    "unlabelled_category": ("unlabeled_category",),
    "counts_layer": ("layer",),
    "alpha_level": ("alpha",),
    "threshold": ("alpha",),
    "markers": ("genes",),
    "gene": ("genes",),
    "c": ("color",),
    "save_data": ("save_anndata",),
    "save_adata": ("save_anndata",),
    "device": ("accelerator",),
}
#: What has no counterpart, and what to do; ``{call}`` is the function as it is called.
ADVICE: Mapping[str, str] = {
    "key_added": "`{name}` returns its result. Assign it: `adata.obs['scrcl'] = {call}`.",
    "inplace": "`{name}` returns its result. Assign it: `result = {call}`.",
    "copy": "`{name}` returns its result and leaves its arguments as they are. Leave it out.",
    "use_gpu": "Say where to compute by `accelerator='gpu'` where a method has it.",
    "n_jobs": "Set the number of threads by `torch.set_num_threads(...)`.",
    "lr": "Pass it to the training plan: `model.train(plan_kwargs={{'lr': 0.001}})`.",
    "learning_rate": "Pass it to the training plan: `model.train(plan_kwargs={{'lr': 0.001}})`.",
    "weight_decay": "Pass it to the training plan: `model.train(plan_kwargs={{'weight_decay': 0.0}})`.",
    "verbose": "Set what is shown by `scvi.settings.verbosity`, and turn the bar of the training off by "
    "`model.train(enable_progress_bar=False)`.",
}
ADVICE_OF_OBSM = "`{name}` returns its result. Assign it: `adata.obsm['X_scrcl'] = {call}`."
#: How alike two names must be for one to be meant by the other.
ALIKE = 0.6
#: The same where the name may be that of an argument of what further arguments are passed to.
VERY_ALIKE = 0.85
#: Parameters that nobody passes by name.
NOT_NAMED = ("self", "cls", "kwargs", "trainer_kwargs", "anndata_write_kwargs")
Kind = inspect.Parameter


def public(function: F, name: str | None = None) -> F:
    """A function whose arguments are checked by name, and which the settings of other packages do not reach.

    Parameters
    ----------
    function
        The function or method.
    name
        What the user calls it; by default its name.
    """
    signature, called = inspect.signature(function), name or function.__name__

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        _check_call(function, signature, called, args, kwargs)
        with usual_settings():
            try:
                return function(*args, **kwargs)
            except (TypeError, AttributeError) as error:  # of what further arguments are passed to
                for argument in kwargs.keys() - signature.parameters:
                    if f"unexpected keyword argument {argument!r}" in str(error):
                        raise unknown_argument(argument, kwargs[argument], signature.parameters, called) from error
                raise

    return checked  # type: ignore[return-value]


def public_class(cls: C) -> C:
    """The same of the constructor and all public methods of a class, its own and those that it inherits."""
    for name in dir(cls):
        if name.startswith("_") and name != "__init__":
            continue
        found = inspect.getattr_static(cls, name)
        called = cls.__name__ if name == "__init__" else name
        if isinstance(found, (classmethod, staticmethod)):
            setattr(cls, name, type(found)(public(found.__func__, called)))
        elif inspect.isfunction(found):
            setattr(cls, name, public(found, called))
    return cls


@contextmanager
def usual_settings() -> Iterator[None]:
    """Work with the settings that packages come with where others would change results or fail; then with those set."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    with ExitStack() as stack:
        stack.enter_context(sklearn.config_context(transform_output="default", array_api_dispatch=False))
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        if device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        yield


def unknown_argument(
    argument: str, value: Any, known: Iterable[str], name: str, further: Iterable[str] = (), source: str = ""
) -> ScrclTypeError:
    """The error for an argument that a function does not have, with the one that is meant.

    Parameters
    ----------
    argument, value
        What was passed.
    known
        Names of the arguments that there are.
    name
        What the user calls the function.
    further, source
        Names of arguments that are passed on, and what to.
    """
    known = [other for other in known if other not in NOT_NAMED]
    what = f"{argument}={_short(value)} is not an argument of `{name}`."
    near = [other for other in SYNONYMS.get(argument.lower(), ()) if other in known]
    if not near and argument in ADVICE:
        advice = ADVICE_OF_OBSM if argument == "key_added" and "representation" in name else ADVICE[argument]
        return ScrclTypeError(what, advice.format(name=name, call=f"model.{name}()"))
    every = [*known, *further]
    near = near or get_close_matches(argument.lower(), every, n=1, cutoff=ALIKE)
    if not near:  # as `spatial` for `spatial_key`
        near = [other for other in every if argument.lower() in other.split("_")]
    if near:
        return ScrclTypeError(what, f"Did you mean `{near[0]}`?")
    those = f" and those of {source}" if source else ""
    listed = f"Its arguments are {', '.join(f'`{other}`' for other in known)}{those}." if known else "It takes none."
    return ScrclTypeError(what, f"Leave it out. {listed}")


def _check_call(
    function: Callable, signature: inspect.Signature, name: str, args: tuple, kwargs: Mapping[str, Any]
) -> None:
    """Refuse arguments that do not fit, naming those that are meant."""
    parameters = signature.parameters
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise _misfit(parameters, name, args, kwargs, error) from None
    for argument, value in kwargs.items():  # that would be passed on
        if argument not in parameters and (
            set(SYNONYMS.get(argument, ())) & set(parameters)
            or get_close_matches(argument, parameters, n=1, cutoff=VERY_ALIKE)
        ):
            raise unknown_argument(argument, value, parameters, name)
    for argument in ("adata", "mdata", "model"):
        if argument in bound.arguments:
            _check_object(function, argument, bound.arguments[argument], name)


def _misfit(
    parameters: Mapping[str, inspect.Parameter], name: str, args: tuple, kwargs: Mapping[str, Any], error: TypeError
) -> ScrclTypeError:
    """Why a call does not fit."""
    named = [p for p, found in parameters.items() if found.kind not in (Kind.VAR_KEYWORD, Kind.VAR_POSITIONAL)]
    if not any(found.kind is Kind.VAR_KEYWORD for found in parameters.values()):
        for argument, value in kwargs.items():
            if argument not in named:
                return unknown_argument(argument, value, named, name)
    places = [p for p in named if parameters[p].kind is not Kind.KEYWORD_ONLY]
    own = [p for p in places if p not in ("self", "cls")]
    if len(args) > len(places):
        further = [p for p in named if p not in places]
        rest = f" Pass others by name: {', '.join(f'`{p}=`' for p in further)}." if further else ""
        number = f"at most {len(own)} argument{'s' if len(own) > 1 else ''}" if own else "no arguments"
        return ScrclTypeError(
            f"`{name}` takes {number} by position, not {len(args) - len(places) + len(own)}.",
            f"In this order: {', '.join(f'`{p}`' for p in own)}.{rest}" if own else rest.strip() or "Leave them out.",
        )
    for argument in places[: len(args)]:
        if argument in kwargs:
            return ScrclTypeError(
                f"{argument}={_short(kwargs[argument])} is passed to `{name}` a second time.",
                f"The value in its place is {_short(args[places.index(argument)])}: name that one, too.",
            )
    missing = [p for p in named[len(args) :] if p not in kwargs and parameters[p].default is Kind.empty]
    if missing:
        return ScrclTypeError(f"`{name}` requires `{missing[0]}`.", f"Pass it: `{name}({missing[0]}=...)`.")
    return ScrclTypeError(f"`{name}` cannot be called so: {error}.")


def _check_object(function: Callable, argument: str, value: Any, name: str) -> None:
    """Refuse something else in the place of the data or of the model, naming what is meant."""
    is_model, is_data = hasattr(value, "get_latent_representation"), hasattr(value, "obs_names")
    if argument == "model":
        if is_data:
            raise ScrclTypeError("model is data, not a model.", f"Pass the trained model: `{name}(model, ...)`.")
        return
    if is_data or value is None or value is False:
        return
    if is_model:
        raise ScrclTypeError(f"{argument} is a model, not its data.", f"Pass these: `{name}(model.adata, ...)`.")
    if isinstance(value, (str, os.PathLike)) and os.path.splitext(value)[1]:
        raise ScrclTypeError(
            f"{argument}={str(value)!r} is the name of a file, not data.",
            f"Read the file first: `anndata.read_h5ad({str(value)!r})`.",
        )
    if meant := _meant(function, argument, value):
        raise ScrclTypeError(f"{argument}={_short(value)} is not data.", f"Did you mean `{meant}={_short(value)}`?")


def _meant(function: Callable, argument: str, value: Any) -> str | None:
    """The argument, if any, that a value is meant for which stands in the place of another."""
    try:
        hints = {name: hint for name, hint in get_type_hints(function).items() if name not in (argument, "return")}
    except NameError:
        return None
    if isinstance(value, (list, tuple, range, np.ndarray)):
        return "indices" if "indices" in hints else None
    for name, hint in hints.items():
        kinds = [hint, *get_args(hint)]
        if any(get_origin(kind) is Literal and value in get_args(kind) for kind in kinds):
            return name
        if not isinstance(value, bool) and isinstance(value, (int, str)) and type(value) in kinds:
            return name
    return None


def _short(value: Any) -> str:
    """A value as it is written, if that is short."""
    written = repr(value) if isinstance(value, (str, int, float, type(None), list, tuple, dict)) else "..."
    return written if len(written) <= 40 else "..."
