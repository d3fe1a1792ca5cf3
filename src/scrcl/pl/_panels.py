"""Panels of maps of cells: their room for legends, the order of drawing, and labels beside clusters."""

from collections.abc import Iterator, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

#: Panels in a row, and inches of each.
N_COLUMNS, PANEL = 4, 3.6
#: Inches of a letter in a legend, and of the dot before it.
LETTER, DOT = 0.085, 0.45
#: Categories of which the legend of scanpy has one and two columns, at most.
ONE_COLUMN, TWO_COLUMNS = 14, 30
#: Options of scanpy with a value for each cell.
CELL_OPTIONS = ("size", "mask_obs", "alpha")
#: Width and height of a letter on the map, relative to the size of the font, and the gap beside it in points.
LETTER_SIZE, GAP = (0.65, 1.2), 6.0
#: Directions in which a label may be from a dot of its cluster: 1 where it ends there; the first is the middle of the cluster.
SIDES = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), *((x, y) for y in (0.5, -0.5, 1, -1) for x in (1, -1))])
#: Share of the dots of a cluster, nearest to its middle, beside which its label may be; and that a label may cover.
CORE, COVERED = 0.8, 0.25
#: Dots of its cluster that are around a label in the middle, at least.
AROUND = 3
#: How much worse than covering all dots of a cluster it is to cover a label, or to leave the map.
COLLISION = 100.0


def legend_width(values: pd.Series, options: Mapping[str, object]) -> float:
    """Inches that the legend of a panel takes, in the layout of scanpy with these options."""
    if not isinstance(values.dtype, pd.CategoricalDtype):
        return DOT
    if options.get("legend_loc", "right margin") != "right margin":
        return 0.0
    names = values.cat.categories.astype(str)
    n_columns = 1 if len(names) <= ONE_COLUMN else 2 if len(names) <= TWO_COLUMNS else 3
    return n_columns * (DOT + LETTER * max(map(len, names), default=0))


