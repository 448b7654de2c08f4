"""Checks of vjp=: adjoints times the derivatives by the state, the drive and theta."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.testing.context import SAMPLES, Context, copied, number, require_close
from pararnn_solvers.testing.derivatives import along_theta, uncallable
from pararnn_solvers.testing.diagnosis import (
    name_the_bug,
    of_drives,
    of_parameters,
    rows_of_theta,
    rows_of_vjp,
)
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
    try:
        returned = vjp(h.copy(), None if x is None else x.copy(), theta, lam.copy())
    except Exception as error:
        raise uncallable("vjp(h, x, theta, lam)", h, error) from error
    if not (isinstance(returned, tuple) and len(returned) == 3):
        raise CheckFailed(
            "vjp(h, x, theta, lam) returns (dh, dx, dtheta)",
            f"a {type(returned).__name__}",
            "return a tuple of three, with None for dx where x is None",
        )
    dh, dx, dtheta = returned
    by_x = None
    if x is not None:
        oracles = ask(lambda u: context.wide.call(h, u), x, np.eye(x.shape[-1]))
        by_x = np.moveaxis(oracles.best, 0, -1)
    swapped = matches(context, dh, by_x, lam) and matches(context, dx, context.jacobian, lam)
    order = "dh and dx are exchanged: return (dh, dx, dtheta)" if swapped else ""
    require_products(context, "dh", dh, context.jacobian, lam, order)
    if by_x is not None:
        require_products(context, "dx", dx, by_x, lam)
    require_theta(context, dtheta, lam)


def pulled_back(matrices: Array, lam: Array) -> Array:
    """Return ``lam^T J`` of matrices J (..., d, p)."""
    return np.asarray(np.einsum("...ij,...i->...j", matrices, lam))


def matches(context: Context, got: Any, matrices: Array | None, lam: Array) -> bool:
    """Tell whether products are those with these matrices."""
    if matrices is None or not isinstance(got, np.ndarray):
        return False
    expected = pulled_back(matrices, lam)
    noise = float(context.oracles.noise.max())
    return (
        got.shape == expected.shape
        and not beyond(got, expected, context.tolerance(HALF), noise).any()
    )


def require_products(
    context: Context, name: str, got: Any, matrices: Array, lam: Array, order: str = ""
) -> None:
    """Compare products entry by entry, and name the bug where it can be recognized."""
    argument, expected = name[1:], pulled_back(matrices, lam)
    promised, remedy = f"{name} of vjp is lam^T df/d{argument}", f"correct {name} in vjp="
    if not isinstance(got, np.ndarray) or got.shape != expected.shape:
        what = f"shape {got.shape}" if isinstance(got, np.ndarray) else f"a {type(got).__name__}"
        raise CheckFailed(
            promised,
            f"{what} where {argument} has shape {expected.shape}",
            "return (dh, dx, dtheta), with arrays of the shapes of h and x first",
        )
    if matches(context, got, matrices, lam):
        return
    require_close(
        promised,
        got,
        expected,
        context.tolerance(HALF),
        names=("vjp gives", "step's derivative"),
        remedy=remedy,
        scale=float(context.oracles.noise.max()) / context.tolerance(HALF),
        defect=order or defect_of(context, name, got, matrices, lam),
    )


def defect_of(context: Context, name: str, got: Array, matrices: Array, lam: Array) -> str:
    """Name the bug in dh or dx, or nothing: asked with unit adjoints, vjp= shows its matrices."""
    vjp = context.recurrence.vjp
    assert vjp is not None
    if matches(context, got, -matrices, lam):
        return "wrong sign"
    if name == "dh" and matches(context, got, matrices.swapaxes(-1, -2), lam):
        return "the transpose is missing: J lam where J^T lam is expected"
    try:
        by_h, by_x = rows_of_vjp(vjp, *context.wide.samples, copied(context.wide.system.theta))
    except Exception:
        return ""  # no reason to hide what was seen
    if name == "dx":
        return of_drives(context, by_x, matrices)
    return name_the_bug(context, by_h, beyond(by_h, matrices, HALF, context.oracles.noise.T))


def require_theta(context: Context, dtheta: Any, lam: Array) -> None:
    """Compare each leaf along a random direction; if it differs, find the entry."""
    leaves, got = tree.flatten(context.system.theta)[0], tree.flatten(dtheta)[0]
    promised = "dtheta of vjp is lam^T df/dtheta, summed over all states, nested as theta is"
    if len(leaves) != len(got):
        paths = ", ".join(tree.paths(dtheta, "dtheta")) or "none"
        raise CheckFailed(
            promised, f"{len(got)} leaves ({paths}), theta has {len(leaves)}", "nest it as theta is"
        )
    rng = np.random.default_rng(2)
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
        noise = float(context.oracles.noise.max())
        if abs(product - expected) <= context.tolerance(HALF) * size + noise:
            continue
        entries = entries_of_theta(context, i, lam)
        flat = np.asarray(got[i], np.float64).reshape(-1)[: len(entries)]
        worst = int(np.argmax(np.abs(flat - entries)))
        index = "".join(f"[{j}]" for j in np.unravel_index(worst, np.shape(got[i])))
        raise CheckFailed(
            promised,
            f"d{name}{index} is {number(flat[worst])}, by oracles {number(entries[worst])} "
            f"(along a random direction {number(expected)})",
            f"correct what vjp= returns for {name}",
            defect_of_leaf(context, i, name, np.asarray(got[i]), entries),
        )


def entries_of_theta(context: Context, i: int, lam: Array) -> Array:
    """Return what the first 256 entries of a leaf of dtheta should be, flat."""
    shape = np.shape(tree.flatten(context.system.theta)[0][i])
    units = np.eye(max(1, int(np.prod(shape))))[:256]
    found = [along_theta(context, i, unit.reshape(shape)).best[0] for unit in units]
    return np.array([float(np.vdot(f, lam)) for f in found])


def defect_of_leaf(context: Context, i: int, name: str, got: Array, entries: Array) -> str:
    """Name the bug in a leaf of dtheta, or nothing."""
    looks = {
        "zero: it is left out": 0 * entries,
        "wrong sign": -entries,
        "a mean in place of the sum over states": entries / int(np.prod(SAMPLES)),
    }
    if got.ndim == 2 and got.size == len(entries) and got.shape[0] == got.shape[1]:
        looks["transposed"] = entries.reshape(got.shape).T.reshape(-1)
    for label, candidate in looks.items():
        if np.allclose(got.reshape(-1)[: len(entries)], candidate, rtol=1e-6, atol=1e-9):
            return f"d{name}: {label}"
    vjp = context.recurrence.vjp
    assert vjp is not None
    theta = copied(context.wide.system.theta)
    try:
        rows = rows_of_theta(vjp, *context.wide.samples, theta, i)
    except Exception:
        return ""  # no reason to hide what was seen
    found = of_parameters(context, i, rows)
    return f"d{name}: {found}" if found else ""


CHECKS: dict[str, Callable[[Context], str | None]] = {"vjp_is_the_transpose": vjp_is_the_transpose}
