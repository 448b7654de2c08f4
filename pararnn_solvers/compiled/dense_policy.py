"""How many steps a chunk of a dense recurrence should have: what it forgets, what rows cost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pararnn_solvers.compiled.dense import Program
from pararnn_solvers.compiled.dense_product import ROWS
from pararnn_solvers.compiled.dense_shooting import rollout_dense
from pararnn_solvers.compiled.shooting_policy import Memory
from pararnn_solvers.linear import threads
from pararnn_solvers.typing import Array

PROBED = 64  # steps
ROW_COST = 1.5  # of a block of rows, when that of one is 1: the matrix has to be read for either


def forgetting(program: Program, x: Array | None, h0: Array, theta: Any, T: int) -> Memory:
    """Measure how soon two trajectories meet, from ``h_0`` and from somewhere else.

    Cost: 64 steps of two rows.
    """
    steps = min(PROBED, T)
    shift = np.random.default_rng(0).standard_normal(h0[:1].shape).astype(h0.dtype)
    both = np.concatenate([h0[:1], h0[:1] + shift])
    few = None if x is None else np.repeat(x[:steps, :1], 2, axis=1)
    h = rollout_dense(program, few, both, theta, steps=steps)
    with np.errstate(all="ignore"):
        apart = np.abs(h[:, 1] - h[:, 0]).max(axis=-1)
        size = np.abs(h[:, 0]).max(axis=-1)
        eps = float(np.finfo(h.dtype).eps)
        met = apart <= 4 * eps * (1 + size)
        if met.any():
            return Memory(float(met.argmax() + 1), math.nan)
        rate = float(np.log(apart[-1] / np.abs(shift).max())) / steps
    return Memory(math.log(eps) / rate if rate < 0 else math.inf, rate)


def best_chunk(B: int, T: int, memory: Memory) -> tuple[int, float]:
    """Return the chunk that makes shooting cheapest, and its cost as a share of stepping's.

    As many chunks as fill a block of rows on each thread: more would be no faster, and each has to
    be run until it meets. Chunks that do not forget would have to be run again as a whole.
    """
    filled = math.ceil(T * B / (ROWS * threads.num_threads()))
    S = max(filled, math.ceil(memory.steps), 1)
    return S, ROW_COST * (S + memory.steps) / T
