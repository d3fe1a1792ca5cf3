import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scrcl.data.fingerprint import fingerprint
from scrcl.data.sources import anndata_sources

from ..helpers import simulate


def of(adata, features_key=None, others=()):
    return fingerprint(adata.obs_names, anndata_sources(adata, None, features_key), others)


CHANGES = {
    "a count": lambda a: a.X.data.__setitem__(5, 99),
    "the counts": lambda a: setattr(a, "X", a.X * 2),
    "where counts are": lambda a: a.X.indices.__setitem__(slice(0, 2), a.X.indices[[1, 0]]),
    "dense": lambda a: setattr(a, "X", a.X.toarray()),
    "a cell": lambda a: setattr(a, "obs_names", ["other", *a.obs_names[1:]]),
    "a gene": lambda a: setattr(a, "var_names", ["other", *a.var_names[1:]]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_read_changes_it(change):
    adata = simulate(30)
    before = of(adata)
    assert before == of(adata.copy())
    CHANGES[change](adata)
    assert of(adata) != before


def test_what_is_not_read_does_not_change_it():
    adata = simulate(30)
    adata.obsm["X_own"] = np.ones((30, 3))
    before, embedded = of(adata), of(adata, "X_own")
    adata.obs["further"] = 1
    adata.layers["umi"] = adata.X
    assert of(adata) == before
    adata.X = adata.X * 2
    assert of(adata, "X_own") == embedded  # counts beside an embedding
    adata.obsm["X_own"][3, 1] = 2
    assert of(adata, "X_own") != embedded


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array(["a", "b"]), np.array(["a", "c"])),
        (np.array(["a", None], dtype=object), np.array(["b", None], dtype=object)),
        (sp.csr_array(np.eye(2)), sp.csr_array(np.ones((2, 2)))),
        (np.zeros((4, 1)), np.zeros((2, 2))),
        (None, np.zeros(0)),
    ],
)
def test_further_arrays_change_it(one, other):
    adata = simulate(10)
    assert of(adata, None, [one]) != of(adata, None, [other])


def test_files_go_by_their_time_and_writable_ones_are_not_trusted(tmp_path):
    simulate(30).write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    first = of(backed)
    assert first is not None
    assert first == of(backed)
    backed.file.close()
    simulate(30, seed=2).write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert of(backed) not in (None, first)
    backed.file.close()
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r+")
    assert of(backed) is None
    backed.file.close()


def test_names_of_any_kind():
    sources = anndata_sources(simulate(3), None, None)
    kinds = [pd.Index(["a", "b", "c"]), pd.Index([1, 2, 3]), pd.Index(["a", "b", "c"], dtype="string")]
    found = [fingerprint(names, sources, ()) for names in kinds]  # type: ignore[arg-type]
    assert found[0] == found[2] != found[1]
