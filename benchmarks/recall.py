"""Recall of the approximate neighbour search, in the features of a file of cells.

python benchmarks/recall.py cells/cells100000.h5ad
"""

import argparse
import time
from pathlib import Path

import anndata as ad
import numpy as np

import scrcl
from scrcl.graph.neighbors import EXACT_TARGETS, LISTED_TARGETS, nearest_neighbors

RESULTS = Path(__file__).parent / "results"


def main(path: Path, queries: int, k: int) -> str:
    adata = ad.read_h5ad(path, backed="r")
    scrcl.SCRCL.setup_anndata(adata)
    points = scrcl.SCRCL(adata)._reference.neighbor_features
    start = time.perf_counter()
    neighbors = nearest_neighbors(points, k)
    seconds = time.perf_counter() - start
    chosen = np.random.default_rng(0).choice(len(points), queries, replace=False)
    similarity = points[chosen] @ points.T
    similarity[np.arange(queries), chosen] = -np.inf
    exact = np.argpartition(-similarity, k, axis=1)[:, :k]
    recalls = [len(np.intersect1d(a, b)) / k for a, b in zip(neighbors.indices[chosen], exact, strict=True)]
    return (
        f"{len(points):,} cells, {queries:,} of them evaluated: {np.mean(recalls):.4f} of the {k} nearest neighbours are found in the "
        f"mean (5 % quantile {np.quantile(recalls, 0.05):.2f}), in {seconds:.0f} s. Search uses inverted lists beyond "
        f"{EXACT_TARGETS:,} cells, and nearest-neighbour descent beyond {LISTED_TARGETS:,}.\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("path", type=Path)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--neighbors", type=int, default=15)
    arguments = parser.parse_args()
    text = main(arguments.path, arguments.queries, arguments.neighbors)
    (RESULTS / "recall.md").write_text(text)
    print(text)
