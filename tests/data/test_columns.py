import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scrcl.data.columns import read_batches, read_column, read_labels


@pytest.fixture
def adata() -> ad.AnnData:
    table = pd.DataFrame(
        {"batch": [1, 1.0, 2], "type": ["a", "Unknown", None], "gap": ["a", None, "b"]}, index=list("xyz")
    )
    return ad.AnnData(np.ones((3, 2), dtype=np.float32), obs=table)


def test_batches_by_name(adata):
    assert read_batches(adata, "batch").tolist() == ["1", "1", "2"]
    with pytest.raises(ValueError, match=r"adata.obs\['gap'\] is missing for 1 of 3 cells"):
        read_batches(adata, "gap")


def test_labels_that_are_missing(adata):
    assert read_labels(adata, "type", "Unknown").tolist() == ["a", None, None]
    assert read_labels(adata, "type", None).tolist() == ["a", "Unknown", None]


def test_columns_that_are_not_there(adata):
    with pytest.raises(KeyError, match="groupby='typ' is not in adata.obs.*Did you mean 'type'"):
        read_column(adata, "typ", "groupby")
    adata.obs = pd.concat([adata.obs, adata.obs[["type"]]], axis=1)
    with pytest.raises(ValueError, match="is the name of 2 columns"):
        read_column(adata, "type", "groupby")
