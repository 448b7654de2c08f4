"""A diagonal recurrence of few lanes, with time split: along SIMD vectors and over threads.

One lane alone waits for one multiply-add per step. Here a vector holds several successive steps,
whose maps ``h -> a h + b`` are composed in log2 rounds (Blelloch 1990, section 1.4), so that the
chain is one multiply-add per *vector*; and each thread takes a piece of time:

1. scan the first piece; of the others compute only the map, ``h_end = G h_start + e``;
2. compose the maps to get the state in which each piece starts;
3. scan the other pieces from there.

Products of many ``a`` overflow, or vanish, where the recurrence itself does not. So a state that
comes out NaN or infinite is computed again, one step after the other, from the state before it;
and a piece that started from a state its predecessor did not reach is scanned again.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, call-arg, var-annotated, no-any-return"
from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from pararnn_solvers.linear import threads
from pararnn_solvers.linear.arguments import Array
from pararnn_solvers.linear.jit import compiled
from pararnn_solvers.linear.numba_rows import U
from pararnn_solvers.linear.simd import (
    BYTES,
    all_finite,
    fma,
    last_step,
    load,
    prefix,
    store,
    width,
)

Steps = tuple[int, int]
"""``start <= t < stop``."""

DISPATCH_BYTES = 6_000_000
"""Memory traffic that takes as long as starting threads twice: about 150 µs."""


@cache
def _scanner(L: int, adjoint: bool) -> Callable[..., None]:
    """Return the kernel that solves ``steps`` of ``L`` lanes from the state ``entry``."""

    @compiled
    def scan(A: Array, b: Array, h: Array, steps: Steps, entry: Array, exit: Array) -> None:
        W, start, stop = width(A), U(steps[0]), U(steps[1])
        R = W // U(L)
        vectors = (stop - start) // R
        shift = U(L) if adjoint else U(0)
        state = load(entry, U(0))
        for v in range(vectors):
            y = (stop - (v + U(1)) * R) * U(L) if adjoint else (start + v * R) * U(L)
            P, e = prefix(load(A, y + shift), load(b, y), L, adjoint)
            solved = fma(P, state, e)
            store(h, y, solved)
            if not all_finite(solved):  # lane by lane, and only from where it went wrong
                store(exit, U(0), state)
                for r in range(R):
                    for c in range(U(L)):
                        z = y + ((R - U(1) - r) if adjoint else r) * U(L) + c
                        if not (np.isfinite(h[z]) and np.isfinite(exit[c])):
                            h[z] = A[z + shift] * exit[c] + b[z]
                        exit[c] = h[z]
                solved = load(h, y)
            state = last_step(solved, L, adjoint)
        store(exit, U(0), state)
        for s in range(vectors * R, stop - start):
            for c in range(U(L)):
                z = ((stop - U(1) - s) if adjoint else (start + s)) * U(L) + c
                h[z] = A[z + shift] * exit[c] + b[z]
                exit[c] = h[z]

    return scan


@cache
def _mapper(L: int, adjoint: bool) -> Callable[..., None]:
    """Return the kernel for the map of ``steps`` as a whole: ``G`` and ``e`` of every lane."""

    @compiled
    def compose(A: Array, b: Array, steps: Steps, G: Array, e: Array) -> None:
        W, start, stop = width(A), U(steps[0]), U(steps[1])
        R = W // U(L)
        vectors = (stop - start) // R
        shift = U(L) if adjoint else U(0)
        G[:], e[:] = 1, 0
        product, end, zero = load(G, U(0)), load(e, U(0)), load(e, U(0))
        for v in range(vectors):
            y = (stop - (v + U(1)) * R) * U(L) if adjoint else (start + v * R) * U(L)
            P, offset = prefix(load(A, y + shift), load(b, y), L, adjoint)
            end = last_step(fma(P, end, offset), L, adjoint)
            product = fma(last_step(P, L, adjoint), product, zero)
        store(G, U(0), product)
        store(e, U(0), end)
        for s in range(vectors * R, stop - start):
            for c in range(U(L)):
                z = ((stop - U(1) - s) if adjoint else (start + s)) * U(L) + c
                e[c] = A[z + shift] * e[c] + b[z]
                G[c] *= A[z + shift]

    return compose


def fits(lanes: int, dtype: np.dtype[Any]) -> bool:
    """Return whether a vector holds a whole number of steps, at least two, of so many lanes."""
    return lanes in (1, 2, 4, 8) and lanes * dtype.itemsize < BYTES


def solve(A: Array, b: Array, h: Array, adjoint: bool) -> None:
    """Write the solution of a diagonal system to ``h``; all arrays are (T, L), contiguous."""
    T, L = b.shape
    h[-1 if adjoint else 0] = b[-1 if adjoint else 0]
    if T == 1:
        return
    pieces = _pieces(T, _piece_count(3 * b.nbytes, threads.num_threads()), adjoint)
    flat = A.reshape(-1), b.reshape(-1), h.reshape(-1)
    entries, exits, G, e = np.empty((4, len(pieces), BYTES // b.itemsize), b.dtype)
    scanner, mapper = _scanner(L, adjoint), _mapper(L, adjoint)

    def scan(p: int, state: Array) -> None:
        entries[p] = np.resize(state, entries.shape[1])  # a vector repeats its lanes
        scanner(*flat, pieces[p], entries[p], exits[p])

    # 1. The first piece, and the maps of those that another piece follows.
    first: list[Callable[[], None]] = [partial(scan, 0, h[-1 if adjoint else 0])]
    inner = range(1, len(pieces) - 1)
    threads.run(first + [partial(mapper, *flat[:2], pieces[p], G[p], e[p]) for p in inner])

    # 2.
    states = [exits[0, :L].copy()]
    with np.errstate(all="ignore"):
        for p in inner:
            states.append(G[p, :L] * states[-1] + e[p, :L])
    # 3.
    threads.run([partial(scan, p + 1, state) for p, state in enumerate(states[: len(pieces) - 1])])

    # A state that is not finite stays so: the end of a piece tells whether it overflowed inside.
    for p in inner:
        assumed, reached = entries[p + 1, :L].copy(), exits[p, :L]
        sound = np.isfinite(assumed) & np.isfinite(reached)
        actual = np.where(sound, assumed, reached)
        if not np.array_equal(actual, assumed, equal_nan=True):
            scan(p + 1, actual)


def _piece_count(nbytes: int, workers: int) -> int:
    """Return 1, or ``workers + 1`` where that saves at least two fifths of the time.

    In either round every thread has one piece, so the time is ``2 / (workers + 1)``; but part of
    the memory is read twice, and two threads gained nothing where one can fill the memory bus.
    """
    gain = nbytes * (0.6 - 2 / (workers + 1))
    return workers + 1 if gain > DISPATCH_BYTES else 1


def _pieces(T: int, count: int, adjoint: bool) -> list[Steps]:
    """Cut all steps but the first solved into ``count`` ranges, in the order of solution."""
    cuts = [1 + (T - 1) * p // count for p in range(count + 1)]
    forward = list(zip(cuts[:-1], cuts[1:], strict=True))
    return [(T - stop, T - start) for start, stop in forward] if adjoint else forward
