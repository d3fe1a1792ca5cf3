"""Parameters that several methods share, described once and filled into their docstrings."""

from collections.abc import Callable
from typing import TypeVar

from docrep import DocstringProcessor

F = TypeVar("F", bound=Callable)

#: Description of each shared parameter, which a docstring names as ``%(cells)s``.
TEMPLATES = {
    "cells": """\
adata
    Cells with the same genes, matched by name; need not be set up. By default the data of the model.
indices
    Cells to return, by number or as a boolean mask, in this order; all by default.""",
    "n_clusters": """\
n_clusters
    Number of clusters; by default estimated as in :meth:`estimate_n_clusters`.""",
    "representation": """\
representation
    Latent representation to use, ``"aligned"`` or ``"refined"``, as in :meth:`get_latent_representation`.""",
    "seed": """\
seed
    Seed of the clustering.""",
    "cluster_modality": """\
modality
    Modality to cluster by: its own views and features. By default all.""",
    "gene_modality": """\
modality
    Of several modalities, the one whose variables are meant: genes, proteins or peaks. By default all of them; a name that
    an earlier modality has too is preceded by that of its modality and a colon.""",
    "gene_symbols": """\
gene_symbols
    Column of ``adata.var`` with the names of genes to use, such as symbols beside the Ensembl identifiers in ``var_names``. A gene
    without a name there, or with that of an earlier gene, keeps its own.""",
    "groupby": """\
groupby
    Key of ``adata.obs`` of the groups. Cells without a group are left out. By default the clusters of
    :meth:`get_clusters`.""",
    "spatial_keys": """\
spatial_key
    Key of ``obsm`` of coordinates, ``(n, 2)`` or ``(n, 3)``, in any unit; ``"spatial"`` by convention. Each cell is then
    encoded among its neighbours in space, and clusters are domains.
sample_key
    Key of ``obs`` of the slice of each cell. Slices may overlap in their coordinates; no edge joins cells of different
    slices. By default there is one slice.
spatial_neighbors_key
    Key of ``uns`` of a spatial graph to use, as `squidpy.gr.spatial_neighbors_knn` writes it (``"spatial_neighbors"`` by
    default there), or of ``obsp``. By default the model builds one.""",
    "condition_key": """\
condition_key
    Key of ``obs`` of the condition of each cell, such as a treatment, whose effect is not corrected: batches are compared and
    joined within a condition only. Batches must connect the conditions: some contain several. By default nothing is
    protected.""",
    "labels_keys": """\
labels_key
    Key of ``obs`` of the types of the cells, known for some or all of them. The model learns from them, and
    :meth:`~scrcl.SCRCL.predict` returns the type of every cell. By default no label is read. As in
    :class:`scvi.model.SCANVI`.
unlabeled_category
    Value in ``labels_key`` of a cell without a label, such as ``"Unknown"``. A missing value always means no label.""",
    "setup_kwargs": """\
**kwargs
    Passed to :meth:`scvi.data.AnnDataManager.register_fields`.""",
    "raises_untrained": """\
RuntimeError
    If the model is not trained.""",
    "raises_unrefined": """\
RuntimeError
    If the model, or its refinement, is not trained.""",
}

_processor = DocstringProcessor(**TEMPLATES)


def documented(function: F) -> F:
    """Fill the templates that the docstring of a function names."""
    function.__doc__ = _processor.dedent(function.__doc__)
    return function
