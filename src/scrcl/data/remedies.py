"""Where counts and names of genes are if they are not in the expected place, and the line of code that uses them."""

from collections.abc import Iterator

import pandas as pd
from anndata import AnnData

from scrcl.utils.checks import SPELLINGS, OtherNames, Remedy, respelled
from scrcl.utils.names import as_names

from .counts import Counts, RowMatrix

#: Remedy on the command line, which may not have read the whole file.
NOT_FOUND = "Pass raw counts; if a layer of the file holds them, name it: `--layer counts`."
#: Number of cells that are checked for counts.
N_CELLS = 2000


def find_counts(adata: AnnData, layer: str | None, where: str, new: bool) -> Remedy:
    """Look for counts in X, all layers and ``raw``, and return how to use them.

    Parameters
    ----------
    adata
        Data whose X, or named layer, holds no counts.
    layer
        Name of the layer where counts were looked for; ``None`` for X.
    where
        The data in the code of the user: ``"adata"``, or ``"mdata['rna']"`` for a modality.
    new
        Whether these are new data, which are read as the model was set up.
    """
    found = {place: size for place, size in _sizes(adata) if place != _place_of(layer)}
    if not found:
        places = "neither X, nor a layer, nor `raw` holds any"
        return Remedy(f"Pass raw counts: {places} in {where}.", NOT_FOUND)
    # A layer before `raw`, whose genes may be others, and both before zeros and ones; of layers, the one with most counts.
    place = min(found, key=lambda place: (found[place][0] <= 1, place == "raw", -found[place][1]))
    name = next((name for name in adata.layers if name is not None and _place_of(name) == place), place)
    modality = "" if where == "adata" else where.removeprefix("mdata[").removesuffix("]")
    option = f"{modality[1:-1]}={name}" if modality else name
    command = f"Counts are in {place}: `--layer {option}`."
    if place == "X" and not new:
        command = "Counts are in X: leave out `--layer`."
    if place == "raw":
        line = _use_raw(where, layer, modality)
    elif new:
        line = f"{where}.{_place_of(layer)} = {where}.{place}.copy()"
    elif modality:
        line = f"SCRCL.setup_mudata(mdata, modalities{'' if place == 'X' else f', layers={{{modality}: {name!r}}}'})"
    else:
        line = f"SCRCL.setup_anndata(adata{'' if place == 'X' else f', layer={name!r}'})"
    return Remedy(f"Counts are in {where}.{place}: `{line}`.", command)


def find_names(adata: AnnData, layer: str | None, where: str) -> Iterator[OtherNames]:
    """Look for names of genes of new data in the columns of ``var``, as they are and in other spellings, and in ``raw``.

    Parameters
    ----------
    adata, layer, where
        As in :func:`find_counts`.
    """
    table = adata.var if isinstance(adata.var, pd.DataFrame) else adata.var.to_memory()
    modality = where.removeprefix("mdata[").removesuffix("]") if where.startswith("mdata") else ""
    for key in table.columns[[kind.kind not in "fb" for kind in table.dtypes]]:
        column = pd.Index(as_names(table[key])).fillna("unnamed")
        # Since pandas 3, missing values stay missing when they are converted to text.
        text = ".astype(object).fillna('unnamed').astype(str)" if table[key].isna().any() else ".astype(str)"
        for spelling in ("", *SPELLINGS):
            names = respelled(column, spelling) if spelling else column
            line = f"{where}.var_names = {where}.var[{key!r}]{text}" + (f".str.{spelling}" if spelling else "")
            line += "" if names.is_unique else f"; {where}.var_names_make_unique()"
            line += "; mdata.update()" if modality else ""
            command = f"Make the column {key!r} of var its index in the file."
            yield OtherNames(f"the column {key!r} of var", names, f"`{line}`", command, same_columns=True)
    if adata.raw is not None and "raw" in dict(_sizes(adata)):
        names = pd.Index(as_names(adata.raw.var_names))
        line = _use_raw(where, layer, modality)
        yield OtherNames("raw", names, f"`{line}`", f"Pass `--layer {modality[1:-1]}{'=' * bool(modality)}raw`.")


def _sizes(adata: AnnData) -> Iterator[tuple[str, tuple[float, float]]]:
    """Place of each matrix of counts, their maximum and their sum in some cells."""
    matrices: dict[str, RowMatrix] = {"X": adata.X}
    matrices |= {_place_of(name): adata.layers[name] for name in adata.layers if name is not None}
    if adata.raw is not None:
        matrices["raw"] = adata.raw.X
    for place, matrix in matrices.items():
        try:
            counts = Counts.of(matrix, place)
            block = counts.head(N_CELLS)
        except (ValueError, TypeError):
            continue
        if block.nnz:
            yield place, (float(block.max()), float(block.sum(dtype=float)))


def _place_of(layer: str | None) -> str:
    """Where a layer is, which may itself be called "raw"; ``None`` for X."""
    return "X" if layer is None else f"layers[{layer!r}]"


def _use_raw(where: str, layer: str | None, modality: str) -> str:
    """Code that puts the counts and genes of ``raw`` where they are read."""
    owner, update = (f"mdata.mod[{modality}]", "; mdata.update()") if modality else ("adata", "")
    copied = "" if layer is None else f"; {where}.{_place_of(layer)} = {where}.X.copy()"
    return f"{owner} = {where}.raw.to_adata(){update}{copied}"
