"""Kernels for rows of few channels that take any rows in any order: maps, and the adjoint's.

As in :mod:`.tile_kernels`, where a lane is STEPS rows, one after the other, of the ``R`` there
are.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, call-arg, no-any-return, misc"
from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers.compiled.row_kernels import Places, after, components
from pararnn_solvers.compiled.tile_kernels import STEPS, numbers, pack, shared, unpack
from pararnn_solvers.compiled.transfers import splat_reader, tile_reader, tile_writer
from pararnn_solvers.compiled.vectors import plus, taker
from pararnn_solvers.linear.simd import width


def apply(function: Any, k: int, q: int, drives: Places, parameters: Places) -> Any:
    """Return the kernel that applies a function to many states at once, as of :mod:`.row_kernels`.

    ``apply(h, x, theta, f, A, shape, lanes, L)``; a lane is STEPS rows, one after the other, of
    the ``R`` there are.
    """
    read_x, read_theta = tile_reader(drives), splat_reader(parameters)
    read, write = tile_reader(components(k)), tile_writer(components(k))
    write_more = tile_writer(after(k, components(q)))

    def kernel(h: Any, x: Any, theta: Any, f: Any, A: Any, shape: Any, ids: Any, L: Any) -> None:
        R, m, n = shape
        W, d = np.int64(width(h)), k * n
        zero, one, steps = numbers()
        X = np.empty(STEPS * m * L, h.dtype)
        H = np.empty(STEPS * d * L, h.dtype)
        Q = np.empty(STEPS * q * n * L, h.dtype)
        for first in range(ids[0], ids[1], L):
            lanes, count = (first, ids[1], L), min(L, ids[1] - first)
            pack(h, H, d, R, one, steps, lanes, zero, steps, L * steps)
            if m:
                pack(x, X, m, R, one, steps, lanes, zero, steps, L * steps)
            for s in range(STEPS):
                for v in range(0, count, W):
                    for c in range(n):
                        found = function(
                            read(H, s * d, n, c, v, L),
                            read_x(X, s * m, n, c, v, L),
                            read_theta(theta, 0, n, c),
                        )
                        write(H, s * d, n, c, v, L, found)
                        if q:
                            write_more(Q, s * q * n, n, c, v, L, found)
            unpack(H, f, d, R, one, steps, lanes, zero, steps, L * steps)
            if q:
                unpack(Q, A, q * n, R, one, steps, lanes, zero, steps, L * steps)

    return kernel


def adjoint(pull_back: Any, k: int, drives: Places, parameters: Places) -> Any:
    """Return the kernel of the reversed recurrence and all gradients, as of :mod:`.row_passes`.

    ``adjoint(previous, x, theta, g, dx, carry, totals, shape, ids, S, L, least, recursive)``: here
    lanes are chunks, as of :mod:`.tile_kernels`, and ``previous`` has the states before each step.
    Not ``recursive``: ``g`` is the adjoint already.
    """
    p, q = len(drives), len(parameters)
    read_x, read_theta = tile_reader(drives), splat_reader(parameters)
    read, write = tile_reader(components(k)), tile_writer(components(k))
    read_dx, write_dx = tile_reader(drives), tile_writer(drives)
    for_x, for_theta = taker(k, p), taker(k + p, q)
    read_sums, write_sums = tile_reader(components(q)), tile_writer(components(q))

    def kernel(
        previous: Any,
        x: Any,
        theta: Any,
        g: Any,
        dx: Any,
        carry: Any,
        totals: Any,
        shape: Any,
        ids: Any,
        S: Any,
        L: Any,
        least: Any,
        recursive: Any,
    ) -> None:
        T, B, m, n = shape
        W, d, again = np.int64(width(previous)), k * n, least >= 0
        zero, one, _ = numbers()
        X = np.empty(STEPS * m * L, previous.dtype)
        D = np.zeros(STEPS * m * L, previous.dtype)
        H = np.empty(STEPS * d * L, previous.dtype)
        G = np.zeros(STEPS * d * L, previous.dtype)
        C = np.zeros(d * L, previous.dtype)
        sums = np.zeros(max(1, q) * n * W, previous.dtype)
        for first in range(ids[0], ids[1], L):
            lanes, count = (first, ids[1], L), min(L, ids[1] - first)
            pack(carry, C, d, ids[1], one, one, lanes, zero, one, one)
            clear(C, d, ids[1], one, one, lanes, zero, one)
            for s0 in range((S - 1) // STEPS * STEPS, -1, -STEPS):
                steps = min(STEPS, S - s0)
                pack(previous, H, d, T, B, S, lanes, s0, steps, -STEPS)
                if m:
                    pack(x, X, m, T, B, S, lanes, s0, steps, -STEPS)
                if p and again:
                    pack(dx, D, m, T, B, S, lanes, s0, steps, -STEPS)
                elif p:
                    for i in range(D.size):
                        D[i] = 0
                if not again:
                    pack(g, G, d, T, B, S, lanes, s0, steps, -STEPS)
                    clear(G, d, T, B, S, lanes, s0, steps)
                for s in range(steps - 1, -1, -1):
                    for v in range(0, count, W):
                        for c in range(n):
                            lam = read(G, s * d, n, c, v, L)
                            if recursive:
                                lam = plus(lam, read(C, 0, n, c, v, L))
                            found = pull_back(
                                read(H, s * d, n, c, v, L),
                                read_x(X, s * m, n, c, v, L),
                                read_theta(theta, 0, n, c),
                                lam,
                            )
                            write(C, 0, n, c, v, L, found)
                            if p:
                                more = plus(read_dx(D, s * m, n, c, v, L), for_x(found))
                                write_dx(D, s * m, n, c, v, L, more)
                            if q:
                                several = plus(read_sums(sums, 0, n, c, 0, W), for_theta(found))
                                write_sums(sums, 0, n, c, 0, W, several)
                if p:
                    unpack(D, dx, m, T, B, S, lanes, s0, steps, -STEPS)
                for i in range(q * n):
                    for e in range(W):
                        totals[i] += sums[i * W + e]
                        sums[i * W + e] = 0
                if again and s0:
                    left = C[0] * 0
                    for i in range(d * L):
                        size = abs(C[i])
                        left = size if not size <= left else left  # NaN stays
                    if left <= least:
                        for i in range(d * L):
                            C[i] = 0
                        break
            unpack(C, carry, d, ids[1], one, one, lanes, zero, one, one)

    return kernel


@shared
def clear(G: Any, d: Any, T: Any, B: Any, S: Any, lanes: Any, s0: Any, steps: Any) -> None:
    """Put zeros where a tile has lanes that are none, or steps beyond the end."""
    first, last, L = lanes
    if first + L <= last and ((first + L - 1) // B + 1) * S <= T:
        return
    for lane in range(L):
        t = (first + lane) // B * S + s0
        for s in range(steps):
            if first + lane >= last or t + s >= T:
                for i in range(d):
                    G[(s * d + i) * L + lane] = 0
