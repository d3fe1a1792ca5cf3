"""Plot of the tree of clusters."""

from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from scrcl.cluster.cluster_tree import ClusterTree
from scrcl.cluster.tree import MAX_CONNECTIVITY
from scrcl.model.scrcl import SCRCL
from scrcl.utils.words import counted

from ._maps import palette

#: Size of the text in points, and the width of a letter of it in inches.
FONT_SIZE, LETTER = 8, 0.078
#: Height of a leaf, and bounds of the width of a column of splits, in inches.
LEAF_HEIGHT, COLUMN_WIDTHS = 0.3, (0.9, 2.2)
#: Least width of a new figure, in inches.
MIN_WIDTH = 4.5
#: Colour of what is above the clusters of the default cut.
ABOVE = "0.4"


@dataclass
class Node:
    """A node that is drawn: ``x`` counts columns, and ``y`` leaves; ``sides`` are the sides of its split, if it is drawn."""

    name: str
    x: float
    y: float
    sides: tuple["Node", "Node"] | None = None

    def nodes(self) -> Iterator["Node"]:
        """The node, and all that are drawn below it."""
        yield self
        for side in self.sides or ():
            yield from side.nodes()

    def splits(self) -> Iterator[tuple["Node", tuple["Node", "Node"]]]:
        """The splits that are drawn, from this node on."""
        yield from ((node, node.sides) for node in self.nodes() if node.sides is not None)


def cluster_tree(
    model: SCRCL | ClusterTree, all_leaves: bool = False, n_genes: int = 3, ax: Axes | None = None
) -> Axes:
    """Plot the tree of clusters, with the genes that are up on either side of each split.

    Splits that are supported have solid lines, and others dashed ones. The clusters of the default cut are coloured, with
    their name in a box. Genes are written on the line of the side on which they are up, and the connectivity at the split.
    The leaves are followed by their number of cells. The lengths of lines have no meaning.

    Parameters
    ----------
    model
        A trained :class:`~scrcl.SCRCL`, or the result of its :meth:`~scrcl.SCRCL.get_cluster_tree`, which takes as long as
        training.
    all_leaves
        Whether to draw the whole tree. By default, it is drawn down to the first splits that are not supported.
    n_genes
        Largest number of genes on each side of a split. Genes without room are left out.
    ax
        Axes to draw on; by default, axes of a new figure that is as large as the tree requires.

    Returns
    -------
    The axes.

    Examples
    --------
    >>> tree = model.get_cluster_tree()
    >>> ax = scrcl.pl.cluster_tree(tree)
    """
    tree = model if isinstance(model, ClusterTree) else model.get_cluster_tree()
    splits = tree.splits if all_leaves else tree.first_splits
    leaves: list[Node] = []
    root = _lay_out(str(tree.names[-1]), splits, leaves)
    genes = {side.name: names[:n_genes] for node, sides in root.splits() for side, names in _genes(node, sides, splits)}
    n_columns = max(-root.x, 1) + 0.5  # half a column for the number beside the root
    if ax is None:
        longest = LETTER * max((len(", ".join(names)) + 2 for names in genes.values()), default=0)
        width = min(max(longest, COLUMN_WIDTHS[0]), COLUMN_WIDTHS[1])
        size = (max(width * n_columns + 1.0, MIN_WIDTH), LEAF_HEIGHT * (len(leaves) + 1) + 0.6)
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    else:
        figure = ax.get_figure(root=True)
        assert figure is not None
        width = ax.get_window_extent().width / figure.dpi / n_columns
    clusters = [str(name) for name in tree.cut().cat.categories]
    colors = dict(zip(clusters, palette(len(clusters)), strict=True))
    for node, sides in root.splits():
        ys = [side.y for side in sides]
        ax.plot(
            [sides[0].x, node.x, node.x, sides[1].x],
            np.repeat(ys, 2),
            color=colors.get(node.name.partition(".")[0], ABOVE),
            ls="-" if splits.at[node.name, "supported"] else "--",
            lw=1.4,
        )
        beside = 3 if node.name not in colors else 5 + 4 * len(node.name)  # of the box
        connectivity = f"{splits['connectivity'][node.name]:.2f}"
        _write(ax, connectivity, node.x, node.y, (-beside, -2), color=ABOVE)
        for side in sides:
            text = _fitting(genes[side.name], int(width * (side.x - node.x) / LETTER))
            if text:
                _write(ax, text, node.x, side.y, (beside, 1), fontstyle="italic")
    for node in root.nodes():
        if node.name in colors:
            box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": colors[node.name], "lw": 1.6}
            ax.text(node.x, node.y, node.name, fontsize=FONT_SIZE, ha="center", va="center", bbox=box)
    _finish(ax, root, leaves, tree.sizes, len(clusters))
    return ax


def _lay_out(name: str, splits: pd.DataFrame, leaves: list[Node]) -> Node:
    """A node and all that is drawn below it; appends the leaves from top to bottom."""
    if name not in splits.index:
        leaves.append(Node(name, 0, len(leaves)))
        return leaves[-1]
    left, right = (_lay_out(str(splits.at[name, side]), splits, leaves) for side in ("left", "right"))
    return Node(name, min(left.x, right.x) - 1, (left.y + right.y) / 2, (left, right))


def _genes(node: Node, sides: tuple[Node, Node], splits: pd.DataFrame) -> Iterator[tuple[Node, list[str]]]:
    """The genes that are up on each side of a split; none without evidence."""
    for side, column in zip(sides, ("genes_left", "genes_right"), strict=True):
        text = splits.at[node.name, column]
        yield side, text.split(", ") if isinstance(text, str) and text else []


def _fitting(names: list[str], n_letters: int) -> str:
    """The first names, as far as there is room."""
    lengths = np.cumsum([len(name) + 2 for name in names])
    return ", ".join(names[: np.searchsorted(lengths, n_letters, side="right")])


def _write(
    ax: Axes, text: str, x: float, y: float, offset: tuple[int, int], color: str = "black", fontstyle: str = "normal"
) -> None:
    """Write on the side of a point to which the offset, in points, leads."""
    ax.annotate(
        text,
        (x, y),
        offset,
        textcoords="offset points",
        ha="left" if offset[0] > 0 else "right",
        va="bottom" if offset[1] > 0 else "top",
        color=color,
        fontsize=FONT_SIZE,
        fontstyle=fontstyle,
        parse_math=False,
    )


def _finish(ax: Axes, root: Node, leaves: list[Node], sizes: pd.Series, n_clusters: int) -> None:
    """Name the leaves, and explain the lines."""
    ax.set(xlim=(min(root.x, -1) - 0.5, 0.1), ylim=(len(leaves) - 0.4, -0.6), xticks=[])
    ax.yaxis.tick_right()
    names = [f"{leaf.name}  ({sizes[leaf.name]:,})" for leaf in leaves]
    ax.set_yticks([leaf.y for leaf in leaves], names, fontsize=FONT_SIZE)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(counted(n_clusters, "cluster"), loc="left", fontsize=FONT_SIZE + 2)
    lines = [Line2D([], [], color=ABOVE, ls=style) for style in ("-", "--")]
    ax.legend(
        lines,
        ["supported", "not supported"],
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderaxespad=0,
        ncols=2,
        frameon=False,
        fontsize=FONT_SIZE,
    )
    ax.set_xlabel(f"numbers: connectivity (supported below {MAX_CONNECTIVITY})", loc="left", fontsize=FONT_SIZE)
