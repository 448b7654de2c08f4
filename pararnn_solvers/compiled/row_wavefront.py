"""The kernel of several Newton iterations in one pass over memory, for rows of many channels.

As in :mod:`.row_kernels`. Iteration i + 1 needs of the iterates at time t only those before it,

    h_t^(i+1) = f(h_{t-1}^(i)) + A(h_{t-1}^(i)) (h_{t-1}^(i+1) - h_{t-1}^(i)),

so that all iterations can go through time together, a row each: x is read once, the last iterate
is written once, what is between stays in the cache. Evaluations at the same time are independent of
each other and hide one another's latency.

Source: Wonnacott 2000, "Using time skewing to eliminate idle time due to memory bandwidth and
network limitations", whose skew is none here.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, call-arg, no-any-return, misc"
from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers.compiled.reductions import farthest, greatest, spoil
from pararnn_solvers.compiled.row_kernels import AHEAD, Places, after, components, reader, writer
from pararnn_solvers.compiled.transfers import row_prefetcher
from pararnn_solvers.compiled.vectors import blank, minus
from pararnn_solvers.linear.simd import store, width


def wavefront(
    correct: Any, advance: Any, k: int, drives: Places, parameters: Places, tail: bool
) -> Any:
    """Return the kernel that takes p Newton iterations through some steps, side by side.

    ``wavefront(x, theta, guess, h, rows, since, norms, spoiled, shape, steps, lanes, p)``: ``h``
    becomes iterate p. ``rows[0]``, of the lanes alone, has ``p + 3`` states of each: 0, iterates 0,
    1 ... p before the first of these steps, and the last once more; it is left for those before
    the step after the last. Iterate 0 is ``guess``, or ``f(0, x)`` if that is empty. Iterate i is
    the one before it up to step ``since[i]``: there that had converged. ``norms[i, 0]`` and
    ``norms[i, 1]`` become the greatest ``|F_t|`` and ``|h_t|`` of each row of iterate i, NaN if any
    is. ``spoiled``, one vector, becomes NaN if any drive is not finite.
    """
    read_x, read_theta = reader(drives, tail), reader(parameters, tail)
    read, write = reader(components(k), tail), writer(components(k), tail)
    write_f, ahead = writer(after(k, components(k)), tail), row_prefetcher(drives)

    p_drives = len(drives)

    def kernel(
        x: Any,
        theta: Any,
        guess: Any,
        h: Any,
        rows: Any,
        since: Any,
        norms: Any,
        spoiled: Any,
        shape: Any,
        steps: Any,
        lanes: Any,
        p: Any,
    ) -> None:
        B, m, n = shape
        b0, b1, c0, c1 = lanes
        W, own = np.int64(width(h)), c1 - c0
        d, state_size = k * n, k * own
        iterate_size = (b1 - b0) * state_size
        size = (p + 3) * iterate_size
        f_row, nothing = np.zeros(d, h.dtype), blank(h)
        old, new = 0, size
        for t in range(steps[0], steps[1]):
            for b in range(b0, b1):
                row, place = t * B + b, (b - b0) * state_size
                for c in range(c0, c1, W):
                    ahead(x, (row + AHEAD * B) * m, n, c)
                    if p_drives:
                        nothing = spoil(nothing, read_x(x, row * m, n, c))
                    if guess.size:
                        state = read(guess, row * d, n, c)
                        write(rows, new + iterate_size + place, own, c - c0, state)
                for c in range(c0, c1, W) if not guess.size else range(0):
                    zero = read(rows, old + place, own, c - c0)
                    f = advance(zero, read_x(x, row * m, n, c), read_theta(theta, 0, n, c))
                    write(rows, new + iterate_size + place, own, c - c0, f)
                for i in range(p + 1):
                    this = (i + 1) * iterate_size + place
                    following, frozen = this + iterate_size, t < since[i + 1]
                    far = large = blank(h)
                    for c in range(c0, c1, W):
                        before, drive = (
                            read(rows, old + this, own, c - c0),
                            read_x(x, row * m, n, c),
                        )
                        given = read_theta(theta, 0, n, c)
                        state = read(rows, new + this, own, c - c0)
                        # What is not written of a last vector must not count.
                        if i == p:  # what follows is the same
                            write(h, row * d, n, c, state)
                            write(rows, new + following, own, c - c0, state)
                            write(f_row, 0, n, c, advance(before, drive, given))
                        else:
                            change = minus(read(rows, old + following, own, c - c0), before)
                            found = correct(before, drive, given, change)
                            write_f(f_row, 0, n, c, found)
                            if frozen:
                                write(rows, new + following, own, c - c0, state)
                            else:
                                write(rows, new + following, own, c - c0, found)
                        f = read(f_row, 0, n, c)
                        for j in range(k):
                            far = farthest(far, state[j] - f[j])
                            large = farthest(large, state[j])
                    norms[i, 0, row - steps[0] * B] = greatest(far)
                    norms[i, 1, row - steps[0] * B] = greatest(large)
            old, new = new, old
        store(spoiled, 0, nothing)
        for i in range(size if old else 0):
            rows[i] = rows[size + i]

    return kernel
