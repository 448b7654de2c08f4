"""Multiple shooting: unknowns only at the ends of chunks, the exact recurrence inside them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.linear import Scan
from pararnn_solvers.solvers.compiled_shooting import CompiledShooting
from pararnn_solvers.solvers.linearization import diagonal, exact
from pararnn_solvers.solvers.solution import Solution, completed
from pararnn_solvers.solvers.stopping import Status, Stopping, max_norm
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array

if TYPE_CHECKING:
    from pararnn_solvers.solvers.newton import Newton
    from pararnn_solvers.solvers.unsolved import Observer

LARGEST_BLOCK = 64  # of which one product is formed for each chunk and iteration


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
    in_kernels = system.is_compiled and method.is_plain and method.window is None
    in_kernels &= not system.ranks.several
    if in_kernels and stopping.max_iter:  # chunks that run until they meet are one iteration
        solution = CompiledShooting(chunk).solve(system, guess, scan, stopping, observe)
        unmet = solution.sequence_status == Status.STALLED
        if system.dense is None or not unmet.any():
            return solution
        return corrected(solution, chunk, unmet, observe)
    condensed = system.condense(chunk)
    if guess is not None and not callable(guess) and not isinstance(guess, str):
        ends = arrays.from_any(guess)[chunk - 1 :: chunk]
        guess = ends[: condensed.shape[0]]
    coarse = method.solve(condensed, guess, scan, stopping, observe)
    h = rollout_chunks(system, coarse.h, chunk)
    norm = max_norm(system.residual(h))  # of the states that are returned, within chunks too
    met = system.ranks.all(arrays.on_host((norm <= stopping.tolerance(h)).all(axis=0)))
    last = system.ranks.greatest(arrays.on_host(arrays.greatest(norm, axis=0)))
    status = coarse.sequence_status.copy()
    solved = status == Status.CONVERGED
    status[solved & ~met] = Status.STALLED
    status[solved & ~np.isfinite(last)] = Status.DIVERGED
    norms = coarse.residual_norms.copy()
    norms[-1] = last
    return replace(
        coarse,
        h=h,
        sequence_status=status,
        residual_norms=norms,
        n_step_evaluations=system.tally.steps,
        system=system,
    )


def corrected(
    solution: Solution, chunk: int, unmet: np.ndarray[Any, Any], observe: Observer | None
) -> Solution:
    """Solve for the ends of dense chunks that did not meet, by Newton's method from where they are.

    By its quasi-Newton variant with the diagonal where blocks are large: either needs at most as
    many iterations as there are chunks. By array operations: kernels only roll dense steps out.

    Cost of an iteration: one evaluation of each step with d tangents, and one linear recurrence
    over the chunks.
    """
    from pararnn_solvers.solvers.newton import Newton

    system, h = replace(solution.system, dense=None), solution.h
    method = Newton(exact if h.shape[-1] <= LARGEST_BLOCK else diagonal)
    part = system.part(h, 0, len(h), unmet)
    guess = h[:, arrays.positions(unmet, h)]
    stopping = solution.stopping
    left = replace(stopping, max_iter=stopping.max_iter - solution.n_iter)
    rest = shoot(method, chunk, part, guess, solution.scan, left, observe)
    return replace(
        completed(solution, rest, unmet),
        note=f"{unmet.sum()} sequence(s), whose chunks do not forget, were corrected by {method}",
    )


def rollout_chunks(system: System, ends: Array, chunk: int) -> Array:
    """Return the trajectory that starts each chunk at the end of the one before.

    Parameters
    ----------
    ends : array, shape (P, batch, d)
        States after steps ``chunk, 2 chunk, ... P chunk``.
    """
    h = system.empty()
    before = system.ranks.state_before(ends, system.h0)
    states = np.concatenate([before[None], ends])
    for s in range(chunk):
        x = None if system.x is None else system.x[s::chunk]
        states = states[: len(h[s::chunk])]
        states = system.apply(system.recurrence.step, states, x)
        h[s::chunk] = states
    h[chunk - 1 :: chunk][: len(ends)] = ends
    return h
