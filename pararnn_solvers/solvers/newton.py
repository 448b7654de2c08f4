"""Newton's method for a whole trajectory, and every method that differs from it in one choice."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Any

import numpy as np

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.linear import Scan
from pararnn_solvers.solvers.linearization import Linearization, exact
from pararnn_solvers.solvers.shooting import shoot
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.step_length import StepLength, full_step
from pararnn_solvers.solvers.stopping import Stopping
from pararnn_solvers.solvers.unsolved import Observer, Unsolved
from pararnn_solvers.system import System


@dataclass(frozen=True)
class Newton:
    """Solve ``F(h) = 0`` by ``h <- h + alpha delta`` with ``(I - S A) delta = -F(h)``.

    Parameters
    ----------
    linearization : callable
        Which A: :mod:`pararnn_solvers.solvers.linearization`. The exact df/dh is Newton's method.
    step_length : callable
        How far: :mod:`pararnn_solvers.solvers.step_length`, :mod:`.trust_region`.
    chunk : int
        Unknowns are only the states at the ends of chunks of so many steps (multiple shooting).
    window : int, optional
        Iterate on so many steps at a time and move past those that have converged.

    Notes
    -----
    Cost of one iteration: one evaluation of `step` for the residual, one with k tangents for A,
    and one linear recurrence; all parallel over time.

    Source: Danieli et al. 2025 (arXiv 2510.21450), algorithm 1; Lim et al. 2023 (arXiv 2309.12252).
    """

    linearization: Linearization = exact
    step_length: StepLength = full_step
    chunk: int = 1
    window: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would fail only in the middle of a solve."""
        for name in ("linearization", "step_length"):
            if not callable(getattr(self, name)):
                raise InvalidInput(f"{name} is {getattr(self, name)!r}; expected a function")
        for name in ("chunk", "window"):
            steps = getattr(self, name)
            if steps is not None and (not isinstance(steps, Integral) or steps < 1):
                raise InvalidInput(f"{name} is {steps!r}; expected a whole number of steps >= 1")

    def solve(
        self,
        system: System,
        guess: Any,
        scan: Scan,
        stopping: Stopping,
        observe: Observer | None = None,
    ) -> Solution:
        """Iterate from the guess until every sequence has converged or failed."""
        if 1 < self.chunk < system.shape[0]:
            return shoot(replace(self, chunk=1), self.chunk, system, guess, scan, stopping, observe)
        unsolved = Unsolved(system, guess, stopping, self.window, observe)
        iterate = unsolved.first()  # F(h) at the guess
        while iterate is not None:
            with np.errstate(all="ignore"):  # an overflow ends in a status, not in a warning
                A = self.linearization(iterate)  # A_t = df/dh at the current states
                # (I - S A) delta = -F(h); h + delta
                iterate = self.step_length(replace(iterate, blocks=A), scan)
            iterate = unsolved.settle(iterate)  # stop where |F| is small, go on with the rest
        return unsolved.solution(scan)

    def __str__(self) -> str:
        changed = [f for f in fields(self) if getattr(self, f.name) != f.default]
        values = ", ".join(f"{f.name}={describe(getattr(self, f.name))}" for f in changed)
        return f"newton({values})"


def describe(value: Any) -> str:
    """Name a function by the public one that made it; anything else by itself."""
    value = getattr(value, "func", value)  # functools.partial
    return value.__qualname__.split(".")[0] if callable(value) else str(value)
