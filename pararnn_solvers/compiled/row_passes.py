"""Kernels for rows of many channels that need no previous result: maps, Newton, the adjoint.

As in :mod:`.row_kernels`, of which these are the kernels with derivatives. What depends on the
step before is one multiplication and addition, so that no latency has to be hidden.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, call-arg, no-any-return, misc"
from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers.compiled.reductions import farthest, greatest, total
from pararnn_solvers.compiled.row_kernels import (
    AHEAD,
    Places,
    after,
    components,
    reader,
    writer,
)
from pararnn_solvers.compiled.transfers import row_prefetcher, row_streamer
from pararnn_solvers.compiled.vectors import all_true, blank, minus, plus, taker
from pararnn_solvers.linear.simd import width

FLUSH = 64  # rows summed up in the dtype of the states before they join a total in float64


def apply(function: Any, k: int, q: int, drives: Places, parameters: Places, tail: bool) -> Any:
    """Return the kernel that applies a function to many states at once.

    ``apply(h, x, theta, f, A, shape, rows)``: of what the function returns, ``k`` components go
    to ``f`` and ``q`` more to ``A``. Here rows are any states with their drives.
    """
    read_x, read_theta = reader(drives, tail), reader(parameters, tail)
    read, write = reader(components(k), tail), writer(components(k), tail)
    write_more = writer(after(k, components(q)), tail)

    ahead = row_prefetcher(drives)

    def kernel(h: Any, x: Any, theta: Any, f: Any, A: Any, shape: Any, rows: Any) -> None:
        m, n = shape
        W = np.int64(width(h))
        for row in range(rows[0], rows[1]):
            for c in range(0, n, W):
                ahead(x, (row + AHEAD) * m, n, c)
                found = function(
                    read(h, row * k * n, n, c),
                    read_x(x, row * m, n, c),
                    read_theta(theta, 0, n, c),
                )
                write(f, row * k * n, n, c, found)
                if q:
                    write_more(A, row * q * n, n, c, found)

    return kernel


def newton(correct: Any, k: int, drives: Places, parameters: Places, tail: bool) -> Any:
    """Return the kernel of one iteration of Newton's method: one pass over the trajectory.

    ``newton(x, theta, before, delta, h, moved, norms, shape, steps, lanes, again)``: the states
    ``h`` are left for ``moved_t = f_t + A_t (moved_{t-1} - h_{t-1})``. ``before`` and ``delta``
    enter as the state before the first of some steps, and its change; ``norms[0]`` and
    ``norms[1]`` become the greatest ``|F_t|`` and ``|h_t|`` of each row, NaN if any is. ``again``:
    go on only until that change makes none in what is stored.
    """
    read_x, read_theta = reader(drives, tail), reader(parameters, tail)
    read, write = reader(components(k), tail), writer(components(k), tail)
    write_f, ahead = writer(after(k, components(k)), tail), row_prefetcher(drives)

    def kernel(
        x: Any,
        theta: Any,
        before: Any,
        delta: Any,
        h: Any,
        moved: Any,
        norms: Any,
        shape: Any,
        steps: Any,
        lanes: Any,
        again: Any,
    ) -> None:
        T, B, m, n = shape
        b0, b1, c0, c1 = lanes
        W = np.int64(width(h))
        d = k * n
        for t in range(steps[0], steps[1]):
            same = again
            for b in range(b0, b1):
                row = t * B + b
                far = large = blank(h)
                for c in range(c0, c1, W):
                    ahead(x, (row + AHEAD * B) * m, n, c)
                    state = read(h, row * d, n, c)
                    found = correct(
                        read(before, b * d, n, c),
                        read_x(x, row * m, n, c),
                        read_theta(theta, 0, n, c),
                        read(delta, b * d, n, c),
                    )
                    stored = read(moved, row * d, n, c)
                    write(moved, row * d, n, c, found)
                    if t == 0:  # f itself, even where the derivative is infinite
                        write_f(moved, row * d, n, c, found)
                    # What was not written of a last vector must not count.
                    write_f(delta, b * d, n, c, found)
                    f, new = read(delta, b * d, n, c), read(moved, row * d, n, c)
                    write(before, b * d, n, c, state)
                    for i in range(k):
                        far = farthest(far, state[i] - f[i])
                        large = farthest(large, state[i])
                        same = same and all_true(new[i] == stored[i])
                    write(delta, b * d, n, c, minus(new, state))
                norms[0, row] = greatest(far)
                norms[1, row] = greatest(large)
            if same:
                break

    return kernel


def adjoint(pull_back: Any, k: int, drives: Places, parameters: Places, tail: bool) -> Any:
    """Return the kernel of the reversed recurrence, and of all gradients, in one pass.

    ``adjoint(x, theta, before, h, g, dx, carry, sums, totals, shape, chunks, S, lanes, least,
    streams)``:
    with ``lam_t = g_t + carry`` and ``carry = A_t^T lam_t``, ``dx`` becomes ``lam_t^T df/dx_t``,
    and ``sum_t lam_t^T df/dtheta`` is added to ``totals``, in float64 of partial sums of FLUSH
    rows. Chunk p enters with ``carry[p]`` and leaves it at its beginning; ``before`` is the state
    before the first step. ``least >= 0``: this is what a later ``carry`` adds, without ``g``, as
    long as it exceeds ``least``. ``streams``: write ``dx`` past the caches, as of `row_streamer`.
    """
    p, q = len(drives), len(parameters)
    n_shared = sum(not place.channels for place in drives)  # the first of them
    of_channels = drives[n_shared:]
    read_x, read_theta = reader(drives, tail), reader(parameters, tail)
    read, write = reader(components(k), tail), writer(components(k), tail)
    read_dx, write_dx = reader(of_channels, tail), writer(of_channels, tail)
    stream_dx = row_streamer(of_channels)
    for_x, for_theta = taker(k + n_shared, p - n_shared), taker(k + p, q)
    write_shared = writer(after(k, components(n_shared)), tail)
    read_shared = reader(components(n_shared), tail)
    read_sums, write_sums = reader(components(q), tail), writer(components(q), tail)
    positions = tuple(place.offset for place in drives[:n_shared]) or (0,)
    ahead, ahead_d = row_prefetcher(drives), row_prefetcher(components(k))

    def kernel(
        x: Any,
        theta: Any,
        before: Any,
        h: Any,
        g: Any,
        dx: Any,
        carry: Any,
        sums: Any,
        totals: Any,
        shape: Any,
        chunks: Any,
        S: Any,
        lanes: Any,
        least: Any,
        streams: Any,
    ) -> None:
        T, B, m, n = shape
        b0, b1, c0, c1 = lanes
        W = np.int64(width(h))
        d, again = k * n, least >= 0
        scratch = np.zeros(max(1, n_shared) * n, h.dtype)
        for chunk in range(chunks[1] - 1, chunks[0] - 1, -1):
            for t in range(min(T, (chunk + 1) * S) - 1, chunk * S - 1, -1):
                left = blank(h)
                for b in range(b0, b1):
                    row, place = t * B + b, (chunk * B + b) * d
                    if not again:
                        for i in range(n_shared):
                            dx[row * m + positions[i]] = 0
                    for c in range(c0, c1, W):
                        # Rows come backwards, their channels forwards: prefetchers fall behind.
                        ahead(x, (row - AHEAD * B) * m, n, c)
                        if not streams:
                            ahead(dx, (row - AHEAD * B) * m, n, c)
                        ahead_d(h, (row - AHEAD * B) * d, n, c)
                        if not again:
                            ahead_d(g, (row - AHEAD * B) * d, n, c)
                        lam = read(carry, place, n, c)
                        if not again:
                            lam = plus(lam, read(g, row * d, n, c))
                        if t == 0:
                            state = read(before, b * d, n, c)
                        else:
                            state = read(h, (row - B) * d, n, c)
                        found = pull_back(
                            state, read_x(x, row * m, n, c), read_theta(theta, 0, n, c), lam
                        )
                        write(carry, place, n, c, found)
                        if again:
                            rest = read(carry, place, n, c)
                            for i in range(k):
                                left = farthest(left, rest[i])
                        if p > n_shared:
                            more = for_x(found)
                            if again:
                                more = plus(more, read_dx(dx, row * m, n, c))
                            if streams:
                                stream_dx(dx, row * m, n, c, more)
                            else:
                                write_dx(dx, row * m, n, c, more)
                        if n_shared:
                            write_shared(scratch, 0, n, c, found)
                            several = read_shared(scratch, 0, n, c)
                            for i in range(n_shared):
                                dx[row * m + positions[i]] += total(several[i])
                        if q:
                            all_sums = plus(read_sums(sums, 0, n, c), for_theta(found))
                            write_sums(sums, 0, n, c, all_sums)
                ends = t == chunk * S or (again and greatest(left) <= least)
                if q and (ends or t % FLUSH == 0):
                    for i in range(q):
                        for c in range(c0, min(c1, n)):
                            totals[i * n + c] += sums[i * n + c]
                            sums[i * n + c] = 0
                if ends:
                    if again and t > chunk * S:
                        for b in range(b0, b1):
                            for i in range(k):
                                for c in range(c0, min(c1, n)):
                                    carry[(chunk * B + b) * d + i * n + c] = 0
                    break

    return kernel
