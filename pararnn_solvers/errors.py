"""Everything the package raises on purpose, under one base class."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pararnn_solvers.solvers.solution import Solution


class PararnnError(Exception):
    """Base class of the errors of this package."""


class InvalidInput(PararnnError, ValueError):
    """An argument has the wrong rank, size, dtype or value; the message names the remedy."""


class NotDifferentiable(PararnnError, TypeError):
    """``step`` calls a function for which the package has no derivative; pass ``jacobian=``."""


class NotTraceable(PararnnError, TypeError):
    """``step`` does what a trace cannot follow, so it is not compiled; the message says what."""


class BackendUnavailable(PararnnError, RuntimeError):
    """A backend named explicitly cannot run here; the message says why and what to install."""


class InsufficientMemory(PararnnError, MemoryError):
    """The arrays of a solve would not fit; raised before anything is allocated."""


class ConvergenceError(PararnnError, ArithmeticError):
    """Some sequence did not converge.

    Attributes
    ----------
    solution : Solution
        What was reached: states, statuses and the residual history.
    """

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution

    def __reduce__(self) -> tuple[type[ConvergenceError], tuple[str, Solution]]:
        return type(self), (str(self), self.solution)


class ConvergenceWarning(UserWarning):
    """What ``on_failure="warn"`` emits in place of a :class:`ConvergenceError`."""
