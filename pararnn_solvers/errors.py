"""Everything the package raises on purpose, under one base class."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pararnn_solvers.solvers.solution import Solution


class PararnnError(Exception):
    """Base class of the errors of this package.

    Examples
    --------
    >>> issubclass(InvalidInput, PararnnError)
    True
    """


class InvalidInput(PararnnError, ValueError):
    """An argument has the wrong rank, size, dtype or value; the message names the remedy.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> prs.Recurrence(np.tanh, block_size=5).structure(12)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    pararnn_solvers.errors.InvalidInput: h0 has trailing size 12, not a multiple of ...
    """


class NotDifferentiable(PararnnError, TypeError):
    """``step`` calls a function for which the package has no derivative; pass ``jacobian=``.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> step = lambda h, x, _: np.i0(h)
    >>> prs.solve(step, np.ones((4, 1)), np.ones(1), method='newton')  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    pararnn_solvers.errors.NotDifferentiable: numpy.i0 has no derivative rule here; ...
    """


class NotTraceable(PararnnError, TypeError):
    """``step`` does what a trace cannot follow, so it is not compiled; the message says what.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> step = lambda h, x, _: np.sort(h)
    >>> prs.solve(step, np.ones((4, 2)), np.ones(2), compiled=True)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    pararnn_solvers.errors.NotTraceable: step calls numpy.sort, which has no rule for ...
    """


class BackendUnavailable(PararnnError, RuntimeError):
    """A backend named explicitly cannot run here; the message says why and what to install.

    Examples
    --------
    >>> issubclass(BackendUnavailable, PararnnError)
    True
    """


class InsufficientMemory(PararnnError, MemoryError):
    """The arrays of a solve would not fit; raised before anything is allocated.

    Examples
    --------
    >>> issubclass(InsufficientMemory, PararnnError)
    True
    """


class ConvergenceError(PararnnError, ArithmeticError):
    """Some sequence did not converge.

    Attributes
    ----------
    solution : Solution
        What was reached: states, statuses and the residual history.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> p = prs.problems.logistic_map(3.9)
    >>> try: prs.solve(*p[:4], steps=p.steps, method='newton', max_iter=3)
    ... except prs.ConvergenceError as error: print(error.solution.status.name)
    DIVERGED
    """

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution

    def __reduce__(self) -> tuple[type[ConvergenceError], tuple[str, Solution]]:
        return type(self), (str(self), self.solution)


class ConvergenceWarning(UserWarning):
    """What ``on_failure="warn"`` emits in place of a :class:`ConvergenceError`.

    Examples
    --------
    >>> issubclass(ConvergenceWarning, UserWarning)
    True
    """
