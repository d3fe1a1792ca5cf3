"""The layout that docs/architecture.md draws: which folder may import which, and how long files are.

How complex a function may be is checked by ruff (``C901``).
"""

import ast
import re
from pathlib import Path

import pytest

import scrcl

FOLDER = Path(scrcl.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))
#: From the bottom up: a folder imports only those before it, and itself.
ORDER = ["utils", "graph", "cluster", "labels", "nn", "genes", "data", "reference", "model", "pl", "cli"]
ARRAYS = ["utils", "graph", "genes", "cluster", "labels", "nn"]
#: Modules of names and numbers only, of which there is nothing to test.
NAMES = ("__init__.py", "keys.py", "sizes.py")


def imported(file: Path) -> list[str]:
    """Names of the modules that a file imports, whole."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ["scrcl", *file.relative_to(FOLDER).parts[:-1]]
            start = package[: len(package) - node.level + 1] if node.level else []
            found.append(".".join([*start, *([node.module] if node.module else [])]))
    return found


def folder_of(file: Path) -> str:
    return file.relative_to(FOLDER).parts[0]


@pytest.mark.parametrize("file", [file for file in FILES if folder_of(file) in ORDER], ids=str)
def test_imports_go_one_way(file):
    above = ORDER[ORDER.index(folder_of(file)) + 1 :]
    assert not [name for name in imported(file) for other in above if name.startswith(f"scrcl.{other}")]


@pytest.mark.parametrize("file", [file for file in FILES if folder_of(file) in ARRAYS], ids=str)
def test_functions_of_arrays_know_no_data_classes(file):
    of_data = ("anndata", "mudata", "scanpy", "scvi.data", "scvi.model", "scvi.dataloaders")
    assert not [name for name in imported(file) if name.startswith(of_data)]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_file_is_long(file):
    assert len(file.read_text().splitlines()) <= 450


@pytest.mark.parametrize(
    "file", [file for file in FILES if folder_of(file) in ORDER[:-2] and file.name not in NAMES], ids=str
)
def test_a_module_has_a_test_of_its_name(file):
    assert (Path(__file__).parent / folder_of(file) / f"test_{file.name}").is_file()


@pytest.mark.parametrize("file", [file for file in FILES if file.name not in ("__init__.py", "__main__.py")], ids=str)
def test_a_module_is_named_where_the_layout_is_drawn(file):
    page = Path(__file__).parents[1] / "docs" / "architecture.md"
    if not page.is_file():
        pytest.skip("docs/architecture.md is in the repository only")
    folder = folder_of(file).removesuffix(".py")
    room = re.compile(rf"\| [^|]*`{folder}/?`")
    rows = [line for line in page.read_text().splitlines() if room.match(line)]
    assert rows, f"docs/architecture.md has no row of {folder}"
    assert file.stem == folder or f"`{file.stem}`" in rows[0]
