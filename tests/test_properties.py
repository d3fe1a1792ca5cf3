"""Whatever the shape, sparsity and degeneracy of the counts: a result that makes sense, or a clear error."""

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import scrcl
from scrcl.cluster.kmeans import kmeans
from scrcl.cluster.leiden import leiden
from scrcl.graph.adjacency import normalized_adjacency, symmetric_adjacency
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.utils.checks import as_counts

from .helpers import build

pytestmark = pytest.mark.slow

few = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def count_matrices(draw):
    """Counts of few cells and genes, often sparse, with repeated cells, constant genes and outliers."""
    n_cells, n_genes = draw(st.integers(2, 40)), draw(st.integers(2, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = rng.poisson(draw(st.sampled_from([0.02, 0.3, 3.0])), size=(n_cells, n_genes))
    if draw(st.booleans()):
        counts[: n_cells // 2] = counts[0]  # duplicate cells
    if draw(st.booleans()):
        counts[:, : n_genes // 2] = 1  # genes that do not vary
    if draw(st.booleans()):
        counts[0, 0] = 10_000_000
    return counts.astype(np.float32)


@few
@given(counts=count_matrices(), n_neighbors=st.integers(1, 10), sparse=st.booleans())
def test_any_counts(counts, n_neighbors, sparse):
    adata = ad.AnnData(sp.csr_matrix(counts) if sparse else counts)
    try:
        model = build(adata, epochs=2, n_neighbors=n_neighbors, n_components=5)
    except ValueError as error:
        if any(clue in str(error) for clue in ("have no counts", "no variable genes", "require at least")):
            return
        raise
    latent = model.get_latent_representation()
    assert latent.shape == (len(counts), 32 + model._reference.neighbor_features.shape[1])
    assert np.isfinite(latent).all()
    n_clusters = min(3, len(counts))
    clusters = model.get_clusters(n_clusters=n_clusters)
    assert 1 <= len(clusters.cat.categories) <= n_clusters  # cells that do not differ are not divided
    assert not clusters.isna().any()
    np.testing.assert_array_equal(model.get_clusters(adata.copy(), n_clusters=n_clusters).isna(), False)
    assert np.isfinite(model.history["train_loss"].to_numpy(dtype=float)).all()


@few
@given(counts=count_matrices())
def test_form_of_counts_does_not_matter(counts):
    expected = as_counts(sp.csr_matrix(counts), "counts")
    unsorted = sp.csr_matrix(counts)
    for row in range(unsorted.shape[0]):
        place = slice(*unsorted.indptr[row : row + 2])
        unsorted.indices[place] = unsorted.indices[place][::-1].copy()
        unsorted.data[place] = unsorted.data[place][::-1].copy()
    unsorted.has_sorted_indices = False
    forms = [counts, counts.astype(np.int64), np.asfortranarray(counts.astype(np.float64)), sp.csc_matrix(counts)]
    for form in (*forms, sp.coo_array(counts), unsorted):
        found = as_counts(form, "counts")
        np.testing.assert_array_equal(found.indptr, expected.indptr)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.data, expected.data)


@few
@given(
    values=hnp.arrays(np.float64, (4, 3), elements=st.floats(allow_nan=True, allow_infinity=True, width=64)),
)
def test_counts_are_accepted_if_and_only_if_they_are_counts(values):
    is_counts = (
        np.isfinite(values).all()
        and (values >= 0).all()
        and (values == np.round(values)).all()
        and (values <= 2**31).all()
    )
    if is_counts:
        as_counts(values, "counts")
    else:
        with pytest.raises(ValueError, match="^counts holds"):
            as_counts(values, "counts")


@few
@given(
    points=hnp.arrays(
        np.float32, st.tuples(st.integers(3, 30), st.integers(1, 4)), elements=st.floats(-5, 5, width=32)
    ),
    data=st.data(),
)
def test_graphs_and_clusters_of_any_points(points, data):
    k = data.draw(st.integers(1, len(points) - 1))
    graph = symmetric_adjacency(nearest_neighbors(points, k).to_sparse())
    assert (graph != graph.T).nnz == 0
    assert (graph.sum(axis=1) >= k).all()
    assert np.abs(np.linalg.eigvalsh(normalized_adjacency(graph).toarray().astype(float))).max() <= 1 + 1e-5
    for clustering in (kmeans(points, 2, 0), leiden(points, 0.5, 0)):
        assert set(clustering.labels) <= set(range(clustering.n_clusters))
        assert ((clustering.assign(points) >= 0) & (clustering.assign(points) < clustering.n_clusters)).all()


@few
@given(n_cells=st.integers(1, 3))
def test_too_few_cells(n_cells):
    adata = ad.AnnData(np.random.default_rng(0).poisson(3, size=(n_cells, 20)).astype(np.float32) + 1)
    scrcl.SCRCL.setup_anndata(adata)
    with pytest.raises(ValueError, match=r"15 neighbours of each require at least 16"):
        scrcl.SCRCL(adata)
