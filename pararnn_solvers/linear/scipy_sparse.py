"""The linear recurrence as one sparse triangular matrix: an independent reference."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve_triangular

from pararnn_solvers.linear.arguments import Array, canonical, restore


def scan(blocks: Array, rhs: Array, *, adjoint: bool = False) -> Array:
    """Return ``(I - S A)^{-1} b``, or ``(I - S A)^{-T} g`` for the adjoint.

    The same system as :func:`pararnn_solvers.linear.sequential.scan`, with the same arguments;
    assembled, and solved by substitution.

    Parameters
    ----------
    blocks : ndarray, shape (T, *batch, k, k, n), float64, float32 or float16
        Jacobian blocks; ``blocks[0]`` is not used.
    rhs : ndarray, shape (T, *batch, k * n), same dtype
        Right-hand sides.
    adjoint : bool
        Solve the transposed system.

    Returns
    -------
    ndarray, of the shape and dtype of ``rhs``
        New and C-contiguous. float16 is computed in float32.

    Raises
    ------
    InvalidInput
        Shapes or dtypes do not fit.

    Notes
    -----
    For verification, not for speed. Memory: ``T * k*k*n`` entries of the matrix per sequence, and
    copies of them.
    """
    A, b = canonical(blocks, rhs)
    if b.size == 0:
        return np.empty(rhs.shape, rhs.dtype)
    order = slice(None, None, -1 if adjoint else 1)
    with np.errstate(all="ignore"):
        h = spsolve_triangular(_matrix(A, adjoint), b.ravel()[order], unit_diagonal=True)
    return restore(h[order].copy(), rhs)


def _matrix(A: Array, adjoint: bool) -> sparse.csc_array:
    """Return ``I - S A``: identity blocks on the diagonal, ``-A_t`` in block row t below it.

    For the adjoint its transpose with all unknowns in reversed order, lower triangular again.
    Entries of zero are kept: zero times infinity is NaN, as it is step by step.
    """
    T, B, k, _, n = A.shape
    unknown = np.arange(T * B * k * n).reshape(T, B, k, n)
    row = np.broadcast_to(unknown[1:, :, :, None], A[1:].shape)
    column = np.broadcast_to(unknown[:-1, :, None], A[1:].shape)
    diagonal = unknown.ravel()
    entries = np.concatenate([np.ones(diagonal.size, A.dtype), -A[1:].ravel()])
    rows, columns = (np.concatenate([diagonal, index.ravel()]) for index in (row, column))
    last = diagonal.size - 1
    where = (last - columns, last - rows) if adjoint else (rows, columns)
    return sparse.csc_array((entries, where), shape=(diagonal.size, diagonal.size))
