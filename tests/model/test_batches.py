"""Batches in one model: what is corrected, what is not, and cells of batches never seen."""

import warnings

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.graph.neighbors import nearest_neighbors
from tests.helpers import build, real_data

SETUP = {"batch_key": "batch"}


def simulate(sizes=(120, 100), types=3, effect=1.0, n_genes=150, seed=0, missing=(), first=0) -> ad.AnnData:
    """Types that express genes of their own, in batches that see each gene more or less well.

    `missing` names pairs of a batch and a type that it lacks; `first` is the number of the first batch.
    """
    rng = np.random.default_rng(seed)
    rates = np.random.default_rng(99).gamma(1.0, 1.0, size=n_genes)
    boost = np.ones((types, n_genes))
    for kind, genes in enumerate(np.array_split(np.arange(n_genes), types)):
        boost[kind, genes[: len(genes) // 2]] = 4
    parts, kinds = [], []
    for number, size in enumerate(sizes, first):
        there = [kind for kind in range(types) if (number, kind) not in missing]
        own = rng.choice(there, size)
        bias = np.random.default_rng(1000 + number).lognormal(0, effect, n_genes)
        depth = rng.lognormal(0, 0.3, size=(size, 1))
        parts.append(rng.poisson(rates * boost[own] * bias * depth))
        kinds.append(own)
    counts = np.concatenate(parts)
    counts[:, 0] = np.maximum(counts[:, 0], 1)
    batches = np.repeat([f"b{number}" for number in range(first, first + len(sizes))], sizes)
    obs = pd.DataFrame({"cell_type": np.concatenate(kinds).astype(str), "batch": batches})
    obs.index = [f"{batch}-{cell}" for cell, batch in enumerate(batches)]
    var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
    return ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


def agreement(adata: ad.AnnData, latent: np.ndarray, key: str = "cell_type") -> float:
    n_types = adata.obs["cell_type"].nunique()
    found = KMeans(n_types, n_init=10, random_state=0).fit_predict(latent)
    return adjusted_rand_score(adata.obs[key], found)


@pytest.fixture(scope="module")
def data():
    return simulate()


@pytest.fixture(scope="module")
def model(data):
    return build(data.copy(), epochs=30, setup=SETUP)


def test_types_are_found_across_batches(data, model):
    without = build(data.copy(), epochs=30)
    assert agreement(data, without.get_latent_representation(), "batch") > 0.3
    latent = model.get_latent_representation()
    assert agreement(data, latent) > 0.95
    assert abs(agreement(data, latent, "batch")) < 0.05


def test_without_an_effect_nothing_is_changed():
    data = simulate(effect=0.0)
    one, two = build(data.copy(), setup=SETUP), build(data.copy())
    np.testing.assert_array_equal(one.get_latent_representation(), two.get_latent_representation())
    assert one.get_batch_report().corrected == []


def test_other_types_are_no_effect():
    """The second batch has the first type only: it differs from the first, but nothing does what batches do."""
    data = simulate((200, 100), effect=0.0, missing=((1, 1), (1, 2)))
    one, two = build(data.copy(), setup=SETUP), build(data.copy())
    np.testing.assert_array_equal(one.get_latent_representation(), two.get_latent_representation())


def test_a_batch_of_one_type():
    data = simulate((200, 100), missing=((1, 1), (1, 2)))
    assert agreement(data, build(data.copy(), epochs=30, setup=SETUP).get_latent_representation()) > 0.9


@pytest.mark.slow
def test_one_of_many_batches_lies_apart():
    data = simulate((60,) * 8, effect=0.0)
    odd = (data.obs["batch"] == "b3").to_numpy()
    counts = data.X.toarray()
    counts[odd] = np.random.default_rng(1).poisson(
        counts[odd] * np.random.default_rng(0).lognormal(0, 1.5, data.n_vars)
    )
    counts[:, 0] += 1
    data.X = sp.csr_matrix(counts)
    report = build(data, epochs=20, setup=SETUP).get_batch_report(n_clusters=3)
    assert report.corrected == ["rna"]
    assert report.batches["separation"].idxmax() == "b3"


def test_a_new_batch_is_placed(model):
    query = simulate((80,), first=5, seed=5)
    latent = model.get_latent_representation(query)
    known = model.adata
    both = ad.AnnData(obs=pd.concat([known.obs, query.obs]))
    assert agreement(both, np.concatenate([model.get_latent_representation(), latent])) > 0.95


@pytest.mark.parametrize("sizes", [(120, 100), (220,)])
@pytest.mark.slow
def test_a_new_batch_with_an_effect_where_the_model_has_none(sizes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single batch, which is one case
        model = build(simulate(sizes, effect=0.0), epochs=30, setup=SETUP)
    other, same = simulate((80,), first=5, seed=5), simulate((80,), first=6, seed=6, effect=0.0)
    both = ad.AnnData(obs=pd.concat([model.adata.obs, other.obs, same.obs]))
    latent = [model.get_latent_representation(data) for data in (model.adata, other, same)]
    assert agreement(both, np.concatenate(latent)) > 0.95
    plain = same.copy()
    plain.obs["batch"] = "b0"
    np.testing.assert_array_equal(latent[2], model.get_latent_representation(plain))
    together = model.get_latent_representation(ad.concat([other, same]))
    np.testing.assert_allclose(together, np.concatenate(latent[1:]), atol=1e-5)
    mapped = scrcl.SCRCL.load_query_data(other.copy(), model)
    np.testing.assert_allclose(mapped.get_latent_representation(other[[7]].copy()), latent[1][[7]], atol=1e-5)
    assert mapped.get_batch_report(n_clusters=3).corrected == []


def test_a_new_batch_of_one_type_is_placed(model):
    query = simulate((60,), first=5, seed=5, effect=0.5, missing=((5, 1), (5, 2)))
    latent = model.get_latent_representation(query)
    both = ad.AnnData(obs=pd.concat([model.adata.obs, query.obs]))
    assert agreement(both, np.concatenate([model.get_latent_representation(), latent])) > 0.95


def test_a_cell_does_not_depend_on_companions_of_other_batches(model):
    query = simulate((60, 50), first=5, seed=5)
    every = model.get_latent_representation(query)
    own = (query.obs["batch"] == "b5").to_numpy()
    np.testing.assert_allclose(every[own], model.get_latent_representation(query[own].copy()), atol=1e-5)
    rows = np.array([7, 3, 70])
    np.testing.assert_allclose(every[rows], model.get_latent_representation(query, indices=rows), atol=1e-5)


def test_cells_of_known_batches_need_no_companions(model):
    query = simulate((40, 40), seed=8)
    every = model.get_latent_representation(query)
    for cell in (0, 50):
        alone = model.get_latent_representation(query[[cell]].copy())
        np.testing.assert_allclose(every[[cell]], alone, atol=1e-5)


def test_too_few_cells_of_a_new_batch(model):
    query = simulate((30, 4), first=5, seed=5)
    with pytest.raises(ValueError, match=r"batches of fewer than 10 cells: 'b6' \(4\)"):
        model.get_clusters(query, n_clusters=3)
    assert len(model.get_clusters(query, indices=np.arange(30), n_clusters=3)) == 30


@pytest.mark.parametrize("folder", [False, True])
def test_load_query_data_keeps_what_was_found_of_the_training_cells(folder, model, tmp_path):
    """Genes are placed by the counts of the training cells, which the new model does not have."""
    query = model.adata[::3].copy()
    query.obs["donor"] = "third"
    certainties = len(model._results._cache.certainties)
    expected = model.get_cell_gene_associations(genes=list(model.adata.var_names[:3]))
    if folder:
        model.save(tmp_path / "model")
    mapped = scrcl.SCRCL.load_query_data(query, tmp_path / "model" if folder else model)
    found = mapped.get_cell_gene_associations(model.adata, genes=list(model.adata.var_names[:3]))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(mapped._results._cache.certainties) == certainties
    assert len(mapped.get_marker_genes(groupby="cell_type")) > 0


def test_load_query_data_keeps_new_batches(model, tmp_path):
    query = simulate((60,), first=5, seed=5)
    expected = model.get_latent_representation(query)
    mapped = scrcl.SCRCL.load_query_data(query.copy(), model)
    np.testing.assert_allclose(mapped.get_latent_representation(), expected, atol=1e-5)
    alone = query[[11]].copy()
    np.testing.assert_allclose(mapped.get_latent_representation(alone), expected[[11]], atol=1e-5)
    with pytest.raises(ValueError, match="fewer than 10 cells"):  # the model itself has learnt nothing
        model.get_latent_representation(alone)
    mapped.save(tmp_path / "model")
    loaded = scrcl.SCRCL.load(tmp_path / "model", adata=query.copy())
    np.testing.assert_allclose(loaded.get_latent_representation(alone), expected[[11]], atol=1e-5)
    again = scrcl.SCRCL.load_query_data(query.copy(), tmp_path / "model")
    np.testing.assert_allclose(again.get_latent_representation(), expected, atol=1e-5)


def test_where_a_model_is_put_that_is_loaded_for_a_query(model, tmp_path, monkeypatch):
    model.save(tmp_path / "model")
    query = simulate((60,), first=5, seed=5)
    asked, load = [], scrcl.SCRCL.load

    def recorded(path, **options):
        asked.append((options.get("accelerator"), options.get("device")))
        return load(path, **options)

    monkeypatch.setattr(scrcl.SCRCL, "load", recorded)
    mapped = scrcl.SCRCL.load_query_data(query.copy(), tmp_path / "model", accelerator="cpu", device=1)
    assert asked == [("cpu", 1)]
    assert mapped.device.type == "cpu"
    np.testing.assert_allclose(mapped.get_latent_representation(), model.get_latent_representation(query), atol=1e-5)
    with pytest.raises(ValueError, match="(?i)accelerator"):
        scrcl.SCRCL.load_query_data(query.copy(), tmp_path / "model", accelerator="abacus")


def test_cells_of_the_model_are_found_again(data, model):
    assert (model._query(data[::-1].copy(), None).reference_index == np.arange(220)[::-1]).all()


def test_save_and_load(data, model, tmp_path):
    model.save(tmp_path / "model")
    loaded = scrcl.SCRCL.load(tmp_path / "model", adata=data.copy())
    np.testing.assert_allclose(loaded.get_latent_representation(), model.get_latent_representation(), atol=1e-5)
    report, expected = loaded.get_batch_report(n_clusters=3), model.get_batch_report(n_clusters=3)
    pd.testing.assert_frame_equal(report.batches, expected.batches)
    new = simulate((40,), first=7, seed=7)
    scrcl.SCRCL.load(tmp_path / "model", adata=new)  # batches that it has not seen


@pytest.mark.slow
def test_a_type_of_one_batch_stays_apart():
    for kind in range(3):
        data = simulate(missing=((1, kind),))
        model = build(data.copy(), epochs=30, setup=SETUP)
        assert agreement(data, model.get_latent_representation()) > 0.9
        clusters = model.get_batch_report(n_clusters=3).clusters
        assert (clusters["only_in"] == "b0").sum() == 1


def test_the_report(model, data):
    report = model.get_batch_report(n_clusters=3)
    assert report.corrected == ["rna"]
    assert report.batches["cells"].to_dict() == data.obs["batch"].value_counts().to_dict()
    assert (report.batches["before"] < 0.5).all()
    assert (report.batches["after"] > report.batches["before"] + 0.3).all()
    assert report.batches["mutual_neighbors"].between(0.8, 1).all()
    clusters = model.get_clusters(n_clusters=3)
    assert report.clusters["cells"].tolist() == clusters.value_counts(sort=False).tolist()
    share = (clusters[(data.obs["batch"] == "b1").to_numpy()] == "1").mean()
    assert report.clusters.loc["1", "b1"] == pytest.approx(share)
    assert report.clusters["only_in"].isna().all()


def test_backed_data_give_the_same(data, tmp_path):
    data.write_h5ad(tmp_path / "data.h5ad")
    backed = build(ad.read_h5ad(tmp_path / "data.h5ad", backed="r"), setup=SETUP)
    np.testing.assert_allclose(
        backed.get_latent_representation(), build(data.copy(), setup=SETUP).get_latent_representation(), atol=1e-5
    )


@pytest.mark.slow
def test_training_in_batches_mixes_batches():
    data = simulate((300, 250))
    scrcl.SCRCL.setup_anndata(data, batch_key="batch")
    model = scrcl.SCRCL(data, n_hidden=16, n_refined=8, n_components=10)
    model.train(20, batch_size=128, accelerator="cpu", enable_progress_bar=False)
    assert agreement(data, model.get_latent_representation()) > 0.9


def test_an_embedding_is_corrected():
    data = simulate(effect=0.0)
    rng = np.random.default_rng(0)
    types = data.obs["cell_type"].astype(int).to_numpy()
    shift = 6.0 * (data.obs["batch"] == "b1").to_numpy()[:, None] * rng.normal(size=8)
    data.obsm["X"] = (rng.normal(size=(3, 8))[types] * 3 + rng.normal(size=(len(types), 8)) + shift).astype(np.float32)
    model = build(data, epochs=30, setup={"features_key": "X", **SETUP})
    assert agreement(data, model.get_latent_representation()) > 0.9


@pytest.mark.slow
def test_in_space():
    tissue = scrcl.datasets.layered_tissue(n_cells=240, n_slices=2, n_genes=60)
    bias = np.random.default_rng(0).lognormal(0, 1, tissue.n_vars)
    second = (tissue.obs["slice"] == tissue.obs["slice"].unique()[1]).to_numpy()
    counts = tissue.X.toarray() if sp.issparse(tissue.X) else np.asarray(tissue.X)
    counts[second] = np.random.default_rng(1).poisson(counts[second] * bias)
    counts[:, 0] += 1
    tissue.X = sp.csr_matrix(counts.astype(np.float32))
    setup = {"spatial_key": "spatial", "sample_key": "slice", "batch_key": "slice"}
    model = build(tissue, epochs=20, setup=setup)
    latent = model.get_latent_representation()
    edges = model.adata.obsp["scrcl_connectivities"].tocoo()
    assert (second[edges.row] == second[edges.col]).all()
    assert model.get_batch_report(n_clusters=3).corrected == ["rna"]
    assert abs(adjusted_rand_score(second, KMeans(2, n_init=10, random_state=0).fit_predict(latent))) < 0.1
    joined = build(tissue.copy(), setup=setup, spatial_mode="join")
    edges = joined.adata.obsp["scrcl_connectivities"].tocoo()
    assert (second[edges.row] != second[edges.col]).any()
    np.testing.assert_allclose(model.get_latent_representation(tissue.copy()), latent, atol=1e-4)


@pytest.mark.slow
def test_slices_of_several_subjects():
    """Edges stay within slices, and what is corrected is what tells subjects apart."""
    tissue = scrcl.datasets.layered_tissue(n_cells=160, n_slices=4, n_genes=60)
    slices = tissue.obs["slice"].to_numpy(str)
    second = np.isin(slices, np.unique(slices)[2:])
    tissue.obs["subject"] = np.where(second, "s2", "s1")
    counts = tissue.X.toarray() if sp.issparse(tissue.X) else np.asarray(tissue.X)
    bias = np.random.default_rng(0).lognormal(0, 1, tissue.n_vars)
    counts[second] = np.random.default_rng(1).poisson(counts[second] * bias)
    counts[:, 0] += 1
    tissue.X = sp.csr_matrix(counts.astype(np.float32))
    setup = {"spatial_key": "spatial", "sample_key": "slice", "batch_key": "subject"}
    model = build(tissue, epochs=20, setup=setup)
    edges = model.adata.obsp["scrcl_connectivities"].tocoo()
    assert (slices[edges.row] == slices[edges.col]).all()
    report = model.get_batch_report(n_clusters=3)
    assert report.batches.index.tolist() == ["s1", "s2"]
    assert report.corrected == ["rna"]
    found = KMeans(2, n_init=10, random_state=0).fit_predict(model.get_latent_representation())
    assert abs(adjusted_rand_score(second, found)) < 0.1
    one = tissue[slices == np.unique(slices)[3]].copy()
    rows = slices == np.unique(slices)[3]
    np.testing.assert_allclose(model.get_latent_representation(one), model.get_latent_representation()[rows], atol=1e-4)


@pytest.mark.slow
def test_modalities_are_corrected_one_by_one():
    rna, other = simulate(), simulate(effect=0.0, n_genes=20, seed=3)
    other.obs["cell_type"] = rna.obs["cell_type"]
    types = rna.obs["cell_type"].astype(int).to_numpy()
    boost = np.ones((3, 20))
    for kind in range(3):
        boost[kind, kind * 6 : kind * 6 + 6] = 5
    counts = np.random.default_rng(4).poisson(5 * boost[types]).astype(np.float32)
    proteins = ad.AnnData(counts, obs=rna.obs[[]].copy(), var=pd.DataFrame(index=[f"p{i}" for i in range(20)]))
    data = mudata.MuData({"rna": rna.copy(), "prot": proteins})
    data.obs["batch"] = rna.obs["batch"]
    scrcl.SCRCL.setup_mudata(data, {"rna": "rna", "prot": "protein"}, batch_key="batch")
    model = scrcl.SCRCL(data, n_hidden=16, n_refined=8, n_components=10)
    model.train(20, accelerator="cpu", enable_progress_bar=False)
    assert agreement(rna, model.get_latent_representation()) > 0.9
    assert model.get_batch_report(n_clusters=3).corrected == ["rna"]
    mosaic = mudata.MuData({"rna": rna.copy(), "prot": proteins[:150].copy()})
    mosaic.obs["batch"] = "a"
    with pytest.raises(ValueError, match="lack the modality 'prot'"):
        scrcl.SCRCL.setup_mudata(mosaic, {"rna": "rna", "prot": "protein"}, batch_key="batch")


def test_bad_batches(data, model):
    with pytest.raises(KeyError, match="batch_key='donor' is not in adata.obs"):
        scrcl.SCRCL.setup_anndata(data.copy(), batch_key="donor")
    with pytest.raises(KeyError, match="batch_key='plate' is not in adata.obs"):
        scrcl.SCRCL.setup_anndata(data.copy(), batch_key=["batch", "plate"])
    lacking = data.copy()
    lacking.obs["batch"] = lacking.obs["batch"].astype(object)
    lacking.obs.iloc[3, lacking.obs.columns.get_loc("batch")] = None
    with pytest.raises(ValueError, match="missing for 1 of 220 cells"):
        scrcl.SCRCL.setup_anndata(lacking, batch_key="batch")
    small = data.copy()
    small.obs["batch"] = ["x"] * 4 + small.obs["batch"].astype(str).tolist()[4:]
    with pytest.raises(ValueError, match=r"fewer than 10 cells: 'x' \(4\)"):
        scrcl.SCRCL.setup_anndata(small, batch_key="batch")
    one = data[data.obs["batch"] == "b0"].copy()
    with pytest.warns(UserWarning, match="the same batch 'b0' for all cells"):
        scrcl.SCRCL.setup_anndata(one, batch_key="batch")
    with pytest.raises(KeyError, match="batch_key='batch' is not in adata.obs"):
        model.get_latent_representation(ad.AnnData(data.X, obs=data.obs[["cell_type"]], var=data.var))
    with pytest.raises(ValueError, match="has no batches"):
        build(one.copy()).get_batch_report()
    with pytest.raises(ValueError, match="has no batches"):
        scrcl.SCRCL.load_query_data(data.copy(), build(one.copy()))


@pytest.mark.slow
def test_replicates_of_one_run_are_not_corrected():
    adata = ad.read_h5ad(real_data("cellhash_4lines.h5ad"))
    one = build(adata.copy(), epochs=2, setup=SETUP, n_components=50)
    assert one.get_batch_report(n_clusters=4).corrected == []
    two = build(adata, epochs=2, n_components=50)
    np.testing.assert_array_equal(one.get_latent_representation(), two.get_latent_representation())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("cellbench_3cl_2batches", 0.9), ("cellbench_3cl_3tech", 0.95)])
def test_real_technologies(name, least):
    adata = ad.read_h5ad(real_data(f"{name}.h5ad"))
    model = build(adata, epochs=50, setup=SETUP, n_hidden=128, n_components=50)
    assert agreement(adata, model.get_latent_representation()) > least


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["H1975", "H2228"])
def test_a_real_type_of_one_technology_is_not_merged(kind):
    adata = ad.read_h5ad(real_data("cellbench_3cl_2batches.h5ad"))
    adata = adata[(adata.obs["cell_type"] != kind) | (adata.obs["batch"] != "sc_celseq2")].copy()
    latent = build(
        adata, epochs=50, setup=SETUP, n_hidden=128, n_refined=32, n_components=50
    ).get_latent_representation()
    own = (adata.obs["cell_type"] == kind).to_numpy()
    near = nearest_neighbors(latent, 15).indices
    assert own[near][own].mean() > 0.85
    assert agreement(adata, latent) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "out_of"), [("alpha", ["human1"]), ("beta", ["mouse1", "mouse2"])])
