"""Checks of what a method does with arrays, between calls, and in threads."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.testing.context import copied, numbers
from pararnn_solvers.testing.method_problems import (
    Problem,
    Subject,
    contractive,
    dense,
    far_guess,
    require_nowhere,
    require_rollout,
    require_success,
)
from pararnn_solvers.testing.results import CheckFailed


def inputs_are_not_mutated(subject: Subject) -> None:
    """x, h0, theta and the guess are as before, after the solve.

    Proves: all their bits are, for 12 steps of 2 sequences.

    Costs: 1 solve for each dtype.

    A failure means: the guess is iterated in place (copy it first), or states are written into
    system.h0 or system.x.
    """
    for dtype in subject.dtypes:
        problem = contractive(12, (2,), 2, 2, dtype)
        given = {
            "x": problem.x,
            "h0": problem.h0,
            "theta": problem.theta,
            "guess": far_guess(problem),
        }
        before = copied(given)
        subject.attempt(problem, guess=given["guess"])
        for name, now in given.items():
            if not np.array_equal(now, before[name]):
                at = tuple(int(i) for i in np.argwhere(now != before[name])[0])
                was, is_now = numbers(before[name][at], now[at])
                raise CheckFailed(
                    f"{name} is not written to",
                    f"{name}[{', '.join(map(str, at))}] was {was} and is {is_now}",
                    "iterate in a copy: guess.resolve(guess, system) makes one",
                )


def any_layout_is_read(subject: Subject) -> None:
    """Inputs may be read-only, strided, reversed or in Fortran's order.

    Proves: the solution is that of contiguous copies, as near as rounding and the tolerance imply.

    Costs: 3 solves for each dtype.

    A failure means: memory is read as if contiguous, or a kernel refuses read-only arrays.
    """
    for dtype in subject.dtypes:
        problem = contractive(12, (4,), 2, 2, dtype)
        x, h0, theta = problem.x, problem.h0, problem.theta
        assert x is not None
        layouts = {
            "Fortran's order": tuple(map(np.asfortranarray, (x, h0, theta))),
            "strided": tuple(np.repeat(a, 2, axis=-1)[..., ::2] for a in (x, h0, theta)),
            "reversed": tuple(a[::-1].copy()[::-1] for a in (x, h0, theta)),
        }
        for name, arrays in layouts.items():
            for array in arrays:
                array.flags.writeable = False
            x, h0, theta = arrays
            remedy = f"read through strides; the inputs are {name} and read-only"
            try:
                solution = subject.attempt(problem._replace(x=x, h0=h0, theta=theta))
            except Exception as error:
                raise CheckFailed(
                    "the layout of inputs does not matter",
                    f"{type(error).__name__}: {error} ({name}, read-only)",
                    remedy,
                ) from error
            require_success(solution, "the layout of inputs does not matter", remedy)
            require_rollout(problem, solution, remedy)


def dtype_is_kept(subject: Subject) -> None:
    """States and residual norms have the dtype of the inputs, and step sees no other.

    Proves: so for one solve, at every call of step.

    Costs: 1 solve for each dtype.

    A failure means: float64 made in a float32 solve by a list, a constant of NumPy, or a cast.
    """
    for dtype in subject.dtypes:
        problem = contractive(12, (2,), dtype=dtype)
        seen: set[Any] = set()

        def step(h: Any, x: Any, a: Any, seen: set[Any] = seen, problem: Problem = problem) -> Any:
            seen.add(getattr(h, "dtype", None))
            return problem.recurrence.step(h, x, a)

        watched = problem if subject.options.get("compiled") else with_step(problem, step)
        solution = subject.attempt(watched)
        kinds = [("h", solution.h.dtype), ("residual_norms", solution.residual_norms.dtype)]
        kinds += [("h of step", kind) for kind in seen if kind is not None]
        for name, kind in kinds:
            if kind != dtype:
                raise CheckFailed(
                    f"all is {np.dtype(dtype)}",
                    f"{name} is {kind}",
                    "make arrays by np.empty_like(h), constants by h.dtype.type(c)",
                )


def with_step(problem: Problem, step: Callable[..., Any]) -> Problem:
    """Return the problem with another function that computes the same."""
    return problem._replace(recurrence=Recurrence(step, problem.recurrence.block_size))


def equal_calls_give_equal_bits(subject: Subject) -> None:
    """The same call has the same bits, also after other calls.

    Proves: so for the states and residual norms of 3 calls with others between them.

    Costs: 5 solves for each dtype.

    A failure means: something is kept between calls, a random number has no seed, or memory is read
    that nothing has been written to.
    """
    for dtype in subject.dtypes:
        problem = dense(18, (2,), 3, dtype)
        first = subject.attempt(problem)
        for call in range(2, 4):
            subject.attempt(dense(18, (2,), 3, dtype, seed=call))
            require_same_bits(
                first,
                subject.attempt(problem),
                f"call {call} of the same problem",
                "keep nothing between calls, and seed every random number in solve",
            )


def require_same_bits(first: Solution, again: Solution, what: str, remedy: str) -> None:
    """Raise CheckFailed unless two solutions are equal."""
    promised = "equal calls give equal bits"
    if again.h.shape == first.h.shape:
        wrong = ~((again.h == first.h) | (np.isnan(again.h) & np.isnan(first.h)))
        require_nowhere(wrong, again.h, first.h, promised, what, remedy)
    if not np.array_equal(first.residual_norms, again.residual_norms, equal_nan=True):
        raise CheckFailed(
            promised,
            f"{what}: residual_norms of {len(again.residual_norms)} rows differ from the first "
            f"{len(first.residual_norms)}",
            remedy,
        )


def threads_do_not_disturb_one_another(subject: Subject) -> None:
    """Solves by one method value on several threads return what each would have returned alone.

    Proves: so for 8 solves of 4 problems on 4 threads, bit for bit.

    Costs: 12 solves for each dtype.

    A failure means: a race: iterates are kept in the method itself. A race that is rare may not be
    seen.
    """
    for dtype in subject.dtypes:
        problems = [dense(18, (2,), 3, dtype, seed) for seed in range(4)]
        alone = [subject.attempt(problem) for problem in problems]
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(subject.attempt, problems[i % 4]) for i in range(8)]
            results = [call.result() for call in calls]
        for i, solution in enumerate(results):
            require_same_bits(
                alone[i % 4],
                solution,
                f"solve {i} of 8 on 4 threads",
                "a race: keep iterates in variables of solve, not in self",
            )


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    check.__name__: check
    for check in (
        inputs_are_not_mutated,
        any_layout_is_read,
        dtype_is_kept,
        equal_calls_give_equal_bits,
        threads_do_not_disturb_one_another,
    )
}
