"""What kind of recurrence it is: how fast it forgets, or how fast errors grow."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pararnn_solvers.solvers.auto import largest_exponent
from pararnn_solvers.testing.context import Context, number, place
from pararnn_solvers.testing.contract import refusal
from pararnn_solvers.testing.results import CheckFailed


def rollout_is_finite(context: Context) -> str:
    """Computed one after another, the states stay finite; how fast they forget is reported.

    Proves: the first 16 states are finite. The message gives the greatest contraction factor
    (maximum norm of df/dh) near the trajectory, and the largest Lyapunov exponent on these steps:
    below 0 the recurrence forgets, above 0 errors grow and parallel methods need many iterations.

    Costs: 32 calls of step, and the oracles' Jacobian (made once for all checks).

    A failure means: the recurrence overflows, or produces NaN, for this data.
    """
    states = context.trajectory
    steps = context.system.shape[0]
    if len(states) <= steps:
        refused = refusal(context)
        if refused is not None:
            raise refused
        raise CheckFailed(
            f"the rollout of {steps} steps is finite and keeps its shape",
            f"step {len(states) - 1} is the first to fail: it {failure_of_next(context)}",
            "scale parameters or data; mind division by zero and exp of large numbers",
        )
    try:
        exponent = largest_exponent(context.system)
    except Exception:  # of jacobian=, or of a step without a rule: other checks say so
        return "finite; how fast it forgets is not known: it cannot be differentiated"
    factor = float(np.max(np.sum(np.abs(context.jacobian), axis=-1)))
    kind = "contracts: it forgets" if exponent < 0 else "expands: errors grow"
    return f"largest Lyapunov exponent {exponent:.3g} a step ({kind}); max |df/dh| {factor:.3g}"


def failure_of_next(context: Context) -> str:
    """Say why the trajectory goes no further."""
    states, x = context.trajectory, context.system.x
    h = states[-1]
    try:
        f = np.asarray(context.call(h.copy(), None if x is None else x[len(states) - 1].copy()))
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"
    if f.shape != h.shape:
        return f"returns shape {f.shape} for h of shape {h.shape}"
    index = tuple(int(i) for i in np.argwhere(~np.isfinite(f))[0])
    return f"returns {f[index]}{place(index)}, where h is {number(h[index])}"


CHECKS: dict[str, Callable[[Context], str | None]] = {"rollout_is_finite": rollout_is_finite}
