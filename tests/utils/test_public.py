"""Arguments of public functions are checked by name, and settings of other packages do not reach their work."""

import inspect
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch

import scrcl
from scrcl.utils.errors import ScrclTypeError
from scrcl.utils.public import SYNONYMS, public, public_class, unknown_argument

from ..helpers import build, simulate

ABSENT = ("differential_abundance", "get_normalized_expression", "setup_annbatch")


@public
def draw(adata: Any, n_clusters: int | None = None, method: Literal["one", "two"] = "one", *, seed: int = 0) -> tuple:
    return adata, n_clusters, method, seed


@public
def passed_on(size: int = 1, **kwargs: Any) -> int:
    return inner(**kwargs) + size


def inner(seed: int = 0) -> int:
    return seed


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((None,), {"n_cluster": 3}, "n_cluster=3 is not an argument of `draw`. Did you mean `n_clusters`?"),
        ((None,), {"k": 3}, "Did you mean `n_clusters`?"),
        ((None,), {"random_state": 3}, "Did you mean `seed`?"),
        ((None,), {"zzz": 3}, "Its arguments are `adata`, `n_clusters`, `method`, `seed`."),
        ((None,), {"key_added": "x"}, "`draw` returns its result. Assign it: `adata.obs['scrcl'] = model.draw()`."),
        (
            (None, 2, "one", 3),
            {},
            "too many positional arguments. Pass each argument once, by name: `adata`, `n_clusters`, `method`, `seed`.",
        ),
        (
            (None, 2),
            {"n_clusters": 3},
            "`draw` cannot be called with these arguments: multiple values for argument 'n_clusters'.",
        ),
        ((), {}, "`draw` requires `adata`. Pass it: `draw(adata=...)`."),
        ((8,), {}, "adata=8 is not data. Did you mean `n_clusters=8`?"),
        (("two",), {}, "Did you mean `method='two'`?"),
        (("cells.h5ad",), {}, "`anndata.read_h5ad('cells.h5ad')`"),
    ],
)
def test_what_does_not_fit_names_what_is_meant(args, kwargs, message):
    with pytest.raises(ScrclTypeError) as caught:
        draw(*args, **kwargs)
    assert message in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_fits_is_passed_on():
    assert draw(None, 3, seed=2) == (None, 3, "one", 2)
    assert passed_on(2, seed=3) == 5
    assert inspect.signature(draw).parameters.keys() == {"adata", "n_clusters", "method", "seed"}


@pytest.mark.parametrize(("argument", "meant"), [("sizes", "size"), ("foo", "size")])
def test_what_is_passed_on_is_met_too(argument, meant):
    with pytest.raises(ScrclTypeError, match=f"{argument}=1 is not an argument of .*{meant}"):
        passed_on(**{argument: 1})


def test_errors_from_within_stay_as_they_are():
    @public
    def fails(**kwargs: Any) -> None:
        raise TypeError("of another kind")

    with pytest.raises(TypeError, match="^of another kind$"):
        fails(further=1)


def test_methods_of_a_class_and_its_bases():
    class Base:
        def inherited(self, seed: int = 0) -> int:
            return seed

        @property
        def size(self) -> int:
            return 1

    @public_class
    class Model(Base):
        def __init__(self, n_hidden: int = 1) -> None:
            self.n_hidden = n_hidden

        @classmethod
        def load(cls, dir_path: str) -> str:
            return dir_path

        @staticmethod
        def registry(dir_path: str) -> str:
            return dir_path

        def _inner(self, a: int) -> int:
            return a

    assert (Model(2).n_hidden, Model().inherited(3), Model.load("a"), Model.registry("b"), Model().size) == (
        2,
        3,
        "a",
        "b",
        1,
    )
    for call, message in (
        (lambda: Model(n_hiden=1), "n_hiden=1 is not an argument of `Model`. Did you mean `n_hidden`?"),  # type: ignore[call-arg]
        (lambda: Model().inherited(sed=1), "`inherited`. Did you mean `seed`?"),  # type: ignore[call-arg]
        (lambda: Model.load(path="x"), "`load`. Did you mean `dir_path`?"),  # type: ignore[call-arg]
        (lambda: Model.registry(), "`registry` requires `dir_path`"),  # type: ignore[call-arg]
        (
            lambda: Model().inherited(1, 2),  # type: ignore[call-arg]
            "`inherited` cannot be called with these arguments: too many positional arguments. Pass each",
        ),
    ):
        with pytest.raises(ScrclTypeError) as caught:
            call()
        assert message in str(caught.value)
    with pytest.raises(TypeError) as plain:
        Model()._inner(b=1)  # type: ignore[call-arg]
    assert not isinstance(plain.value, ScrclTypeError)


