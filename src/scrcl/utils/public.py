"""Wrapper of public functions: checks arguments by name, and isolates from settings of other packages."""

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

#: Names of arguments in other packages that are not similar to those here, of which the first that a function has is suggested.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "epochs": ("max_epochs",),
    "n_epochs": ("max_epochs",),
    "num_epochs": ("max_epochs",),
    "k": ("n_clusters", "n_neighbors", "n_modules"),
    "n_top": ("n_genes", "n_top_genes"),
    "n_genes": ("n_top_genes", "n_top"),
    "n_hvg": ("n_top_genes",),
    "n_pcs": ("n_components",),
    "n_latent": ("n_hidden", "n_refined"),
    "random_state": ("seed",),
    "random_seed": ("seed",),
    "cells": ("indices",),
    "subset": ("indices",),
    "rows": ("indices",),
    "query": ("adata",),
    "filename": ("dir_path",),
    "key": ("groupby", "color", "features_key", "labels_key"),
    "cluster_key": ("groupby", "key"),
    "clusters": ("groupby", "groups", "n_clusters"),
    "use_rep": ("representation", "features_key", "basis"),
    "obsm_key": ("features_key", "basis"),
    "rep": ("representation",),
    "embedding": ("features_key", "basis"),
    "algorithm": ("method",),
    "library_key": ("sample_key",),
    "unknown": ("unlabeled_category",),
    "counts_layer": ("layer",),
    "threshold": ("alpha",),
    "markers": ("genes",),
    "c": ("color",),
    "device": ("accelerator",),
}
#: Remedies for arguments without a counterpart; ``{call}`` is the call of the function.
ADVICE: Mapping[str, str] = {
    "key_added": "`{name}` returns its result. Assign it: `adata.obs['scrcl'] = {call}`.",
    "inplace": "`{name}` returns its result. Assign it: `result = {call}`.",
    "copy": "`{name}` returns its result and does not change its arguments. Leave it out.",
    "use_gpu": "Pass `accelerator='gpu'` to methods that have it.",
    "n_jobs": "Set the number of threads with `torch.set_num_threads(...)`.",
    "lr": "Pass it to the training plan: `model.train(plan_kwargs={{'lr': 0.001}})`.",
    "learning_rate": "Pass it to the training plan: `model.train(plan_kwargs={{'lr': 0.001}})`.",
    "weight_decay": "Pass it to the training plan: `model.train(plan_kwargs={{'weight_decay': 0.0}})`.",
    "verbose": "Set `scvi.settings.verbosity`, and turn the progress bar of training off with "
    "`model.train(enable_progress_bar=False)`.",
}
ADVICE_OF_OBSM = "`{name}` returns its result. Assign it: `adata.obsm['X_scrcl'] = {call}`."
#: Arguments that are objects, and where they come from; ``{name}`` is the function.
OBJECTS: Mapping[str, str] = {
    "adata": "Pass the data: `{name}(adata)`, read by `anndata.read_h5ad(...)`.",
    "mdata": "Pass the data: `{name}(mdata)`, read by `mudata.read_h5mu(...)`.",
    "model": "Pass the trained model: `{name}(model)`.",
    "estimate": "Pass the estimate of a trained model: `{name}(model.estimate_n_clusters())`.",
    "markers": "Pass the markers that a trained model finds: `model.get_marker_genes()`.",
    "report": "Pass the report of a trained model: `model.get_cell_report()`.",
    "modules": "Pass the modules that a trained model finds: `model.get_gene_modules()`.",
    "ax": "Pass axes: `ax=matplotlib.pyplot.subplots()[1]`.",
}
#: Least similarity of a name to a suggested one.
MIN_SIMILARITY = 0.6
#: The same if the name may be an argument of a function to which arguments are passed on.
MIN_PASSED_SIMILARITY = 0.85
#: Parameters that are not suggested.
NOT_SUGGESTED = ("self", "cls", "kwargs", "trainer_kwargs", "anndata_write_kwargs")
Kind = inspect.Parameter


