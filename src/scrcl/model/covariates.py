"""Checks of what a setup says of the cells: batches, conditions and labels."""

import shlex
import warnings
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from mudata import MuData
from scipy.sparse.csgraph import connected_components
from scvi import settings

from scrcl.data.columns import SLICE_COLUMNS, read_batches, read_column, read_labels
from scrcl.graph.slices import overlap
from scrcl.labels.cell_labels import UNASSIGNED
from scrcl.reference.batches import MAX_BATCHES, MIN_BATCH_CELLS, check_sizes
from scrcl.utils.errors import ScrclTypeError, ScrclValueError, ScrclWarning
from scrcl.utils.names import as_groups
from scrcl.utils.words import counted, listed

from .base import Data

#: Overlap of groups of cells in space above which they are probably of different slices.
MIN_OVERLAP = 0.5
#: Common names of the label of cells without one, in lower case.
NO_TYPES = ("", "?", "-1", "na", "n/a", "nan", "none", "null", "unknown", "unlabeled", "unlabelled", "not available")


def check_batches(data: Data, batch_key: object, labels_key: object, new: bool) -> None:
    """Refuse batches that are not named, and, in data for a new model, batches of too few cells."""
    owner = "mdata" if isinstance(data, MuData) else "adata"
    keys = [batch_key] if isinstance(batch_key, str) else batch_key
    if not isinstance(keys, list | tuple) or not keys or not all(isinstance(key, str) for key in keys):
        value = f"={batch_key!r}" if isinstance(batch_key, list | tuple) else f" of type {type(batch_key).__name__}"
        raise ScrclTypeError(
            f"batch_key{value} is not a key of {owner}.obs, or several.",
            "Pass the name of a column, or a list of names: `batch_key=['chemistry', 'donor']`.",
        )
    if len(set(keys)) < len(keys):
        raise ScrclValueError(f"batch_key={batch_key!r} names a column twice.", "Name each column once.")
    if labels_key in keys:
        raise ScrclValueError(
            f"batch_key={batch_key!r} is the same column as labels_key, but differences between batches are removed and "
            "those between labels are learned.",
            "Pass a column of batches as `batch_key` and one of cell types as `labels_key`, or leave one of them out.",
            command="Pass a column of batches as --batch-key and one of cell types as --labels-key, or leave one of them "
            "out.",
            options={"batch_key": "--batch-key", "labels_key": "--labels-key"},
        )
    names = read_batches(data, keys)
    if new:
        return
    where = f"{owner}.obs[{(keys[0] if len(keys) == 1 else list(keys))!r}]"
    n_batches = len(np.unique(names))
    if n_batches > MAX_BATCHES:
        raise ScrclValueError(
            f"batch_key={batch_key!r} has {counted(n_batches, 'batch', 'batches')}, more than the {MAX_BATCHES:,} that can be corrected.",
            "Name a column of fewer batches, such as the donor or the study.",
        )
    check_sizes(names, where)
    for key in keys:
        warn_of_names(set(read_batches(data, key).tolist()), f"{owner}.obs[{key!r}]")
    if n_batches == 1:
        warnings.warn(
            ScrclWarning(
                f"{where} has the same batch {str(names[0])!r} for all cells, so there is nothing to correct.",
                where=where,
            ),
            stacklevel=settings.warnings_stacklevel,
        )


def warn_of_slices(data: Data, positions: np.ndarray) -> None:
    """Warn if cells of several slices lie over each other, as in data that were joined, and no slices are named."""
    owner = "mdata" if isinstance(data, MuData) else "adata"
    for key in [key for key in SLICE_COLUMNS if key in data.obs]:
        groups = as_groups(read_column(data, key, "sample_key")).remove_unused_categories()
        if 2 <= len(groups.categories) <= MAX_BATCHES and overlap(positions, groups.codes) > MIN_OVERLAP:
            names = listed([repr(name) for name in groups.categories], 3)
            warnings.warn(
                ScrclWarning(
                    f"{owner}.obs[{key!r}] has cells of {names} at overlapping positions, which are taken for one slice.",
                    f"If they are slices, pass `sample_key={key!r}`, so that cells of different slices are no neighbours.",
                    command=f"If they are slices, pass --sample-key {shlex.quote(key)}, so that cells of different slices are no "
                    "neighbours.",
                    where=f"{owner}.obs[{key!r}]",
                ),
                stacklevel=settings.warnings_stacklevel,
            )
            return


