"""Batches for training: a batch is a graph."""

import numpy as np
import scipy.sparse as sp
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from ._graph import normalized_adjacency, to_torch


def graph_batch(features: np.ndarray, adjacency: sp.csr_array) -> dict[str, Tensor]:
    """The batch that holds the given cells and the graph among them.

    Parameters
    ----------
    features
        ``(n, d)`` cell features, float32.
    adjacency
        ``(n, n)`` binary adjacency without self loops.
    """
    return {
        "features": torch.from_numpy(features),
        "adjacency": to_torch(adjacency),
        "propagation": to_torch(normalized_adjacency(adjacency)),
    }


class GraphDataModule(LightningDataModule):
    """Feeds training with one batch an epoch that holds all cells and their graph.

    Parameters
    ----------
    features
        ``(n, d)`` cell features, float32.
    adjacency
        ``(n, n)`` binary adjacency without self loops.
    """

    def __init__(self, features: np.ndarray, adjacency: sp.csr_array) -> None:
        super().__init__()
        self.train_idx = np.arange(len(features))
        self.n_train = len(features)
        self._batches = [graph_batch(features, adjacency)]

    def train_dataloader(self) -> DataLoader:
        """One batch an epoch."""
        return DataLoader(self._batches, batch_size=None)
