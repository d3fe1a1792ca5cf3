"""What the model says of batches, and how it learns those of other data. Wiring only."""

import copy
import os
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np

from scrcl.graph.mutual_neighbors import sample_of_each
from scrcl.reference.batch_report import BatchReport, report_batches
from scrcl.reference.batches import MAX_EVALUATED_CELLS, Batches
from scrcl.utils.errors import ScrclValueError

from .base import Data, check_type
from .placements import Placements
from .saving import SavingMixin


class BatchSpaces(NamedTuple):
    """Cells by batch as they were measured and in the latent space; see :meth:`scrcl.SCRCL.get_batch_spaces`."""

    names: tuple[str, ...]
    batches: np.ndarray
    before: np.ndarray
    after: np.ndarray


class BatchesMixin(SavingMixin):
    """The methods of :class:`scrcl.SCRCL` that speak of batches."""

    def get_batch_report(self, n_clusters: int | None = None, seed: int = 0) -> BatchReport:
        """Return how strong the effect of the batches was, what is left of it, and which clusters are of one batch only.

        Parameters
        ----------
        n_clusters, seed
            Clusters to report, as in :meth:`get_clusters`.

        Returns
        -------
        A :class:`~scrcl.BatchReport`. :func:`scrcl.pl.batches` draws it.

        Raises
        ------
        ValueError
            If the model was set up without a ``batch_key``, or ``n_clusters`` is out of range.
        RuntimeError
            If the model is not trained.

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
        reference, latent = self._reference, self._results.latent(("aligned", None))
        clusters = self._reported_clusters(n_clusters, seed)
        return report_batches(batches, reference.adjacency, latent, clusters, reference.n_neighbors)

    def get_batch_spaces(self) -> BatchSpaces:
        """Return cells by batch as they were measured and in the latent space, to compare the two.

        Returns
        -------
        Names of the batches, and of all cells, or as many of each batch as suffice, the number of their batch ``(m,)``, that
        by which neighbours would be found without any correction ``(m, s)``, and the latent representation ``(m, d)``.

        Raises
        ------
        ValueError
            If the model knows no batches, or has not the data that it was built on.
        RuntimeError
            If the model is not trained.

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
        if (query.known < 0).any():
            raise ScrclValueError("The data of the model are not those that it was built on.", "Load it with these.")
        rows = sample_of_each(batches.codes[query.known], MAX_EVALUATED_CELLS)
        known = query.known[rows]
        before = self._reference.uncorrected(self._sources(data), rows)
        names = batches.names[: batches.n_reference]
        return BatchSpaces(names, batches.codes[known], before, self._results.latent(("aligned", None))[known])

    @classmethod
    def load_query_data(
        cls,
        adata: Data,
        reference_model: str | os.PathLike[str] | Self,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """Return a model that knows the batches of further data, beside its own, and holds these data.

        Nothing is trained: what a batch compares its genes with, and where it lies, is found from all of its cells in
        ``adata`` and kept. From then on the result for a cell depends on no other cell, whatever is passed with it. Without
        this, the batches of data that the model does not know are learnt at each call, from the cells that are passed.

        Parameters
        ----------
        adata
            Data with the genes of the model and its ``batch_key``. At least 10 cells of each batch.
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
        if isinstance(reference_model, BatchesMixin):
            model: Any = copy.copy(reference_model)
            model.module = copy.deepcopy(reference_model.module)
        else:
            model = cls.load(reference_model, adata=False, accelerator=accelerator, device=device)
        model._known_batches()
        check_type(adata, model._several)
        names = model._batches(adata)
        learnt = model._reference.learn_batches(model._sources(adata), names)
        # Where the genes lie is found from the counts of the training cells, which the new model does not have.
        model._gene_maps_to_save()
        reference = replace(model._reference, batches=learnt)
        model._kept_results = model._results.moved(model.module, reference)
        model._reference, model._placements = reference, Placements()
        model.adata = adata
        return model

    def _known_batches(self) -> Batches:
        """The batches, refused where there are none."""
        batches = self._reference.batches
        if batches is None:
            setup = "setup_mudata(mdata, ..." if self._several else "setup_anndata(adata"
            raise ScrclValueError("The model has no batches.", f"Name them: `SCRCL.{setup}, batch_key='donor')`.")
        return batches
