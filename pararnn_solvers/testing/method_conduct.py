"""Checks of how a method ends: stopped by the callback, or without a solution."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers.errors import ConvergenceError, ConvergenceWarning
from pararnn_solvers.solvers.stopping import Status
from pararnn_solvers.testing.method_problems import (
    Problem,
    Subject,
    dense,
    far_guess,
    require_rollout,
    told,
)
from pararnn_solvers.testing.results import CheckFailed, Inapplicable
from pararnn_solvers.typing import Array


def callback_sees_iterates_and_can_stop(subject: Subject) -> None:
    """The callback is given every iterate, may stop the solve, and its errors pass through.

    Proves: State.n_iter counts from 0 to n_iter (kernels may call once, at the end), the last
    State has the residual of what is returned; StopIteration at the first call gives STOPPED for
    what is not solved, without iterating further; a KeyError comes out.

    Costs: 3 solves for each dtype.

    A failure means: observe is not called, not for the guess, or StopIteration is taken for the end
    of a loop.
    """
    for dtype in subject.dtypes:
        problem = dense(20, (2,), 3, dtype)
        options = {"guess": far_guess(problem)}
        seen: list[tuple[int, Array]] = []
        solution = subject.attempt(
            problem,
            callback=lambda s, seen=seen: seen.append((s.n_iter, np.array(s.residual_norm))),
            **options,
        )
        numbers = [n for n, _ in seen]
        if len(seen) != 1 and numbers != list(range(solution.n_iter + 1)):
            raise CheckFailed(
                "the callback is called for the guess and after each iteration: n_iter = 0, 1, ...",
                f"it was called for {numbers} ({told(solution)})",
                "call observe(State(n_iter, h, residual_norm, converged_steps)) each time",
            )
        if not np.array_equal(seen[-1][1], solution.residual_norms[-1]):
            raise CheckFailed(
                "the last State has the residual of what is returned",
                f"{seen[-1][1]}, residual_norms[-1] is {solution.residual_norms[-1]}",
                "call observe after the states and their residual are known",
            )
        require_stopped(subject, problem, options)
        require_passed_on(subject, problem, options)


def require_stopped(subject: Subject, problem: Problem, options: dict[str, Any]) -> None:
    """Raise CheckFailed unless StopIteration ends the solve as STOPPED."""

    def stop(state: Any) -> None:
        raise StopIteration

    try:
        solution = subject.attempt(problem, callback=stop, **options)
        seen = f"{solution.status.name} after n_iter={solution.n_iter}"
        good = solution.status is Status.STOPPED and solution.n_iter == 0
        done = solution.status is Status.SEQUENTIAL or subject.options.get("compiled")
    except Exception as error:
        good, done, seen = False, False, f"{type(error).__name__}: {error}"
    if not (good or (done and solution.success)):
        raise CheckFailed(
            "StopIteration from the callback gives STOPPED, at once and without an error",
            seen,
            "catch StopIteration around observe, and return what was reached as STOPPED",
        )


def require_passed_on(subject: Subject, problem: Problem, options: dict[str, Any]) -> None:
    """Raise CheckFailed unless other errors of the callback come out."""

    def fail(state: Any) -> None:
        raise KeyError("of the callback")

    try:
        solution = subject.attempt(problem, callback=fail, **options)
    except KeyError:
        return
    raise CheckFailed(
        "errors of the callback pass through",
        f"a KeyError did not: {told(solution)}",
        "catch StopIteration only",
    )


def failures_are_reported_as_asked(subject: Subject) -> None:
    """What is not solved raises, warns or is finished step by step, as on_failure says.

    Proves: with max_iter=0 from a bad guess, a ConvergenceError carries the partial solution; a
    ConvergenceWarning comes once; and "sequential" returns the rollout.

    Costs: 3 solves for each dtype.

    A failure means: the method raises or warns itself, returns no statuses, or states that cannot
    be written to.
    """
    for dtype in subject.dtypes:
        problem = dense(20, (2,), 3, dtype)
        options = {"guess": far_guess(problem), "max_iter": 0}
        try:
            solution = subject.solve(problem, **options)
            if solution.success:
                raise Inapplicable(f"never fails here: {told(solution)}")
            seen = f"{solution.status.name}, and no error"
        except ConvergenceError as error:
            seen = "" if error.solution.h.shape == far_guess(problem).shape else "another shape"
        except Inapplicable:
            raise
        except Exception as error:
            seen = f"{type(error).__name__}: {error}"
        remedy = "return a Solution with a status for each sequence; leave the rest to prs.solve"
        if seen:
            raise CheckFailed("a failure raises ConvergenceError with its solution", seen, remedy)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            subject.attempt(problem, on_failure="warn", **options)
        kinds = [warning.category.__name__ for warning in caught]
        if kinds != [ConvergenceWarning.__name__]:
            raise CheckFailed("a failure warns once, of ConvergenceWarning", f"{kinds}", remedy)
        solution = subject.attempt(problem, on_failure="sequential", **options)
        require_rollout(problem, solution, "return states that are yours alone, and writable")


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    check.__name__: check
    for check in (
        callback_sees_iterates_and_can_stop,
        failures_are_reported_as_asked,
    )
}
