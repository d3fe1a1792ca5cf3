"""How far learned figures stay from the bounds that tests compare them with.

A figure that is learned (accuracy, agreement, correlation, a share of cells) differs in the last digits between
processors, and training can make much of that. This runs the tests that compare a figure with a constant with other seeds
and with rounding errors, and lists for each comparison all values and how near the worst of them is to the bound::

    python tests/margins.py                              # all of them, which takes long
    python tests/margins.py tests/model/test_labels.py   # arguments are those of pytest
"""

import ast
import inspect
import operator
import re
import sys
import textwrap
from collections import Counter, defaultdict
from contextlib import ExitStack
from unittest import mock

import numpy as np
import pytest
import scipy.linalg
import scvi
from sklearn.utils import check_random_state

SEEDS = range(5)
#: Relative size of the rounding errors in the last run, which has the seed of the first.
NOISE = 1e-6
COMPARISONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


class Shift:
    """Other seeds for what learns, the same data; or the same seeds, and rounding errors in what is learned from."""

    def __init__(self, seed: int, noise: float) -> None:
        self.seed, self.noise = seed, noise

    def rounded(self, values):
        """The same values up to rounding, which is the same for the same value."""
        values = np.asarray(values)
        return (values * (1 + self.noise * np.sin(1e4 * values.astype(float)))).astype(values.dtype)

    def seeds(self, stack: ExitStack) -> None:
        config, own = type(scvi.settings), type(scvi.settings).seed
        moved = property(own.fget, lambda settings, seed: own.fset(settings, seed + self.seed))
        stack.enter_context(mock.patch.object(config, "seed", moved))
        plain = np.random.default_rng

        def of_package(seed=None):
            called_by = str(sys._getframe(1).f_globals["__name__"])
            if called_by.startswith("scrcl") and seed is not None:
                return plain([*np.atleast_1d(seed), *([self.seed] if self.seed else [])])
            return plain(seed)

        def moved_state(seed):
            return check_random_state(seed + self.seed if isinstance(seed, int) else seed)

        stack.enter_context(mock.patch.object(np.random, "default_rng", of_package))
        for name, module in list(sys.modules.items()):
            if name.startswith(("sklearn.cluster.", "sklearn.mixture.")) and hasattr(module, "check_random_state"):
                stack.enter_context(mock.patch.object(module, "check_random_state", moved_state))

    def rounding(self, stack: ExitStack) -> None:
        plain, eigh, svd, subset = np.random.default_rng, np.linalg.eigh, np.linalg.svd, scipy.linalg.eigh
        shift = self

        class Rounded(np.random.Generator):
            def normal(self, *args, **kwargs):
                return shift.rounded(super().normal(*args, **kwargs))

            def standard_normal(self, *args, **kwargs):
                return shift.rounded(super().standard_normal(*args, **kwargs))

        def rounded_svd(*args, **kwargs):
            found = svd(*args, **kwargs)
            return type(found)(*map(self.rounded, found)) if isinstance(found, tuple) else self.rounded(found)

        def rounded_eigh(*args, **kwargs):
            found = eigh(*args, **kwargs)
            return type(found)(found.eigenvalues, self.rounded(found.eigenvectors))

        def rounded_subset(*args, **kwargs):
            values, vectors = subset(*args, **kwargs)
            return values, self.rounded(vectors)

        for place, name, new in (
            (np.random, "default_rng", lambda seed=None: Rounded(plain(seed).bit_generator)),
            (np.linalg, "eigh", rounded_eigh),
            (np.linalg, "svd", rounded_svd),
            (scipy.linalg, "eigh", rounded_subset),
        ):
            stack.enter_context(mock.patch.object(place, name, new))

    def __enter__(self):
        self.stack = ExitStack()
        if self.noise:
            self.rounding(self.stack)
        else:
            self.seeds(self.stack)
        return self

    def __exit__(self, *_):
        self.stack.close()


