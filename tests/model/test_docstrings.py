import inspect
import re

import pytest

import scrcl
from scrcl.model.docstrings import TEMPLATES, documented


def public_docstrings() -> dict[str, str]:
    """Docstrings of all that is public, by name."""
    found = {}
    for name in scrcl.__all__:
        thing = getattr(scrcl, name)
        members = {f"{name}.{member}": getattr(thing, member) for member in dir(thing) if not member.startswith("_")}
        for full_name, member in {name: thing, **members}.items():
            if inspect.isroutine(member) or inspect.isclass(member):
                found[full_name] = inspect.getdoc(member) or ""
    return found


DOCSTRINGS = public_docstrings()


@pytest.mark.parametrize("name", DOCSTRINGS)
def test_no_docstring_shows_a_template(name):
    assert not re.search(r"%\(|\)s\b", DOCSTRINGS[name])


@pytest.mark.parametrize(
    "name", [name for name in dir(scrcl.SCRCL) if name.startswith(("get_c", "get_m", "estimate", "predict"))]
)
def test_every_argument_is_described(name):
    method = getattr(scrcl.SCRCL, name)
    lines = (inspect.getdoc(method) or "").splitlines()
    described = {part for line in lines if re.match(r"\w", line) for part in line.split(", ")}
    assert set(inspect.signature(method).parameters) - {"self"} <= described


def test_templates_are_used():
    rendered = "\n".join(DOCSTRINGS.values())
    for name, text in TEMPLATES.items():
        assert text.splitlines()[-1].strip() in rendered, name


def test_a_docstring_is_filled():
    @documented
    def function(seed: int) -> None:
        """Do it in 95 % of cases.

        Parameters
        ----------
        %(seed)s
        """

    assert inspect.getdoc(function) == (
        "Do it in 95 % of cases.\n\nParameters\n----------\nseed\n    Seed of the clustering."
    )
