"""Time of training and inference with the number of threads of PyTorch and with that of the package, idle and under load.

    python benchmarks/threads.py

Cells are simulated along a closed path in gene space, with count noise, and joined to their 15 nearest neighbours on the
path, so that no neighbour search is needed. The load is two busy processes for each core. Each figure is the mean over as
many epochs or passes as fit into `SECONDS`, at least one, after one that is not counted. Run it on an idle machine, without
`OMP_NUM_THREADS`.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import scipy.sparse as sp
import scvi
import torch
from lightning.pytorch import Callback

import scrcl
from scrcl.nn.inference import encode
from scrcl.utils import threads

RESULTS = Path(__file__).parent / "results"
SIZES = (400, 2_000, 20_000, 100_000)
N_GENES, N_NEIGHBORS = 300, 15
#: Seconds that one figure may take, unless a single epoch takes longer.
SECONDS = 3.0
PROCESSES_PER_CORE = 2
PACKAGES = ("scrcl", "scvi-tools", "torch", "numpy", "scipy")


def simulate(n_cells: int) -> ad.AnnData:
    """Cells along a closed path, with the graph of their nearest there."""
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, n_cells, endpoint=False)[:, None] * np.arange(1, 9)
    waves = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    rates = np.exp(waves @ rng.normal(0, 0.4, size=(16, N_GENES)) - 1)
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(rates).astype(np.float32)))
    steps = np.arange(1, N_NEIGHBORS // 2 + 1)
    columns = (np.arange(n_cells)[:, None] + np.concatenate([steps, -steps])) % n_cells
    rows = np.repeat(np.arange(n_cells), columns.shape[1])
    adata.obsp["path"] = sp.csr_matrix((np.ones(len(rows)), (rows, columns.ravel())), shape=(n_cells, n_cells))
    adata.uns["path"] = {"connectivities_key": "path"}
    return adata


class Watch(Callback):
    """Seconds of each epoch, and the threads it had; ends training when time is up."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.ends, self.n_threads = seconds, [0.0], 0

    def on_train_epoch_end(self, trainer: Any, *args: Any) -> None:
        self.ends.append(time.perf_counter())
        self.n_threads = torch.get_num_threads()
        trainer.should_stop = len(self.ends) > 2 and self.ends[-1] - self.ends[1] > self.seconds

    @property
    def mean(self) -> float:
        return (self.ends[-1] - self.ends[1]) / (len(self.ends) - 2)


def repeated(work: Callable[[], Any], seconds: float) -> float:
    """Mean seconds of a piece of work, after a first time that is not counted."""
    work()
    start, times = time.perf_counter(), 0
    while times == 0 or time.perf_counter() - start < seconds:
        work()
        times += 1
    return (time.perf_counter() - start) / times


@contextmanager
def load(n_processes: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_processes)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(model: scrcl.SCRCL, seconds: float) -> tuple[float, float, int]:
    """Seconds of an epoch and of inference, and the number of threads in training."""
    watch = Watch(seconds)
    model.train(100_000, accelerator="cpu", enable_progress_bar=False, callbacks=[watch])
    reference = model._reference
    graph = reference.features, reference.propagation, reference.weights
    work = partial(encode, model.module, *graph, "aligned")
    return watch.mean, repeated(work, seconds / 2), watch.n_threads


def report(sizes: list[int], seconds: float) -> str:
    every = threads.DEFAULT
    lines = [
        f"Milliseconds of an epoch of training and of inference for all cells; {every} threads are torch's default here.",
        "",
        f"| cells | load | threads chosen | epoch, {every} threads | epoch, chosen | ratio "
        f"| inference, {every} threads | inference, chosen | ratio |",
        "|---" * 9 + "|",
    ]
    cores = os.cpu_count() or 1
    for n_cells in sizes:
        adata = simulate(n_cells)
        scvi.settings.seed = 0
        scrcl.SCRCL.setup_anndata(adata, neighbors_key="path")
        model = scrcl.SCRCL(adata)
        for name, n_processes in (("idle", 0), (f"{PROCESSES_PER_CORE * cores} processes", PROCESSES_PER_CORE * cores)):
            print(f"{n_cells:,} cells, {name} …", file=sys.stderr, flush=True)
            with load(n_processes):
                with patch.object(threads, "suited_threads", lambda n_entries: every):
                    default = measure(model, seconds)
                chosen = measure(model, seconds)
            figures = [
                f"{1000 * before:.1f} | {1000 * now:.1f} | {before / now:.2f}"
                for before, now in zip(default[:2], chosen[:2], strict=True)
            ]
            lines.append(f"| {n_cells:,} | {name} | {chosen[2]} | {' | '.join(figures)} |")
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines += ["", f"{cores} cores, Python {platform.python_version()}, {versions}, seed 0."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each figure")
    parser.add_argument("--output", type=Path, default=RESULTS / "threads.md")
    arguments = parser.parse_args()
    if threads.DEFAULT == 1:
        sys.exit("torch has one thread only. Unset OMP_NUM_THREADS, on a machine with several cores.")
    warnings.simplefilter("ignore")
    text = report(arguments.sizes, arguments.seconds)
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(text)
    print(text)
