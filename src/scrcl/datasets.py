"""Data that come with a dependency or are simulated, so that no download is needed."""

import warnings

import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData

from scrcl.utils.public import public


@public
def pbmc700() -> AnnData:
    """Load 700 peripheral blood mononuclear cells as counts, with their published annotation.

    Taken from :func:`scanpy.datasets.pbmc68k_reduced`, which ships log-normalised values of 765 genes of a subsample of
    the 68k PBMC of Zheng et al. (Nature Communications 2017). Within a cell, the normalised values are whole multiples
    of one unit, so the counts are recovered by dividing by it.

    Returns
    -------
    Annotated data of 700 cells and 765 genes: counts in ``X`` (CSR, float32), the published annotation in
    ``obs["bulk_labels"]``.

    Examples
    --------
    >>> adata = scrcl.datasets.pbmc700()
    >>> adata.shape
    (700, 765)
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


@public
def layered_tissue(n_cells: int = 1200, n_slices: int = 2, n_genes: int = 100, seed: int = 0) -> AnnData:
    """Simulate slices of a layered tissue, measured with a small panel.

    Five layers lie around a corner, as bent bands. Eight cell types occur in all of them, in proportions that differ, so
    that a cell's own expression does not tell its layer and its surroundings do. Slices share layers, types and genes, and
    overlap in their coordinates; each is cut a little differently.

    Parameters
    ----------
    n_cells
        Number of cells of a slice.
    n_slices
        Number of slices.
    n_genes
        Number of genes.
    seed
        Seed of the simulation.

    Returns
    -------
    Counts in ``X`` (CSR, float32), positions in micrometres in ``obsm["spatial"]``, and ``obs["domain"]``,
    ``obs["cell_type"]`` and ``obs["slice"]``.

    Examples
    --------
    >>> tissue = scrcl.datasets.layered_tissue(n_cells=300, n_slices=2)
    >>> tissue.shape
    (600, 100)
    >>> tissue.obs["domain"].nunique()
    5
    """
    rng = np.random.default_rng(seed)
    layers, n_types = ("L1", "L2/3", "L4", "L5/6", "WM"), 8
    proportions = rng.dirichlet(np.full(n_types, 0.5), size=len(layers))
    profiles = rng.gamma(1.0, 1.0, size=(n_types, n_genes)) * rng.gamma(2.0, 0.3, size=n_genes)
    positions, obs, counts = [], [], []
    for number in range(n_slices):
        points = rng.uniform(0, 1000, size=(n_cells, 2))
        depth = np.hypot(*points.T) / 1300 + 0.04 * np.sin(points[:, 0] / 90 + number) + rng.normal(0, 0.01, n_cells)
        layer = np.clip((depth * len(layers)).astype(int), 0, len(layers) - 1)
        kind = (rng.random((n_cells, 1)) > proportions[layer].cumsum(1)[:, :-1]).sum(1)
        found = rng.poisson(profiles[kind] * rng.lognormal(0, 0.3, size=(n_cells, 1)))
        found[:, 0] += found.sum(1) == 0  # no cell without counts
        positions.append(points)
        counts.append(sp.csr_matrix(found.astype(np.float32)))
        names = [f"slice{number + 1}_cell{i}" for i in range(n_cells)]
        columns = {"domain": np.take(layers, layer), "cell_type": kind, "slice": f"slice{number + 1}"}
        obs.append(pd.DataFrame(columns, index=names).astype(str).astype("category"))
    return AnnData(
        sp.vstack(counts, format="csr"),
        obs=pd.concat(obs).astype(str).astype("category"),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]),
        obsm={"spatial": np.concatenate(positions)},
    )
