"""Consensus of agglomerated micro-clusters, over plain arrays.

k-means wants clusters of equal size and divides the largest cell type rather than find the rare ones. Here k-means only
makes many small clusters of the latent space. These are joined by how similar their cells are in the features, which
training has not drawn together, and several such clusterings are reconciled.
"""

import numpy as np
import scipy.cluster.hierarchy
from scipy.spatial.distance import squareform
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from ._cluster import Clustering, number_by_size

#: Micro-clusters, and atoms on which clusterings are reconciled, if there are enough cells.
N_MICRO, N_ATOMS = 60, 150
#: Clusterings that are reconciled.
N_REPEATS = 10
#: Cells and share of cells below which a micro-cluster joins another first.
SMALLEST_CELLS, SMALLEST_SHARE = 5, 0.005
#: Power of the size in the cost of joining two clusters: 0 is average linkage, 1 would be like Ward's.
SIZE_POWER = 0.05
#: Least similarity within a cluster by which noise is corrected.
LEAST_COHESION = 0.02


def consensus(points: np.ndarray, features: np.ndarray, n_clusters: int, seed: int) -> Clustering:
    """Consensus of agglomerated micro-clusters.

    Parameters
    ----------
    points
        ``(n, d)`` latent representation, in which micro-clusters are made.
    features
        ``(n, m)`` cell features, by which they are joined.
    n_clusters
        Number of clusters.
    seed
        Seed of the micro-clusters.
    """
    n = len(points)
    profiles = normalize(features)
    seeds = np.random.default_rng(seed).integers(2**31, size=N_REPEATS + 1)

    def divide(number: int, cells_each: int, seed: int) -> np.ndarray:
        number = max(min(number, n // cells_each), n_clusters)
        return KMeans(number, n_init=1, random_state=seed).fit_predict(points)

    runs = [agglomerate(profiles, divide(N_MICRO, 8, s), n_clusters) for s in seeds[:-1]]
    atoms = divide(N_ATOMS, 6, seeds[-1])
    joined = reconcile(runs, np.unique(atoms, return_inverse=True)[1], n_clusters)
    return Clustering(points, number_by_size(joined))


def agglomerate(profiles: np.ndarray, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    r"""Join clusters until ``n_clusters`` are left.

    The two clusters with the smallest :math:`d_{ab}\, s_{ab}^\alpha` are joined. :math:`d_{ab}` is one less the mean
    cosine between cells of both, divided by the geometric mean of the mean cosines between different cells of each:
    Spearman's correction for attenuation, without which noisy clusters seem far from all others. :math:`s_{ab}` is the
    harmonic mean of the sizes. Very small clusters join the most similar one first.

    Parameters
    ----------
    profiles
        ``(n, m)`` features with rows of unit length.
    labels
        ``(n,)`` clusters to start from.
    n_clusters
        Number of clusters; if there are no more to start from, they are left as they are.

    Returns
    -------
    ``(n,)`` clusters.
    """
    n = len(labels)
    _, labels = np.unique(labels, return_inverse=True)
    sizes = np.bincount(labels).astype(np.float64)
    sums = np.zeros((len(sizes), profiles.shape[1]))
    np.add.at(sums, labels, profiles)
    cosines = sums @ sums.T  # summed over all pairs of cells of two clusters
    names = np.arange(len(sizes))
    group = names.copy()

    def join(a: int, b: int) -> None:
        nonlocal cosines, sizes, names
        cosines[a] += cosines[b]
        cosines[:, a] += cosines[:, b]
        sizes[a] += sizes[b]
        group[group == names[b]] = names[a]
        cosines = np.delete(np.delete(cosines, b, 0), b, 1)
        sizes, names = np.delete(sizes, b), np.delete(names, b)

    while len(names) > n_clusters and sizes.min() < max(SMALLEST_CELLS, SMALLEST_SHARE * n):
        smallest = int(sizes.argmin())
        similarity = cosines[smallest] / sizes
        similarity[smallest] = -np.inf
        join(int(similarity.argmax()), smallest)
    while len(names) > n_clusters:
        cost = joining_cost(cosines, sizes)
        a, b = np.unravel_index(cost.argmin(), cost.shape)
        join(int(a), int(b))
    return group[labels]


def joining_cost(cosines: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Cost ``(k, k)`` of joining two clusters, from cosines summed over pairs of cells and from sizes.

    The diagonal is infinite.
    """
    pairs = np.maximum(sizes * (sizes - 1), 1)
    cohesion = np.maximum((np.diag(cosines) - sizes) / pairs, LEAST_COHESION)
    between = cosines / np.outer(sizes, sizes)
    distance = np.maximum(1 - between / np.sqrt(np.outer(cohesion, cohesion)), 1e-6)
    harmonic = 2 * np.outer(sizes, sizes) / np.add.outer(sizes, sizes) / sizes.sum()
    cost = distance * harmonic**SIZE_POWER
    np.fill_diagonal(cost, np.inf)
    return cost


def reconcile(runs: list[np.ndarray], atoms: np.ndarray, n_clusters: int) -> np.ndarray:
    """Reconcile clusterings by average linkage of how often atoms fall together.

    Parameters
    ----------
    runs
        Clusterings ``(n,)``.
    atoms
        ``(n,)`` atoms, numbered from 0, that are joined as wholes.
    n_clusters
        Number of clusters.

    Returns
    -------
    ``(n,)`` clusters.
    """
    n_atoms = int(atoms.max()) + 1
    together = np.zeros((n_atoms, n_atoms))
    for labels in runs:
        _, labels = np.unique(labels, return_inverse=True)
        shares = np.zeros((n_atoms, labels.max() + 1))
        np.add.at(shares, (atoms, labels), 1)
        shares /= shares.sum(1, keepdims=True)
        together += shares @ shares.T / len(runs)
    if n_atoms <= n_clusters:
        return atoms
    apart = np.clip(1 - (together + together.T) / 2, 0, None)
    np.fill_diagonal(apart, 0)
    tree = scipy.cluster.hierarchy.linkage(squareform(apart, checks=False), "average")
    return scipy.cluster.hierarchy.cut_tree(tree, n_clusters).ravel()[atoms]
