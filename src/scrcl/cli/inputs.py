"""Reading of files, by the readers of anndata, mudata and scanpy."""

import warnings
import zipfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import anndata as ad
import h5py
import mudata
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem, sparse_dataset

from scrcl import datasets
from scrcl.utils.checks import check_key
from scrcl.utils.errors import ScrclError
from scrcl.utils.words import counted

from .causes import check_is_readable, explained, find_disguise, is_internal
from .config import InputConfig
from .errors import OPTIONS, UserError
from .options import KINDS, pairs
from .paths import TABLES, suffix
from .tables import read_table
from .ten_x import matrices, read_10x_file, read_10x_folder

with suppress(ImportError):  # the filters of files that are compressed with a plugin
    import hdf5plugin  # noqa: F401

#: The counts that AnnData keeps in ``raw`` are named like a layer.
RAW = "raw"
#: Rows of a dense matrix that are read at once.
ROWS = 1_000


@dataclass
class Input:
    """What a run needs of a file. A context manager, which closes the file.

    Attributes
    ----------
    data
        The cells.
    setup
        Arguments of the setup of the model.
    copied
        The file that holds more than ``data``, which the output is to be a copy of.
    notes
        Notes for the user on how it was read.
    files
        Closes what is open.
    """

    data: ad.AnnData | mudata.MuData
    setup: dict[str, Any] = field(default_factory=dict)
    copied: Path | None = None
    notes: list[str] = field(default_factory=list)
    files: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.files.close()


def read(config: InputConfig) -> Input:
    """Read cells and counts; the counts of an .h5ad file stay there, and are read in blocks.

    Raises
    ------
    ScrclError
        If the file cannot be read, or lacks what an option names.
    """
    if config.input is None:
        return Input(datasets.pbmc700())
    path = config.input
    with ExitStack() as undo:
        found = undo.enter_context(_read_any(path, config))
        data = found.data
        if isinstance(data, mudata.MuData):
            found.setup |= _setup_modalities(path, data, config)
        elif config.modalities is not None:
            raise UserError(f"--modalities is for files of several modalities, but {path} has one.", "Leave it out.")
        if config.spatial_key is not None:
            check_key(config.spatial_key, data.obsm, "--spatial-key", f"obsm of {path}")
            found.setup |= {"spatial_key": config.spatial_key, "sample_key": config.sample_key}
        _check_names(path, data)
        for name in ("sample_key", "batch_key", "condition_key", "labels_key"):
            given = getattr(config, name)
            for key in [given] if isinstance(given, str) else given or ():
                check_key(key, data.obs, OPTIONS[name], f"obs of {path}")
            if given is not None:
                found.setup[name] = given
        if config.gene_symbols is not None:
            parts = data.mod.values() if isinstance(data, mudata.MuData) else [data]
            columns = list(dict.fromkeys(str(column) for part in parts for column in part.var.columns))
            check_key(config.gene_symbols, columns, "--gene-symbols", f"var of {path}")
        if config.labels_key is not None:
            found.setup["unlabeled_category"] = config.unlabeled_category
        for name, modality in data.mod.items() if isinstance(data, mudata.MuData) else [("", data)]:
            repeated = int(modality.var_names.duplicated().sum())
            if repeated:
                where = f" in {name!r}" if name else ""
                modality.var_names_make_unique()
                names = counted(repeated, "name of a gene occurs", "names of genes occur")
                found.notes.append(f"{names} more than once{where}; repetitions were numbered: 'Name-1' and so on.")
        undo.pop_all()
    return found


def _check_names(path: Path, data: ad.AnnData | mudata.MuData) -> None:
    for axis, kind in (("obs", "cells"), ("var", "genes")):
        names = getattr(data, f"{axis}_names")
        missing = int(names.isna().sum())
        if names.empty:
            raise UserError(f"{path} holds no {kind}.", "Check how it was filtered.")
        if missing:
            raise UserError(
                f"{axis} of {path} lacks {counted(missing, 'name')} of {kind}.", f"Write them, or remove these {kind}."
            )


