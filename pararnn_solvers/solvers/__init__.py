"""Nonlinear solvers: Newton's method for whole trajectories and what follows from it.

A method is a value with ``solve``, as :class:`Method` says; :data:`METHODS` names the constructor
of each.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from pararnn_solvers.errors import InvalidInput

if TYPE_CHECKING:
    from pararnn_solvers.linear import Scan
    from pararnn_solvers.solvers.solution import Solution
    from pararnn_solvers.solvers.stopping import Stopping
    from pararnn_solvers.solvers.unsolved import State
    from pararnn_solvers.system import System

_MODULE = "pararnn_solvers.solvers.methods"
METHODS: dict[str, str] = {
    "auto": "pararnn_solvers.solvers.auto:auto",
    "newton": f"{_MODULE}:newton",
    "damped_newton": f"{_MODULE}:damped_newton",
    "levenberg_marquardt": f"{_MODULE}:levenberg_marquardt",
    "relaxation": f"{_MODULE}:relaxation",
    "quasi_newton": f"{_MODULE}:quasi_newton",
    "chord": f"{_MODULE}:chord",
    "broyden": f"{_MODULE}:broyden",
    "picard": f"{_MODULE}:picard",
    "jacobi": f"{_MODULE}:jacobi",
    "anderson": f"{_MODULE}:anderson",
    "windowed": f"{_MODULE}:windowed",
    "sequential": "pararnn_solvers.solvers.sequential:sequential",
}
"""Name of every method -> ``"module:constructor"``, imported on first use."""


class Method(Protocol):
    """What every method is: a value that solves ``F(h) = 0`` for all steps at once.

    ``str(method)`` is what ``Solution.method`` says. `solve` keeps nothing in the method: it is
    called from several threads. ``testing.check_method`` checks all that is said here.
    """

    def solve(
        self,
        system: System,
        guess: Any,
        scan: Scan,
        stopping: Stopping,
        observe: Callable[[State], None] | None = None,
    ) -> Solution:
        """Return a trajectory and how each of its sequences ended.

        Parameters
        ----------
        system : System
            With one batch axis: trajectories have the shape ``system.shape``, (T, batch, d), any of
            which but d may be 0. ``system.residual(h)``, ``evaluate``, ``linearize`` and ``part``
            call the recurrence; what they evaluate is counted.
        guess : array (T, batch, d), callable, str or None
            ``guess.resolve(guess, system)`` makes an array of it, which may be written to.
        scan : callable
            Solves linear recurrences: ``BlockBidiagonal(blocks).solve(rhs, scan)``.
        stopping : Stopping
            A sequence is solved where ``|F_t| <= stopping.tolerance(h)`` at every step, whatever
            the others do; at most ``stopping.max_iter`` iterations.
        observe : callable, optional
            To be called with a :class:`State` for the guess and after each iteration. Where it
            raises StopIteration, what is not solved is ``Status.STOPPED``.

        Returns
        -------
        Solution
            With `h`, a ``Status`` for each sequence, and `residual_norms` of shape
            ``(n_iter + 1, batch)``: the greatest residual of the guess, of each iterate, and last
            of `h`. A method raises nothing where it does not converge: ``solve`` does what
            ``on_failure`` says.
        """
        ...


def load(method: Any) -> Any:
    """Return the method that a name, a constructor or a method stands for.

    Raises
    ------
    InvalidInput
        For an unknown name, or a value that cannot solve a system.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise InvalidInput(f"method is {method!r}; expected one of {list(METHODS)}")
        module, _, name = METHODS[method].partition(":")
        method = getattr(importlib.import_module(module), name)
    if callable(method):
        try:
            method = method()
        except TypeError as error:
            name = getattr(method, "__name__", method)
            raise InvalidInput(f"method {name} needs arguments: {error}") from None
    if not hasattr(method, "solve"):
        raise InvalidInput(
            f"method is {method!r}; expected a name out of {list(METHODS)} or a value such as "
            "newton() or Newton(...)"
        )
    return method


def reads_drives(method: Any) -> bool:
    """Tell whether the kernels of a method notice, as they read x, what is not finite in it."""
    from pararnn_solvers.solvers.auto import Auto
    from pararnn_solvers.solvers.newton import Newton
    from pararnn_solvers.solvers.sequential import Sequential

    if isinstance(method, Newton):
        return method.chunk > 1 and method.is_plain and method.window is None
    return isinstance(method, (Auto, Sequential))
