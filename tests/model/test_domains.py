import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scrcl

from ..helpers import build

WIDTH, N_ZONES = 30.0, 3


def zones(kind: str, n_cells: int = 600, n_genes: int = 60, seed: int = 0) -> ad.AnnData:
    """Three zones from left to right, each with its own block of genes, divided by borders or along a gradient."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, WIDTH, size=(n_cells, 2))
    across = points[:, 0] / WIDTH
    zone = (across * N_ZONES).astype(int)
    place = zone if kind == "regions" else across * (N_ZONES - 1)
    shares = np.maximum(1 - np.abs(place[:, None] - np.arange(N_ZONES)), 0)
    profiles = np.ones((N_ZONES, n_genes))
    for number, genes in enumerate(np.array_split(np.arange(n_genes), N_ZONES)):
        profiles[number, genes] = 2.0
    counts = rng.poisson(np.random.default_rng(100).gamma(2.0, 0.5, n_genes) * (shares @ profiles))
    counts[:, 0] = np.maximum(counts[:, 0], 1)
    return ad.AnnData(
        sp.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame({"zone": zone.astype(str)}, index=[f"cell{i}" for i in range(n_cells)]),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]),
        obsm={"spatial": points},
    )


@pytest.fixture(scope="module", params=["regions", "gradient"])
def kind_and_model(request) -> tuple[str, scrcl.SCRCL]:
    return request.param, build(zones(request.param), epochs=10, setup={"spatial_key": "spatial"})


def test_borders_of_regions_and_of_zones_of_a_gradient(kind_and_model):
    kind, model = kind_and_model
    borders = model.get_domain_borders(n_clusters=3)
    measured = borders[borders["verdict"] != "unclear"]
    # Beside each other there are two pairs, of the zone in the middle and one on either side.
    assert len(measured) == 2
    assert set(measured["verdict"]) == {"border" if kind == "regions" else "continuum"}
    assert measured[["domain", "neighbor"]].stack().value_counts().max() == 2
    assert (measured["score"] > 6).all()
    assert set(borders["domain"]) | set(borders["neighbor"]) == set(model.get_clusters(n_clusters=3).cat.categories)


def test_the_tree_supports_splits_with_a_border(kind_and_model):
    """Zones of a gradient are no domains, although they have few edges to each other in the spatial graph."""
    kind, model = kind_and_model
    tree = model.get_cluster_tree(evidence=False)
    assert tree.n_clusters == (3 if kind == "regions" else 1)
    highest = tree.splits["verdict"].iloc[0]
    assert highest == ("border" if kind == "regions" else "continuum")
    assert (tree.splits["supported"] == (tree.splits["connectivity"] < 0.343)).all()


def test_the_curve_of_numbers_has_the_evidence_of_the_tree(kind_and_model):
    kind, model = kind_and_model
    curve = model.estimate_n_clusters().curve
    at_three = curve["connectivity"].get(3, np.inf)
    assert at_three < 0.343 if kind == "regions" else at_three > 0.343


def test_domains_without_coordinates_have_no_borders(trained):
    with pytest.raises(
        ValueError, match=r"get_domain_borders requires coordinates. Name them: .*spatial_key='spatial'"
    ):
        trained.get_domain_borders()


def test_a_single_domain_has_no_borders(kind_and_model):
    _, model = kind_and_model
    with pytest.raises(ValueError, match="n_clusters=1"):
        model.get_domain_borders(n_clusters=1)
