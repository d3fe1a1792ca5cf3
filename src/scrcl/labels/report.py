"""Comparison of labels with what the data predict."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scrcl.utils.display import Displayed
from scrcl.utils.words import counted

from .annotation import Annotation


@dataclass(frozen=True, repr=False)
class LabelReport(Displayed):
    """Labels compared with predictions; :meth:`scrcl.SCRCL.get_label_report` returns it.

    Attributes
    ----------
    cells
        Data frame of the labelled cells, the most doubtful first. ``label``: the label that was passed; ``predicted``: the
        type predicted from the features and the labels of other cells; ``probability``: the calibrated probability of
        the label by the same prediction, NaN for the only cell of a type.
    clusters
        Data frame by cluster. ``cells``: number of cells; ``labelled``: number of labelled cells; ``label``: the most
        frequent label, missing if there is none; ``agreement``: share of the labelled cells that have it; ``predicted``: the
        type predicted for most cells.
    confusions
        Number of labelled cells by label (rows) and predicted type (columns), as in ``cells``.
    """

    cells: pd.DataFrame
    clusters: pd.DataFrame
    confusions: pd.DataFrame

    def by_label(self) -> pd.DataFrame:
        """Return a data frame by label.

        ``cells``: number of labelled cells that were predicted; ``agreement``: share of them whose predicted type is the label;
        ``confused_with``: the most frequent other prediction, missing if there is none, and its ``share``.

        Examples
        --------
        >>> scrcl.SCRCL.setup_anndata(annotated, labels_key="annotation", unlabeled_category="Unknown")
        >>> model = scrcl.SCRCL(annotated)
        >>> model.train(max_epochs=2)
        >>> model.get_label_report().by_label().columns.tolist()
        ['cells', 'agreement', 'confused_with', 'share']
        """
        counts = self.confusions
        cells = counts.sum(axis=1)
        shares = counts.div(cells.where(cells > 0), axis=0)
        is_own = counts.index.to_numpy()[:, None] == counts.columns.to_numpy()
        others = shares.mask(is_own, 0.0).fillna(0.0)
        share = others.max(axis=1)
        table = {
            "cells": cells,
            "agreement": shares.where(is_own).sum(axis=1).where(cells > 0),
            "confused_with": others.idxmax(axis=1).astype(object).where(share > 0, None),
            "share": share.where(share > 0),
        }
        return pd.DataFrame(table, counts.index.rename("label"))

    def _display(self) -> tuple[str, pd.DataFrame]:
        table = self.by_label()
        agreeing = (table["cells"] * table["agreement"]).sum() / max(table["cells"].sum(), 1)
        title = (
            f"LabelReport: {counted(len(self.cells), 'labelled cell')} of {counted(len(table), 'type')}; the prediction from other cells agrees "
            f"with {agreeing:.0%} of the labels"
        )
        return title, table


def report_labels(annotation: Annotation, clusters: pd.Series, rows: np.ndarray, names: pd.Index) -> LabelReport:
    """Compare labels with predicted types, of the cells with numbers ``rows`` ``(m,)`` and these names.

    ``clusters`` ``(n,)`` are categorical, of all cells.
    """
    types, codes = np.array(annotation.names, dtype=object), annotation.labels.codes
    labelled = codes[rows] >= 0
    rows, names = rows[labelled], names[labelled]
    held_out = annotation.held_out[rows]
    evaluated = ~np.isnan(held_out[:, 0])
    predicted = np.where(evaluated, types[np.nan_to_num(held_out).argmax(1)], None)
    # As objects, so that a missing value is None in any version of pandas.
    columns = {
        "label": types[codes[rows]],
        "predicted": pd.Series(predicted, names, object),
        "probability": held_out[np.arange(len(rows)), codes[rows]],
    }
    cells = pd.DataFrame(columns, names)
    confusions = pd.crosstab(cells["label"][evaluated], cells["predicted"][evaluated])
    labels = list(annotation.labels.names)
    columns_kept = [name for name in annotation.names if name in labels or name in confusions.columns]
    return LabelReport(
        cells.sort_values("probability", kind="stable", na_position="last"),
        _by_cluster(annotation, clusters),
        confusions.reindex(index=labels, columns=columns_kept, fill_value=0),
    )


def _by_cluster(annotation: Annotation, clusters: pd.Series) -> pd.DataFrame:
    index = pd.Index(clusters.cat.categories, name="cluster")
    types, labelled = np.array(annotation.names, dtype=object), annotation.labels.labelled
    codes = clusters.cat.codes.to_numpy()
    shape = len(index), len(types)
    n_by_label = _counts(codes[labelled], annotation.labels.codes[labelled], shape)
    n_by_prediction = _counts(codes, annotation.probabilities.argmax(1), shape)
    n_labelled = n_by_label.sum(1)
    label = np.where(n_labelled > 0, types[n_by_label.argmax(1)], None)
    with np.errstate(invalid="ignore"):
        agreement = n_by_label.max(1) / n_labelled
    return pd.DataFrame(
        {
            "cells": n_by_prediction.sum(1),
            "labelled": n_labelled,
            "label": pd.Series(label, index, object),
            "agreement": agreement,
            "predicted": types[n_by_prediction.argmax(1)],
        },
        index=index,
    )


def _counts(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Number of occurrences of each pair, an array of the given shape."""
    counts = np.zeros(shape, dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    return counts
