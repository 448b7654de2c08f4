"""Kernels for rows of few channels: a vector holds the same channel of several lanes.

A *lane* is one chunk of one sequence: lane ``i`` is chunk ``i // B`` of sequence ``i % B``, steps
``p S ... p S + S - 1`` of its T. Lanes lie far apart in memory; a *tile* brings STEPS steps of
some lanes together, transposed, so that row q of the tile is entry q of all lanes.

The kernels are those of :mod:`.row_kernels`, with lanes ``ids[0] ... ids[1] - 1`` as what one
thread does.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, call-arg, no-any-return, misc"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers.compiled import cache
from pararnn_solvers.compiled.addresses import Place
from pararnn_solvers.compiled.reductions import spoil
from pararnn_solvers.compiled.row_kernels import Places, close, components
from pararnn_solvers.compiled.transfers import (
    row_prefetcher,
    splat_reader,
    tile_reader,
    tile_writer,
)
from pararnn_solvers.compiled.transposition import transpose
from pararnn_solvers.compiled.vectors import all_true, blank
from pararnn_solvers.linear.jit import inlined, jitted
from pararnn_solvers.linear.simd import store, width

fetch = row_prefetcher((Place(0, 0, True),))
STEPS = 16  # in a tile: of any m, a whole number of vectors


def shared(function: Callable[..., Any]) -> Any:
    """Decorate a part that kernels call: it is long, and compiles once instead of in each place."""
    named = cache.unique(function, cache.digest(function.__qualname__))
    return jitted(no_cpython_wrapper=True, no_cfunc_wrapper=True)(named)


@inlined
def numbers() -> Any:
    """Return 0, 1 and STEPS as what is no constant: for each constant, `shared` compiles anew."""
    return np.int64(0), np.int64(1), np.int64(STEPS)


@inlined
def in_order(T: Any, B: Any, S: Any, lanes: Any, s0: Any, steps: Any, W: Any) -> Any:
    """Return how many lanes, whole vectors of them, are complete and a chunk apart in memory."""
    first, last, L = lanes
    if B != 1 or steps != STEPS or s0 + steps > T:
        return 0
    inside = (T - s0 - steps) // S + 1 - first
    return max(0, min(L, last - first, inside)) // W * W


@shared
def pack(
    x: Any, X: Any, m: Any, T: Any, B: Any, S: Any, lanes: Any, s0: Any, steps: Any, ahead: Any
) -> None:
    """Fill a tile with rows of ``m`` numbers of steps ``s0, s0 + 1, ...`` of each lane.

    The next tile, whose rows are so many steps ``ahead``, is fetched meanwhile: lanes are too many
    streams for a processor to foresee.
    """
    first, last, L = lanes
    W = np.int64(width(x))
    ordered = in_order(T, B, S, lanes, s0, steps, W)
    for v in range(0, ordered, W):
        for q in range(0, STEPS * m, W):
            transpose(x, ((first + v) * S + s0) * m + q, S * m, X, q * L + v, L)
    for lane in range(ordered):
        for q in range(0, STEPS * m, W):
            fetch(x, ((first + lane) * S + s0 + ahead) * m + q, W, 0)
    for lane in range(ordered, min(L, -(-(last - first) // W) * W)):
        p, b = divmod(min(first + lane, last - 1), B)
        for s in range(steps):
            row = min(p * S + s0 + s, T - 1) * B + b  # what is beyond the end is never unpacked
            for q in range(m):
                X[(s * m + q) * L + lane] = x[row * m + q]


@shared
def unpack(
    X: Any, x: Any, m: Any, T: Any, B: Any, S: Any, lanes: Any, s0: Any, steps: Any, ahead: Any
) -> None:
    """Copy a tile back to where :func:`pack` found it, or would have."""
    first, last, L = lanes
    W = np.int64(width(x))
    ordered = in_order(T, B, S, lanes, s0, steps, W)
    for v in range(0, ordered, W):
        for q in range(0, STEPS * m, W):
            transpose(X, q * L + v, L, x, ((first + v) * S + s0) * m + q, S * m)
    for lane in range(ordered):
        for q in range(0, STEPS * m, W):
            fetch(x, ((first + lane) * S + s0 + ahead) * m + q, W, 0)
    for lane in range(ordered, min(L, last - first)):
        p, b = divmod(first + lane, B)
        for s in range(min(steps, T - p * S - s0)):
            row = (p * S + s0 + s) * B + b
            for q in range(m):
                x[row * m + q] = X[(s * m + q) * L + lane]


def sweep(advance: Any, k: int, K: int, drives: Places, parameters: Places) -> Any:
    """Return the kernel that rolls chunks out side by side.

    ``sweep(x, theta, carry, h, spoiled, shape, ids, S, L)``, L lanes at a time: lane i starts from
    ``carry[i]`` and, unless it is cut short by the end, is left there.
    """
    read_x, read_theta = tile_reader(drives), splat_reader(parameters)
    read, write = tile_reader(components(K)), tile_writer(components(K))
    keep, p_drives = tile_writer(components(k)), len(drives)

    def kernel(
        x: Any,
        theta: Any,
        carry: Any,
        h: Any,
        spoiled: Any,
        shape: Any,
        ids: Any,
        S: Any,
        L: Any,
    ) -> None:
        T, B, m, n = shape
        W = np.int64(width(h))
        zero, one, next_tile = numbers()
        X = np.empty(STEPS * m * L, h.dtype)
        H = np.empty(STEPS * k * n * L, h.dtype)
        C = np.empty(K * n * L, h.dtype)
        nothing = blank(h)
        for first in range(ids[0], ids[1], L):
            lanes, count = (first, ids[1], L), min(L, ids[1] - first)
            pack(carry, C, K * n, ids[1], one, one, lanes, zero, one, one)
            for s0 in range(0, S, STEPS):
                steps = min(STEPS, S - s0)
                if m:
                    pack(x, X, m, T, B, S, lanes, s0, steps, next_tile)
                for s in range(steps):
                    for v in range(0, count, W):
                        for c in range(n):
                            drive = read_x(X, s * m, n, c, v, L)
                            state = advance(
                                read(C, 0, n, c, v, L), drive, read_theta(theta, 0, n, c)
                            )
                            nothing = spoil(nothing, state)
                            if p_drives:
                                nothing = spoil(nothing, drive)
                            write(C, 0, n, c, v, L, state)
                            keep(H, s * k * n, n, c, v, L, state)
                unpack(H, h, k * n, T, B, S, lanes, s0, steps, next_tile)
            unpack(C, carry, K * n, ids[1], one, one, lanes, zero, one, one)
        store(spoiled, 0, nothing)

    return kernel


def meet(advance: Any, k: int, drives: Places, parameters: Places) -> Any:
    """Return the kernel that runs chunks again from new starts until they meet what is stored.

    ``meet(x, theta, starts, h, spoiled, taken, residual, shape, ids, S, L, atol, rtol)``: L lanes
    take as many steps as the slowest of them, ``taken[i]``, a multiple of STEPS; where all meet
    the stored states, what is left between them is the residual there.
    """
    read_x, read_theta = tile_reader(drives), splat_reader(parameters)
    read, write = tile_reader(components(k)), tile_writer(components(k))

    def kernel(
        x: Any,
        theta: Any,
        starts: Any,
        h: Any,
        spoiled: Any,
        taken: Any,
        residual: Any,
        shape: Any,
        ids: Any,
        S: Any,
        L: Any,
        atol: Any,
        rtol: Any,
    ) -> None:
        T, B, m, n = shape
        d, W = k * n, np.int64(width(h))
        zero, one, next_tile = numbers()
        X = np.empty(STEPS * m * L, h.dtype)
        H = np.empty(STEPS * d * L, h.dtype)
        C = np.empty(d * L, h.dtype)
        nothing = blank(h)
        for first in range(ids[0], ids[1], L):
            lanes = (first, ids[1], L)
            count = min(L, ids[1] - first)
            pack(starts, C, d, ids[1], one, one, lanes, zero, one, one)
            for lane in range(count):
                taken[first + lane] = S
            for s0 in range(0, S, STEPS):
                steps = min(STEPS, S - s0)
                if m:
                    pack(x, X, m, T, B, S, lanes, s0, steps, next_tile)
                pack(h, H, d, T, B, S, lanes, s0, steps, next_tile)
                met = True
                for s in range(steps):
                    for v in range(0, count, W):
                        for c in range(n):
                            new = advance(
                                read(C, 0, n, c, v, L),
                                read_x(X, s * m, n, c, v, L),
                                read_theta(theta, 0, n, c),
                            )
                            nothing = spoil(nothing, new)
                            write(C, 0, n, c, v, L, new)
                            if s == 0:
                                old = read(H, 0, n, c, v, L)
                                met = met and all_true(close(new, old, atol, rtol))
                            else:
                                write(H, s * d, n, c, v, L, new)
                    if s == 0:
                        if met:
                            break
                        for q in range(d * L):
                            H[q] = C[q]
                if met:
                    for lane in range(count):
                        taken[first + lane] = s0
                        b = (first + lane) % B
                        for q in range(d):
                            gap = abs(C[q * L + lane] - H[q * L + lane])
                            residual[b] = max(residual[b], gap)
                    break
                unpack(H, h, d, T, B, S, lanes, s0, steps, next_tile)
            unpack(C, starts, d, ids[1], one, one, lanes, zero, one, one)
        store(spoiled, 0, nothing)

    return kernel
