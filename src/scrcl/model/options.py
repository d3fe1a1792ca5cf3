"""Arguments that several methods of the model share."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from scrcl.cluster.consensus import MIN_CLUSTER_CELLS
from scrcl.cluster.leiden import RESOLUTION
from scrcl.nn.inference import View
from scrcl.utils.checks import check_at_least, check_n_clusters, check_option
from scrcl.utils.errors import ScrclValueError

Method: TypeAlias = Literal["consensus", "kmeans", "leiden"]
METHODS: tuple[Method, ...] = get_args(Method)
AssociationMethod: TypeAlias = Literal["regression", "network"]
ASSOCIATION_METHODS: tuple[AssociationMethod, ...] = get_args(AssociationMethod)

#: The representation by all modalities, and the one that the map to the genes refines.
ALIGNED: View = ("aligned", None)
REFINED: View = ("refined", None)


@dataclass(frozen=True)
class ClusterOptions:
    """Which clusters are meant.

    Attributes
    ----------
    view
        Representation that is clustered, and the number of the modality, if it is that of one.
    n_clusters
        Number of clusters; estimated if ``None``.
    seed
        Seed of the clustering.
    method
        Clustering method.
    resolution
        Resolution of Leiden where the number of clusters is not given.
    min_cells
        Cells of the smallest cluster of the consensus.
    """

    view: View = ALIGNED
    n_clusters: int | None = None
    seed: int = 0
    method: Method = "consensus"
    resolution: float = RESOLUTION
    min_cells: int = MIN_CLUSTER_CELLS

    @classmethod
    def checked(
        cls,
        n_cells: int,
        *,
        view: View = ALIGNED,
        n_clusters: int | None = None,
        seed: int = 0,
        method: Method = "consensus",
        resolution: float | None = None,
        min_cells: int = MIN_CLUSTER_CELLS,
    ) -> "ClusterOptions":
        """The options of a model of ``n_cells`` cells, as the user passes them; refused if unknown, out of range or unused."""
        check_option(method, METHODS, "method")
        check_n_clusters(n_clusters, n_cells)
        if resolution is None:
            resolution = RESOLUTION
        elif method != "leiden":
            raise ScrclValueError(
                f"resolution={resolution!r} is read by method='leiden' only, not by method={method!r}.",
                "Pass `method='leiden'`, or `n_clusters` for more or fewer clusters.",
            )
        elif n_clusters is not None:
            raise ScrclValueError(
                f"resolution={resolution!r} is not read beside n_clusters={n_clusters}, which method='leiden' finds by changing "
                "the resolution.",
                "Leave one of them out.",
            )
        check_at_least(resolution, 0.0, "resolution")
        check_at_least(seed, 0, "seed")
        check_at_least(min_cells, 1, "min_cells")
        return cls(view, n_clusters, seed, method, float(resolution), min_cells)
