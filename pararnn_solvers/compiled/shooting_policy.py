"""How many steps a chunk should have: what a recurrence forgets, and what stepping costs."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.compiled import numba_kernels as kernels
from pararnn_solvers.compiled.program import Program
from pararnn_solvers.compiled.shooting import (
    IN_FLIGHT,
    Chunks,
    first_guess,
    shoot,
    shoot_newton,
)
from pararnn_solvers.compiled.tile_kernels import STEPS
from pararnn_solvers.linear import alignment, threads
from pararnn_solvers.typing import Array

__all__ = [
    "Memory",
    "best_chunk",
    "forgetting",
    "shoot",
    "shoot_newton",
    "shooting_cost",
    "stepping_cost",
]

PROBED = 128  # steps at most, of few chunks, and not more than a small part of all
PROBED_SHARE = 64  # of the time of stepping is what one pass of a probe may take, one part
NEARBY = 1e-3  # apart, relative and absolute: whether close states part, while there is room

# Costs are counted in vectors of neighbouring channels that a processor computes in a row of many,
# 26 ns for a float32 GRU (tests/benchmarks/auto.py measures whether they serve).
LATENCY = 2.0  # of a vector that has to be waited for
PARTIAL = 2.0  # of the vector at the end of a row that channels do not fill
TRANSPOSED = 1.5  # of a vector of lanes, brought together from chunks of one sequence
SCATTERED = 2.5  # and one by one: from several sequences, or at the end of time
ALONE = 1.15  # times as much, where a thread has no second vector of lanes to go on with
FAR_APART = 65536  # steps between lanes from which this doubles: each is in pages of its own
SETUP = 12000.0  # of that GRU: shooting, beside the steps: a probe, and what joins chunks
DISPATCH = 13000.0  # of that GRU: threads that start, twice
GRU = 85.0  # operations of its step and channel
ANOTHER_THREAD = 0.4  # of what one thread does: they share caches, memory and the machine
ITERATIONS = 2.5, 1.2  # of Newton's method, about, where chunks forget nothing; and at least
CORRECTED = 20000.0  # of that GRU: what joins chunks that do not forget, beside the steps
SHORTEST_CORRECTED = 256  # steps of a chunk whose seam is a row of a linear recurrence
MOST_CHUNKS = 1024  # for each thread: more need not be tried
MANY = 1 << 40  # numbers: worth all threads


class Memory(NamedTuple):
    """How soon a recurrence forgets where it began.

    Attributes
    ----------
    steps : float
        After which two trajectories agree to rounding, infinite if they part.
    rate : float
        Logarithm of the factor by which their distance changes in a step; NaN if they met.
    """

    steps: float
    rate: float


AT_ONCE = Memory(0.0, math.nan)


def forgetting(program: Program, x: Array | None, h0: Array, T: int) -> Memory:
    """Measure how soon trajectories meet, on a few chunks at the beginning.

    Chunks start from ``h_0``, and then again: each other one from the end of the chunk before, the
    rest from close by. Where some have not met by their ends, the rate is that at which the slowest
    approach, or part. Only states that are close have room to part: the distance of any two states
    of a bounded recurrence soon stops to grow.

    Cost: at most 1/32 of the steps, and 256 of a row, or of a tile.
    """
    size = kernels.vector_size(program)
    rows, B = kernels.in_rows(program), len(h0)
    P = 3 if rows else max(3, -(-size // max(1, B)))
    S = min(PROBED, T // (PROBED_SHARE * (P if rows else -(-P * B // size))))
    if S < 2:
        return Memory(math.inf, math.nan)
    h = alignment.empty((P * S, *h0.shape), h0.dtype)
    chunks = Chunks(program, None if x is None else x[: P * S], h, S)
    starts = first_guess(h0, P, None)
    chunks.sweep(starts.copy())
    other = np.concatenate([h0[None], chunks.ends()])
    eps = float(np.finfo(h.dtype).eps)
    with np.errstate(all="ignore"):
        other[::2] = h0 * h0.dtype.type(1 + NEARBY) + h0.dtype.type(NEARBY)
        taken, rate = approach(chunks, starts, other, eps)
    if 0 < taken < S:
        return Memory(float(taken), math.nan)
    if not rate < 0:  # NaN is no reason to hope
        return Memory(math.inf, rate)
    return Memory(math.log(eps) / rate, rate)


def approach(chunks: Chunks, before: Array, starts: Array, eps: float) -> tuple[int, float]:
    """Run chunks again from other starts: return after how many steps all have met, and a rate.

    The rate is that of the slowest of those which have not met; NaN if all have.
    """
    ends, after = chunks.h[chunks.S - 1 :: chunks.S].copy(), starts.copy()
    taken, _ = chunks.meet(after, 4 * eps, 4 * eps)
    apart = np.abs(starts - before).max(axis=-1)
    moved = apart > 0
    slow = (taken >= chunks.S) & moved
    if not slow.any():
        return int(taken.max(initial=0, where=moved)), math.nan
    ratio = np.abs(after - ends).max(axis=-1)[slow] / apart[slow]
    return chunks.S, float(np.log(ratio.max())) / chunks.S


def row_vectors(program: Any) -> float:
    """Return the cost of a row of channels."""
    whole, rest = divmod(program.n, kernels.vector_size(program))
    return float(whole + (PARTIAL if rest else 0))


def stepping_cost(program: Any, B: int, numbers: int = MANY) -> float:
    """Return the time of one step of all sequences, in vectors computed one after another.

    Parameters
    ----------
    numbers : int
        In the whole trajectory: few are not worth a second thread.
    """
    if kernels.in_rows(program) or B < kernels.FEW_SEQUENCES:
        workers = len(kernels.divide_rows(program, B, numbers))
        return max(LATENCY, row_vectors(program) * B / workers)
    size = kernels.vector_size(program)
    m = sum(max(1, i.channels) for i in program.drives)
    workers = len(kernels.parts(B, numbers, kernels.lanes_of_a_tile(program, m)))
    return float(max(LATENCY, -(-B // (workers * size)) * program.n * SCATTERED))


class Sizes(NamedTuple):
    """What costs depend on of a program; they take one in its place."""

    k: int
    n: int
    dtype: Any
    drives: tuple[Any, ...]
    operations: float


def best_chunk(program: Program, B: int, T: int, memory: Memory) -> tuple[int, float]:
    """Return the chunk that makes shooting cheapest, and its cost as a share of stepping's.

    Tried are two chunks, then twice as many, and so on.
    Chunks that forget take their steps and those that they need to meet; others a few iterations.
    """
    sizes = Sizes(program.k, program.n, program.dtype, program.drives, program.operations)
    return _best_chunk(sizes, B, T, memory.steps, threads.num_threads())


@lru_cache(maxsize=256)
def _best_chunk(program: Any, B: int, T: int, forgotten: float, workers: int) -> tuple[int, float]:
    best, least = max(1, T), math.inf
    if T * B == 0:
        return best, least
    rows = kernels.in_rows(program)
    P = 2
    while 16 * P <= T and P <= MOST_CHUNKS * workers:
        S = -(-T // P) if rows else aligned(T / P)
        cost = shooting_cost(program, B, T, S, forgotten)
        if cost < least:
            best, least = S, cost
        P *= 2
    return best, least / (T * stepping_cost(program, B, T * B * program.k * program.n))


def shooting_cost(program: Any, B: int, T: int, S: int, forgotten: float) -> float:
    """Return the time of shooting with chunks of S steps, forgotten after so many."""
    if forgotten > S and S < SHORTEST_CORRECTED:
        return math.inf
    P, n, size = -(-T // S), program.n, kernels.vector_size(program)
    numbers = T * B * program.k * n
    if kernels.in_rows(program):
        workers, row = len(kernels.parts(P, numbers)), row_vectors(program)
        chunks = -(-P // workers)
        together = min(chunks, max(1, int(IN_FLIGHT / (B * row))))
        groups, computed = -(-chunks // together), chunks * B * row
        sweep = groups * max(LATENCY, together * B * row)
        meet, head = chunks * B * max(LATENCY, row), forgotten + 1
    else:
        workers = len(kernels.parts(P * B, numbers, size))
        vectors = -(-P * B // (size * workers)) * n
        computed = vectors * (SCATTERED if B > 1 else TRANSPOSED)
        computed *= ALONE if vectors == n else 1
        if B == 1:
            computed *= 1 + min(S, FAR_APART) / FAR_APART
            # Where the last chunk has ended, its vector is no longer transposed.
            computed += n * (P * S - T) / S * (SCATTERED - TRANSPOSED)
        meet = sweep = max(LATENCY, computed)
        head = forgotten + STEPS
    if forgotten <= S:
        steps: float = S * sweep + head * meet
    else:  # the k x k tangents beside the state hide its latency
        steps = iterations(S / forgotten) * S * max(sweep, (1 + program.k) * computed)
    fixed: float = GRU / program.operations  # it takes its time, however little a vector takes
    setup = (SETUP if forgotten <= S else SETUP + CORRECTED) * fixed
    if workers == 1:
        return setup + steps
    return setup + DISPATCH * fixed + steps * workers / (1 + ANOTHER_THREAD * (workers - 1))


def iterations(share: float) -> float:
    """Return how many corrections chunks take which are this share of what is remembered."""
    most, least = ITERATIONS
    return max(least, most - 6 * share)


def aligned(steps: float) -> int:
    """Round to an odd number of tiles: lanes a power of two apart would share cache sets."""
    tiles = max(1, math.ceil(steps / STEPS))
    return int(STEPS * (tiles | 1))
