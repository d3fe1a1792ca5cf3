"""Exact inference over graphs of any size: layer by layer, in chunks of cells."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ._module import SCRCLModule
from ._progress import track

#: Cells of a chunk.
CHUNK_CELLS = 16_384

Representation = Literal["aligned", "refined"]
REPRESENTATIONS = get_args(Representation)


@dataclass(frozen=True)
class Encoded:
    """What the network makes of the cells of a graph.

    Attributes
    ----------
    hidden
        ``(n, h)`` result of the first convolution, from which new cells receive.
    latent
        ``(n, ·)`` each representation.
    """

    hidden: np.ndarray
    latent: dict[Representation, np.ndarray]


@torch.inference_mode()
def encode(module: SCRCLModule, features: np.ndarray, propagation: sp.csr_array) -> Encoded:
    """Run the network over a whole graph.

    Parameters
    ----------
    module
        The network.
    features
        ``(n, d)`` cell features, float32.
    propagation
        ``(n, n)`` propagation matrix.
    """
    module.eval()
    hidden = np.concatenate([_convolve(module, propagation[rows] @ features) for rows in _chunks(len(features))])
    latent = [_represent(module, features[rows], propagation[rows] @ hidden) for rows in _chunks(len(features))]
    return Encoded(hidden, _join(latent))


@torch.inference_mode()
def encode_new(
    module: SCRCLModule,
    features: np.ndarray,
    received: sp.csr_array,
    own: float,
    reference_features: np.ndarray,
    reference_hidden: np.ndarray,
) -> dict[Representation, np.ndarray]:
    """Run the network over cells that receive from a graph and send nothing; each representation ``(m, ·)``.

    Parameters
    ----------
    module
        The network.
    features
        ``(m, d)`` features of the new cells, float32.
    received, own
        Weights with which they receive from the graph, ``(m, n)``, and from themselves.
    reference_features, reference_hidden
        Features ``(n, d)`` of the cells of the graph, and the result of their first convolution ``(n, h)``.
    """
    module.eval()
    latent = []
    for rows in _chunks(len(features)):
        hidden = _convolve(module, received[rows] @ reference_features + own * features[rows])
        latent.append(_represent(module, features[rows], received[rows] @ reference_hidden + own * hidden))
    return _join(latent)


def _chunks(n: int) -> Iterator[slice]:
    starts = range(0, n, CHUNK_CELLS)
    return track((slice(start, min(start + CHUNK_CELLS, n)) for start in starts), len(starts))


def _tensor(module: SCRCLModule, values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(module.device)


def _convolve(module: SCRCLModule, propagated: np.ndarray) -> np.ndarray:
    return module.convolve(_tensor(module, propagated)).cpu().numpy()


def _represent(module: SCRCLModule, features: np.ndarray, propagated: np.ndarray) -> dict[Representation, np.ndarray]:
    views = module.views(_tensor(module, features), _tensor(module, propagated))
    refined = module.generative(views["hidden_1"], views["hidden_2"])
    return {
        "aligned": torch.cat([views["embedding_1"], views["embedding_2"]], 1).cpu().numpy(),
        "refined": torch.cat([refined["refined_1"], refined["refined_2"]], 1).cpu().numpy(),
    }


def _join(chunks: list[dict[Representation, np.ndarray]]) -> dict[Representation, np.ndarray]:
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in REPRESENTATIONS}