def public(function: F, name: str | None = None) -> F:
    """Wrap a function with checks of its arguments and with :func:`default_settings`.

    Parameters
    ----------
    function
        The function or method.
    name
        Name in messages; by default that of the function.
    """
    signature, called = inspect.signature(function), name or function.__name__

    @wraps(function)
    def checked(*args: object, **kwargs: object) -> object:
        _check_call(function, signature, called, args, kwargs)
        with default_settings():
            try:
                return function(*args, **kwargs)
            except (TypeError, AttributeError) as error:  # from a function to which arguments are passed on
                for argument in kwargs.keys() - signature.parameters:
                    if f"unexpected keyword argument {argument!r}" in str(error):
                        raise unknown_argument(argument, kwargs[argument], signature.parameters, called) from error
                raise

    return checked  # type: ignore[return-value]


def public_class(cls: C) -> C:
    """Wrap the constructor and all public methods of a class, including inherited ones."""
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
def default_settings() -> Iterator[None]:
    """Context with the default settings of packages where other settings would change results or fail."""
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
    argument: str, value: object, known: Iterable[str], name: str, further: Iterable[str] = (), source: str = ""
) -> ScrclTypeError:
    """The error for an argument that a function does not have, with a suggestion.

    Parameters
    ----------
    argument, value
        The argument.
    known
        Names of the arguments of the function.
    name
        Name of the function in messages.
    further, source
        Names of arguments that are passed on, and the function that receives them.
    """
    known = [other for other in known if other not in NOT_SUGGESTED]
    what = f"{argument}={_short(value)} is not an argument of `{name}`."
    suggestions = [other for other in SYNONYMS.get(argument.lower(), ()) if other in known]
    if not suggestions and argument in ADVICE:
        advice = ADVICE_OF_OBSM if argument == "key_added" and "representation" in name else ADVICE[argument]
        return ScrclTypeError(what, advice.format(name=name, call=f"model.{name}()"))
    candidates = [*known, *further]
    suggestions = suggestions or get_close_matches(argument.lower(), candidates, n=1, cutoff=MIN_SIMILARITY)
    if not suggestions:  # such as `spatial` for `spatial_key`
        suggestions = [other for other in candidates if argument.lower() in other.split("_")]
    if suggestions:
        return ScrclTypeError(what, f"Did you mean `{suggestions[0]}`?")
    passed_on = f" and the arguments of {source}" if source else ""
    names = ", ".join(f"`{other}`" for other in known)
    listed = f"Its arguments are {names}{passed_on}." if known else "It takes none."
    return ScrclTypeError(what, f"Leave it out. {listed}")


def _check_call(
    function: Callable, signature: inspect.Signature, name: str, args: tuple, kwargs: Mapping[str, object]
) -> None:
    """Refuse arguments that do not match the signature, with suggestions."""
    parameters = signature.parameters
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise _mismatch(parameters, name, args, kwargs, error) from None
    for argument, value in kwargs.items():  # would be passed on
        if argument not in parameters and (
            set(SYNONYMS.get(argument, ())) & set(parameters)
            or get_close_matches(argument, parameters, n=1, cutoff=MIN_PASSED_SIMILARITY)
        ):
            raise unknown_argument(argument, value, parameters, name)
    for argument in OBJECTS:
        if argument in bound.arguments:
            _check_object(function, argument, bound.arguments[argument], name)


