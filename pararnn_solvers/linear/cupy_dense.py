"""Recurrences with larger blocks on a CUDA device, by batched matrix products.

Time is cut into chunks of ``CHUNK`` steps, which are lanes of one product (two passes, as in
Blelloch 1990, section 1.4, with chunks in place of processors):

1. of each chunk, the map ``h -> G h + e``, step after step in all chunks at once;
2. the states at the chunks' ends: the same recurrence, ``CHUNK`` times shorter;
3. from there, again step after step in all chunks, the states.

Cost: ``k**3 + 2 k**2`` multiply-adds a step and lane, and ``3 CHUNK log(T) / log(CHUNK)`` products
one after the other (about 10 us each, until the work fills the GPU) in place of ``T``. Memory: the
maps are a ``CHUNK``-th of ``blocks``, and a copy of it where ``k`` and ``n`` both exceed 1.

Products of blocks may overflow where the states do not. Then a chunk starts from a state that is
not finite though the one before it is, or the reverse: one byte is read back to learn that, and if
so, the recurrence is solved step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.linear import cuda

CHUNK = 8
SHORT = 32
"""So few steps are taken one by one."""

FULL_PRODUCTS = 1 << 28
"""``lanes * k**3`` from which one step's product of blocks takes longer than starting a step."""


class Products(NamedTuple):
    """How blocks, read as they lie, multiply states and maps; in the adjoint, their transposes."""

    apply: Callable[[Any, Any], Any]
    compose: Callable[[Any, Any], Any]


def _forward(cupy: Any) -> Products:
    def apply(A: Any, v: Any) -> Any:
        return cupy.matmul(A, v[..., None])[..., 0]

    return Products(apply, cupy.matmul)


def _adjoint(cupy: Any) -> Products:
    """Keep a map as the transpose of its matrix, so that nothing has to be transposed."""

    def apply(A: Any, v: Any) -> Any:
        return cupy.matmul(v[..., None, :], A)[..., 0, :]

    return Products(apply, lambda later, earlier: cupy.matmul(earlier, later))


def solve(A: Any, b: Any, h: Any, adjoint: bool) -> None:
    """Write the solution to ``h``; ``A (T, B, k, k, n)``, ``b`` and ``h (T, B, k, n)``."""
    cupy = cuda.cupy()
    T, B, k, n = b.shape
    # Each channel becomes a lane of its own.
    A = _wide(cupy, cupy.moveaxis(A, 4, 2).reshape(T, B * n, k, k))
    b = _wide(cupy, cupy.moveaxis(b, 3, 2).reshape(T, B * n, k))
    solved = cupy.empty(b.shape, b.dtype)
    if adjoint:
        _solve(_adjoint(cupy), A[:0:-1], b[::-1], solved[::-1])
    else:
        _solve(_forward(cupy), A[1:], b, solved)
    h[...] = cupy.moveaxis(_narrow(cupy, solved, h.dtype).reshape(T, B, n, k), 2, 3)


def _solve(products: Products, A: Any, b: Any, h: Any) -> None:
    """Write ``h[0] = b[0]``, ``h[s] = A[s-1] h[s-1] + b[s]``: ``A`` has one step fewer."""
    T, lanes, k = b.shape
    if T <= SHORT or lanes * k**3 >= FULL_PRODUCTS:
        _step(products, A, b, h, 0)
        return
    P = T // CHUNK
    whole = P * CHUNK
    # 1. The first chunk needs no matrix: nothing comes before it.
    e, G = b[0:whole:CHUNK], A[CHUNK - 1 : whole - 1 : CHUNK]
    for s in range(1, CHUNK):
        e = products.apply(A[s - 1 : whole - 1 : CHUNK], e) + b[s:whole:CHUNK]
        G = products.compose(A[CHUNK + s - 1 : whole - 1 : CHUNK], G)
    # 2.
    ends = cuda.cupy().empty(e.shape, e.dtype)
    _solve(products, G, e, ends)
    # 3.
    h[0] = b[0]
    h[CHUNK:whole:CHUNK] = (
        products.apply(A[CHUNK - 1 : whole - 1 : CHUNK], ends[:-1]) + b[CHUNK:whole:CHUNK]
    )
    for s in range(1, CHUNK):
        product = products.apply(A[s - 1 : whole - 1 : CHUNK], h[s - 1 : whole : CHUNK])
        h[s:whole:CHUNK] = product + b[s:whole:CHUNK]
    _step(products, A, b, h, whole)
    if not _sound(ends[:-1], h[CHUNK - 1 : whole - 1 : CHUNK]):
        _step(products, A, b, h, 0)


def _step(products: Products, A: Any, b: Any, h: Any, start: int) -> None:
    """Solve from step ``start`` on, one step after the other."""
    if start == 0:
        h[0] = b[0]
    for s in range(max(start, 1), len(b)):
        h[s] = products.apply(A[s - 1], h[s - 1]) + b[s]


def _sound(assumed: Any, reached: Any) -> bool:
    """Return whether the same lanes are finite in the states assumed and reached at seams."""
    cupy = cuda.cupy()
    finite = [cupy.isfinite(states).all(axis=-1) for states in (assumed, reached)]
    return bool((finite[0] == finite[1]).all())


def _wide(cupy: Any, x: Any) -> Any:
    """Return 16-bit numbers as float32, contiguous."""
    if x.dtype.name == "bfloat16":
        bits = cupy.ascontiguousarray(x).view(np.uint16)
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return cupy.ascontiguousarray(x, np.float32 if x.dtype == np.float16 else None)


def _narrow(cupy: Any, x: Any, dtype: Any) -> Any:
    """Return float32 in a 16-bit dtype: to nearest, ties to even."""
    if dtype.name != "bfloat16":
        return x.astype(dtype, copy=False)
    word = x.view(np.uint32)
    rounded = word + np.uint32(0x7FFF) + (word >> np.uint32(16) & np.uint32(1))
    bits = cupy.where(cupy.isnan(x), word | np.uint32(0x400000), rounded) >> np.uint32(16)
    return bits.astype(np.uint16).view(dtype)
