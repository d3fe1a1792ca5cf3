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


def test_modalities_without_the_column():
    mdata = MuData({"rna": data(symbol=list("ABCD")), "prot": data()})
    names = {"rna": mdata["rna"].var_names, "prot": mdata["prot"].var_names}
    labels = gene_labels(mdata, names, "symbol")
    assert list(labels["rna"]) == list("ABCD")
    assert list(labels["prot"]) == list(mdata["prot"].var_names)
    with pytest.raises(KeyError, match="gene_symbols='x' is not in mdata.var"):
        gene_labels(mdata, names, "x")
