"""What is compared: a method with a backend on the problem, called and looked at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import api, arrays, solvers
from pararnn_solvers.comparison.row import Row
from pararnn_solvers.errors import (
    BackendUnavailable,
    ConvergenceError,
    InsufficientMemory,
    InvalidInput,
    NotDifferentiable,
    NotTraceable,
)
from pararnn_solvers.measure import stopwatch
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.typing import Array

NOT_APPLICABLE, FAILED = "NOT APPLICABLE", "FAILED"
"""What rows without a solution have as their status."""
REFUSALS = (BackendUnavailable, InsufficientMemory, InvalidInput, NotDifferentiable, NotTraceable)
"""How ``solve`` says, before the first iteration, that a method cannot be applied."""


class Entrant(NamedTuple):
    """A method and a backend, by what they are called, and their solve."""

    method: str
    backend: str
    solve: Callable[[], Solution]


def line_up(
    problem: Sequence[Any],
    methods: Sequence[Any],
    backends: Sequence[Any],
    options: Mapping[str, Any],
) -> list[Entrant]:
    """Return the rollout, which needs no backend, and each method with each backend.

    Raises
    ------
    InvalidInput
        For what is no method.
    """
    rollout = partial(attempt, problem, {**options, "method": "sequential"})
    field = [Entrant("sequential()", "", rollout)]
    for method in methods:
        loaded = solvers.load(method)
        name = f"{method}()" if isinstance(method, str) else str(loaded)
        if name == "sequential()":
            continue
        for backend in backends:
            solve = partial(attempt, problem, {**options, "method": loaded, "backend": backend})
            called = backend if isinstance(backend, str) else api.load_backend(backend)[0]
            field.append(Entrant(name, called, solve))
    return field


def attempt(problem: Sequence[Any], options: Mapping[str, Any]) -> Solution:
    """Return the solution, converged or not, once a device has finished it."""
    try:
        solution = api.solve(*problem, **options)
    except ConvergenceError as error:
        solution = error.solution
    arrays.on_host(solution.h[-1:])
    return solution


def examine(entrant: Entrant, truth: Array | None) -> tuple[Row, Array]:
    """Return the row of an entrant, without times of turns and memory, and its states.

    Parameters
    ----------
    truth : array, optional
        What the states are compared with; None for the rollout.
    """
    seconds, solution = stopwatch(entrant.solve)
    h = arrays.on_host(solution.h)
    T, *batch, _ = h.shape
    norms = solution.residual_norms.reshape(solution.n_iter + 1, -1).max(axis=1, initial=0)
    row = Row(
        method=entrant.method,
        backend=entrant.backend and solution.backend,
        status=solution.status.name,
        note=solution.note if solution.success else solution.message,
        iterations=solution.n_iter,
        evaluations=solution.n_step_evaluations / max(1, T * math.prod(batch)),
        first_call=seconds,
        error=distance(h, h if truth is None else truth),
        residual=float(norms[-1]),
        compiled=solution.compiled,
        residual_norms=tuple(map(float, norms)),
    )
    return row, solution.h


def admit(entrant: Entrant, truth: Array) -> Row:
    """Return the row of an entrant, or one that says why there is no solution."""
    try:
        return examine(entrant, truth)[0]
    except REFUSALS as error:
        status, why = NOT_APPLICABLE, str(error)
    except Exception as error:  # the others must not suffer from it
        status, why = FAILED, f"{type(error).__name__}: {error}"
    return Row(entrant.method, entrant.backend, status, " ".join(why.split()))


def distance(h: Array, truth: Array) -> float | None:
    """Return the greatest difference (maximum norm), infinite where states are not finite.

    None if the truth is not finite itself.
    """
    if not np.isfinite(truth).all():
        return None
    with np.errstate(all="ignore"):
        difference = np.max(np.abs(h - truth), initial=0)
    return float(difference) if np.isfinite(difference) else np.inf
