"""Seconds of one thread and peak memory for domains of many cells in a simulated tissue, beside other methods.

    python benchmarks/spatial_size.py --cells 100000 --genes 33 20000

The tissue has 8 domains, each with its own mixture of 12 cell types, in a square; a cell has about 1,000 counts. Banksy and
CellCharter have an environment of their own, see `spatial_external.py`: name its Python in `$SPATIAL_PYTHON`. A run includes the
start of Python and reading the counts, and ends at the limits of `--seconds` and `--gigabytes`. Writes
`benchmarks/results/spatial_size.md`.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from methods import trained
from quality import RESULTS
from report import row
from runs import ONE_THREAD, machine
from sklearn.metrics import adjusted_rand_score
from spatial import PACKAGES

N_DOMAINS, N_TYPES, MEAN_COUNTS = 8, 12, 1000
#: Start of Python and reading the counts, which all methods include, has a row of its own.
READING = "start and reading"
METHODS = (READING, "SCRCL", "Banksy", "CellCharter")


def simulate(n_cells: int, n_genes: int, seed: int = 0) -> ad.AnnData:
    """Counts of cells in a square; domains are the cells nearest to one of some points."""
    rng = np.random.default_rng(seed)
    points = rng.random((n_cells, 2))
    centers = rng.random((N_DOMAINS, 2))
    domain = ((points[:, None] - centers) ** 2).sum(2).argmin(1)
    mixtures = rng.dirichlet(np.full(N_TYPES, 0.3), N_DOMAINS).cumsum(1)
    types = np.minimum((rng.random(n_cells)[:, None] > mixtures[domain]).sum(1), N_TYPES - 1)
    base = rng.lognormal(0, 1, n_genes)
    profiles = base * rng.lognormal(0, 0.7, (N_TYPES, n_genes))
    depth = rng.poisson(MEAN_COUNTS * rng.lognormal(0, 0.3, n_cells))
    blocks = []
    for start in range(0, n_cells, 5000):  # so that few counts are in memory at once
        cells = np.arange(start, min(start + 5000, n_cells))
        genes = np.empty(depth[cells].sum(), dtype=np.int32)
        rows = np.repeat(np.arange(len(cells)), depth[cells])
        for kind in range(N_TYPES):
            drawn = types[cells][rows] == kind
            cumulative = (profiles[kind] / profiles[kind].sum()).cumsum()
            genes[drawn] = np.minimum(cumulative.searchsorted(rng.random(drawn.sum())), n_genes - 1)
        block = sp.coo_array((np.ones(len(rows), dtype=np.float32), (rows, genes)), (len(cells), n_genes))
        blocks.append(block.tocsr())
    adata = ad.AnnData(sp.csr_matrix(sp.vstack(blocks, format="csr")), obsm={"spatial": 1000 * points})
    adata.obs["domain"] = domain.astype(str)
    return adata


def work(data: str, output: str) -> None:
    """SCRCL with its defaults, which include the number of domains."""
    warnings.simplefilter("ignore")
    labels = trained(ad.read_h5ad(data), 0, None, {"spatial_key": "spatial"}).get_clusters(seed=0)
    labels.rename("domain").to_csv(output)


def measure(command: list[str], seconds: int, gigabytes: int) -> tuple[str, str, bool]:
    """Processor time and peak memory of a command, within limits; whether it ended well."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_DATA, (gigabytes << 30, gigabytes << 30))

    environment = {**os.environ, **ONE_THREAD, "NUMBA_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, preexec_fn=limit, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    used = usage.ru_utime + usage.ru_stime
    if process.returncode == 0:
        return f"{used:.0f}", f"{usage.ru_maxrss / 2**20:.1f}", True
    if used >= seconds - 1:
        return f"> {seconds}", f"{usage.ru_maxrss / 2**20:.1f}", False
    if "MemoryError" in errors or "allocate" in errors:
        return f"stopped at {used:.0f}", f"> {gigabytes}", False
    sys.exit(f"{' '.join(command)} failed:\n{errors}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, nargs="+", default=[33, 20_000])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seconds", type=int, default=300, help="limit of the processor time of a run")
    parser.add_argument("--gigabytes", type=int, default=12, help="limit of the memory of a run")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work)
        return
    lines = [row(["cells", "genes", "method", "CPU seconds", "peak GB", "ARI"]), row(["---"] * 6)]
    with tempfile.TemporaryDirectory() as folder:
        for n_genes in arguments.genes:
            data, output = f"{folder}/{n_genes}.h5ad", f"{folder}/labels.csv"
            adata = simulate(arguments.cells, n_genes)
            truth = adata.obs.pop("domain").to_numpy()
            adata.write_h5ad(data)
            del adata
            for method in arguments.methods:
                if method == READING:
                    command = [sys.executable, "-c", f"import anndata, scrcl; scrcl.SCRCL; anndata.read_h5ad({data!r})"]
                elif method == "SCRCL":
                    command = [sys.executable, __file__, "--work", data, output]
                else:
                    script = str(Path(__file__).parent / "spatial_external.py")
                    number = N_DOMAINS if method == "CellCharter" else 0  # 0: Leiden at its default resolution
                    command = [os.environ["SPATIAL_PYTHON"], script, method, data, str(number), "0", output]
                seconds, memory, done = measure(command, arguments.seconds, arguments.gigabytes)
                ari = "–"
                if done and method != READING:
                    found = pd.read_csv(output, dtype=str)["domain"].fillna("").to_numpy(str)
                    ari = f"{adjusted_rand_score(truth, found):.2f}"
                lines.append(row([f"{arguments.cells:,}", f"{n_genes:,}", method, seconds, memory, ari]))
                print(lines[-1], flush=True)
    lines += ["", f"{machine(PACKAGES)}.", ""]
    (RESULTS / "spatial_size.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
