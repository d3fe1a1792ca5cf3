"""Names of genes from a column of ``var``."""

from collections.abc import Mapping

import pandas as pd
from anndata import AnnData
from mudata import MuData

from scrcl.utils.checks import check_key
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.names import as_names
from scrcl.utils.words import counted

#: Least share of the genes with a name of their own, in a column of names.
MIN_NAMES = 0.1


def gene_labels(data: AnnData | MuData, names: Mapping[str, pd.Index], key: str | None) -> dict[str, pd.Index]:
    """The name of each gene of each modality in a column of ``var``.

    Parameters
    ----------
    data
        The data.
    names
        Names of the variables of each modality, as in ``var_names``.
    key
        Name of the column; ``None`` for ``var_names``. A gene without a name there, or with that of an earlier gene, keeps its own,
        and so do the variables of a modality without the column.

    Raises
    ------
    KeyError
        If no modality has the column.
    ValueError
        If it holds no names.
    """
    if key is None:
        return dict(names)
    tables = (
        {name: _table(data.mod[name]) for name in names}
        if isinstance(data, MuData)
        else dict.fromkeys(names, _table(data))
    )
    if not any(key in table for table in tables.values()):
        where = "adata.var" if isinstance(data, AnnData) else "mdata.var"
        check_key(
            key, list(dict.fromkeys(column for table in tables.values() for column in table)), "gene_symbols", where
        )
    columns = [table[key] for table in tables.values() if key in table]
    n_genes, n_names = sum(map(len, columns)), sum(column.nunique() for column in columns)
    if any(column.dtype.kind in "fb" for column in columns) or n_names < MIN_NAMES * n_genes:
        raise ScrclValueError(
            f"gene_symbols={key!r} holds no names of genes ({counted(n_names, 'different value')} for {counted(n_genes, 'gene')}).",
            "Name a column of var with the symbols or the identifiers of the genes.",
        )
    return {name: _labels(tables[name], names[name], key) for name in names}


def _table(data: AnnData) -> pd.DataFrame:
    return data.var if isinstance(data.var, pd.DataFrame) else data.var.to_memory()


def _labels(table: pd.DataFrame, names: pd.Index, key: str) -> pd.Index:
    if key not in table:
        return names
    symbols = pd.Series(as_names(table[key]), dtype=object)
    own = symbols.isna() | (symbols == "") | symbols.duplicated() | symbols.isin(names)
    # A symbol that is the name of another gene would occur twice.
    own &= symbols.to_numpy() != names.to_numpy()
    return pd.Index(symbols.where(~own, names.to_numpy(object)), dtype=object)
