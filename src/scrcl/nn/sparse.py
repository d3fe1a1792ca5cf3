"""Sparse matrices in torch."""

import warnings
from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor


def to_torch(matrix: sp.csr_array, dtype: type[np.floating] = np.float32) -> Tensor:
    """A sparse CSR tensor, float32 by default, with the 32-bit indices that the fast CPU kernels require."""
    with warnings.catch_warnings():
        # Torch warns once that CSR tensors are in beta and that their invariants are not checked.
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)", category=UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int32)),
            torch.from_numpy(matrix.indices.astype(np.int32)),
            torch.from_numpy(matrix.data.astype(dtype)),
            size=matrix.shape,
        )


class _Context(Protocol):
    matrix: Tensor


class _SymmetricProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, matrix: Tensor, x: Tensor) -> Tensor:
        ctx.matrix = matrix
        return product(matrix, x)

    @staticmethod
    def backward(ctx: _Context, gradient: Tensor) -> tuple[None, Tensor]:
        return None, product(ctx.matrix, gradient)


def product(matrix: Tensor, x: Tensor) -> Tensor:
    """Product of a sparse CSR tensor ``(n, n)`` with a dense one ``(n, d)``, not differentiable."""
    # Sparse products exist in the precision of the matrix only, also under mixed precision.
    with torch.autocast(x.device.type, enabled=False):
        values = x.to(matrix.dtype)
        result = values.new_empty((matrix.shape[0], values.shape[1]))
        torch.addmm(result, matrix, values, beta=0, out=result)  # `matrix @ values` would write the result three times
        return result.to(x.dtype)


def symmetric_product(matrix: Tensor, x: Tensor) -> Tensor:
    """Product of a symmetric sparse CSR tensor ``(n, n)`` with a dense one ``(n, d)``, differentiable in the latter.

    The gradient is multiplied by the same matrix, which torch would sort and transpose in each backward pass.
    """
    return _SymmetricProduct.apply(matrix, x)
