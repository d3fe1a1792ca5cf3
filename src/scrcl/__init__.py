"""Cell types and the genes that tell them apart, found without labels: scRCL on scvi-tools."""

from importlib.metadata import version

from . import datasets, pl
from .cluster.number import NumberOfClusters
from .data.spatialdata import from_spatialdata
from .model.scrcl import SCRCL

__all__ = ["SCRCL", "NumberOfClusters", "datasets", "from_spatialdata", "pl"]

__version__ = version("scrcl")
