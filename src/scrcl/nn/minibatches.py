"""Batches for training: a batch is a graph.

Cells drawn independently would hardly ever meet their neighbours. So the cells are divided into small neighbourhoods by a
random-projection tree, and a batch is made of random neighbourhoods and the graph among their cells: each cell keeps
more of its neighbours than chance leaves it, and meets cells from everywhere. The division is drawn anew at each epoch. A single batch holds all
cells and the whole graph.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.distributed
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from scrcl.graph.adjacency import local_order, normalized_adjacency
from scrcl.utils.sizes import SAMPLE_CELLS

from .sparse import to_torch

#: Cells of a batch beyond that.
BATCH_CELLS = 1024
#: Largest neighbourhood, in cells.
LEAF_CELLS = 48
#: Cells whose distance from a plane is computed at once.
CHUNK_CELLS = 65_536


def graph_batch(features: np.ndarray, adjacency: sp.csr_array, labels: np.ndarray | None = None) -> dict[str, Tensor]:
    """The batch of cells with features ``(n, d)``, float32, the binary graph ``(n, n)`` among them, and labels ``(n,)``, if any."""
    batch = {
        "features": torch.from_numpy(features),
        "adjacency": to_torch(adjacency),
        "propagation": to_torch(normalized_adjacency(adjacency)),
    }
    return batch if labels is None else {**batch, "labels": torch.from_numpy(labels)}


def neighborhoods(points: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Divide points ``(n, d)`` into neighbourhoods of at most ``LEAF_CELLS``, the leaves of a random-projection tree.

    Each node is halved at the median along the line through two of its points. Points are returned by number.
    """
    n = len(points)
    order, bounds = np.arange(n), np.array([0, n])
    while (sizes := np.diff(bounds)).max() > LEAF_CELLS:
        # All nodes of a level have the same size up to one, so that all are divided or none.
        node = np.repeat(np.arange(len(sizes)), sizes)
        first, second = (order[bounds[:-1] + (rng.random(len(sizes)) * sizes).astype(int)] for _ in range(2))
        lines = points[first] - points[second]
        along = np.empty(n, dtype=np.float32)
        for start in range(0, n, CHUNK_CELLS):
            chunk = slice(start, start + CHUNK_CELLS)
            np.einsum("ij,ij->i", points[order[chunk]], lines[node[chunk]], out=along[chunk])
        order = order[np.lexsort((along, node))]
        bounds = np.sort(np.concatenate([bounds, bounds[:-1] + (sizes + 1) // 2]))
    return np.split(order, bounds[1:-1])


class GraphBatches(IterableDataset):
    """The batches of an epoch, drawn anew each time they are passed through.

    Parameters
    ----------
    features, adjacency, points
        Cell features ``(n, d)``, float32, binary graph ``(n, n)``, and points ``(n, d_s)`` by which neighbourhoods are formed.
    n_batches
        Number of batches. One holds all cells, in an order that makes the sparse products fast; no loss depends on it.
    seed
        Seed of the neighbourhoods. The same on all devices.
    labels
        ``(n,)`` labels by number, -1 for none, if there are any.
    """

    def __init__(
        self,
        features: np.ndarray,
        adjacency: sp.csr_array,
        points: np.ndarray,
        n_batches: int,
        seed: int,
        labels: np.ndarray | None = None,
    ) -> None:
        self.features, self.adjacency, self.points, self.labels = features, adjacency, points, labels
        self.n_batches, self.seed = n_batches, seed
        self._epoch = 0

    def __len__(self) -> int:
        return self.n_batches // _n_devices()

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self.n_batches == 1:
            yield self._whole
            return
        rng = np.random.default_rng([self.seed, self._epoch])
        self._epoch += 1
        leaves = neighborhoods(self.points, rng)
        rng.shuffle(leaves)
        # Neighbourhoods in a row, as many cells in each batch up to one.
        for cells in np.array_split(np.concatenate(leaves), self.n_batches)[_device() :: _n_devices()]:
            yield self._among(cells)

    @cached_property
    def _whole(self) -> dict[str, Tensor]:
        return self._among(local_order(self.adjacency))

    def _among(self, cells: np.ndarray) -> dict[str, Tensor]:
        """The batch of some cells, by number."""
        labels = None if self.labels is None else self.labels[cells]
        return graph_batch(self.features[cells], self.adjacency[cells][:, cells], labels)

    def __getstate__(self) -> dict[str, Any]:
        # Sparse tensors cannot be copied; the batch is built again where it is needed.
        return {name: value for name, value in vars(self).items() if name != "_whole"}


class GraphDataModule(LightningDataModule):
    """Feeds training with graphs.

    Parameters
    ----------
    features, adjacency, points, labels
        As in :class:`GraphBatches`.
    batch_size
        Number of cells of a batch. By default all cells up to ``SAMPLE_CELLS``, and beyond ``BATCH_CELLS``.
    """

    def __init__(
        self,
        features: np.ndarray,
        adjacency: sp.csr_array,
        points: np.ndarray,
        batch_size: int | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        n = len(features)
        self.batch_size = batch_size or (n if n <= SAMPLE_CELLS else BATCH_CELLS)
        self.train_idx = np.arange(n)
        self.n_train = n
        self._graph, self._labels = (features, adjacency, points), labels

    @property
    def n_batches(self) -> int:
        """Number of batches of an epoch on one device."""
        return -(-self.n_train // self.batch_size)

    def train_dataloader(self) -> DataLoader:
        """The batches of an epoch; on several devices, as many for each."""
        n_devices = _n_devices()
        n_batches = -(-self.n_batches // n_devices) * n_devices
        seed = 0 if n_batches == 1 else int(torch.randint(2**31, ()))
        if n_devices > 1 and self.trainer is not None:
            seed = self.trainer.strategy.broadcast(seed)
        return DataLoader(GraphBatches(*self._graph, n_batches, seed, self._labels), batch_size=None)


def _n_devices() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _device() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
