"""Newton's method for a whole trajectory, and every method that differs from it in one choice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pararnn_solvers.checks import require_whole
from pararnn_solvers.linear import Scan
from pararnn_solvers.solvers.description import describe_call, parameters
from pararnn_solvers.solvers.guess import resolve
from pararnn_solvers.solvers.linearization import Linearization, exact, require_linearization
from pararnn_solvers.solvers.shooting import shoot
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.step_length import StepLength, full_step, require_step_length
from pararnn_solvers.solvers.stopping import Stopping
from pararnn_solvers.solvers.unsolved import Observer, Unsolved
from pararnn_solvers.solvers.wavefront import goes_together, is_default, iterate_together
from pararnn_solvers.system import System, fuses


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

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.Newton()).n_iter
    4
    """

    linearization: Linearization = exact
    step_length: StepLength = full_step
    chunk: int = 1
    window: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would fail only in the middle of a solve."""
        require_linearization("linearization", self.linearization)
        require_step_length("step_length", self.step_length)
        require_whole("chunk", self.chunk)
        if self.window is not None:
            require_whole("window", self.window)

    def solve(
        self,
        system: System,
        guess: Any,
        scan: Scan,
        stopping: Stopping,
        observe: Observer | None = None,
    ) -> Solution:
        """Iterate from the guess until every sequence has converged or failed."""
        if self.chunk > 1:
            window = self.window and -(-self.window // self.chunk)  # in chunks, rounded up
            method = replace(self, chunk=1, window=window)
            return shoot(method, self.chunk, system, guess, scan, stopping, observe)
        if self.is_plain and self.window is None and observe is None and goes_together(system):
            guess = None if is_default(guess) else resolve(guess, system)
            solution = iterate_together(system, guess, scan, stopping)
            if solution is not None:
                return solution
        unsolved = Unsolved(system, guess, stopping, self.window, observe)
        iterate = unsolved.first(self.is_plain and fuses(system))  # F(h) at the guess
        while iterate is not None:
            with np.errstate(all="ignore"):  # an overflow ends in a status, not in a warning
                if iterate.fused:
                    iterate = iterate.newton_step()  # all of what follows, by one kernel
                else:
                    A = self.linearization(iterate)  # A_t = df/dh at the current states
                    # (I - S A) delta = -F(h); h + delta
                    iterate = self.step_length(iterate.linearized(A), scan)
            iterate = unsolved.settle(iterate)  # stop where |F| is small, go on with the rest
        return unsolved.solution(scan)

    @property
    def is_plain(self) -> bool:
        """Whether this is Newton's method itself: the exact A, and full steps."""
        return self.linearization is exact and self.step_length is full_step

    def __str__(self) -> str:
        return describe_call("newton", *parameters(self))
