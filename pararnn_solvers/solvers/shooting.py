"""Multiple shooting: unknowns only at the ends of chunks, the exact recurrence inside them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pararnn_solvers.linear import Scan, alignment
from pararnn_solvers.solvers.guess import resolve
from pararnn_solvers.solvers.sequential import finite_sequences
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status, Stopping, max_norm
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array

if TYPE_CHECKING:
    from pararnn_solvers.solvers.newton import Newton
    from pararnn_solvers.solvers.unsolved import Observer


def shoot(
    method: Newton,
    chunk: int,
    system: System,
    guess: Any,
    scan: Scan,
    stopping: Stopping,
    observe: Observer | None,
) -> Solution:
    """Solve for the states at the ends of chunks, then roll all chunks out side by side.

    The states at the ends are returned as they were solved for, so that the residual of the
    trajectory is that of the condensed system: rounding within chunks, the tolerance between them.
    It is evaluated once more on all steps; a sequence whose rounding within chunks exceeds the
    tolerance has stalled, one that overflows after the last of those states has diverged.

    Source: Bock & Plitt 1984; Gander & Vandewalle 2007, section 3.
    """
    if observe is None and method.is_plain and method.window is None and system.is_compiled:
        return shoot_compiled(chunk, system, guess, scan, stopping)
    condensed = system.condense(chunk)
    if guess is not None and not callable(guess) and not isinstance(guess, str):
        ends = np.asarray(guess)[chunk - 1 :: chunk]
        guess = ends[: condensed.shape[0]]
    coarse = method.solve(condensed, guess, scan, stopping, observe)
    h = rollout_chunks(system, coarse.h, chunk)
    norm = max_norm(system.residual(h))  # of the states that are returned, within chunks too
    met = (norm <= stopping.tolerance(h)).all(axis=0)
    status = coarse.sequence_status.copy()
    solved = status == Status.CONVERGED
    status[solved & ~met] = Status.STALLED
    status[solved & ~np.isfinite(norm).all(axis=0)] = Status.DIVERGED
    norms = coarse.residual_norms.copy()
    norms[-1] = norm.max(axis=0, initial=0)
    return replace(
        coarse,
        h=h,
        sequence_status=status,
        residual_norms=norms,
        n_step_evaluations=system.tally.steps,
        system=system,
    )


def shoot_compiled(
    chunk: int, system: System, guess: Any, scan: Scan, stopping: Stopping
) -> Solution:
    """Do the same by kernels: chunks that forget run until they meet, others are corrected."""
    from pararnn_solvers.compiled import dense_shooting, shooting_policy  # imports Numba

    x, h0, bounds = system.x, system.h0, stopping.bounds(system.h0.dtype)
    h = alignment.empty(system.shape, h0.dtype)
    shot: Any
    if system.dense is not None:
        shot = dense_shooting.shoot_dense(
            system.dense, x, h0, system.theta, h, bounds=bounds, chunk=chunk
        )
    else:
        if guess is not None:
            guess = resolve(guess, system)[chunk - 1 :: chunk]
        shot = shooting_policy.shoot_either(
            system.program, x, h0, h, chunk, bounds, scan, stopping.max_iter, guess
        )
    system.tally.steps += shot.evaluations
    status = np.full(h.shape[1], Status.MAX_ITER, object)
    status[shot.joined] = Status.CONVERGED
    status[~finite_sequences(h)] = Status.DIVERGED
    return Solution(
        h, status, shot.norms, system.tally.steps, system, scan, stopping, compiled=True
    )


def rollout_chunks(system: System, ends: Array, chunk: int) -> Array:
    """Return the trajectory that starts each chunk at the end of the one before.

    Parameters
    ----------
    ends : array, shape (P, batch, d)
        States after steps ``chunk, 2 chunk, ... P chunk``.
    """
    h = np.empty(system.shape, system.h0.dtype)
    states = np.concatenate([system.h0[None], ends])
    for s in range(chunk):
        x = None if system.x is None else system.x[s::chunk]
        states = states[: len(h[s::chunk])]
        states = system.apply(system.recurrence.step, states, x)
        h[s::chunk] = states
    h[chunk - 1 :: chunk][: len(ends)] = ends
    return h
