"""Settings and fixtures of all tests.

What takes long to import is imported in fixtures, because the process that only hands tests out reads this file, too.
"""

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

# Threads cost more than they give with arrays this small, above all where others want the cores too. Libraries read this
# when they are loaded, and processes that a test starts inherit it.
for _library in ("OMP", "OPENBLAS", "MKL", *([] if "numba" in sys.modules else ["NUMBA"])):
    os.environ[f"{_library}_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"

if TYPE_CHECKING:
    from anndata import AnnData

    from scrcl import SCRCL


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come last, so that most faults are known early."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember whether the test is marked slow, for :func:`tests.helpers.real_data`."""
    from .helpers import running

    running["slow"] = item.get_closest_marker("slow") is not None


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Also for libraries that were loaded before this file was read."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)


def replace_umap(monkeypatch: pytest.MonkeyPatch, function: Callable) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("scrcl.") and hasattr(module, "umap_coordinates"):
            monkeypatch.setattr(module, "umap_coordinates", function)


@pytest.fixture(scope="session", autouse=True)
def coordinates() -> Iterator[Callable]:
    """Maps show the first two columns: compiling UMAP takes ten seconds."""
    import scrcl.pl

    real = scrcl.pl._maps.umap_coordinates
    with pytest.MonkeyPatch.context() as monkeypatch:
        replace_umap(monkeypatch, lambda latent, seed=0: latent[:, :2].astype("float32"))
        yield real


@pytest.fixture
def real_umap(monkeypatch: pytest.MonkeyPatch, coordinates: Callable) -> None:
    """Maps are those of UMAP."""
    replace_umap(monkeypatch, coordinates)


@pytest.fixture(scope="session", autouse=True)
def short_inference() -> Iterator[int]:
    """A mixture of clusters is learned in few steps: most tests do not ask how good it is."""
    import scrcl.nn.mixture

    steps = scrcl.nn.mixture.N_STEPS
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(scrcl.nn.mixture, "N_STEPS", 10)
        yield steps


@pytest.fixture(scope="module")
def full_inference(short_inference: int) -> Iterator[None]:
    """A mixture of clusters is learned in as many steps as users get."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("scrcl.nn.mixture.N_STEPS", short_inference)
        yield


@pytest.fixture
def adata() -> "AnnData":
    from .helpers import simulate

    return simulate()


@pytest.fixture(scope="session")
def trained() -> "SCRCL":
    """A trained model that no test may change."""
    from .helpers import build, simulate

    return build(simulate())
