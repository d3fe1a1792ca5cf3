"""Minibatches for training: a minibatch is a graph.

Cells drawn independently would rarely be in the same minibatch as their neighbours. So a random-projection tree divides the
cells into small neighbourhoods, and a minibatch consists of random neighbourhoods and the graph among their cells: it
contains more neighbours of each cell than expected by chance, and cells from all parts of the graph. The neighbourhoods
change with each epoch. A single minibatch holds all cells and the whole graph.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
import torch.distributed
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from scrcl.graph.adjacency import local_order, normalized_adjacency
from scrcl.utils.sizes import SAMPLE_CELLS

from .sparse import product, to_torch

#: Cells of a minibatch if there are more than ``SAMPLE_CELLS``.
MINIBATCH_CELLS = 1024
#: Most cells of a neighbourhood.
MAX_LEAF_CELLS = 48
#: Cells that are projected at once.
SPLIT_CELLS = 65_536


def graph_minibatch(
    features: np.ndarray, adjacency: sp.csr_array, labels: np.ndarray | None = None
) -> dict[str, Tensor]:
    """The minibatch of cells with features ``(n, d)``, float32, a binary graph ``(n, n)``, and labels ``(n,)`` or ``None``."""
    cells, propagation = torch.from_numpy(features), to_torch(normalized_adjacency(adjacency))
    minibatch = {
        "features": cells,
        "propagated": product(propagation, cells),
        "adjacency": to_torch(adjacency),
        "propagation": propagation,
    }
    return minibatch if labels is None else {**minibatch, "labels": torch.from_numpy(labels)}


def neighborhoods(points: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Divide points ``(n, d)`` into neighbourhoods of at most ``MAX_LEAF_CELLS``, the leaves of a random-projection tree.

    Each node is halved at the median along the line through two of its points. The leaves are arrays of row numbers.
    """
    n = len(points)
    order, bounds = np.arange(n), np.array([0, n])
    while (sizes := np.diff(bounds)).max() > MAX_LEAF_CELLS:
        # The sizes of the nodes of a level differ by at most one, so that all nodes are divided or none.
        node = np.repeat(np.arange(len(sizes)), sizes)
        first, second = (order[bounds[:-1] + (rng.random(len(sizes)) * sizes).astype(int)] for _ in range(2))
        lines = points[first] - points[second]
        along = np.empty(n, dtype=np.float32)
        for start in range(0, n, SPLIT_CELLS):
            chunk = slice(start, start + SPLIT_CELLS)
            np.einsum("ij,ij->i", points[order[chunk]], lines[node[chunk]], out=along[chunk])
        # A row for each node is sorted faster than all at once.
        inside = np.arange(sizes.max()) < sizes[:, None]
        by_node = np.full(inside.shape, np.inf, dtype=np.float32)
        by_node[inside] = along
        order = order[(by_node.argsort(1, kind="stable") + bounds[:-1, None])[inside]]
        bounds = np.sort(np.concatenate([bounds, bounds[:-1] + (sizes + 1) // 2]))
    return np.split(order, bounds[1:-1])


class GraphMinibatches(IterableDataset):
    """The minibatches of an epoch; each iteration draws other ones.

    Cells have features ``(n, d)``, float32, a binary graph ``(n, n)``, points ``(n, d_s)`` that determine the neighbourhoods,
    and labels ``(n,)`` by number, -1 for none; ``None`` without labels. A single minibatch holds all cells, in an order that
    makes the sparse products fast; no loss depends on the order. The seed, that of the neighbourhoods, is the same on all
    devices.
    """

    def __init__(
        self,
        features: np.ndarray,
        adjacency: sp.csr_array,
        points: np.ndarray,
        n_minibatches: int,
        seed: int,
        labels: np.ndarray | None = None,
    ) -> None:
        self.features, self.adjacency, self.points, self.labels = features, adjacency, points, labels
        self.n_minibatches, self.seed = n_minibatches, seed
        self._epoch = 0

    def __len__(self) -> int:
        return self.n_minibatches // _n_devices()

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self.n_minibatches == 1:
            yield self._whole
            return
        rng = np.random.default_rng([self.seed, self._epoch])
        self._epoch += 1
        leaves = neighborhoods(self.points, rng)
        rng.shuffle(leaves)
        # The numbers of cells of the minibatches differ by at most one.
        for cells in np.array_split(np.concatenate(leaves), self.n_minibatches)[_device() :: _n_devices()]:
            yield self._subgraph(cells)

    @cached_property
    def _whole(self) -> dict[str, Tensor]:
        return self._subgraph(local_order(self.adjacency))

    def _subgraph(self, cells: np.ndarray) -> dict[str, Tensor]:
        """The minibatch of cells with these numbers."""
        labels = None if self.labels is None else self.labels[cells]
        return graph_minibatch(self.features[cells], self.adjacency[cells][:, cells], labels)

    def __getstate__(self) -> dict[str, object]:
        # Sparse tensors cannot be copied; the minibatch is built again when it is needed.
        return {name: value for name, value in vars(self).items() if name != "_whole"}


class GraphDataModule(LightningDataModule):
    """Data module that yields :class:`GraphMinibatches` of ``batch_size`` cells.

    By default, up to ``SAMPLE_CELLS`` cells are one minibatch, and more are divided into minibatches of ``MINIBATCH_CELLS``.
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
        self.batch_size = batch_size or (n if n <= SAMPLE_CELLS else MINIBATCH_CELLS)
        self.train_idx = np.arange(n)
        self.n_train = n
        self._graph, self._labels = (features, adjacency, points), labels

    @property
    def n_minibatches(self) -> int:
        """Number of minibatches of an epoch on one device."""
        return -(-self.n_train // self.batch_size)

    def train_dataloader(self) -> DataLoader:
        """The minibatches of an epoch, the same number on each device."""
        n_devices = _n_devices()
        n_minibatches = -(-self.n_minibatches // n_devices) * n_devices
        seed = 0 if n_minibatches == 1 else int(torch.randint(2**31, ()))
        if n_devices > 1 and self.trainer is not None:
            seed = self.trainer.strategy.broadcast(seed)
        return DataLoader(GraphMinibatches(*self._graph, n_minibatches, seed, self._labels), batch_size=None)


def _n_devices() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _device() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
