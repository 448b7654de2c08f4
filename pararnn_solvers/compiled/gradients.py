"""The gradients of a trajectory by kernels: the reversed recurrence and all products, in one pass.

The reversed recurrence is linear. So pieces of time are done side by side, each as if nothing came
after it; then what does come from there is added, as far back as it can be told from nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from pararnn_solvers.compiled.numba_kernels import (
    divide_rows,
    flat,
    in_rows,
    kernel,
    lanes_of_a_tile,
    parts,
)
from pararnn_solvers.compiled.program import Program
from pararnn_solvers.compiled.shooting_policy import best_chunk, forgetting
from pararnn_solvers.compiled.tile_kernels import STEPS
from pararnn_solvers.linear import alignment, threads
from pararnn_solvers.typing import Array

TINY = 1 / 16  # of a rounding error of what was added, is not worth adding
STREAMED = 1 << 24  # bytes of gradients that leave no room in the caches for what is read
MOST_PASSES = 3  # over what comes from later chunks, before the recurrence is taken to remember


def negligible(carry: Array) -> float:
    """Return what is too little to be told from nothing beside the greatest of some adjoints.

    Zero where that is not finite: then nothing is left out.
    """
    least = TINY * float(np.finfo(carry.dtype).eps) * float(np.abs(carry).max(initial=0))
    return least if np.isfinite(least) else 0.0


def pull_back(
    program: Program, x: Array | None, h0: Array, h: Array, g: Array, solve: Any
) -> tuple[Array | None, Array, Array]:
    """Return the gradients by x, by h0, and by each parameter and channel, shape (q, n).

    Parameters
    ----------
    g : array, shape (T, B, d)
        The gradient by the states.
    solve : callable
        ``solve(g)`` returns the adjoint and what it is before the first step; used where rows have
        few channels and the recurrence does not forget.
    """
    if not h.size:
        dx = None if x is None else np.zeros_like(x)
        return dx, np.zeros_like(h0), np.zeros((len(program.parameters), program.n))
    if in_rows(program):
        unused = x is not None and len(program.drives) * program.n != x.shape[-1]
        dx = None if x is None else _new(x.shape, h.dtype, unused)
        return _pull_back_rows(program, x, h0, h, g, dx)
    T, B, _ = h.shape
    memory = forgetting(program, x, h0, T)
    S, _ = best_chunk(program, B, T, memory)
    if 2 * S <= T and memory.steps <= S:
        found = _Tiles(program, x, h0, h).by_chunks(g, S)
        if found is not None:
            return found
    lam, dh0 = solve(g)
    tiles = _Tiles(program, x, h0, h)
    tiles.run(lam, np.empty_like(h[:0]), STEPS, -1.0, recursive=False)
    return tiles.dx, dh0, tiles.by_parameters()


class _Tiles:
    """Where rows have few channels: lanes of some steps, and what is summed up over them."""

    def __init__(self, program: Program, x: Array | None, h0: Array, h: Array) -> None:
        self.program, self.shape, self.dtype = program, h.shape, h.dtype
        self.m = 0 if x is None else x.shape[-1]
        previous = alignment.empty(h.shape, h.dtype)
        previous[0], previous[1:] = h0, h[:-1]
        self.inputs = (flat(previous, h.dtype), flat(x, h.dtype), program.theta)
        self.dx = None if x is None else _new(x.shape, h.dtype, not program.drives)
        self.q = len(program.parameters)
        self.totals = np.zeros(max(1, self.q) * program.n)

    def run(self, g: Array, carry: Array, S: int, least: float, recursive: bool) -> None:
        """Go through all lanes of S steps once, from and to ``carry`` (lanes, d)."""
        T, B, _ = self.shape
        compute = kernel(self.program, "tile", "adjoint", self.program.k)
        count = -(-T // S) * B if recursive else -(-T * B // S)
        L = lanes_of_a_tile(self.program, self.m, count)
        shape = (T, B, self.m, self.program.n)
        if not recursive:  # any rows, in any order
            carry, shape = np.zeros((count, self.shape[-1]), self.dtype), (T * B, 1, *shape[2:])
        arrays = (
            *self.inputs,
            flat(g, self.dtype),
            flat(self.dx, self.dtype),
            flat(carry, self.dtype),
        )
        pieces = parts(count, T * B * self.shape[-1], L)
        totals = np.zeros((len(pieces), self.totals.size))
        calls = [(total, shape, piece) for total, piece in zip(totals, pieces, strict=True)]
        limit = self.dtype.type(least)
        threads.run([partial(compute, *arrays, *call, S, L, limit, recursive) for call in calls])
        self.totals += totals.sum(axis=0)

    def by_chunks(self, g: Array, S: int) -> tuple[Array | None, Array, Array] | None:
        """Return the gradients, or None if chunks are not forgotten within a chunk."""
        T, B, d = self.shape
        P = -(-T // S)
        carry = alignment.zeros((P, B, d), self.dtype)
        self.run(g, carry, S, -1.0, recursive=True)
        first = carry[0].copy()
        least = negligible(carry)
        for _ in range(MOST_PASSES):
            carry[:-1], carry[-1] = carry[1:], 0
            if not carry.any():
                return self.dx, first, self.by_parameters()
            self.run(g[:0], carry, S, least, recursive=True)
            first += carry[0]
        carry[:-1], carry[-1] = carry[1:], 0
        return None if carry.any() else (self.dx, first, self.by_parameters())

    def by_parameters(self) -> Array:
        """Return the sums, shape (q, n)."""
        n = self.program.n
        return self.totals[: self.q * n].reshape(self.q, n)


def _new(shape: tuple[int, ...], dtype: Any, zero: bool) -> Array:
    return alignment.zeros(shape, dtype) if zero else alignment.empty(shape, dtype)


def _starts_lines(program: Program, dx: Array | None) -> bool:
    """Tell whether gradients by x are large, and each component starts a cache line in each row."""
    if dx is None or dx.nbytes < STREAMED:
        return False
    starts = [dx.shape[-1], program.n, *(place.offset for place in program.drive_places)]
    return all(numbers * dx.itemsize % alignment.LINE == 0 for numbers in starts)


def _pull_back_rows(
    program: Program,
    x: Array | None,
    h0: Array,
    h: Array,
    g: Array,
    dx: Array | None,
) -> tuple[Array | None, Array, Array]:
    """Do it in one reversed pass; where threads share no row, over pieces of time side by side."""
    T, B, d = h.shape
    n, k, m = program.n, program.k, 0 if x is None else x.shape[-1]
    compute = kernel(program, "row", "adjoint", k)
    lanes = divide_rows(program, B, h.size)
    if any(not i.channels for i in program.drives) and B == 1:
        lanes = [(0, 1, 0, n)]  # threads would add to the same entries of dx
    P = max(1, len(parts(T, h.size))) if len(lanes) == 1 else 1
    S = max(1, -(-T // P))
    carry = alignment.zeros((max(P, len(lanes)), B, d), h.dtype)  # of each thread its own
    entries = max(1, len(program.parameters)) * n
    sums = alignment.zeros((max(P, len(lanes)), entries), h.dtype)
    totals = np.zeros(sums.shape)
    arrays = (
        flat(x, h.dtype),
        program.theta,
        flat(h0, h.dtype),
        flat(h, h.dtype),
        flat(g, h.dtype),
        flat(dx, h.dtype),
    )

    def call(i: int, chunk: int, lane: Any, least: float) -> None:
        of_chunks = carry[i - chunk :].reshape(-1)
        chunks, shape = (chunk, chunk + 1), (T, B, m, n)
        streams = least < 0 and _starts_lines(program, dx)
        rest = (shape, chunks, S, lane, h.dtype.type(least), streams)
        compute(*arrays, of_chunks, sums[i], totals[i], *rest)

    each = [(p, lane) for p in range(P) for lane in lanes]
    threads.run([partial(call, i, p, lane, -1.0) for i, (p, lane) in enumerate(each)])
    # Threads with channels of their own left zeros in those of others.
    first = carry[0].copy() if P > 1 else carry.sum(axis=0)
    for p in range(P - 2, -1, -1):
        least = negligible(carry[p + 1])
        own, carry[p] = carry[p].copy(), carry[p + 1]
        call(p, p, lanes[0], least)
        carry[p] += own
        first = carry[p]
    return dx, first, totals.sum(axis=0)[: len(program.parameters) * n].reshape(-1, n)