def _mismatch(
    parameters: Mapping[str, inspect.Parameter], name: str, args: tuple, kwargs: Mapping[str, object], error: TypeError
) -> ScrclTypeError:
    """The error for a call that does not match the signature."""
    named = [p for p, parameter in parameters.items() if parameter.kind not in (Kind.VAR_KEYWORD, Kind.VAR_POSITIONAL)]
    if not any(parameter.kind is Kind.VAR_KEYWORD for parameter in parameters.values()):
        for argument, value in kwargs.items():
            if argument not in named:
                return unknown_argument(argument, value, named, name)
    missing = [p for p in named[len(args) :] if p not in kwargs and parameters[p].default is Kind.empty]
    for argument in kwargs.keys() - parameters.keys():  # the missing one, misspelt
        if get_close_matches(argument, missing, n=1, cutoff=MIN_SIMILARITY):
            return unknown_argument(argument, kwargs[argument], parameters, name)
    if missing:
        return ScrclTypeError(f"`{name}` requires `{missing[0]}`.", f"Pass it: `{name}({missing[0]}=...)`.")
    visible = ", ".join(f"`{p}`" for p in named if p not in ("self", "cls"))
    remedy = f"Pass each argument once, by name: {visible}." if visible else "It takes none."
    return ScrclTypeError(f"`{name}` cannot be called with these arguments: {error}.", remedy)


def _check_object(function: Callable, argument: str, value: object, name: str) -> None:
    """Refuse other values for data and models, with suggestions."""
    is_model, is_data = hasattr(value, "get_latent_representation"), hasattr(value, "obs_names")
    if argument not in ("adata", "mdata"):
        if argument == "model" and is_data:
            raise ScrclTypeError("model is data, not a model.", f"Pass the trained model: `{name}(model, ...)`.")
        _check_class(function, argument, value, name)
        return
    if is_data or value is False:  # for `load`
        return
    if is_model:
        raise ScrclTypeError(f"{argument} is a model, not its data.", f"Pass the data: `{name}(model.adata, ...)`.")
    if hasattr(value, "tables"):
        raise ScrclTypeError(
            f"{argument} is of type {type(value).__name__}, not AnnData.",
            "Take one of its tables, with the positions of its cells: `adata = scrcl.from_spatialdata(sdata)`.",
        )
    if isinstance(value, (str, os.PathLike)) and os.path.splitext(value)[1]:
        raise ScrclTypeError(
            f"{argument}={str(value)!r} is the name of a file, not data.",
            f"Read the file first: `anndata.read_h5ad({str(value)!r})`.",
        )
    if meant := _suggest(function, argument, value):
        raise ScrclTypeError(f"{argument}={_short(value)} is not data.", f"Did you mean `{meant}={_short(value)}`?")
    _check_class(function, argument, value, name)


def _check_class(function: Callable, argument: str, value: object, name: str) -> None:
    """Refuse an object of another class than the annotation has, unless text may be passed, which is read later."""
    hint = _hints(function).get(argument, object)
    kinds = [get_origin(kind) or kind for kind in (get_args(hint) or (hint,)) if get_origin(kind) is not Literal]
    kinds = [kind for kind in kinds if isinstance(kind, type) and kind is not Any]
    if str in kinds or not kinds or isinstance(value, tuple(kinds)):
        return
    wanted = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
    raise ScrclTypeError(
        f"{argument} is of type {type(value).__name__}, not {wanted}.", OBJECTS[argument].format(name=name)
    )


def _hints(function: Callable) -> Mapping[str, object]:
    """The annotations of a function; none where their names are not known to it."""
    try:
        return get_type_hints(function)
    except NameError:
        return {}


def _suggest(function: Callable, argument: str, value: object) -> str | None:
    """The argument that a misplaced value probably belongs to, if any."""
    hints = {name: hint for name, hint in _hints(function).items() if name not in (argument, "return")}
    if isinstance(value, (list, tuple, range, np.ndarray)):
        return "indices" if "indices" in hints else None
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    for name, hint in hints.items():
        kinds = [hint, *get_args(hint)]
        if type(value) in kinds or any(get_origin(kind) is Literal and value in get_args(kind) for kind in kinds):
            return name
    return None


def _short(value: object) -> str:
    """The representation of a value, if it is short."""
    written = repr(value) if isinstance(value, (str, int, float, type(None), list, tuple, dict)) else "..."
    return written if len(written) <= 40 else "..."
