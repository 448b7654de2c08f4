"""The linear recurrence, one step after the other, in NumPy: the definition of a backend."""

from __future__ import annotations

import numpy as np

from pararnn_solvers.linear.arguments import Array, canonical, restore


def scan(blocks: Array, rhs: Array, *, adjoint: bool = False) -> Array:
    """Return ``h`` with ``h_1 = b_1``, ``h_t = A_t h_{t-1} + b_t``; or solve the adjoint.

    The adjoint is ``lam_T = g_T``, ``lam_t = g_t + A_{t+1}^T lam_{t+1}`` with ``rhs`` as ``g``.

    Parameters
    ----------
    blocks : ndarray, shape (T, *batch, k, k, n), float64, float32 or float16
        ``blocks[..., i, j, :]`` is ``dh_i/dh_j`` per channel; ``blocks[0]`` is not used.
    rhs : ndarray, shape (T, *batch, k * n), same dtype
        Right-hand sides, component-major.
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
    Cost: ``T`` steps of a few NumPy calls, about 2 µs each; ``k*k*n`` multiplications per
    sequence and step.

    Examples
    --------
    >>> A = np.full((3, 1, 1, 1), 0.5)
    >>> scan(A, np.array([[1.0], [0.0], [0.0]])).ravel()
    array([1.  , 0.5 , 0.25])
    >>> scan(A, np.array([[0.0], [0.0], [1.0]]), adjoint=True).ravel()
    array([0.25, 0.5 , 1.  ])
    """
    A, b = canonical(blocks, rhs)
    h = np.empty(b.shape, b.dtype)
    # IEEE arithmetic answers for overflow and NaN; whoever asked looks at the result.
    with np.errstate(all="ignore"):
        if adjoint:
            _recur(A[:0:-1].swapaxes(2, 3), b[::-1], h[::-1])
        else:
            _recur(A[1:], b, h)
    return restore(h, rhs)


def _recur(A: Array, b: Array, h: Array) -> None:
    """Write ``h[0] = b[0]``, ``h[t+1] = A[t] h[t] + b[t+1]``; ``A`` has one step fewer."""
    h[:1] = b[:1]
    if A.shape[2] == 1:
        A, b, h = A[:, :, 0], b, h
        for A_t, b_t, h_old, h_new in zip(A, b[1:], h[:-1], h[1:], strict=True):
            np.multiply(A_t, h_old, out=h_new)
            h_new += b_t
    elif A.shape[4] == 1:
        # One sequence is multiplied as a plain matrix and vector, which is what BLAS is fastest at.
        one = A.shape[1] == 1
        A, b, h = (A[:, 0, :, :, 0], b[:, 0, :, 0], h[:, 0, :, 0]) if one else (A[..., 0], b, h)
        for A_t, b_t, h_old, h_new in zip(A, b[1:], h[:-1], h[1:], strict=True):
            np.matmul(A_t, h_old, out=h_new)
            h_new += b_t
    else:
        for A_t, b_t, h_old, h_new in zip(A, b[1:], h[:-1], h[1:], strict=True):
            np.einsum("bijc,bjc->bic", A_t, h_old, out=h_new)
            h_new += b_t
