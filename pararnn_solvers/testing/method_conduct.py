"""Checks of a method's conduct: bad numbers, batches, callbacks, failures, arrays, threads."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pararnn_solvers.errors import ConvergenceError, ConvergenceWarning
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status
from pararnn_solvers.testing.context import copied, number
from pararnn_solvers.testing.method_problems import (
    MAX_ITER,
    Problem,
    Subject,
    allowed_error,
    contractive,
    dense,
    expansive,
    far_guess,
    require_nowhere,
    require_rollout,
    require_success,
    runaway,
    spiked,
    told,
)
from pararnn_solvers.testing.results import CheckFailed, Inapplicable
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
                raise CheckFailed(
                    f"{name} is not written to",
                    f"{name}[{at}] was {number(before[name][at])} and is {number(now[at])}",
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
        bad_numbers_stay_in_their_sequence,
        overflow_ends_and_is_named,
        batch_is_each_sequence_alone,
        callback_sees_iterates_and_can_stop,
        failures_are_reported_as_asked,
        inputs_are_not_mutated,
        any_layout_is_read,
        dtype_is_kept,
        equal_calls_give_equal_bits,
        threads_do_not_disturb_one_another,
    )
}
