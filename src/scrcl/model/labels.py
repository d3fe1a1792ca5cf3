"""Results for labels: types of cells, of the model and of others, and labels that the data contradict."""

from typing import Literal, overload

import numpy as np
import pandas as pd

from scrcl.graph.placement import Query
from scrcl.labels.cell_labels import UNASSIGNED
from scrcl.labels.report import LabelReport, report_labels
from scrcl.reference.mapping import check_level, warn_if_coarse
from scrcl.utils import keys
from scrcl.utils.errors import ScrclValueError

from .base import Data, Indices, SCRCLBase, cell_names, named
from .docstrings import documented

#: Share of the level of sets that is that of the test whether a new cell fits anywhere.
FIT_SHARE = 0.1


class LabelsMixin(SCRCLBase):
    """Results of :class:`scrcl.SCRCL` for labels."""

    @property
    def knows_labels(self) -> bool:
        """Whether the model was built on data of which some cells have a label."""
        return self._reference.labels is not None

    @overload
    def predict(
        self,
        adata: Data | None = ...,
        indices: Indices = ...,
        soft: Literal[False] = ...,
        alpha: float = ...,
        return_sets: Literal[False] = ...,
        keep_labels: bool = ...,
    ) -> pd.Series: ...

    @overload
    def predict(
        self,
        adata: Data | None = ...,
        indices: Indices = ...,
        *,
        soft: Literal[True],
        alpha: float = ...,
        return_sets: bool = ...,
        keep_labels: bool = ...,
    ) -> pd.DataFrame: ...

    @overload
    def predict(
        self,
        adata: Data | None = ...,
        indices: Indices = ...,
        soft: bool = ...,
        alpha: float = ...,
        *,
        return_sets: Literal[True],
        keep_labels: bool = ...,
    ) -> pd.DataFrame: ...

    @documented
    def predict(
        self,
        adata: Data | None = None,
        indices: Indices = None,
        soft: bool = False,
        alpha: float = 0.01,
        return_sets: bool = False,
        keep_labels: bool = False,
    ) -> pd.Series | pd.DataFrame:
        """Return the types of cells, as learned from the labels of some.

        All cells are predicted, also those with a label. Types without any label are called ``"new 1"``, ``"new 2"`` and so
        on, by decreasing size: groups of similar cells without a label that are far from all labelled ones. A new cell is
        predicted from its position among the cells of the model; if it fits nowhere, it is ``"unassigned"``.

        Parameters
        ----------
        %(cells)s
            Labels of these cells, if any, are not read.
        soft
            Return probabilities instead of types.
        alpha
            Level of the test of :meth:`get_mapping_quality`: expected share of new cells of known types that are
            ``"unassigned"``. 0 assigns all. A level that is too small for the number of cells in the model assigns all too
            and gives a warning. In space there is no test. With ``return_sets=True``, the share of cells whose set may lack
            their type, such as 0.1.
        return_sets
            Return sets of types instead of types: all that the labels do not rule out.
        keep_labels
            Whether labelled cells of the model keep their labels.

        Returns
        -------
        Categorical series indexed by the names of the cells, in the order asked for. With ``soft=True``, data frame
        ``(n_cells, n_types)``, float32; rows sum to 1, whether a cell fits or not. Probabilities are calibrated on
        labelled cells that were held out and predicted from their features, which do not depend on labels. The types of
        labelled cells are learned from their own labels too: to check these, see :meth:`get_label_report`.

        With ``return_sets=True``, data frame ``(n_cells, n_types)`` of booleans: whether each type is in the set of a cell. Of
        the cells of each type that are like the labelled ones of the type, a share ``1 - alpha`` has sets with their type. The
        set of a cell that fits no type is empty. A new type is in the sets of the cells of which it is the most probable type.

        Raises
        ------
        ValueError
            If the model was set up without a ``labels_key``, or without any label; or ``alpha`` is out of range, or the
            data do not fit the model; or if ``soft`` and ``return_sets`` are both passed.
        %(raises_untrained)s

        Notes
        -----
        Sets are found by cross-conformal prediction (Vovk 2015), class by class: each type is tested on labelled cells that were
        held out. They are found from the features, not from the trained representation, in which labels have drawn labelled
        cells together, so a set may lack the type that is predicted without ``return_sets``. Types with fewer than
        ``1 / alpha - 1`` labels are tested on the labelled cells of all types. Of new cells, a further share of ``alpha / 10`` may
        have an empty set, as they are farther from the cells of the model than all but this share of them. The share is not guaranteed for cells of batches without labels, which are not like the
        labelled ones.

        Examples
        --------
        >>> scrcl.SCRCL.setup_anndata(annotated, labels_key="annotation", unlabeled_category="Unknown")
        >>> model = scrcl.SCRCL(annotated)
        >>> model.train(max_epochs=2)
        >>> annotated.obs["type"] = model.predict(keep_labels=True)
        >>> model.predict(soft=True).shape[0]
        200

        Sets that contain the type of nine in ten cells, and the cells that fit one type only:

        >>> sets = model.predict(return_sets=True, alpha=0.1)
        >>> sure = sets.index[sets.sum(axis=1) == 1]
        """
        self._check_labels()
        check_level(alpha)
        if soft and return_sets:
            raise ScrclValueError("soft=True is passed beside return_sets=True.", "Leave out one or the other.")
        data = self._data(adata)
        query = self._query(data, indices)
        index, results = cell_names(data, indices), self._results
        names, codes = list(results.annotation.names), results.annotation.labels.codes
        kept = np.where(query.reference_index >= 0, codes[query.reference_index], -1) if keep_labels else None
        if return_sets and not results.annotation.sets.classifiers:
            raise ScrclValueError(
                "return_sets=True requires at least two labels of a type, as one is held out.",
                "Label more cells: about 20 of each type give small sets.",
            )
        if return_sets:
            features = query.combine(results.type_features, lambda: results.type_features_of_new(query))
            values = results.annotation.sets(features, alpha)
            values[self._fits_nowhere(query, FIT_SHARE * alpha, warn=False)] = False
            return _table(values, kept, index, names)
        probabilities = results.type_probabilities(query)
        if soft:
            return _table(probabilities.astype(np.float32), kept, index, names)
        found = probabilities.argmax(1)
        found[self._fits_nowhere(query, alpha)] = len(names)
        if kept is not None:
            found = np.where(kept >= 0, kept, found)
        categories = pd.Index([*names, UNASSIGNED])
        return pd.Series(pd.Categorical.from_codes(found, categories), index=index, name=keys.TYPES_KEY)

    def _fits_nowhere(self, query: Query, alpha: float, warn: bool = True) -> np.ndarray:
        """Whether each cell is new and farther from the cells of the model than all but a share ``alpha`` of them; not in space."""
        outside = query.reference_index < 0
        if alpha > 0 and outside.any() and self._reference.spatial is None:
            if warn:
                warn_if_coarse(alpha, self._reference.n_cells)
            pvalues = self._reference.distance_scale.pvalues(self._results.distances(query)[1])
            outside[outside] = pvalues[outside] <= alpha
            return outside
        return np.zeros(len(outside), dtype=bool)

    @documented
    def get_label_report(self, n_clusters: int | None = None, seed: int = 0) -> LabelReport:
        """Return labels that the data contradict, clusters without labels, and confusions between labels.

        Each labelled cell is predicted from its features, averaged over its neighbours, and the labels of other cells; a fifth
        of the labels is held out at a time. The latent representation, which was trained with the labels, is not used.

        Parameters
        ----------
        %(n_clusters)s
        %(seed)s

        Returns
        -------
        A :class:`~scrcl.LabelReport`. :func:`scrcl.pl.confusion` draws it.

        Raises
        ------
        ValueError
            As in :meth:`predict`; or ``n_clusters`` is out of range.
        %(raises_untrained)s

        Examples
        --------
        >>> scrcl.SCRCL.setup_anndata(annotated, labels_key="annotation", unlabeled_category="Unknown")
        >>> model = scrcl.SCRCL(annotated)
        >>> model.train(max_epochs=2)
        >>> report = model.get_label_report()
        >>> confusions = report.confusions
        """
        self._check_labels()
        options = self._cluster_options(n_clusters=n_clusters, seed=seed)
        data = self._data(None)
        index = self._query(data, None).reference_index
        clustering = self._results.clustering(options)
        clusters = pd.Series(named(clustering.labels, clustering.n_clusters))
        return report_labels(self._results.annotation, clusters, index[index >= 0], data.obs_names[index >= 0])

    def _check_labels(self) -> None:
        """Refuse what requires labels if there are none, or the model is not trained."""
        if not self.knows_labels:
            setup = self._setup_call(labels_key="cell_type", unlabeled_category="Unknown")
            raise ScrclValueError(
                "The model has no labels.",
                f"Label some cells and name the labels: {setup}.",
                command="Label some cells, and train with --labels-key.",
            )
        self._check_if_trained(warn=False)


def _table(values: np.ndarray, kept: np.ndarray | None, index: pd.Index, names: list[str]) -> pd.DataFrame:
    """Probabilities or sets ``(m, K)`` of cells, those with a label that is kept, else -1, with that type only."""
    if kept is not None:
        values[kept >= 0] = 0
        values[np.flatnonzero(kept >= 0), kept[kept >= 0]] = 1
    return pd.DataFrame(values, index=index, columns=names)
