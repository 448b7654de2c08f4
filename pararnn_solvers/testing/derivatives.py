"""Checks of derivatives: by three oracles, and as the user gives them in jacobian=."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.recurrence import as_blocks
from pararnn_solvers.testing.context import Context, copied, copy, number, numbers, place
from pararnn_solvers.testing.diagnosis import dense, name_the_bug
from pararnn_solvers.testing.oracles import (
    COMPLEX,
    DIFFERENCES,
    DUAL,
    HALF,
    Oracles,
    ask,
    beyond,
)
from pararnn_solvers.testing.results import CheckFailed, Inapplicable, brief
from pararnn_solvers.typing import Array

IN_USE = {None: DUAL, "cs": COMPLEX, "2-point": DIFFERENCES, "3-point": DIFFERENCES}
DEFEATS = {
    DUAL: "step leaves NumPy's derivative rules (a cast, an integer, a value taken out of the "
    "array, a function of another library): write it in NumPy, or give jacobian=",
    COMPLEX: "step is not analytic (abs, maximum, a comparison, real, a cast): leave jacobian= "
    "out, which differentiates exactly by dual arrays, or take '3-point'",
    DIFFERENCES: "step jumps or has few digits there (a branch on a value, a rounding, a cast to "
    "float32, state kept between calls): make it continuous in the dtype of h",
}


def oracles_agree(context: Context) -> str:
    """Dual arrays, complex steps and finite differences give the same derivative by the state.

    Proves: at 15 states near the trajectory all entries of df/dh agree to half of the digits of
    float64. An oracle that is not in use may be defeated; the message then says which one.

    Costs: 7 d + 3 calls of step on 15 states, d the size of the state; one with d tangents.

    A failure means: the derivative that solvers use is not that of step (the oracle in use is
    defeated), or step has no derivative: a jump, a branch on a value, a cast to float32 inside; or
    it is not finite (``log``, ``sqrt``, a division) near the states of the data.
    """
    require_finite(context)
    oracles = context.oracles
    name = context.recurrence.jacobian
    used = "jacobian=" if callable(name) else IN_USE[name]
    odd = [one for one in oracles.found if not agrees_with_any(oracles, one)]
    if len(odd) > 1 or DIFFERENCES in odd or used in odd:
        worst = used if used in odd else odd[-1]
        error = oracles.found.get(worst)
        cause = DIFFERENCES if DIFFERENCES in odd and len(odd) > 1 else worst
        raise CheckFailed(
            "dual arrays, complex steps and finite differences agree on df/dh",
            f"step defeats {' and '.join(odd)}; {sighting(oracles, worst)}",
            DEFEATS[worst if isinstance(error, str) else cause],
        )
    if odd:
        return f"step defeats {odd[0]}, which is not in use: {sighting(oracles, odd[0])}"
    return "dual arrays, complex steps and finite differences agree"


def require_finite(context: Context) -> None:
    """Raise CheckFailed where step is not finite, though h, x and theta are."""
    h, x = context.wide.samples
    f = np.asarray(context.wide.call(h.copy(), copy(x)))
    if f.shape == h.shape and not np.all(np.isfinite(f)):
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(f))[0])
        raise CheckFailed(
            "step is finite near the states of the data",
            f"step returns {f[index]}{place(index)}, where h is {number(h[index])}",
            "mind the domain of log, sqrt, arcsin and of powers, division by zero, exp of large "
            "numbers",
            "step is not finite",
        )


def agrees_with_any(oracles: Oracles, one: str) -> bool:
    """Tell whether another oracle says what this one says."""
    return any(oracles.agree(one, other) for other in oracles.found if other != one)


def sighting(oracles: Oracles, one: str) -> str:
    """Say what an oracle finds at the entry where it is farthest from another one."""
    found = oracles.found[one]
    if isinstance(found, str):
        return found
    others = [o for o in (DIFFERENCES, DUAL, COMPLEX) if not isinstance(oracles.found[o], str)]
    other = next(o for o in others if o != one)
    wrong = oracles.apart(one, other)
    b = np.asarray(oracles.found[other])
    error = np.where(wrong, np.nan_to_num(np.abs(found - b), nan=np.inf), -1)
    j, *lead, i = (int(v) for v in np.unravel_index(int(np.argmax(error)), error.shape))
    return (
        f"df_{i}/dh_{j} is {number(found[(j, *lead, i)])} by {one}, "
        f"{number(b[(j, *lead, i)])} by {other}{place(tuple(lead), 'step sequence')}"
    )


def jacobian_is_the_derivative(context: Context) -> None:
    """What jacobian= returns is the derivative of step, entry by entry.

    Proves: at 15 states all entries of the Jacobian agree with the best oracle to half of the
    digits of float64, entries beyond the returned structure being zero.

    Costs: 2 calls of jacobian, and the oracles' Jacobian (made once for all checks).

    A failure means: one of the bugs that the message names where it recognizes it. Of the whole
    matrix: a wrong sign, a transposed block, rows exchanged, row or column sums in place of a
    diagonal, couplings left out, components and channels exchanged, the derivative at another
    state. Of one term of a step that can be traced: an operation taken for a constant, a slope or a
    factor left out, ``1 - v`` for ``1 - v**2``, another gate or parameter, the slope at another
    argument.
    """
    given = context.recurrence.jacobian
    if not callable(given):
        raise Inapplicable("no function is given as jacobian=")
    h, x = context.wide.samples
    theta = copied(context.wide.system.theta)
    try:
        returned = given(h.copy(), None if x is None else x.copy(), theta)
    except Exception as error:
        raise uncallable("jacobian(h, x, theta)", h, error) from error
    try:
        blocks = as_blocks(returned, h)
    except InvalidInput as error:
        seen, _, remedy = str(error).partition("; expected ")
        raise CheckFailed("jacobian returns matrices, blocks or a diagonal", seen, remedy) from None
    got, expected = dense(blocks), context.jacobian
    wrong = beyond(got, expected, context.tolerance(HALF), context.oracles.noise.T)
    promised = "jacobian(h, x, theta)[..., i, j] is df_i/dh_j of step"
    if wrong.any():
        off = np.where(wrong, np.abs(got - expected), -1)
        *lead, i, j = index = tuple(
            int(v) for v in np.unravel_index(int(np.argmax(off)), off.shape)
        )
        values = numbers(got[index], expected[index])
        raise CheckFailed(
            promised,
            f"df_{i}/dh_{j} is {values[0]}, by oracles {values[1]}"
            f"{place(tuple(lead), 'step sequence')}; {int(wrong.any(axis=(0, 1)).sum())} of "
            f"{context.size**2} entries differ",
            "correct that in jacobian=, or leave it out: step is then differentiated exactly",
            name_the_bug(context, got, wrong),
        )
    require_dtype(context, given)


def uncallable(function: str, h: Array, error: Exception) -> CheckFailed:
    """Return the failure that jacobian= or vjp= ends in an error."""
    name = function.partition("(")[0]
    return CheckFailed(
        f"{function} can be called with states of any leading axes",
        f"{type(error).__name__} for h of shape {h.shape}: {brief(error)}",
        f"let {name}= take these arguments by position; call it by hand for the traceback",
        f"{name}= ends in an error",
    )


def require_dtype(context: Context, given: Callable[..., Any]) -> None:
    """Raise CheckFailed unless the Jacobian has the dtype of the states."""
    h, x = context.sampled((2,))
    try:
        dtype = np.asarray(given(h, x, copied(context.system.theta))).dtype
    except Exception as error:
        raise uncallable("jacobian(h, x, theta)", h, error) from error
    if dtype != h.dtype:
        raise CheckFailed(
            "jacobian returns the dtype of h",
            f"{dtype} for states in {h.dtype}",
            "make constants like h; cast nothing",
        )


def inputs_and_parameters_are_differentiable(context: Context) -> str | None:
    """Derivatives by x and by every leaf of theta are those of finite differences.

    Proves: along a random direction for x and for each real leaf of theta, the derivative that
    ``gradients`` uses (dual arrays, unless jacobian= names another way) agrees with differences to
    half of the digits of float64.

    Costs: 10 calls of step on 15 states for x and for each leaf.

    A failure means: step takes values out of x or theta (``float(a)``, ``.item()``), casts them, or
    copies them into arrays of another kind (``np.zeros``, then assignment). Leaves of theta that
    change nothing (a global read in their place?) pass, and are named in the message.
    """
    if context.recurrence.vjp is not None:
        raise Inapplicable("vjp= is given, and used instead: see vjp_is_the_transpose")
    name = context.recurrence.jacobian
    used = DUAL if callable(name) else IN_USE[name]
    h, x = context.wide.samples
    found = {
        name: along_theta(context, i, unit_like(context, i)) for i, name in context.theta_paths
    }
    if x is not None and x.size:
        v = np.random.default_rng(4).standard_normal((1, x.shape[-1]))
        found["x"] = ask(lambda u: context.wide.call(h, u), x, v)
    for argument, oracles in found.items():
        if oracles.agree(used, DIFFERENCES):
            continue
        seen = oracles.found[used]
        if not isinstance(seen, str):
            wrong = oracles.apart(used, DIFFERENCES)
            index = tuple(int(v) for v in np.argwhere(wrong)[0])
            differences = np.asarray(oracles.found[DIFFERENCES])
            seen = (
                f"{number(seen[index])} by {used}, {number(differences[index])} by differences"
                f"{place(index[1:])}"
            )
        raise CheckFailed(
            f"step is differentiable by {argument}", f"along a direction: {seen}", DEFEATS[used]
        )
    idle = [name for name, oracles in found.items() if not np.any(oracles.best)]
    return f"step does not depend on {', '.join(idle)}" if idle else None


def along_theta(context: Context, i: int, v: Array) -> Oracles:
    """Differentiate step along a change of one leaf of theta, at all samples."""
    h, x = context.wide.samples
    leaves, rebuild = tree.flatten(context.wide.system.theta)

    def function(e: Any) -> Any:
        moved = leaves[i] + e[0] * v
        changed = [moved if j == i else leaf for j, leaf in enumerate(leaves)]
        return context.wide.call(h, x, rebuild(changed))

    return ask(function, np.zeros(1), np.ones((1, 1)))


def unit_like(context: Context, i: int) -> Array:
    """Return a random direction of the shape of a leaf."""
    shape = np.shape(tree.flatten(context.system.theta)[0][i])
    return np.asarray(np.random.default_rng(3 + i).standard_normal(shape))


CHECKS: dict[str, Callable[[Context], str | None]] = {
    check.__name__: check
    for check in (
        oracles_agree,
        jacobian_is_the_derivative,
        inputs_and_parameters_are_differentiable,
    )
}
