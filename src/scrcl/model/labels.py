"""Results for labels: types of cells, of the model and of others, and labels that the data contradict."""

from typing import Literal, overload

import numpy as np
import pandas as pd

from scrcl.labels.cell_labels import UNASSIGNED
from scrcl.labels.report import LabelReport, report_labels
from scrcl.reference.mapping import check_level, warn_if_coarse
from scrcl.utils import keys
from scrcl.utils.errors import ScrclValueError

from .base import Data, Indices, SCRCLBase, cell_names, named
from .docstrings import documented


class LabelsMixin(SCRCLBase):
    """Results of :class:`scrcl.SCRCL` for labels."""

    @property
    def knows_labels(self) -> bool:
        """Whether the model was built on data of which some cells have a label."""
        return self._reference.labels is not None

    @overload
    def predict(
        self, adata: Data | None = ..., indices: Indices = ..., soft: Literal[False] = ..., alpha: float = ...
    ) -> pd.Series: ...

    @overload
    def predict(
        self, adata: Data | None = ..., indices: Indices = ..., *, soft: Literal[True], alpha: float = ...
    ) -> pd.DataFrame: ...

    @documented
    def predict(
        self,
        adata: Data | None = None,
        indices: Indices = None,
        soft: bool = False,
        alpha: float = 0.01,
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
            and gives a warning. In space there is no test.

        Returns
        -------
        Categorical series indexed by the names of the cells, in the order asked for. With ``soft=True``, data frame
        ``(n_cells, n_types)``, float32; rows sum to 1, whether a cell fits or not. Probabilities are calibrated on
        labelled cells that were held out and predicted from their features, which do not depend on labels. The types of
        labelled cells are learned from their own labels too: to check these, see :meth:`get_label_report`.

        Raises
        ------
        ValueError
            If the model was set up without a ``labels_key``, or without any label; or ``alpha`` is out of range, or the
            data do not fit the model.
        %(raises_untrained)s

        Examples
        --------
        >>> scrcl.SCRCL.setup_anndata(annotated, labels_key="annotation", unlabeled_category="Unknown")
        >>> model = scrcl.SCRCL(annotated)
        >>> model.train(max_epochs=2)
        >>> annotated.obs["type"] = model.predict()
        >>> model.predict(soft=True).shape[0]
        200
        """
        self._check_labels()
        check_level(alpha)
        data = self._data(adata)
        query = self._query(data, indices)
        index, results = cell_names(data, indices), self._results
        probabilities, names = results.type_probabilities(query), list(results.annotation.names)
        if soft:
            return pd.DataFrame(probabilities.astype(np.float32), index=index, columns=names)
        codes = probabilities.argmax(1)
        new = query.reference_index < 0
        if alpha > 0 and new.any() and self._reference.spatial is None:
            warn_if_coarse(alpha, self._reference.n_cells)
            pvalues = self._reference.distance_scale.pvalues(results.distances(query)[1])
            codes[new & (pvalues <= alpha)] = len(names)
        categories = pd.Index([*names, UNASSIGNED])
        return pd.Series(pd.Categorical.from_codes(codes, categories), index=index, name=keys.TYPES_KEY)

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
