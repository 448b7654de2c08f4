"""Checks of what a method says of its solutions: statuses, residual norms, iterations."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status, max_norm
from pararnn_solvers.testing.context import number
from pararnn_solvers.testing.method_problems import (
    Problem,
    Subject,
    contractive,
    dense,
    far_guess,
    require_rollout,
    rounding,
    told,
)
from pararnn_solvers.testing.results import CheckFailed, Inapplicable
from pararnn_solvers.typing import Array

OF_THESE_STATES = (
    "compare the residual h - f(h_prev, x) of exactly these states, at every step and in the "
    "maximum norm; not the update, not a mean, not the residual of the iterate before"
)


def converged_states_meet_the_tolerance(subject: Subject) -> None:
    """CONVERGED is told of states that are returned, if and only if their residual is small.

    Proves: with tolerances just below and just above the residual of each of the first 6 iterates,
    the residual recomputed from the returned states meets the tolerance where the status is
    CONVERGED, and does not where it is MAX_ITER; and with rtol alone, where states are small.

    Costs: 24 solves for each dtype.

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
        require_relative(subject, scaled(problem, 0.05))


def scaled(problem: Problem, factor: float) -> Problem:
    """Return the problem with smaller states."""
    assert problem.x is not None
    dtype = problem.h0.dtype
    return problem._replace(x=dtype.type(factor) * problem.x, h0=dtype.type(factor) * problem.h0)


def require_relative(subject: Subject, problem: Problem) -> None:
    """Raise CheckFailed if rtol is not relative to each state, where all are far below 1."""
    guess = (0.05 * far_guess(problem)).astype(problem.h0.dtype)
    for i in range(3):
        h = subject.attempt(problem, guess=guess, max_iter=i, atol=0, rtol=0).h
        residual, size = problem.residual(h), max_norm(h)
        t = int(np.argmax(residual / size))
        if not 8 * rounding(h) < residual[t] < np.inf:
            continue
        rtol = 0.6 * float(residual[t] / size[t])
        solution = subject.attempt(problem, guess=guess, max_iter=i, atol=0, rtol=rtol)
        if solution.success and solution.n_iter == i:
            raise CheckFailed(
                "with atol=0 a CONVERGED sequence has |F_t| <= rtol |h_t| at every step",
                f"CONVERGED, and |F| is {number(residual[t])} at step {t} where |h| is "
                f"{number(size[t])} and rtol {number(rtol)} ({told(solution)})",
                "compare |F_t| with stopping.tolerance(h), step by step",
                "rtol is not relative to the states (atol and rtol exchanged?)",
            )


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
                    "start from the guess that is given, compute its residual, and stop if it is "
                    "small",
                )
            require_rollout(problem, solution, "return the guess where it meets the tolerance")


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    check.__name__: check
    for check in (
        converged_states_meet_the_tolerance,
        each_sequence_is_judged_alone,
        residual_norms_are_those_of_the_iterates,
        max_iter_is_obeyed,
        a_solved_guess_takes_no_iteration,
    )
}
