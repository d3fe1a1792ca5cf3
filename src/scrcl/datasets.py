"""Data that come with a dependency, so that no download is needed."""

import warnings

import numpy as np
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData


def pbmc700() -> AnnData:
    """Load 700 peripheral blood mononuclear cells as counts, with their published annotation.

    Taken from :func:`scanpy.datasets.pbmc68k_reduced`, which ships log-normalised values of 765 genes of a subsample of
    the 68k PBMC of Zheng et al. (Nature Communications 2017). Within a cell, the normalised values are whole multiples
    of one unit, so the counts are recovered by dividing by it.

    Returns
    -------
    Annotated data of 700 cells and 765 genes: counts in ``X`` (CSR, float32), the published annotation in
    ``obs["bulk_labels"]``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shipped = sc.datasets.pbmc68k_reduced()
    normalized = np.expm1(shipped.raw.X.toarray().astype(np.float64))
    unit = np.where(normalized > 0, normalized, np.inf).min(1, keepdims=True)
    # The smallest value is one count but rounded; a least-squares unit over all values of the cell is exact enough.
    counts = np.round(normalized / unit)
    unit = (normalized * counts).sum(1, keepdims=True) / (counts**2).sum(1, keepdims=True)
    counts = np.round(normalized / unit).astype(np.float32)
    return AnnData(
        sp.csr_matrix(counts), obs=shipped.obs[["bulk_labels", "louvain"]].copy(), var=shipped.raw.var[[]].copy()
    )
