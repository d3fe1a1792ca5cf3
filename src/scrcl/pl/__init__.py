"""Plots."""

from scrcl.utils.public import public as _public

from ._batches import batches
from ._certainty import certainty
from ._cluster_tree import cluster_tree
from ._domain_scales import domain_scales
from ._genes import associations_heatmap, gene_modules, marker_bars, markers_dotplot
from ._labels import confidence, confusion
from ._maps import spatial, umap
from ._plots import cluster_sizes, history, n_clusters

__all__ = [
    "associations_heatmap",
    "batches",
    "certainty",
    "cluster_sizes",
    "cluster_tree",
    "confidence",
    "confusion",
    "domain_scales",
    "gene_modules",
    "history",
    "marker_bars",
    "markers_dotplot",
    "n_clusters",
    "spatial",
    "umap",
]

for _name in __all__:
    globals()[_name] = _public(globals()[_name])
