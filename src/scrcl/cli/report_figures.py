"""Figures of the report, as URLs that hold the picture; names on maps are text of the page."""

import base64
from dataclasses import dataclass
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from scrcl import pl
from scrcl.cluster.cluster_tree import ClusterTree
from scrcl.cluster.number import NumberOfClusters
from scrcl.pl._maps import palette, umap_coordinates
from scrcl.pl._panels import GAP, label_sizes, place_labels
from scrcl.utils import keys
from scrcl.utils.names import as_groups

#: Cells that are mapped; of more, a random part.
MAX_MAPPED = 50_000
#: Inches of a map, and dots in an inch of all figures.
MAP_SIZE, DPI = 4.4, 150
#: Pixels of the smallest map on a page, and of the letters on it.
SMALLEST_MAP, LETTERS = 290, 13
#: Size of the smallest dot beside a name.
MIN_ANCHOR = 20.0
#: Slices that are drawn, at most, and size of the largest dots of cells there.
MAX_SLICES, MAX_DOT = 12, 60.0
#: Genes of each cluster that are drawn.
N_DRAWN = 3
#: Colour of cells without a value.
NO_VALUE = "#d5d9de"


@dataclass
class Tag:
    """The name of a cluster on a map, and its place in CSS."""

    name: str
    style: str


@dataclass
class Map:
    """A map of cells: its picture, the colours of the names, and tags with the names, if there are any."""

    picture: str
    colors: dict[str, str]
    tags: list[Tag]
    title: str = ""


def map_points(latent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``(m,)`` of cells that are mapped, in random order, and their places ``(m, 2)`` from 0 to 1 on the map."""
    rows = np.random.default_rng(0).permutation(len(latent))[:MAX_MAPPED]
    points = umap_coordinates(np.ascontiguousarray(latent[rows]))
    low, high = points.min(0), points.max(0)
    return rows, 0.04 + 0.92 * (points - low) / np.maximum(high - low, 1e-9)


def colors_of(names: pd.Series) -> dict[str, str]:
    """Colour of each category, in the order of the categories."""
    categories = [str(name) for name in names.astype("category").cat.categories]
    return dict(zip(categories, palette(len(categories)), strict=True))


def draw_map(points: np.ndarray, names: pd.Series, colors: dict[str, str], tagged: bool = False) -> Map:
    """A map of cells by category; ``names`` ``(m,)`` are of the points."""
    figure = plt.figure(figsize=(MAP_SIZE, MAP_SIZE))
    ax = figure.add_axes((0, 0, 1, 1))
    values = names.astype(object).where(names.notna(), "").astype(str)
    size = float(np.clip(30_000 / max(len(points), 1), 1.5, 22))
    ax.scatter(points[:, 0], points[:, 1], s=size, c=values.map(colors).fillna(NO_VALUE), lw=0)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_axis_off()
    tags = []
    if tagged:
        codes = pd.Index(list(colors)).get_indexer(pd.Index(values))
        sizes = label_sizes(list(colors), LETTERS) / SMALLEST_MAP
        anchors, sides = place_labels(points, codes, sizes, np.full(2, GAP / SMALLEST_MAP))
        present = set(codes.tolist())
        # The dots beside names are on top of all others.
        beside = [number for number in present if number >= 0 and sides[number].any()]
        shown = [list(colors.values())[number] for number in beside]
        ax.scatter(anchors[beside, 0], anchors[beside, 1], s=max(size, MIN_ANCHOR), c=shown, lw=0)
        tags = [
            Tag(name, _place(x, y, *side))
            for number, (name, (x, y), side) in enumerate(zip(colors, anchors, sides, strict=True))
            if number in present
        ]
    return Map(save(ax, tight=False), colors, tags)


def _place(x: float, y: float, right: float, up: float) -> str:
    """The place of a tag beside a dot, in the direction of its middle from there, in CSS."""
    return (
        f"left: {100 * x:.2f}%; top: {100 * (1 - y):.2f}%; margin: {-GAP * up:g}px 0 0 {GAP * right:g}px; "
        f"transform: translate({50 * right - 50:g}%, {-50 * up - 50:g}%)"
    )


def draw_number(estimate: NumberOfClusters, what: str) -> str:
    """The support for each number of clusters."""
    ax = pl.n_clusters(estimate)
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.set_size_inches(MAP_SIZE, MAP_SIZE)
    ax.set_title("")
    figure.axes[-1].set_xlabel(f"number of {what}s")
    return save(ax)


def draw_tree(tree: ClusterTree) -> str:
    """The tree of clusters."""
    ax = pl.cluster_tree(tree)
    ax.set_title("", loc="left")
    return save(ax)


def draw_markers(markers: pd.DataFrame) -> str:
    """The best marker genes of each cluster."""
    return save(pl.markers_dotplot(markers, n_genes=N_DRAWN))


def draw_slices(data: AnnData | MuData, spatial_key: str, sample_key: str | None, colors: dict[str, str]) -> list[Map]:
    """The slices, each on its own map, in the colours of all."""
    slices: list[tuple[str, AnnData | MuData]] = [("", data)]
    if sample_key is not None:
        samples = as_groups(data.obs[sample_key]).remove_unused_categories()
        slices = [(name, data[np.flatnonzero(samples == name)]) for name in samples.categories[:MAX_SLICES]]
    maps = []
    for name, cells in slices:
        part = AnnData(
            obs=cells.obs[[keys.CLUSTERS_KEY]].copy(),
            obsm={spatial_key: np.asarray(cells.obsm[spatial_key])},
            uns={"spatial": data.uns["spatial"]} if "spatial" in data.uns else {},
        )
        categories = list(colors)
        part.obs[keys.CLUSTERS_KEY] = pd.Categorical(part.obs[keys.CLUSTERS_KEY].astype(str), categories)
        part.uns[f"{keys.CLUSTERS_KEY}_colors"] = list(colors.values())
        key = None
        if name:
            key = "slice"
            part.obs[key] = name
        ax = plt.subplots(figsize=(MAP_SIZE, MAP_SIZE), layout="constrained")[1]
        size = {} if "spatial" in part.uns else {"size": min(120_000 / part.n_obs, MAX_DOT)}
        pl.spatial(part, spatial_key=spatial_key, sample_key=key, ax=ax, title="", legend_loc=None, **size)
        maps.append(Map(save(ax), colors, [], name))
    return maps


def save(ax: Axes, tight: bool = True) -> str:
    """The figure of these axes."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    file = BytesIO()
    figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight" if tight else None)
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
