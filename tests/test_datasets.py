import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp

import scrcl


def test_pbmc700_are_counts_that_give_the_shipped_values():
    """Normalising the recovered counts gives back what scanpy ships, up to the scale of each cell."""
    adata = scrcl.datasets.pbmc700()
    assert adata.shape == (700, 765)
    assert sp.issparse(adata.X)
    counts = adata.X.toarray()
    np.testing.assert_array_equal(counts, np.round(counts))
    assert (np.where(counts > 0, counts, np.inf).min(1) == 1).all()
    shipped = np.expm1(sc.datasets.pbmc68k_reduced().raw.X.toarray().astype(float))
    np.testing.assert_array_equal(shipped > 0, counts > 0)
    scale = (shipped * counts).sum(1, keepdims=True) / (counts**2).sum(1, keepdims=True)
    np.testing.assert_allclose(counts * scale, shipped, rtol=0.01)
    # No cell can have more counts of these genes than it has of all.
    assert (counts.sum(1) <= sc.datasets.pbmc68k_reduced().obs["n_counts"]).all()
    assert adata.obs["bulk_labels"].nunique() == 10


def test_layered_tissue():
    adata = scrcl.datasets.layered_tissue(n_cells=600, n_slices=2)
    assert adata.shape == (1200, 100)
    assert (adata.X.sum(1) > 0).all()
    np.testing.assert_array_equal(adata.X.data, np.round(adata.X.data))
    assert adata.obs["domain"].nunique() == 5
    assert (adata.obs["slice"].value_counts() == 600).all()
    # Each layer has several types, so that a cell's own expression does not tell where it is.
    table = pd.crosstab(adata.obs["domain"], adata.obs["cell_type"])
    assert ((table > 0).sum(axis=1) > 3).all()
    same = scrcl.datasets.layered_tissue(n_cells=600, n_slices=2)
    np.testing.assert_array_equal(same.X.toarray(), adata.X.toarray())
    assert not np.array_equal(adata.obsm["spatial"][:600], adata.obsm["spatial"][600:])
