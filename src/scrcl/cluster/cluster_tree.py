"""Nested clusters with names, and the evidence for each split."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from scrcl.utils import keys
from scrcl.utils.checks import check_at_least
from scrcl.utils.display import Displayed
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.words import counted

from .tree import NestedClusters

#: Name of all cells, where they are divided.
ROOT = "all"
#: Columns of the splits that the representation shows.
SHOWN_COLUMNS = ["left", "right", "n_left", "n_right", "connectivity", "supported"]


@dataclass(frozen=True, repr=False)
class ClusterTree(Displayed):
    """Nested clusters, and the evidence for each split.

    Clusters are named by the default cut: ``"0"``, ``"1"``, … by decreasing size. If a cluster is divided further, its name
    is followed by ``.0`` for the larger side and ``.1`` for the smaller one; where clusters are joined, their names are
    joined by ``+``. All cells are ``"all"``.

    Parameters
    ----------
    nested
        The nested clusters.
    cell_names
        ``(n,)`` names of the cells.
    evidence
        Data frame of the splits in the order of the linkage, with those columns of :attr:`splits` that need the counts.
    """

    nested: NestedClusters
    cell_names: pd.Index
    evidence: pd.DataFrame

    def _display(self) -> tuple[str, pd.DataFrame]:
        leaves, clusters = self.nested.n_leaves, self.n_clusters
        title = (
            f"ClusterTree of {counted(len(self.cell_names), 'cell')}: {counted(leaves, 'leaf', 'leaves')}, "
            f"{counted(clusters, 'cluster')} by default"
        )
        return title, self.splits[SHOWN_COLUMNS]

    @cached_property
    def splits(self) -> pd.DataFrame:
        """Data frame of the splits by the name of the cluster that is divided, the highest in the tree first.

        - ``left``, ``right``: names of both sides, the larger one first; ``n_left``, ``n_right``: their cells
        - ``height``: share of the clusterings that separate cells of both sides
        - ``connectivity``: edges of the cell graph between the sides, relative to those expected for the size of the smaller
          side: about 1 or more within one population, 0 for separate ones. Lower for a side of at most 30 cells with
          hardly any nearest neighbours outside of it
        - ``distance``: of the mean profiles, corrected for noise: 0 for equal and 1 for unrelated ones; says how far the
          sides are apart, not whether there is a gap between them
        - ``n_genes_left``, ``n_genes_right``: number of genes that are up on a side, with an AUROC above 0.8 and twice the
          expression; ``genes_left``, ``genes_right``: the best of them. They describe the split: halves of one population
          differ, too
        - ``pvalue``: of the hypothesis that the cells of both sides are one population, by draws from a model of one that is
          fitted to them; valid for clusters that were found in the same cells. Missing below a split with a p-value above
          0.05, as its cells are one population already
        - ``stability``: mean Jaccard index of the sides with the most similar clusters among 80 % of the cells, of the side
          that is found less well
        - ``supported``: whether the connectivity is below 0.343, which the default cut requires
        - ``verdict``: ``"type"`` for a low connectivity and genes, ``"suspicious"`` for a low connectivity without genes (a
          batch, doublets), ``"continuum"`` for genes without a low connectivity, or ``"none"``

        In space, ``connectivity`` is 0.572 times the share of the difference between the sides that is not at their border: 0 for
        regions that differ, and below 0.343 if more than 0.4 of it is at the border. Sides without a common border are compared by the edges of the spatial
        graph. The ``verdict`` is that of :meth:`scrcl.SCRCL.get_domain_borders`.
        """
        names, sides = self.names, self.nested.sides
        table = pd.DataFrame(
            {
                "left": names[sides[:, 0]],
                "right": names[sides[:, 1]],
                "n_left": self.nested.sizes[sides[:, 0]],
                "n_right": self.nested.sizes[sides[:, 1]],
                "height": self.nested.linkage[:, 2],
                "connectivity": self.nested.connectivity,
            },
            index=pd.Index(names[self.nested.n_leaves :], name="split"),
        )
        table = table.join(self.evidence.set_axis(table.index))
        table["supported"] = self.nested.supported()
        table["verdict"] = self.nested.verdicts(table[["n_genes_left", "n_genes_right"]].to_numpy())
        return table.iloc[::-1]

    @property
    def first_splits(self) -> pd.DataFrame:
        """The part of :attr:`splits` from the root down to the first splits that are not supported."""
        return self.splits[~self.splits.index.str.contains(".", regex=False)]

    @property
    def n_clusters(self) -> int:
        """Number of clusters of the default cut."""
        return int(self._default.sum()) + 1

    @property
    def linkage(self) -> np.ndarray:
        """``(L - 1, 4)`` linkage of SciPy of the leaves, whose names are :attr:`leaf_names`."""
        nested = self.nested
        return np.column_stack([nested.linkage[:, :3], nested.below[nested.n_leaves :].sum(1)])

    @property
    def leaf_names(self) -> list[str]:
        """Names of the leaves."""
        return self.names[: self.nested.n_leaves].tolist()

    @cached_property
    def sizes(self) -> pd.Series:
        """Number of cells of each cluster, by name, from the root to the leaves."""
        order = np.arange(len(self.names))[::-1]
        return pd.Series(self.nested.sizes[order], index=self.names[order], name="n_cells")

    @cached_property
    def names(self) -> np.ndarray:
        """``(2 L - 1,)`` names of the nodes, numbered as in SciPy."""
        nested = self.nested
        clusters = nested.clusters(self._default)
        names = np.empty(len(nested.sizes), dtype=object)
        names[clusters] = [str(number) for number in range(len(clusters))]
        for split in range(nested.n_leaves - 2, -1, -1):
            node = nested.n_leaves + split
            if names[node] is None:
                inside = np.flatnonzero(nested.below[node] @ nested.below[clusters].T)
                names[node] = "+".join(map(str, inside)) if len(inside) < len(clusters) else ROOT
            elif not self._default[split]:
                names[nested.sides[split]] = [f"{names[node]}.0", f"{names[node]}.1"]
        return names

    @cached_property
    def _default(self) -> np.ndarray:
        """``(L - 1,)`` whether the default cut makes each split."""
        return self.nested.made(self.nested.supported())

    def cut(
        self,
        n_clusters: int | None = None,
        *,
        connectivity: float | None = None,
        min_genes: int | None = None,
        min_distance: float | None = None,
        alpha: float | None = None,
        min_stability: float | None = None,
    ) -> pd.Series:
        """Cut the tree into clusters.

        Splits are made from the root on, as far as they and all above them meet all criteria that are given; by default, as
        far as they are ``supported``.

        Parameters
        ----------
        n_clusters
            Number of clusters, by the highest splits; with no other criterion.
        connectivity
            Bound below which the connectivity must be; higher for more clusters. 0.343 is the default cut.
        min_genes
            Least number of genes that are up on either side, of both together.
        min_distance
            Least distance of the sides.
        alpha
            Bound of the p-value.
        min_stability
            Least stability.

        Returns
        -------
        Categorical series of clusters by cell.

        Raises
        ------
        ValueError
            If ``n_clusters`` is beside other criteria, or below 1 or above the number of leaves; or if a criterion is negative, or
            is evidence that the tree does not have.

        Examples
        --------
        >>> tree = model.get_cluster_tree()
        >>> adata.obs["fine"] = tree.cut(connectivity=0.6)
        >>> tree.cut(n_clusters=5).nunique()
        5
        """
        limits = {
            "connectivity": connectivity,
            "min_genes": min_genes,
            "min_distance": min_distance,
            "alpha": alpha,
            "min_stability": min_stability,
        }
        given = {name: limit for name, limit in limits.items() if limit is not None}
        for name, limit in given.items():
            check_at_least(limit, 0.0, name)
        if n_clusters is None:
            return self._cut(self.nested.made(self._meet(given)) if given else self._default)
        if given:
            raise ScrclValueError(
                f"n_clusters={n_clusters} is given beside {', '.join(given)}.", "Leave out one or the other."
            )
        if not 1 <= n_clusters <= self.nested.n_leaves:
            raise ScrclValueError(
                f"n_clusters={n_clusters} is not between 1 and the {self.nested.n_leaves} leaves of the tree.",
                "For more clusters, call `model.get_clusters(n_clusters=...)`.",
            )
        return self._cut(self.nested.highest(n_clusters))

    def _meet(self, limits: dict[str, float]) -> np.ndarray:
        """``(L - 1,)`` whether each split meets all criteria."""
        needed = [name for name in limits if name != "connectivity"]
        if needed and self.evidence["distance"].isna().any():
            raise ScrclValueError(
                f"{', '.join(needed)} requires evidence that the tree does not have.",
                "Call `model.get_cluster_tree()` without `evidence=False`.",
            )
        splits = self.splits.iloc[::-1]
        values = {
            "connectivity": splits["connectivity"],
            "min_genes": splits["n_genes_left"] + splits["n_genes_right"],
            "min_distance": splits["distance"],
            "alpha": splits["pvalue"],
            "min_stability": splits["stability"],
        }
        met = [
            values[name] < limit if name in ("connectivity", "alpha") else values[name] >= limit
            for name, limit in limits.items()
        ]
        return np.all([criterion.to_numpy(bool) for criterion in met], axis=0)

    def _cut(self, made: np.ndarray) -> pd.Series:
        clusters = pd.Categorical.from_codes(self.nested.cut(made).labels, self.names[self.nested.clusters(made)])
        return pd.Series(clusters, index=self.cell_names, name=keys.CLUSTERS_KEY)

    def to_newick(self) -> str:
        """Return the tree in the Newick format; lengths are differences of ``height``.

        Examples
        --------
        >>> newick = model.get_cluster_tree().to_newick()
        >>> newick[-1]
        ';'
        """
        nested = self.nested
        heights = np.concatenate([np.zeros(nested.n_leaves), nested.linkage[:, 2]])
        texts = [f"'{name}'" for name in self.names]
        for node, sides in enumerate(nested.sides, nested.n_leaves):
            branches = [f"{texts[side]}:{heights[node] - heights[side]:.6g}" for side in sides]
            texts[node] = f"({','.join(branches)}){texts[node]}"
        return f"{texts[-1]};"