def compares_with_a_constant(function) -> bool:
    """Whether a test asserts that something is above or below something, and names a number with a fraction."""
    try:
        nodes = list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))))
    except (OSError, TypeError):
        return False
    asserted = [part for node in nodes if isinstance(node, ast.Assert) for part in ast.walk(node.test)]
    compared = [op for part in asserted if isinstance(part, ast.Compare) for op in part.ops]
    return any(isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in compared) and any(
        isinstance(node, ast.Constant) and isinstance(node.value, float) for node in nodes
    )


class Recorder:
    """What was compared, in one run of the tests."""

    def __init__(self) -> None:
        #: By test, comparison, and which time it is made: its margins, and what is compared.
        self.found: dict[tuple[str, str, int], list[tuple[float, float]]] = defaultdict(list)
        self.times: Counter[tuple[str, str]] = Counter()
        self.failed: list[str] = []

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if compares_with_a_constant(getattr(item, "function", None))]

    def pytest_assertion_pass(self, item, lineno, orig, expl):
        self.record(item, orig, expl)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        yield
        if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
            entry = call.excinfo.traceback[-1]
            self.failed.append(f"{item.nodeid}: {call.excinfo.exconly().splitlines()[0]}")
            source = str(entry.statement).strip().removeprefix("assert ")
            self.record(item, source, call.excinfo.exconly().removeprefix("AssertionError: ").removeprefix("assert "))

    def record(self, item, source: str, shown: str) -> None:
        """The two sides of a comparison, as pytest shows their values."""
        time = min(self.times[item.nodeid, source], 3)  # the rest of a long loop together
        self.times[item.nodeid, source] += 1
        try:
            if not isinstance(ast.parse(source.split(', f"')[0], mode="eval").body, ast.Compare | ast.Tuple):
                return
            body = ast.parse(re.sub(r"np\.\w+\(([^()]*)\)", r"\1", shown.splitlines()[0]), mode="eval").body
            numbers = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
            parts = body.values if isinstance(body, ast.BoolOp) else [body]
            for part in parts:
                assert isinstance(part, ast.Compare)
                sides = [float(eval(ast.unparse(side), {"abs": abs})) for side in (part.left, *part.comparators)]
                for left, op, right in zip(sides, part.ops, sides[1:], strict=False):
                    up = isinstance(op, ast.Gt | ast.GtE)
                    if up or isinstance(op, ast.Lt | ast.LtE):
                        value = right if any(left == number for number in numbers) else left
                        self.found[item.nodeid, source, time].append((left - right if up else right - left, value))
        except (AssertionError, SyntaxError, NameError, TypeError, ValueError, AttributeError):
            return


def main(arguments: list[str]) -> int:
    """Run the tests six times, and print a table with the nearest comparisons first."""
    options = ["-q", "-p", "no:cacheprovider", "-o", "enable_assertion_pass_hook=true", "--no-header", "--tb=no"]
    runs: list[Recorder] = []
    for seed, noise in [*((seed, 0.0) for seed in SEEDS), (0, NOISE)]:
        recorder = Recorder()
        with Shift(seed, noise):
            pytest.main([*options, *arguments], plugins=[recorder])
        runs.append(recorder)
    rows = []
    for key in dict.fromkeys(key for run in runs for key in run.found):
        each = [min(run.found[key], default=None) for run in runs]
        margins = [margin for margin, _ in filter(None, each)]
        spread = max(margins) - min(margins)
        rows.append((min(margins), spread, key, " ".join("-" if one is None else f"{one[1]:.4g}" for one in each)))
    print("margin\tspread\ttest\tcomparison\tvalues of seeds 0 to 4, and with rounding errors")
    for margin, spread, (test, source, _), values in sorted(rows):
        print(f"{margin:.3g}\t{spread:.3g}\t{test}\t{' '.join(source.split())}\t{values}")
    for number, run in enumerate(runs):
        for failure in run.failed:
            print(f"failed in run {number}: {failure}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
