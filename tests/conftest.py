import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Threads cost more than they give with arrays this small, above all where others want the cores too. Libraries read this
# when they are loaded, and processes that a test starts inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
if "numba" not in sys.modules:  # which does not take it any more
    os.environ["NUMBA_NUM_THREADS"] = "1"

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scvi
import torch
from threadpoolctl import threadpool_limits

import scrcl
import scrcl.nn.mixture
import scrcl.pl
from scrcl.graph.slices import Slices, read_slices

mpl.use("Agg")
torch.set_num_threads(1)
threadpool_limits(1)


#: Whether the test that runs now may take long.
_running: dict[str, bool] = {"slow": True}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come last, so that most faults are known early."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember whether the test is marked slow, for :func:`real_data`."""
    _running["slow"] = item.get_closest_marker("slow") is not None


def simulate(n_cells: int = 150, n_genes: int = 120, n_types: int = 3, seed: int = 0) -> ad.AnnData:
    """Counts of cell types that each express their own block of genes more."""
    rng = np.random.default_rng(seed)
    types = rng.integers(n_types, size=n_cells)
    rates = rng.gamma(1.0, 0.8, size=n_genes)
    boost = np.ones((n_types, n_genes))
    for kind, genes in enumerate(np.array_split(np.arange(n_genes), n_types)):
        boost[kind, genes[: len(genes) // 2]] = 8
    counts = rng.poisson(rates * boost[types] * rng.lognormal(0, 0.3, size=(n_cells, 1)))
    counts[:, 0] = np.maximum(counts[:, 0], 1)  # no empty cell
    return ad.AnnData(
        sp.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame({"cell_type": pd.Categorical(types.astype(str))}, index=[f"cell{i}" for i in range(n_cells)]),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]),
    )


def build(adata: ad.AnnData, seed: int = 0, epochs: int = 5, setup: dict | None = None, **kwargs) -> scrcl.SCRCL:
    """A small model, trained for a few epochs."""
    scvi.settings.seed = seed
    scrcl.SCRCL.setup_anndata(adata, **(setup or {}))
    model = scrcl.SCRCL(adata, **{"n_hidden": 16, "n_refined": 8, "n_components": 10, **kwargs})
    model.train(epochs, accelerator="cpu", enable_progress_bar=False)
    return model


def real_data(name: str) -> Path:
    """Path of a labelled real data set, or skip. For tests that are marked slow."""
    assert _running["slow"], "a test that reads real data is marked @pytest.mark.slow"
    folder = os.environ.get("SCRCL_DATA") or Path(__file__).parents[2] / "shared" / "data"
    path = Path(folder) / name
    if not path.is_file():
        pytest.skip(f"{name} is neither in $SCRCL_DATA nor in ../shared/data")
    return path


def replace_umap(monkeypatch: pytest.MonkeyPatch, function: Callable) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("scrcl.") and hasattr(module, "umap_coordinates"):
            monkeypatch.setattr(module, "umap_coordinates", function)


@pytest.fixture(scope="session", autouse=True)
def real_umap() -> Iterator[Callable]:
    """Maps show the first two columns: compiling UMAP takes ten seconds."""
    real = scrcl.pl._maps.umap_coordinates
    with pytest.MonkeyPatch.context() as monkeypatch:
        replace_umap(monkeypatch, lambda latent, seed=0: latent[:, :2].astype(np.float32))
        yield real


@pytest.fixture(scope="session", autouse=True)
def short_inference() -> Iterator[int]:
    """A mixture of clusters is learned in few steps: what uses it does not depend on how good it is."""
    steps = scrcl.nn.mixture.N_STEPS
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(scrcl.nn.mixture, "N_STEPS", 10)
        yield steps


@pytest.fixture(scope="module")
def full_inference(short_inference: int) -> Iterator[None]:
    """All steps, for tests that compare what the mixture says."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(scrcl.nn.mixture, "N_STEPS", short_inference)
        yield


@pytest.fixture(autouse=True)
def umap_of_slow_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, real_umap: Callable) -> None:
    """Tests marked slow draw what UMAP gives."""
    if request.node.get_closest_marker("slow") is not None:
        replace_umap(monkeypatch, real_umap)


@pytest.fixture
def adata() -> ad.AnnData:
    return simulate()


@pytest.fixture(scope="session")
def trained() -> scrcl.SCRCL:
    """A trained model that no test may change."""
    return build(simulate())


def slices_of(points, samples=None) -> Slices:
    return read_slices(points, samples, "adata.obsm['spatial']", "adata.obs['sample']")


def marked(kind: int) -> set[str]:
    """The genes that a simulated type expresses more."""
    return {f"gene{i}" for i in range(40 * kind, 40 * kind + 20)}


def calibration_error(probabilities: np.ndarray, codes: np.ndarray, n_bins: int = 15) -> float:
    """The expected calibration error of the most probable types (Naeini et al., AAAI 2015), in bins of equal width."""
    confidence, is_right = probabilities.max(1), probabilities.argmax(1) == codes
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, confidence - is_right, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(codes))
