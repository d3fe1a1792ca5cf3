"""Time and memory of each phase from a thousand to a million cells, for SCRCL, Scanpy and scVI.

    python benchmarks/scale.py --folder /data/cells                 1k to 1M cells; makes the files first
    python benchmarks/scale.py --folder /data/cells --sizes 1000 10000
    python benchmarks/scale.py --folder /data/cells --sizes 5000000 --methods SCRCL
    python benchmarks/scale.py --report                             only the table, from earlier runs
    python benchmarks/scale.py --folder /data/cells --warm          500 to 1M cells, cold and warm, CPU seconds of one thread
    python benchmarks/scale.py --folder /data/cells --warm --sizes 500 2000 --methods SCRCL Scanpy

The cells are simulated by `benchmarks/resample.py` from real labelled data sets. Each run is a process of its own, for its
peak memory, with `--threads` threads. Labels are used for scores, and for nothing else. The time is that of the whole
process; importing the packages is a separate phase.

- SCRCL: `scrcl run`, from counts on disk to clusters on disk.
- Scanpy: reading, log-normalisation, 2,000 genes, PCA, neighbours and Leiden with their defaults, in memory.
- scVI: reading, 2,000 genes, chosen on at most 100,000 cells, and one epoch, times the number of epochs that is its default.
"""

import argparse
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import scipy.sparse as sp
from anndata.io import read_elem
from resample import write
from sklearn.metrics import adjusted_rand_score

RESULTS = Path(__file__).parent / "results"
SIZES = (1_000, 10_000, 20_000, 100_000, 1_000_000)
METHODS = ("SCRCL", "Scanpy", "scVI")
#: Variables of the environment that set the number of threads.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
#: Sizes that are run twice in one process, and the number of cells up to which Scanpy computes exact neighbours.
WARM_SIZES, EXACT_CELLS = (500, 2_000, 4_000, 12_000, 20_000, 100_000, 1_000_000), 8_192
#: Largest size of scVI, and smallest size at which the counts of SCRCL stay in the file and all read them in the measured time.
SCVI_CELLS, FILE_CELLS = 20_000, 100_000
#: Cells on which the genes of scVI are chosen.
CHOOSING = 100_000
PACKAGES = ("scrcl", "scvi-tools", "torch", "scanpy", "scikit-learn", "pynndescent", "igraph", "anndata", "numpy")


@contextmanager
def phase(seconds: dict[str, float], name: str, clock: Callable[[], float] = time.perf_counter) -> Iterator[None]:
    start = clock()
    yield
    seconds[name] = clock() - start


def run_scrcl(path: Path) -> tuple[dict[str, float], np.ndarray]:
    from scrcl.cli import main

    output = path.with_suffix(".out.h5ad")
    start = time.perf_counter()
    if main(["run", str(path), "-o", str(output), "--overwrite"]):
        sys.exit("scrcl run failed")
    total = time.perf_counter() - start
    with h5py.File(output) as file:
        clusters = read_elem(file["obs"])["scrcl"].to_numpy()
        seconds = {name: float(value) for name, value in read_elem(file["uns/scrcl_run/seconds"]).items()}
    output.unlink()
    return {**seconds, "writing": total - sum(seconds.values())}, clusters


def descent(n: int) -> object:
    """What scanpy uses by default for ``n`` cells, in a form that it can read whatever the version of scikit-learn."""
    from pynndescent import PyNNDescentTransformer

    class Descent(PyNNDescentTransformer):
        def fit_transform(self, X: np.ndarray, y: None = None) -> sp.csr_matrix:
            return sp.csr_matrix(super().fit_transform(X, y))

    trees, iterations = min(64, 5 + round(n**0.5 / 20)), max(5, round(np.log2(n)))
    return Descent(n_neighbors=15, n_trees=trees, n_iters=iterations, random_state=0)


def run_scanpy(path: Path) -> tuple[dict[str, float], np.ndarray]:
    seconds: dict[str, float] = {}
    with phase(seconds, "loading"):
        import pynndescent  # noqa: F401
        import scanpy as sc

    with phase(seconds, "reading"):
        adata = ad.read_h5ad(path)
    with phase(seconds, "features"):
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
        sc.pp.highly_variable_genes(adata, n_top_genes=2_000)
        adata = adata[:, adata.var["highly_variable"]].copy()
        sc.pp.pca(adata)
    with phase(seconds, "graph"):
        sc.pp.neighbors(adata, transformer=descent(adata.n_obs))
    with phase(seconds, "clustering"):
        sc.tl.leiden(adata, flavor="igraph", n_iterations=2)
    return seconds, adata.obs["leiden"].to_numpy()


