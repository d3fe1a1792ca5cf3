"""Several slices in one model: corrected for each other, with the same names of domains, and slices that it has never seen."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

import scrcl

from ..helpers import build, real_data
from .test_space import layers

JOINT = {"spatial_key": "spatial", "sample_key": "slice"}


def stained(name: str, seed: int, factors: int | None) -> ad.AnnData:
    """A slice whose genes are detected with rates of its own, as by another chemistry; ``None`` for the rates of the others."""
    tissue = layers(300, seed=seed)
    if factors is not None:
        rates = np.random.default_rng(factors).lognormal(0, 0.8, tissue.n_vars)
        counts = np.random.default_rng(factors).poisson(tissue.X.toarray() * rates)
        counts[:, 0] = np.maximum(counts[:, 0], 1)
        tissue.X = sp.csr_matrix(counts.astype(np.float32))
    tissue.obs["slice"] = name
    tissue.obs_names = [f"{name}-{cell}" for cell in tissue.obs_names]
    return tissue


def domain_of(groups: pd.Series, domains: pd.Series) -> dict[str, str]:
    """The most frequent domain of each group of cells."""
    table = pd.crosstab(groups.to_numpy(str), domains.to_numpy(str))
    return {str(group): str(domain) for group, domain in table.idxmax(axis=1).items()}


@pytest.fixture(scope="module")
def two() -> ad.AnnData:
    return ad.concat([stained("a", 0, None), stained("b", 1, 1)])


@pytest.fixture(scope="module")
def joint(two) -> scrcl.SCRCL:
    return build(two, setup=JOINT | {"batch_key": "slice"})


def test_slices_that_differ_share_domains(two, joint):
    clusters = joint.get_clusters(n_clusters=3)
    of_slice = [(two.obs["slice"] == name).to_numpy() for name in "ab"]
    first, second = (domain_of(two.obs["layer"][rows], clusters[rows]) for rows in of_slice)
    assert first == second
    assert len(set(first.values())) == 3
    assert adjusted_rand_score(two.obs["layer"], clusters) > 0.7
    # Without batch_key, domains follow the slices.
    apart = build(two.copy(), setup=JOINT).get_clusters(n_clusters=3)
    assert adjusted_rand_score(two.obs["slice"], apart) > 0.5
    assert adjusted_rand_score(two.obs["layer"], apart) < 0.4


@pytest.mark.parametrize("factors", [None, 1, 7], ids=["as the first", "as the second", "of its own"])
def test_a_slice_never_seen_gets_the_same_domains(two, joint, factors, tmp_path):
    known = domain_of(two.obs["layer"], joint.get_clusters(n_clusters=3))
    new = stained("c", 5, factors)
    placed = joint.get_clusters(new, n_clusters=3)
    assert domain_of(new.obs["layer"], placed) == known
    assert adjusted_rand_score(new.obs["layer"], placed) > 0.7
    joint.save(tmp_path / "model")
    loaded = scrcl.SCRCL.load(tmp_path / "model", adata=new, accelerator="cpu")
    np.testing.assert_allclose(loaded.get_latent_representation(), joint.get_latent_representation(new), atol=1e-5)


def test_slices_that_do_not_differ_are_left_as_they_are():
    both = ad.concat([stained("a", 0, None), stained("b", 1, None)])
    with_key = build(both, setup=JOINT | {"batch_key": "slice"})
    assert not with_key._reference.corrected
    without = build(both.copy(), setup=JOINT)
    np.testing.assert_allclose(with_key._reference.features, without._reference.features, atol=1e-5)


def test_labels_of_one_slice_are_transferred_to_others(two):
    """Regions that are drawn in one slice, predicted in another and in one that the model has never seen."""
    some = two.copy()
    some.obs["region"] = some.obs["layer"].where(some.obs["slice"] == "a").astype(object)
    model = build(some, setup=JOINT | {"batch_key": "slice", "labels_key": "region"})
    others = some[some.obs["slice"] == "b"]
    assert (model.predict()[others.obs_names] == others.obs["layer"]).mean() > 0.8
    new = stained("c", 5, 7)
    assert (model.predict(new) == new.obs["layer"]).mean() > 0.8


def test_borders_are_found_in_slices_that_differ(joint):
    borders = joint.get_domain_borders(n_clusters=3)
    assert (borders["n_domain"] > 100).sum() == 2
    assert set(borders.loc[borders["n_domain"] > 100, "verdict"]) == {"border"}


def slices(*names: str) -> ad.AnnData:
    """Real slices with the genes that all have."""
    parts = {name: ad.read_h5ad(real_data(f"{name}.h5ad")) for name in names}
    return ad.concat(parts, label="slice", index_unique="-", join="inner")


@pytest.mark.slow
def test_sections_of_a_cortex():
    both = slices("starmap_mpfc_BZ5", "starmap_mpfc_BZ9")
    setup = JOINT | {"batch_key": "slice"}
    clusters = build(both.copy(), 10, setup=setup, n_components=30).get_clusters(n_clusters=4)
    assert adjusted_rand_score(both.obs["slice"], clusters) < 0.05
    assert adjusted_rand_score(both.obs["domain"].astype(str), clusters) > 0.5
    of_slice = [(both.obs["slice"] == name).to_numpy() for name in both.obs["slice"].unique()]
    first, second = (domain_of(both.obs["domain"][rows], clusters[rows]) for rows in of_slice)
    assert first == second
    # Trained on one of them, the model has never seen the other.
    model = build(both[of_slice[0]].copy(), 10, setup=setup, n_components=30)
    known = domain_of(both.obs["domain"][of_slice[0]], model.get_clusters(n_clusters=4))
    new = both[of_slice[1]].copy()
    placed = model.get_clusters(new, n_clusters=4)
    assert domain_of(new.obs["domain"], placed) == known
    assert adjusted_rand_score(new.obs["domain"].astype(str), placed) > 0.45


@pytest.mark.slow
def test_tumours_of_two_patients():
    both = slices("her2st_A1", "her2st_G2")
    domain = both.obs["domain"].astype(str)

    def agreement(**setup: str) -> tuple[float, float]:
        model = build(both.copy(), 10, setup=JOINT | setup, n_components=30)
        clusters = model.get_clusters(n_clusters=4)
        return adjusted_rand_score(both.obs["slice"], clusters), adjusted_rand_score(domain, clusters)

    with_slices, with_domains = agreement(batch_key="slice")
    assert with_slices < 0.3 < agreement()[0]
    assert with_domains > 0.35