def make_panels(number: int, n_columns: int, widths: Sequence[float]) -> list[Axes]:
    """Axes in rows, with inches for the legend of each panel."""
    n_rows = -(-number // n_columns)
    extra = sum(max(widths[column::n_columns], default=0.0) for column in range(n_columns))
    figure = plt.figure(figsize=(PANEL * n_columns + extra, PANEL * n_rows), layout="constrained")
    return [figure.add_subplot(n_rows, n_columns, 1 + position) for position in range(number)]


def draw_cells(cells: AnnData, basis: str, color: str, ax: Axes, options: Mapping[str, object]) -> None:
    """Draw cells in a random order, so that no category hides the others, and their legend.

    Parameters
    ----------
    cells
        Cells with the map in ``obsm``, and the colour in ``obs``.
    basis, color, ax
        What is drawn, and where.
    options
        Options of :func:`scanpy.pl.embedding`. With ``legend_loc="on data"``, names are beside small clusters.
    """
    order = np.random.default_rng(0).permutation(cells.n_obs)
    given = {**options, "show": False, "ax": ax}
    for name in CELL_OPTIONS:
        if np.ndim(given.get(name)) == 1 and len(given[name]) == cells.n_obs:  # type: ignore[arg-type]
            given[name] = np.asarray(given[name])[order]
    on_data = given.get("legend_loc") == "on data" and isinstance(cells.obs[color].dtype, pd.CategoricalDtype)
    if on_data:
        given["legend_loc"] = "none"
    # Not a view, which would drop the categories that only other cells have.
    pairs = {name: graph[order][:, order] for name, graph in cells.obsp.items()}
    shuffled = AnnData(obs=cells.obs.iloc[order], obsm={basis: cells.obsm[basis][order]}, obsp=pairs, uns=cells.uns)
    sc.pl.embedding(shuffled, basis, color=color, **given)
    ax.set_in_layout(True)  # scanpy moves the axes, which then have no room of their own
    if on_data:
        points = np.asarray(cells.obsm[basis])[:, :2]
        size = float(options.get("legend_fontsize") or plt.rcParams["font.size"])  # type: ignore[arg-type]
        outline = withStroke(linewidth=float(options.get("legend_fontoutline") or 2), foreground="w")  # type: ignore[arg-type]
        _write_labels(ax, points, cells.obs[color], size, str(options.get("legend_fontweight", "bold")), [outline])


def _write_labels(
    ax: Axes, points: np.ndarray, clusters: pd.Series, size: float, weight: str, effects: Sequence[object]
) -> None:
    """Write the name of each cluster beside its dots, or on them."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.canvas.draw()  # for the size of the axes
    extent = ax.get_window_extent()
    inches = np.array([extent.width, extent.height]) / figure.dpi
    names = clusters.cat.remove_unused_categories().cat.categories
    fractions = ax.transAxes.inverted().transform(ax.transData.transform(points))
    codes = clusters.cat.remove_unused_categories().cat.codes.to_numpy()
    sizes = label_sizes(list(names.astype(str)), size) / (72 * inches)
    anchors, sides = place_labels(fractions, codes, sizes, GAP / (72 * inches))
    for name, anchor, (x, y) in zip(names.astype(str), anchors, sides, strict=True):
        ax.annotate(
            name,
            anchor,
            (GAP * x, y * (GAP + size * LETTER_SIZE[1] / 2)),
            xycoords="axes fraction",
            textcoords="offset points",
            ha=("right", "center", "left")[int(x) + 1],
            va="center",
            fontsize=size,
            fontweight=weight,
            path_effects=list(effects),
            parse_math=False,
        ).set_in_layout(False)  # the axes stay as they are measured


def label_sizes(names: Sequence[str], size: float) -> np.ndarray:
    """Width and height ``(k, 2)`` of names in a font of a size, in the unit of the size."""
    return size * np.array([(LETTER_SIZE[0] * len(name), LETTER_SIZE[1]) for name in names]).reshape(-1, 2)


def place_labels(
    points: np.ndarray, codes: np.ndarray, sizes: np.ndarray, gap: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where to write the names of clusters: beside one of their dots, or in the middle of large ones.

    Labels of small clusters are placed first. Each goes where it covers the smallest shares of clusters, no other label, and
    nothing beyond the map.

    Parameters
    ----------
    points
        ``(n, 2)`` dots, from 0 to 1 on the map.
    codes
        ``(n,)`` cluster of each dot, negative for none.
    sizes
        ``(k, 2)`` width and height of each label, relative to the map.
    gap
        ``(2,)`` distance between a label and its dot.

    Returns
    -------
    anchors
        ``(k, 2)`` dot of each label.
    sides
        ``(k, 2)`` direction from this dot to the middle of the label, from -1 to 1: 1 where the label ends beside the dot.
    """
    n_clusters = len(sizes)
    dots, codes = points[codes >= 0], codes[codes >= 0]
    numbers = np.bincount(codes, minlength=n_clusters)
    anchors, sides, boxes = np.zeros((n_clusters, 2)), np.zeros((n_clusters, 2)), np.zeros((0, 4))
    placed: list[int] = []
    for cluster in np.argsort(numbers, kind="stable"):
        own = dots[codes == cluster]
        if not len(own):
            continue
        from_middle = np.abs(own - np.median(own, axis=0)).sum(1)
        core = own[np.argsort(from_middle, kind="stable")[: max(1, round(CORE * len(own)))]]
        best = np.inf
        for side, anchor in _candidates(core):
            low = anchor + side * (sizes[cluster] / 2 + gap) - sizes[cluster] / 2
            box = np.array([low, low + sizes[cluster]])
            covered = _inside(dots, *box)
            shares = np.bincount(codes[covered], minlength=n_clusters) / np.maximum(numbers, 1)
            hidden = _inside(anchors[placed], *box).sum() + _inside(anchor, boxes[:, :2], boxes[:, 2:]).sum()
            cost = shares.sum() + COLLISION * (_collides(box, boxes) + hidden)
            if not side.any():  # the middle of a large cluster is the best place, if there are dots around the label
                around = _inside(own, box[0] - gap, box[1] + gap).sum() - covered[codes == cluster].sum()
                cost += -shares[cluster] if shares[cluster] <= COVERED and around >= AROUND else 1.0
            if cost < best - 1e-9:
                best, anchors[cluster], sides[cluster], chosen = cost, anchor, side, box
        boxes = np.vstack([boxes, chosen.reshape(1, 4)])
        placed.append(cluster)
    return anchors, sides


def _candidates(core: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Directions and the dots from which a label may be there: the middle, and the outermost dots on each side."""
    for side in SIDES:
        if not side.any():
            yield side, core[0]
            continue
        along = np.argsort(core @ np.array([-side[1], side[0]]), kind="stable")
        for part in np.array_split(along, min(3, len(along))):
            yield side, core[part[(core[part] @ side).argmax()]]


def _inside(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whether points are in boxes."""
    return np.asarray(((points > low) & (points < high)).all(-1))


def _collides(box: np.ndarray, others: np.ndarray) -> float:
    """How many other boxes a box meets, and how far it leaves the map from 0 to 1."""
    meets = ((box[0] < others[:, 2:]) & (box[1] > others[:, :2])).all(1).sum()
    return float(meets + np.maximum(-box[0], 0).sum() + np.maximum(box[1] - 1, 0).sum())
