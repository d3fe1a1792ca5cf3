"""Each public function and method has examples in its docstring, and they run."""

import doctest
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scvi
from mudata import MuData

import scrcl

from .helpers import simulate

#: There to say that it is not.
REFUSED = ("setup_annbatch",)


def public() -> dict[str, Callable]:
    """Functions and methods that users call, by name."""
    found: dict[str, Callable] = {}
    for name in scrcl.__all__:
        thing = getattr(scrcl, name)
        if isinstance(thing, ModuleType):
            functions = inspect.getmembers(thing, inspect.isfunction)
            found |= {f"{name}.{key}": value for key, value in functions if value.__module__.startswith(thing.__name__)}
        elif inspect.isfunction(thing):
            found[name] = thing
    for of in (scrcl.SCRCL, scrcl.ClusterTree):
        for name, method in inspect.getmembers(of, callable):
            if not name.startswith("_") and name not in REFUSED and method.__module__.startswith("scrcl."):
                found[f"{of.__name__}.{name}"] = method
    return {"SCRCL": scrcl.SCRCL, **found}


class ShownOutput(doctest.OutputChecker):
    """Compares what an example shows. Where it shows nothing, there may be progress."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        """Whether the output is as shown."""
        return not want or super().check_output(want, got, optionflags)


def run(docstring: str | None, name: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run the examples of a docstring; the names that there are afterwards."""
    test = doctest.DocTestParser().get_doctest(inspect.cleandoc(docstring or ""), names, name, None, None)
    assert test.examples, f"{name} has no Examples in its docstring. Show its use on the data of `help(scrcl)`."
    report: list[str] = []
    failed, _ = doctest.DocTestRunner(ShownOutput(), verbose=False).run(test, out=report.append, clear_globs=False)
    assert not failed, "".join(report)
    return test.globs


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the examples speak of: the first ones make most of it."""
    verbosity = scvi.settings.verbosity
    scvi.settings.verbosity = logging.WARNING
    scvi.settings.seed = 0
    found = run(scrcl.__doc__, "scrcl", {})
    donors = simulate(200)
    donors.obs["donor"] = np.repeat(["first", "second"], 100)
    annotated = simulate(200)
    annotated.obs["annotation"] = annotated.obs["cell_type"].astype(str).where(np.arange(200) % 2 == 0, "Unknown")
    cells = pd.DataFrame(index=donors.obs_names)
    proteins = ad.AnnData(np.random.default_rng(0).poisson(5.0, (200, 6)).astype(np.float32), obs=cells)
    tissue = scrcl.datasets.layered_tissue(n_cells=50)
    tissue.obs["region"] = tissue.obs["slice"]
    found |= {
        "sc": sc,
        "annotated": annotated,
        "donors": donors,
        "mdata": MuData({"rna": simulate(200), "prot": proteins}),
        "sdata": SimpleNamespace(tables={"table": tissue}),
    }
    scvi.settings.verbosity = verbosity
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "function"), public().items(), ids=public())
def test_examples(name, function, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(function.__doc__, name, dict(names))
    plt.close("all")


def test_the_page_of_the_api_shows_the_same_cells():
    page = Path(__file__).parents[1] / "docs" / "api.md"
    if not page.is_file():
        pytest.skip("docs/api.md is in the repository only")
    lines = [example.source for example in doctest.DocTestParser().get_examples(scrcl.__doc__ or "")]
    assert "".join(lines) in page.read_text().replace("import scrcl\n\n", "import scrcl\n")
