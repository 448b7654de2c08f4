"""Dense recurrences on a device: rolled out, and by multiple shooting.

The method, what counts as met, and what is reported are those of :mod:`.dense_shooting`. A sweep is
one launch, or one for each slab of products of inputs; a row that has met what is stored, stops on
the device, and the host looks after each launch whether any has not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pararnn_solvers.compiled.cuda_dense import DenseCudaProgram
from pararnn_solvers.compiled.cuda_dense_data import (
    SLAB_BYTES,
    Data,
    hoisted,
    prepare,
)
from pararnn_solvers.compiled.cuda_dense_launch import launch, step_time
from pararnn_solvers.compiled.dense_shooting import CLOSE, Rows, Shot, cut, join
from pararnn_solvers.compiled.shooting_policy import NEARBY, Memory
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.linear import cuda
from pararnn_solvers.typing import Array

__all__ = ["best_chunk", "forgetting", "rollout_dense", "shoot_dense"]

MOST_STEPS = 1 << 14  # of a launch, so that it can be interrupted
HEAD = 32  # steps of rows that may meet before the host looks; then twice as many, and so on
PROBED = 64  # steps at most, and not more than 1/16 of all
SETUP = 5e-4  # seconds: of shooting, beside the steps
MOST_ROWS = 1 << 17  # that are worth considering


def shoot_dense(
    program: DenseCudaProgram,
    x: Array | None,
    h0: Array,
    theta: Any,
    h: Array,
    *,
    bounds: tuple[float, float],
    chunk: int,
) -> Shot:
    """Solve a dense recurrence by multiple shooting, chunks as the rows of matrix products.

    Parameters, results and cost are those of
    :func:`~pararnn_solvers.compiled.dense_shooting.shoot_dense`, with device arrays; what is
    reported is on the host.
    """
    data = prepare(program, x, h0, theta)
    chunks = cut(len(h), len(h0), chunk)
    return _settle(data, h, h0, chunks, CLOSE * np.array(bounds))


def rollout_dense(
    program: DenseCudaProgram,
    x: Array | None,
    h0: Array,
    theta: Any,
    h: Array | None = None,
    *,
    steps: int | None = None,
) -> Array:
    """Roll a dense recurrence out step by step, its sequences side by side.

    Parameters and result are those of
    :func:`~pararnn_solvers.compiled.dense_shooting.rollout_dense`, with device arrays.
    """
    T = steps if x is None else len(x)
    if T is None:
        raise InvalidInput("x is None and steps is not given; pass steps, the number of steps")
    if h is None:
        h = cuda.cupy().empty((T, *h0.shape), program.trace.dtype)
    data = prepare(program, x, h0, theta)
    _march(data, h, h0, Rows(np.arange(data.batch), np.full(data.batch, T)), None)
    return h


def _march(
    data: Data, h: Array, states: Array, rows: Rows, tolerance: Array | None
) -> tuple[Array, Array]:
    """Step rows from some states, until they meet what is stored if there is a tolerance.

    Returns
    -------
    met : host array, shape (rows,)
        How many steps were left when a row met; 0 if it never did.
    gap : host array, shape (rows, 2)
        How far it was at its first step, and when it met.
    """
    xp, dtype, count = cuda.cupy(), data.program.trace.dtype, len(rows.position)
    if not (h.size and count):
        return np.zeros(count, int), np.tile(np.array([-1, 0], dtype), (count, 1))
    gap = xp.zeros((count, 2), dtype)
    gap[:, 0] = -1
    position, left = (xp.asarray(v.astype(np.int64)) for v in rows)
    met = xp.zeros(count, np.int64)
    state = (xp.array(states, dtype=dtype, order="C"), position, left, met, gap)
    most = min(MOST_STEPS, max(1, SLAB_BYTES // max(1, count * data.slab_row)))
    done, longest, look = 0, int(rows.length.max()), HEAD
    while done < longest:
        steps = min(most, longest - done, longest if tolerance is None else look)
        y = xp.empty(1, dtype)
        if data.slab_row:
            y = hoisted(data, _inputs(data, rows, position, done, steps))
        launch(data, h, state, y, steps, tolerance)
        done, look = done + steps, 2 * look
        if tolerance is not None and done < longest and not bool(left.any()):
            break
    found: tuple[Array, Array] = (np.zeros(count, int), np.empty((count, 2), dtype))
    return found if tolerance is None else (met.get(), gap.get())


def _inputs(data: Data, rows: Rows, position: Array, done: int, steps: int) -> Array:
    """Return the inputs of all rows for some steps, shape (steps * rows, m)."""
    xp, batch = cuda.cupy(), data.batch
    if len(rows.position) == batch and rows.position[0] == 0:  # whole sequences: no copy
        return data.x[done * batch : (done + steps) * batch]
    wanted = position + batch * xp.arange(steps, dtype=np.int64)[:, None]
    # Rows that have ended lie idle.
    found: Array = data.x[xp.minimum(wanted, len(data.x) - 1).ravel()]
    return found


def _settle(data: Data, h: Array, h0: Array, chunks: Rows, tolerance: Array) -> Shot:
    """Roll all chunks out, and join them."""
    batch, states = data.batch, h.reshape(-1, data.d)
    starts = cuda.cupy().tile(h0, (len(chunks.position) // max(batch, 1), 1))
    _march(data, h, starts, chunks, None)

    def again(rows: Rows) -> tuple[Array, Array]:
        return _march(data, h, _before(data, states, rows), rows, tolerance)

    dtype = data.program.trace.dtype
    return join(again, lambda rows: _gaps(data, states, rows), chunks, batch, dtype)


def _before(data: Data, states: Array, rows: Rows) -> Array:
    """Return the states that are stored before rows begin."""
    found: Array = states[cuda.cupy().asarray(rows.position - data.batch)]
    return found


def _gaps(data: Data, states: Array, rows: Rows) -> Array:
    """Return ``|h_t - f(h_{t-1})|`` where rows begin."""
    index = cuda.cupy().asarray(rows.position)
    x = data.x[index][None] if data.x.size else None
    start = _before(data, states, rows)
    f = rollout_dense(data.program, x, start, data.given, steps=1)[0]
    norm: Array = abs(states[index] - f).max(axis=-1).get()
    return norm


# --- how many steps a chunk should have --------------------------------------------------------


def forgetting(program: DenseCudaProgram, x: Array | None, h0: Array, theta: Any, T: int) -> Memory:
    """Measure how soon trajectories meet, as :func:`~.dense_policy.forgetting` does.

    Cost: 64 steps of three rows, and one copy of some hundred numbers to the host.
    """
    xp = cuda.cupy()
    steps = max(1, min(PROBED, T // 16))
    dtype = program.trace.dtype
    shift = np.random.default_rng(0).standard_normal(h0[:1].shape).astype(dtype)
    size = np.array([[1], [NEARBY]], dtype)
    starts = xp.concatenate([h0[:1], h0[:1] + xp.asarray(size * shift)])
    few = None if x is None else xp.repeat(x[:steps, :1], len(starts), axis=1)
    h = rollout_dense(program, few, starts, theta, steps=steps)
    distances = [abs(h[:, 1:] - h[:, :1]).max(axis=-1), abs(h[:, :1]).max(axis=-1)]
    found = xp.concatenate(distances, axis=1).get()
    apart, great = found[:, :2], found[:, 2:]
    eps = float(np.finfo(dtype).eps)
    with np.errstate(all="ignore"):
        met = apart <= 4 * eps * (1 + great)
        if met[:, 0].any():
            return Memory(float(met[:, 0].argmax() + 1), math.nan)
        rates = np.log(apart[-1] / np.abs(size * shift).max(axis=-1))[~met[-1]] / steps
    rate = float(rates.max())
    return Memory(math.log(eps) / rate if rate < 0 else math.inf, rate)


def best_chunk(program: DenseCudaProgram, B: int, T: int, memory: Memory) -> tuple[int, float]:
    """Return the chunk that makes shooting cheapest, and its cost as a share of stepping's.

    Tried are two chunks, then twice as many, and so on, as long as each has the steps that it needs
    to meet. More rows cost nothing until they fill the multiprocessors
    (:func:`~.cuda_dense_launch.step_time`).
    """
    best, least, pieces = max(1, T), math.inf, 2
    while T * B and T // pieces >= max(1.0, memory.steps) and pieces * B <= MOST_ROWS:
        S = -(-T // pieces)
        # After the first sweep, nearly all rows run again until they meet.
        cost = (S + memory.steps) * step_time(program, B * pieces)
        if cost < least:
            best, least = S, cost
        pieces *= 2
    stepping = max(1, T) * step_time(program, max(1, B))
    return best, (SETUP + least) / stepping
