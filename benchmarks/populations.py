"""Cells of one population, draws from a null fitted to them, and mixtures of two, of known truth."""

import os
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import scipy.sparse as sp

DATA = Path(os.environ.get("SCRCL_DATA", Path(__file__).parents[1] / "shared" / "data"))
#: Data sets of cell lines and of sorted cells, whose labels do not depend on expression.
SETS = ("cellbench_celseq2_5cl", "zheng_pbmc500", "li_celllines561", "cellhash_4lines")
#: Least number of cells of a population, and of the smaller part of a mixture.
MIN_CELLS, MIN_PART = 73, 20
#: Genes of a draw from the null.
N_GENES = 3000
#: Shares of the larger part of a mixture.
SHARES = (0.5, 0.9, 0.97)


class Population(NamedTuple):
    """Cells of one line or sorted type."""

    name: str
    dataset: str
    counts: sp.csr_array


class Mixture(NamedTuple):
    """Cells of two populations, `part` is true for those of the smaller one."""

    name: str
    share: float
    counts: sp.csr_array
    part: np.ndarray


def populations(datasets: tuple[str, ...] = SETS) -> list[Population]:
    """The populations of the sets with enough cells, of one batch where types differ by batch."""
    result = []
    for dataset in datasets:
        adata = ad.read_h5ad(DATA / f"{dataset}.h5ad")
        labels = adata.obs["cell_type"].astype(str)
        counts = sp.csr_array(adata.X)
        sizes = labels.value_counts()
        for label in sorted(sizes.index[sizes >= MIN_CELLS]):
            result.append(Population(f"{dataset}: {label}", dataset, counts[np.flatnonzero(labels == label)]))
    return result


def mixtures(parts: list[Population], share: float, n_pairs: int = 12, seed: int = 0) -> list[Mixture]:
    """Mixtures of two populations of a data set; the larger has this share of the cells, but for at least 20 of the other."""
    rng = np.random.default_rng(seed)
    pairs = [(a, b) for a in parts for b in parts if a.name != b.name and a.dataset == b.dataset]
    result = []
    for number in rng.permutation(len(pairs))[:n_pairs]:
        larger, smaller = (population.counts for population in pairs[number])
        odds = share / (1 - share)
        n_smaller = int(min(smaller.shape[0], max(MIN_PART, larger.shape[0] / odds)))
        n_larger = int(min(larger.shape[0], n_smaller * odds))
        rows = [
            rng.choice(counts.shape[0], n, replace=False) for counts, n in ((larger, n_larger), (smaller, n_smaller))
        ]
        counts = sp.csr_array(sp.vstack([larger[rows[0]], smaller[rows[1]]]))
        part = np.arange(n_larger + n_smaller) >= n_larger
        name = f"{pairs[number][0].name} + {pairs[number][1].name.partition(': ')[2]}"
        result.append(Mixture(name, share, counts, part))
    return result


def null_draws(parts: list[Population], n_draws: int, seed: int = 0) -> list[Population]:
    """Draws of as many cells from the null that is fitted to each population in turn, with its most expressed genes."""
    from scrcl.cluster.null import OnePopulation

    rng = np.random.default_rng(seed)
    nulls = []
    for population in parts:
        genes = np.argsort(-population.counts.sum(axis=0), kind="stable")[:N_GENES]
        nulls.append(OnePopulation.fit(population.counts[:, np.sort(genes)]))
    result = []
    for number in range(n_draws):
        population, null = parts[number % len(parts)], nulls[number % len(parts)]
        result.append(population._replace(counts=null.draw(population.counts.shape[0], rng)))
    return result
