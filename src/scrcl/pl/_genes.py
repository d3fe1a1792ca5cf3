"""Plots of genes: markers, associations, and the gene embedding."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData
from sklearn.preprocessing import normalize

from scrcl.data.columns import read_column
from scrcl.model.expression import symbols_of
from scrcl.model.scrcl import SCRCL
from scrcl.utils.checks import check_at_least, check_genes, check_groups
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.names import as_groups, as_name

from ._maps import umap_coordinates
from ._plots import new_axes

#: Cells in a heat map; if there are more, a random sample of so many is drawn.
MAX_CELLS = 2000


def markers_dotplot(markers: pd.DataFrame, n_genes: int = 5, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Plot the best marker genes of each group as dots.

    The colour is the mean association of the group minus that of all other cells, the size the fraction of its cells that
    express the gene.

    Parameters
    ----------
    markers
        The table of :meth:`scrcl.SCRCL.get_marker_genes`, with all genes.
    n_genes
        Number of genes of each group. Each gene is shown once, with the group in which it scores highest.
    ax
        Axes to draw on; new ones by default.
    **kwargs
        Passed to :class:`scanpy.pl.DotPlot`.

    Returns
    -------
    The axes of the dots.

    Raises
    ------
    ValueError
        If the table lacks columns, or genes of some groups.

    Examples
    --------
    >>> markers = model.get_marker_genes(groupby="scrcl", n_permutations=0)
    >>> ax = scrcl.pl.markers_dotplot(markers, n_genes=3)
    """
    score, fraction = _wide(markers, "score"), _wide(markers, "fraction_in")
    shown = _best(markers, n_genes)
    genes = [gene for group in shown.values() for gene in group]
    # scanpy takes names and groups from the data, and values from the two tables.
    cells = AnnData(score, obs=pd.DataFrame({"group": pd.Categorical(score.index, score.index)}, index=score.index))
    limit = float(np.quantile(np.abs(score[genes].to_numpy()), 0.98))
    options = {"vmin": -limit, "vmax": limit, "cmap": "RdBu_r", **kwargs}
    cmap = options.pop("cmap")
    plot = sc.pl.DotPlot(
        cells, shown, "group", dot_color_df=score[genes], dot_size_df=fraction[genes], ax=ax, **options
    )
    plot.style(cmap=cmap).legend(colorbar_title="association\n(s.d.)", size_title="fraction of\ncells in group (%)")
    return plot.get_axes()["mainplot_ax"]


def associations_heatmap(
    model: SCRCL,
    markers: pd.DataFrame,
    groupby: str,
    adata: AnnData | None = None,
    n_genes: int = 5,
    gene_symbols: str | None = None,
    **kwargs: object,
) -> Axes:
    """Plot the associations of cells with the best marker genes of their groups as a heat map.

    Parameters
    ----------
    model
        A trained :class:`~scrcl.SCRCL`.
    markers
        The table of :meth:`scrcl.SCRCL.get_marker_genes`.
    groupby
        Key of ``adata.obs`` of the groups that order the cells.
    adata
        Cells; by default, the cells of the model. Of more than 2,000 cells, a random sample is shown.
    n_genes
        Number of genes of each group. Each gene is shown once, with the group in which it scores highest.
    gene_symbols
        Column of ``adata.var`` with the names of genes in ``markers``, as in :meth:`scrcl.SCRCL.get_marker_genes`.
    **kwargs
        Passed to :func:`scanpy.pl.heatmap`.

    Returns
    -------
    The axes of the heat map.

    Raises
    ------
    KeyError
        If ``groupby`` is missing.
    ValueError
        If the table lacks columns.

    Examples
    --------
    >>> markers = model.get_marker_genes(groupby="scrcl", n_permutations=0)
    >>> ax = scrcl.pl.associations_heatmap(model, markers, "scrcl", n_genes=3)
    """
    adata = model._data(adata)
    groups = as_groups(read_column(adata, groupby, "groupby"))
    shown = _best(markers, n_genes)
    rows = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:MAX_CELLS])
    rows = rows[groups.codes[rows] >= 0]
    genes = [gene for group in shown.values() for gene in group]
    cells = AnnData(model.get_cell_gene_associations(adata, rows, genes=genes, gene_symbols=gene_symbols))
    cells.obs[groupby] = groups[rows].remove_unused_categories()
    limit = float(np.quantile(np.abs(cells.X), 0.99))
    options = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "show_gene_labels": True, **kwargs}
    return sc.pl.heatmap(cells, shown, groupby, show=False, **options)["heatmap_ax"]


