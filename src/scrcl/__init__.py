"""Cell types and the genes that tell them apart, found without labels: scRCL on scvi-tools."""

from importlib.metadata import version

from . import datasets, pl
from ._model import SCRCL
from ._number import NumberOfClusters

__all__ = ["SCRCL", "NumberOfClusters", "datasets", "pl"]

__version__ = version("scrcl")
