"""Sums of counts by sample and group of cells, for tests between conditions in other packages."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.utils import make_index_unique
from mudata import MuData

from scrcl.data.columns import read_column
from scrcl.utils import keys
from scrcl.utils.checks import check_at_least
from scrcl.utils.errors import ScrclTypeError, ScrclValueError
from scrcl.utils.names import as_groups

from .base import Data, SCRCLBase
from .covariates import warn_of_names
from .docstrings import documented
from .expression import chosen_modalities

#: Columns of the result.
N_CELLS, N_COUNTS = "n_cells", "n_counts"


class PseudobulkMixin(SCRCLBase):
    """Sums of the counts of :class:`scrcl.SCRCL`."""

    @documented
    def get_pseudobulk(
        self,
        sample_key: str | Sequence[str],
        groupby: str | None = None,
        adata: Data | None = None,
        min_cells: int = 10,
        modality: str | None = None,
    ) -> AnnData:
        """Return the sum of the counts of each sample in each group of cells, for tests between conditions.

        Samples are what was drawn independently, such as donors: tests between conditions need several in each. Pass the result
        to PyDESeq2 or pertpy, one group at a time.

        Parameters
        ----------
        sample_key
            Key of ``adata.obs`` of the sample of each cell, or several: donor and condition, if donors are in several conditions.
        groupby
            Key of ``adata.obs`` of the groups, such as cell types; by default, the clusters of :meth:`get_clusters`.
        adata
            Cells with the same genes, matched by name. By default the data of the model.
        min_cells
            Samples with fewer cells in a group are left out for this group.
        %(gene_modality)s
            One modality is summed: by default the first that has counts.

        Returns
        -------
        Samples and groups by all genes that were measured. ``X`` are dense sums of raw counts, integers. ``obs`` has the keys of
        the samples, the group (by default ``"scrcl"``), ``n_cells``, ``n_counts``, and every column of ``adata.obs`` that has one
        value in each sample, such as the condition. Cells without a sample or a group are left out.

        Raises
        ------
        RuntimeError
            If the model is not trained, and ``groupby`` is not given.
        KeyError
            If a key is missing.
        ValueError
            If no sample has enough cells of a group, or a key occurs twice or is the name of a column of the result.

        Examples
        --------
        >>> donors.obs["condition"] = donors.obs["donor"].map({"first": "control", "second": "treated"})
        >>> scrcl.SCRCL.setup_anndata(donors)
        >>> model = scrcl.SCRCL(donors)
        >>> model.train(max_epochs=2)
        >>> sums = model.get_pseudobulk("donor", groupby="cell_type")
        >>> sorted(sums.obs.columns)
        ['cell_type', 'condition', 'donor', 'n_cells', 'n_counts']
        """
        check_at_least(min_cells, 1, "min_cells")
        sample_keys = _as_keys(sample_key)
        data = self._data(adata)
        name = chosen_modalities(self, modality, counted=True)[0]
        samples = {key: as_groups(read_column(data, key, "sample_key")) for key in sample_keys}
        for key, names in samples.items():
            warn_of_names(set(names.dropna()), f"{'mdata' if isinstance(data, MuData) else 'adata'}.obs[{key!r}]")
        group_key = keys.CLUSTERS_KEY if groupby is None else groupby
        if group_key in sample_keys:
            raise ScrclValueError(
                f"groupby={group_key!r} is among sample_key, too.", "Pass a column of cell types as `groupby`."
            )
        reserved = next((key for key in (*sample_keys, group_key) if key in (N_CELLS, N_COUNTS)), None)
        if reserved is not None:
            raise ScrclValueError(
                f"{'groupby' if reserved == group_key else 'sample_key'}={reserved!r} is the name of a column of the result.",
                f"Rename it: `adata.obs['sample'] = adata.obs[{reserved!r}]`.",
            )
        groups = self.get_clusters(data) if groupby is None else read_column(data, groupby, "groupby")
        table = pd.DataFrame({**samples, group_key: as_groups(groups)})
        rows = np.flatnonzero(table.notna().all(axis=1))
        by_unit = table.iloc[rows].groupby([group_key, *sample_keys], observed=True, sort=True)
        codes, sizes = by_unit.ngroup().to_numpy(), by_unit.size()
        kept = np.flatnonzero(sizes >= min_cells)
        if len(rows) == 0:
            raise ScrclValueError(
                f"No cell has a sample (sample_key={sample_key!r}) and a group (groupby={groupby!r}): values are missing.",
                "Pass the keys of columns that have a value for cells.",
            )
        if len(kept) == 0:
            raise ScrclValueError(
                f"min_cells={min_cells} is more than any sample has in a group: the most are {int(sizes.max())}.",
                "Pass fewer, or larger samples or groups.",
            )
        source = self._sources(data)[name]
        assert source.counts is not None  # the modality is counted
        sums = np.zeros((len(sizes), len(source.names)))
        for block, counts in source.counts.blocks(rows):
            member = codes[block]
            indicator = sp.csr_array(
                (np.ones(len(member)), (member, np.arange(len(member)))), shape=(len(sizes), len(member))
            )
            sums += indicator @ counts
        obs = sizes.index[kept].to_frame(index=False)[[*sample_keys, group_key]].astype(str)
        obs.index = make_index_unique(pd.Index(obs.agg(" ".join, axis=1), name=None))
        obs[N_CELLS], obs[N_COUNTS] = sizes.to_numpy()[kept], sums[kept].sum(1).astype(np.int64)
        first = rows[np.unique(codes, return_index=True)[1]][kept]
        for key, values in _constant(data.obs, table, sample_keys).items():
            if key not in obs:
                obs[key] = values.iloc[first].to_numpy()
        var = (data.mod[name] if isinstance(data, MuData) else data).var
        described = [key for key in var.columns if not key.startswith("scrcl")] if isinstance(var, pd.DataFrame) else []
        var = pd.DataFrame({key: var[key].to_numpy() for key in described}, index=source.names.to_numpy(str))
        return AnnData(sums[kept].astype(np.int64), obs=obs, var=var)


def _as_keys(sample_key: object) -> list[str]:
    """The keys of the samples, at least one, all different."""
    keys_given = [sample_key] if isinstance(sample_key, str) else sample_key
    found = [key for key in keys_given if isinstance(key, str)] if isinstance(keys_given, list | tuple) else []
    if not found or not isinstance(keys_given, list | tuple) or len(found) < len(keys_given):
        raise ScrclTypeError(
            f"sample_key={sample_key!r} does not name columns.", "Pass a key of adata.obs, or a list of them."
        )
    if len(set(found)) < len(found):
        raise ScrclValueError(f"sample_key={sample_key!r} names a column twice.", "Name each column once.")
    return found


def _constant(obs: object, table: pd.DataFrame, sample_keys: list[str]) -> dict[str, pd.Series]:
    """Columns of ``obs`` with one value in each sample; none where they are not in memory."""
    if not isinstance(obs, pd.DataFrame):
        return {}
    sample = table.groupby(sample_keys, observed=True).ngroup().to_numpy()
    found = {}
    for key in obs.columns[~obs.columns.str.startswith("_scvi")]:
        try:
            values = pd.Series(as_groups(obs[key]).codes)
        except TypeError:  # of containers
            continue
        if (values[sample >= 0].groupby(sample[sample >= 0]).nunique() <= 1).all():
            found[key] = obs[key]
    return found
