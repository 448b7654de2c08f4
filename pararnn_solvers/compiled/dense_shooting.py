"""Multiple shooting for dense recurrences: chunks side by side, and heads that meet what is there.

Every chunk is rolled out from a guess of the state before it, all of them as rows of the same
products. Then each one starts again at the end of the chunk before, until it meets the states that
are stored: from there on they are its continuation. Where a recurrence forgets, a few sweeps of
that settle all chunks, most often one.

References
----------
Bock and Plitt (1984), "A multiple shooting algorithm for direct solution of optimal control
problems". Gander and Vandewalle (2007), "Analysis of the parareal time-parallel time-integration
method", section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.compiled.dense import STRIDES, DenseProgram
from pararnn_solvers.compiled.dense_data import Data, in_blocks, prepare
from pararnn_solvers.compiled.dense_product import aligned
from pararnn_solvers.compiled.dense_rows import is_finite, nothing_seen
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.typing import Array

__all__ = ["Rows", "Shot", "cut", "join", "rollout_dense", "shoot_dense"]

MOST_EVALUATIONS = 3  # of each step, before the recurrence is taken for one that does not forget
CLOSE = 1 / 16  # of the tolerance, is where a row has met the stored trajectory


class Shot(NamedTuple):
    """What multiple shooting found.

    Attributes
    ----------
    norms : array, shape (2, batch)
        Greatest ``|h_t - f(h_{t-1})|`` after the first sweep and at the end, in the units of the
        state. It is zero but for rounding where no row has met another one.
    evaluations : int
        How often a step was taken from one state.
    joined : array of bool, shape (batch,)
        Whether all rows have met; if not, the recurrence does not forget within the chunks.
    finite : bool
        Whether all states are known to be: they have to be looked at.
    """

    norms: Array
    joined: Array
    evaluations: int
    finite: bool = False

    @property
    def n_iter(self) -> Array:
        """One for each sequence, as for all chunks that run until they meet; shape (batch,)."""
        return np.ones(len(self.joined), int)


def shoot_dense(
    program: DenseProgram,
    x: Array | None,
    h0: Array,
    theta: Any,
    h: Array,
    *,
    bounds: tuple[float, float],
    chunk: int,
) -> Shot:
    """Solve a dense recurrence by multiple shooting, chunks as the rows of matrix products.

    Parameters
    ----------
    program : DenseProgram
    x : array, shape (T, batch, m), or None
    h0 : array, shape (batch, d)
    theta : nested containers
        Like that of the trace.
    h : array, shape (T, batch, d)
        C-contiguous; becomes the trajectory.
    bounds : (float, float)
        ``atol, rtol``: rows meet where they differ by less than 1/16 of ``atol + rtol |h_t|`` in
        the maximum norm.
    chunk : int
        About how many steps a chunk has. Chunks differ by one step at most.

    Returns
    -------
    Shot
        Not joined where rows have not met when every step was taken three times.

    Notes
    -----
    Cost: ``1 + M / chunk`` evaluations a step where the recurrence forgets in M steps; 3 where it
    does not. Memory beside the result: the products with x, and a few states for each chunk.
    """
    T = len(h)
    data = prepare(program, x, h0, theta, T)
    chunks = cut(T, data.batch, chunk)
    return _settle(data, h, np.asarray(h0, h.dtype), chunks, CLOSE * np.array(bounds))


def rollout_dense(
    program: DenseProgram,
    x: Array | None,
    h0: Array,
    theta: Any,
    h: Array | None = None,
    *,
    steps: int | None = None,
) -> Array:
    """Roll a dense recurrence out step by step.

    Parameters
    ----------
    program, x, h0, theta, steps
        As of :func:`shoot_dense`.
    h : array, shape (T, batch, d), optional
        C-contiguous; written to.

    Returns
    -------
    array, shape (T, batch, d)
    """  # fmt: skip
    T = _steps(x, steps)
    if h is None:
        h = np.empty((T, *h0.shape), program.trace.dtype)
    data = prepare(program, x, h0, theta, T)
    every = Rows(np.arange(data.batch), np.full(data.batch, T))
    _march(data, h, np.asarray(h0, h.dtype), every, None)
    return h


def _steps(x: Array | None, steps: int | None) -> int:
    T = steps if x is None else len(x)
    if T is None:
        raise InvalidInput("x is None and steps is not given; pass steps, the number of steps")
    return T


class Rows(NamedTuple):
    """Where in (T * batch) rows begin, and how many steps they have; host arrays (rows,)."""

    position: Array
    length: Array

    def of(self, rows: Array) -> Rows:
        """Return some of them."""
        return Rows(self.position[rows], self.length[rows])


def cut(T: int, batch: int, chunk: int) -> Rows:
    """Return the chunks of all sequences, of about so many steps, those at one time together."""
    pieces = max(1, round(T / chunk))
    starts = np.arange(pieces + 1) * T // pieces
    sequence = np.tile(np.arange(batch), pieces)
    return Rows(np.repeat(starts[:-1], batch) * batch + sequence, np.repeat(np.diff(starts), batch))


def _settle(data: Data, h: Array, h0: Array, chunks: Rows, tolerance: Array) -> Shot:
    """Roll all chunks out, and join them."""
    batch, states = data.batch, h.reshape(-1, data.d)
    starts = np.tile(h0, (len(chunks.position) // max(batch, 1), 1))
    finite = _march(data, h, starts, chunks, None)[2]

    def again(rows: Rows) -> tuple[Array, Array]:
        nonlocal finite
        met, found, fine = _march(data, h, states[rows.position - batch], rows, tolerance)
        finite &= fine
        return met, found

    shot = join(again, lambda rows: _gaps(data, states, rows.position), chunks, batch, h.dtype)
    return shot._replace(finite=finite and (data.program.reads_drives or not data.x.size))


def join(
    again: Callable[[Rows], tuple[Array, Array]],
    gaps: Callable[[Rows], Array],
    chunks: Rows,
    batch: int,
    dtype: Any,
) -> Shot:
    """Run heads of chunks again until nothing changes.

    Parameters
    ----------
    again : callable
        Starts rows again at the states before them; returns how many steps were left when each met
        what is stored, 0 if it never did, and how far it was at its first step and when it met.
    gaps : callable
        ``|h_t - f(h_{t-1})|`` where rows begin.
    """
    rows = len(chunks.position)
    evaluations = int(chunks.length.sum())
    most = MOST_EVALUATIONS * evaluations
    before, gap = np.zeros((2, rows), dtype)
    where = np.zeros(rows, int)  # the step of a chunk at which it met
    pending = first = np.arange(batch, rows)  # rows whose first state has changed
    while pending.size and evaluations < most:
        started = chunks.of(pending)
        met, found = again(started)
        if pending is first:
            before[pending] = found[:, 0]
        step = started.length - met
        evaluations += int(np.minimum(step + 1, started.length).sum())
        # A chunk that met again before the place of last time has two seams.
        old = np.where(step < where[pending], gap[pending], 0)
        gap[pending], where[pending] = np.fmax(found[:, 1], old), np.fmax(step, where[pending])
        pending = pending[met == 0] + batch
        pending = pending[pending < rows]
    if pending.size:
        gap[pending] = np.fmax(gap[pending], gaps(chunks.of(pending)))
    joined = np.ones(batch, bool)
    joined[pending % max(batch, 1)] = False
    by_chunk = np.stack([before, gap]).reshape(2, rows // max(batch, 1), batch)
    return Shot(by_chunk.max(axis=1, initial=0), joined, evaluations)


def _gaps(data: Data, states: Array, position: Array) -> Array:
    """Return ``|h_t - f(h_{t-1})|`` at some positions."""
    m = int(data.place[STRIDES["x"]])
    x = data.x.reshape(-1, m)[position] if m else None
    with np.errstate(all="ignore"):
        f = data.program.trace.apply(states[position - data.batch], x, data.given)
        norm: Array = np.abs(states[position] - f).max(axis=-1)
    return norm


def _march(
    data: Data, h: Array, states: Array, chunks: Rows, tolerance: Array | None
) -> tuple[Array, Array, bool]:
    """Step rows from some states, until they meet what is stored if there is a tolerance.

    Returns
    -------
    met : array, shape (rows,)
        How many steps were left when a row met; 0 if it never did.
    gap : array, shape (rows, 2)
        How far it was at its first step, and when it met.
    finite : bool
        Whether all states are, and what was read of x.
    """
    rows, dtype = len(states), data.program.trace.dtype
    met, gap = np.zeros(rows, np.uint64), np.full((rows, 2), -1.0, dtype)
    gap[:, 1] = 0
    limits = np.full(2, -1.0, dtype) if tolerance is None else tolerance.astype(dtype)
    flat = h.reshape(-1)
    if not flat.size:
        return met.astype(int), gap, True
    position, left = (v.astype(np.uint64) for v in chunks)
    n = np.uint64(data.program.trace.channels)
    given = (data.place, data.shapes, data.x, data.y, data.theta, data.matrices)
    seen = list[Array]()

    def task(i: int, j: int) -> None:
        size = j - i
        state = aligned(size * data.d, dtype)
        state[:] = states[i:j].reshape(-1)
        work = [aligned(size * width, dtype) for width in (*data.widths, data.d)]
        row = np.arange(size, dtype=np.uint64)
        seen.append(nothing_seen(dtype))
        rest = position[i:j], left[i:j], row, met[i:j], gap[i:j], seen[-1]
        batch = np.uint64(data.batch)
        data.program.march(np.uint64(size), n, batch, *given, flat, limits, state, *work, *rest)

    in_blocks(task, rows, data.cost * float(chunks.length.sum()))
    return met.astype(int), gap, all(is_finite(bits, dtype) for bits in seen)
