"""The recurrence computed as it is written, one step after another."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.checks import all_finite
from pararnn_solvers.linear import Scan
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status, Stopping, max_norm
from pararnn_solvers.solvers.unsolved import Observer, State
from pararnn_solvers.system import System, checked, kernels_of
from pararnn_solvers.typing import Array


def rollout_system(system: System, h: Array, start: int = 0) -> bool:
    """Fill ``h[start:]`` in place, step by step from the state before `start`.

    Returns False if a state may not be finite.

    Cost: T - start calls of `step`, each on one state a sequence; or one kernel.
    """
    if system.is_compiled:
        rest = system.part(h, start, len(h))
        system.count(h[start:])
    if system.dense is not None:
        rollout_dense = kernels_of(system.dense).rollout_dense
        rollout_dense(system.dense, rest.x, rest.h0, system.theta, h[start:], steps=rest.steps)
        return False
    if system.program is not None:
        return bool(kernels_of(system.program).rollout(system.program, rest.x, rest.h0, h[start:]))
    state = system.h0 if start == 0 else h[start - 1]
    for t in range(start, len(h)):
        x = None if system.x is None else system.x[t]
        h[t] = state = checked(system.apply(system.recurrence.step, state, x), state)
    return False


def rollout_in_turn(system: System, h: Array) -> bool:
    """Fill the slabs of all ranks, one rank after another; tell whether all must be finite."""

    def fill(start: Array) -> Array:
        rollout_system(system.alone(start), h)
        last: Array = h[-1] if len(h) else start
        return last

    system.ranks.relay(system.h0, fill)
    return False


@dataclass(frozen=True)
class Sequential:
    """Roll the recurrence out: no parallelism over time, no convergence to speak of."""

    def solve(
        self,
        system: System,
        guess: Any,
        scan: Scan,
        stopping: Stopping,
        observe: Observer | None = None,
    ) -> Solution:
        """Return the rollout; the guess and the stopping rule have no effect."""
        h = system.empty()
        finite = rollout_in_turn(system, h) if system.ranks.several else rollout_system(system, h)
        status = np.full(h.shape[1], Status.SEQUENTIAL, object)
        norms = np.zeros((1, h.shape[1]), h.dtype)  # each state is what the step returned
        if not finite:
            system.tally.suspect = True
            status[~system.ranks.all(finite_sequences(h))] = Status.DIVERGED
            norms[0, status == Status.DIVERGED] = np.nan
        if observe is not None:
            with suppress(StopIteration):  # there is nothing left to stop
                observe(State(0, h, norms[0], len(h)))
        return Solution(
            h,
            status,
            norms,
            system.tally.steps,
            system,
            scan,
            stopping,
            compiled=system.is_compiled,
        )

    def __str__(self) -> str:
        return "sequential()"


def finite_sequences(h: Array) -> Array:
    """Tell, on the host, which sequences of a trajectory (T, batch, d) are finite everywhere."""
    if all_finite(h):  # nearly always, and much faster in one piece
        return np.ones(h.shape[1], bool)
    return arrays.on_host(np.isfinite(h).all(axis=(0, 2)))


def sequential() -> Sequential:
    """Compute one step after another, exact to rounding: for expansive recurrences.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.sequential()).status.name
    'SEQUENTIAL'
    """
    return Sequential()


def finish_sequentially(solution: Solution, stopping: Stopping) -> Solution:
    """Roll out the sequences that failed, from the end of their common converged prefix."""
    failed = np.array([not status.success for status in solution.sequence_status], bool)
    if not failed.any() or solution.status is Status.STOPPED:
        return solution
    h, status = solution.h.copy(), solution.sequence_status.copy()
    part = solution.system.part(h, 0, len(h), failed)
    chosen = arrays.positions(failed, h)
    states = np.ascontiguousarray(h[:, chosen], like=h)  # as kernels want it
    done = max_norm(part.residual(states)) <= stopping.tolerance(states)
    start = int(arrays.leading(done.all(axis=1)))
    rollout_system(part, states, start)
    h[:, chosen] = states
    finite = finite_sequences(states)
    status[failed] = [Status.SEQUENTIAL if ok else Status.DIVERGED for ok in finite]
    norms = solution.residual_norms[-1:].copy()
    norms[0, failed] = arrays.on_host(max_norm(part.residual(states)).max(axis=0))
    return replace(
        solution,
        h=h,
        sequence_status=status,
        residual_norms=np.concatenate([solution.residual_norms, norms]),
        n_step_evaluations=solution.system.tally.steps,
        note=f"{failed.sum()} sequence(s) finished step by step from step {start + 1} "
        f"({solution.status.name} before)",
    )
