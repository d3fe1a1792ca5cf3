"""Reading of files, by the readers of anndata, mudata and scanpy."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import mudata
import numpy as np
import scanpy as sc
import scipy.sparse as sp
from anndata.io import read_elem, sparse_dataset

from scrcl.utils.checks import check_key

from .errors import UserError
from .options import KINDS, MATRIX, TABLES, pairs, suffix

#: What a name that is one of a gene looks like, in a table whose genes may be in rows.
GENE = re.compile(r"ENS[A-Z]*G\d{6,}.*|ACTB|GAPDH|MALAT1|B2M|RPL\d+[A-Z]?|RPS\d+[A-Z]?", re.IGNORECASE)


@dataclass
class Input:
    """What a run needs of a file.

    Attributes
    ----------
    data
        The cells.
    setup
        What the setup of the model is told of them.
    copied
        The file that holds more than ``data``, which the output is to be a copy of.
    notes
        What the user should know of how it was read.
    """

    data: ad.AnnData | mudata.MuData
    setup: dict[str, Any] = field(default_factory=dict)
    copied: Path | None = None
    notes: list[str] = field(default_factory=list)


#: Reads a file, with a layer and the key of coordinates where these are asked for.
Reader = Callable[[Path, str | None, str | None], Input]


def read(
    path: Path,
    layer: str | None = None,
    modalities: dict[str, str] | None = None,
    transpose: bool = False,
    spatial_key: str | None = None,
    sample_key: str | None = None,
    batch_key: str | None = None,
    labels_key: str | None = None,
    unlabeled_category: str | None = None,
) -> Input:
    """Read cells and counts; those of an .h5ad file stay there, and are read in blocks.

    Raises
    ------
    UserError
        If the file is broken, is something else, or lacks what an option names.
    """
    read_kind: Reader
    if path.is_dir() and any(_matrices(path)):
        kind, read_kind = "a 10x folder", _read_10x_folder
    elif path.is_dir():
        kind, read_kind = _store(path, "a zarr store")
    elif suffix(path) in TABLES:
        kind, read_kind = "a table", lambda path, *_: _read_table(path, transpose)
    else:
        kind, read_kind = _store(path, "an HDF5 file")
    with _explained(path, kind):
        found = read_kind(path, layer, spatial_key)
    data = found.data
    if isinstance(data, mudata.MuData):
        found.setup |= _setup_modalities(path, data, modalities, layer)
    elif modalities is not None:
        raise UserError(f"--modalities is for files of several modalities, but {path} has one. Leave it out.")
    elif layer is not None and found.copied is None:
        _require(layer, data.layers, "--layer", f"the layers of {path}")
        found.setup["layer"] = layer
    _check_places(path, data, spatial_key, sample_key)
    if spatial_key is not None:
        found.setup |= {"spatial_key": spatial_key, "sample_key": sample_key}
    if batch_key is not None:
        _require(batch_key, data.obs, "--batch-key", f"obs of {path}")
        found.setup["batch_key"] = batch_key
    if labels_key is not None:
        _require(labels_key, data.obs, "--labels-key", f"obs of {path}")
        found.setup |= {"labels_key": labels_key, "unlabeled_category": unlabeled_category}
    for name, of in data.mod.items() if isinstance(data, mudata.MuData) else [("", data)]:
        if not of.var_names.is_unique:
            twice = int(of.var_names.duplicated().sum())
            where = f" of {name!r}" if name else ""
            of.var_names_make_unique()
            found.notes.append(
                f"{twice:,} names of genes{where} occur more than once; they were numbered: 'Name-1' and so on."
            )
    return found


def _check_places(
    path: Path, data: ad.AnnData | mudata.MuData, spatial_key: str | None, sample_key: str | None
) -> None:
    if spatial_key is not None:
        _require(spatial_key, data.obsm, "--spatial-key", f"obsm of {path}")
    if sample_key is not None:
        _require(sample_key, data.obs, "--sample-key", f"obs of {path}")


@contextmanager
def _explained(path: Path, kind: str) -> Iterator[None]:
    """Say what cannot be read, without the words of the libraries beneath."""
    try:
        yield
    except (UserError, MemoryError, KeyboardInterrupt):
        raise
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as {kind}: it is cut off, damaged, or something else. Copy it again, or write it anew."
        ) from error


def _require(key: str, mapping: Any, option: str, where: str) -> None:
    try:
        check_key(key, mapping, option, where)
    except KeyError as error:
        raise UserError(error.args[0]) from error


def _store(path: Path, kind: str) -> tuple[str, Reader]:
    """What is in an HDF5 file or a zarr folder, whatever it is called, and what reads it."""
    is_zarr = path.is_dir()
    if not is_zarr and not h5py.is_hdf5(path):
        reason = f"it is no HDF5 file, as {suffix(path)} files are" if path.stat().st_size else "it is empty"
        raise UserError(f"{path} cannot be read: {reason}. Copy it again, or write it anew.")
    with _explained(path, kind):
        group = _open_zarr(path) if is_zarr else h5py.File(path, "r")
        names = set(group)
        ranger = "matrix" in names or any("barcodes" in group[name] for name in names if hasattr(group[name], "keys"))
        if not is_zarr:
            group.close()
    if "mod" in names:
        return "MuData", lambda path, *_: Input(mudata.read_zarr(path) if is_zarr else mudata.read_h5mu(path))
    if {"obs", "var"} <= names:
        return "AnnData", (lambda path, *_: Input(ad.read_zarr(path))) if is_zarr else _read_h5ad
    if ranger and not is_zarr:
        return "a 10x file", _read_10x_file
    if "tables" in names:
        tables = ", ".join(str(path / "tables" / name) for name in group["tables"])
        raise UserError(f"{path} holds SpatialData. Name a table in it: {tables or 'it has none'}.")
    raise UserError(
        f"{path} holds neither AnnData, nor MuData, nor a matrix of 10x. It has {', '.join(sorted(names)) or 'nothing'}."
    )


def _open_zarr(path: Path) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise UserError(f"{path} needs zarr to be read: `pip install zarr`.") from error
    return zarr.open_group(str(path), mode="r")


def _read_h5ad(path: Path, layer: str | None, spatial_key: str | None) -> Input:
    """All but the counts, which stay in the file and become ``X``."""
    file = h5py.File(path, "r")
    if layer is not None:
        _require(layer, file.get("layers", {}), "--layer", f"the layers of {path}")
    elif "X" not in file:
        raise UserError(
            f"{path} has no X. Name the layer that holds counts: --layer ... Present: {_listed(file.get('layers', ()))}."
        )
    element = file["X" if layer is None else f"layers/{layer}"]
    counts = element if isinstance(element, h5py.Dataset) else sparse_dataset(element)
    if getattr(counts, "format", "csr") == "csc":
        counts = read_elem(element)
    data = ad.AnnData(counts, obs=read_elem(file["obs"]), var=read_elem(file["var"]))
    if spatial_key is not None:
        _require(spatial_key, file.get("obsm", {}), "--spatial-key", f"obsm of {path}")
        data.obsm[spatial_key] = read_elem(file["obsm"][spatial_key])
        if "spatial" in file.get("uns", {}):  # images of the tissue
            data.uns["spatial"] = read_elem(file["uns"]["spatial"])
    return Input(data, copied=path)


def _read_10x_file(path: Path, *_: str | None) -> Input:
    return _genes_of_10x(path, sc.read_10x_h5(path, gex_only=False))


def _matrices(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.iterdir()) if path.name.endswith(MATRIX)]


def _read_10x_folder(path: Path, *_: str | None) -> Input:
    matrices = _matrices(path)
    if len(matrices) > 1:
        raise UserError(
            f"The folder {path} holds several matrices: {', '.join(matrices)}. Give each a folder of its own."
        )
    name = next(name for name in MATRIX if matrices[0].endswith(name))
    prefix = matrices[0].removesuffix(name)
    beside = {file.name.removeprefix(prefix) for file in path.iterdir()}
    packed = ".gz" if name.endswith(".gz") else ""
    missing = {f"barcodes.tsv{packed}"} - beside
    if "genes.tsv" not in beside:
        missing |= {f"features.tsv{packed}"} - beside
        if not packed and not missing:
            raise UserError(f"{path} has features.tsv, which belongs with files that are compressed: `gzip {path}/*`.")
    if missing:
        raise UserError(f"The folder {path} lacks {', '.join(prefix + name for name in sorted(missing))}.")
    return _genes_of_10x(path, sc.read_10x_mtx(path, prefix=prefix or None, gex_only=False, make_unique=False))


def _genes_of_10x(path: Path, data: ad.AnnData) -> Input:
    """The genes, of all that was counted."""
    notes = []
    if "feature_types" in data.var:
        is_gene = (data.var["feature_types"] == "Gene Expression").to_numpy()
        if not is_gene.any():
            kinds = ", ".join(map(str, data.var["feature_types"].unique()))
            raise UserError(f"{path} holds no gene expression, but {kinds}.")
        if not is_gene.all():
            kinds = ", ".join(map(str, data.var["feature_types"][~is_gene].unique()))
            notes.append(f"{(~is_gene).sum():,} features that are no genes ({kinds}) were left out.")
            data = data[:, is_gene].copy()
    return Input(data, notes=notes)


def _read_table(path: Path, transpose: bool) -> Input:
    delimiter = "," if suffix(path) == ".csv" else "\t"
    try:
        data = ad.io.read_csv(path, delimiter=delimiter, first_column_names=True)
    except (ValueError, IndexError) as error:
        value = re.search(r"could not convert string to float: (.*)", str(error))
        if value:
            reason = "a value is missing" if value[1] == "''" else f"{value[1]} is no number"
        else:
            reason = (
                "it is empty" if isinstance(error, IndexError) else "its rows differ in length, or nothing divides them"
            )
        between = "commas" if delimiter == "," else "tabs"
        raise UserError(
            f"{path} cannot be read as a table: {reason}. The first row must hold names of genes, the first column those of "
            f"cells, and the others counts, with {between} between them (.csv: commas, .tsv: tabs)."
        ) from error
    if transpose:
        data = data.T.copy()
    if list(data.var_names) == [str(number) for number in range(data.n_vars)]:
        raise UserError(
            f"{path} has no names of {'cells' if transpose else 'genes'} in its first row. Write them there."
        )
    if not transpose and _like_genes(data.obs_names) > _like_genes(data.var_names):
        raise UserError(f"The rows of {path} have names of genes, such as {data.obs_names[0]!r}. Pass --transpose.")
    data.X = sp.csr_matrix(np.asarray(data.X, dtype=np.float32))
    return Input(data, notes=[f"{path} was read as {data.n_obs:,} cells of {data.n_vars:,} genes."])


def _like_genes(names: Sequence[str]) -> int:
    return sum(GENE.fullmatch(name) is not None for name in names)


def _setup_modalities(
    path: Path, data: mudata.MuData, modalities: dict[str, str] | None, layer: str | None
) -> dict[str, Any]:
    """What the setup is told of several modalities."""
    example = ",".join(f"{name}={kind}" for name, kind in zip(data.mod, KINDS, strict=False))
    if modalities is None:
        raise UserError(
            f"{path} has the modalities {_listed(data.mod)}. Say which to use, and of what kind each is "
            f"({', '.join(KINDS)}): --modalities {example}."
        )
    for name in modalities:
        _require(name, data.mod, "--modalities", str(path))
    if layer is None:
        return {"modalities": modalities}
    layers = pairs(layer)
    if layers is None:
        raise UserError(f"--layer {layer!r} does not say of which modality: --layer {next(iter(modalities))}={layer}.")
    for name, of in layers.items():
        _require(name, modalities, "--layer: the modality", "--modalities")
        _require(of, data.mod[name].layers, f"--layer: {name}", f"the layers of {name!r}")
    return {"modalities": modalities, "layers": layers}


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"
