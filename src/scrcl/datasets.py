"""Data sets that come with a dependency or are simulated, so that no download is needed."""

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

    They are computed from :func:`scanpy.datasets.pbmc68k_reduced`, which has log-normalised values of 765 genes, for a sample
    of the 68,000 cells of Zheng et al. (Nature Communications 2017). Within a cell, all normalised values are multiples of
    one unit, the value of a single count, so division by this unit recovers the counts.

    Returns
    -------
    Data of 700 cells and 765 genes: counts in ``X`` (CSR, float32), and the published annotation in ``obs["bulk_labels"]``.

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
    # The smallest value is a single count, but rounded. The least-squares unit over all values of the cell is exact enough.
    counts = np.round(normalized / unit)
    unit = (normalized * counts).sum(1, keepdims=True) / (counts**2).sum(1, keepdims=True)
    counts = np.round(normalized / unit).astype(np.float32)
    return AnnData(
        sp.csr_matrix(counts), obs=shipped.obs[["bulk_labels", "louvain"]].copy(), var=shipped.raw.var[[]].copy()
    )


@public
def layered_tissue(n_cells: int = 1200, n_slices: int = 2, n_genes: int = 100, seed: int = 0) -> AnnData:
    """Simulate slices of a layered tissue, measured with a small gene panel.

    Five layers are bent bands around a corner. Eight cell types occur in every layer, in different proportions, so the layer
    of a cell cannot be found from its own expression, but from that of its neighbours. Slices have the same layers, types and
    genes, slightly different borders, and overlapping coordinates.

    Parameters
    ----------
    n_cells
        Number of cells in each slice.
    n_slices
        Number of slices.
    n_genes
        Number of genes.
    seed
        Seed of the simulation.

    Returns
    -------
    Data of ``n_slices * n_cells`` cells: counts in ``X`` (CSR, float32), positions in micrometres in ``obsm["spatial"]``, and
    ``obs["domain"]`` (the layer), ``obs["cell_type"]`` and ``obs["slice"]``.

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
        cell_type = (rng.random((n_cells, 1)) > proportions[layer].cumsum(1)[:, :-1]).sum(1)
        sampled = rng.poisson(profiles[cell_type] * rng.lognormal(0, 0.3, size=(n_cells, 1)))
        sampled[:, 0] += sampled.sum(1) == 0  # no cell without counts
        positions.append(points)
        counts.append(sp.csr_matrix(sampled.astype(np.float32)))
        names = [f"slice{number + 1}_cell{i}" for i in range(n_cells)]
        columns = {"domain": np.take(layers, layer), "cell_type": cell_type, "slice": f"slice{number + 1}"}
        obs.append(pd.DataFrame(columns, index=names).astype(str).astype("category"))
    return AnnData(
        sp.vstack(counts, format="csr"),
        obs=pd.concat(obs).astype(str).astype("category"),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]),
        obsm={"spatial": np.concatenate(positions)},
    )
