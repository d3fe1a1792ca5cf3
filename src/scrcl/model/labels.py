"""What the model says of labels: types of cells, of the model and of others, and labels that are in doubt. Wiring only."""

from typing import Literal, overload

import numpy as np
import pandas as pd

from scrcl.labels.annotation import Annotation
from scrcl.labels.cell_labels import UNASSIGNED
from scrcl.labels.report import LabelReport, report_labels
from scrcl.reference.mapping import check_level
from scrcl.utils import keys
from scrcl.utils.errors import ScrclValueError

from .base import Data, Indices, cell_names
from .batches import BatchesMixin


class LabelsMixin(BatchesMixin):
    """The methods of :class:`scrcl.SCRCL` that speak of labels."""

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

    def predict(
        self,
        adata: Data | None = None,
        indices: Indices = None,
        soft: bool = False,
        alpha: float = 0.01,
    ) -> pd.Series | pd.DataFrame:
        """Return the types of cells, as learnt from the labels of some.

        All cells are predicted, those with a label, too. Types that no label names come out as ``"new 1"``, ``"new 2"``
        and so on, by decreasing size: cells without a label that are far from all labelled ones and lie together.
        A new cell is told by its place among the cells of the model; where it fits nowhere, it is ``"unassigned"``.

        Parameters
        ----------
        adata, indices
            Cells to return, as in :meth:`get_latent_representation`. Their labels, if they have any, are not read.
        soft
            Return probabilities in place of types.
        alpha
            Share of the new cells of known types that may come out as ``"unassigned"``. 0 assigns all. The test is that of
            :meth:`get_mapping_quality`; in space there is none.

        Returns
        -------
        Categorical series indexed by the names of the cells, in the order asked for. With ``soft=True``, data frame
        ``(n_cells, n_types)``, float32; rows sum to 1, whether a cell fits or not. Probabilities are calibrated by labelled
        cells that were held out and predicted from their features, in which no label has a part. The types of labelled cells
        are learned from their own labels, too: to check these, see :meth:`get_label_report`.

        Raises
        ------
        ValueError
            If the model was set up without a ``labels_key``, or without any label; or ``alpha`` is out of range, or the
            data do not fit the model.
        RuntimeError
            If the model is not trained.

        Examples
        --------
        >>> scrcl.SCRCL.setup_anndata(annotated, labels_key="annotation", unlabeled_category="Unknown")
        >>> model = scrcl.SCRCL(annotated)
        >>> model.train(max_epochs=2)
        >>> annotated.obs["type"] = model.predict()
        >>> model.predict(soft=True).shape[0]
        200
        """
        annotation = self._annotation()
        check_level(alpha)
        data = self._data(adata)
        query = self._query(data, indices)
        index, results = cell_names(data, indices), self._results
        probabilities = query.take(annotation.probabilities, lambda: annotation.assign(results.query_points(query)))
        if soft:
            return pd.DataFrame(probabilities.astype(np.float32), index=index, columns=list(annotation.names))
        codes = probabilities.argmax(1)
        new = query.known < 0
        if alpha > 0 and new.any() and self._reference.spatial is None:
            pvalues = self._reference.distance_scale.pvalues(results.distances(query)[1])
            codes[new & (pvalues <= alpha)] = len(annotation.names)
        categories = pd.Index([*annotation.names, UNASSIGNED])
        return pd.Series(pd.Categorical.from_codes(codes, categories), index=index, name=keys.TYPES_KEY)

    def get_label_report(self, n_clusters: int | None = None, seed: int = 0) -> LabelReport:
        """Return which labels the data contradict, which clusters have none, and what labels are confused with.

        Each labelled cell is predicted from its features, averaged over its neighbours, and the labels of other cells; a fifth
        of the labels is held out at a time. The latent representation, which was trained with the labels, is not used.

        Parameters
        ----------
        n_clusters, seed
            Clusters to report, as in :meth:`get_clusters`.

        Returns
        -------
        A :class:`~scrcl.LabelReport`. :func:`scrcl.pl.confusion` draws it.

        Raises
        ------
        ValueError
            As in :meth:`predict`; or ``n_clusters`` is out of range.
        RuntimeError
            If the model is not trained.

        Examples
        --------
        >>> scrcl.SCRCL.setup_anndata(annotated, labels_key="annotation", unlabeled_category="Unknown")
        >>> model = scrcl.SCRCL(annotated)
        >>> model.train(max_epochs=2)
        >>> report = model.get_label_report()
        >>> confusions = report.confusions
        """
        annotation = self._annotation()
        data = self._data(None)
        known = self._query(data, None).known
        clusters = self._reported_clusters(n_clusters, seed)
        return report_labels(annotation, clusters, known[known >= 0], data.obs_names[known >= 0])

    def _annotation(self) -> Annotation:
        """What was learnt from labels, refused where there are none."""
        if not self.knows_labels:
            setup = "setup_mudata(mdata, ..." if self._several else "setup_anndata(adata"
            raise ScrclValueError(
                "The model has no labels.",
                "Label some cells and name the labels: "
                f"`SCRCL.{setup}, labels_key='cell_type', unlabeled_category='Unknown')`.",
            )
        self._check_if_trained(warn=False)
        return self._results.annotation
