"""Inverses, solves, determinants and Cholesky factors of stacks of dual matrices.

Source: Giles (2008), "An extended collection of matrix derivative results for forward and reverse
mode algorithmic differentiation", sections 2.2 and 4.1; Murray (2016), arXiv 1602.07527, eq. 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers.autodiff.array_functions import unwrap
from pararnn_solvers.autodiff.dual import Dual
from pararnn_solvers.autodiff.registry import implements
from pararnn_solvers.autodiff.tangents import Array, full, lift

__all__: list[str] = []


@implements(np.linalg.inv)
def _inv(a: Array) -> Array:
    inverse = np.linalg.inv(a.value)
    return Dual(inverse, -(inverse @ full(a.tangent, a.shape) @ inverse))


@implements(np.linalg.solve)
def _solve(a: Any, b: Any) -> Any:
    if np.ndim(b) == 1:
        return _solve(a, b[:, None])[..., 0]
    va = unwrap(a)
    x = np.linalg.solve(va, unwrap(b))
    # A dx = db - dA x, for all directions at once as further columns: one factorization.
    right: Any = 0
    if isinstance(b, Dual):
        t = full(b.tangent, b.shape)
        right = lift(t, x.ndim)
    if isinstance(a, Dual):
        t = full(a.tangent, a.shape)
        right = right - lift(t, x.ndim) @ x
    right = np.broadcast_to(right, (right.shape[0], *x.shape))
    columns = np.moveaxis(right, 0, -2)
    tangent = np.linalg.solve(va, columns.reshape(*columns.shape[:-2], -1))
    return Dual(x, np.moveaxis(tangent.reshape(columns.shape), -2, 0))


@implements(np.linalg.det)
def _det(a: Array) -> Array:
    value = np.linalg.det(a.value)
    scaled = np.linalg.solve(a.value, full(a.tangent, a.shape))
    return Dual(value, value * np.trace(scaled, axis1=-2, axis2=-1))


@implements(np.linalg.cholesky)
def _cholesky(a: Array) -> Array:
    lower = np.linalg.cholesky(a.value)
    t = np.tril(full(a.tangent, a.shape))  # what is above the diagonal is not read
    symmetric = t + np.swapaxes(np.tril(t, -1), -1, -2)
    half = np.linalg.solve(lower, np.swapaxes(np.linalg.solve(lower, symmetric), -1, -2))
    phi = np.tril(half)
    diagonal = np.arange(half.shape[-1], like=half)
    phi[..., diagonal, diagonal] /= 2
    return Dual(lower, lower @ phi)
