"""Clusters of single cells and their marker genes by contrastive learning: scRCL on scvi-tools.

Examples
--------
All examples use 600 blood cells for training, and 100 more as new cells:

>>> import scrcl
>>> adata = scrcl.datasets.pbmc700()
>>> adata, new_adata = adata[:600].copy(), adata[600:].copy()
>>> scrcl.SCRCL.setup_anndata(adata)
>>> model = scrcl.SCRCL(adata)
>>> model.train()
>>> adata.obsm["X_scrcl"] = model.get_latent_representation()
>>> adata.obs["scrcl"] = model.get_clusters()
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import datasets, pl
    from .cluster.cluster_tree import ClusterTree
    from .cluster.number import NumberOfClusters
    from .data.spatialdata import from_spatialdata
    from .labels.report import LabelReport
    from .model.batches import BatchSpaces
    from .model.scrcl import SCRCL
    from .reference.batch_report import BatchReport

__all__ = [
    "SCRCL",
    "BatchReport",
    "BatchSpaces",
    "ClusterTree",
    "LabelReport",
    "NumberOfClusters",
    "datasets",
    "from_spatialdata",
    "pl",
]

__version__ = version("scrcl")

#: Modules of the public names. They are imported on first use, because PyTorch and scanpy take seconds.
_MODULES = {
    "SCRCL": "scrcl.model.scrcl",
    "BatchReport": "scrcl.reference.batch_report",
    "BatchSpaces": "scrcl.model.batches",
    "ClusterTree": "scrcl.cluster.cluster_tree",
    "LabelReport": "scrcl.labels.report",
    "NumberOfClusters": "scrcl.cluster.number",
    "from_spatialdata": "scrcl.data.spatialdata",
    "datasets": "scrcl.datasets",
    "pl": "scrcl.pl",
}

if not TYPE_CHECKING:  # type checkers would accept any name

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(_MODULES[name])
        value = globals()[name] = getattr(module, name, module)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
