"""Conditions that are kept while batches are corrected, and batches of several columns."""

import anndata as ad
import mudata
import numpy as np
import pytest
import scipy.sparse as sp

import scrcl
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.utils.errors import ScrclValueError
from tests.helpers import build

from .test_batches import SETUP, simulate


def treat(data: ad.AnnData, shares: tuple[float, ...], strength: float = 3.0, seed: int = 5) -> ad.AnnData:
    """A share of the cells of each batch treated: they express a third of the genes several times as much, in all types."""
    rng = np.random.default_rng(seed)
    batches = np.unique(data.obs["batch"], return_inverse=True)[1]
    treated = rng.random(data.n_obs) < np.array(shares)[batches]
    counts = data.X.toarray()
    genes = np.random.default_rng(7).permutation(data.n_vars)[: data.n_vars // 3]
    counts[np.ix_(treated, genes)] = rng.poisson(counts[np.ix_(treated, genes)] * strength)
    counts[:, 0] = np.maximum(counts[:, 0], 1)
    obs = data.obs.assign(state=np.where(treated, "treated", "control"))
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=data.var)


def mixing_within_types(data: ad.AnnData, latent: np.ndarray, key: str) -> float:
    """Share of the 15 nearest cells of the same type that are of another batch or condition, relative to chance."""
    mixed = []
    for kind in data.obs["cell_type"].unique():
        rows = (data.obs["cell_type"] == kind).to_numpy()
        own = data.obs[key].to_numpy()[rows]
        near = own[nearest_neighbors(latent[rows], 15).indices]
        chance = np.mean([(own != name).mean() for name in own])
        mixed.append((near != own[:, None]).mean() / chance)
    return float(np.mean(mixed))


#: A treatment that most cells of some batches had: it is kept, and the batches are corrected.
PROTECTED = {"batch_key": "batch", "condition_key": "state"}
SHARES = (0.15, 0.5, 0.85)


@pytest.fixture(scope="module")
def treated():
    return treat(simulate((150, 150, 150)), SHARES)


@pytest.fixture(scope="module")
def model(treated):
    return build(treated.copy(), epochs=30, setup=PROTECTED)


def test_it_is_kept_while_batches_are_mixed(treated, model):
    latent = model.get_latent_representation()
    assert mixing_within_types(treated, latent, "batch") > 0.6
    assert mixing_within_types(treated, latent, "state") < 0.05
    report = model.get_batch_report(n_clusters=3)
    assert report.corrected == ["rna"]
    assert list(report.conditions.index) == ["control", "treated"]
    assert report.conditions["cells"].sum() == 450
    assert (report.conditions["after"] < 0.1).all()


def test_without_an_effect_it_is_not_made_up():
    data = treat(simulate((150, 150, 150)), SHARES, strength=1.0)
    data.X = simulate((150, 150, 150)).X
    latent = build(data.copy(), epochs=30, setup=PROTECTED).get_latent_representation()
    assert mixing_within_types(data, latent, "batch") > 0.8
    assert mixing_within_types(data, latent, "state") > 0.8


def test_several_columns_of_batches_that_contain_it_remove_it(treated):
    latent = build(treated.copy(), epochs=30, setup={"batch_key": ["batch", "state"]}).get_latent_representation()
    assert mixing_within_types(treated, latent, "state") > 0.7


def test_new_batches(treated, model, tmp_path):
    query = treat(simulate((120,), first=5, seed=3), (0.5,))
    latent = model.get_latent_representation(query)
    both = ad.concat([treated, query])
    together = np.concatenate([model.get_latent_representation(), latent])
    assert mixing_within_types(both, together, "state") < 0.1
    own = query.obs["state"].to_numpy()
    nearest = nearest_neighbors(model.get_latent_representation(), 1, latent).indices[:, 0]
    assert (treated.obs["state"].to_numpy()[nearest] == own).mean() > 0.9
    assert (treated.obs["cell_type"].to_numpy()[nearest] == query.obs["cell_type"].to_numpy()).mean() > 0.9
    model.save(tmp_path / "model")
    again = scrcl.SCRCL.load(tmp_path / "model", adata=query.copy())
    np.testing.assert_allclose(again.get_latent_representation(), latent, atol=1e-5)
    mapped = scrcl.SCRCL.load_query_data(query, tmp_path / "model")
    np.testing.assert_allclose(mapped.get_latent_representation(), latent, atol=1e-5)
    unseen = query.copy()
    unseen.obs["state"] = "recovered"
    with pytest.raises(ScrclValueError, match="new batch 'b5' has only cells of the condition 'recovered'"):
        model.get_latent_representation(unseen)
    with pytest.raises(KeyError, match="condition_key='state'"):
        model.get_clusters(ad.AnnData(query.X, query.obs.drop(columns="state"), query.var))


def test_several_columns_are_saved(tmp_path):
    data = simulate((60, 60, 60))
    data.obs["run"], data.obs["donor"] = data.obs["batch"].str[0], data.obs["batch"].str[1:].astype(int)
    joined = build(data.copy(), setup={"batch_key": ["run", "donor"]})
    plain = build(data.copy(), setup=SETUP)
    latent = joined.get_latent_representation()
    np.testing.assert_array_equal(latent, plain.get_latent_representation())
    assert list(joined.get_batch_report(n_clusters=3).batches.index) == ["b | 0", "b | 1", "b | 2"]
    joined.view_anndata_setup(hide_state_registries=True)
    joined.save(tmp_path / "model")
    again = scrcl.SCRCL.load(tmp_path / "model", adata=data[:40].copy())
    np.testing.assert_allclose(again.get_latent_representation(), latent[:40], atol=1e-5)
    scrcl.pl.batches(joined)


def test_conditions_of_several_modalities():
    data = treat(simulate((120, 120)), (0.3, 0.7))
    proteins = ad.AnnData(data.X[:, 1::10].toarray() + 1, obs=data.obs[[]], var=data.var.iloc[1::10])
    mdata = mudata.MuData({"rna": ad.AnnData(data.X, obs=data.obs[[]], var=data.var), "prot": proteins})
    mdata.obs[["batch", "state"]] = data.obs[["batch", "state"]]
    scrcl.SCRCL.setup_mudata(
        mdata, modalities={"rna": "rna", "prot": "protein"}, batch_key=["batch"], condition_key="state"
    )
    model = scrcl.SCRCL(mdata, n_hidden=16, n_refined=8, n_components=10)
    model.train(30, accelerator="cpu", enable_progress_bar=False)
    assert mixing_within_types(data, model.get_latent_representation(), "state") < 0.5
    conditions = model.get_batch_report(n_clusters=3).conditions
    assert conditions is not None
    assert list(conditions.columns) == ["cells", "before", "after"]
