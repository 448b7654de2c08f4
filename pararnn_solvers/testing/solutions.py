"""Checks of what solvers make of a recurrence: trajectories, kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers.api import rollout, solve
from pararnn_solvers.bidiagonal import BlockBidiagonal
from pararnn_solvers.compilation import obstacle
from pararnn_solvers.errors import (
    ConvergenceError,
    InvalidInput,
    NotDifferentiable,
    NotTraceable,
)
from pararnn_solvers.linear.sequential import scan
from pararnn_solvers.solvers.methods import newton, windowed
from pararnn_solvers.testing.context import Context, number, numbers, place
from pararnn_solvers.testing.results import CheckFailed, Inapplicable
from pararnn_solvers.typing import Array

METHODS: dict[str, Any] = {
    "sequential": "sequential",
    "newton": "newton",
    "newton(chunk=3)": newton(chunk=3),
    "windowed(length=4)": windowed(length=4),
    "auto": "auto",
    "damped_newton": "damped_newton",
    "levenberg_marquardt": "levenberg_marquardt",
    "quasi_newton": "quasi_newton",
    "chord": "chord",
    "broyden": "broyden",
    "picard": "picard",
    "jacobi": "jacobi",
    "anderson": "anderson",
}

COSTLY = ("levenberg_marquardt",)  # tens of seconds for 100 components where it does not converge
MOST_COSTLY = 16  # components, beyond which these are left out


def every_method_finds_the_rollout(context: Context) -> str:
    """Whatever method converges, its states are those computed one after another.

    Proves: on at most 16 steps of 3 sequences each method's states are as near to the rollout as
    its tolerance on the residual implies: ``e_t = |A_t| e_{t-1} + 2 (tolerance + rounding)``. The
    message says which methods did not converge, which is no failure of the recurrence.

    Costs: 13 small solves; 12 beyond 16 components, without the costly one of Levenberg-Marquardt.

    A failure means: step does not compute the same for many states as for one, its derivative is
    wrong, or it keeps something between calls.
    """
    system = context.system
    arguments = (context.recurrence, system.x, system.h0, system.theta)
    steps = system.shape[0]
    expected = complete_trajectory(context)
    try:
        bound = allowed_error(context, expected)
    except NotDifferentiable as error:
        raise Inapplicable(f"step cannot be differentiated: {error}") from None
    failed = {}
    left_out = COSTLY if context.size > MOST_COSTLY else ()
    chosen = {name: method for name, method in METHODS.items() if name not in left_out}
    for name, method in chosen.items():
        try:
            with np.errstate(all="ignore"):
                solution = solve(
                    *arguments, steps=steps, method=method, compiled=False, max_iter=4 * steps + 20
                )
        except ConvergenceError as error:
            failed[name] = str(error).splitlines()[0]
            continue
        except InvalidInput as error:
            raise refused(error) from error
        over = np.abs(solution.h - expected) > bound
        if over.any():
            index = tuple(int(i) for i in np.argwhere(over)[0])
            got, right = numbers(solution.h[index], expected[index])
            raise CheckFailed(
                "every method that converges finds the rollout",
                f"{name} gives {got}, the rollout {right}{place(index)}; its residual allows an "
                f"error of {number(bound[index])}",
                "see which of the other checks fail: same calls, no mixing, derivatives",
            )
    done = [name for name in chosen if name not in failed]
    return f"{len(done)} methods find the rollout" + "".join(
        f"; {what}: {', '.join(names)}"
        for what, names in (("not converged", failed), ("left out", left_out))
        if names
    )


def refused(error: InvalidInput) -> CheckFailed:
    """Return the failure that a recurrence is which solvers refuse: in the same words always."""
    seen, _, remedy = str(error).partition("; ")
    promised = "solve takes the recurrence with its data"
    return CheckFailed(promised, seen, remedy or "see which of the other checks fail")


def complete_trajectory(context: Context) -> Array:
    """Return the rollout (T, batch, d), if it is finite."""
    states = context.trajectory[1:]
    if len(states) < context.system.shape[0]:
        raise Inapplicable(
            f"the rollout ends after {len(states)} steps: it fails, or is not finite any more"
        )
    return states


def allowed_error(context: Context, h: Array) -> Array:
    """Return how far from the rollout states may be that meet the default tolerance."""
    eps = float(np.finfo(h.dtype).eps)
    size = 1 + np.max(np.abs(h), axis=-1, keepdims=True)
    amount = 2 * (context.tolerance(eps**0.75) + context.rounding(h.dtype)) * size
    blocks = np.abs(context.system.linearize(h))
    with np.errstate(over="ignore"):
        return BlockBidiagonal(blocks).solve(np.broadcast_to(amount, h.shape).copy(), scan)


def kernels_are_the_step(context: Context) -> str:
    """Compiled kernels compute the rollout that step computes.

    Proves: on at most 16 steps of 3 sequences, compiled states are those of step, to what rounding
    of each step can grow to.

    Costs: a compilation at first (some seconds, then kept on disk), milliseconds after it.

    A failure means: step computes something else on traced arrays than on others, or depends on
    more than its arguments.
    """
    system = context.system
    reason = obstacle(system, "auto", True)
    if reason:
        raise Inapplicable(f"not compiled: {reason}")
    expected = complete_trajectory(context)
    promised = "kernels made of step compute what step computes"
    remedy = "let step do the same for all kinds of arrays, and depend on its arguments only"
    try:
        got = rollout(
            context.recurrence,
            system.x,
            system.h0,
            system.theta,
            steps=system.shape[0],
            compiled=True,
        )
    except NotTraceable as error:
        raise Inapplicable(f"step cannot be traced, so it is not compiled: {error}") from None
    except InvalidInput as error:
        raise refused(error) from error
    over = np.abs(got - expected) > allowed_error(context, expected)
    if over.any():
        index = tuple(int(i) for i in np.argwhere(over)[0])
        of_kernels, of_step = numbers(got[index], expected[index])
        raise CheckFailed(
            promised,
            f"kernels give {of_kernels}, step {of_step}{place(index)}",
            remedy,
        )
    return "step is compiled"


CHECKS: dict[str, Callable[[Context], str | None]] = {
    check.__name__: check
    for check in (
        every_method_finds_the_rollout,
        kernels_are_the_step,
    )
}
