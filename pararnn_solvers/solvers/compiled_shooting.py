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
        x, h0, bounds = system.x, system.h0, stopping.bounds(system.h0.dtype)
        h = system.empty()
        shot: Any
        if system.dense is not None:
            shot = kernels_of(system.dense).shoot_dense(
                system.dense, x, h0, system.theta, h, bounds=bounds, chunk=self.chunk
            )
        else:
            if guess is not None:
                guess = resolve(guess, system)[self.chunk - 1 :: self.chunk]
            options = (bounds, scan, stopping.max_iter, guess, self.forgets)
            shooting = importlib.import_module(system.program.shooting)
            shot = shooting.shoot_either(system.program, x, h0, h, self.chunk, *options)
        system.tally.steps += shot.evaluations
        status = np.full(h.shape[1], Status.MAX_ITER, object)
        status[shot.joined] = Status.CONVERGED
        if not shot.finite:
            system.tally.suspect = True
            status[~finite_sequences(h)] = Status.DIVERGED
        if observe is not None:
            with suppress(StopIteration):  # there is nothing left to stop
                observe(State(len(shot.norms) - 1, h, shot.norms[-1], len(h)))
        taken = system.tally.steps
        return Solution(h, status, shot.norms, taken, system, scan, stopping, compiled=True)

    def __str__(self) -> str:
        return f"newton(chunk={self.chunk})"
