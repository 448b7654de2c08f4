"""The matrix of every Newton step: I - S A, block lower bidiagonal.

``S`` shifts by one step of time and ``A = diag(A_1 ... A_T)`` holds the blocks, so that
``((I - S A) v)_t = v_t - A_t v_{t-1}`` with ``v_0 = 0``. The first block multiplies that zero: it
is never read to any effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pararnn_solvers.typing import Array

if TYPE_CHECKING:
    from pararnn_solvers.linear import Scan


def block_matvec(blocks: Array, v: Array, *, adjoint: bool = False) -> Array:
    """Return ``A_t v_t`` (or ``A_t^T v_t``) for every step, sequence and channel.

    Parameters
    ----------
    blocks : array, shape (..., k, k, n)
    v : array, shape (..., k*n)
    adjoint : bool
        Multiply by the transposed blocks.

    Returns
    -------
    array, shape (..., k*n)
    """
    k, n = blocks.shape[-2:]
    product: Array
    if k == 1:
        product = blocks[..., 0, 0, :] * v
    elif n == 1:
        dense = np.swapaxes(blocks[..., 0], -1, -2) if adjoint else blocks[..., 0]
        product = np.matmul(dense, v[..., None])[..., 0]
    else:
        subscripts = "...jin,...jn->...in" if adjoint else "...ijn,...jn->...in"
        parts = np.einsum(subscripts, blocks, v.reshape(*v.shape[:-1], k, n))
        product = parts.reshape(*parts.shape[:-2], k * n)
    return product


def block_matmul(A: Array, G: Array) -> Array:
    """Return the products ``A_t G_t`` of blocks, shape (..., k, k, n)."""
    product: Array
    if A.shape[-1] == 1:
        product = np.matmul(A[..., 0], G[..., 0])[..., None]
    else:
        product = np.einsum("...ijn,...jkn->...ikn", A, G)
    return product


@dataclass(frozen=True)
class BlockBidiagonal:
    """The matrix ``M = I - S A`` of the linearized recurrence.

    Parameters
    ----------
    blocks : array, shape (T, *batch, k, k, n)
        ``blocks[t, ..., i, j, :] = dh_i/dh_j`` at step t as a vector over channels. ``k = 1`` is
        diagonal, ``n = 1`` dense.
    """

    blocks: Array

    def matvec(self, v: Array) -> Array:
        """Return ``M v``: ``v_t - A_t v_{t-1}``, for v of shape (T, *batch, d)."""
        product = v.copy()
        product[1:] -= block_matvec(self.blocks[1:], v[:-1])
        return product

    def rmatvec(self, g: Array) -> Array:
        """Return ``M^T g``: ``g_t - A_{t+1}^T g_{t+1}``, for g of shape (T, *batch, d)."""
        product = g.copy()
        product[:-1] -= block_matvec(self.blocks[1:], g[1:], adjoint=True)
        return product

    def solve(self, rhs: Array, scan: Scan) -> Array:
        """Return ``v`` with ``M v = rhs``: the linear recurrence ``v_t = A_t v_{t-1} + rhs_t``."""
        return scan(self.blocks, rhs)

    def solve_adjoint(self, g: Array, scan: Scan) -> Array:
        """Return ``lam`` with ``M^T lam = g``: the recurrence backwards in time."""
        return scan(self.blocks, g, adjoint=True)
