"""Plots."""

from ._plots import cluster_sizes, history, umap

__all__ = ["cluster_sizes", "history", "umap"]