def test_a_real_type_of_one_species_is_not_merged(kind, out_of):
    adata = ad.read_h5ad(real_data("baron_human_mouse.h5ad"))
    adata = adata[(adata.obs["cell_type"] != kind) | ~adata.obs["batch"].isin(out_of)].copy()
    model = build(adata, epochs=30, setup=SETUP, n_hidden=64, n_refined=32, n_components=50)
    own = (adata.obs["cell_type"] == kind).to_numpy()
    near = nearest_neighbors(model.get_latent_representation(), 15).indices
    assert own[near][own].mean() > 0.8


@pytest.mark.slow
def test_donors_of_blood_are_hardly_apart():
    """Eight donors in one pool: what tells them apart is weak, and is left as it is."""
    adata = ad.read_h5ad(real_data("kang_ifnb.h5ad"))
    donors = adata.obs["donor_ctrl"].astype(str).to_numpy()
    adata = adata[(adata.obs["batch"] == "ctrl").to_numpy() & ~np.isin(donors, ["NA", "nan"])].copy()
    adata.obs["donor"] = adata.obs["donor_ctrl"].astype(str)
    report = build(adata, epochs=2, setup={"batch_key": "donor"}, n_components=50).get_batch_report(n_clusters=5)
    assert report.corrected == []
    assert (report.batches["separation"] < 1.05).all()
