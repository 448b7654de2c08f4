"""Nonlinear solvers: Newton's method for whole trajectories and what follows from it.

A method is a value with ``solve(system, guess, scan, stopping, observe) -> Solution``;
:data:`METHODS` names the constructor of each.
"""

from __future__ import annotations

import importlib
from typing import Any

from pararnn_solvers.errors import InvalidInput

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
