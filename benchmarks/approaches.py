"""Other scores of the confidence of clusters, for comparison in `certainty.py`; higher for cells that are more certain."""

import anndata as ad
import numpy as np
import scipy.sparse as sp
from scipy.special import logsumexp
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

import scrcl
from scrcl.cluster.confidence import log_student_t
from scrcl.nn.inference import View

VIEW: View = ("aligned", None)
#: Share of the counts that a thinned cell keeps.
KEPT = 0.6


def approaches(model: scrcl.SCRCL, adata: ad.AnnData, labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Scores ``(n,)`` by name, of cells in clusters ``(n,)``."""
    results, reference = model._results, model._reference
    latent = reduced(results.network(VIEW, results.latent(VIEW)), 20)
    smoothed = reduced(reference.smoothed(), 20)
    features = reduced(normalize(reference.neighbor_features), 50)
    cosines = [normalize(part) for part in reference.linkage_features()]
    return {
        "distance to the next centre, features": margin(features, labels),
        "distance to the next centre, latent": margin(latent, labels),
        "cosine to the next centre, three normalisations": np.mean([cosine_margin(p, labels) for p in cosines], 0),
        "neighbours of the same cluster, features": purity(features, labels),
        "several clusterings, smoothed features": several(smoothed, labels, seed),
        "several clusterings, features": several(features, labels, seed),
        "trees with 1.5 times as many clusters": finer_trees(model, labels, seed),
        "cluster kept by thinned cells": kept_when_thinned(model, adata, labels, seed),
        "Student-t posterior, latent": student(latent, labels)[0],
        "Student-t posterior, features": student(features, labels)[0],
        "Student-t posterior, three parts a cluster": student(features, divided(features, labels, seed), labels)[0],
        "Student-t density in the cluster, latent": student(latent, labels)[1],
    }


def reduced(points: np.ndarray, number: int) -> np.ndarray:
    number = min(number, points.shape[1], len(points) - 1)
    return PCA(number, random_state=0).fit_transform(points.astype(np.float64))


def centers_of(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.array([points[labels == k].mean(0) for k in range(labels.max() + 1)])


def best_other(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The value of the own cluster of ``(n, k)``, and the largest of the others."""
    rows, others = np.arange(len(labels)), values.copy()
    others[rows, labels] = -np.inf
    return values[rows, labels], others.max(1)


def margin(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    distances = np.linalg.norm(points[:, None] - centers_of(points, labels), axis=2)
    similarity, other = best_other(-distances, labels)
    return (similarity - other) / np.maximum(-similarity, -other)


def cosine_margin(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    similarity, other = best_other(points @ normalize(centers_of(points, labels)).T, labels)
    return similarity - other


def purity(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    neighbors = NearestNeighbors(n_neighbors=min(31, len(points))).fit(points).kneighbors(points)[1][:, 1:]
    return (labels[neighbors] == labels[:, None]).mean(1)


def together(groups: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each cell, the share of its group that is in its cluster, and of its cluster that is in its group."""
    groups = np.unique(groups, return_inverse=True)[1]
    table = np.zeros((len(np.unique(groups)), labels.max() + 1))
    np.add.at(table, (groups, labels), 1)
    both = table[groups, labels]
    return both / table.sum(1)[groups], both / table.sum(0)[labels]


def several(points: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """k-means, Ward's method and a tied Gaussian mixture with as many clusters."""
    number = int(labels.max()) + 1
    clusterings = [KMeans(number, n_init=3, random_state=seed + i).fit_predict(points) for i in range(2)]
    clusterings.append(AgglomerativeClustering(number).fit_predict(points))
    mixture = GaussianMixture(number, covariance_type="tied", random_state=seed, reg_covar=1e-4)
    clusterings.append(mixture.fit_predict(points))
    return np.mean([np.sqrt(np.prod(together(groups, labels), axis=0)) for groups in clusterings], axis=0)


def finer_trees(model: scrcl.SCRCL, labels: np.ndarray, seed: int) -> np.ndarray:
    """Of cells that the trees do not hold, as there are too many, the value of the nearest one that they do."""
    number = int(labels.max()) + 1
    ensemble = model._results._ensemble(VIEW, seed, number)
    finer, drawn = int(np.ceil(1.5 * number)), labels[ensemble.cells]
    clusterings = np.mean([together(tree.cut(finer), drawn)[1] for tree in ensemble.trees], axis=0)
    nearest = NearestNeighbors(n_neighbors=1).fit(ensemble.points[ensemble.cells])
    return clusterings[nearest.kneighbors(ensemble.points)[1][:, 0]]


def kept_when_thinned(model: scrcl.SCRCL, adata: ad.AnnData, labels: np.ndarray, seed: int) -> np.ndarray:
    """Whether a cell with fewer counts, placed as a new one, is in the same cluster; the mean over three draws."""
    rng, kept = np.random.default_rng(seed), np.zeros(len(labels))
    for _ in range(3):
        counts = sp.csr_matrix(adata.X, copy=True)
        counts.data = rng.binomial(np.round(counts.data).astype(np.int64), KEPT).astype(np.float32)
        counts.eliminate_zeros()
        thinned = ad.AnnData(counts, var=adata.var)
        kept += model.get_clusters(thinned, n_clusters=int(labels.max()) + 1, seed=seed).cat.codes.to_numpy() == labels
    return kept / 3


def divided(points: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Clusters ``(n,)`` in up to three parts each."""
    parts, number = np.empty(len(labels), dtype=np.int64), 0
    for cluster in range(labels.max() + 1):
        members = np.flatnonzero(labels == cluster)
        n_parts = min(3, max(1, len(members) // 30))
        parts[members] = number + KMeans(n_parts, n_init=3, random_state=seed).fit_predict(points[members])
        number += n_parts
    return parts


def student(points: np.ndarray, parts: np.ndarray, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Log odds of the own cluster, and the log density there, with a component for each part and one scale for all."""
    labels = parts if labels is None else labels
    means = centers_of(points, parts)
    scales = np.full_like(means, (points - means[parts]).std())
    density = log_student_t(points, means, scales, 4.0) + np.log(np.bincount(parts) / len(parts))
    cluster_of = np.array([labels[parts == part][0] for part in range(len(means))])
    by_cluster = [logsumexp(density[:, cluster_of == k], axis=1) for k in range(labels.max() + 1)]
    values = np.stack(by_cluster, axis=1)
    rows, others = np.arange(len(labels)), values.copy()
    others[rows, labels] = -np.inf
    return values[rows, labels] - logsumexp(others, axis=1), values[rows, labels]
