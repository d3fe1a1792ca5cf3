"""Stores of HDF5 and zarr: what is in them, whatever they are called, and what reads it."""

import warnings
import zipfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import anndata as ad
import h5py
import mudata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem, sparse_dataset

from scrcl.utils.checks import check_key
from scrcl.utils.errors import ScrclKeyError

from .causes import check_is_readable, explained, is_internal, look_through
from .errors import UserError
from .paths import suffix
from .ten_x import read_10x_file

with suppress(ImportError):  # the filters of files that are compressed with a plugin
    import hdf5plugin  # noqa: F401

#: The counts that AnnData keeps in ``raw`` are named like a layer.
RAW = "raw"
#: Values that are checked for counts before all are read.
SAMPLE = 1_000_000
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
        What the user should know of how it was read.
    matrices
        By name of layer, or ``"X"`` or ``"raw"``, the matrices of the file; counts are looked for among them.
    files
        Closes what is open.
    """

    data: ad.AnnData | mudata.MuData
    setup: dict[str, Any] = field(default_factory=dict)
    copied: Path | None = None
    notes: list[str] = field(default_factory=list)
    matrices: dict[str, Any] = field(default_factory=dict)
    files: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.files.close()


def read_store(path: Path, layer: str | None, spatial_key: str | None) -> Input:
    """Read AnnData, MuData, a matrix of 10x or a loom file; the counts of an .h5ad file stay there.

    Raises
    ------
    UserError
        If it is none of these, cannot be read, or lacks what an option names.
    """
    is_hdf5 = path.is_file() and suffix(path) != ".zip"
    kind = "an HDF5 file" if is_hdf5 else "a zarr store"
    if path.is_file():
        check_is_readable(path)
    if is_hdf5 and not h5py.is_hdf5(path):
        raise look_through(path, f"no HDF5 file, as {suffix(path)} files are")
    if path.is_file() and not is_hdf5 and not zipfile.is_zipfile(path):
        raise look_through(path, "no zip archive, as .zip files are, or only a part of one")
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
                return _read_anndata(path, group, layer, spatial_key, files)
        if is_hdf5 and {"matrix", "row_attrs", "col_attrs"} <= names:
            with explained(path, "a loom file"):
                return in_memory(path, _read_loom(group), layer)
        if is_hdf5 and of_10x:
            with explained(path, "a 10x file"):
                data, notes = read_10x_file(path)
                return in_memory(path, data, layer, notes)
        if "tables" in names:
            tables = ", ".join(str(path / "tables" / name) for name in group["tables"])
            raise UserError(f"{path} holds SpatialData. Name a table in it: {tables or 'it has none'}.")
    raise UserError(
        f"{path} holds neither AnnData, nor MuData, nor a matrix of 10x. It has {', '.join(sorted(names)) or 'nothing'}."
    )


def in_memory(path: Path, data: ad.AnnData, layer: str | None, notes: list[str] | None = None) -> Input:
    """What was read whole, with the counts of a layer or of ``raw``."""
    found = Input(data, notes=notes or [], matrices=matrices_of(data))
    has_raw = data.raw is not None and RAW not in data.layers
    if layer == RAW and has_raw:
        found.data = data.raw.to_adata()
        found.notes.append(
            f"Counts are taken from raw of {path}; the output has them as X, with their {data.raw.n_vars:,} genes."
        )
    elif layer is not None:
        require(layer, layers_of(found.matrices), "--layer", f"the layers of {path}")
        found.setup["layer"] = layer
    elif data.X is None:
        _refuse_no_x(path, found.matrices)
    return found


def matrices_of(data: ad.AnnData) -> dict[str, Any]:
    """Matrices by name of layer, or ``"X"`` or ``"raw"``."""
    found = {"X": data.X} if data.X is not None else {}
    found |= {RAW: data.raw.X} if data.raw is not None else {}
    return found | {name: matrix for name, matrix in data.layers.items() if name is not None}


def require(key: str, mapping: Any, option: str, where: str) -> None:
    """Refuse what an option names and is not there."""
    try:
        check_key(key, mapping, option, where)
    except ScrclKeyError as error:
        raise UserError(error.what, error.remedy) from error


def layers_of(matrices: dict[str, Any]) -> dict[str, Any]:
    """What ``--layer`` may name."""
    return {name: matrix for name, matrix in matrices.items() if name != "X"}


def check_counts(path: Path, layer: str | None, matrices: dict[str, Any], modality: str = "") -> None:
    """Where the matrix that is to be read holds no counts, but another does, name that one.

    Raises
    ------
    UserError
        With the option that reads the other.
    """
    chosen = layer or "X"
    wrong = _no_count(matrices[chosen]) if chosen in matrices else None
    if wrong is None:
        return
    others = [name for name, matrix in matrices.items() if name != chosen and _no_count(matrix) is None]
    if others:
        where = f"{modality!r} of {path}" if modality else str(path)
        option = f"--layer {modality}=" if modality else "--layer "
        layers = " or ".join(f"`{option}{name}`" for name in others if name != "X")
        remedy = f"Pass {layers}." if layers else "Leave --layer out."
        raise UserError(
            f"{_called(chosen)} of {where} is not raw counts (it holds {wrong:.4g}), but {' and '.join(map(_called, others))} "
            f"may be. {remedy}"
        )


def _called(name: str) -> str:
    return name if name in ("X", RAW) else f"the layer {name!r}"


def _no_count(matrix: Any) -> float | None:
    """The first value that is no count, of a sample; ``None`` if all are."""
    if matrix is None or not getattr(matrix, "shape", True):
        return float("nan")
    if sp.issparse(matrix):
        values = matrix.data[:SAMPLE]
    elif hasattr(matrix, "keys"):  # a group in a file
        values = matrix["data"][:SAMPLE]
    else:
        values = np.asarray(matrix[:ROWS]).ravel()
    if values.dtype.kind not in "buif" or not values.any():
        return 0.0
    wrong = ~((values >= 0) & (values == np.round(values)) & np.isfinite(values))
    return float(values[wrong.argmax()]) if wrong.any() else None


def _refuse_no_x(path: Path, matrices: dict[str, Any]) -> None:
    others = layers_of(matrices)
    remedy = f"Name the layer that holds counts: {' or '.join(f'`--layer {name}`' for name in others)}."
    raise UserError(f"{path} has no X. {remedy if others else 'Write the counts there.'}")


def _open_zarr(path: Path, files: ExitStack) -> Any:
    import zarr

    if path.is_dir():
        return zarr.open_group(str(path), mode="r")
    return zarr.open_group(files.enter_context(zarr.storage.ZipStore(str(path), mode="r")), mode="r")


def _read_anndata(path: Path, group: Any, layer: str | None, spatial_key: str | None, files: ExitStack) -> Input:
    """In blocks if it can be, else by the reader of anndata, which knows what earlier versions wrote."""
    if not isinstance(group, h5py.Group):
        return in_memory(path, ad.read_zarr(group), layer)
    layers, has_raw = group.get("layers", {}), "raw/X" in group or "raw.X" in group
    if layer != RAW or RAW in layers or not has_raw:
        try:
            found = _read_in_blocks(path, group, layer, spatial_key)
        except (UserError, MemoryError, OSError):
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
    return in_memory(path, data, layer)


def _read_in_blocks(path: Path, file: h5py.Group, layer: str | None, spatial_key: str | None) -> Input:
    """All but the counts, which stay in the file and become ``X``."""
    layers = file.get("layers", {})
    matrices = {name: file[name] for name in ("X",) if name in file and file[name].attrs.get("encoding-type") != "null"}
    matrices |= {RAW: file["raw/X"]} if "raw/X" in file else {}
    matrices |= dict(layers)
    if layer is not None:
        require(layer, layers_of(matrices), "--layer", f"the layers of {path}")
    elif "X" not in matrices:
        _refuse_no_x(path, matrices)
    element = matrices[layer or "X"]
    counts = element if isinstance(element, h5py.Dataset) else sparse_dataset(element)
    if getattr(counts, "format", "csr") == "csc":
        counts = read_elem(element)
    data = ad.AnnData(counts, obs=read_elem(file["obs"]), var=read_elem(file["var"]))
    if spatial_key is not None:
        require(spatial_key, file.get("obsm", {}), "--spatial-key", f"obsm of {path}")
        data.obsm[spatial_key] = read_elem(file["obsm"][spatial_key])
        if "spatial" in file.get("uns", {}):  # images of the tissue
            data.uns["spatial"] = read_elem(file["uns"]["spatial"])
    return Input(data, copied=path, matrices=matrices)


def _read_loom(file: h5py.Group) -> ad.AnnData:
    """Cells in columns, as loom has them."""

    def frame(group: h5py.Group, names: tuple[str, ...]) -> pd.DataFrame:
        columns = {name: values[()] for name, values in group.items() if getattr(values, "ndim", 0) == 1}
        texts = {name: values for name, values in columns.items() if values.dtype.kind in "OS"}
        decoded = {name: [value.decode() for value in values] for name, values in texts.items()}
        found = pd.DataFrame({**columns, **decoded})
        name = next((name for name in names if name in found), None)
        if name is None:
            raise UserError(
                f"{file.file.filename} has no names in {group.name}: none of {', '.join(names)}. Write them there."
            )
        return found.set_index(found.pop(name).astype(str))

    def matrix(values: h5py.Dataset) -> sp.csr_matrix:
        blocks = [sp.csr_matrix(values[start : start + ROWS]) for start in range(0, len(values), ROWS)]
        return sp.vstack(blocks).T.tocsr()

    obs = frame(file["col_attrs"], ("CellID", "obs_names", "cell_id", "barcode", "Barcode"))
    var = frame(file["row_attrs"], ("Gene", "var_names", "gene_name", "Accession"))
    return ad.AnnData(
        matrix(file["matrix"]),
        obs,
        var,
        layers={name: matrix(values) for name, values in file.get("layers", {}).items()},
    )
