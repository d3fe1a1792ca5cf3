"""Genes of a model: their names, their expression in cells, and their positions among cells.

Of several modalities, every variable that the model ties cells to counts as a gene: proteins, peaks and given features too.
"""

import logging

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData

from scrcl.data.columns import read_column
from scrcl.data.gene_symbols import gene_labels
from scrcl.genes.associations import GeneMap, Groups
from scrcl.reference.modality import joint_names
from scrcl.utils import keys
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.names import as_groups
from scrcl.utils.words import counted

from .base import SCRCLBase
from .options import REFINED, AssociationMethod, ClusterOptions

logger = logging.getLogger("scvi.scrcl")


def chosen_modalities(model: SCRCLBase, modality: str | None, counted: bool = False) -> list[str]:
    """Names of the modalities that are meant.

    ``counted`` leaves out embeddings, whose variables are not expressed more or less.
    """
    model._check_modality(modality)
    modalities = model._reference.modalities
    names = modalities if modality is None else [modality]
    chosen = [name for name in names if modalities[name].counted or not counted]
    if not chosen:
        what = "The model" if modality is None else f"modality={modality!r}"
        raise ScrclValueError(
            f"{what} has embeddings only, which have no counts and no markers.",
            "For their associations with cells, call `model.get_cell_gene_associations()`.",
        )
    return chosen


def variables(model: SCRCLBase, modality: str | None, counted: bool = False) -> tuple[pd.Index, pd.Index, np.ndarray]:
    """Names of the genes kept, or of the variables of a modality; of all that were measured; and their numbers."""
    reference, chosen = model._reference, chosen_modalities(model, modality, counted)
    numbers = np.concatenate([reference.variables_of(name) for name in chosen])
    if modality is not None:
        return reference.modalities[modality].variables, reference.modalities[modality].names, numbers
    return reference.genes[numbers], reference.all_genes, numbers


def symbols_of(model: SCRCLBase, data: AnnData | MuData, names: pd.Index, gene_symbols: str | None) -> pd.Index:
    """The genes of a model by the names in a column of ``var``, or as they are."""
    if gene_symbols is None:
        return names
    own = {name: source.names for name, source in model._sources(data).items()}
    labels = dict(zip(joint_names(own), joint_names(gene_labels(data, own, gene_symbols)), strict=True))
    return pd.Index([labels.get(name, name) for name in names])


def read_expression(
    model: SCRCLBase,
    data: AnnData | MuData,
    rows: np.ndarray,
    layer: str | None = None,
    modality: str | None = None,
    counted: bool = False,
) -> sp.csr_array:
    """Log-normalised expression ``(m, G)`` of cells in increasing ``rows`` ``(m,)``, for the genes kept."""
    reference, chosen = model._reference, chosen_modalities(model, modality, counted)
    sources = model._sources(data, {} if layer is None else dict.fromkeys(chosen, layer))
    parts = [reference.modalities[name].expression(sources[name], rows) for name in chosen]
    return parts[0] if len(parts) == 1 else sp.csr_array(sp.hstack(parts, format="csr"))


def gene_positions(
    model: SCRCLBase, data: AnnData | MuData, rows: np.ndarray, method: AssociationMethod = "regression"
) -> np.ndarray:
    """Positions ``(m, p)`` of cells among the genes: their refined views, or the hidden units that the network maps to genes."""
    query = model._query(data, rows)
    return model._results.hidden(query) if method == "network" else model._results.latent_of(query, REFINED)


def gene_map(model: SCRCLBase, method: AssociationMethod = "regression") -> GeneMap:
    """Positions of the genes among the cells that the model was built on, which requires the counts of all of them."""
    model._check_refinement()
    results = model._results
    if not results.has_gene_maps:
        data = model.adata
        index = np.empty(0, dtype=np.int64) if data is None else model._query(data, None).reference_index
        rows = np.flatnonzero(index >= 0)
        if len(rows) < model._reference.n_cells:
            raise ScrclValueError(
                "Genes are placed among the training cells, whose counts are not saved with the model.",
                "Load it with these cells: `SCRCL.load(dir_path, adata=training_data)`.",
            )
        results.fit_gene_maps(index[rows], read_expression(model, data, rows))
    return results.gene_map(method)


def fit_gene_maps(model: SCRCLBase) -> None:
    """Find the positions of the genes while the counts are at hand; without them, the model is kept without these."""
    if not model.is_trained_ or model.refinement_trained_ is False:
        return
    try:
        gene_map(model)
    except (ValueError, KeyError) as error:
        logger.info(f"The model is kept without the positions of its genes: {error}")


def read_groups(
    adata: AnnData | MuData, rows: np.ndarray, key: str, min_groups: int
) -> tuple[np.ndarray, Groups, list[str]]:
    """Read the groups of cells: positions in ``rows`` of cells with a group, the groups, and their names."""
    return number_groups(as_groups(read_column(adata, key, "groupby").iloc[rows]), key, min_groups)


def number_groups(column: pd.Categorical, key: str, min_groups: int) -> tuple[np.ndarray, Groups, list[str]]:
    """Groups of ``m`` cells: positions of cells with a group, the groups, and their names; ``key`` is for messages."""
    column = column.remove_unused_categories()
    names = column.categories.tolist()
    if len(names) < min_groups:
        raise ScrclValueError(
            f"groupby={key!r} has {counted(len(names), 'group')} of cells, but at least {min_groups} are required.",
            "Name a key of adata.obs with more groups, or pass a larger n_clusters.",
        )
    if min_groups > 1 and len(names) > max(2, len(column) // 2):
        raise ScrclValueError(
            f"groupby={key!r} has a different value for most cells.", "Name a key of groups of cells."
        )
    inside = np.flatnonzero(column.codes >= 0)
    return inside, Groups(column.codes[inside].astype(np.int64), len(names)), names


def find_groups(
    model: SCRCLBase, data: AnnData | MuData, groupby: str | None
) -> tuple[str, np.ndarray, Groups, list[str]]:
    """Key of the groups, positions of cells with a group, the groups, and their names; by default, of the clusters."""
    if groupby is not None:
        return groupby, *read_groups(data, np.arange(data.n_obs), groupby, min_groups=2)
    clusters = model._clusters(model._query(data, None), ClusterOptions())
    key = keys.CLUSTERS_KEY
    # Plots of scanpy look for the groups under this key, where they must not find other ones.
    if key in data.obs and not np.array_equal(
        np.asarray(read_column(data, key, "groupby"), str), np.asarray(clusters, str)
    ):
        key = keys.MARKER_GROUPS_KEY
    return key, *number_groups(clusters, key, min_groups=2)