def _read_any(path: Path, config: InputConfig) -> Input:
    if path.is_file() and suffix(path) in TABLES:
        with explained(path, "a table"):
            data, notes = read_table(path, config.transpose)
    elif path.is_dir() and matrices(path):
        with explained(path, "a 10x folder"):
            data, notes = read_10x_folder(path)
    else:
        return _read_store(path, config)
    return _in_memory(path, data, config.layer, notes)


def _read_store(path: Path, config: InputConfig) -> Input:
    """Read AnnData, MuData, a matrix of 10x or a loom file, by its content, not its name."""
    is_hdf5 = path.is_file() and suffix(path) != ".zip"
    kind = "an HDF5 file" if is_hdf5 else "a zarr store"
    if path.is_file():
        check_is_readable(path)
        if not (h5py.is_hdf5(path) if is_hdf5 else zipfile.is_zipfile(path)):
            format = "an HDF5 file" if is_hdf5 else "a zip archive"
            other = UserError(f"{path} cannot be read: it is not {format}.", "Name another file, or convert it.")
            raise find_disguise(path) or other
    with ExitStack() as files:
        with explained(path, kind):
            group = files.enter_context(h5py.File(path, "r")) if is_hdf5 else _open_zarr(path, files)
            names = set(group)
            of_10x = "matrix" in names or any(
                "barcodes" in group[name] for name in names if hasattr(group[name], "keys")
            )
        if "mod" in names:
            with explained(path, "MuData"):
                return Input(mudata.read_h5mu(path) if is_hdf5 else mudata.read_zarr(path))
        if {"obs", "var"} <= names:
            with explained(path, "AnnData"):
                return _read_anndata(path, group, config, files)
        if is_hdf5 and {"matrix", "row_attrs", "col_attrs"} <= names:
            with explained(path, "a loom file"):
                return _in_memory(path, _read_loom(group), config.layer)
        if is_hdf5 and of_10x:
            with explained(path, "a 10x file"):
                data, notes = read_10x_file(path)
                return _in_memory(path, data, config.layer, notes)
        if "tables" in names:
            tables = ", ".join(str(path / "tables" / name) for name in group["tables"])
            raise UserError(f"{path} holds SpatialData.", f"Name a table in it: {tables or 'it has none'}.")
    raise UserError(
        f"{path} holds neither AnnData, nor MuData, nor a matrix of 10x.",
        f"It has {', '.join(sorted(names)) or 'nothing'}.",
    )


def _in_memory(path: Path, data: ad.AnnData, layer: str | None, notes: list[str] | None = None) -> Input:
    """Data that were read whole, with the counts of a layer or of ``raw``."""
    found = Input(data, notes=notes or [])
    if layer == RAW and data.raw is not None and RAW not in data.layers:
        found.data = data.raw.to_adata()
        found.notes.append(
            f"Counts are taken from raw of {path}; the output has them as X, with {counted(data.raw.n_vars, 'gene')}."
        )
    elif layer is not None:
        check_key(layer, data.layers, "--layer", f"the layers of {path}")
        found.setup["layer"] = layer
    return found


def _open_zarr(path: Path, files: ExitStack) -> h5py.Group:
    """A group of zarr, which has the methods of a group of HDF5."""
    import zarr

    store = str(path) if path.is_dir() else files.enter_context(zarr.storage.ZipStore(str(path), mode="r"))
    return cast("h5py.Group", zarr.open_group(store, mode="r"))


def _read_anndata(path: Path, group: h5py.Group, config: InputConfig, files: ExitStack) -> Input:
    """In blocks if possible, else by the reader of anndata, which knows the formats of earlier versions."""
    if not isinstance(group, h5py.Group):
        return _in_memory(path, ad.read_zarr(group), config.layer)
    from_raw = config.layer == RAW and RAW not in group.get("layers", {}) and ("raw/X" in group or "raw.X" in group)
    if not from_raw:
        try:
            found = _read_in_blocks(path, group, config)
        except (ScrclError, MemoryError, OSError):
            raise
        except Exception as error:
            if is_internal(error):
                raise
        else:
            found.files = files.pop_all()
            return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata, about the format of the file
        data = ad.read_h5ad(path)
    return _in_memory(path, data, config.layer)


