"""Kernels for rows of many channels: a vector holds neighbouring channels of one sequence.

Every function here builds a kernel around a function of vectors that was printed from the step
(:mod:`.program`). Time is the outer loop, so that memory is read once and in order; inside, the
vectors of a row, of all sequences and of all chunks in flight are independent of each other and
hide one another's latency.

Arrays are flat. A row of x has ``m`` numbers, one of the states ``d = k n``; row ``(t, b)`` is
number ``t B + b``. A kernel works on sequences ``b0 ... b1 - 1`` and channels ``c0 ... c1 - 1``,
where ``c0`` is a multiple of a vector's size: what one thread does.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, call-arg, no-any-return, misc, var-annotated"
from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers.compiled.addresses import Place
from pararnn_solvers.compiled.arithmetic import magnitude
from pararnn_solvers.compiled.reductions import spoil
from pararnn_solvers.compiled.transfers import row_prefetcher, row_reader, row_writer
from pararnn_solvers.compiled.vectors import all_true, blank, full
from pararnn_solvers.linear.jit import inlined
from pararnn_solvers.linear.simd import store, width

# Rows of x are fetched so many steps before they are needed: where they do not begin a cache line,
# as what users pass seldom does, a kernel that waits for both lines takes twice as long.
AHEAD = 8

Places = tuple[Place, ...]
Targets = tuple[Place | None, ...]
"""Where values go; those with None go nowhere."""


def components(count: int) -> Places:
    """Return the places of so many components of all channels."""
    return tuple(Place(0, i, True) for i in range(count))


def after(skipped: int, places: Places) -> Targets:
    """Return places for the values after so many that go nowhere."""
    return (None,) * skipped + places


def reader(places: Places, tail: bool) -> Any:
    """Return ``read(array, row, n, c)``, which stops at channel n if ``tail``."""
    whole, part = row_reader(places), row_reader(places, True)
    if not tail:
        return whole

    @inlined
    def read(array: Any, row: Any, n: Any, c: Any) -> Any:
        if c + np.int64(width(array)) <= n:
            return whole(array, row, n, c)
        return part(array, row, n, c)

    return read


def writer(places: Targets, tail: bool) -> Any:
    """Return ``write(array, row, n, c, values)``, which stops at channel n if ``tail``."""
    whole, part = row_writer(places), row_writer(places, True)
    if not tail:
        return whole

    @inlined
    def write(array: Any, row: Any, n: Any, c: Any, values: Any) -> None:
        if c + np.int64(width(array)) <= n:
            whole(array, row, n, c, values)
        else:
            part(array, row, n, c, values)

    return write


@inlined
def close(new: Any, old: Any, atol: Any, rtol: Any) -> Any:
    """Return where all components of two states agree; NaN agrees with nothing."""
    met = new[0] == new[0]
    for i in range(len(new)):
        gap = magnitude(new[i] - old[i])
        # Infinity less infinity is NaN: an infinite state agrees with nothing either.
        met = met & (gap - full(gap, rtol) * magnitude(old[i]) <= full(gap, atol))
    return met


def sweep(advance: Any, k: int, K: int, drives: Places, parameters: Places, tail: bool) -> Any:
    """Return the kernel that rolls chunks out side by side.

    ``sweep(x, theta, carry, h, spoiled, shape, chunks, S, together, lanes)``: chunk p, steps
    ``p S ...``, starts from ``carry[p]``, ``K`` components a channel of which the first ``k`` are
    the state, and is left there; so many chunks are in flight together. ``spoiled``, one vector,
    becomes NaN if any drive or state is not finite.
    """
    read_x, read_theta = reader(drives, tail), reader(parameters, tail)
    read, write = reader(components(K), tail), writer(components(K), tail)
    keep, ahead = writer(components(k), tail), row_prefetcher(drives)
    p_drives = len(drives)

    def kernel(
        x: Any,
        theta: Any,
        carry: Any,
        h: Any,
        spoiled: Any,
        shape: Any,
        chunks: Any,
        S: Any,
        together: Any,
        lanes: Any,
    ) -> None:
        T, B, m, n = shape
        b0, b1, c0, c1 = lanes
        W = np.int64(width(h))
        nothing = blank(h)
        for first in range(chunks[0], chunks[1], together):
            last = min(first + together, chunks[1])
            for s in range(min(S, T - first * S)):
                for p in range(first, min(last, (T - 1 - s) // S + 1)):
                    for b in range(b0, b1):
                        row, place = (p * S + s) * B + b, (p * B + b) * K * n
                        for c in range(c0, c1, W):
                            ahead(x, (row + AHEAD * B) * m, n, c)
                            drive = read_x(x, row * m, n, c)
                            state = advance(
                                read(carry, place, n, c), drive, read_theta(theta, 0, n, c)
                            )
                            nothing = spoil(nothing, state)
                            if p_drives:
                                nothing = spoil(nothing, drive)
                            write(carry, place, n, c, state)
                            keep(h, row * k * n, n, c, state)
        store(spoiled, 0, nothing)

    return kernel


def alone(advance: Any, k: int, drives: Places, parameters: Places, tail: bool) -> Any:
    """Return the kernel that rolls out one sequence of no more channels than a vector has.

    ``alone(x, theta, start, h, spoiled, shape)``. Nothing hides the latency of a step here: the
    state stays in registers.
    """
    read_x, read_theta = reader(drives, tail), reader(parameters, tail)
    read, keep = reader(components(k), tail), writer(components(k), tail)
    p_drives = len(drives)

    def kernel(x: Any, theta: Any, start: Any, h: Any, spoiled: Any, shape: Any) -> None:
        T, _, m, n = shape
        state, given, nothing = read(start, 0, n, 0), read_theta(theta, 0, n, 0), blank(h)
        for t in range(T):
            drive = read_x(x, t * m, n, 0)
            state = advance(state, drive, given)
            nothing = spoil(nothing, state)
            if p_drives:
                nothing = spoil(nothing, drive)
            keep(h, t * k * n, n, 0, state)
        store(spoiled, 0, nothing)

    return kernel


def meet(advance: Any, k: int, drives: Places, parameters: Places, tail: bool) -> Any:
    """Return the kernel that runs chunks again from new starts until they meet what is stored.

    ``meet(x, theta, starts, h, spoiled, taken, residual, shape, chunks, S, lanes, atol, rtol)``:
    chunk p of sequence b takes ``taken[p, b]`` steps; where it meets the stored states, what is
    left between them is the residual there.
    """
    read_x, read_theta = reader(drives, tail), reader(parameters, tail)
    read, write = reader(components(k), tail), writer(components(k), tail)

    def kernel(
        x: Any,
        theta: Any,
        starts: Any,
        h: Any,
        spoiled: Any,
        taken: Any,
        residual: Any,
        shape: Any,
        chunks: Any,
        S: Any,
        lanes: Any,
        atol: Any,
        rtol: Any,
    ) -> None:
        T, B, m, n = shape
        b0, b1, c0, c1 = lanes
        W = np.int64(width(h))
        d, nothing = k * n, blank(h)
        for p in range(chunks[0], chunks[1]):
            for b in range(b0, b1):
                place = (p * B + b) * d
                steps = min(S, T - p * S)
                taken[p * B + b] = steps
                for s in range(steps):
                    row = (p * S + s) * B + b
                    met = True
                    for c in range(c0, c1, W):
                        new = advance(
                            read(starts, place, n, c),
                            read_x(x, row * m, n, c),
                            read_theta(theta, 0, n, c),
                        )
                        nothing = spoil(nothing, new)
                        write(starts, place, n, c, new)
                        new, old = read(starts, place, n, c), read(h, row * d, n, c)
                        met = met and all_true(close(new, old, atol, rtol))
                    if met:
                        gap = residual[b]
                        for i in range(k):
                            for c in range(c0, c1):
                                gap = max(
                                    gap, abs(starts[place + i * n + c] - h[row * d + i * n + c])
                                )
                        residual[b] = gap
                        taken[p * B + b] = s
                        break
                    for i in range(k):
                        for c in range(c0, c1):
                            h[row * d + i * n + c] = starts[place + i * n + c]
        store(spoiled, 0, nothing)

    return kernel
