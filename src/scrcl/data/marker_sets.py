"""Lists of marker genes with weights and a hierarchy, as they are passed or read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import pandas as pd

from scrcl.utils.checks import did_you_mean
from scrcl.utils.errors import ScrclTypeError, ScrclValueError
from scrcl.utils.names import as_name
from scrcl.utils.words import counted

from .networks import SET_COLUMNS, read_gene_sets


@dataclass(frozen=True)
class MarkerSets:
    """Names and their marker genes.

    Attributes
    ----------
    genes
        Weight of each gene of each name, each name after its parent.
    parents
        Parent of each name that has one.
    weighted
        Whether the lists are long and weighted, so that the most distinctive genes of each are scored.
    terms
        Identifiers of names in the Cell Ontology.
    aliases
        Current symbol of each former one.
    organism
        Organism whose symbols these are, where it is known.
    source
        Where the lists come from, with the version; empty for lists of the user.
    """

    genes: Mapping[str, Mapping[str, float]]
    parents: Mapping[str, str] = field(default_factory=dict)
    weighted: bool = False
    terms: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    organism: str = ""
    source: str = ""

    @property
    def by_level(self) -> bool:
        """Whether names are proposed at the level that the evidence supports, instead of the list that fits best."""
        return self.weighted or bool(self.parents)

    @property
    def lists(self) -> dict[str, list[str]]:
        """The genes of each name."""
        return {name: list(genes) for name, genes in self.genes.items()}

    @property
    def parent_numbers(self) -> np.ndarray:
        """``(L,)`` number of the parent of each name, -1 for none."""
        numbers = {name: number for number, name in enumerate(self.genes)}
        return np.array([numbers[self.parents[name]] if name in self.parents else -1 for name in self.genes])

    def path(self, name: str) -> list[str]:
        """Names from the top to this one."""
        path = [name]
        while path[0] in self.parents:
            path.insert(0, self.parents[path[0]])
        return path


def arrange(
    genes: Mapping[str, Mapping[str, float]], parents: Mapping[str, str], argument: str
) -> tuple[dict[str, Mapping[str, float]], dict[str, str]]:
    """Put each name after its parent. A parent without genes of its own gets none.

    Raises
    ------
    ScrclValueError
        If a name is above itself.
    """
    known = {**dict.fromkeys(parents.values(), {}), **genes}
    ordered: dict[str, Mapping[str, float]] = {}
    for name in known:
        path = [name]
        while path[0] in parents and path[0] not in ordered:
            if parents[path[0]] in path:
                cycle = " > ".join([*path[: path.index(parents[path[0]]) + 1][::-1], parents[path[0]]][::-1])
                raise ScrclValueError(
                    f"{argument} has a cycle: {cycle}.", "Give each name one parent, and none to the names at the top."
                )
            path.insert(0, parents[path[0]])
        for each in path:
            ordered.setdefault(each, known[each])
    return ordered, {name: parents[name] for name in ordered if name in parents}


def read_marker_sets(markers: Any, hierarchy: Mapping[str, Any] | None = None) -> MarkerSets:
    """Read the marker genes of the user.

    Parameters
    ----------
    markers
        As in :func:`~scrcl.data.networks.read_gene_sets`; a table may have a column ``weight``, and a dictionary may hold
        dictionaries of weights.
    hierarchy
        Parent of each name that has one; ``None`` where there is none.

    Raises
    ------
    ScrclValueError
        If they cannot be read, a name has no genes, a weight is not a positive number, or the hierarchy has unknown names or a
        cycle.
    """
    weights = _weights(markers)
    lists = read_gene_sets(markers, "markers")
    empty = [name for name, listed in lists.items() if not listed]
    if empty:
        raise ScrclValueError(
            f"markers has {counted(len(empty), 'list')} without a gene: {', '.join(map(repr, empty[:5]))}.",
            "Give each at least one gene, or leave it out.",
        )
    genes = {name: {gene: weights.get((name, gene), 1.0) for gene in listed} for name, listed in lists.items()}
    if hierarchy is None:
        return MarkerSets(genes, weighted=bool(weights))
    if not isinstance(hierarchy, Mapping):
        raise ScrclTypeError(
            f"hierarchy is of type {type(hierarchy).__name__}, not a dictionary.",
            "Pass the parent of each name that has one: `hierarchy={'CD4 T cell': 'T cell'}`.",
        )
    parents = {str(child): str(parent) for child, parent in hierarchy.items() if parent is not None}
    listed = next((parent for parent in hierarchy.values() if isinstance(parent, list | tuple | set)), None)
    if listed is not None:
        raise ScrclTypeError(
            f"hierarchy has several names for one: {listed!r}.",
            "Pass the parent of each name: `hierarchy={'CD4 T cell': 'T cell', 'CD8 T cell': 'T cell'}`.",
        )
    unknown = [child for child in parents if child not in genes and child not in parents.values()]
    if unknown:
        raise ScrclValueError(
            f"hierarchy has {unknown[0]!r}, which is not a name of markers.",
            f"Leave it out, or add its genes.{did_you_mean(unknown[0], genes)}",
        )
    return MarkerSets(*arrange(genes, parents, "hierarchy"), weighted=bool(weights))


def _weights(markers: Any) -> dict[tuple[str, str], float]:
    """Weights of the genes of each name, as far as there are any that differ."""
    if isinstance(markers, pd.DataFrame) and "weight" in markers:
        columns = next((list(pair) for pair in SET_COLUMNS if set(pair) <= set(markers.columns)), [])
        table = markers[[*columns, "weight"]].dropna() if columns else markers.iloc[:0]
        keys = (
            [(str(name), as_name(gene).strip()) for name, gene in table[columns].itertuples(index=False)]
            if columns
            else []
        )
        values = table["weight"].tolist()
    elif isinstance(markers, Mapping) and any(isinstance(listed, Mapping) for listed in markers.values()):
        pairs = [(name, listed) for name, listed in markers.items() if isinstance(listed, Mapping)]
        nested = next(
            (name for name, listed in pairs if any(isinstance(genes, list) for genes in listed.values())), None
        )
        if nested is not None:
            raise ScrclValueError(
                f"markers has lists within {nested!r}.",
                "Pass all lists in one dictionary, and the parent of each name as `hierarchy`.",
            )
        keys = [(str(name), as_name(gene).strip()) for name, listed in pairs for gene in listed]
        values = [weight for _, listed in pairs for weight in listed.values()]
    else:
        return {}
    try:
        numbers = np.array(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ScrclValueError(
            f"markers has weights that are not numbers ({error}).", "Correct or drop them."
        ) from error
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        raise ScrclValueError(
            "markers has weights that are not positive numbers.",
            "Leave out genes that should be absent: names are proposed by what is expressed.",
        )
    return dict(zip(keys, numbers.tolist(), strict=True)) if len(set(values)) > 1 else {}


def is_name(markers: object) -> TypeGuard[str]:
    """Whether this is the name of a collection of marker genes, and no file."""
    return (
        isinstance(markers, str)
        and not os.path.splitext(markers)[1]
        and not os.path.exists(os.path.expanduser(markers))
    )
