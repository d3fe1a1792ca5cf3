import copy
import pickle

import pytest

from scrcl.utils.errors import ScrclError, ScrclKeyError, ScrclTypeError, ScrclValueError, ScrclWarning


@pytest.mark.parametrize(
    ("kind", "python"), [(ScrclValueError, ValueError), (ScrclTypeError, TypeError), (ScrclKeyError, KeyError)]
)
def test_errors_are_those_of_python(kind, python):
    error = kind("layer='x' is not in 'adata'.", "Pass `layer='counts'`.")
    assert isinstance(error, ScrclError)
    assert isinstance(error, python)
    assert str(error) == "layer='x' is not in 'adata'. Pass `layer='counts'`."


def test_an_error_in_the_words_of_the_command_line():
    error = ScrclValueError(
        "adata.layers['umi'] holds negative values, and n_clusters=3 is more than 2.",
        "Pass `setup_anndata(adata, layer='counts')`.",
        command="Pass `--layer counts`.",
        where="adata.layers['umi']",
        options={"n_clusters=": "--n-clusters "},
    )
    said = error.as_command("in.h5ad")
    assert said == (
        "layers['umi'] of in.h5ad holds negative values, and --n-clusters 3 is more than 2. Pass `--layer counts`."
    )


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("markers='markers.csv' is no markers.", "--names='markers.csv' is no markers."),
        ("markers has 1 list without a gene.", "--names has 1 list without a gene."),
        ("The markers are none.", "The markers are none."),
        ("markers_of are none.", "markers_of are none."),
    ],
)
def test_the_argument_at_the_beginning_is_named_as_an_option(what, said):
    assert ScrclValueError(what).as_command("in.h5ad", {"markers": "--names"}) == said


def test_code_for_python_is_not_shown_on_the_command_line():
    assert ScrclValueError("It is wrong.", "Type `this()`.").as_command("f") == "It is wrong."
    assert ScrclValueError("It is wrong.", "Put it right.").as_command("f") == "It is wrong. Put it right."


def test_errors_survive_copies_and_processes():
    for error in (ScrclKeyError("a.b", "c", where="a", options={"x": "y"}), ScrclWarning("w")):
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert str(again) == str(error)
            assert again.__dict__ == error.__dict__
