"""How many steps a chunk should have: what a recurrence forgets, and what stepping costs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.compiled import numba_kernels as kernels
from pararnn_solvers.compiled.program import Program
from pararnn_solvers.compiled.shooting import Chunks, Shot, first_guess, shoot, shoot_newton
from pararnn_solvers.compiled.tile_kernels import STEPS
from pararnn_solvers.linear import alignment, threads
from pararnn_solvers.typing import Array

PROBED = 512  # steps
LATENCY = 3.0  # vectors that a processor computes in the time in which it finishes one
NEWTON_SWEEPS = 8.0  # four iterations, each with tangents
FAR_APART = 8192  # steps between the lanes of a tile that double its cost
MANY = 1 << 40  # numbers: worth all threads
AHEAD = 0.8  # how much cheaper something else than stepping must look


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


def forgetting(program: Program, x: Array | None, h0: Array, T: int) -> Memory:
    """Measure how soon trajectories meet, on a few chunks at the beginning.

    Cost: about 1000 steps of a row, or of a tile.
    """
    rows = kernels.in_rows(program)
    P = 3 if rows else kernels.vector_size(program) + 1
    S = min(PROBED, T // P)
    if S < 2:
        return Memory(math.inf, math.nan)
    h = alignment.empty((P * S, *h0.shape), h0.dtype)
    chunks = Chunks(program, None if x is None else x[: P * S], h, S)
    starts = first_guess(h0, P, None)
    chunks.sweep(alignment.copy(starts))
    true = np.concatenate([h0[None], chunks.ends()])
    ends, before = h[S - 1 :: S].copy(), np.abs(true - starts).max(axis=-1)
    eps = float(np.finfo(h.dtype).eps)
    taken, _ = chunks.meet(true, 4 * eps, 4 * eps)
    with np.errstate(all="ignore"):
        after = np.abs(true - ends).max(axis=-1)
        slow = (taken >= S) & (before > 0)
        if not slow.any():
            return Memory(float(taken.max(initial=1)), math.nan)
        rate = float(np.log(after[slow] / before[slow]).max()) / S
    if not rate < 0:  # NaN is no reason to hope
        return Memory(math.inf, rate)
    return Memory(math.log(eps) / rate, rate)


def shoot_either(
    program: Program,
    x: Array | None,
    h0: Array,
    h: Array,
    S: int,
    tolerance: tuple[float, float],
    scan: Any,
    max_iter: int,
    guess: Array | None,
    forgets: bool | None,
) -> Shot:
    """Fill ``h`` by chunks of S steps that meet, or that Newton's method corrects.

    If it is not known whether the recurrence forgets in as many steps, it is asked; if the answer
    was wrong, the other way is tried.
    """

    def newton() -> Shot:
        return shoot_newton(program, x, h0, h, S, *tolerance, scan, max_iter, guess)

    def meeting() -> Shot:
        return shoot(program, x, h0, h, S, *tolerance, guess)

    if forgets is None:
        forgets = forgetting(program, x, h0, len(h)).steps <= 2 * S
    first, second = (meeting, newton) if forgets else (newton, meeting)
    shot = first()
    if shot.joined:
        return shot
    other = second()
    return other._replace(evaluations=shot.evaluations + other.evaluations)


def vectors(program: Program, B: int) -> float:
    """Return how many vectors one step of all sequences fills."""
    size = kernels.vector_size(program)
    if kernels.in_rows(program) or B < kernels.FEW_SEQUENCES:
        return B * -(-program.n // size)
    return -(-B // size) * program.n


def stepping_cost(program: Program, B: int) -> float:
    """Return the time of one step of all sequences, in vectors computed one after another."""
    workers = threads.num_threads()
    if kernels.in_rows(program):
        workers = len(kernels.divide_rows(program, B, MANY))
    return max(LATENCY, vectors(program, B) / workers)


def keeps_busy(program: Program, B: int) -> bool:
    """Tell whether the channels and sequences of one step hide one another's latency."""
    ideal = vectors(program, B) / threads.num_threads()
    return stepping_cost(program, B) <= ideal


def best_chunk(program: Program, B: int, T: int, memory: Memory) -> tuple[int, float]:
    """Return the chunk that makes shooting cheapest, and its cost as a share of stepping's.

    A step of P chunks takes as long as computing so many vectors, but no less than the latency of
    one. Chunks that forget take S steps and those they need to meet; others a few iterations.
    """
    rows, workers = kernels.in_rows(program), threads.num_threads()
    size = kernels.vector_size(program)
    lane = B * (-(-program.n // size) if rows else program.n / size)
    stepping = T * stepping_cost(program, B)
    best, least = T, math.inf
    P = workers
    while 16 * P <= T:
        S = -(-T // P) if rows else aligned(T / P)
        side_by_side = max(LATENCY, lane * -(-T // S) / workers)
        work = S + memory.steps if memory.steps <= S else NEWTON_SWEEPS * S
        cost = work * side_by_side * (1 if rows else 1 + S / FAR_APART)
        if cost < least:
            best, least = S, cost
        P *= 2
    return best, least / stepping


def aligned(steps: float) -> int:
    """Round to an odd number of tiles: lanes a power of two apart would share cache sets."""
    tiles = max(1, math.ceil(steps / STEPS))
    return int(STEPS * (tiles | 1))
