"""Sources of the data of each modality. No other module reads AnnData and MuData for a model."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData
from scvi import settings

from scrcl.graph.slices import Slices, read_slices
from scrcl.utils.checks import (
    MAX_MISSING_GENES,
    MatchedGenes,
    OtherNames,
    as_features,
    check_cells_have_counts,
    check_key,
    check_unique_genes,
    match_genes,
)
from scrcl.utils.errors import ScrclKeyError, ScrclValueError, ScrclWarning
from scrcl.utils.names import as_names
from scrcl.utils.words import counted

from .columns import read_column
from .counts import Counts
from .remedies import find_counts, find_names

#: What missing genes cost, as `benchmarks/missing.py` measures: by their share, how many cells keep their cluster, the mean over data
#: sets and the lowest of a set, and how many keep their type.
KEPT = {
    0.05: ((0.996, 0.980), (0.986, 0.944)),
    0.1: ((0.994, 0.978), (0.981, 0.940)),
    0.2: ((0.976, 0.926), (0.951, 0.844)),
    0.3: ((0.969, 0.893), (0.941, 0.792)),
    0.4: ((0.972, 0.897), (0.928, 0.773)),
    0.45: ((0.970, 0.899), (0.917, 0.759)),
}
#: Name of the modality of AnnData.
RNA = "rna"
#: Kind of a modality that is an embedding of the user.
EMBEDDING = "features"


class Block(NamedTuple):
    """Counts of some cells.

    Attributes
    ----------
    rows
        Positions of these cells among the requested ones.
    counts
        ``(m, G)`` counts of the requested columns.
    totals
        ``(m,)`` total counts of each cell, over all columns of the model.
    """

    rows: slice
    counts: sp.csr_array
    totals: np.ndarray


@dataclass(frozen=True)
class Source:
    """The data of one modality of ``n`` cells.

    Attributes
    ----------
    kind
        Kind of the modality, see :data:`scrcl.reference.modality_kinds.KINDS`.
    names
        Names of the columns: of the counts if there are any, else of the embedding.
    names_where
        Where these names are, for messages.
    find_counts
        Returns the counts; ``None`` without counts.
    embedding
        Embedding ``(n, d)`` of the user, or ``None``.
    embedding_where
        Where the embedding is, for messages.
    modality
        Name of the modality, for messages, if there are several.
    find_names
        Finds names of genes in other places of the data.
    """

    kind: str
    names: pd.Index
    names_where: str
    find_counts: Callable[[], Counts] | None = None
    embedding: np.ndarray | None = None
    embedding_where: str = ""
    modality: str | None = None
    find_names: Callable[[], Iterable[OtherNames]] = tuple

    @cached_property
    def counts(self) -> Counts | None:
        """The counts, read at the first access, as they are not always needed beside an embedding."""
        return None if self.find_counts is None else self.find_counts()

    def kept(self) -> "Source":
        """The same, with counts that are read once where they are few enough, see :meth:`Counts.kept`."""
        return replace(self, find_counts=None if self.find_counts is None else self._keep)

    def _keep(self) -> Counts:
        assert self.counts is not None  # callers have checked it
        return self.counts.kept()

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        if self.embedding is not None:
            return len(self.embedding)
        assert self.counts is not None  # a source has an embedding or counts
        return self.counts.n_cells

    def blocks(self, wanted: pd.Index, needed: np.ndarray, rows: np.ndarray | None = None) -> Iterator[Block]:
        """Read counts of columns by name, in blocks of cells.

        Missing columns count as 0, with a warning.

        Parameters
        ----------
        wanted
            Names of the columns over which the total of a cell is taken.
        needed
            Numbers among these of the ``G`` columns to return, in this order.
        rows
            Cells to read, increasing; all by default.

        Raises
        ------
        ValueError
            If more than half of the wanted or of the needed columns are missing, or a cell has no counts.
        """
        assert self.counts is not None  # callers have checked it
        every = self._match(wanted)
        totaled, columns = every.columns, every.columns[needed]
        missing = wanted[needed][columns < 0]
        if len(missing) > MAX_MISSING_GENES * len(needed):
            match_genes(self.names, wanted[needed], self.names_where)
        self._warn_if_missing(missing, every.missing.difference(missing), len(needed), len(wanted))
        totaled = totaled[totaled >= 0]
        counts = self.counts if np.array_equal(totaled, np.arange(len(self.names))) else self.counts.select(totaled)
        # Positions of the needed columns among those that are read; a missing one is an empty column at the end.
        position = np.full(len(self.names) + 1, len(totaled))
        position[totaled] = np.arange(len(totaled))
        for block_rows, block in counts.blocks(rows):
            totals = block.sum(axis=1, dtype=np.float64)
            check_cells_have_counts(totals, counts.where)
            if len(missing):
                block = sp.hstack([block, sp.csr_array((block.shape[0], 1), dtype=np.float32)], format="csr")
            yield Block(block_rows, block[:, position[columns]], totals)

    def features(self, n_features: int, rows: np.ndarray | None = None) -> np.ndarray:
        """The embedding ``(m, d)`` of cells; of all by default.

        Raises
        ------
        ValueError
            If there are not ``n_features``.
        """
        assert self.embedding is not None  # callers have checked it
        if self.embedding.shape[1] != n_features:
            raise ScrclValueError(
                f"{self.embedding_where} has {counted(self.embedding.shape[1], 'column')}, but the model was built on {n_features}.",
                "Compute it with the same method as for the training cells.",
                where=self.embedding_where,
            )
        return self.embedding if rows is None else self.embedding[rows]

    def check(self, new: bool) -> None:
        """Check the data as far as that is cheap; ``new`` data may have one cell only.

        Raises
        ------
        ValueError
            If names are not unique, the counts are invalid, or all cells have the same embedding.
        """
        check_unique_genes(self.names, self.names_where)
        if self.counts is not None:
            self.counts.check()
        if self.embedding is not None and not new and (self.embedding == self.embedding[0]).all():
            where = self.embedding_where if self.modality is None else f"The modality {self.modality!r}"
            raise ScrclValueError(f"{where} is the same for all cells.", "Name an embedding that varies.", where=where)

    @cached_property
    def _matches(self) -> dict[int, tuple[pd.Index, MatchedGenes]]:
        """Matched genes, by the identity of the names that are wanted, which are kept beside them."""
        return {}

    def _match(self, wanted: pd.Index) -> MatchedGenes:
        """The columns of names; a warning says how names are read if they are written in another way."""
        if id(wanted) not in self._matches:
            matched = match_genes(self.names, wanted, self.names_where, self.find_names)
            self._matches[id(wanted)] = wanted, matched
            if matched.read_as:
                warnings.warn(
                    ScrclWarning(
                        f"{self.names_where} differs from the names of the genes of the model ({self.names[0]!r}, {wanted[0]!r}), "
                        f"which are read from {matched.read_as}.",
                        where=self.names_where,
                    ),
                    stacklevel=settings.warnings_stacklevel,
                )
        return self._matches[id(wanted)][1]

    def _warn_if_missing(self, missing: pd.Index, without: pd.Index, n_needed: int, n_wanted: int) -> None:
        """Warn of columns that are missing from the features, and of others that are missing from the totals only."""
        things = "genes" if self.modality is None else "variables"
        of = "" if self.modality is None else f" of {self.modality!r}"
        for names, number, use in (
            (missing, n_needed, f"{things}{of} of the model"),
            (without, n_wanted, f"{things}{of} in the total counts of a cell"),
        ):
            if len(names):
                warnings.warn(
                    ScrclWarning(
                        f"{len(names)} of the {number:,} {use} are missing from the data and count as not expressed: "
                        f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}.",
                        _cost(len(missing) / n_needed) if names is missing and self.kind == RNA else "",
                    ),
                    stacklevel=settings.warnings_stacklevel,
                )


def _cost(share: float) -> str:
    """What a share of missing genes costs, by the nearest share that was measured and is not lower."""
    measured = next((measured for measured in KEPT if measured >= share), max(KEPT))
    (clusters, lowest_clusters), (types, lowest_types) = KEPT[measured]
    return (
        f"These are {share:.1%}; on six data sets with {measured:.0%} missing, {clusters:.1%} of the cells kept their cluster and "
        f"{types:.1%} their type in the mean, {lowest_clusters:.1%} and {lowest_types:.1%} in the worst."
    )


def anndata_sources(
    adata: AnnData, layer: str | None, features_key: str | None, new: bool = False
) -> dict[str, Source]:
    """The source of AnnData; ``new`` data are read as the model was set up."""
    embedding = None if features_key is None else read_embedding(adata.obsm, features_key, "features_key", "adata")[0]
    source = Source(
        RNA if embedding is None else EMBEDDING,
        gene_names(adata),
        "adata.var_names",
        partial(_read_counts, adata, layer, "layer", "adata", new),
        embedding,
        f"adata.obsm[{features_key!r}]",
        find_names=partial(find_names, adata, layer, "adata"),
    )
    return {RNA: source}


def gene_names(adata: AnnData) -> pd.Index:
    """Names of genes as text, as numbers may be names, too; ``None`` where one is missing."""
    return pd.Index(as_names(adata.var_names))


def mudata_sources(
    mdata: MuData,
    kinds: Mapping[str, str],
    layers: Mapping[str, str] | None,
    features_keys: Mapping[str, str] | None,
    new: bool = False,
) -> dict[str, Source]:
    """The sources of the modalities of MuData; ``new`` data are read as the model was set up.

    Raises
    ------
    KeyError
        If a modality, layer or embedding is missing.
    ValueError
        If modalities do not have the same cells in the same order.
    """
    check_cells(mdata, list(kinds))
    sources = {}
    for name, kind in kinds.items():
        modality, where = mdata.mod[name], f"mdata[{name!r}]"
        if kind == EMBEDDING:
            key = (features_keys or {})[name]
            features, names = read_embedding(modality.obsm, key, f"features_keys[{name!r}]", where)
            sources[name] = Source(kind, names, where, None, features, f"{where}.obsm[{key!r}]", name)
        else:
            layer = (layers or {}).get(name)
            sources[name] = Source(
                kind,
                gene_names(modality),
                f"{where}.var_names",
                partial(_read_counts, modality, layer, f"layers[{name!r}]", where, new),
                modality=name,
                find_names=partial(find_names, modality, layer, where),
            )
    return sources


def check_cells(mdata: MuData, names: Sequence[str]) -> None:
    """Refuse modalities that do not have the same cells in the same order.

    Raises
    ------
    KeyError
        If a modality is missing.
    ValueError
        If a modality lacks cells, or has them in another order.
    """
    for name in names:
        check_key(name, mdata.mod, "The modality", "mdata.mod")
        cells = mdata.mod[name].obs_names
        if not cells.is_unique:
            raise ScrclValueError(
                f"The names of cells in mdata[{name!r}] are not unique.",
                "Make them unique before you join the modalities: `adata.obs_names_make_unique()`.",
                command="Make them unique before you join the modalities.",
                where=f"mdata[{name!r}].obs_names",
            )
        lacking = mdata.n_obs - int(mdata.obs_names.isin(cells).sum())
        if lacking:
            raise ScrclValueError(
                f"{lacking:,} of {counted(mdata.n_obs, 'cell')} {'lacks' if lacking == 1 else 'lack'} the modality {name!r}.",
                "Keep the cells that have all modalities: `muon.pp.intersect_obs(mdata)`.",
                command="Keep the cells that have all modalities.",
            )
        if not cells.equals(mdata.obs_names):
            raise ScrclValueError(
                f"The cells of the modality {name!r} are in another order than in mdata.",
                "Put them in one order: "
                "`mdata = mudata.MuData({name: mdata[name][mdata.obs_names].copy() for name in mdata.mod})`.",
                command="Put them in one order.",
                where="mdata",
            )


def _read_counts(adata: AnnData, layer: str | None, argument: str, where: str, new: bool) -> Counts:
    """The counts of AnnData, which are checked when they are read."""
    remedy = partial(find_counts, adata, layer, where, new)
    if layer is None:
        return Counts.of(adata.X, f"{where}.X", remedy)
    if (new or layer in ("X", "raw")) and layer not in adata.layers:
        advice = remedy()
        read_there = ", where the model reads counts," if new else ""
        raise ScrclKeyError(
            f"{argument}={layer!r}{read_there} is not in {where}.layers.",
            advice.python,
            command=advice.command,
            where="mdata" if where.startswith("mdata") else f"{where}.layers",
        )
    check_key(layer, adata.layers, argument, f"{where}.layers")
    return Counts.of(adata.layers[layer], f"{where}.layers[{layer!r}]", remedy)


def read_embedding(obsm: Mapping[str, object], key: str, argument: str, where: str) -> tuple[np.ndarray, pd.Index]:
    """An embedding ``(n, d)`` of the user, and the names of its columns."""
    check_key(key, obsm, argument, f"{where}.obsm")
    array = in_memory(obsm[key])
    features = as_features(array, f"{where}.obsm[{key!r}]")
    if isinstance(array, pd.DataFrame):
        return features, array.columns.astype(str)
    return features, pd.Index([f"{key}{number}" for number in range(features.shape[1])])


def read_graph(
    data: AnnData | MuData, key: str, argument: str = "neighbors_key", how: str | None = None
) -> sp.csr_array:
    """A cell graph ``(n, n)`` in the form of :func:`scanpy.pp.neighbors`."""
    check_key(key, data.uns, argument, "adata.uns")
    entry = data.uns[key]
    graph_key = entry.get("connectivities_key") if isinstance(entry, dict) else None
    if graph_key is None:
        raise ScrclValueError(
            f"adata.uns[{key!r}] does not describe a cell graph.",
            f"Build one first: {how or f'`scanpy.pp.neighbors(adata, key_added={key!r})`'}.",
        )
    check_key(graph_key, data.obsp, f"the graph of {argument}={key!r},", "adata.obsp")
    graph = _graph(data.obsp[graph_key])
    if not np.isfinite(graph.data).all():
        raise ScrclValueError(f"adata.obsp[{graph_key!r}] holds NaN or infinite weights.", "Build the graph again.")
    return graph


def _graph(matrix: object) -> sp.csr_array:
    """A graph of any kind of array, with weights in the byte order of the machine."""
    graph = sp.csr_array(in_memory(matrix))
    return graph.astype(graph.dtype.newbyteorder("="), copy=False)


def in_memory(array: Any) -> Any:
    """An array, matrix or table that may be read lazily, such as one of dask."""
    for read in ("compute", "to_memory"):
        if hasattr(array, read):
            return getattr(array, read)()
    return array


def read_positions(data: AnnData | MuData, key: str, sample_key: str | None) -> Slices:
    """The positions of cells, and their slices."""
    where = "mdata" if isinstance(data, MuData) else "adata"
    columns = np.ravel(key).tolist()
    if not any(name in data.obsm for name in columns) and set(columns) <= set(data.obs):
        columns = columns if len(columns) > 1 else ["x", "y"]
        raise ScrclKeyError(
            f"spatial_key={key!r} is in {where}.obs, but coordinates are read from {where}.obsm.",
            f"Put them there: `{where}.obsm['spatial'] = {where}.obs[{columns!r}].to_numpy()`, and pass `spatial_key='spatial'`.",
            command="Put them into obsm of the file.",
        )
    check_key(key, data.obsm, "spatial_key", f"{where}.obsm")
    samples = None
    if sample_key is not None:
        samples = read_column(data, sample_key, "sample_key")
    return read_slices(in_memory(data.obsm[key]), samples, f"{where}.obsm[{key!r}]", f"{where}.obs[{sample_key!r}]")


def read_spatial_graph(data: AnnData | MuData, key: str, slices: Slices) -> sp.csr_array:
    """A spatial graph ``(n, n)`` in the form of squidpy."""
    if key in data.obsp:
        graph = _graph(data.obsp[key])
    else:
        check_key(key, data.uns, "spatial_neighbors_key", "adata.uns or adata.obsp")
        graph = read_graph(
            data,
            key,
            "spatial_neighbors_key",
            "`squidpy.gr.spatial_neighbors_knn(adata)`, or leave `spatial_neighbors_key` out",
        )
    edges = graph.tocoo()
    between = (slices.samples[edges.row] != slices.samples[edges.col]) & (edges.data != 0)
    if between.any():
        raise ScrclValueError(
            f"The graph of spatial_neighbors_key={key!r} has {counted(between.sum(), 'edge')} between slices.",
            "Leave `spatial_neighbors_key` out, so that the model builds a graph of each slice.",
        )
    return graph
