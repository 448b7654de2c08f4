"""Solve nonlinear recurrences in parallel: ``h_t = f(h_{t-1}, x_t; theta)`` for all t at once.

The trajectory is the solution of one system of equations, found by Newton's method and its
relatives; each iteration is one evaluation of f at all steps and one linear recurrence.

Names are imported from their modules on first use, so that importing the package is quick.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "api": ["rollout", "solve"],
    "comparison": ["Comparison", "compare"],
    "sensitivities": ["Gradients", "gradients", "jvp"],
    "errors": [
        "BackendUnavailable",
        "ConvergenceError",
        "ConvergenceWarning",
        "InsufficientMemory",
        "InvalidInput",
        "NotDifferentiable",
        "NotTraceable",
        "PararnnError",
    ],
    "functions": ["gelu", "sigmoid", "silu", "softplus"],
    "linear.threads": ["num_threads", "set_num_threads"],
    "out_of_core": ["Stored", "solve_to"],
    "ranks": ["Communication"],
    "recurrence": ["Recurrence"],
    "solvers.auto": ["auto"],
    "solvers.guess": ["from_zero", "jacobi_sweeps", "picard_sweeps", "repeat_h0"],
    "solvers.linearization": [
        "block_diagonal",
        "clipped",
        "diagonal",
        "exact",
        "frozen",
        "hutchinson",
        "identity",
        "scaled",
        "secant",
        "zero",
    ],
    "solvers.methods": [
        "anderson",
        "broyden",
        "chord",
        "damped_newton",
        "jacobi",
        "levenberg_marquardt",
        "newton",
        "picard",
        "quasi_newton",
        "relaxation",
        "windowed",
    ],
    "solvers.newton": ["Newton"],
    "solvers.sequential": ["sequential"],
    "solvers.solution": ["Solution"],
    "solvers.step_length": ["anderson_mixing", "backtracking", "full_step", "relaxed"],
    "solvers.stopping": ["Status", "Stopping"],
    "solvers.trust_region": ["trust_region"],
    "solvers.unsolved": ["State"],
    "sequences": ["reversed_within"],
    "stepping": ["stepper"],
    "streaming": ["stream"],
    "system": ["System"],
}
_SUBPACKAGES = ["cells", "diagnostics", "plotting", "problems", "testing"]
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
