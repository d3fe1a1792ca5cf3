"""Files and folders of 10x, and of what writes the same."""

from pathlib import Path

import anndata as ad
import pandas as pd
import scanpy as sc

from scrcl.utils.words import counted

from .causes import check_is_readable, explained
from .errors import UserError
from .paths import MATRIX

#: Kinds of features by which a column of them is recognised.
KINDS = {"Gene Expression", "Antibody Capture", "Antigen Capture", "CRISPR Guide Capture", "Peaks", "Custom"}
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
    Cells by genes, and notes for the user.

    Raises
    ------
    UserError
        If the folder holds several matrices or lacks names, or these do not fit the matrix.
    """
    found = matrices(path)
    if len(found) > 1:
        raise UserError(f"The folder {path} holds several matrices: {', '.join(found)}.", "Give each its own folder.")
    prefix = found[0][: found[0].rindex("matrix.mtx")]
    features, barcodes = (_read_names(path, prefix, kind) for kind in ("features", "barcodes"))
    check_is_readable(path / found[0])
    with explained(path / found[0], "a matrix"):
        data = ad.io.read_mtx(path / found[0])
    notes = []
    if data.shape == (len(features), len(barcodes)):
        data = data.T.copy()
    elif data.shape == (len(barcodes), len(features)):
        notes.append(f"The matrix of {path} has cells in rows; it was read so.")
    else:
        header = f", of which the first is {barcodes.iloc[0, 0]!r}," if len(barcodes) == data.n_vars + 1 else ""
        raise UserError(
            f"The folder {path} lists {counted(len(features), 'feature')} and {counted(len(barcodes), 'barcode')}{header} where its matrix has "
            f"{data.n_obs:,} and {data.n_vars:,}.",
            "Take the three files, without headers, from one folder of the same run, filtered or raw.",
        )
    data.X = data.X.tocsr()
    data.obs_names = barcodes[0].to_numpy(dtype=object)
    columns = [features[column].to_numpy(dtype=object) for column in features]
    if len(columns) == 2 and set(columns[1]) <= KINDS:  # identifiers and kinds, no names
        columns.insert(0, columns[0])
    data.var_names = columns[min(1, len(columns) - 1)]
    if len(columns) > 1:
        data.var["gene_ids"] = columns[0]
    if len(columns) > 2 and set(columns[2]) & KINDS:
        data.var["feature_types"] = columns[2]
    data, left_out = _take_genes(path, data)
    return data, notes + left_out


def _read_names(path: Path, prefix: str, kind: str) -> pd.DataFrame:
    candidates = [f"{prefix}{name}{packed}" for name in NAMES[kind] for packed in ("", ".gz")]
    found = next((path / name for name in candidates if (path / name).is_file()), None)
    if found is None:
        raise UserError(
            f"The folder {path} lacks {candidates[1]} (or {candidates[0]}).", "Put it into the folder of the matrix."
        )
    check_is_readable(found)
    with explained(found, "a list of names"):
        return pd.read_csv(found, sep="\t", header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")


def _take_genes(path: Path, data: ad.AnnData) -> tuple[ad.AnnData, list[str]]:
    """The genes among all features, and a note on the others."""
    if "feature_types" not in data.var:
        return data, []
    is_gene = (data.var["feature_types"] == "Gene Expression").to_numpy()
    if is_gene.all():
        return data, []
    kinds = ", ".join(map(str, data.var["feature_types"][~is_gene].unique()))
    if not is_gene.any():
        raise UserError(f"{path} holds no gene expression, but {kinds}.", "Name the file of the genes.")
    others = counted(int((~is_gene).sum()), "feature that is no gene", "features that are no genes")
    return data[:, is_gene].copy(), [f"Left out: {others} ({kinds})."]
