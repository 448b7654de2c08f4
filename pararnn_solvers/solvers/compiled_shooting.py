"""Multiple shooting where there are kernels for it."""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from pararnn_solvers.linear import Scan
from pararnn_solvers.solvers.guess import resolve
from pararnn_solvers.solvers.sequential import finite_sequences
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status, Stopping
from pararnn_solvers.solvers.unsolved import Observer, State
from pararnn_solvers.system import System, kernels_of
from pararnn_solvers.typing import Array


@dataclass(frozen=True)
class CompiledShooting:
    """Multiple shooting by kernels: chunks that forget run until they meet, others are corrected.

    Parameters
    ----------
    chunk : int
    forgets : bool, optional
        Whether the recurrence forgets within a chunk; None: find out.
    """

    chunk: int
    forgets: bool | None = None

    def solve(
        self,
        system: System,
        guess: Any,
        scan: Scan,
        stopping: Stopping,
        observe: Observer | None = None,
    ) -> Solution:
        """Fill the trajectory; see :mod:`pararnn_solvers.compiled.shooting`."""
        h = system.empty()
        if system.dense is not None:
            shot = kernels_of(system.dense).shoot_dense(
                system.dense,
                system.x,
                system.h0,
                system.theta,
                h,
                bounds=stopping.bounds(h.dtype),
                chunk=self.chunk,
            )
        else:
            shot = self.shoot(system, h, guess, scan, stopping)
        system.tally.steps += shot.evaluations
        status = np.full(h.shape[1], Status.STALLED, object)
        status[shot.n_iter >= stopping.max_iter] = Status.MAX_ITER
        status[shot.joined] = Status.CONVERGED
        if not shot.finite:
            system.tally.suspect = True
            status[~finite_sequences(h)] = Status.DIVERGED
        if observe is not None:
            with suppress(StopIteration):  # there is nothing left to stop
                observe(State(len(shot.norms) - 1, h, shot.norms[-1], len(h)))
        taken = system.tally.steps
        return Solution(h, status, shot.norms, taken, system, scan, stopping, compiled=True)

    def shoot(self, system: System, h: Array, guess: Any, scan: Scan, stopping: Stopping) -> Any:
        """Fill ``h`` by chunks that meet or that Newton's method corrects; one is the rollout.

        If it is not known whether the recurrence forgets in as many steps, it is asked; if the
        answer was wrong, the other way is tried.
        """
        from pararnn_solvers.compiled.shooting import Shot, shoot_either  # imports Numba

        program, S, bounds = system.program, self.chunk, stopping.bounds(h.dtype)
        T, B, _ = h.shape
        if not h.size or S >= T:
            every = np.ones(B, bool)
            finite = kernels_of(program).rollout(program, system.x, system.h0, h)
            norms, none = np.zeros((1, B), h.dtype), np.zeros(B, int)
            return Shot(norms, none, every, ~every, T * B, finite)
        here = importlib.import_module(program.shooting)
        forgets = self.forgets
        if forgets is None:
            forgets = here.forgetting(program, system.x, system.h0, T).steps <= 2 * S

        def until_they_meet(x: Any, h0: Array, h: Array, guess: Any, max_iter: int) -> Any:
            return here.shoot(program, x, h0, h, S, *bounds, guess=guess)

        def by_newton(x: Any, h0: Array, h: Array, guess: Any, max_iter: int) -> Any:
            more = {"scan": scan, "max_iter": max_iter, "guess": guess}
            return here.shoot_newton(program, x, h0, h, S, *bounds, **more)

        ways = (until_they_meet, by_newton) if forgets else (by_newton, until_they_meet)
        ends = None if guess is None else resolve(guess, system)[S - 1 :: S]
        most = stopping.max_iter
        return shoot_either(ways, system.x, system.h0, h, ends, max_iter=most)

    def __str__(self) -> str:
        return f"newton(chunk={self.chunk})"
