"""Plots."""

from ._plots import cluster_sizes, history, n_clusters, umap

__all__ = ["cluster_sizes", "history", "n_clusters", "umap"]
