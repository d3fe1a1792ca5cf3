"""Names for groups of cells from marker genes."""

import os
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from scrcl.cluster.cluster_tree import ClusterTree
from scrcl.data.marker_resources import read_resource
from scrcl.data.marker_sets import MarkerSets, is_name, read_marker_sets
from scrcl.data.orthologs import Orthologs
from scrcl.utils import keys
from scrcl.utils.checks import check_at_least
from scrcl.utils.errors import ScrclTypeError, ScrclValueError

from .base import Data, SCRCLBase
from .docstrings import documented
from .expression import chosen_modalities, find_groups
from .marker_fit import Naming


class NamesMixin(SCRCLBase):
    """Names of groups of cells of :class:`scrcl.SCRCL`."""

    @documented
    def get_cluster_names(
        self,
        markers: MarkerSets | Mapping[str, Sequence[str]] | pd.DataFrame | str | os.PathLike[str],
        adata: Data | None = None,
        groupby: str | None = None,
        min_support: float = 0.5,
        seed: int = 0,
        modality: str | None = None,
        hierarchy: Mapping[str, str] | None = None,
        tree: ClusterTree | None = None,
        gene_symbols: str | None = None,
        orthologs: Orthologs | None = None,
        key_added: str | None = None,
    ) -> pd.DataFrame:
        """Propose names for clusters from marker genes, or none.

        Every gene of the lists is scored from its counts, whether the model keeps it or not. Its score in a cluster is
        from 0 to 1: high if the mean expression is near that of the clusters that express the gene, and far above that of
        the clusters that do not. A list fits if the mean score of its genes is high, and higher than that of nearly all
        random sets of as many genes with similar mean expression, and enough of its genes are up.

        Of plain lists, the one with the highest score among those that fit is proposed; a list of which the data lack more than
        half has less weight. With a hierarchy or weights, as in ``"cellconsensus"``, the most distinctive genes of each name are
        scored, also by the fraction of cells that express them, and the name is the finest one that the evidence supports, and that
        most single cells fit better than other names with the same parent: ``"T cell"`` rather than a ``"memory CD4+ T cell"`` that may be
        wrong.

        Parameters
        ----------
        markers
            Names and their marker genes: a dictionary of lists, or of dictionaries of weights; a table with columns ``source``
            and ``target``, maybe with ``weight`` (as decoupler has them), or ``cell_type`` and ``gene``; the path of a GMT file, or of
            a JSON file with a dictionary; or ``"cellconsensus"``, markers of 77 types of human cells in three levels, with
            identifiers of the Cell Ontology, which requires ``pip install 'scrcl[names]'``.
        adata
            Cells with their clusters. By default the data of the model.
        %(groupby)s
        min_support
            Fraction of the genes of a plain list, among those in the data, more than which must be up in a cluster. Use a
            smaller one for long lists that were not curated by hand.
        seed
            Seed of the random sets and of the resampling.
        %(gene_modality)s
        hierarchy
            Parent of each name that has one, such as ``{"CD4 T cell": "T cell"}``; a parent need not have genes of its own.
        tree
            Tree of :meth:`get_cluster_tree`, all of whose nested clusters are named instead of groups: the default
            clusters by their evidence, those above by what the names below have in common, and those below with the name of
            their parent, or with a finer one.
        %(gene_symbols)s
        orthologs
            Genes of another organism: a dictionary from each marker gene to the gene of the data, or a table with two
            columns. Genes with several counterparts are left out. Without it, the symbols of mouse and human are matched
            regardless of case.
        key_added
            Key of ``adata.obs`` under which the name of each cell is written; the identifiers of the Cell Ontology, if the
            markers have any, are written to ``obs["cell_type_ontology_term_id"]``, with a warning if it is there already.

        Returns
        -------
        Data frame indexed by cluster:

        - ``name``: the name proposed, or ``"none of these"``; in a hierarchy, ``"unsure"``
        - ``label``: the name, preceded by the cluster where several have the same, ``"3: B cell"``; for plots, so that
          no two clusters become one
        - ``confidence``: share of resamples of the lists and cells that lead to the same name, or a finer one, from 0 to 1;
          missing where no name is proposed
        - ``reason``: why there is no name, no finer one, or why it is unsure; empty where it is sure
        - ``best``, ``score``, ``support``, ``pvalue``: the list that supports the name, or else the one with the highest score;
          its score from 0 to 1, the fraction of its genes that are up, and the share of random gene sets with at least this
          score, times the number of lists
        - ``second``, ``second_score``: the next list by score; in a hierarchy, the next that is neither above nor below
        - ``genes``: the genes of the best list that are up, highest score first
        - ``missing``: the genes of the best list that the data do not have
        - ``path``: in a hierarchy, the names from the top to this one
        - ``cell_type_ontology_term_id``: identifier in the Cell Ontology, or ``"unknown"``, if the markers have identifiers

        The number of genes of each list that were found is in ``attrs["used"]``, and those that the data do not have are in
        ``attrs["missing"]``. Where the lists come from, and their version, is written to ``adata.uns["scrcl_names"]``.

        Raises
        ------
        %(raises_untrained)s
        KeyError
            If ``groupby`` or ``gene_symbols`` is not there.
        ValueError
            If the data have no gene of the lists, or the lists are of another organism or kind of identifiers; if there is no
            collection of this name, or it is not installed; if a list is empty, or the hierarchy has a cycle; or if the model was
            loaded without data and ``adata`` is not passed.

        Examples
        --------
        >>> markers = {"B cell": ["MS4A1", "CD79A", "CD79B"], "NK cell": ["NKG7", "GNLY", "PRF1"]}
        >>> names = model.get_cluster_names(markers, groupby="scrcl")
        >>> adata.obs["name"] = adata.obs["scrcl"].map(
        ...     names["name"]
        ... )  # or "label", which is another one for each cluster
        >>> set(adata.obs["name"]) <= {"B cell", "NK cell", "none of these"}
        True

        The reason why a name is unsure is in a column:

        >>> unsure = names.loc[names["reason"] != "", ["name", "reason"]]
        """
        self._check_if_trained(warn=False)
        check_at_least(seed, 0, "seed")
        check_at_least(min_support, 0.0, "min_support")
        if min_support > 1:
            raise ScrclValueError(f"min_support={min_support!r} is above 1.", "Pass a fraction from 0 to 1.")
        if tree is not None and groupby is not None:
            raise ScrclValueError(f"groupby={groupby!r} is given beside tree.", "Leave out one or the other.")
        if tree is not None and not isinstance(tree, ClusterTree):
            raise ScrclTypeError(
                f"tree is of type {type(tree).__name__}, not a tree of clusters.",
                "Pass `tree=model.get_cluster_tree()`.",
            )
        if key_added is not None and not isinstance(key_added, str):
            raise ScrclTypeError(f"key_added={key_added!r} is not text.", "Pass the name of a column of obs.")
        if key_added is not None and key_added in (groupby, keys.TERMS_KEY):
            what = "the column of the clusters" if key_added == groupby else "the column of the identifiers"
            raise ScrclValueError(f"key_added={key_added!r} is {what}.", "Pass another name for the column of names.")
        data = self._data(adata)
        if isinstance(markers, MarkerSets):  # as the command line has read them
            sets = markers
        else:
            sets = read_resource(markers) if is_name(markers) else read_marker_sets(markers, hierarchy)
        if hierarchy is not None and is_name(markers):
            raise ScrclValueError(f"hierarchy is given beside markers={markers!r}, which has one.", "Leave it out.")
        every_source = self._sources(data)
        sources = {name: every_source[name] for name in chosen_modalities(self, modality, counted=True)}
        naming = Naming.of(
            data,
            sources,
            {name: partial(self._reference.modalities[name].logarithms, source) for name, source in sources.items()},
            sets,
            min_support=min_support,
            seed=seed,
            gene_symbols=gene_symbols,
            orthologs=orthologs,
        )
        if tree is not None:
            return naming.of_tree(tree, key_added)
        _, rows, division, clusters = find_groups(self, data, groupby)
        return naming.of_groups(rows, division, clusters, key_added)
