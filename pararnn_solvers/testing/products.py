"""Checks of vjp=: adjoints times the derivatives by the state, the drive and theta."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.testing.context import Context, copied, number, require_close
from pararnn_solvers.testing.derivatives import along_theta
from pararnn_solvers.testing.diagnosis import suspect
from pararnn_solvers.testing.oracles import HALF, ask, beyond
from pararnn_solvers.testing.results import CheckFailed, Inapplicable
from pararnn_solvers.typing import Array


def vjp_is_the_transpose(context: Context) -> None:
    """What vjp= returns is lam times the derivatives of step by h, x and theta.

    Proves: for random lam at 15 states, all entries for h and for x, and for each leaf of theta
    a random direction (then every entry, to name the worst), agree with the oracles to half of
    the digits of float64. For every direction v, ``<vjp(lam), v> = <lam, jvp(v)>`` follows.

    Costs: 1 call of vjp, 7 m + 3 calls of step (m the size of x), 10 for each leaf of theta.

    A failure means: a sign, a missing transpose, a term left out, a mean where there is a sum over
    states.
    """
    vjp = context.recurrence.vjp
    if vjp is None:
        raise Inapplicable("no function is given as vjp=")
    h, x = context.wide.samples
    theta = copied(context.wide.system.theta)
    lam = np.random.default_rng(1).standard_normal(h.shape)
    returned = vjp(h.copy(), None if x is None else x.copy(), theta, lam.copy())
    if not (isinstance(returned, tuple) and len(returned) == 3):
        raise CheckFailed(
            "vjp(h, x, theta, lam) returns (dh, dx, dtheta)",
            f"a {type(returned).__name__}",
            "return a tuple of three, with None for dx where x is None",
        )
    dh, dx, dtheta = returned
    untransposed = np.einsum("...ij,...j->...i", context.jacobian, lam)
    require_products(context, "dh", dh, context.jacobian, lam, untransposed)
    if x is not None:
        oracles = ask(lambda u: context.wide.call(h, u), x, np.eye(x.shape[-1]))
        require_products(context, "dx", dx, np.moveaxis(oracles.best, 0, -1), lam)
    require_theta(context, dtheta, lam)


def pulled_back(matrices: Array, lam: Array) -> Array:
    """Return ``lam^T J`` of matrices J (..., d, p)."""
    return np.asarray(np.einsum("...ij,...i->...j", matrices, lam))


def require_products(
    context: Context,
    name: str,
    got: Any,
    matrices: Array,
    lam: Array,
    untransposed: Array | None = None,
) -> None:
    """Compare products entry by entry, and name the bug where it can be recognized."""
    tolerance, got, argument = context.tolerance(HALF), np.asarray(got), name[1:]
    expected = pulled_back(matrices, lam)

    def matches(candidate: Array) -> bool:
        return not beyond(got, candidate, tolerance, context.oracles.noise).any()

    remedy = ""
    if got.shape == expected.shape and not matches(expected):
        if matches(-expected):
            remedy = "wrong sign: "
        elif untransposed is not None and matches(untransposed):
            remedy = "the transpose is missing: J lam where J^T lam is expected: "
        else:
            group = "states" if name == "dh" else "drives"
            found = suspect(context, group, matrices, lambda J: matches(pulled_back(J, lam)))
            remedy = f"{found}: " if found else ""
    require_close(
        f"{name} of vjp is lam^T df/d{argument}",
        got,
        expected,
        tolerance,
        names=("vjp gives", "step's derivative"),
        remedy=f"{remedy}differentiate step by {argument} again",
        scale=context.oracles.noise / tolerance,
    )


def require_theta(context: Context, dtheta: Any, lam: Array) -> None:
    """Compare each leaf along a random direction; if it differs, find the entry."""
    leaves, got = tree.flatten(context.system.theta)[0], tree.flatten(dtheta)[0]
    promised = "dtheta of vjp is lam^T df/dtheta, summed over all states, nested as theta is"
    if len(leaves) != len(got):
        paths = ", ".join(tree.paths(dtheta, "dtheta")) or "none"
        raise CheckFailed(
            promised, f"{len(got)} leaves ({paths}), theta has {len(leaves)}", "nest it as theta is"
        )
    rng, states = np.random.default_rng(2), int(np.prod(lam.shape[:-1]))
    for i, name in context.theta_paths:
        if np.shape(got[i]) != np.shape(leaves[i]):
            raise CheckFailed(
                promised,
                f"shape {np.shape(got[i])} for {name} of shape {np.shape(leaves[i])}",
                "sum over all leading axes: theta is shared by all states",
            )
        v = rng.standard_normal(np.shape(leaves[i]))
        expected = float(np.vdot(along_theta(context, i, v).best[0], lam))
        product = float(np.vdot(got[i], v))
        size = float(np.linalg.norm(got[i]) * np.linalg.norm(v)) + abs(expected)
        if abs(product - expected) <= context.tolerance(HALF) * size + context.oracles.noise:
            continue
        remedy = f"differentiate step by {name} again"
        if abs(product * states - expected) <= HALF * size * states:
            remedy = f"a mean in place of the sum over states: {remedy}"
        elif abs(product + expected) <= HALF * size:
            remedy = f"wrong sign: {remedy}"
        raise CheckFailed(
            promised, worst_entry(context, i, name, np.asarray(got[i]), lam, expected), remedy
        )


def worst_entry(context: Context, i: int, name: str, got: Array, lam: Array, along: float) -> str:
    """Say which entry of a leaf is farthest off, of its first 256."""
    entries = list(np.ndindex(np.shape(got)))[:256]
    expected = []
    for entry in entries:
        unit = np.zeros(np.shape(got))
        unit[entry] = 1
        expected.append(float(np.vdot(along_theta(context, i, unit).best[0], lam)))
    errors = [abs(got[entry] - value) for entry, value in zip(entries, expected, strict=True)]
    worst = int(np.argmax(errors))
    index = "".join(f"[{j}]" for j in entries[worst])
    return (
        f"d{name}{index} is {number(got[entries[worst]])}, by oracles {number(expected[worst])} "
        f"(along a random direction {number(along)})"
    )


CHECKS: dict[str, Callable[[Context], str | None]] = {"vjp_is_the_transpose": vjp_is_the_transpose}
