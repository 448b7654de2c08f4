"""The linear recurrence compiled with Numba: which kernel, which tiles, how many threads."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np

from pararnn_solvers.linear import numba_pairs, numba_rows, numba_split, threads
from pararnn_solvers.linear.arguments import Array, canonical, restore
from pararnn_solvers.linear.simd import BYTES

TILE_BYTES = 1 << 18
"""A tile's state, blocks and right-hand side of one step: they stay in the L2 cache."""

THREAD_BYTES = 1 << 22
"""Memory a thread must have to touch to be worth starting: about 100 µs of it."""

ROW_BYTES = 1 << 15
"""Memory a thread must touch per step: less is a walk in short strides, which is not prefetched."""

LARGEST_UNROLLED = 4


def scan(blocks: Array, rhs: Array, *, adjoint: bool = False) -> Array:
    """Return ``h`` with ``h_1 = b_1``, ``h_t = A_t h_{t-1} + b_t``; or solve the adjoint.

    The same system as :func:`pararnn_solvers.linear.sequential.scan`, with the same arguments.

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
        New and C-contiguous. float16 is computed in float32. The same bits for the same input
        and number of threads.

    Raises
    ------
    InvalidInput
        Shapes or dtypes do not fit.

    Notes
    -----
    Cost: one pass over ``blocks`` and ``rhs``, close to the speed of copying them; arrays that are
    not contiguous are copied first. The first call with a dtype and kind of shape compiles for
    about a second, unless a previous process has left the code in Numba's cache.

    A diagonal system of 1, 2, 4 or (float32) 8 lanes in all is also split in time, whose sums
    round otherwise than those of the same lanes among many. Products of several ``a`` may then
    vanish where the step by step product would not: an absolute error of the smallest normal
    number times the state before.
    """
    A, b = (np.require(x, requirements=["C", "A"]) for x in canonical(blocks, rhs))
    h = np.empty(b.shape, b.dtype)
    if h.size:
        solve(A, b, h, adjoint)
    return restore(h, rhs)


def solve(A: Array, b: Array, h: Array, adjoint: bool) -> None:
    """Write the solution to ``h``; ``A (T, B, k, k, n)``, ``b`` and ``h (T, B, k, n)``."""
    T, B, k, n = b.shape
    if k == 1:  # sequences are only more channels
        B, n = 1, B * n
    # Read-only or not, compile once: all inputs are declared read-only.
    A, b = _constant(A), _constant(b)
    if k == 1 and numba_split.fits(n, b.dtype):
        numba_split.solve(A.reshape(T, n), b.reshape(T, n), h.reshape(T, n), adjoint)
        return
    kernel = _kernel(k, n, b.itemsize)
    flat = A.reshape(-1), b.reshape(-1), h.reshape(-1)

    def work(share: numba_rows.Tile) -> None:
        for tile in _tiles(share, TILE_BYTES // ((k + 2) * k * b.itemsize)):
            kernel(*flat, (T, B, k, n), tile, adjoint)

    nbytes = A.nbytes + 2 * b.nbytes
    workers = min(threads.num_threads(), nbytes // THREAD_BYTES, nbytes // (T * ROW_BYTES))
    threads.run([partial(work, share) for share in _shares(B, n, b.itemsize, max(1, workers))])


def _constant(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _kernel(k: int, n: int, itemsize: int) -> numba_rows.Kernel:
    kernel: numba_rows.Kernel = numba_rows.dense if n == 1 else numba_rows.rows
    if k == 2 and n == 1:
        kernel = numba_pairs.pairs
    elif k <= LARGEST_UNROLLED and n * itemsize < BYTES:
        kernel = numba_rows.unrolled(k)
    return kernel


def _shares(B: int, n: int, itemsize: int, workers: int) -> list[numba_rows.Tile]:
    """Cut all lanes into one share per worker: sequences, or else channels by whole vectors."""
    if B >= workers:
        return [(lo, hi, 0, n) for lo, hi in _cuts(B, math.ceil(B / workers))]
    line = BYTES // itemsize
    width = math.ceil(n / workers / line) * line
    return [(0, B, lo, hi) for lo, hi in _cuts(n, width)]


def _tiles(share: numba_rows.Tile, lanes: int) -> list[numba_rows.Tile]:
    """Cut a share into tiles of at most so many lanes, but at least one sequence or vector."""
    q_lo, q_hi, lo, hi = share
    width = min(hi - lo, max(lanes, BYTES))
    height = max(1, lanes // width)
    sequences = [(q_lo + a, q_lo + b) for a, b in _cuts(q_hi - q_lo, height)]
    channels = [(lo + a, lo + b) for a, b in _cuts(hi - lo, width)]
    return [q + c for q, c in itertools.product(sequences, channels)]


def _cuts(size: int, width: int) -> list[tuple[int, int]]:
    return [(lo, min(lo + width, size)) for lo in range(0, size, width)]
