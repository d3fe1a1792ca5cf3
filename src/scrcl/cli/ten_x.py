"""Files and folders of 10x, and of what writes the same."""

from pathlib import Path
from typing import Literal

import anndata as ad
import pandas as pd
import scanpy as sc

from .causes import check_is_readable, explained
from .errors import UserError
from .paths import MATRIX

#: What 10x calls the kinds of its features.
KINDS = {
    "Gene Expression",
    "Antibody Capture",
    "Antigen Capture",
    "CRISPR Guide Capture",
    "Multiplexing Capture",
    "Peaks",
    "Custom",
}
NAMES = {"barcodes": ("barcodes.tsv", "barcodes.txt", "cells.tsv"), "features": ("features.tsv", "genes.tsv")}


def matrices(folder: Path) -> list[str]:
    """Names of the matrices in a folder."""
    return [path.name for path in sorted(folder.iterdir()) if path.name.endswith(MATRIX)]


def read_10x_file(path: Path) -> tuple[ad.AnnData, list[str]]:
    """Read an .h5 file of 10x."""
    return _take_genes(path, sc.read_10x_h5(path, gex_only=False))


def read_10x_folder(path: Path) -> tuple[ad.AnnData, list[str]]:
    """Read a matrix with the names of its features and cells, each compressed or not.

    Returns
    -------
    Cells by genes, and what the user should know of how they were read.

    Raises
    ------
    UserError
        If the folder holds several matrices or lacks names, or these do not fit the matrix.
    """
    found = matrices(path)
    if len(found) > 1:
        raise UserError(f"The folder {path} holds several matrices: {', '.join(found)}. Give each a folder of its own.")
    prefix = found[0][: found[0].rindex("matrix.mtx")]
    features, barcodes = (_names(path, prefix, kind) for kind in ("features", "barcodes"))
    check_is_readable(path / found[0])
    with explained(path / found[0], "a matrix"):
        data = ad.io.read_mtx(path / found[0])
    notes = []
    if data.shape == (len(features), len(barcodes)):
        data = data.T
    elif data.shape == (len(barcodes), len(features)):
        notes.append(f"The matrix of {path} has cells in rows; it was read so.")
    else:
        _refuse_lengths(path, data.shape, features, barcodes)
    data = data.copy() if data.is_view else data
    data.X = data.X.tocsr()
    data.obs_names = barcodes[0].to_numpy(dtype=object)
    _name_features(data, features)
    data, left_out = _take_genes(path, data)
    return data, notes + left_out


def _names(path: Path, prefix: str, kind: str) -> pd.DataFrame:
    candidates = [f"{prefix}{name}{packed}" for name in NAMES[kind] for packed in ("", ".gz")]
    found = next((path / name for name in candidates if (path / name).is_file()), None)
    if found is None:
        raise UserError(f"The folder {path} lacks {candidates[1]} (or {candidates[0]}). Put it beside the matrix.")
    check_is_readable(found)
    with explained(found, "a list of names"), found.open("rb") as file:
        packed: Literal["gzip"] | None = "gzip" if file.read(2) == b"\x1f\x8b" else None
        return pd.read_csv(
            found, sep="\t", header=None, dtype=str, keep_default_na=False, compression=packed, encoding="utf-8-sig"
        )


def _refuse_lengths(path: Path, shape: tuple[int, int], features: pd.DataFrame, barcodes: pd.DataFrame) -> None:
    n_features, n_cells = shape
    reasons = []
    for kind, names, expected in (("features", features, n_features), ("barcodes", barcodes, n_cells)):
        if len(names) != expected:
            header = f" (the first is {names.iloc[0, 0]!r})" if len(names) == expected + 1 else ""
            reasons.append(f"{len(names):,} {kind}{header} where its matrix has {expected:,}")
    raise UserError(
        f"The folder {path} lists {' and '.join(reasons)}. Take the three files from one folder of the same run, filtered or "
        "raw, without headers."
    )


def _name_features(data: ad.AnnData, features: pd.DataFrame) -> None:
    """Names, and beside them identifiers and kinds as far as there are any."""
    columns = [features[column].to_numpy(dtype=object) for column in features]
    if len(columns) == 2 and set(columns[1]) <= KINDS:
        columns = [columns[0], columns[0], columns[1]]
    data.var_names = columns[min(1, len(columns) - 1)]
    if len(columns) > 1:
        data.var["gene_ids"] = columns[0]
    if len(columns) > 2 and set(columns[2]) & KINDS:
        data.var["feature_types"] = columns[2]


def _take_genes(path: Path, data: ad.AnnData) -> tuple[ad.AnnData, list[str]]:
    """The genes, of all that was counted."""
    if "feature_types" not in data.var:
        return data, []
    is_gene = (data.var["feature_types"] == "Gene Expression").to_numpy()
    kinds = ", ".join(map(str, data.var["feature_types"][~is_gene].unique()))
    if not is_gene.any():
        raise UserError(f"{path} holds no gene expression, but {kinds}. Name the file of the genes.")
    if is_gene.all():
        return data, []
    note = f"{(~is_gene).sum():,} features that are no genes ({kinds}) were left out."
    return data[:, is_gene].copy(), [note]
