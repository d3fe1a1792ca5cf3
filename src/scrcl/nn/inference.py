"""Exact inference over graphs of any size: layer by layer, in chunks of cells."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from scrcl.graph.adjacency import Propagation, join_reference, query_weights, reached
from scrcl.graph.placement import Placement
from scrcl.utils.progress import track
from scrcl.utils.threads import threads

from .module import SCRCLModule
from .sparse import to_torch

#: Cells of a chunk.
CHUNK_CELLS = 16_384

Representation = Literal["aligned", "refined"]
REPRESENTATIONS = get_args(Representation)
#: A representation by all modalities, or by the one with this number.
View: TypeAlias = tuple[Representation, int | None]


@dataclass
class Encoded:
    """What a network makes of ``m`` cells.

    Attributes
    ----------
    views
        The two views of each representation side by side, ``(m, 2 h)`` or ``(m, 2 c)``, float32.
    lengths
        ``(m, 2 M)`` lengths of the hidden units, which the aligned representation is without; ``None`` where only the
        refined one was asked for.
    """

    views: dict[View, np.ndarray] = field(default_factory=dict)
    lengths: np.ndarray | None = None


class Encoder:
    """A network over the cells of a reference, and over cells that were placed among them.

    Parameters
    ----------
    module
        The network.
    features, propagation, modality_weights
        Features ``(n, d)``, propagation ``(n, n)`` and modality weights ``(n, M)`` of the cells of the reference.
    adjacency
        ``(n, n)`` their graph.
    """

    def __init__(
        self,
        module: SCRCLModule,
        features: np.ndarray,
        propagation: Propagation,
        modality_weights: np.ndarray,
        adjacency: sp.csr_array,
    ) -> None:
        self._module, self._features, self._propagation = module, features, propagation
        self._weights, self._adjacency = modality_weights, adjacency

    def reference(self, representation: Representation, cells: np.ndarray | None = None) -> Encoded:
        """The cells of the reference, all or those with the numbers ``(m,)``."""
        return encode(self._module, self._features, self._propagation, self._weights, representation, cells)

    def __call__(self, placement: Placement, representation: Representation, chunk: int | None = None) -> Encoded:
        """The new cells of a placement, up to ``chunk`` of them at once."""
        module, size, around = self._module, min(chunk or CHUNK_CELLS, CHUNK_CELLS), placement.surroundings
        features, weights = placement.features, placement.modality_weights
        if around is None:
            assert placement.neighbors is not None  # outside space they are always found
            received, own = query_weights(self._adjacency, placement.neighbors)
            graph = self._features, self._first_layer
            return encode_new(module, features, received, own, weights, *graph, representation, size)
        features, weights, positions = around.features, around.modality_weights, around.positions
        propagation: Propagation | sp.csr_array = Propagation(around.graph)
        if around.neighbors is not None:
            propagation = join_reference(around.graph, self._adjacency, around.neighbors)
            features = np.concatenate([self._features, features])
            weights = np.concatenate([self._weights, weights])
            positions = positions + len(self._features)
        return encode(module, features, propagation, weights, representation, positions, size)

    @cached_property
    def _first_layer(self) -> np.ndarray:
        """What new cells receive, beside features, from those of the reference, ``(n, M h)``."""
        return first_layer(self._module, self._features, self._propagation)


@torch.inference_mode()
def first_layer(
    module: SCRCLModule,
    features: np.ndarray,
    propagation: Propagation | sp.csr_array,
    cells: np.ndarray | None = None,
    chunk: int | None = None,
) -> np.ndarray:
    """The result ``(m, M h)`` of the first convolution over a graph, of features ``(n, d)`` and propagation ``(n, n)``.

    Of all cells, or of those with the numbers ``(m,)``.
    """
    module.eval()
    n = len(features) if cells is None else len(cells)
    hidden = np.empty((n, module.n_modalities * module.to_genes.in_features), dtype=np.float32)
    size = chunk or CHUNK_CELLS
    with threads(min(n, size) * features.shape[1]):
        for part in _chunks(n, size):
            rows = part if cells is None else cells[part]
            hidden[part] = _convolve(module, _product(propagation[rows], features))
    return hidden


@torch.inference_mode()
def encode(
    module: SCRCLModule,
    features: np.ndarray,
    propagation: Propagation | sp.csr_array,
    weights: np.ndarray,
    representation: Representation,
    cells: np.ndarray | None = None,
    chunk: int | None = None,
) -> Encoded:
    """Run the network over a whole graph.

    Parameters
    ----------
    module, features, propagation, weights
        The network, and features ``(n, d)``, propagation ``(n, n)`` and modality weights ``(n, M)`` of the cells.
    representation
        The one that is wanted of them, by all modalities and by each; with the aligned one come the lengths.
    cells
        ``(m,)`` those that are wanted; all by default.
    chunk
        Cells that pass the network at once.
    """
    if cells is None:
        hidden = first_layer(module, features, propagation, None, chunk)
    else:
        received = propagation[cells]
        around = reached(received)  # the first layer is needed only there
        hidden = first_layer(module, features, propagation, around, chunk)
        propagation, features, weights = received[:, around], features[cells], weights[cells]
    n, size = len(features), chunk or CHUNK_CELLS
    with threads(min(n, size) * features.shape[1]):
        return _join(
            (
                _represent(module, features[rows], _product(propagation[rows], hidden), weights[rows], representation)
                for rows in _chunks(n, size)
            ),
            n,
        )


@torch.inference_mode()
def encode_new(
    module: SCRCLModule,
    features: np.ndarray,
    received: sp.csr_array,
    own: float,
    weights: np.ndarray,
    reference_features: np.ndarray,
    reference_hidden: np.ndarray,
    representation: Representation,
    chunk: int | None = None,
) -> Encoded:
    """Run the network over cells that receive from a graph and send nothing.

    Parameters
    ----------
    module, features, weights
        The network, and features ``(m, d)`` and modality weights ``(m, M)`` of the new cells.
    received, own
        Weights with which they receive from the graph, ``(m, n)``, and from themselves.
    reference_features, reference_hidden
        Features ``(n, d)`` of the cells of the graph, and the result of their first convolution ``(n, M h)``.
    representation, chunk
        As in :func:`encode`.
    """
    module.eval()
    n, size = len(features), chunk or CHUNK_CELLS

    def encoded(rows: slice) -> Encoded:
        hidden = _convolve(module, _product(received[rows], reference_features) + own * features[rows])
        propagated = _product(received[rows], reference_hidden) + own * hidden
        return _represent(module, features[rows], propagated, weights[rows], representation)

    with threads(min(n, size) * features.shape[1]):
        return _join(map(encoded, _chunks(n, size)), n)


def hidden_units(encoded: Encoded, shares: Sequence[float], n_hidden: int) -> np.ndarray:
    """The mean ``(n, h)`` of the hidden units of both branches, of several modalities weighted by their shares.

    Columns that the aligned representation has beside its ``2 h`` are left out.
    """
    assert encoded.lengths is not None  # they come with the aligned representation
    by_branch = encoded.lengths.reshape(-1, 2, len(shares))
    total: np.ndarray | float = 0.0
    for number, share in enumerate(shares):
        aligned = encoded.views["aligned", number if len(shares) > 1 else None]
        views = aligned[:, : 2 * n_hidden].reshape(-1, 2, n_hidden)
        total = total + share / 2 * (by_branch[:, :, number, None] * views).sum(1)
    return np.asarray(total)


def _chunks(n: int, size: int) -> Iterator[slice]:
    starts = range(0, n, size)
    return track((slice(start, min(start + size, n)) for start in starts), len(starts))


def _product(matrix: sp.csr_array, values: np.ndarray) -> np.ndarray:
    # On all cores, which that of SciPy is not.
    return (to_torch(matrix) @ _on_cpu(values)).numpy()


def _on_cpu(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _tensor(module: SCRCLModule, values: np.ndarray) -> Tensor:
    return _on_cpu(values).to(module.device)


def _convolve(module: SCRCLModule, propagated: np.ndarray) -> np.ndarray:
    return module.convolve(_tensor(module, propagated)).cpu().numpy()


def _represent(
    module: SCRCLModule,
    features: np.ndarray,
    propagated: np.ndarray,
    weights: np.ndarray,
    representation: Representation,
) -> Encoded:
    views = module.views(_tensor(module, features), _tensor(module, propagated))
    lengths = None
    if representation == "aligned":
        pair = views["embedding_1"], views["embedding_2"]
        parts = [part.norm(dim=1) for name in ("hidden_1", "hidden_2") for part in module.by_modality(views[name])]
        lengths = torch.stack(parts, 1).cpu().numpy()
    else:
        refined = module.generative(views["hidden_1"], views["hidden_2"])
        pair = refined["refined_1"], refined["refined_2"]
    by_modality = [module.by_modality(view) for view in pair]
    found: dict[View, Tensor] = {}
    if module.n_modalities > 1:
        for number, own in enumerate(zip(*by_modality, strict=True)):
            found[representation, number] = torch.cat(own, 1)
    found[representation, None] = torch.cat([_weigh(own, _tensor(module, weights)) for own in by_modality], 1)
    return Encoded({view: values.cpu().numpy() for view, values in found.items()}, lengths)


def _weigh(parts: tuple[Tensor, ...], weights: Tensor) -> Tensor:
    """The view of all modalities ``(n, ·)``: their weighted mean, which lies where they were aligned, at unit length."""
    if len(parts) == 1:
        return parts[0]
    return F.normalize(sum(weight[:, None] * part for weight, part in zip(weights.T, parts, strict=True)))


def _join(chunks: Iterable[Encoded], n: int) -> Encoded:
    joined = Encoded()
    start = 0
    for chunk in chunks:
        stop = start + len(next(iter(chunk.views.values())))
        for view, values in chunk.views.items():
            if view not in joined.views:
                joined.views[view] = np.empty((n, values.shape[1]), dtype=np.float32)
            joined.views[view][start:stop] = values
        if chunk.lengths is not None:
            if joined.lengths is None:
                joined.lengths = np.empty((n, chunk.lengths.shape[1]), dtype=np.float32)
            joined.lengths[start:stop] = chunk.lengths
        start = stop
    return joined