def _read_in_blocks(path: Path, file: h5py.Group, config: InputConfig) -> Input:
    """Names, columns and coordinates; the matrices stay in the file."""
    layers, layer = file.get("layers", {}), config.layer
    if layer is not None:
        check_key(layer, layers, "--layer", f"the layers of {path}")

    def matrix(element: h5py.Group | h5py.Dataset, chosen: bool = False) -> object:
        opened = element if isinstance(element, h5py.Dataset) else sparse_dataset(element)
        by_genes = getattr(opened, "format", "csr") == "csc"
        return read_elem(element) if chosen and by_genes else opened

    x = file.get("X")
    data = ad.AnnData(
        None if x is None or x.attrs.get("encoding-type") == "null" else matrix(x, layer is None),
        obs=read_elem(file["obs"]),
        var=read_elem(file["var"]),
        layers={name: matrix(element, name == layer) for name, element in layers.items()},
    )
    if "raw/X" in file:
        data.raw = ad.AnnData(matrix(file["raw/X"]), var=read_elem(file["raw/var"]))
    if config.spatial_key is not None:
        check_key(config.spatial_key, file.get("obsm", {}), "--spatial-key", f"obsm of {path}")
        data.obsm[config.spatial_key] = read_elem(file["obsm"][config.spatial_key])
        if "spatial" in file.get("uns", {}):  # images of the tissue
            data.uns["spatial"] = read_elem(file["uns"]["spatial"])
    counts = data.X if layer is None else data.layers[layer]
    if counts is not None:
        counts[:1]  # errors of compression come here
    return Input(data, {} if layer is None else {"layer": layer}, copied=path)


def _read_loom(file: h5py.Group) -> ad.AnnData:
    """Cells in columns, as loom has them. The reader of anndata requires loompy."""

    def table(group: h5py.Group, name: str) -> pd.DataFrame:
        columns = {key: values for key, values in group.items() if getattr(values, "ndim", 0) == 1}
        frame = pd.DataFrame({key: (v.asstr() if v.dtype.kind in "OS" else v)[()] for key, v in columns.items()})
        return frame.set_index(frame.pop(name).astype(str))

    def matrix(values: h5py.Dataset) -> sp.csr_matrix:
        blocks = [sp.csr_matrix(values[start : start + ROWS]) for start in range(0, len(values), ROWS)]
        return sp.vstack(blocks).T.tocsr()

    return ad.AnnData(
        matrix(file["matrix"]),
        table(file["col_attrs"], "CellID"),
        table(file["row_attrs"], "Gene"),
        layers={name: matrix(values) for name, values in file.get("layers", {}).items()},
    )


def _setup_modalities(path: Path, data: mudata.MuData, config: InputConfig) -> dict[str, object]:
    """Arguments of the setup for several modalities."""
    modalities = config.modalities
    if modalities is None:
        example = ",".join(f"{name}={kind}" for name, kind in zip(data.mod, KINDS, strict=False))
        raise UserError(
            f"{path} has the modalities {', '.join(map(repr, data.mod))}.",
            f"Name those to use, and the kind of each ({', '.join(KINDS)}): --modalities {example}.",
        )
    for name in modalities:
        check_key(name, data.mod, "--modalities", str(path))
    layers = {} if config.layer is None else pairs(config.layer)
    if layers is None:
        raise UserError(
            f"--layer {config.layer} names no modality.", f"Pass --layer {next(iter(modalities))}={config.layer}."
        )
    for name, layer in list(layers.items()):
        check_key(name, modalities, "--layer: the modality", "--modalities")
        modality = data.mod[name]
        if layer == RAW and RAW not in modality.layers and modality.raw is not None:
            data.mod[name] = modality.raw.to_adata()
            data.update()
            del layers[name]
        else:
            check_key(layer, modality.layers, f"--layer: {name}", f"the layers of {name!r}")
    return {"modalities": modalities, **({"layers": layers} if layers else {})}
