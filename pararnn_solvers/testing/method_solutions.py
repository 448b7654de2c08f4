"""Checks of a method's solutions: states, how many iterations they take, gradients."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pararnn_solvers.sensitivities import gradients
from pararnn_solvers.solvers.guess import repeat_h0
from pararnn_solvers.testing.context import number
from pararnn_solvers.testing.method_problems import (
    Problem,
    Subject,
    contractive,
    dense,
    expansive,
    far_guess,
    gated_linear,
    require_rollout,
    require_solved,
    require_success,
    told,
)
from pararnn_solvers.testing.results import CheckFailed, Inapplicable
from pararnn_solvers.typing import Array

LENGTHS = (1, 2, 3, 17, 33)


def solution_is_the_rollout(subject: Subject) -> None:
    """The states are those computed step by step, as near as the tolerance implies.

    Proves: for 5 lengths from 1 to 33 and 4 structures (diagonal, blocks of 2, dense, without x)
    of Lipschitz constant 0.8, every sequence is solved and every state is within
    ``e_t = 0.8 e_{t-1} + tolerance + rounding`` of the rollout.

    Costs: 20 solves for each dtype.

    A failure means: the first step that is wrong tells. Step 0: h0 or the first drive is left out;
    the end of a chunk or of a window: its boundary.
    """
    remedy = (
        "see at which step it begins: the first one (h0, the first drive), the boundary of a "
        "chunk, the last step of a window; a CONVERGED told too early has a check of its own"
    )
    for T in LENGTHS:
        for dtype in subject.dtypes:
            for problem in (
                contractive(T, (2,), dtype=dtype),
                contractive(T, (), 2, 2, dtype),
                dense(T, (3,), 3, dtype),
                contractive(T, (1,), n=1, dtype=dtype, driven=False),
            ):
                solution = subject.attempt(problem)
                require_solved(problem, solution, remedy)
                require_rollout(problem, solution, remedy)


def problems_without_entries_are_solved(subject: Subject) -> None:
    """No steps, or no sequences: the result is empty, and no error.

    Proves: so for T = 0 with and without a batch, for a batch axis of 0, and for both.

    Costs: 4 solves for each dtype.

    A failure means: a maximum over nothing, a first step that is not there, or a division by a
    size.
    """
    for dtype in subject.dtypes:
        for T, batch in ((0, ()), (0, (2,)), (5, (0,)), (0, (0,))):
            problem = contractive(T, batch, dtype=dtype)
            expected = (T, *batch, 3)
            try:
                solution = subject.solve(problem)
                seen = f"h {solution.h.shape}, {solution.status.name}"
                good = solution.success and solution.h.shape == expected
            except Exception as error:
                good, seen = False, f"{type(error).__name__}: {error}"
            if not good:
                raise CheckFailed(
                    f"a trajectory of shape {expected} is solved by returning it",
                    seen,
                    "return an empty trajectory, CONVERGED, if system.shape has a 0",
                )


def full_steps_make_the_prefix_exact(subject: Subject) -> None:
    """After i iterations with full steps the first i states are those of the rollout.

    Proves: so for i from 1 to 8 on an expansive recurrence, from a guess that is far off, for 2
    sequences.

    Costs: 8 solves for each dtype.

    A failure means: a step that is not full, an update of the first state from the guess, or blocks
    of another step. Relaxation, line searches and Levenberg-Marquardt do not promise it.
    """
    if subject.no_full_steps:
        raise Inapplicable(subject.no_full_steps)
    for dtype in subject.dtypes:
        problem = expansive(8, (2,), dtype)
        for i in range(1, 9):
            solution = subject.attempt(problem, guess=far_guess(problem), max_iter=i)
            require_rollout(
                problem,
                solution,
                "h_1 = f(h_0, x_1) after one full step, whatever A is, then one state more in each "
                "iteration; if the method does not take full steps, say full_steps=False",
                steps=min(i, solution.n_iter),
            )


def full_steps_need_at_most_T_iterations(subject: Subject) -> None:  # noqa: N802
    """With full steps the trajectory is solved in at most T iterations, from any guess.

    Proves: so for T = 12 on an expansive recurrence and on a dense contractive one.

    Costs: 2 solves for each dtype.

    A failure means: the exact prefix is given up again, or iterations are made that change nothing.
    """
    if subject.no_full_steps:
        raise Inapplicable(subject.no_full_steps)
    for dtype in subject.dtypes:
        for problem in (expansive(12, (2,), dtype), dense(12, (), 3, dtype)):
            solution = subject.attempt(problem, guess=far_guess(problem), max_iter=12)
            if not solution.success or solution.n_iter > 12:
                raise CheckFailed(
                    "with full steps at most T iterations are needed",
                    told(solution),
                    "keep the states that are exact already; if the method does not take full "
                    "steps, say full_steps=False",
                )


def linear_recurrences_take_one_iteration(subject: Subject) -> None:
    """Newton's method solves a linear recurrence in one iteration.

    Proves: so for 17 steps of blocks of 1 and of 2, from a guess that is far off (with a window:
    in one for each window).

    Costs: 2 solves for each dtype.

    A failure means: A is not the derivative of the step (that of another state, or another step's),
    or the step is not full.
    """
    if subject.no_newton:
        raise Inapplicable(subject.no_newton)
    for dtype in subject.dtypes:
        for k in (1, 2):
            problem = contractive(17, (2,), k, 2, dtype, step=gated_linear)
            solution = subject.attempt(problem, guess=far_guess(problem))
            if not solution.success or solution.n_iter > subject.windows(17):
                raise CheckFailed(
                    "Newton's method takes one iteration where f is linear",
                    f"k={k}, {told(solution)}",
                    "solve (I - S A) delta = -F with the exact A_t = df/dh at (h_{t-1}, x_t); if "
                    "this is not Newton's method, say newton=False",
                )
            require_rollout(problem, solution, "solve (I - S A) delta = -F(h), and add delta")


def every_kind_of_guess_is_taken(subject: Subject) -> None:
    """A guess may be None, a name, a function of the system, or an array of any layout.

    Proves: the rollout is found from each of these; the array is read-only and in Fortran's order.

    Costs: 4 solves for each dtype.

    A failure means: the method takes arrays only, or writes into the guess; use
    ``pararnn_solvers.solvers.guess.resolve``.
    """
    remedy = (
        "h = pararnn_solvers.solvers.guess.resolve(guess, system) takes all of them, and copies"
    )
    for dtype in subject.dtypes:
        problem = contractive(12, (2,), dtype=dtype)
        array = np.asfortranarray(far_guess(problem))
        array.flags.writeable = False
        for guess in (None, "zeros", repeat_h0, array):
            kind = getattr(guess, "__name__", None) or type(guess).__name__
            try:
                solution = subject.attempt(problem, guess=guess)
            except Exception as error:
                raise CheckFailed(
                    "every kind of guess is taken",
                    f"{type(error).__name__} for a guess that is {kind}: {error}",
                    remedy,
                ) from error
            require_success(solution, f"the problem is solved from a guess that is {kind}", remedy)
            require_rollout(problem, solution, remedy)


def gradients_are_those_of_the_rollout(subject: Subject) -> None:
    """Gradients of a loss of the solution are the derivatives of the rollout.

    Proves: along random directions of h0, x and theta, ``gradients`` of ``sum(w * h)`` equals the
    derivative of a float64 rollout by complex step, to half of the digits of the dtype.

    Costs: 2 solves for each dtype.

    A failure means: the returned states are one iterate old, or the scan that is returned with them
    cannot solve the adjoint.
    """
    for dtype in subject.dtypes:
        for problem in (contractive(12, (2,), 2, 2, dtype), contractive(12, (), dtype=dtype)):
            solution = subject.attempt(problem)
            require_success(solution, "a contractive recurrence is solved", "see the other checks")
            rng = np.random.default_rng(5)
            w = rng.standard_normal(solution.h.shape)
            found = gradients(solution, w.astype(dtype))
            for name, gradient in zip(("theta", "x", "h0"), found, strict=True):
                v = rng.standard_normal(np.shape(gradient))
                product = float(np.vdot(np.asarray(gradient, np.float64), v))
                expected = slope(problem, name, v, w)
                size = float(np.linalg.norm(gradient) * np.linalg.norm(v)) + abs(expected)
                if abs(product - expected) > float(np.finfo(dtype).eps) ** 0.5 * size:
                    raise CheckFailed(
                        f"the gradient by {name} of sum(w * h) is that of the rollout",
                        f"along a random direction {number(product)}, the rollout "
                        f"{number(expected)} ({told(solution)})",
                        "return the last iterate, and with it the scan that was given",
                    )


def slope(problem: Problem, name: str, v: Array, w: Array) -> float:
    """Return d/de of ``sum(w * rollout)`` for a change ``e v`` of theta, x or h0, in float64."""
    assert problem.x is not None
    values = {"theta": problem.theta, "x": problem.x, "h0": problem.h0}
    moved = {key: np.asarray(value, complex) for key, value in values.items()}
    moved[name] = moved[name] + 1e-30j * v
    h, total = moved["h0"], 0j
    for t in range(len(w)):
        h = problem.recurrence.step(h, moved["x"][t], moved["theta"])
        total += np.sum(w[t] * h)
    return float(total.imag / 1e-30)


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    check.__name__: check
    for check in (
        solution_is_the_rollout,
        problems_without_entries_are_solved,
        full_steps_make_the_prefix_exact,
        full_steps_need_at_most_T_iterations,
        linear_recurrences_take_one_iteration,
        every_kind_of_guess_is_taken,
        gradients_are_those_of_the_rollout,
    )
}
