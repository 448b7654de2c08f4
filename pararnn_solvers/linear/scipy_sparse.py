"""The linear recurrence as one sparse matrix, solved directly: an independent reference."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from pararnn_solvers.linear.arguments import Array, canonical, restore


def scan(blocks: Array, rhs: Array, *, adjoint: bool = False) -> Array:
    """Return ``(I - S A)^{-1} b``, or ``(I - S A)^{-T} g`` for the adjoint.

    The same system as :func:`pararnn_solvers.linear.sequential.scan`, with the same arguments;
    assembled, and solved by sparse LU.

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
    For verification, not for speed, and for finite input: a NaN may spread to every state.
    Memory: ``T * k*k*n`` entries per sequence, twice (the matrix and its factor).
    """
    A, b = canonical(blocks, rhs)
    if b.size == 0:
        return np.empty(rhs.shape, rhs.dtype)
    with np.errstate(all="ignore"):
        # Natural order and no pivoting: the unit triangular matrix is its own factor L.
        factors = splu(
            _matrix(A),
            permc_spec="NATURAL",
            diag_pivot_thresh=0.0,
            options={"Equil": False, "SymmetricMode": True},
        )
        h = factors.solve(b.ravel(), trans="T" if adjoint else "N")
    return restore(h, rhs)


def _matrix(A: Array) -> sparse.csc_array:
    """Return ``I - S A``: identity blocks on the diagonal, ``-A_t`` in block row t below it."""
    T, B, k, _, n = A.shape
    unknown = np.arange(T * B * k * n).reshape(T, B, k, n)
    row = np.broadcast_to(unknown[1:, :, :, None], A[1:].shape)
    column = np.broadcast_to(unknown[:-1, :, None], A[1:].shape)
    entries = (-A[1:].ravel(), (row.ravel(), column.ravel()))
    size = unknown.size
    return sparse.csc_array(entries, shape=(size, size)) + sparse.eye_array(
        size, dtype=A.dtype, format="csc"
    )
