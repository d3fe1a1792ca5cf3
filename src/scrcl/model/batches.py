"""Results for batches, and models that learn the batches of other data."""

import copy
import os
from dataclasses import replace
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from scrcl.graph.mutual_neighbors import sample_of_each
from scrcl.reference.batch_report import BatchReport, report_batches
from scrcl.reference.batches import MAX_EVALUATED_CELLS, Batches
from scrcl.utils.errors import ScrclTypeError, ScrclValueError

from .base import Data, SCRCLBase, check_type, named
from .docstrings import documented
from .expression import fit_gene_maps
from .options import ALIGNED
from .placements import Placements


class BatchSpaces(NamedTuple):
    """Cells by batch as they were measured and in the latent space; see :meth:`scrcl.SCRCL.get_batch_spaces`."""

    names: tuple[str, ...]
    batches: np.ndarray
    before: np.ndarray
    after: np.ndarray


class BatchesMixin(SCRCLBase):
    """Results of :class:`scrcl.SCRCL` for batches."""

    @documented
    def get_batch_report(self, n_clusters: int | None = None, seed: int = 0) -> BatchReport:
        """Return the batch effect before and after correction, and clusters of one batch only.

        Parameters
        ----------
        %(n_clusters)s
        %(seed)s

        Returns
        -------
        A :class:`~scrcl.BatchReport`. :func:`scrcl.pl.batches` draws it.

        Raises
        ------
        ValueError
            If the model was set up without a ``batch_key``, or ``n_clusters`` is out of range.
        %(raises_untrained)s

        Examples
        --------
        >>> scrcl.SCRCL.setup_anndata(donors, batch_key="donor")
        >>> model = scrcl.SCRCL(donors)
        >>> model.train(max_epochs=2)
        >>> report = model.get_batch_report()
        >>> list(report.batches.columns)
        ['cells', 'separation', 'before', 'after', 'mutual_neighbors']
        """
        batches = self._known_batches()
        self._check_if_trained(warn=False)
        options = self._cluster_options(n_clusters=n_clusters, seed=seed)
        reference, latent = self._reference, self._results.latent(ALIGNED)
        clustering = self._results.clustering(options)
        clusters = pd.Series(named(clustering.labels, clustering.n_clusters))
        return report_batches(batches, reference.adjacency, latent, clusters, reference.n_neighbors)

    @documented
    def get_batch_spaces(self) -> BatchSpaces:
        """Return cells by batch as they were measured and in the latent space, to compare the two.

        Returns
        -------
        Names of the batches, and of all cells, or of a sample of each batch, the number of their batch ``(m,)``, the features
        for the neighbour search without any correction ``(m, s)``, and the latent representation ``(m, d)``.

        Raises
        ------
        ValueError
            If the model has no batches, or not the data that it was built on.
        %(raises_untrained)s

        Examples
        --------
        >>> scrcl.SCRCL.setup_anndata(donors, batch_key="donor")
        >>> model = scrcl.SCRCL(donors)
        >>> model.train(max_epochs=2)
        >>> spaces = model.get_batch_spaces()
        >>> len(spaces.before) == len(spaces.after) == len(spaces.batches)
        True
        """
        batches = self._known_batches()
        self._check_if_trained(warn=False)
        data = self._data(None)
        query = self._query(data, None)
        if (query.reference_index < 0).any():
            raise ScrclValueError(
                "The data of the model are not those that it was built on.",
                "Load the model with these: `model = SCRCL.load(dir_path, adata=training_data)`.",
                command="",
            )
        rows = sample_of_each(batches.codes[query.reference_index], MAX_EVALUATED_CELLS)
        index = query.reference_index[rows]
        before = self._reference.uncorrected(self._sources(data), rows)
        names = batches.names[: batches.n_reference]
        return BatchSpaces(names, batches.codes[index], before, self._results.latent(ALIGNED)[index])

    @classmethod
    def load_query_data(
        cls,
        adata: Data,
        reference_model: str | os.PathLike[str] | Self,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """Return a model that knows the batches of new data, beside its own, and holds these data.

        Nothing is trained: the gene statistics and the correction vectors of a batch are found from all of its cells in
        ``adata`` and kept. Afterwards the result for a cell does not depend on the other cells passed. Without this, batches
        that the model does not know are learned at each call, from the cells that are passed.

        Parameters
        ----------
        adata
            Data with the genes of the model, its ``batch_key`` and its ``condition_key``, if it has one. At least 10 cells of each
            batch.
        reference_model
            A trained model that was set up with a ``batch_key``, or the folder of a saved one. It stays as it is.
        accelerator, device
            Where to put the model if it is loaded from a folder.

        Returns
        -------
        The model of the reference, with ``adata`` as its data.

        Raises
        ------
        ValueError
            If the model has no batches, or a new batch has too few cells.
        TypeError
            If ``reference_model`` is neither a model nor a path.

        Examples
        --------
        >>> query = donors[donors.obs["donor"] == "second"].copy()
        >>> first = donors[donors.obs["donor"] == "first"].copy()
        >>> scrcl.SCRCL.setup_anndata(first, batch_key="donor")
        >>> model = scrcl.SCRCL(first)
        >>> model.train(max_epochs=2)
        >>> mapped = scrcl.SCRCL.load_query_data(query, model)
        >>> len(mapped.get_clusters()) == query.n_obs
        True
        """
        if not isinstance(reference_model, str | os.PathLike | cls):
            raise ScrclTypeError(
                f"reference_model is of type {type(reference_model).__name__}, not {cls.__name__}.",
                "Pass a trained model, or the folder of a saved one.",
            )
        original = (
            reference_model
            if isinstance(reference_model, cls)
            else cls.load(reference_model, adata=False, accelerator=accelerator, device=device)
        )
        original._known_batches()
        check_type(adata, original._several)
        names = original._batches(adata)
        assert names is not None  # as the model has batches
        learned = original._reference.learn_batches(original._sources(adata), names, original._conditions(adata))
        fit_gene_maps(original)  # from the counts of the training cells, which the new model does not have
        model = copy.copy(original)
        model.module = copy.deepcopy(original.module)
        model._reference, model._placements = replace(original._reference, batches=learned), Placements()
        model._kept_results = original._results.moved(model.module, model._reference)
        model.adata = adata
        return model

    def _known_batches(self) -> Batches:
        """The batches, refused where there are none."""
        batches = self._reference.batches
        if batches is None:
            raise ScrclValueError(
                "The model has no batches.",
                f"Name them: {self._setup_call(batch_key='donor')}.",
                command="Train with --batch-key.",
            )
        return batches
