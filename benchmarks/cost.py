"""Cost of the loss and of a training step: linear against dense, and against the published configuration.

    python benchmarks/cost.py            prints the tables and writes benchmarks/results/cost.md

Each measurement runs in a process of its own with one thread, so that the peak memory is its own. Time is the median over repetitions
after a warm-up; peak memory is the largest resident size of the process, minus the size before the first pass.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scrcl.graph.adjacency import local_order, normalized_adjacency, symmetric_adjacency
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.nn.losses import cross_view_loss, view_losses
from scrcl.nn.minibatches import graph_minibatch
from scrcl.nn.module import SCRCLModule
from scrcl.nn.plan import SCRCLTrainingPlan

RESULTS = Path(__file__).parent / "results"
H, C, K = 128, 32, 15
LINEAR_SIZES = (5_000, 20_000, 80_000)
STEP_SIZES = (1_000, 2_000, 4_000)
#: Bytes that the dense loss was seen to need for a pair of cells: about eight float32 matrices.
DENSE_BYTES = 32


def cell_graph(n: int, k: int = K, seed: int = 0) -> sp.csr_array:
    """The nearest-neighbour graph of cells of 30 types, in the order that training uses."""
    rng = np.random.default_rng(seed)
    types = rng.normal(scale=2.5, size=(30, 20))[rng.integers(30, size=n)]
    points = (types + rng.normal(size=(n, 20))).astype(np.float32)
    graph = symmetric_adjacency(nearest_neighbors(points, k).to_sparse())
    order = local_order(graph)
    return graph[order][:, order]


def dense_alignment(e1: Tensor, e2: Tensor) -> Tensor:
    overall = e1.flatten().softmax(0) - e2.flatten().softmax(0)
    by_cell = e1.softmax(1) - e2.softmax(1)
    difference = (e1 - e2).flatten()
    return overall @ difference + by_cell.flatten() @ difference / (2 * len(e1))


def dense_losses(e1: Tensor, e2: Tensor, z1: Tensor, z2: Tensor, adjacency: Tensor) -> Tensor:
    """The loss of the published code: the same value, by matrices of all pairs of cells."""
    n = len(e1)
    p1, p2 = e1.softmax(1), e2.softmax(1)
    l1, l2 = e1.log_softmax(1), e2.log_softmax(1)
    divergence = (p1 * l1).sum(1)[:, None] + (p2 * l2).sum(1)[None] - p1 @ l2.T - l1 @ p2.T
    eye = torch.eye(n)
    to_neighbors = ((adjacency + eye) * divergence).sum(1) / (adjacency.sum(1) + 1)
    far = ((1 - eye) * divergence).sum(1) / (n - 1)
    cross_view = (z1 @ z2.T - adjacency - eye).pow(2).sum() / n**2
    return dense_alignment(e1, e2) + 100 * (to_neighbors / far).mean() + cross_view


def losses(n: int, dense: bool) -> Callable[[], None]:
    """One forward and backward pass of the full loss."""
    graph = cell_graph(n)
    adjacency = graph_minibatch(np.zeros((n, 1), np.float32), graph)["adjacency"]
    if dense:
        adjacency = adjacency.to_dense()
    torch.manual_seed(0)
    views = [F.normalize(torch.randn(n, width)).requires_grad_() for width in (H, H, C, C)]

    def run() -> None:
        e1, e2, z1, z2 = views
        if dense:
            loss = dense_losses(e1, e2, z1, z2, adjacency)
        else:
            alignment, neighborhood = view_losses(e1, e2, adjacency, 1.0)
            loss = alignment + 100 * neighborhood + cross_view_loss(z1, z2, adjacency)
        loss.backward()
        for view in views:
            view.grad = None

    return run


class PublishedModule(nn.Module):
    """The network of the published configuration: counts straight into 1,500 units, one gene weight a cell."""

    def __init__(self, n: int, n_genes: int = 2_000, h: int = 1_500, c: int = 10) -> None:
        super().__init__()
        self.cell = nn.Linear(n_genes, h)
        self.first, self.second, self.last = nn.Linear(n_genes, h), nn.Linear(h, h), nn.Linear(h, h)
        self.genes = nn.Linear(n, c)
        self.to_genes = nn.Linear(h, n_genes)

    def loss(self, x: Tensor, adjacency: Tensor, propagation: Tensor, gene_propagation: Tensor) -> Tensor:
        h1 = F.relu(self.cell(x))
        h2 = F.leaky_relu(propagation @ self.first(x))
        h2 = F.leaky_relu(propagation @ self.second(h2))
        h2 = F.leaky_relu(self.last(F.dropout(h2, 0.3)))
        genes = F.relu(gene_propagation @ self.genes(x.T))
        z1, z2 = (F.normalize(self.to_genes(F.dropout(h, 0.3)) @ genes) for h in (h1, h2))
        return dense_losses(F.normalize(h1), F.normalize(h2), z1, z2, adjacency)


def published_step(n: int) -> Callable[[], None]:
    """One training step of the published configuration."""
    torch.manual_seed(0)
    graph = cell_graph(n)
    adjacency = torch.from_numpy(graph.toarray().astype(np.float32))
    propagation = torch.from_numpy(normalized_adjacency(graph).toarray().astype(np.float32))
    gene_propagation = torch.from_numpy(cell_graph(2_000, 5).toarray().astype(np.float32) / 10)
    x = torch.poisson(torch.full((n, 2_000), 0.5))
    module = PublishedModule(n)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4, weight_decay=0.1)

    def run() -> None:
        optimizer.zero_grad()
        module.loss(x, adjacency, propagation, gene_propagation).backward()
        optimizer.step()

    return run


def scrcl_step(n: int) -> Callable[[], None]:
    """One training step of SCRCL with its defaults."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    batch = graph_minibatch(rng.normal(size=(n, 100)).astype(np.float32), cell_graph(n))
    profiles = rng.normal(size=(2_000, 50)).astype(np.float32)
    module = SCRCLModule(profiles, n_input=100, n_hidden=H, n_refined=C, temperature=1.0, dropout_rate=0.1)
    optimizer = SCRCLTrainingPlan(module).configure_optimizers()["optimizer"]

    def run() -> None:
        optimizer.zero_grad()
        module(batch)[2].loss.backward()
        optimizer.step()

    return run


