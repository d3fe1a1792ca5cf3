"""The summary of a run."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TypedDict

import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from scrcl.cluster.cluster_tree import ClusterTree
from scrcl.cluster.number import NumberOfClusters
from scrcl.utils import keys
from scrcl.utils.words import counted

from .composition import Composition

#: Marker genes that are named for each cluster.
N_MARKERS = 8
#: A cell with a lower probability of its cluster is uncertain: it is more likely in the other clusters together.
CERTAIN = 0.5


@dataclass
class Cluster:
    """A cluster: its size, its confidence and its markers; the page of the command line documents the fields.

    ``markers`` are higher by the 95 % interval, with a p-value below 1 %. The p-value is not the adjusted one, which 1,000
    permutations cannot bring low where a cluster has few markers.
    """

    name: str
    cells: int
    share: float
    confidence: float | None = None
    uncertain: float | None = None
    next: str | None = None
    next_probability: float | None = None
    markers: list[str] | None = None
    specific: int | None = None


@dataclass
class Agreement:
    """How clusters agree with a published annotation."""

    adjusted_rand_index: float
    normalized_mutual_information: float
    types: dict[str, dict[str, float]]


class Record(TypedDict):
    """The part of a summary that is written to the data."""

    versions: dict[str, str]
    parameters: dict[str, object]
    seed: int
    sizes: dict[str, int]


@dataclass
class Summary:
    """All results of a run that are reported, in tables, JSON or a page."""

    command: str
    input: str
    clusters: list[Cluster]
    n_clusters_given: bool
    estimate: NumberOfClusters | None
    versions: dict[str, str]
    parameters: dict[str, object]
    seed: int
    sizes: dict[str, int]
    seconds: dict[str, float]
    outputs: dict[str, str]
    notes: list[str] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    agreement: Agreement | None = None
    types: dict[str, int] | None = None
    missing: dict[str, str] = field(default_factory=dict)
    tree: ClusterTree | None = None
    compositions: list[Composition] = field(default_factory=list)
    quality: dict[str, dict[str, float]] = field(default_factory=dict)
    #: Name of each cluster from marker genes, and its evidence.
    names: list[dict[str, object]] = field(default_factory=list)
    #: How adjacent domains in space are separated.
    borders: pd.DataFrame | None = None

    @property
    def kind(self) -> str:
        """What the clusters are."""
        return "domain" if self.parameters.get("spatial_key") else "cluster"

    def as_json(self) -> dict[str, object]:
        """In plain containers."""
        found = asdict(replace(self, estimate=None, tree=None, borders=None))
        del found["estimate"], found["tree"]
        found["splits"] = None if self.tree is None else _records(self.tree.splits.reset_index())
        found["borders"] = None if self.borders is None else _records(self.borders)
        if self.estimate is not None:
            curve = self.estimate.curve.astype(object).where(self.estimate.curve.notna(), None)
            found["n_clusters_estimate"] = {
                "best": self.estimate.best,
                "runner_ups": self.estimate.runner_ups,
                "curve": curve.reset_index().to_dict("list"),
            }
        return found

    def other_numbers(self) -> list[int]:
        """Other numbers of clusters that are supported, the estimate first."""
        if self.estimate is None:
            return []
        return [number for number in (self.estimate.best, *self.estimate.runner_ups) if number != len(self.clusters)]

    def print(self, console: Console) -> None:
        """As tables."""
        console.print(sizes_table({cluster.name: cluster.cells for cluster in self.clusters}, self.kind))
        if self.types is not None:
            console.print(sizes_table(self.types, "type, learned from labels"))
        total = sum(self.seconds.values())
        shares = ", ".join(f"{name} {value / total:.0%}" for name, value in self.seconds.items())
        console.print(f"{total:.1f} s: {shares}", soft_wrap=True)
        typed = [] if self.types is None else [keys.TYPES_KEY, keys.TYPES_CONFIDENCE_KEY]
        named = [keys.CELL_NAMES_KEY] if self.names else []
        written = [
            f"obsm['{keys.LATENT_KEY}']",
            *(f"obs['{name}']" for name in (keys.CLUSTERS_KEY, *named, *typed)),
            f"uns['{keys.RUN_KEY}']",
        ]
        console.print(f"Written to {self.outputs['output']}: {', '.join(written)}", soft_wrap=True)
        if self.agreement is not None:
            table = Table(
                "cluster", "most frequent published types", title="Published annotation, not seen by the model"
            )
            for name, types in self.agreement.types.items():
                table.add_row(name, ", ".join(f"{kind} {share:.0%}" for kind, share in types.items()))
            console.print(table)
            console.print(
                f"Agreement: adjusted Rand index {self.agreement.adjusted_rand_index:.2f}, "
                f"normalised mutual information {self.agreement.normalized_mutual_information:.2f}"
            )


def _records(table: pd.DataFrame) -> list[dict[str, object]]:
    """The rows of a table in plain containers, missing values as None."""
    return json.loads(table.to_json(orient="records"))


def sizes_table(sizes: dict[str, int], kind: str) -> Table:
    """Types or clusters and their cells."""
    total = sum(sizes.values())
    table = Table(title=f"{counted(total, 'cell')}, {counted(len(sizes), kind.partition(',')[0])}")
    for column in (kind, "cells", "share"):
        table.add_column(column, justify="right")
    for name, cells in sizes.items():
        table.add_row(name, f"{cells:,}", f"{cells / total:.1%}")
    return table


def describe_clusters(
    clusters: pd.Series, probabilities: pd.DataFrame | None, markers: pd.DataFrame | None
) -> list[Cluster]:
    """Describe the clusters, the largest first.

    Parameters
    ----------
    clusters
        Cluster of each cell.
    probabilities
        Of cells by clusters, if there are any.
    markers
        The table of marker genes, maybe empty, or none.
    """
    described = []
    for name, size in clusters.value_counts().items():
        if size == 0:
            continue
        cluster = Cluster(str(name), int(size), float(size / len(clusters)))
        if probabilities is not None:
            of_cells = probabilities.loc[(clusters == name).to_numpy()]
            cluster.confidence = float(of_cells[name].mean())
            cluster.uncertain = float((of_cells[name] < CERTAIN).mean())
            others = of_cells.drop(columns=[name]).mean()
            if len(others):
                cluster.next, cluster.next_probability = str(others.idxmax()), float(others.max())
        if markers is not None and len(markers):
            own = markers[markers["group"].astype(str) == str(name)]
            up = own[(own["score_low"] > 0) & (own["pvalue"] < 0.01)]
            cluster.markers = [str(gene) for gene in up["gene"].head(N_MARKERS)]
            cluster.specific = int((up["specificity"] > 0).sum())
        described.append(cluster)
    return described


def compare(found: pd.Series, published: pd.Series) -> Agreement:
    """Compare clusters with a published annotation."""
    counts = pd.crosstab(found, published)
    types = {}
    for name, row in counts.iterrows():
        top = row.sort_values(ascending=False).head(3)
        types[str(name)] = {str(kind): float(size / row.sum()) for kind, size in top.items() if size}
    return Agreement(
        float(adjusted_rand_score(published, found)), float(normalized_mutual_info_score(published, found)), types
    )
