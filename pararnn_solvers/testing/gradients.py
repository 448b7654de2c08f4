"""Checks of gradients: those of a loss are derivatives of the rollout itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.api import solve
from pararnn_solvers.errors import InvalidInput, NotDifferentiable
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.sensitivities import gradients
from pararnn_solvers.sensitivities.local_products import MOST_DIRECTIONS
from pararnn_solvers.testing.context import Context, require_close
from pararnn_solvers.testing.oracles import COMPLEX, DIFFERENCES, EPS, HALF
from pararnn_solvers.testing.results import CheckFailed
from pararnn_solvers.testing.solutions import complete_trajectory, refused
from pararnn_solvers.typing import Array

Directions = dict[str, Array]


def gradients_are_those_of_the_rollout(context: Context) -> None:
    """Gradients of a loss are the derivatives of the rollout itself.

    Proves: along random directions of h0, of x and of each real leaf of theta, ``gradients`` of
    ``sum(w * h)`` equals the derivative of a float64 rollout by complex step, or by differences
    where step defeats that, to half of the digits (near a kink, by short differences, to a
    quarter). Where theta has more than 256 entries and there is no vjp=, its gradient is taken by
    one number for each leaf, the length of a change along that direction.

    Costs: 1 solve, its gradients, and 1 to 9 rollouts of 16 steps for each direction.

    A failure means: jacobian= or vjp= is wrong, or step is not differentiable where it is used.
    """
    system = context.wide.system
    states = complete_trajectory(context.wide)
    rng = np.random.default_rng(6)
    leaves = tree.flatten(system.theta)[0]
    values = {"h0": system.h0, "x": system.x} | {name: leaves[i] for i, name in context.theta_paths}
    along = {
        name: rng.standard_normal(np.shape(value))
        for name, value in values.items()
        if value is not None
    }
    w = np.random.default_rng(5).standard_normal(states.shape)
    try:
        products = products_along(context, along, w)
    except NotDifferentiable as error:
        raise CheckFailed("gradients exist", str(error), "write step in NumPy") from error
    except InvalidInput as error:
        raise refused(error) from error
    remedy = "correct jacobian= or vjp= (their own checks name the entry), or leave them out"
    if context.recurrence.jacobian is None and context.recurrence.vjp is None:
        remedy = "step jumps along the trajectory, or hides values from the dual arrays; smooth it"
    for name, v in along.items():
        require_slope(context, name, v, w, products[name], remedy)


def require_slope(
    context: Context, name: str, v: Array, w: Array, product: tuple[float, float], remedy: str
) -> None:
    """Raise CheckFailed unless a gradient times a direction is what one of three means finds.

    A complex step may be defeated (by ``abs``), and differences reach over a kink, but hardly at
    two lengths; a wrong gradient agrees with none of them.
    """
    ways: list[tuple[str, Callable[..., tuple[float, float]], float]] = [
        ("by differences", partial(differences, length=EPS**0.2), HALF),
        ("by short differences", partial(differences, length=EPS**0.5), EPS**0.25),
    ]
    if context.oracles.agree(COMPLEX, DIFFERENCES):
        ways.insert(0, ("by complex step", by_complex_step, HALF))
    failures = []
    for way, slope, tolerance in ways:
        expected, noise = slope(context.wide, name, v, w)
        try:
            require_close(
                f"the gradient by {name} is that of the rollout",
                product[0],
                expected,
                context.tolerance(tolerance),
                scale=float(np.nan_to_num(product[1])) + abs(expected) + noise / tolerance,
                names=("along a random direction gradients gives", f"the rollout, {way},"),
                remedy=remedy,
            )
            return
        except CheckFailed as failure:
            failures.append(failure)
    raise failures[0]


def products_along(context: Context, along: Directions, w: Array) -> dict[str, tuple[float, float]]:
    """Return the gradient of ``sum(w * h)`` times each direction, and the product's size."""
    system, recurrence = context.wide.system, context.recurrence
    names = [name for _, name in context.theta_paths]
    sizes = sum(along[name].size for name in names)
    theta, directions = system.theta, dict(along)
    if recurrence.vjp is None and sizes > MOST_DIRECTIONS:
        recurrence, theta = along_theta_only(context, [along[name] for name in names])
        directions |= {name: np.ones(()) for name in names}
    solution = solve(
        recurrence,
        system.x,
        system.h0,
        theta,
        steps=len(w),
        method="sequential",
        compiled=False,
    )
    found = gradients(solution, w)
    # Leaves that are no real numbers have None as gradient, which flattening leaves out.
    of_theta = [leaf for leaf in tree.flatten(found.theta)[0] if tree.is_differentiable(leaf)]
    by_name = {"h0": found.h0, "x": found.x, **dict(zip(names, of_theta, strict=True))}
    return {
        name: (
            float(np.vdot(by_name[name], v)),
            float(np.linalg.norm(by_name[name]) * np.linalg.norm(v)),
        )
        for name, v in directions.items()
    }


def along_theta_only(context: Context, directions: list[Array]) -> tuple[Recurrence, Any]:
    """Return the recurrence with ``e`` for theta: leaf j is its own value plus ``e_j v_j``."""
    leaves, rebuild = tree.flatten(context.wide.system.theta)
    positions = [i for i, _ in context.theta_paths]

    def moved(e: Any) -> Any:
        changed = list(leaves)
        for i, length, v in zip(positions, e, directions, strict=True):
            changed[i] = leaves[i] + length * v
        return rebuild(changed)

    def at(function: Callable[..., Any], h: Any, x: Any, e: Any) -> Any:
        return function(h, x, moved(e))

    given = context.recurrence
    jacobian = partial(at, given.jacobian) if callable(given.jacobian) else given.jacobian
    step = partial(at, given.step)
    return replace(given, step=step, jacobian=jacobian), tuple(np.zeros(len(directions)))


def loss_along(context: Context, name: str, v: Array, w: Array, e: Any) -> Any:
    """Return ``sum(w * rollout)`` where an argument has changed by ``e v``."""
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


def size_of(context: Context, name: str) -> float:
    """Return the greatest entry of an argument, 1 if it is zero."""
    system = context.system
    values: dict[str, Any] = {"h0": system.h0, "x": system.x}
    values |= dict(zip(tree.paths(system.theta), tree.flatten(system.theta)[0], strict=True))
    return float(np.max(np.abs(values[name]), initial=0)) or 1.0


def by_complex_step(context: Context, name: str, v: Array, w: Array) -> tuple[float, float]:
    """Return the slope of the loss along a direction, and what rounding may be in it."""
    loss = loss_along(context, name, v, w, 1e-30j)
    return float(loss.imag / 1e-30), EPS * abs(float(loss.real)) / size_of(context, name)


def differences(
    context: Context, name: str, v: Array, w: Array, length: float
) -> tuple[float, float]:
    """Return the slope by differences of fourth order, and what rounding may be in it."""
    step = length * size_of(context, name)

    def central(s: float) -> float:
        forward, back = (loss_along(context, name, v, w, e) for e in (s, -s))
        return float(forward - back) / (2 * s)

    size = float(np.sum(np.abs(w))) * float(np.max(np.abs(context.trajectory)))
    return (4 * central(step / 2) - central(step)) / 3, 16 * EPS * size / step


CHECKS: dict[str, Callable[[Context], str | None]] = {
    "gradients_are_those_of_the_rollout": gradients_are_those_of_the_rollout
}
