"""Exact inference over graphs of any size, layer by layer, in chunks of cells."""

from collections.abc import Callable, Iterable, Iterator, Sequence
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
#: A representation of all modalities, or of the modality with this number.
View: TypeAlias = tuple[Representation, int | None]
#: Completes views ``(m, ·)`` by more columns, from the features ``(m, d)`` and modality weights ``(m, M)`` of the cells.
Complete: TypeAlias = Callable[[dict[View, np.ndarray], np.ndarray, np.ndarray], dict[View, np.ndarray]]


@dataclass
class Encoded:
    """Representations of ``m`` cells by the network.

    Attributes
    ----------
    views
        The two views of each representation side by side, ``(m, 2 h)`` or ``(m, 2 c)``, and further columns, float32.
    lengths
        ``(m, 2 M)`` lengths of the hidden units, which the aligned representation lacks; ``None`` with the refined one.
    """

    views: dict[View, np.ndarray] = field(default_factory=dict)
    lengths: np.ndarray | None = None


class Encoder:
    """A network for the cells of a reference, and for new cells that were placed among them.

    The cells of the reference have features ``(n, d)``, a propagation matrix ``(n, n)``, modality weights ``(n, M)`` and a
    graph ``(n, n)``. What the network computes of a chunk of cells is completed before the next, to hold no second copy of all.
    """

    def __init__(
        self,
        module: SCRCLModule,
        features: np.ndarray,
        propagation: Propagation,
        modality_weights: np.ndarray,
        adjacency: sp.csr_array,
        complete: Complete | None = None,
    ) -> None:
        self._module, self._features, self._propagation = module, features, propagation
        self._weights, self._adjacency, self._complete = modality_weights, adjacency, complete

    def reference(self, representation: Representation, cells: np.ndarray | None = None) -> Encoded:
        """Encode the cells of the reference, all or those with the numbers ``(m,)``."""
        graph = self._features, self._propagation, self._weights
        return encode(self._module, *graph, representation, cells, None, self._complete)

    def __call__(self, placement: Placement, representation: Representation, chunk: int | None = None) -> Encoded:
        """Encode the new cells of a placement, up to ``chunk`` of them at once."""
        size, surroundings = min(chunk or CHUNK_CELLS, CHUNK_CELLS), placement.surroundings
        if surroundings is None:
            return self._encode_alone(placement, representation, size)
        features, weights, positions = surroundings.features, surroundings.modality_weights, surroundings.positions
        propagation: Propagation | sp.csr_array = Propagation(surroundings.graph)
        if surroundings.neighbors is not None:
            propagation = join_reference(surroundings.graph, self._adjacency, surroundings.neighbors)
            features = np.concatenate([self._features, features])
            weights = np.concatenate([self._weights, weights])
            positions = positions + len(self._features)
        return encode(self._module, features, propagation, weights, representation, positions, size, self._complete)

    @torch.inference_mode()
    def _encode_alone(self, placement: Placement, representation: Representation, size: int) -> Encoded:
        """Encode new cells that receive from their neighbours in the reference and send nothing, ``size`` of them at once."""
        assert placement.neighbors is not None  # always found without coordinates
        received, own_weight = query_weights(self._adjacency, placement.neighbors)
        features, first_layer = placement.features, self._first_layer
        module, n = self._module.eval(), len(features)

        def encoded(rows: slice) -> Encoded:
            own_part = own_weight * features[rows]
            hidden = _convolve(module, _product(received[rows], self._features) + own_part)
            propagated = _product(received[rows], first_layer) + own_weight * hidden
            weights = placement.modality_weights[rows]
            return _represent(module, features[rows], propagated, weights, representation, self._complete)

        with threads(min(n, size) * features.shape[1]):
            return _join(map(encoded, _chunks(n, size)), n)

    @cached_property
    def _first_layer(self) -> np.ndarray:
        """Output ``(n, M h)`` of the first convolution for the cells of the reference, from which new cells receive it."""
        return first_layer(self._module, self._features, self._propagation)


@torch.inference_mode()
def first_layer(
    module: SCRCLModule,
    features: np.ndarray,
    propagation: Propagation | sp.csr_array,
    cells: np.ndarray | None = None,
    chunk: int | None = None,
) -> np.ndarray:
    """The output ``(m, M h)`` of the first convolution, for all cells or those with the numbers ``(m,)``.

    From features ``(n, d)`` and propagation ``(n, n)``.
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
    complete: Complete | None = None,
) -> Encoded:
    """Run the network over a whole graph.

    The cells of the graph have features ``(n, d)``, a propagation matrix ``(n, n)`` and modality weights ``(n, M)``. All are
    encoded, or those with the numbers ``cells`` ``(m,)``, up to ``chunk`` at once. The representation is computed of all
    modalities and of each; the aligned one comes with the lengths.
    """
    if cells is None:
        hidden = first_layer(module, features, propagation, None, chunk)
    else:
        received = propagation[cells]
        senders = reached(received)  # the only cells that need the first layer
        hidden = first_layer(module, features, propagation, senders, chunk)
        propagation, features, weights = received[:, senders], features[cells], weights[cells]
    n, size = len(features), chunk or CHUNK_CELLS
    with threads(min(n, size) * features.shape[1]):
        return _join(
            (
                _represent(
                    module,
                    features[rows],
                    _product(propagation[rows], hidden),
                    weights[rows],
                    representation,
                    complete,
                )
                for rows in _chunks(n, size)
            ),
            n,
        )


def hidden_units(encoded: Encoded, modality_shares: Sequence[float], n_hidden: int) -> np.ndarray:
    """The mean ``(n, h)`` of the hidden units of both branches, weighted by the shares of the modalities.

    Columns of the aligned representation after the first ``2 h`` are ignored.
    """
    assert encoded.lengths is not None  # part of the aligned representation
    by_branch = encoded.lengths.reshape(-1, 2, len(modality_shares))
    total: np.ndarray | float = 0.0
    for number, share in enumerate(modality_shares):
        aligned = encoded.views["aligned", number if len(modality_shares) > 1 else None]
        views = aligned[:, : 2 * n_hidden].reshape(-1, 2, n_hidden)
        total = total + share / 2 * (by_branch[:, :, number, None] * views).sum(1)
    return np.asarray(total)


def _chunks(n: int, size: int) -> Iterator[slice]:
    starts = range(0, n, size)
    return track((slice(start, min(start + size, n)) for start in starts), len(starts))


def _product(matrix: sp.csr_array, values: np.ndarray) -> np.ndarray:
    # Parallel, unlike the product of SciPy.
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
    complete: Complete | None,
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
    joint = torch.cat([_weighted_mean(parts, _tensor(module, weights)) for parts in by_modality], 1)
    encoded: dict[View, Tensor] = {(representation, None): joint}
    if module.n_modalities > 1:
        for number, branches in enumerate(zip(*by_modality, strict=True)):
            encoded[representation, number] = torch.cat(branches, 1)
    arrays = {view: values.cpu().numpy() for view, values in encoded.items()}
    return Encoded(arrays if complete is None else complete(arrays, features, weights), lengths)


def _weighted_mean(parts: tuple[Tensor, ...], weights: Tensor) -> Tensor:
    """Weighted mean ``(n, ·)`` of the aligned views of all modalities, at unit length."""
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
