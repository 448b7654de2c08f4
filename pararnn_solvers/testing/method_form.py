"""The check of what a method returns: a solution whose parts fit together."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status
from pararnn_solvers.testing.method_problems import Subject, contractive, far_guess
from pararnn_solvers.testing.results import CheckFailed

PROMISED = "solve(system, guess, scan, stopping, observe) returns a Solution"


@dataclass(frozen=True)
class Watched:
    """A method that looks at what another one returns, before anybody else does."""

    method: Any
    scans: list[Any] = field(default_factory=list)

    def solve(
        self, system: Any, guess: Any, scan: Any, stopping: Any, observe: Any = None
    ) -> Solution:
        """Solve by the other method, and raise CheckFailed where the parts do not fit."""

        def counted(blocks: Any, rhs: Any, *, adjoint: bool = False) -> Any:
            self.scans.append(adjoint)
            return scan(blocks, rhs, adjoint=adjoint)

        try:
            solution = self.method.solve(system, guess, counted, stopping, observe)
        except Exception as error:
            arguments = "take these arguments by position; " if type(error) is TypeError else ""
            raise CheckFailed(
                PROMISED,
                f"{type(error).__name__}: {error}",
                f"{arguments}call method.solve by hand for the traceback",
            ) from error
        if not isinstance(solution, Solution):
            raise CheckFailed(
                PROMISED,
                f"a {type(solution).__name__}",
                "return pararnn_solvers.Solution(h=..., sequence_status=..., residual_norms=..., "
                "...); Unsolved.solution(scan) makes one",
            )
        require_parts(system, solution, counted)
        return solution


def require_parts(system: Any, solution: Solution, scan: Callable[..., Any]) -> None:
    """Raise CheckFailed for the first part of a solution that is not what it has to be."""
    T, sequences, d = system.shape
    h, status, norms = solution.h, solution.sequence_status, solution.residual_norms
    dtype = system.h0.dtype
    statuses = [s for s in np.ravel(np.asarray(status, object)) if not isinstance(s, Status)]
    parts = {
        "h": (described(h), described(np.empty(system.shape, dtype))),
        "sequence_status": (np.shape(status), (sequences,)),
        "an entry of sequence_status": (type((statuses or [Status.CONVERGED])[0]), Status),
        "the last axis of residual_norms": (np.shape(norms)[1:], (sequences,)),
        "the dtype of residual_norms": (np.asarray(norms).dtype, dtype),
        "scan": ("the given one" if solution.scan is scan else "another", "the given one"),
        "system": (type(solution.system), type(system)),
        "n_step_evaluations": (np.sign(solution.n_step_evaluations), np.sign(T * sequences)),
    }
    for name, (got, expected) in parts.items():
        if got != expected:
            raise CheckFailed(
                "the parts of a Solution fit the system that was solved",
                f"{name} is {got}, expected {expected} (system.shape {system.shape}, {dtype})",
                REMEDIES.get(name.split()[-1], "see the documentation of Solution"),
            )


REMEDIES = {
    "h": "return the states (T, batch, d), C-contiguous, in the dtype of system.h0",
    "sequence_status": "one member of solvers.Status for each sequence, in an array of objects",
    "residual_norms": "an array (n_iter + 1, batch) in the dtype of h, the guess's row first",
    "scan": "return the scan that was given: gradients use it",
    "n_step_evaluations": "n_step_evaluations=system.tally.steps",
}


def described(array: Any) -> str:
    """Say what an array is."""
    if not isinstance(array, np.ndarray):
        return type(array).__name__
    order = "" if array.flags.c_contiguous else ", not C-contiguous"
    return f"shape {array.shape}, {array.dtype}{order}"


def solutions_are_well_formed(subject: Subject) -> None:
    """What solve returns is a Solution whose parts fit together.

    Proves: with and without a batch, the states are a C-contiguous array of the shape and dtype of
    the system, there is a Status for each sequence, a column of residual norms for each, the scan
    that was given (and Newton's method calls it), and a count of evaluations.

    Costs: 2 solves for each dtype.

    A failure means: another shape or dtype, a view in another order, text in place of a Status, or
    arguments that are not taken.
    """
    for dtype in subject.dtypes:
        for batch in ((), (2,)):
            problem = contractive(12, batch, 2, 2, dtype)
            watched = Watched(subject.method)
            solution = replace(subject, method=watched).attempt(problem, guess=far_guess(problem))
            if solution.n_iter and not (watched.scans or subject.no_newton):
                raise CheckFailed(
                    "linear recurrences of Newton's method are solved by the scan that is given",
                    "the scan was not called",
                    "BlockBidiagonal(blocks).solve(rhs, scan); if this is not Newton's method, say "
                    "newton=False",
                    "another backend is used than the one that was chosen",
                )


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    "solutions_are_well_formed": solutions_are_well_formed
}