def run_scvi(path: Path) -> tuple[dict[str, float], None]:
    seconds: dict[str, float] = {}
    with phase(seconds, "loading"):
        import scanpy as sc
        import scvi

    scvi.settings.seed = 0
    with phase(seconds, "reading"):
        adata = ad.read_h5ad(path)
    with phase(seconds, "features"):
        some = np.random.default_rng(0).permutation(adata.n_obs)[:CHOOSING]
        logged = adata[np.sort(some)].copy()  # of all, two copies of a million cells do not fit
        sc.pp.normalize_total(logged)
        sc.pp.log1p(logged)
        sc.pp.highly_variable_genes(logged, n_top_genes=2_000)
        adata = adata[:, logged.var["highly_variable"]].copy()
        del logged
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata)
    epochs = min(round(20_000 / adata.n_obs * 400), 400)
    with phase(seconds, "training"):
        model.train(1, accelerator="cpu", enable_progress_bar=False)
    seconds["training"] *= epochs
    with phase(seconds, "inference"):
        model.get_latent_representation()
    return seconds, None


def work(method: str, path: Path) -> None:
    """One run in this process; prints its figures."""
    warnings.simplefilter("ignore")
    seconds, clusters = {"SCRCL": run_scrcl, "Scanpy": run_scanpy, "scVI": run_scvi}[method](path)
    scores: dict[str, float] = {}
    if clusters is not None:
        with h5py.File(path) as file:
            truth = read_elem(file["obs"])["cell_type"].to_numpy()
        first = slice(0, 20_000)
        scores = {
            "ARI": float(adjusted_rand_score(truth, clusters)),
            "ARI of the first 20,000": float(adjusted_rand_score(truth[first], clusters[first])),
            "clusters": len(np.unique(clusters)),
        }
    print(json.dumps({"seconds": seconds, "peak": peak_memory(), **scores}))


def run_warm(method: str, path: Path, size: int) -> dict[str, float]:
    """CPU seconds of each phase of a method, from counts to clusters, or to the latent representation of scVI."""
    import scanpy as sc
    import scvi

    import scrcl

    seconds: dict[str, float] = {}
    with phase(seconds, "read", time.process_time):
        adata = ad.read_h5ad(path, backed="r" if method == "SCRCL" and size >= FILE_CELLS else None)
    if size < FILE_CELLS:
        del seconds["read"]
    if method == "SCRCL":
        scrcl.SCRCL.setup_anndata(adata)
        with phase(seconds, "prepare", time.process_time):
            model = scrcl.SCRCL(adata)
        with phase(seconds, "train", time.process_time):
            model.train(accelerator="cpu", enable_progress_bar=False)
        with phase(seconds, "clusters", time.process_time):
            model.get_clusters()
        model.deregister_manager(adata)  # or scvi-tools keeps the data for as long as the process runs
        return seconds
    with phase(seconds, "prepare", time.process_time):
        counts = adata.copy() if method == "scVI" else None
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
        sc.pp.highly_variable_genes(adata, n_top_genes=2_000)
        chosen = adata.var["highly_variable"]
        adata = (adata if counts is None else counts)[:, chosen].copy()
    if method == "scVI":
        scvi.model.SCVI.setup_anndata(adata)
        network = scvi.model.SCVI(adata)
        with phase(seconds, "train", time.process_time):
            network.train(1, accelerator="cpu", enable_progress_bar=False)
        seconds["train"] *= min(round(20_000 / size * 400), 400)
        network.deregister_manager(adata)
        return seconds
    with phase(seconds, "graph", time.process_time):
        sc.pp.pca(adata)
        sc.pp.neighbors(adata, transformer=None if size < EXACT_CELLS else descent(size))
    with phase(seconds, "clusters", time.process_time):
        sc.tl.leiden(adata, flavor="igraph", n_iterations=2)
    return seconds


