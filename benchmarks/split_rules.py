"""Other rules for the clusters of the tree, compared with the default, if the number of types is not known.

    python benchmarks/split_rules.py
    python benchmarks/split_rules.py --sets zeisel baron_mouse --seeds 3

Labels score the results. All rules of one data set and seed read the same trained model, in one process of one thread.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from methods import trained
from quality import PACKAGES, RESULTS
from report import HALF_OF, HALVES, row
from runs import machine, run_to_file
from sklearn.metrics import adjusted_rand_score
from splits import read

from scrcl.cluster.tree import MAX_CONNECTIVITY, NestedClusters
from scrcl.graph.adjacency import symmetric_adjacency
from scrcl.graph.neighbors import nearest_neighbors
from scrcl.nn.inference import View

VIEW: View = ("aligned", None)
SMALLEST_DIVIDED = 40
Score = Callable[[float, float, float], float]


def labels_of(tree: NestedClusters, supported: np.ndarray) -> np.ndarray:
    return tree.cut(tree.made(supported)).labels


def below(bound: float) -> Callable[[NestedClusters], np.ndarray]:
    return lambda tree: labels_of(tree, tree.connectivity < bound)


def on_graph(tree: NestedClusters, graph: sp.csr_array) -> NestedClusters:
    return NestedClusters.build(tree.leaves, tree.linkage, graph, tree.features)


def graph_of(features: np.ndarray, number: int) -> sp.csr_array:
    return symmetric_adjacency(nearest_neighbors(features, number).to_sparse())


def joined_by_edges(tree: NestedClusters, score: Score) -> NestedClusters:
    """The same leaves, joined two at a time by the edges between them and the degrees of both, instead of by co-association."""
    edges, sizes = tree.edges.copy(), tree.sizes[: tree.n_leaves].astype(float)
    degrees, nodes, left = edges.sum(1), list(range(tree.n_leaves)), list(range(tree.n_leaves))
    linkage = []
    for number in range(tree.n_leaves - 1):
        pairs = [(a, b) for i, a in enumerate(left) for b in left[i + 1 :]]
        a, b = max(pairs, key=lambda pair: score(float(edges[pair]), degrees[pair[0]], degrees[pair[1]]))
        linkage.append([*sorted((nodes[a], nodes[b])), float(number), sizes[a] + sizes[b]])
        edges[a] += edges[b]
        edges[:, a] += edges[:, b]
        degrees[a] += degrees[b]
        sizes[a] += sizes[b]
        nodes[a] = tree.n_leaves + number
        left.remove(b)
    return NestedClusters(tree.leaves, np.array(linkage).reshape(-1, 4), tree.edges, tree.features)


def with_splits_below(tree: NestedClusters, bound: float) -> np.ndarray:
    """Supported splits, and those above a split below the bound."""
    supported = tree.connectivity < MAX_CONNECTIVITY
    for split in np.flatnonzero(tree.connectivity < bound):
        node = tree.n_leaves + split
        while (above := np.flatnonzero((tree.sides == node).any(1))).size:
            supported[above[0]] = True
            node = tree.n_leaves + above[0]
    return labels_of(tree, supported)


def cut_off_below(tree: NestedClusters, bound: float) -> np.ndarray:
    """Clusters by default, from which the smaller sides of splits below the bound are cut off, whatever is above them."""
    made = tree.made(tree.connectivity < MAX_CONNECTIVITY)
    labels, leaves = tree.cut(made).labels.copy(), tree.leaves.labels
    for split in np.flatnonzero(~made & (tree.connectivity < bound))[::-1]:
        labels[tree.below[tree.sides[split, 1]][leaves]] = labels.max() + 1
    return labels


def divided_anew(counts: Any, labels: np.ndarray, seed: int) -> np.ndarray:
    """Each cluster divided by a model of its own, with genes that vary within it."""
    names = labels.astype(str).astype(object)
    for cluster, size in enumerate(np.bincount(labels)):
        if size >= SMALLEST_DIVIDED:
            rows = np.flatnonzero(labels == cluster)
            names[rows] += "." + trained(counts[rows].copy(), seed).get_clusters(seed=seed).astype(str).to_numpy()
    return names.astype(str)


def work(name: str, seed: int) -> dict[str, Any]:
    """ARI of each rule, and the best of a cut of the tree at a height, by the labels."""
    warnings.simplefilter("ignore")
    counts, types, scored = read(name)
    model = trained(counts, seed)
    results, reference = model._results, model._reference
    tree, own = results.tree(VIEW, seed), reference.neighbor_features
    default = below(MAX_CONNECTIVITY)
    graphs = {number: graph_of(own, number) for number in (10, 20)}
    normalizations = [graph_of(part, 15) for part in reference.linkage_features()]
    by_degrees = joined_by_edges(tree, lambda e, a, b: e / (a * b))
    by_root = joined_by_edges(tree, lambda e, a, b: e / (a * b) ** 0.75)
    n_found = default(tree).max() + 1
    found = {
        "default: connectivity below 0.343": default(tree),
        "bound of 0.3": below(0.3)(tree),
        "bound of 0.4": below(0.4)(tree),
        "graph of 10, 15 and 20 neighbours": default(on_graph(tree, sum(graphs.values(), reference.adjacency))),
        "graph of 10 neighbours": default(on_graph(tree, graphs[10])),
        "graphs of three normalisations with it": default(on_graph(tree, sum(normalizations, reference.adjacency))),
        "leaves joined by e / (v_a v_b)": default(by_degrees),
        "leaves joined by e / (v_a v_b)^0.75": default(by_root),
        "splits above one below 0.15 are made, too": with_splits_below(tree, 0.15),
        "sides of splits below 0.15 are cut off": cut_off_below(tree, 0.15),
        "clusters divided anew, by their own genes": divided_anew(counts, default(tree), seed),
        "consensus with its number": model.get_clusters(n_clusters=n_found, seed=seed).cat.codes.to_numpy(),
    }

    def ari(labels: np.ndarray) -> float:
        return float(adjusted_rand_score(types[scored], labels[scored]))

    def best(tree: NestedClusters) -> float:
        return max(ari(tree.cut(tree.highest(number)).labels) for number in range(2, tree.n_leaves + 1))

    trees = {
        "default": tree,
        "leaves joined by e / (v_a v_b)": by_degrees,
        "leaves joined by e / (v_a v_b)^0.75": by_root,
    }
    return {
        "rules": {rule: ari(labels) for rule, labels in found.items()},
        "best": {k: best(t) for k, t in trees.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=HALF_OF, default=list(HALF_OF))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work[0], int(arguments.work[1]))))
        return
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    for name in arguments.sets:
        for seed in range(arguments.seeds):
            file = RESULTS / "split_rules" / f"{name}.{seed}.json"
            if not file.exists():
                run_to_file(file, [__file__, "--work", name, str(seed)])
            runs[name, seed] = json.loads(file.read_text())
    lines = []
    for kind, title in (("rules", "clusters"), ("best", "tree, best number of clusters by the labels")):
        lines += [row([title, *(f"half {half}" for half in HALVES)]), row(["---"] * 3)]
        for rule in next(iter(runs.values()))[kind]:
            means = [
                np.mean([run[kind][rule] for (name, _), run in runs.items() if name in HALVES[half]]) for half in HALVES
            ]
            lines.append(row([rule, *(f"{mean:.3f}" for mean in means)]))
        lines.append("")
    lines.append(
        f"ARI with the published types, the mean of {len(arguments.sets)} data sets. Seeds: {', '.join(map(str, range(arguments.seeds)))}. "
        f"{machine(PACKAGES)}."
    )
    (RESULTS / "split_rules.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
