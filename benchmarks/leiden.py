"""Leiden communities as scrcl finds them, beside those of igraph on the same graphs: agreement, modularity and time.

    python benchmarks/leiden.py cells/cells1000.h5ad cells/cells20000.h5ad
    python benchmarks/leiden.py cells/cells1000000.h5ad --resolutions 0.1 --output leiden_million

The files are made by `benchmarks/resample.py`. The graph is that of `get_clusters(method="leiden")`, on the features by which
neighbours are found. The agreement of two seeds of igraph shows how much of a difference is chance.
"""

import argparse
import random
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import igraph
import numpy as np
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

import scrcl
from scrcl.cluster.leiden import _build_graph, _divide

RESULTS = Path(__file__).parent / "results"
RESOLUTIONS = (0.1, 1.0)
SEEDS = (0, 1)


def modularity(graph: sp.csr_array, labels: np.ndarray, resolution: float) -> float:
    degrees = graph.sum(axis=1).astype(np.float64)
    total = degrees.sum()
    inside = sp.coo_array(graph)
    row, column = inside.coords
    by_community = np.bincount(labels, degrees)
    return float((labels[row] == labels[column]).sum() / total - resolution * (by_community**2).sum() / total**2)


def with_igraph(graph: sp.csr_array, n_iterations: int) -> Callable[[float, int], np.ndarray]:
    upper = sp.triu(graph, format="coo")
    edges = igraph.Graph(n=graph.shape[0], edges=np.column_stack(upper.coords))

    def find(resolution: float, seed: int) -> np.ndarray:
        igraph.set_random_number_generator(random.Random(seed))
        found = edges.community_leiden("modularity", resolution=resolution, n_iterations=n_iterations)
        return np.asarray(found.membership)

    return find


def rows_of(path: Path, resolutions: list[float]) -> list[str]:
    adata = ad.read_h5ad(path, backed="r")
    scrcl.SCRCL.setup_anndata(adata)
    points = scrcl.SCRCL(adata)._reference.neighbor_features
    graph = _build_graph(points)
    methods = {
        "scrcl": lambda resolution, seed: _divide(points, graph, resolution, seed).labels,
        "igraph, 2 iterations": with_igraph(graph, 2),
        "igraph, until it converges": with_igraph(graph, -1),
    }
    rows = []
    for resolution in resolutions:
        found, seconds = {}, {}
        for name, find in methods.items():
            start = time.process_time()
            found[name] = [find(resolution, seed) for seed in SEEDS]
            seconds[name] = (time.process_time() - start) / len(SEEDS)
        last = found["igraph, until it converges"]
        for name, labels in found.items():
            with_it = np.mean([adjusted_rand_score(one, other) for one in labels for other in last if one is not other])
            rows.append(
                f"| {len(points):,} | {resolution} | {name} | {np.mean([one.max() + 1 for one in labels]):.1f} "
                f"| {np.mean([modularity(graph, one, resolution) for one in labels]):.4f} "
                f"| {adjusted_rand_score(*labels):.3f} | {with_it:.3f} | {seconds[name]:.2f} |"
            )
            print(rows[-1], flush=True)
    return rows


def main(paths: list[Path], resolutions: list[float]) -> str:
    head = "| cells | resolution | method | communities | modularity | two seeds agree | agrees with igraph | seconds |"
    rows = [
        head,
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row for path in paths for row in rows_of(path, resolutions)),
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in ("scrcl", "graspologic-native", "igraph"))
    return (
        "\n".join(rows)
        + f"\n\nAgreement is the adjusted Rand index, mean over seeds; processor seconds of one thread; {versions}.\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--resolutions", type=float, nargs="+", default=RESOLUTIONS)
    parser.add_argument("--output", default="leiden", help="name of the file of results")
    arguments = parser.parse_args()
    text = main(arguments.paths, arguments.resolutions)
    (RESULTS / f"{arguments.output}.md").write_text(text)
    print(text)
