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
from pararnn_solvers.compiled.tile_kernels import STEPS, pack, unpack
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
        X = np.empty(STEPS * m * L, h.dtype)
        H = np.empty(STEPS * d * L, h.dtype)
        Q = np.empty(STEPS * q * n * L, h.dtype)
        for first in range(ids[0], ids[1], L):
            lanes = (first, ids[1], L)
            pack(h, H, d, R, 1, STEPS, lanes, 0, STEPS)
            if m:
                pack(x, X, m, R, 1, STEPS, lanes, 0, STEPS)
            for s in range(STEPS):
                for v in range(0, L, W):
                    for c in range(n):
                        found = function(
                            read(H, s * d, n, c, v, L),
                            read_x(X, s * m, n, c, v, L),
                            read_theta(theta, 0, n, c),
                        )
                        write(H, s * d, n, c, v, L, found)
                        if q:
                            write_more(Q, s * q * n, n, c, v, L, found)
            unpack(H, f, d, R, 1, STEPS, lanes, 0, STEPS)
            if q:
                unpack(Q, A, q * n, R, 1, STEPS, lanes, 0, STEPS)

    return kernel


def adjoint(pull_back: Any, k: int, drives: Places, parameters: Places) -> Any:
    """Return the kernel of the gradients by x and theta, given the adjoint of every state.

    ``adjoint(h, x, theta, lam, dx, totals, shape, ids, L)``, with lanes as of :func:`apply`.
    """
    p, q = len(drives), len(parameters)
    n_shared = sum(not place.channels for place in drives)  # the first of them
    read_x, read_theta = tile_reader(drives), splat_reader(parameters)
    read = tile_reader(components(k))
    write_x = tile_writer(after(k + n_shared, drives[n_shared:]))
    read_shared, write_shared = tile_reader(drives[:n_shared]), tile_writer(drives[:n_shared])
    for_shared = taker(k, n_shared)
    for_theta = taker(k + p, q)
    read_sums, write_sums = tile_reader(components(q)), tile_writer(components(q))

    def kernel(
        h: Any,
        x: Any,
        theta: Any,
        lam: Any,
        dx: Any,
        totals: Any,
        shape: Any,
        ids: Any,
        L: Any,
    ) -> None:
        R, m, n = shape
        W, d = np.int64(width(h)), k * n
        X = np.empty(STEPS * m * L, h.dtype)
        D = np.zeros(STEPS * m * L, h.dtype)
        H = np.empty(STEPS * d * L, h.dtype)
        G = np.empty(STEPS * d * L, h.dtype)
        sums = np.zeros(max(1, q) * n * W, h.dtype)
        for first in range(ids[0], ids[1], L):
            lanes = (first, ids[1], L)
            pack(h, H, d, R, 1, STEPS, lanes, 0, STEPS)
            pack(lam, G, d, R, 1, STEPS, lanes, 0, STEPS)
            if m:
                pack(x, X, m, R, 1, STEPS, lanes, 0, STEPS)
            if n_shared:
                for i in range(D.size):
                    D[i] = 0
            for lane in range(L):  # what is beyond the end must not count
                for s in range(STEPS):
                    if first + lane >= ids[1] or (first + lane) * STEPS + s >= R:
                        for i in range(d):
                            G[(s * d + i) * L + lane] = 0
            for s in range(STEPS):
                for v in range(0, L, W):
                    for c in range(n):
                        found = pull_back(
                            read(H, s * d, n, c, v, L),
                            read_x(X, s * m, n, c, v, L),
                            read_theta(theta, 0, n, c),
                            read(G, s * d, n, c, v, L),
                        )
                        if p:
                            write_x(D, s * m, n, c, v, L, found)
                        if n_shared:
                            several = read_shared(D, s * m, n, c, v, L)
                            more_x = plus(several, for_shared(found))
                            write_shared(D, s * m, n, c, v, L, more_x)
                        if q:
                            more = plus(read_sums(sums, 0, n, c, 0, W), for_theta(found))
                            write_sums(sums, 0, n, c, 0, W, more)
            if p:
                unpack(D, dx, m, R, 1, STEPS, lanes, 0, STEPS)
            for i in range(q * n):
                for e in range(W):
                    totals[i] += sums[i * W + e]
                    sums[i * W + e] = 0

    return kernel
