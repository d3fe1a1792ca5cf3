"""Cell types and the genes that tell them apart, found without labels: scRCL on scvi-tools."""

from importlib.metadata import version

from . import datasets, pl
from ._model import SCRCL
from ._number import NumberOfClusters
from ._spatialdata import from_spatialdata

__all__ = ["SCRCL", "NumberOfClusters", "datasets", "from_spatialdata", "pl"]

__version__ = version("scrcl")