def peak_memory() -> float:
    """Largest resident size of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def work_warm(method: str, path: Path, size: int) -> None:
    """Run a method twice in this process; prints the figures of both runs."""
    warnings.simplefilter("ignore")
    cold = run_warm(method, path, size)
    gc.collect()  # the memory of one run
    warm = run_warm(method, path, size)
    print(json.dumps({"cold": cold, "warm": warm, "peak": peak_memory()}))


def measure_warm(method: str, size: int, folder: Path) -> None:
    """Run a method on cells of a size in a process of its own, with one thread, and keep the figures."""
    print(f"{method}, {size:,} cells …", file=sys.stderr, flush=True)
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    command = [sys.executable, __file__, "--warm", "--work", method, "--sizes", str(size), "--folder", str(folder)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    result = RESULTS / "scale_warm" / f"{method}-{size}.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(done.stdout.splitlines()[-1] + "\n")


def report_warm() -> str:
    """The table of cold and warm runs, of all sizes that were run."""
    runs: dict[str, dict[int, dict]] = {method: {} for method in METHODS}
    for path in (RESULTS / "scale_warm").glob("*-*.json"):
        method, size = path.stem.split("-")
        runs[method][int(size)] = json.loads(path.read_text())
    sizes = sorted(set(runs["SCRCL"]) & set(runs["Scanpy"]))

    def total(method: str, size: int, which: str) -> float:
        return sum(runs[method][size][which].values()) if size in runs[method] else float("nan")

    columns: dict[str, list[float]] = {
        "SCRCL : Scanpy, warm": [total("SCRCL", n, "warm") / total("Scanpy", n, "warm") for n in sizes],
        "memory": [runs["SCRCL"][n]["peak"] / runs["Scanpy"][n]["peak"] for n in sizes],
        **{name: [runs["SCRCL"][n]["warm"][name] for n in sizes] for name in ("prepare", "train", "clusters")},
        **{f"{method}, warm": [total(method, n, "warm") for n in sizes] for method in METHODS},
        **{f"{method}, cold": [total(method, n, "cold") for n in sizes] for method in METHODS[:2]},
        "SCRCL : Scanpy, cold": [total("SCRCL", n, "cold") / total("Scanpy", n, "cold") for n in sizes],
        **{f"{method}, GB": [runs[method][n]["peak"] for n in sizes] for method in METHODS[:2]},
    }

    def shown(values: list[float], digits: int) -> str:
        return " | ".join("–" if np.isnan(value) else f"{value:.{digits}f}" for value in values)

    def exponent(values: list[float]) -> float:
        known = [n for n, value in enumerate(values) if value > 0]
        return float(np.polyfit(np.log(np.take(sizes, known)), np.log(np.take(values, known)), 1)[0])

    compiling = {
        method: max(total(method, n, "cold") - total(method, n, "warm") for n in sizes) for method in METHODS[:2]
    }
    lines = [
        "CPU seconds of one thread, without imports; reading is included from 100,000 cells on. Warm is the second run in one process, and "
        "cold the first, in which libraries compile. Memory is the peak of the process.",
        "",
        f"| | {' | '.join(f'{size:,}' for size in sizes)} | exponent |",
        "|---" * (len(sizes) + 2) + "|",
        *(
            f"| {name} | {shown(values, 2 if ' : ' in name or name in ('memory',) or 'GB' in name else 1)} | {exponent(values):.2f} |"
            for name, values in columns.items()
            if not np.isnan(values).all() and len(sizes) > 1
        ),
        "",
        f"Compiling costs at most {compiling['Scanpy']:.1f} s with Scanpy, in each process, and {max(compiling['SCRCL'], 0):.1f} s with SCRCL.",
        "",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES) + ".",
    ]
    return "\n".join(lines) + "\n"


def measure(method: str, size: int, folder: Path, threads: int) -> None:
    path = folder / f"cells{size}.h5ad"
    print(f"{method}, {size:,} cells …", file=sys.stderr, flush=True)
    environment = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    command = [sys.executable, __file__, "--work", method, "--folder", str(path)]
    done = subprocess.run(command, env=environment, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{method} failed with {size:,} cells")
    result = RESULTS / "scale" / f"{method}-{size}.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(done.stdout.splitlines()[-1] + "\n")


def exponents(sizes: list[int], values: list[float]) -> str:
    """Cells of the table with the slope of the logarithms over all sizes, and without the smallest, where constants rule."""
    clusters = []
    for least in SIZES[:2]:
        kept = [(size, value) for size, value in zip(sizes, values, strict=True) if size >= least and value > 0]
        if len(kept) > 1:
            x, y = np.log(kept).T
            clusters.append(f"{np.polyfit(x, y, 1)[0]:.2f}")
        else:
            clusters.append("–")
    return " | ".join(clusters)


def report(threads: int) -> str:
    """The table of all that was run, of each method the sizes that it has."""
    runs = {}
    for path in (RESULTS / "scale").glob("*-*.json"):
        method, size = path.stem.split("-")
        runs[method, int(size)] = json.loads(path.read_text())
    all_sizes = sorted({size for _, size in runs})
    lines = [
        "Seconds of each phase and peak memory, with exponents fitted to all sizes and to those from 10,000 cells on. Machines are "
        "noisy, so compare ratios.",
    ]
    totals: dict[tuple[str, int], float] = {}
    for method in METHODS:
        sizes = [size for size in all_sizes if (method, size) in runs]
        if not sizes:
            continue
        phases = list(dict.fromkeys(name for size in sizes for name in runs[method, size]["seconds"]))
        lines += [
            "",
            f"### {method}",
            "",
            f"| | {' | '.join(f'{size:,}' for size in sizes)} | exponent | from 10,000 |",
        ]
        lines += ["|---" * (len(sizes) + 3) + "|"]
        for name in phases:
            values = [runs[method, size]["seconds"].get(name, 0.0) for size in sizes]
            lines.append(f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} | {exponents(sizes, values)} |")
        sums = [sum(runs[method, size]["seconds"].values()) for size in sizes]
        totals |= {(method, size): total for size, total in zip(sizes, sums, strict=True)}
        lines.append(f"| **total** | {' | '.join(f'{value:.1f}' for value in sums)} | {exponents(sizes, sums)} |")
        peaks = [runs[method, size]["peak"] for size in sizes]
        lines.append(f"| peak, GB | {' | '.join(f'{value:.2f}' for value in peaks)} | {exponents(sizes, peaks)} |")
        for name in ("ARI", "ARI of the first 20,000", "clusters"):
            if name in runs[method, sizes[0]]:
                values = [runs[method, size][name] for size in sizes]
                shown = [str(value) if name == "clusters" else f"{value:.3f}" for value in values]
                lines.append(f"| {name} | {' | '.join(shown)} | | |")
    figures = {"time": totals, "peak memory": {run: float(result["peak"]) for run, result in runs.items()}}
    for rival in METHODS[1:]:
        both = [size for size in all_sizes if all((method, size) in runs for method in ("SCRCL", rival))]
        if not both:
            continue
        lines += ["", "| | " + " | ".join(f"{size:,}" for size in both) + " |", "|---" * (len(both) + 1) + "|"]
        for what, of_run in figures.items():
            ratios = [f"{of_run['SCRCL', size] / of_run[rival, size]:.2f}" for size in both]
            lines.append(f"| SCRCL : {rival}, {what} | {' | '.join(ratios)} |")
    lines += [
        "",
        f"{threads} threads of {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in PACKAGES)
        + ", seed 0.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=Path("cells"), help="where the files of cells are, or are made")
    parser.add_argument("--sizes", type=int, nargs="+", help="by default all that the benchmark has")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SCRCL_DATA", "../shared/data")))
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--work", choices=METHODS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = arguments.sizes or (WARM_SIZES if arguments.warm else SIZES)
    if arguments.work and arguments.warm:
        work_warm(arguments.work, arguments.folder / f"cells{sizes[0]}.h5ad", sizes[0])
        sys.exit()
    if arguments.work:
        work(arguments.work, arguments.folder)
        sys.exit()
    if not arguments.report:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        for size in sizes:
            if not (file := arguments.folder / f"cells{size}.h5ad").exists():
                write(file, arguments.data, size, 0)
            for method in arguments.methods:
                if not arguments.warm:
                    measure(method, size, arguments.folder, arguments.threads)
                elif method != "scVI" or size <= SCVI_CELLS:
                    measure_warm(method, size, arguments.folder)
    RESULTS.mkdir(exist_ok=True)
    text = report_warm() if arguments.warm else report(arguments.threads)
    (RESULTS / ("scale_warm.md" if arguments.warm else "scale.md")).write_text(text)
    print(text)
