"""What is uncertain in a run, in sentences: one of each kind, which lists the clusters, the most important first."""

from collections.abc import Iterator, Mapping

from scrcl.utils.words import counted, listed

from .summary import Summary

#: A cluster with fewer cells is said to be small.
FEW_CELLS = 20
#: A cluster of which a larger share is uncertain is named.
MANY_UNCERTAIN = 0.2
#: A cluster is named whose cells have fewer counts than all cells, or more mitochondrial ones, by these factors; and the
#: share of mitochondrial counts from which this matters.
FEW_COUNTS, MANY_MITOCHONDRIAL, MITOCHONDRIAL = 1 / 3, 2.0, 0.1
#: Clusters that a sentence names; the tables have all.
N_NAMED = 6


def find_caveats(summary: Summary, method: str, of_warnings: list[str] | None = None) -> list[str]:
    """What is uncertain, in sentences.

    Parameters
    ----------
    summary
        The results.
    method
        Way of clustering.
    of_warnings
        Sentences of warnings that the results are poorly supported.
    """
    return [
        *(of_warnings or ()),
        *_of_number(summary),
        *_of_tree(summary),
        *_of_borders(summary),
        *_of_batches(summary),
        *_of_quality(summary),
        *_of_markers(summary),
        *_of_cells(summary),
        *(
            []
            if method == "consensus"
            else [f"Clustering by {method} gives no confidence of {summary.kind}s; consensus does."]
        ),
    ]


def _of_number(summary: Summary) -> Iterator[str]:
    others = summary.other_numbers()
    if summary.estimate is None or not others:
        return
    found, kind = len(summary.clusters), summary.kind
    if found == summary.estimate.best:
        there = f"are {found} {kind}s" if found > 1 else f"is 1 {kind}"
        yield f"There {there}; {_supported(others)}."
        return
    asked = "asked for" if summary.n_clusters_given else "found"
    what = f"{found} {kind}s were" if found > 1 else f"1 {kind} was"
    rest = f" ({_supported(others[1:])})" if others[1:] else ""
    yield f"{what} {asked}; the estimate is {others[0]}{rest}."


def _supported(numbers: list[int]) -> str:
    return f"{listed([str(number) for number in numbers])} {'is' if len(numbers) == 1 else 'are'} also supported"


def _of_tree(summary: Summary) -> Iterator[str]:
    if summary.tree is None:
        return
    splits = summary.tree.first_splits
    suspicious = splits[splits["verdict"] == "suspicious"]
    yield from _say(
        {f"{left} from {right}": "" for left, right in zip(suspicious["left"], suspicious["right"], strict=True)},
        "The split of {} in the tree of clusters is supported by the cell graph, but no gene is clearly up on either side: it may "
        "divide batches, doublets or damaged cells.",
        "The splits of {} in the tree of clusters are supported by the cell graph, but no gene is clearly up on either side: they "
        "may divide batches, doublets or damaged cells.",
    )


def _of_borders(summary: Summary) -> Iterator[str]:
    if summary.borders is None:
        return
    gradual = summary.borders[summary.borders["verdict"] == "continuum"]
    pairs = [f"{a} and {b}" for a, b in zip(gradual["domain"], gradual["neighbor"], strict=True)]
    if pairs:
        yield (
            f"The tissue changes gradually between domains {'; '.join(pairs)}: where one ends is arbitrary, as in a gradient."
        )


def _of_batches(summary: Summary) -> Iterator[str]:
    kind = summary.kind
    for composition in summary.compositions:
        key = composition.key
        yield from _say(
            {
                cluster: f"{max(composition.shares[cluster].values()):.0%} in {batch}"
                for cluster, batch in composition.only_in.items()
            },
            f"{kind.capitalize()} {{}} is nearly only in one {key}: it may be an effect of the experiment.",
            f"{kind.capitalize()}s {{}} are nearly only in one {key} each: they may be effects of the experiment.",
        )


def _of_quality(summary: Summary) -> Iterator[str]:
    if not summary.quality:
        return
    kind, every = summary.kind, summary.quality[""]
    quality = {cluster.name: summary.quality[cluster.name] for cluster in summary.clusters}
    counts = every["counts"]
    few = f"have few counts (median of all cells {counts:,.0f}): they may be damaged cells or empty droplets."
    yield from _say(
        {
            name: f"median {values['counts']:,.0f}"
            for name, values in quality.items()
            if values["counts"] < FEW_COUNTS * counts
        },
        f"The cells of {kind} {{}} {few}",
        f"The cells of {kind}s {{}} {few}",
    )
    share = every.get("mitochondrial", 0.0)
    many = f"have many mitochondrial counts (median of all cells {share:.0%}): they may be damaged."
    yield from _say(
        {
            name: f"median {values['mitochondrial']:.0%}"
            for name, values in quality.items()
            if values.get("mitochondrial", 0.0) > max(MITOCHONDRIAL, MANY_MITOCHONDRIAL * share)
        },
        f"The cells of {kind} {{}} {many}",
        f"The cells of {kind}s {{}} {many}",
    )


def _of_markers(summary: Summary) -> Iterator[str]:
    kind = summary.kind
    yield from _say(
        {cluster.name: "" for cluster in summary.clusters if cluster.specific == 0},
        f"No marker gene is higher in {kind} {{}} than in all others: it may be part of another.",
        f"No marker gene is higher in any of {kind}s {{}} than in all others: they may be parts of others.",
    )


def _of_cells(summary: Summary) -> Iterator[str]:
    kind = summary.kind
    unsure = [cluster for cluster in summary.clusters if (cluster.uncertain or 0) > MANY_UNCERTAIN]
    yield from _say(
        {cluster.name: f"{cluster.uncertain:.0%}; next most probable: {cluster.next}" for cluster in unsure},
        f"Many cells of {kind} {{}} belong to it with a probability below one half.",
        f"Many cells of {kind}s {{}} belong to them with a probability below one half.",
    )
    yield from _say(
        {cluster.name: counted(cluster.cells, "cell") for cluster in summary.clusters if cluster.cells < FEW_CELLS},
        f"{kind.capitalize()} {{}} is small: little can be said of it.",
        f"{kind.capitalize()}s {{}} are small: little can be said of them.",
    )


def _say(clusters: Mapping[str, str], one: str, several: str) -> Iterator[str]:
    """A sentence in which ``{}`` stands for the clusters, with what is said of each in parentheses; none without clusters."""
    names = [f"{name} ({detail})" if detail else name for name, detail in clusters.items()]
    if names:
        yield (one if len(names) == 1 else several).replace("{}", listed(names, N_NAMED), 1)
