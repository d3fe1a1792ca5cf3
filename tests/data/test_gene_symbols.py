import anndata as ad
import numpy as np
import pandas as pd
import pytest
from mudata import MuData

from scrcl.data.gene_symbols import gene_labels


def data(**columns) -> ad.AnnData:
    names = [f"ENSG{i}" for i in range(4)]
    return ad.AnnData(np.ones((3, 4), dtype=np.float32), var=pd.DataFrame(columns, index=names))


def test_missing_and_repeated_symbols_keep_their_own_names():
    adata = data(symbol=["A", None, "A", "ENSG0"])
    labels = gene_labels(adata, {"rna": adata.var_names}, "symbol")["rna"]
    assert list(labels) == ["A", "ENSG1", "ENSG2", "ENSG3"]
    assert gene_labels(adata, {"rna": adata.var_names}, None)["rna"] is adata.var_names


@pytest.mark.parametrize("values", [[True, False, False, False], [0.1, 0.2, 0.3, 0.4]])
def test_columns_that_hold_no_names(values):
    adata = data(other=values)
    with pytest.raises(ValueError, match="gene_symbols='other' holds no names of genes"):
        gene_labels(adata, {"rna": adata.var_names}, "other")


def test_a_column_of_few_values():
    adata = ad.AnnData(np.ones((2, 30), dtype=np.float32))
    adata.var["chromosome"] = ["1", "2"] * 15
    with pytest.raises(ValueError, match="2 different values for 30 genes"):
        gene_labels(adata, {"rna": adata.var_names}, "chromosome")


def test_modalities_without_the_column():
    mdata = MuData({"rna": data(symbol=list("ABCD")), "prot": data()})
    names = {"rna": mdata["rna"].var_names, "prot": mdata["prot"].var_names}
    labels = gene_labels(mdata, names, "symbol")
    assert list(labels["rna"]) == list("ABCD")
    assert list(labels["prot"]) == list(mdata["prot"].var_names)
    with pytest.raises(KeyError, match="gene_symbols='x' is not in mdata.var"):
        gene_labels(mdata, names, "x")
