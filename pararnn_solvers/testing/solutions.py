"""Checks of what solvers make of a recurrence: trajectories, kernels, gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.api import rollout, solve
from pararnn_solvers.bidiagonal import BlockBidiagonal
from pararnn_solvers.compilation import obstacle
from pararnn_solvers.errors import ConvergenceError, InvalidInput, NotDifferentiable, NotTraceable
from pararnn_solvers.linear.sequential import scan
from pararnn_solvers.sensitivities import gradients
from pararnn_solvers.solvers.methods import newton, windowed
from pararnn_solvers.testing.context import Context, number, place, require_close
from pararnn_solvers.testing.oracles import COMPLEX, EPS, HALF
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


def every_method_finds_the_rollout(context: Context) -> str:
    """Whatever method converges, its states are those computed one after another.

    Proves: on at most 16 steps of 3 sequences each method's states are as near to the rollout as
    its tolerance on the residual implies: ``e_t = |A_t| e_{t-1} + 2 (tolerance + rounding)``. The
    message says which methods did not converge, which is no failure of the recurrence.

    Costs: 13 small solves.

    A failure means: step does not compute the same for many states as for one, its derivative is
    wrong, or it keeps something between calls.
    """
    system = context.system
    arguments = (context.recurrence, system.x, system.h0, system.theta)
    steps = system.shape[0]
    expected = complete_trajectory(context)
    bound = allowed_error(context, expected)
    failed = {}
    for name, method in METHODS.items():
        try:
            with np.errstate(all="ignore"):
                solution = solve(
                    *arguments, steps=steps, method=method, compiled=False, max_iter=4 * steps + 20
                )
        except ConvergenceError as error:
            failed[name] = str(error).splitlines()[0]
            continue
        except InvalidInput as error:
            raise refused("every method that converges finds the rollout", error) from error
        over = np.abs(solution.h - expected) > bound
        if over.any():
            index = tuple(int(i) for i in np.argwhere(over)[0])
            raise CheckFailed(
                "every method that converges finds the rollout",
                f"{name} gives {number(solution.h[index])}, the rollout "
                f"{number(expected[index])}{place(index)}; its residual allows an error of "
                f"{number(bound[index])}",
                "see which of the other checks fail: same calls, no mixing, derivatives",
            )
    done = [name for name in METHODS if name not in failed]
    return f"{len(done)} methods find the rollout" + (
        f"; not converged: {', '.join(failed)}" if failed else ""
    )


def refused(promised: str, error: InvalidInput) -> CheckFailed:
    """Return the failure that a recurrence is which solvers refuse."""
    seen, _, remedy = str(error).partition("; ")
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
        raise refused(promised, error) from error
    over = np.abs(got - expected) > allowed_error(context, expected)
    if over.any():
        index = tuple(int(i) for i in np.argwhere(over)[0])
        raise CheckFailed(
            promised,
            f"kernels give {number(got[index])}, step {number(expected[index])}{place(index)}",
            remedy,
        )
    return "step is compiled"


def gradients_are_those_of_the_rollout(context: Context) -> None:
    """Gradients of a loss are the derivatives of the rollout itself.

    Proves: along random directions of h0, of x and of each real leaf of theta, ``gradients`` of
    ``sum(w * h)`` equals the derivative of a float64 rollout by complex step (by differences, where
    step defeats that), to half of the digits.

    Costs: 1 solve, its gradients, and 1 or 4 rollouts of 16 steps for each direction.

    A failure means: jacobian= or vjp= is wrong, or step is not differentiable where it is used.
    """
    system = context.wide.system
    states = complete_trajectory(context.wide)
    w = np.random.default_rng(5).standard_normal(states.shape)
    solution = solve(
        context.recurrence,
        system.x,
        system.h0,
        system.theta,
        steps=len(states),
        method="sequential",
        compiled=False,
    )
    try:
        found = gradients(solution, w)
    except NotDifferentiable as error:
        raise CheckFailed("gradients exist", str(error), "write step in NumPy") from error
    except InvalidInput as error:
        if context.recurrence.vjp is None and "real entries" in str(error):
            raise Inapplicable(str(error)) from None
        raise
    leaves = tree.flatten(system.theta)[0]
    dtheta = tree.flatten(found.theta)[0]
    arguments: dict[str, Any] = {"h0": (found.h0, system.h0), "x": (found.x, system.x)}
    # Leaves that are no real numbers have None as gradient, which flattening leaves out.
    real = [i for i, _ in context.theta_paths]
    if len(dtheta) == len(leaves):
        dtheta = [dtheta[i] for i in real]
    for (i, name), gradient in zip(context.theta_paths, dtheta, strict=True):
        arguments[name] = (gradient, leaves[i])
    rng = np.random.default_rng(6)
    analytic = context.oracles.agree(COMPLEX, "finite differences")
    for name, (gradient, value) in arguments.items():
        if value is None:
            continue
        v = rng.standard_normal(np.shape(value))
        expected = slope(context.wide, name, v, w, analytic)
        product = np.vdot(gradient, v)
        size = float(np.linalg.norm(gradient) * np.linalg.norm(v)) + abs(expected)
        tolerance = HALF if analytic else EPS**0.25  # the rollout may pass near a kink
        require_close(
            f"the gradient by {name} is that of the rollout",
            product,
            expected,
            context.tolerance(tolerance),
            scale=size,
            names=(
                "along a random direction gradients gives",
                f"the rollout, by {'complex step' if analytic else 'differences'},",
            ),
            remedy="correct jacobian= or vjp= (their own checks name the entry), or leave them out",
        )


def slope(context: Context, name: str, v: Array, w: Array, analytic: bool) -> float:
    """Return d/de of ``sum(w * rollout)`` for a change ``e v`` of an argument."""

    def loss(e: Any) -> Any:
        system = context.system
        h0 = system.h0 + e * v if name == "h0" else system.h0
        x = system.x + e * v if name == "x" and system.x is not None else system.x
        leaves, rebuild = tree.flatten(system.theta)
        paths = tree.paths(system.theta)
        moved = [a + e * v if p == name else a for a, p in zip(leaves, paths, strict=True)]
        total, h, theta = 0.0 * e, h0, rebuild(moved)
        for t in range(len(w)):
            h = context.call(h, None if x is None else x[t], theta)
            total = total + np.sum(w[t] * h)
        return total

    if analytic:
        return float(loss(1e-30j).imag / 1e-30)
    step = EPS**0.2
    wide, narrow = ((loss(s) - loss(-s)) / (2 * s) for s in (step, step / 2))
    return float((4 * narrow - wide) / 3)


CHECKS: dict[str, Callable[[Context], str | None]] = {
    check.__name__: check
    for check in (
        every_method_finds_the_rollout,
        kernels_are_the_step,
        gradients_are_those_of_the_rollout,
    )
}
