"""What a release consists of agrees, and stands by itself where it is published."""

import json
import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "tutorials").glob("*.ipynb"))

pytestmark = pytest.mark.skipif(
    not (ROOT / "docs").is_dir(), reason="only in the repository, not in the source distribution"
)


def read(name: str) -> str:
    return (ROOT / name).read_text()


def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))["project"]


def test_the_version_is_the_same_everywhere():
    version = project()["version"]
    assert re.search(r"^version: (.*)$", read("CITATION.cff"), re.MULTILINE)[1] == version  # type: ignore[index]
    newest, date = re.findall(r"^## \[([\d.]+)\] - (\S+)$", read("CHANGELOG.md"), re.MULTILINE)[0]
    assert newest == version
    assert f'date-released: "{date}"' in read("CITATION.cff")
    assert f"[{version}]: " in read("CHANGELOG.md")


def test_the_versions_of_python_are_the_same_everywhere():
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(project()["classifiers"]), re.MULTILINE)
    settings = tomllib.loads(read("pyproject.toml"))
    stable, pre = settings["tool"]["hatch"]["envs"]["hatch-test"]["matrix"]
    assert stable["python"] == named
    assert pre["python"] == named[-1:]
    assert project()["requires-python"] == f">={named[0]}"
    table = read("docs/installation.md")
    assert f"| Python | {named[0]} | {named[-1]} |" in table
    tests = read(".github/workflows/test.yaml")
    assert f'{{ script: run, python: "{named[0]}" }}' in tests
    assert f'{{ script: newest, python: "{named[-1]}" }}' in tests
    assert f'python: ["{named[0]}", "{named[-1]}"]' in tests


def test_the_oldest_dependencies_are_the_same_everywhere():
    floors = {one.name: one.specifier for one in map(Requirement, project()["dependencies"])}
    rows = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| ([\d.]+) \|$", read("docs/installation.md"), re.MULTILINE)
    assert len(rows) == 7
    for name, oldest, newest in rows:
        if name != "Python":
            assert floors[canonicalize_name(name)].contains(oldest), name
            assert floors[canonicalize_name(name)].contains(newest), name


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_do_no_more_than_they_need(path):
    text = path.read_text()
    used = re.findall(r"uses: (.*)$", text, re.MULTILINE)
    assert used
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", action) for action in used), used
    assert re.search(r"^permissions:( {}|\n  contents: read)$", text, re.MULTILINE)
    # Each action has one version everywhere.
    everywhere: dict[str, set[str]] = {action.split("@")[0]: set() for action in used}
    for other in WORKFLOWS:
        for action in re.findall(r"uses: (.*)$", other.read_text(), re.MULTILINE):
            if action.split("@")[0] in everywhere:
                everywhere[action.split("@")[0]].add(action)
    assert all(len(versions) == 1 for versions in everywhere.values()), everywhere


def test_all_jobs_are_needed_to_merge():
    jobs = re.findall(r"^  ([\w-]+):$", read(".github/workflows/test.yaml").split("\njobs:")[1], re.MULTILINE)
    needed = re.search(r"needs: \[(.*)\]\n    runs-on", read(".github/workflows/test.yaml"))
    assert needed is not None
    assert set(needed[1].split(", ")) == set(jobs) - {"check"}


def test_the_entry_of_the_ecosystem_has_what_is_asked_for():
    entry = read(".github/ecosystem/meta.yaml")
    required = "name description project_home documentation_home install license tags contact category".split()
    fields = re.findall(r"^(\w+):", entry, re.MULTILINE)
    assert set(required) <= set(fields)
    assert "version" not in fields  # it is read from the package index
    assert not re.search(r"(?i)todo|placeholder|your|example|xxx", entry)
    assert f"name: {project()['name']}\n" in entry
    assert f"license: {project()['license']}\n" in entry
    command = re.search(r"<!-- test-command -->\n```bash\n(.*)\n```", read("README.md"))
    assert command is not None
    assert f"test_command: {command[1]}\n" in entry


def test_no_dependency_is_under_the_gpl():
    """Neither those that are named, nor those that they bring along."""
    licences: dict[str, str] = {}
    todo = [Requirement(line) for line in project()["dependencies"]]
    while todo:
        name = canonicalize_name(todo.pop().name)
        if name in licences:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            licences[name] = ""
            continue
        fields = {
            field: package.metadata.get_all(field) or [] for field in ("License-Expression", "License", "Classifier")
        }
        licences[name] = " ".join(
            [
                *fields["License-Expression"],
                *(text[:100] for text in fields["License"]),
                *(line for line in fields["Classifier"] if line.startswith("License")),
            ]
        )
        needed = map(Requirement, package.requires or [])
        todo += [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    assert {"numpy", "torch", "graspologic-native"} <= {name for name, licence in licences.items() if licence}
    strong = {name for name, text in licences.items() if re.search(r"(?<!L)GPL|(?<!Lesser )General Public", text)}
    assert not strong


def test_links_of_the_readme_work_on_a_package_index():
    targets = re.findall(r"\]\(([^)]+)\)", read("README.md"))
    assert targets
    relative = [target for target in targets if not target.startswith("https://")]
    assert not relative, f"Relative links lead nowhere on a package index: {relative}"


def test_pages_that_the_readme_names_are_there():
    pages = set(re.findall(r"scrcl\.readthedocs\.io/page/(\w+)\.html", read("README.md")))
    assert pages
    assert pages <= {page.stem for page in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("path", ["README.md", "docs/index.md"])
def test_the_figure_of_a_front_page_is_large_and_drawn_by_a_command(path):
    pictures = {Path(name).name for name in re.findall(r"_static/(\w+\.png)", read(path))}
    assert pictures
    drawn = read("docs/figures.py")
    for name in pictures:
        assert f'"{Path(name).stem}"' in drawn
        height, width = plt.imread(ROOT / "docs" / "_static" / name).shape[:2]
        assert width >= 1200
        assert height >= 800
    assert "python docs/figures.py" in read(path)
    (first,) = re.findall(r"^scrcl is for .*$|^It is for .*$", read(path), re.MULTILINE)
    assert "anyone" in first


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_as_it_was_run_from_start_to_end(path):
    notebook = json.loads(path.read_text())
    assert "widgets" not in notebook["metadata"]
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if any("widget" in kind for kind in output.get("data", {}))]
    assert not re.search(r"/(home|root|tmp|Users)/", json.dumps(outputs))