def marker_bars(markers: pd.DataFrame, group: str, n_genes: int = 10, ax: Axes | None = None) -> Axes:
    """Plot the best marker genes of one group as bars with their 95 % intervals.

    Parameters
    ----------
    markers
        The table of :meth:`scrcl.SCRCL.get_marker_genes`.
    group
        The group.
    n_genes
        Number of genes.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If the group is not in the table.
    ValueError
        If the table lacks columns.

    Examples
    --------
    >>> markers = model.get_marker_genes(groupby="scrcl", n_permutations=0)
    >>> ax = scrcl.pl.marker_bars(markers, group="0")
    """
    _check_table(markers, "group", "gene", "score", "score_low", "score_high")
    check_at_least(n_genes, 1, "n_genes")
    present, group = markers["group"].astype(str), as_name(group)
    check_groups(group, list(present.unique()), "group")
    best = markers[present == group].nlargest(n_genes, "score")
    ax = ax or new_axes()
    margin = best["score_high"].to_numpy() - best["score"].to_numpy()
    ax.barh(best["gene"], best["score"], xerr=margin, color="#4c78a8", error_kw={"lw": 1, "capsize": 2})
    ax.invert_yaxis()
    ax.set(xlabel="association with the group minus that with other cells (s.d.)", title=_title(group))
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def gene_modules(
    model: SCRCL,
    modules: pd.Series | None = None,
    genes: Sequence[str] = (),
    ax: Axes | None = None,
    gene_symbols: str | None = None,
    adata: AnnData | MuData | None = None,
) -> Axes:
    """Plot a map of the gene embedding, coloured by module.

    Parameters
    ----------
    model
        A trained :class:`~scrcl.SCRCL`.
    modules
        Module of each gene, by name; the result of :meth:`scrcl.SCRCL.get_gene_modules` by default.
    genes
        Genes whose names are written on the map.
    ax
        Axes to draw on; new ones by default.
    gene_symbols
        Column of ``adata.var`` with the names in ``genes``, which may also be those in ``var_names``, as in
        :meth:`scrcl.SCRCL.get_cell_gene_associations`. ``modules`` has the names of the model.
    adata
        Data with this column; by default, the data of the model.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If a gene is not among the genes that the model keeps, or there is no column ``gene_symbols``.

    Examples
    --------
    >>> ax = scrcl.pl.gene_modules(model, genes=["CD79A", "NKG7"])
    """
    embedding = model.get_gene_embedding()
    modules = model.get_gene_modules() if modules is None else modules
    reference = model._reference
    names, measured = reference.genes, reference.all_genes
    own = measured
    if gene_symbols is not None:
        data = model._data(adata)
        names, measured = (symbols_of(model, data, index, gene_symbols) for index in (names, measured))
    named = check_genes(genes, names, measured, own) if len(genes) else np.empty(0, dtype=int)
    embedded = np.flatnonzero(embedding.to_numpy().any(1))
    points = np.full((len(embedding), 2), np.nan)
    points[embedded] = umap_coordinates(normalize(embedding.to_numpy()[embedded]))
    table = pd.DataFrame({"module": pd.Categorical(modules.reindex(embedding.index))}, index=embedding.index)
    nodes = AnnData(obs=table.iloc[embedded], obsm={"X_genes": points[embedded]})
    ax = ax or new_axes()
    sc.pl.embedding(nodes, "genes", color="module", title="gene modules", frameon=False, show=False, ax=ax)
    for column in named:
        ax.annotate(names[column], points[column], fontsize=8, xytext=(3, 3), textcoords="offset points")
        ax.plot(*points[column], "o", mfc="none", mec="black", ms=4)
    return ax


def _title(group: str) -> str:
    """The title for a cluster, which has a number, or for a group with a name."""
    return f"marker genes of cluster {group}" if group.isdecimal() else f"marker genes: {group}"


def _check_table(markers: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in getattr(markers, "columns", ())]
    if missing:
        raise ScrclValueError(
            f"markers has no column {', '.join(map(repr, missing))}.", "Pass the table of `model.get_marker_genes()`."
        )
    if markers.empty:
        raise ScrclValueError("markers has no rows.", "Pass the whole table of `model.get_marker_genes()`.")


def _wide(markers: pd.DataFrame, values: str) -> pd.DataFrame:
    """Groups by genes."""
    _check_table(markers, "group", "gene", values)
    wide = markers.pivot_table(index="group", columns="gene", values=values, observed=True)
    if wide.isna().to_numpy().any():
        raise ScrclValueError(
            "markers lacks genes of some groups.", "Pass the whole table: `model.get_marker_genes(n_top=None)`."
        )
    wide.index = wide.index.astype(str).rename(None)
    return wide


def _best(markers: pd.DataFrame, n_genes: int) -> dict[str, list[str]]:
    """The best genes of each group, each gene with the group in which it scores highest."""
    _check_table(markers, "group", "gene", "score")
    check_at_least(n_genes, 1, "n_genes")
    best = markers.sort_values("score", ascending=False).groupby("group", observed=True).head(n_genes)
    best = best.drop_duplicates("gene")
    parts = {str(group): part["gene"].tolist() for group, part in best.groupby("group", observed=True)}
    return {group: genes for group, genes in parts.items() if genes}
