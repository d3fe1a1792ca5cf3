"""Batches for training: a batch is a graph."""

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ._graph import local_order, normalized_adjacency, to_torch


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


class WholeGraph(Dataset):
    """A data set of one item: the batch that holds all cells and their graph.

    The cells stand in an order that makes the sparse products fast; no loss depends on it.

    Parameters
    ----------
    features
        ``(n, d)`` cell features, float32.
    adjacency
        ``(n, n)`` binary adjacency without self loops.
    """

    def __init__(self, features: np.ndarray, adjacency: sp.csr_array) -> None:
        order = local_order(adjacency)
        self.features = features[order]
        self.adjacency = adjacency[order][:, order]

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self._batch

    @cached_property
    def _batch(self) -> dict[str, Tensor]:
        return graph_batch(self.features, self.adjacency)

    def __getstate__(self) -> dict[str, Any]:
        # Sparse tensors cannot be copied; the batch is built again where it is needed.
        return {name: value for name, value in vars(self).items() if name != "_batch"}


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
        self._dataset = WholeGraph(features, adjacency)

    def train_dataloader(self) -> DataLoader:
        """One batch an epoch."""
        return DataLoader(self._dataset, batch_size=None)
