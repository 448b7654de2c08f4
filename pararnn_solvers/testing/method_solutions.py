"""Checks of a method's solutions: states, statuses, iterations, gradients."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers.sensitivities import gradients
from pararnn_solvers.solvers.guess import repeat_h0
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status
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
    require_success,
    rounding,
    told,
)
from pararnn_solvers.testing.results import CheckFailed, Inapplicable
from pararnn_solvers.typing import Array

OF_THESE_STATES = (
    "compare the residual h - f(h_prev, x) of exactly these states, at every step and in the "
    "maximum norm; not the update, not a mean, not the residual of the iterate before"
)
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
                require_success(solution, "a contractive recurrence is solved", remedy)
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


def converged_states_meet_the_tolerance(subject: Subject) -> None:
    """CONVERGED is told of states that are returned, if and only if their residual is small.

    Proves: with tolerances just below and just above the residual of each of the first 6 iterates,
    the residual recomputed from the returned states meets the tolerance where the status is
    CONVERGED, and does not where it is MAX_ITER.

    Costs: 18 solves for each dtype.

    A failure means: the tolerance is compared with the update, with the residual of another iterate
    or of another norm; or the states that are returned are not those that were judged.
    """
    for dtype in subject.dtypes:
        problem = dense(20, (), 4, dtype)
        guess = far_guess(problem)
        residuals = [residual_after(subject, problem, i, guess) for i in range(6)]
        for factor in (0.6, 1.5):
            for i, residual in enumerate(residuals):
                atol = factor * residual
                solution = subject.attempt(problem, guess=guess, max_iter=i, atol=atol, rtol=0)
                require_honest(problem, solution, atol)


def residual_after(
    subject: Subject, problem: Problem, iterations: int, guess: Array, sequence: Any = ()
) -> float:
    """Return the residual of a sequence after so many iterations; 1 if that is not finite."""
    h = subject.attempt(problem, guess=guess, max_iter=iterations, atol=0, rtol=0).h
    residual = float(np.max(problem.residual(h)[(slice(None), *sequence)]))
    return residual if np.isfinite(residual) else 1.0


def require_honest(
    problem: Problem, solution: Solution, atol: float, remedy: str = OF_THESE_STATES
) -> None:
    """Raise CheckFailed if a status says of the returned states what their residual does not."""
    residual = problem.residual(solution.h)
    largest = residual.max(axis=0).reshape(-1)
    slack = rounding(solution.h)
    for b, status in enumerate(solution.sequence_status.reshape(-1)):
        t = int(np.argmax(residual.reshape(len(residual), -1)[:, b]))
        seen = (
            f"sequence {b} is {status.name}, and |F| is {number(largest[b])} at step {t} where the "
            f"tolerance is {number(atol)} ({told(solution)})"
        )
        if status is Status.CONVERGED and not largest[b] <= atol + slack:
            raise CheckFailed(
                "a CONVERGED sequence has |F_t| <= atol + rtol |h_t| at every step of the states "
                "that are returned",
                seen,
                remedy,
            )
        if status is Status.MAX_ITER and largest[b] < atol - slack:
            raise CheckFailed(
                "a sequence whose returned states meet the tolerance is CONVERGED",
                seen,
                "judge the last iterate, too, before you give up",
            )


def each_sequence_is_judged_alone(subject: Subject) -> None:
    """A sequence is CONVERGED when its own residual is small, whatever the others do.

    Proves: of 4 sequences 3 are given their solution as guess. With tolerances that the fourth
    just misses after 0 to 4 iterations, it is not CONVERGED while it misses, and the 3 are.

    Costs: 10 solves for each dtype.

    A failure means: a mean, a sum or a Euclidean norm over the batch is compared with the
    tolerance, or one status is given to all.
    """
    for dtype in subject.dtypes:
        problem = dense(12, (4,), 3, dtype)
        expected = problem.rollout
        guess = expected.copy()
        guess[:, 2] = far_guess(problem)[:, 2]
        for i in range(5):
            residual = residual_after(subject, problem, i, guess, (2,))
            atol = max(0.6 * residual, 4 * rounding(expected))
            solution = subject.attempt(problem, guess=guess, max_iter=i, atol=atol, rtol=0)
            statuses = [status.name for status in solution.sequence_status]
            if not all(status.success for status in np.delete(solution.sequence_status, 2)):
                raise CheckFailed(
                    "a sequence that starts at its solution is solved, whatever the others do",
                    f"statuses {statuses}, where only sequence 2 is not solved by its guess "
                    f"({told(solution)})",
                    "keep a status for each sequence, and judge each by its own residual",
                )
            require_honest(
                problem,
                solution,
                atol,
                "judge each sequence by its own residual: no mean, sum or norm over the batch",
            )


def residual_norms_are_those_of_the_iterates(subject: Subject) -> None:
    """Each row of residual_norms is the residual of one iterate, from the guess to the end.

    Proves: the last row is the residual of the returned states, each other row that of the states
    that the callback was given with its number (with a window: at most that; with multiple
    shooting, whose callback is given fewer states, only the last).

    Costs: 1 solve for each dtype.

    A failure means: a row too few or too many, norms of updates, or norms told before the states
    changed once more.
    """
    for dtype in subject.dtypes:
        problem = contractive(20, (3,), 2, 2, dtype)
        seen: dict[int, Array] = {}

        def record(state: Any, seen: dict[int, Array] = seen) -> None:
            seen[state.n_iter] = np.array(state.h)

        solution = subject.attempt(problem, guess=far_guess(problem), callback=record)
        whole = {i: h for i, h in seen.items() if h.shape == solution.h.shape}
        for i, h in {**whole, solution.n_iter: solution.h}.items():
            norms = solution.residual_norms[i : i + 1]
            expected = problem.residual(h).max(axis=0)
            off = norms - expected
            if subject.window is not None and i < solution.n_iter:
                off = np.maximum(off, 0)  # steps that are not open yet do not count
            if not (len(norms) and np.all(np.abs(off) <= 4 * rounding(h))):
                raise CheckFailed(
                    "residual_norms[i] is max_t |F_t| of iterate i, from the guess to the end",
                    f"row {i} is {', '.join(map(number, norms.ravel())) or 'missing'}; of the "
                    f"states of that iterate |F| is {', '.join(map(number, expected))} "
                    f"({told(solution)})",
                    "append the residual of the guess, and after each iteration that of the states "
                    "it leads to",
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


def max_iter_is_obeyed(subject: Subject) -> None:
    """No more than max_iter iterations are made, and MAX_ITER says that they were not enough.

    Proves: with tolerance 0 and max_iter from 0 to 3, n_iter is at most max_iter, and equal to it
    where the status is MAX_ITER; no status promises more than the states keep.

    Costs: 4 solves for each dtype.

    A failure means: an iteration too many, a count from 1, or CONVERGED where the iterations ran
    out.
    """
    if subject.window is not None:
        raise Inapplicable("with a moving window max_iter counts since it last moved")
    for dtype in subject.dtypes:
        problem = dense(24, (), 3, dtype)
        for limit in range(4):
            solution = subject.attempt(
                problem, guess=far_guess(problem), max_iter=limit, atol=0, rtol=0
            )
            n_iter = solution.n_iter
            if n_iter > limit or (solution.status is Status.MAX_ITER and n_iter != limit):
                raise CheckFailed(
                    "n_iter <= max_iter, and equal where the status is MAX_ITER",
                    f"n_iter is {n_iter} for max_iter={limit} ({told(solution)})",
                    "stop when as many iterations were made; residual_norms has one row more",
                )
            require_honest(problem, solution, 0.0)


def a_solved_guess_takes_no_iteration(subject: Subject) -> None:
    """The solution as guess is returned, CONVERGED, after 0 iterations.

    Proves: so for 12 steps of a dense problem and one of blocks (with a window: one for each time
    that it moves).

    Costs: 2 solves for each dtype.

    A failure means: the guess is not judged before the first iteration, or not used.
    """
    for dtype in subject.dtypes:
        moves = subject.windows(12) - 1
        for problem in (dense(12, (), 3, dtype), contractive(12, (2,), 2, 2, dtype)):
            solution = subject.attempt(problem, guess=problem.rollout)
            if not solution.success or solution.n_iter > moves:
                raise CheckFailed(
                    "a guess that meets the tolerance is returned without an iteration",
                    told(solution),
                    "compute the residual of the guess, and stop if it is small",
                )
            require_rollout(problem, solution, "return the guess where it meets the tolerance")


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
        converged_states_meet_the_tolerance,
        each_sequence_is_judged_alone,
        residual_norms_are_those_of_the_iterates,
        full_steps_make_the_prefix_exact,
        full_steps_need_at_most_T_iterations,
        linear_recurrences_take_one_iteration,
        max_iter_is_obeyed,
        a_solved_guess_takes_no_iteration,
        every_kind_of_guess_is_taken,
        gradients_are_those_of_the_rollout,
    )
}