def test_synonyms_are_of_arguments_that_there_are():
    """A synonym of no argument of any public function would never be suggested."""
    functions = [getattr(scrcl.SCRCL, name) for name in dir(scrcl.SCRCL) if not name.startswith("_")]
    functions += [scrcl.SCRCL.__init__, scrcl.from_spatialdata, *(getattr(scrcl.pl, name) for name in scrcl.pl.__all__)]
    known = {name for function in functions if callable(function) for name in inspect.signature(function).parameters}
    assert not {meant for each in SYNONYMS.values() for meant in each} - known


@pytest.mark.parametrize("name", [name for name in dir(scrcl.SCRCL) if not name.startswith("_")])
def test_no_method_answers_a_slip_with_a_bare_error(trained, name):
    method = getattr(trained, name)
    if not inspect.ismethod(method) and not inspect.isfunction(method):
        return
    # What this model does not have says so.
    kind = NotImplementedError if name in ABSENT else ScrclTypeError
    with pytest.raises(kind, match=None if name in ABSENT else name):
        method(zzz=1)


@pytest.mark.parametrize("name", scrcl.pl.__all__)
def test_no_plot_answers_a_slip_with_a_bare_error(trained, name):
    plot = getattr(scrcl.pl, name)
    with pytest.raises(ScrclTypeError):
        plot(zzz=1)
    first, *others = inspect.signature(plot).parameters.values()
    fill = [None for other in others if other.default is other.empty and other.kind is other.POSITIONAL_OR_KEYWORD]
    first = first.name  # type: ignore[assignment]
    if first == "adata":
        with pytest.raises(ScrclTypeError, match="model.adata"):
            plot(trained, *fill)
    elif first == "model":
        with pytest.raises(ScrclTypeError, match="not a model"):
            plot(trained.adata, *fill)


