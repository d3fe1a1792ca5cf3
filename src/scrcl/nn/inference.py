"""Exact inference over graphs of any size: layer by layer, in chunks of cells."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from scrcl.graph.adjacency import Propagation, reached
from scrcl.utils.progress import track
from scrcl.utils.threads import threads

from .module import SCRCLModule
from .sparse import to_torch

#: Cells of a chunk.
CHUNK_CELLS = 16_384

Representation = Literal["aligned", "refined"]
REPRESENTATIONS = get_args(Representation)
#: A representation by all modalities, or by the one with this number; and the lengths of the hidden units, ``(n, 2 M)``,
#: which the aligned representation is without.
View = tuple[Representation | Literal["lengths"], int | None]
LENGTHS: View = ("lengths", None)
#: Makes of a representation ``(m, ·)`` of cells, their features ``(m, d)`` and weights ``(m, M)`` what is kept of it.
Complete: TypeAlias = Callable[[View, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@torch.inference_mode()
def first_layer(
    module: SCRCLModule, features: np.ndarray, propagation: Propagation | sp.csr_array, cells: np.ndarray | None = None
) -> np.ndarray:
    """The result ``(m, M h)`` of the first convolution over a graph, of features ``(n, d)`` and propagation ``(n, n)``.

    Of all cells, or of those with the numbers ``(m,)``.
    """
    module.eval()
    n = len(features) if cells is None else len(cells)
    hidden = np.empty((n, module.n_modalities * module.to_genes.in_features), dtype=np.float32)
    with threads(min(n, CHUNK_CELLS) * features.shape[1]):
        for part in _chunks(n):
            rows = part if cells is None else cells[part]
            hidden[part] = _convolve(module, _product(propagation[rows], features))
    return hidden


@torch.inference_mode()
def encode(
    module: SCRCLModule,
    features: np.ndarray,
    propagation: Propagation | sp.csr_array,
    weights: np.ndarray,
    representations: Sequence[Representation],
    complete: Complete,
    cells: np.ndarray | None = None,
) -> dict[View, np.ndarray]:
    """Run the network over a whole graph.

    Parameters
    ----------
    module, features, propagation, weights
        The network, and features ``(n, d)``, propagation ``(n, n)`` and modality weights ``(n, M)`` of the cells.
    representations
        Those that are wanted of them, for all modalities and each; with the aligned one come the lengths.
    complete
        Applied to each chunk of each.
    cells
        ``(m,)`` those that are wanted; all by default.
    """
    if cells is None:
        hidden = first_layer(module, features, propagation)
    else:
        received = propagation[cells]
        around = reached(received)  # the first layer is needed only there
        hidden = first_layer(module, features, propagation, around)
        propagation, features, weights = received[:, around], features[cells], weights[cells]

    def chunk(rows: slice) -> dict[View, np.ndarray]:
        propagated = _product(propagation[rows], hidden)
        return _represent(module, features[rows], propagated, weights[rows], representations, complete)

    with threads(min(len(features), CHUNK_CELLS) * features.shape[1]):
        return _join(map(chunk, _chunks(len(features))), len(features))


@torch.inference_mode()
def encode_new(
    module: SCRCLModule,
    features: np.ndarray,
    received: sp.csr_array,
    own: float,
    weights: np.ndarray,
    reference_features: np.ndarray,
    reference_hidden: np.ndarray,
    complete: Complete,
) -> dict[View, np.ndarray]:
    """Run the network over cells that receive from a graph and send nothing; each representation ``(m, ·)``.

    Parameters
    ----------
    module, features, weights
        The network, and features ``(m, d)`` and modality weights ``(m, M)`` of the new cells.
    received, own
        Weights with which they receive from the graph, ``(m, n)``, and from themselves.
    reference_features, reference_hidden
        Features ``(n, d)`` of the cells of the graph, and the result of their first convolution ``(n, M h)``.
    complete
        Applied to each chunk of each representation.
    """
    module.eval()

    def chunk(rows: slice) -> dict[View, np.ndarray]:
        hidden = _convolve(module, _product(received[rows], reference_features) + own * features[rows])
        propagated = _product(received[rows], reference_hidden) + own * hidden
        return _represent(module, features[rows], propagated, weights[rows], REPRESENTATIONS, complete)

    with threads(min(len(features), CHUNK_CELLS) * features.shape[1]):
        return _join(map(chunk, _chunks(len(features))), len(features))


def hidden_units(latent: dict[View, np.ndarray], shares: Sequence[float], n_hidden: int) -> np.ndarray:
    """The mean ``(n, h)`` of the hidden units of both branches, of several modalities weighted by their shares.

    Columns that the aligned representation has beside its ``2 h`` are left out.
    """
    by_branch = latent[LENGTHS].reshape(-1, 2, len(shares))
    total: np.ndarray | float = 0.0
    for number, share in enumerate(shares):
        aligned = latent["aligned", number if len(shares) > 1 else None]
        views = aligned[:, : 2 * n_hidden].reshape(-1, 2, n_hidden)
        total = total + share / 2 * (by_branch[:, :, number, None] * views).sum(1)
    return np.asarray(total)


def _chunks(n: int) -> Iterator[slice]:
    starts = range(0, n, CHUNK_CELLS)
    return track((slice(start, min(start + CHUNK_CELLS, n)) for start in starts), len(starts))


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
    wanted: Sequence[Representation],
    complete: Complete,
) -> dict[View, np.ndarray]:
    views = module.views(_tensor(module, features), _tensor(module, propagated))
    pairs: dict[Representation, tuple[Tensor, Tensor]] = {}
    found: dict[View, Tensor] = {}
    if "aligned" in wanted:
        pairs["aligned"] = views["embedding_1"], views["embedding_2"]
        lengths = [part.norm(dim=1) for name in ("hidden_1", "hidden_2") for part in module.by_modality(views[name])]
        found[LENGTHS] = torch.stack(lengths, 1)
    if "refined" in wanted:
        refined = module.generative(views["hidden_1"], views["hidden_2"])
        pairs["refined"] = refined["refined_1"], refined["refined_2"]
    for name, pair in pairs.items():
        by_modality = [module.by_modality(view) for view in pair]
        if module.n_modalities > 1:
            for number, parts in enumerate(zip(*by_modality, strict=True)):
                found[name, number] = torch.cat(parts, 1)
        found[name, None] = torch.cat([_weigh(parts, _tensor(module, weights)) for parts in by_modality], 1)
    return {view: complete(view, values.cpu().numpy(), features, weights) for view, values in found.items()}


def _weigh(parts: tuple[Tensor, ...], weights: Tensor) -> Tensor:
    """The view of all modalities ``(n, ·)``: their weighted mean, which lies where they were aligned, at unit length."""
    if len(parts) == 1:
        return parts[0]
    return F.normalize(sum(weight[:, None] * part for weight, part in zip(weights.T, parts, strict=True)))


def _join(chunks: Iterable[dict[View, np.ndarray]], n: int) -> dict[View, np.ndarray]:
    joined: dict[View, np.ndarray] = {}
    start = 0
    for chunk in chunks:
        stop = start + len(next(iter(chunk.values())))
        for view, values in chunk.items():
            if view not in joined:
                joined[view] = np.empty((n, values.shape[1]), dtype=np.float32)
            joined[view][start:stop] = values
        start = stop
    return joined
