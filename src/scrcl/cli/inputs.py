"""Reading of files, by the readers of anndata, mudata and scanpy."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anndata as ad
import mudata

from scrcl import datasets

from .causes import explained
from .config import InputConfig
from .errors import OPTIONS, UserError
from .options import KINDS, pairs
from .paths import TABLES, suffix
from .stores import RAW, Input, check_counts, in_memory, layers_of, matrices_of, read_store, require
from .tables import read_table
from .ten_x import matrices, read_10x_folder

__all__ = ["Input", "read"]


def read(config: InputConfig) -> Input:
    """Read cells and counts; those of an .h5ad file stay there, and are read in blocks.

    Raises
    ------
    UserError
        If the file is broken, is something else, or lacks what an option names.
    """
    if config.input is None:
        return Input(datasets.pbmc700())
    path, layer, modalities, spatial_key = config.input, config.layer, config.modalities, config.spatial_key
    with ExitStack() as undo:
        found = undo.enter_context(_read_kind(path, layer, config.transpose, spatial_key))
        data = found.data
        if isinstance(data, mudata.MuData):
            found.setup |= _setup_modalities(path, data, modalities, layer)
        elif modalities is not None:
            raise UserError(f"--modalities is for files of several modalities, but {path} has one. Leave it out.")
        else:
            with explained(path, "AnnData"):
                check_counts(path, layer, found.matrices)
        if spatial_key is not None:
            require(spatial_key, data.obsm, "--spatial-key", f"obsm of {path}")
            found.setup |= {"spatial_key": spatial_key, "sample_key": config.sample_key}
        _check_names(path, data)
        for name in ("sample_key", "batch_key", "labels_key"):
            key = getattr(config, name)
            if key is not None:
                require(key, data.obs, OPTIONS[name], f"obs of {path}")
                found.setup[name] = key
        if config.labels_key is not None:
            found.setup["unlabeled_category"] = config.unlabeled_category
        for name, of in data.mod.items() if isinstance(data, mudata.MuData) else [("", data)]:
            if not of.var_names.is_unique:
                twice = int(of.var_names.duplicated().sum())
                where = f" of {name!r}" if name else ""
                of.var_names_make_unique()
                found.notes.append(
                    f"{twice:,} names of genes{where} occur more than once; they were numbered: 'Name-1' and so on."
                )
        undo.pop_all()
    return found


def _read_kind(path: Path, layer: str | None, transpose: bool, spatial_key: str | None) -> Input:
    if path.is_file() and suffix(path) in TABLES:
        with explained(path, "a table"):
            data, notes = read_table(path, transpose)
    elif path.is_dir() and matrices(path):
        with explained(path, "a 10x folder"):
            data, notes = read_10x_folder(path)
    else:
        return read_store(path, layer, spatial_key)
    return in_memory(path, data, layer, notes)


def _check_names(path: Path, data: ad.AnnData | mudata.MuData) -> None:
    for axis, kind in (("obs", "cells"), ("var", "genes")):
        missing = int(getattr(data, f"{axis}_names").isna().sum())
        if missing:
            raise UserError(f"{axis} of {path} lacks {missing:,} names of {kind}. Write them, or remove these {kind}.")


def _setup_modalities(
    path: Path, data: mudata.MuData, modalities: dict[str, str] | None, layer: str | None
) -> dict[str, Any]:
    """What the setup is told of several modalities."""
    example = ",".join(f"{name}={kind}" for name, kind in zip(data.mod, KINDS, strict=False))
    if modalities is None:
        raise UserError(
            f"{path} has the modalities {', '.join(map(repr, data.mod))}. Say which to use, and of what kind each is "
            f"({', '.join(KINDS)}): --modalities {example}."
        )
    for name in modalities:
        require(name, data.mod, "--modalities", str(path))
    layers = {} if layer is None else pairs(layer)
    if layers is None:
        raise UserError(f"--layer {layer!r} does not say of which modality: --layer {next(iter(modalities))}={layer}.")
    for name, of in layers.items():
        require(name, modalities, "--layer: the modality", "--modalities")
        require(of, layers_of(matrices_of(data.mod[name])), f"--layer: {name}", f"the layers of {name!r}")
    for name in modalities:
        check_counts(path, layers.get(name), matrices_of(data.mod[name]), name)
    of_raw = [name for name, of in layers.items() if of == RAW and RAW not in data.mod[name].layers]
    for name in of_raw:
        data.mod[name] = data.mod[name].raw.to_adata()
        del layers[name]
    if of_raw:
        data.update()
    return {"modalities": modalities, **({"layers": layers} if layers else {})}
