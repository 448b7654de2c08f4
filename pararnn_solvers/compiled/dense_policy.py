"""How many steps a chunk of a dense recurrence should have: what it forgets, what rows cost."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from pararnn_solvers.compiled.dense import DenseProgram
from pararnn_solvers.compiled.dense_product import FEWER, ROWS
from pararnn_solvers.compiled.dense_shooting import rollout_dense
from pararnn_solvers.compiled.shooting_policy import NEARBY, Memory
from pararnn_solvers.linear import threads
from pararnn_solvers.typing import Array

PROBED = 16, 32  # steps, at least and at most
PROBED_SHARE = 256  # of all steps are probed, one part

# Costs are counted in rows computed one at a time.
FIRST_CACHE = 48 << 10  # bytes: of matrices that stay there, the products cost more than reading
ANOTHER_ROW = 0.65  # beside the first one of a block
ANOTHER_ROW_READING = 0.35  # where matrices come from farther away, for all rows at once
ANOTHER_THREAD = 0.55  # of what one thread does
SETUP = 2.5e7  # operations: of shooting, beside the steps


def forgetting(program: DenseProgram, x: Array | None, h0: Array, theta: Any, T: int) -> Memory:
    """Measure how soon trajectories meet, from ``h_0``, from nearby, and from somewhere else.

    The rate is that of the slowest. Those from nearby part if the recurrence is expansive; the
    distance of the others may have no room to grow.

    Cost: 16 to 32 steps of as many rows as are multiplied together.
    """
    least, most = PROBED
    steps = min(T, max(least, min(most, T // PROBED_SHARE)))
    shift = _shift(h0.shape[1], h0.dtype)
    starts = np.concatenate([h0[:1], h0[:1] + shift])
    few = None if x is None else np.repeat(x[:steps, :1], len(starts), axis=1)
    h = rollout_dense(program, few, starts, theta, steps=steps)
    eps = float(np.finfo(h.dtype).eps)
    with np.errstate(all="ignore"):
        apart = np.abs(h[:, 1:] - h[:, :1]).max(axis=-1)
        met = apart <= 4 * eps * (1 + np.abs(h[:, :1]).max(axis=-1))
        if met[:, 1:].all(axis=1).any():
            return Memory(float(met[:, 1:].all(axis=1).argmax() + 1), math.nan)
        before = np.abs(shift).max(axis=-1)
        rates = np.log(apart[-1] / before)[~met[-1]] / steps
    rate = float(rates.max())
    return Memory(math.log(eps) / rate if rate < 0 else math.inf, rate)


@cache
def _shift(d: int, dtype: Any) -> Array:
    """Return how far the rows of a probe start from ``h_0``: one close by, the others anywhere."""
    shift = np.random.default_rng(0).standard_normal((FEWER - 1, d)).astype(dtype)
    shift[0] *= NEARBY
    return shift


def best_chunk(program: DenseProgram, B: int, T: int, memory: Memory) -> tuple[int, float]:
    """Return the chunk that makes shooting cheapest, and its cost as a share of stepping's.

    As many chunks as fill a block of rows, or one on each thread, or several as long as their rows
    stay in the first cache: each has to be run until it meets. Chunks that do not forget would have
    to be run again as a whole.
    """
    each, most = another_row(program), FIRST_CACHE // row_bytes(program)
    blocks = {1, *(2**i for i in range(8) if ROWS * 2**i <= most)}
    best, least = T, math.inf
    for rows in {ROWS, *(ROWS * threads.num_threads() * several for several in blocks)}:
        S = max(math.ceil(T * B / rows), 1)
        if memory.steps <= S < T:
            cost = (S + memory.steps) * step_cost(B * math.ceil(T / S), each)
            if cost < least:
                best, least = S, cost
    setup = SETUP / operations(program)
    return best, (setup + least) / (max(1, T) * step_cost(B, each))


def step_cost(rows: int, each: float) -> float:
    """Return the time of one step of so many rows, in rows: whole blocks go to threads."""
    blocks = math.ceil(rows / ROWS)
    workers = min(blocks, threads.num_threads())
    on_one = 1 + each * (min(rows, math.ceil(blocks / workers) * ROWS) - 1)
    return on_one * workers / (1 + ANOTHER_THREAD * (workers - 1))


def another_row(program: DenseProgram) -> float:
    """Return what one more row of a block costs, when the first one costs 1."""
    numbers = entries(program)
    resident = numbers * program.trace.dtype.itemsize <= FIRST_CACHE
    return ANOTHER_ROW if resident else ANOTHER_ROW_READING


def row_bytes(program: DenseProgram) -> int:
    """Return how much a step reads and writes of each row: drives, products, two states."""
    trace = program.trace
    products = sum(product.shape[1] for _, product in program.in_step)
    numbers = (trace.inputs or 0) + products + 2 * trace.components * trace.channels
    return max(1, numbers) * int(trace.dtype.itemsize)


def operations(program: DenseProgram) -> float:
    """Return about how many operations one step of one row takes."""
    d = program.trace.components * program.trace.channels
    return 2.0 * entries(program) + 100.0 * d


def entries(program: DenseProgram) -> int:
    """Return how many entries the matrices have by which each step multiplies."""
    return sum(K * N for _, product in program.in_step for K, N in [product.shape])
