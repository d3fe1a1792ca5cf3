"""Scores of clusters, embeddings and probabilities against labels."""

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, f1_score, normalized_mutual_info_score
from sklearn.neighbors import NearestNeighbors


def score_clusters(truth: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    exact, f1 = accuracy(truth, clusters)
    return {
        "ARI": float(adjusted_rand_score(truth, clusters)),
        "NMI": float(normalized_mutual_info_score(truth, clusters)),
        "ACC": exact,
        "F1": f1,
        "clusters": len(np.unique(clusters)),
    }


def accuracy(truth: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Accuracy and macro-F1 after the best one-to-one matching of clusters to classes."""
    table = pd.crosstab(clusters, truth)
    rows, columns = linear_sum_assignment(-table.to_numpy())
    names = dict(zip(table.index[rows], table.columns[columns], strict=True))
    matched = pd.Series(clusters).map(names).fillna("unmatched").to_numpy()
    labels = list(np.unique(truth))
    return float((matched == truth).mean()), float(f1_score(truth, matched, labels=labels, average="macro"))


def score_embedding(truth: np.ndarray, embedding: np.ndarray) -> dict[str, float]:
    """The scores of bio-conservation of scib-metrics that need no batches, and their mean."""
    import scib_metrics
    from scib_metrics.nearest_neighbors import NeighborsResults

    nearest = NearestNeighbors(n_neighbors=min(90, len(embedding))).fit(embedding)
    neighbors = NeighborsResults(*nearest.kneighbors(embedding)[::-1])
    by_kmeans = scib_metrics.nmi_ari_cluster_labels_kmeans(embedding, truth)
    by_leiden = scib_metrics.nmi_ari_cluster_labels_leiden(neighbors, truth)
    scores = {
        "k-means NMI": by_kmeans["nmi"],
        "k-means ARI": by_kmeans["ari"],
        "Leiden NMI": by_leiden["nmi"],
        "Leiden ARI": by_leiden["ari"],
        "silhouette": scib_metrics.silhouette_label(embedding, truth),
        "cLISI": scib_metrics.clisi_knn(neighbors, truth),
    }
    scores["mean"] = np.mean(list(scores.values()))
    return {name: float(value) for name, value in scores.items()}


def agreement(clusterings: list[np.ndarray]) -> float:
    """Mean ARI between all pairs of clusterings."""
    pairs = [(a, b) for i, a in enumerate(clusterings) for b in clusterings[:i]]
    return float(np.mean([adjusted_rand_score(a, b) for a, b in pairs])) if pairs else np.nan


def interval(differences: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of differences, one for each set."""
    draws = np.random.default_rng(seed).choice(differences, size=(10_000, len(differences)))
    low, high = np.quantile(draws.mean(1), [0.025, 0.975])
    return float(low), float(high)


def calibration_error(probabilities: np.ndarray, codes: np.ndarray, n_bins: int = 15) -> float:
    """The expected calibration error of the most probable types (Naeini et al., AAAI 2015), in bins of equal width.

    Parameters
    ----------
    probabilities
        ``(n, C)``, rows summing to 1.
    codes
        ``(n,)`` true types, from 0.
    n_bins
        Number of bins.
    """
    confidence, is_right = probabilities.max(1), probabilities.argmax(1) == codes
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, confidence - is_right, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(codes))
