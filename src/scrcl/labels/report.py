"""What labels and data have to say of each other."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .annotation import Annotation


@dataclass(frozen=True)
class LabelReport:
    """Labels beside what the data say; :meth:`scrcl.SCRCL.get_label_report` returns it.

    Attributes
    ----------
    cells
        Data frame of the cells with a label, the most doubtful first. ``label``: the one that was given; ``predicted``: what
        the cell is by its features and the labels of other cells; ``probability``: how probable its own label is by
        these, calibrated, NaN for the only cell of a type.
    clusters
        Data frame by cluster. ``cells``; ``labelled``: how many of them have a label; ``label``: the most frequent one, missing
        where there is none; ``agreement``: share of the labelled cells that have it; ``predicted``: what most of the cells
        are predicted to be.
    confusions
        Number of labelled cells by label (rows) and by what they are predicted to be (columns), as in ``cells``.
    """

    cells: pd.DataFrame
    clusters: pd.DataFrame
    confusions: pd.DataFrame


def report_labels(annotation: Annotation, clusters: pd.Series, rows: np.ndarray, names: pd.Index) -> LabelReport:
    """Describe labels.

    Parameters
    ----------
    annotation
        What was learnt from labels.
    clusters
        ``(n,)`` categorical, of all cells.
    rows, names
        The cells ``(m,)`` to be reported, by number, and their names.
    """
    types, codes = np.array(annotation.names, dtype=object), annotation.labels.codes
    own = codes[rows]
    rows, own, names = rows[own >= 0], own[own >= 0], names[own >= 0]
    held_out = annotation.held_out[rows]
    evaluated = ~np.isnan(held_out[:, 0])
    predicted = np.where(evaluated, types[np.nan_to_num(held_out).argmax(1)], None)
    probability = held_out[np.arange(len(own)), own]
    # As objects, so that what is missing is None under any version of pandas.
    cells = pd.DataFrame(
        {"label": types[own], "predicted": pd.Series(predicted, names, object), "probability": probability}, names
    )
    confusions = pd.crosstab(cells["label"][evaluated], cells["predicted"][evaluated])
    there = [name for name in annotation.names if name in confusions.columns or name in annotation.labels.names]
    confusions = confusions.reindex(index=list(annotation.labels.names), columns=there, fill_value=0)
    return LabelReport(
        cells.sort_values("probability", kind="stable", na_position="last"),
        _by_cluster(annotation, clusters),
        confusions,
    )


def _by_cluster(annotation: Annotation, clusters: pd.Series) -> pd.DataFrame:
    kinds, codes = clusters.cat.categories, annotation.labels.codes
    labelled = codes >= 0
    of_labels = _counts(clusters.cat.codes.to_numpy()[labelled], codes[labelled], len(kinds), len(annotation.names))
    of_predicted = _counts(
        clusters.cat.codes.to_numpy(), annotation.probabilities.argmax(1), len(kinds), len(annotation.names)
    )
    number, types = of_labels.sum(1), np.array(annotation.names, dtype=object)
    with np.errstate(invalid="ignore"):
        agreement = of_labels.max(1) / number
    index, label = pd.Index(kinds, name="cluster"), np.where(number > 0, types[of_labels.argmax(1)], None)
    return pd.DataFrame(
        {
            "cells": of_predicted.sum(1),
            "labelled": number,
            "label": pd.Series(label, index, object),
            "agreement": agreement,
            "predicted": types[of_predicted.argmax(1)],
        },
        index=index,
    )


def _counts(rows: np.ndarray, columns: np.ndarray, n_rows: int, n_columns: int) -> np.ndarray:
    """How often each pair occurs, ``(n_rows, n_columns)``."""
    counts = np.zeros((n_rows, n_columns), dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    return counts