def check_conditions(data: Data, condition_key: object, batch_key: str | Sequence[str] | None, new: bool) -> None:
    """Refuse conditions that are not named, or whose effect cannot be distinguished from that of the batches."""
    if condition_key is None:
        return
    owner = "mdata" if isinstance(data, MuData) else "adata"
    options = {"condition_key": "--condition-key", "batch_key": "--batch-key"}
    if not isinstance(condition_key, str):
        value = (
            f"={condition_key!r}"
            if isinstance(condition_key, list | tuple)
            else f" of type {type(condition_key).__name__}"
        )
        raise ScrclTypeError(f"condition_key{value} is not one key of {owner}.obs.", "Pass the name of one column.")
    if batch_key is None:
        raise ScrclValueError(
            f"condition_key={condition_key!r} requires batches, as nothing is corrected without them.",
            "Pass `batch_key='donor'`, too, or leave it out.",
            command="Pass --batch-key donor, too, or leave it out.",
            options=options,
        )
    names = read_batches(data, condition_key, "condition_key")
    if new:
        return
    where = f"{owner}.obs[{condition_key!r}]"
    warn_of_names(set(names.tolist()), where)
    table = pd.crosstab(names, read_batches(data, batch_key))
    if len(table) == 1:
        warnings.warn(
            ScrclWarning(
                f"{where} has the same condition {table.index[0]!r} for all cells, so there is nothing to protect.",
                where=where,
            ),
            stacklevel=settings.warnings_stacklevel,
        )
    # Conditions are connected by the batches that have enough cells of both.
    crossing = (table.to_numpy() >= MIN_BATCH_CELLS).astype(np.int64)
    n_parts, part = connected_components(crossing @ crossing.T)
    if n_parts > 1:
        apart = [str(table.index[np.flatnonzero(part == number)[0]]) for number in (0, 1)]
        raise ScrclValueError(
            f"condition_key={condition_key!r} is confounded with batch_key={batch_key!r}: no batch connects the conditions "
            f"{apart[0]!r} and {apart[1]!r} by at least {MIN_BATCH_CELLS} cells of each, so that their effects cannot be "
            "distinguished.",
            "Name batches that contain several conditions, such as runs, or leave out `condition_key` to correct both, or both "
            "keys to correct nothing.",
            command="Name batches that contain several conditions, such as runs, or leave out --condition-key to correct both, "
            "or both options to correct nothing.",
            options=options,
        )


def check_labels(data: Data, labels_key: object, unlabeled_category: object, new: bool) -> None:
    """Refuse labels that are no types, and warn of suspicious ones in data that a model is to be built on."""
    owner = "mdata" if isinstance(data, MuData) else "adata"
    if labels_key is None:
        if unlabeled_category is not None:
            raise ScrclValueError(
                f"unlabeled_category={unlabeled_category!r} requires labels.", "Pass `labels_key='cell_type'`, too."
            )
        return
    if not isinstance(labels_key, str):
        value = f"={labels_key!r}" if isinstance(labels_key, (list, tuple)) else f" of type {type(labels_key).__name__}"
        raise ScrclTypeError(f"labels_key{value} is not one key of {owner}.obs.", "Pass the name of one column.")
    if new:
        return
    where = f"{owner}.obs[{labels_key!r}]"
    types = sorted({name for name in read_labels(data, labels_key, unlabeled_category) if name is not None})
    if UNASSIGNED in types:
        raise ScrclValueError(
            f"{where} has the label {UNASSIGNED!r}, which predictions give to cells of no known type.",
            f"Rename it or, if it marks cells without a label, pass `unlabeled_category={UNASSIGNED!r}`.",
            command=f"Rename it or, if it marks cells without a label, pass --unlabeled-category {UNASSIGNED}.",
            where=where,
        )
    if len(types) > max(data.n_obs / 2, 2):
        raise ScrclValueError(
            f"{where} has {counted(len(types), 'different value')} for {counted(data.n_obs, 'cell')}, such as {types[0]!r}, so they are not cell "
            "types.",
            "Name a column of cell types.",
            where=where,
        )
    unlike = [name for name in types if name.strip().casefold() in NO_TYPES]
    if unlike or not types:
        warning = ScrclWarning(f"{where} has no label for any cell, so nothing is learned from labels.", where=where)
        if unlike:
            warning = ScrclWarning(
                f"{where} has the label {unlike[0]!r}, which counts as a type.",
                f"If it marks cells without a label, pass `unlabeled_category={unlike[0]!r}`.",
                command=f"If it marks cells without a label, pass --unlabeled-category {shlex.quote(unlike[0])}.",
                where=where,
            )
        warnings.warn(warning, stacklevel=settings.warnings_stacklevel)
    warn_of_names(set(types) - set(unlike), where)


def warn_of_names(names: Collection[str], where: str) -> None:
    """Warn of names of batches or labels that stand for missing values, or differ by case or spaces only."""
    missing = [name for name in sorted(names) if name.strip().casefold() in NO_TYPES]
    if missing:
        warnings.warn(
            ScrclWarning(
                f"{where} has the value {missing[0]!r}, which counts as a name.",
                "If it marks cells for which nothing is known, name them or leave them out.",
                where=where,
            ),
            stacklevel=settings.warnings_stacklevel,
        )
    by_form: dict[str, list[str]] = {}
    for name in sorted(names):
        by_form.setdefault(" ".join(name.casefold().split()), []).append(name)
    twins = next((alike for alike in by_form.values() if len(alike) > 1), None)
    if twins is not None:
        values = f"{where}.astype(str).str.strip()"
        values += "" if len({name.strip() for name in twins}) == 1 else ".str.lower().str.split().str.join(' ')"
        warnings.warn(
            ScrclWarning(
                f"{where} has {' and '.join(map(repr, twins))}, which differ by case or spaces only and count as different.",
                f"If they are the same, set `{where} = {values}`.",
                command="If they are the same, give them one name in the file.",
                where=where,
            ),
            stacklevel=settings.warnings_stacklevel,
        )