@pytest.mark.parametrize("value", [5, None, [1], np.ones(3), {"a": 1}], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", scrcl.pl.__all__)
def test_plots_refuse_what_is_no_model_and_no_data(name, value):
    plot = getattr(scrcl.pl, name)
    first, *others = inspect.signature(plot).parameters.values()
    if name == "history" and isinstance(value, dict):
        return
    fill = [pd.DataFrame() for other in others if other.default is other.empty and other.name != "kwargs"]
    with pytest.raises(ScrclTypeError, match=f"^{first.name} is of type {type(value).__name__}, not "):
        plot(value, *fill)


def test_axes_and_modules_of_plots(trained: Any):
    number: Any = 5
    for call, words in (
        (lambda: scrcl.pl.history(trained, ax=number), "ax is of type int, not Axes"),
        (
            lambda: scrcl.pl.history(trained, ax=np.ones(2)),  # type: ignore[arg-type]
            "ax is of type ndarray, not Axes",
        ),
        (lambda: scrcl.pl.gene_modules(trained, modules=number), r"`model.get_gene_modules\(\)`"),
        (lambda: scrcl.pl.n_clusters(trained), r"`n_clusters\(model.estimate_n_clusters\(\)\)`"),
        (lambda: scrcl.SCRCL.setup_anndata(pd.DataFrame()), "adata is of type DataFrame, not AnnData"),
        (lambda: trained.get_clusters(pd.DataFrame()), "adata is of type DataFrame, not AnnData or MuData"),
    ):
        with pytest.raises(ScrclTypeError, match=words):
            call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.train(epochs=2), "max_epochs"),
        (lambda m: m.train(use_gpu=True), "accelerator"),
        (lambda m: m.train(lr=0.1), "plan_kwargs"),
        (lambda m: m.train(max_epoch=2), "`max_epochs`"),
        (lambda m: m.get_clusters(8), "n_clusters=8"),
        (lambda m: m.get_clusters([1, 2]), "indices"),
        (lambda m: m.get_clusters("leiden"), "method='leiden'"),
        (lambda m: m.get_latent_representation("refined"), "representation='refined'"),
        (lambda m: m.get_clusters(key_added="x"), "obs"),
        (lambda m: m.get_latent_representation(key_added="x"), "obsm"),
        (lambda m: m.save(), "dir_path"),
        (lambda m: m.save("m", compresion="gzip"), "compresion"),
        (lambda m: scrcl.SCRCL(m.adata, n_genes=3), "n_top_genes"),  # type: ignore[call-arg]
        (lambda m: scrcl.SCRCL(m.adata, n_latent=3), "n_hidden"),  # type: ignore[call-arg]
        (lambda m: scrcl.SCRCL.setup_anndata(m.adata, layr="x"), "layer"),
        (lambda m: scrcl.SCRCL.setup_anndata(m.adata, batch="x"), "batch_key"),
        (lambda m: scrcl.SCRCL.setup_anndata("cells.h5ad"), "read_h5ad"),
        (lambda m: scrcl.SCRCL.load("m", data=m.adata), "adata"),  # type: ignore[call-arg]
        (lambda m: scrcl.datasets.layered_tissue(cells=3), "cells"),  # type: ignore[call-arg]
    ],
)
def test_slips_of_users(trained, tmp_path, monkeypatch, call, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScrclTypeError) as caught:
        call(trained)
    assert words in str(caught.value)


@pytest.fixture
def foreign_settings():
    """Whatever other packages may have been set to."""
    before = torch.get_default_dtype(), np.geterr(), sklearn.get_config()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    np.seterr(all="raise")
    sklearn.set_config(transform_output="pandas")
    options = {"mode.copy_on_write": True, "future.infer_string": True, "mode.chained_assignment": "raise"}
    kept = {name: pd.get_option(name) for name in options}
    for name, value in options.items():
        pd.set_option(name, value)
    yield
    torch.set_default_dtype(before[0])
    torch.set_default_device(None)
    np.seterr(**before[1])
    sklearn.set_config(**before[2])
    for name, value in kept.items():
        pd.set_option(name, value)


@pytest.mark.usefixtures("foreign_settings")
def test_settings_of_other_packages_do_not_reach_a_model(tmp_path):
    with torch.device("cpu"):
        adata = simulate()
    model = build(adata)
    latent = model.get_latent_representation()
    assert latent.dtype == np.float32
    model.get_clusters(n_clusters=3)
    adata.obs["scrcl"] = model.get_clusters(n_clusters=3, method="leiden")
    model.get_cell_report(n_clusters=3)
    assert not model.get_marker_genes(groupby="scrcl").empty
    model.get_mapping_quality(simulate(40, seed=3), n_clusters=3)
    model.save(tmp_path / "m", save_anndata=True)
    again = scrcl.SCRCL.load(tmp_path / "m")
    np.testing.assert_allclose(again.get_latent_representation(), latent, atol=1e-6)
    assert np.geterr()["over"] == "raise"
    assert torch.get_default_dtype() == torch.float64
    assert torch.get_default_device().type == "meta"
    assert sklearn.get_config()["transform_output"] == "pandas"


@public
def fails_within() -> None:
    raise TypeError(f"with {torch.get_default_dtype()}")


def test_settings_come_back_after_an_error():
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(TypeError, match="float32"):
            fails_within()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_nearest_name_and_none():
    assert "Did you mean `spatial_key`?" in str(unknown_argument("spatial", 1, ["self", "layer", "spatial_key"], "f"))
    assert str(unknown_argument("x", 1, ["self"], "f")) == "x=1 is not an argument of `f`. Leave it out. It takes none."
