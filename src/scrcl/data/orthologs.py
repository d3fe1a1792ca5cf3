"""Tables of orthologous genes."""

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import pandas as pd

from scrcl.utils.errors import ScrclTypeError, ScrclValueError
from scrcl.utils.gene_names import one_to_one
from scrcl.utils.words import counted

Orthologs: TypeAlias = Mapping[str, str] | pd.DataFrame | str | os.PathLike[str]


def read_orthologs(orthologs: Any, lists: Mapping[str, list[str]]) -> dict[str, str]:
    """Read the counterpart in the data of each marker gene that has a single one.

    Parameters
    ----------
    orthologs
        A dictionary; a table with two columns, or the path of a ``.csv`` or ``.tsv`` file with one. The column that has more of
        the marker genes is theirs. ``None`` for no orthologs.
    lists
        The marker genes.

    Raises
    ------
    ScrclValueError
        If it is no such table, or has none of the marker genes.
    """
    if orthologs is None:
        return {}
    if isinstance(orthologs, str | os.PathLike):
        path = os.path.expanduser(orthologs)
        try:
            orthologs = pd.read_csv(path, sep="\t" if os.fspath(path).endswith((".tsv", ".txt")) else ",", dtype=str)
        except (OSError, ValueError) as error:
            raise ScrclValueError(
                f"orthologs={os.fspath(path)!r} cannot be read: {error}.",
                "Pass a table with two columns, one of each organism.",
            ) from error
    if isinstance(orthologs, Mapping):
        orthologs = pd.DataFrame({"first": list(orthologs), "second": list(orthologs.values())})
    if not isinstance(orthologs, pd.DataFrame):
        raise ScrclTypeError(
            f"orthologs is of type {type(orthologs).__name__}.",
            "Pass a dictionary, or a table with two columns, one of each organism.",
        )
    if orthologs.shape[1] != 2:
        raise ScrclValueError(
            f"orthologs has {counted(orthologs.shape[1], 'column')}.",
            "Select two, one of the names of genes of each organism.",
        )
    wanted = {gene for listed in lists.values() for gene in listed}
    first, second = (pd.Index(orthologs.iloc[:, number]) for number in (0, 1))
    shared = [len(wanted & set(names)) for names in (first, second)]
    if not max(shared):
        raise ScrclValueError(
            f"orthologs has none of the genes of markers (markers has {next(iter(wanted))!r}, orthologs has {first[0]!r})."
            if len(first)
            else "orthologs is empty.",
            "Write the genes of one column as in markers, and the genes of the other column as in adata.var_names.",
        )
    return one_to_one(first, second) if shared[0] >= shared[1] else one_to_one(second, first)
