"""Compiled scans that step through time once, the lanes of a row side by side in SIMD.

All arrays are flat, as they lie in memory: ``A`` is (T, B, k, k, n), ``b`` and ``h`` (T, B, k, n).
The ``s``-th step solved is ``t = first + s*step``; it multiplies the state solved just before it
by ``A[t + shift]``, transposed in the adjoint. The adjoint walks through memory downwards all the
way, because the hardware prefetches a straight descent but not rows taken in reverse order.

Offsets are unsigned: Numba lets a signed index count from the end, which costs a select each time.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, call-arg, var-annotated, assignment, no-any-return"
from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from pararnn_solvers.linear.arguments import Array
from pararnn_solvers.linear.jit import compiled, inlined, inlined_any_order
from pararnn_solvers.linear.simd import fma, load, splat, store, width

U = np.uint64

Shape = tuple[int, int, int, int]
"""``T, B, k, n``."""
Tile = tuple[int, int, int, int]
"""Sequences ``q_lo <= q < q_hi`` and channels ``lo <= c < hi``."""
Kernel = Callable[[Array, Array, Array, Shape, Tile, bool], None]


@inlined
def _order(T: int, adjoint: bool) -> tuple[int, int, int]:
    """Return ``first, step, shift``: in which order time is solved and which ``A`` it takes."""
    return (T - 1, -1, 1) if adjoint else (0, 1, 0)


@inlined
def _multiply_add(A: Array, a: int, h: Array, x: int, b: Array, y: int, m: int, down: bool) -> None:
    """Write ``h[y:y+m] = A[a:a+m] * h[x:x+m] + b[y:y+m]``."""
    W = width(A)
    whole = m - m % W
    for v in range(U(0), whole, W):
        c = whole - W - v if down else v
        store(h, y + c, fma(load(A, a + c), load(h, x + c), load(b, y + c)))
    for c in range(whole, m):
        h[y + c] = A[a + c] * h[x + c] + b[y + c]


@compiled
def rows(A: Array, b: Array, h: Array, shape: Shape, tile: Tile, adjoint: bool) -> None:
    """Solve a tile, any ``k``, in vectors over channels."""
    T, B, k, n = shape[0], U(shape[1]), U(shape[2]), U(shape[3])
    sequences, lo, m = U(tile[1] - tile[0]), U(tile[2]), U(tile[3] - tile[2])
    first, step, shift = _order(T, adjoint)
    for s in range(T):
        t = first + s * step
        for p in range(sequences):
            q = U(tile[1]) - U(1) - p if adjoint else U(tile[0]) + p
            y = (U(t) * B + q) * k * n + lo
            x = (U(t - step) * B + q) * k * n + lo
            a = (U(t + shift) * B + q) * k * k * n + lo
            if s == 0:
                for j in range(k):
                    for c in range(m):
                        h[y + j * n + c] = b[y + j * n + c]
            elif adjoint:
                for r in range(k * k):
                    ij = k * k - U(1) - r
                    i, j = ij // k, ij % k
                    a_ij, x_i, y_j = a + ij * n, x + i * n, y + j * n
                    if r < k:  # the first term starts from g, the others add
                        _multiply_add(A, a_ij, h, x_i, b, y_j, m, True)
                    else:
                        _multiply_add(A, a_ij, h, x_i, h, y_j, m, True)
            else:
                for ij in range(k * k):
                    i, j = ij // k, ij % k
                    a_ij, x_j, y_i = a + ij * n, x + j * n, y + i * n
                    if j == U(0):
                        _multiply_add(A, a_ij, h, x_j, b, y_i, m, False)
                    else:
                        _multiply_add(A, a_ij, h, x_j, h, y_i, m, False)


@cache
def unrolled(k: int) -> Kernel:
    """Return a kernel like :func:`rows` with the products written out, for few channels."""

    @compiled
    def kernel(A: Array, b: Array, h: Array, shape: Shape, tile: Tile, adjoint: bool) -> None:
        T, B, n = shape[0], U(shape[1]), U(shape[3])
        sequences = U(tile[1] - tile[0])
        first, step, shift = _order(T, adjoint)
        row, column = (n, U(k) * n) if adjoint else (U(k) * n, n)
        for s in range(T):
            t = first + s * step
            for p in range(sequences):
                q = U(tile[1]) - U(1) - p if adjoint else U(tile[0]) + p
                for c in range(U(tile[2]), U(tile[3])):
                    y = (U(t) * B + q) * U(k) * n + c
                    x = (U(t - step) * B + q) * U(k) * n + c
                    a = (U(t + shift) * B + q) * U(k * k) * n + c
                    for i in range(k):
                        total = b[y + U(i) * n]
                        if s > 0:
                            for j in range(k):
                                total += A[a + U(i) * row + U(j) * column] * h[x + U(j) * n]
                        h[y + U(i) * n] = total

    return kernel


@inlined_any_order
def _dot(A: Array, a: int, h: Array, x: int, m: int, start: float) -> float:
    """Return ``start + A[a:a+m] . h[x:x+m]``, summed in the order that fills a vector."""
    total = start
    for j in range(m):
        total += A[a + j] * h[x + j]
    return total


@inlined
def _add_four_rows(A: Array, a: int, h: Array, x: int, y: int, k: int) -> None:
    """Write ``h[y:y+k] += A[a+i*k : a+i*k+k] * h[x+i]`` for ``i = 0, 1, 2, 3``.

    Four at a time, because a vector just stored is slow to load again.
    """
    W = width(A)
    whole = k - k % W
    x_0, x_1, x_2, x_3 = splat(h, x), splat(h, x + U(1)), splat(h, x + U(2)), splat(h, x + U(3))
    for c in range(U(0), whole, W):
        total = fma(load(A, a + c), x_0, load(h, y + c))
        total = fma(load(A, a + k + c), x_1, total)
        total = fma(load(A, a + U(2) * k + c), x_2, total)
        store(h, y + c, fma(load(A, a + U(3) * k + c), x_3, total))
    for i in range(U(4)):
        for c in range(whole, k):
            h[y + c] += A[a + i * k + c] * h[x + i]


@compiled
def dense(A: Array, b: Array, h: Array, shape: Shape, tile: Tile, adjoint: bool) -> None:
    """Solve sequences ``tile[:2]`` with ``n = 1``.

    Matrices are read row by row as they lie: dot products forward, scaled rows added for ``A^T``.
    """
    T, B, k = shape[0], U(shape[1]), U(shape[2])
    first, step, shift = _order(T, adjoint)
    for s in range(T):
        t = first + s * step
        for q in range(U(tile[0]), U(tile[1])):
            y = (U(t) * B + q) * k
            x = (U(t - step) * B + q) * k
            a = (U(t + shift) * B + q) * k * k
            if s == 0 or adjoint:
                for i in range(k):
                    h[y + i] = b[y + i]
            if s > 0 and adjoint:
                fours = k - k % U(4)
                for i in range(U(0), fours, U(4)):
                    _add_four_rows(A, a + i * k, h, x + i, y, k)
                for i in range(fours, k):
                    for c in range(k):
                        h[y + c] += A[a + i * k + c] * h[x + i]
            elif s > 0:
                for i in range(k):
                    h[y + i] = _dot(A, a + i * k, h, x, k, b[y + i])
