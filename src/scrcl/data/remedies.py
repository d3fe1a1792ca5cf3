"""Where counts and names of genes are if they are not in the expected place, and the line of code that uses them."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from anndata import AnnData

from scrcl.utils.checks import SPELLINGS, OtherNames, Remedy, respelled
from scrcl.utils.names import as_names

from .counts import Counts

#: Remedy on the command line, which may not have read the whole file.
NOT_FOUND = "Name the layer that holds raw counts: `--layer counts`."
#: Number of cells that are checked for counts.
N_CELLS = 2000


def find_counts(adata: AnnData, layer: str | None, where: str, new: bool) -> Remedy:
    """Look for counts in X, all layers and ``raw``, and tell how to use them.

    Parameters
    ----------
    adata
        Data whose X, or named layer, holds no counts.
    layer
        Name of the layer where counts were looked for; ``None`` for X.
    where
        What the user calls the data: ``"adata"``, or ``"mdata['rna']"`` for a modality.
    new
        Whether these are new data, which are read as the model was set up.
    """
    found = {place: size for place, size in _sizes(adata) if place != _place_of(layer)}
    if not found:
        places = "neither X, nor a layer, nor `raw` holds any"
        return Remedy(f"Pass raw counts: {places} in {where}.", NOT_FOUND)
    # A layer before `raw`, whose genes may be others, and both before zeros and ones; of layers that with most counts.
    place = min(found, key=lambda place: (found[place][0] <= 1, place == "raw", -found[place][1]))
    name = next((name for name in adata.layers if name is not None and _place_of(name) == place), place)
    modality = where.removeprefix("mdata[").removesuffix("]") if where.startswith("mdata") else ""
    option = f"{modality[1:-1]}={name}" if modality else name
    command = f"Counts are in {place}: `--layer {option}`."
    if place == "X" and not new:
        command = "Counts are in X: leave out `--layer`."
    line = _line_of_new(where, layer, place, modality) if new else _line_of_setup(place, name, layer, modality)
    return Remedy(f"Counts are in {where}.{place}: {line}.", command)


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
        column = pd.Index(as_names(table[key])).fillna("nan")
        for spelling in ("", *SPELLINGS):
            names = respelled(column, spelling) if spelling else column
            line = f"{where}.var_names = {where}.var[{key!r}].astype(str)" + (f".str.{spelling}" if spelling else "")
            line += "" if names.is_unique else f"; {where}.var_names_make_unique()"
            line += "; mdata.update()" if modality else ""
            command = f"Make the column {key!r} of var its index in the file."
            yield OtherNames(f"{where}.var[{key!r}]", names.drop_duplicates(), f"`{line}`", command)
    if adata.raw is not None and "raw" in dict(_sizes(adata)):
        names = pd.Index(as_names(adata.raw.var_names))
        line = _line_of_new(where, layer, "raw", modality)
        yield OtherNames(f"{where}.raw", names, line, f"Pass `--layer {modality[1:-1]}{'=' * bool(modality)}raw`.")


def _sizes(adata: AnnData) -> Iterator[tuple[str, tuple[float, float]]]:
    """Place of each matrix of counts, their maximum and their sum in some cells."""
    matrices: dict[str, Any] = {"X": adata.X}
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


def _line_of_setup(place: str, name: str, layer: str | None, modality: str) -> str:
    """What to type to set up data by the counts in a place, the name of whose layer is given, too."""
    if place == "raw":
        if modality:
            return f"`mdata.mod[{modality}] = mdata[{modality}].raw.to_adata(); mdata.update()`"
        return "`adata = adata.raw.to_adata()`" + (f", then set it up without `layer={layer!r}`" if layer else "")
    chosen = "" if place == "X" else f", layers={{{modality}: {name!r}}}" if modality else f", layer={name!r}"
    return f"`SCRCL.setup_mudata(mdata, modalities{chosen})`" if modality else f"`SCRCL.setup_anndata(adata{chosen})`"


def _line_of_new(where: str, layer: str | None, place: str, modality: str) -> str:
    """What to type to put the counts of new data where the model reads them."""
    wanted = f"{where}.{_place_of(layer)}"
    if place != "raw":
        return f"`{wanted} = {where}.{place}.copy()`"
    line = (
        f"mdata.mod[{modality}] = {where}.raw.to_adata(); mdata.update()"
        if modality
        else "adata = adata.raw.to_adata()"
    )
    return f"`{line}`" if layer is None else f"`{line}; {wanted} = {where}.X.copy()`"
