"""Checks that sequences of a batch do not meet: bad numbers, overflow, each one alone."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status
from pararnn_solvers.testing.method_problems import (
    MAX_ITER,
    Problem,
    Subject,
    allowed_error,
    dense,
    expansive,
    far_guess,
    require_nowhere,
    runaway,
    spiked,
    told,
)
from pararnn_solvers.testing.results import CheckFailed
from pararnn_solvers.typing import Array


def bad_numbers_stay_in_their_sequence(subject: Subject) -> None:
    """NaN of f at step t changes no state before t, and no other sequence.

    Proves: with a drive for which f is NaN at step 0, 5 or 19 of the second of 3 sequences, that
    sequence is DIVERGED and finite before that step; the others are CONVERGED at their rollout. NaN
    is there from the first evaluation on, before any sequence has converged.

    Costs: 3 solves for each dtype.

    A failure means: a mask by multiplication (0 * NaN is NaN), a norm over the whole batch, a loop
    that ends for all when one sequence is not finite, or NaN that passes for converged.
    """
    for dtype in subject.dtypes:
        for t in (0, 5, 19):
            rng = np.random.default_rng(t)
            x = rng.uniform(-1, 1, (20, 3, 2)).astype(dtype)
            x[t, 1] = np.finfo(dtype).max ** 0.75
            h0, a = rng.uniform(-1, 1, (3, 2)).astype(dtype), np.full(2, 0.5, dtype)
            problem = Problem(Recurrence(spiked, 1), x, h0, a, 20, 0.5)
            require_isolated(subject, problem, 1, t, {Status.DIVERGED})


def require_isolated(
    subject: Subject, problem: Problem, b: int, t: int, ends: set[Status], **options: Any
) -> None:
    """Raise CheckFailed unless sequence b, bad from step t on, ends so, and the others are solved.

    Their states are compared with their rollout.
    """
    solution = subject.attempt(problem, **options)
    names = [status.name for status in solution.sequence_status]
    what = f"f is not finite at step {t} of sequence {b}: statuses {names} ({told(solution)})"
    if solution.sequence_status[b] not in ends:
        raise CheckFailed(
            f"a sequence that is not finite is {' or '.join(sorted(s.name for s in ends))}",
            what,
            "judge by `norm <= tolerance`, which is false for NaN; a residual that is not finite "
            "ends the sequence as DIVERGED",
        )
    require_nowhere(
        ~np.isfinite(solution.h[:t, b]),
        solution.h[:t, b],
        problem.rollout[:t, b],
        "states before the bad number are finite",
        what,
        "nothing may go back in time: look for sums over all steps, and masks by multiplication",
    )
    for other in sorted({*range(len(names))} - {b}):
        if not solution.sequence_status[other].success:
            raise CheckFailed(
                "the other sequences are solved",
                what,
                "let each sequence leave the iteration on its own; take norms sequence by "
                "sequence, and select (np.where) instead of multiplying by a mask",
            )
        alone = problem.sequence(other)
        wrong = ~(np.abs(solution.h[:, other] - alone.rollout[:, 0]) <= allowed(alone))
        require_nowhere(
            wrong,
            solution.h[:, other],
            alone.rollout[:, 0],
            f"sequence {other} is its rollout, whatever happens in sequence {b}",
            what,
            "select (np.where) instead of multiplying by a mask: 0 * nan is nan",
        )


def allowed(problem: Problem) -> Array:
    """Return the allowed error of the only sequence of a problem, (T, 1)."""
    return allowed_error(problem, problem.rollout)[:, 0]


def overflow_ends_and_is_named(subject: Subject) -> None:
    """A recurrence that overflows ends the solve, is never called solved, and harms no other.

    Proves: for ``h^2 + x`` in a batch of 3, one sequence overflows in its first step (then it is
    DIVERGED), or later (then it is DIVERGED, STALLED or MAX_ITER); the others are solved. The solve
    ends within 100 calls of step for each iteration that max_iter allows, without NumPy's warnings.

    Costs: 2 solves for each dtype.

    A failure means: a comparison that NaN passes, a line search that never ends on NaN, infinite
    states taken for large ones that meet a relative tolerance, no np.errstate.
    """
    for dtype in subject.dtypes:
        for great, t in ((np.finfo(dtype).max ** 0.75, 0), (20.0, 4)):
            rng = np.random.default_rng(1)
            x = rng.uniform(-0.1, 0.1, (12, 3, 1)).astype(dtype)
            h0 = np.array([[0.1], [great], [-0.2]], dtype)
            step = counted(subject, runaway)
            problem = Problem(Recurrence(step, 1), x, h0, None, 12, 0.5)
            ends = {Status.DIVERGED}
            if t:
                ends |= {Status.STALLED, Status.MAX_ITER}
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)  # NumPy's
                require_isolated(subject, problem, 1, t, ends, max_iter=50)


def counted(subject: Subject, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step that fails when it is called without end."""
    calls = 0

    def step(h: Any, x: Any, theta: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 100 * 50:
            raise CheckFailed(
                "a solve ends",
                f"step was called {calls} times with max_iter=50, on a recurrence that overflows",
                "stop where the residual is not finite; a line search needs a least step",
            )
        return function(h, x, theta)

    return function if subject.options.get("compiled") else step


def batch_is_each_sequence_alone(subject: Subject) -> None:
    """A batch is solved as each of its sequences is solved alone.

    Proves: for 3 sequences whose guesses are near, far, and very far, the states after 2 iterations
    of an expansive recurrence (not with a window), and the solutions of a contractive one, agree to
    the tolerance with those alone, and so do statuses.

    Costs: 8 solves for each dtype.

    A failure means: a step length, a damping, a stopping rule or a random number is shared by the
    batch.
    """
    for dtype in subject.dtypes:
        cases = [(dense(18, (3,), 3, dtype), MAX_ITER)]
        if subject.window is None:
            cases.append((expansive(8, (3,), dtype), 2))
        for problem, limit in cases:
            far = np.array([0.01, 1, 30], dtype)[:, None]
            guess = problem.rollout + far * far_guess(problem)
            together = subject.attempt(problem, guess=guess, max_iter=limit)
            for b in range(3):
                one = guess[:, b : b + 1]
                alone = subject.attempt(problem.sequence(b), guess=one, max_iter=limit)
                require_alike(together, alone, problem, b)


def require_alike(together: Solution, alone: Solution, problem: Problem, b: int) -> None:
    """Raise CheckFailed unless sequence b ended as it does alone."""
    remedy = "give each sequence its own step length, damping, tolerance and random numbers"
    promised = f"sequence {b} of the batch is what it is alone"
    ends = together.sequence_status[b], alone.sequence_status[0]
    if ends[0] is not ends[1]:
        raise CheckFailed(
            promised, f"{ends[0].name}, alone {ends[1].name} ({told(together)})", remedy
        )
    scale = 1 + np.max(np.abs(alone.h))  # iterates far off pass on what rounding they have
    wrong = ~(np.abs(together.h[:, b] - alone.h[:, 0]) <= 4 * scale * allowed(problem.sequence(b)))
    require_nowhere(wrong, together.h[:, b], alone.h[:, 0], promised, told(together), remedy)


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    check.__name__: check
    for check in (
        bad_numbers_stay_in_their_sequence,
        overflow_ends_and_is_named,
        batch_is_each_sequence_alone,
    )
}