TASKS: dict[str, Callable[[int], Callable[[], None]]] = {
    "linear loss": lambda n: losses(n, dense=False),
    "dense loss": lambda n: losses(n, dense=True),
    "SCRCL step": scrcl_step,
    "published step": published_step,
}


def resident() -> float:
    """Resident memory of this process now, in GB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9


def work(task: str, n: int) -> None:
    """Measure one task in this process and print the figures."""
    run = TASKS[task](n)
    before = resident()
    run()
    seconds: list[float] = []
    while len(seconds) < 5 or (sum(seconds) < 2 and len(seconds) < 50):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"seconds": statistics.median(seconds), "grown": peak - before, "peak": peak}))


def measure(task: str, n: int) -> dict[str, float]:
    print(f"{task}, {n:,} cells …", file=sys.stderr)
    command = [sys.executable, __file__, "--task", task, "--cells", str(n)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def exponent(sizes: tuple[int, ...], values: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def report() -> str:
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    linear = {n: measure("linear loss", n) for n in LINEAR_SIZES}
    dense = {n: measure("dense loss", n) for n in LINEAR_SIZES if DENSE_BYTES * n**2 < available}
    lines = [
        f"One forward and backward pass of the full loss (h = {H}, c = {C}, k = {K}), float32.",
        "",
        "| cells | linear, s | linear, GB grown | linear, GB peak | dense, s | dense, GB grown | dense : linear, time |",
        "|---|---|---|---|---|---|---|",
    ]
    for n, ours in linear.items():
        if n in dense:
            theirs = (
                f"{dense[n]['seconds']:.2f} | {dense[n]['grown']:.2f} | {dense[n]['seconds'] / ours['seconds']:.0f}"
            )
        else:
            theirs = f"does not fit | about {DENSE_BYTES * n**2 / 1e9:.0f} | –"
        lines.append(f"| {n:,} | {ours['seconds']:.3f} | {ours['grown']:.3f} | {ours['peak']:.2f} | {theirs} |")
    slopes = [exponent(LINEAR_SIZES, [linear[n][figure] for n in LINEAR_SIZES]) for figure in ("seconds", "grown")]
    lines += ["", f"Fitted exponents of the linear form: time {slopes[0]:.2f}, memory {slopes[1]:.2f}.", ""]
    lines += [
        "One training step (forward, backward, Adam) with the defaults of SCRCL, beside the published configuration "
        "(2,000 genes into 1,500 hidden units, dense losses).",
        "",
        "| cells | SCRCL, s | published, s | published : SCRCL |",
        "|---|---|---|---|",
    ]
    for n in STEP_SIZES:
        step, published = measure("SCRCL step", n)["seconds"], measure("published step", n)["seconds"]
        lines.append(f"| {n:,} | {step:.4f} | {published:.3f} | {published / step:.0f} |")
    lines += [
        "",
        f"One thread of {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}, seed 0.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--cells", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        work(arguments.task, arguments.cells)
    else:
        RESULTS.mkdir(exist_ok=True)
        text = report()
        (RESULTS / "cost.md").write_text(text)
        print(text)
