"""Run one method on one data set in a process of one thread, and write the result to a file."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def run_to_file(file: Path, arguments: list[str]) -> None:
    """Run Python with the arguments, and write the last line of its output; a failed run leaves no file."""
    command, environment = [sys.executable, *arguments], {**os.environ, **ONE_THREAD}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(done.stdout.splitlines()[-1] + "\n")
    unfinished.rename(file)


def read_if_current(file: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """The result that a file holds, if it is there and depends on these inputs."""
    result = json.loads(file.read_text()) if file.exists() else {}
    return result if inputs.items() <= result.items() else None


def measured_on(packages: Iterable[str]) -> dict[str, Any]:
    """On what a result is measured: cores, Python, and the versions of the packages that are installed."""
    versions = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {"versions": versions, "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}"}


def machine(packages: Iterable[str] = (), results: Iterable[Mapping[str, Any]] = ()) -> str:
    """On what the figures of a report were measured: these packages here, or what the results say."""
    said = list(results) or [measured_on(packages)]
    versions = {package: number for result in said for package, number in result["versions"].items()}
    return f"One thread of {said[0]['machine']}; {', '.join(f'{package} {number}' for package, number in versions.items())}"
