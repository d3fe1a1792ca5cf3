"""Known markers are found in real data with default settings, and the table of known markers is sound."""

from pathlib import Path

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

import scrcl

from .helpers import default_model, real_data

TABLE = Path(__file__).parents[1] / "benchmarks" / "known_markers.csv"


@pytest.fixture(scope="module")
def known() -> pd.DataFrame:
    if not TABLE.is_file():
        pytest.skip("the table of known markers is in the repository and not in the source distribution")
    return pd.read_csv(TABLE, keep_default_na=False)


def test_table_of_known_markers(known):
    assert list(known.columns) == ["organism", "tissue", "cell_type", "labels", "gene", "source"]
    assert (known[["organism", "tissue", "cell_type", "gene", "source"]] != "").all(axis=None)
    assert not known.duplicated(["organism", "cell_type", "gene"]).any()


def found(name: str, known: pd.DataFrame) -> tuple[pd.DataFrame, scrcl.SCRCL, ad.AnnData]:
    """Whether a known marker is in the top 10 of a type, and of the cluster that holds most of it, for each type."""
    model = default_model(name)
    adata = model.adata.copy()
    truth = adata.obs["cell_type"].astype(str)
    adata.obs["found"] = model.get_clusters()
    top = {}
    for groupby in ("found", "cell_type"):
        markers = model.get_marker_genes(adata, groupby, n_top=10, n_permutations=0)
        top[groupby] = markers.groupby("group", observed=True)["gene"].agg(set)
    sizes = truth.value_counts()
    hits = {}
    for kind in sizes.index[sizes >= 10]:
        genes = set(known.loc[[kind in labels.split(";") for labels in known["labels"]], "gene"])
        if genes:
            cluster = adata.obs.loc[truth == kind, "found"].value_counts().index[0]
            hits[kind] = {"type": bool(top["cell_type"][kind] & genes), "cluster": bool(top["found"][cluster] & genes)}
    return pd.DataFrame(hits).T, model, adata


@pytest.mark.slow
def test_known_markers_are_in_the_top_ten(known):
    results = {name: found(name, known) for name in ("baron_mouse", "zheng_pbmc500")}
    hits = pd.concat([hits for hits, _, _ in results.values()])
    assert len(hits) == 13
    assert hits["type"].mean() >= 0.9
    # Rare types that share a cluster share its markers.
    assert hits["cluster"].mean() >= 0.74
    # and the p-values of permuted cells are uniform on real data, too
    _, model, adata = results["zheng_pbmc500"]
    adata.layers["permuted"] = adata.X[np.random.default_rng(1).permutation(adata.n_obs)]
    table = model.get_marker_genes(adata, "found", layer="permuted", n_permutations=200)
    n_cells = pd.Series(np.asarray((adata.X > 0).sum(0)).ravel(), adata.var_names)
    expressed = table["gene"].map(n_cells)
    for _, part in table[expressed >= 50].groupby("group", observed=True):
        # genes of permuted cells go together, so that the share is not as sure as that of independent ones
        assert 0.01 < (part["pvalue"] < 0.05).mean() < 0.12
        assert kstest(part["pvalue"], "uniform").statistic < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cite_pbmc_inhouse.h5mu", "kang_ifnb.h5ad", "baron_human1.h5ad"])
def test_published_types_get_their_names(name):
    """T cells whose markers are not kept, CD8 T cells beside NK cells, gamma cells, and macrophages beside mast cells."""
    path = real_data(name)
    adata = ad.read_h5ad(path) if path.suffix == ".h5ad" else mudata.read_h5mu(path).mod["rna"]
    adata = ad.AnnData(adata.X, obs=adata.obs[["cell_type"]], var=adata.var[[]])
    scrcl.SCRCL.setup_anndata(adata)
    model = scrcl.SCRCL(adata)
    model.train(1, enable_progress_bar=False)
    found = model.get_cluster_names(LISTS["pancreas" if "baron" in name else "blood"], groupby="cell_type")
    expected = {label: right for label, right in NAMES.items() if label in found.index}
    assert found.loc[list(expected), "name"].to_dict() == expected
    assert not {"CD3D", "CD3E", "CD2"} <= set(model._reference.genes)


LISTS = {
    "blood": {
        "B cell": ["MS4A1", "CD79A", "CD79B"],
        "T cell": ["CD3D", "CD3E", "CD2", "TRAC", "IL7R"],
        "NK cell": ["NKG7", "GNLY", "KLRD1"],
        "monocyte": ["LYZ", "CD14", "FCGR3A", "S100A8"],
    },
    "pancreas": {
        "alpha": ["GCG", "TTR", "IRX2", "ARX"],
        "beta": ["INS", "IAPP", "MAFA", "DLK1"],
        "gamma": ["PPY", "AQP3", "MEIS2", "ETV1"],
        "macrophage": ["CD68", "C1QA", "C1QB", "C1QC", "CSF1R"],
        "mast": ["TPSAB1", "TPSB2", "CPA3", "KIT", "MS4A2"],
        "quiescent stellate": ["RGS5", "PDGFRB", "NOTCH3", "CSPG4"],
        "activated stellate": ["PDGFRA", "COL1A1", "COL3A1", "DCN"],
    },
}
#: The right name of published types; those of which the lists have no markers are "none of these".
NAMES = {
    **dict.fromkeys(["CD4+ T cells", "CD8+ T cells", "CD4 Naive T", "CD4 Memory T", "CD8 T"], "T cell"),
    **dict.fromkeys(["NK cells", "NK"], "NK cell"),
    **dict.fromkeys(["B cells", "B"], "B cell"),
    **dict.fromkeys(["CD14+ monocytes", "CD14 Mono"], "monocyte"),
    **{name: name for name in ("alpha", "beta", "gamma", "macrophage", "mast")},
    "quiescent_stellate": "quiescent stellate",
    "activated_stellate": "activated stellate",
    **dict.fromkeys(["acinar", "ductal", "delta"], "none of these"),
}
