"""Checks of what every step promises: a function of its arguments, and of nothing else."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.testing.context import (
    AXES,
    LAST_AXIS,
    LEADING,
    SAMPLES,
    Context,
    copied,
    number,
    numbers,
    place,
    require_close,
)
from pararnn_solvers.testing.results import CheckFailed, brief
from pararnn_solvers.typing import Array

DRIVES, STATES = ("x", "u", "input", "inputs"), ("h", "hx", "hidden", "state", "carry")
RETURNS = "step returns an array of the shape and dtype of h"


def shapes_and_dtypes_are_kept(context: Context) -> None:
    """States come back in the shape and the dtype in which they were given.

    Proves: for no, one, two and three leading axes, and for float32 and float64 data, step returns
    an array of the shape and the dtype of h.

    Costs: 22 calls of step on at most 15 states.

    A failure means: constants or parameters of another dtype promote the state, a reduction drops
    an axis, or step was written for one number of leading axes.
    """
    refused = refusal(context) or exchanged(context)
    if refused is not None:
        raise refused
    for dtype in (np.float32, np.float64):
        for lead in LEADING:
            h, f = called(context, dtype, lead)
            if not isinstance(f, np.ndarray):
                raise CheckFailed(
                    RETURNS,
                    f"a {kind(f)} for h of shape {h.shape}",
                    "return one NumPy array, made by NumPy's functions of h",
                )
            if f.shape != h.shape:
                raise CheckFailed(
                    RETURNS, f"shape {f.shape} for h of shape {h.shape}", f"{LAST_AXIS}, keepdims"
                )
            if f.dtype != h.dtype:
                raise CheckFailed(
                    RETURNS,
                    f"{f.dtype} for h, x and theta in {h.dtype} (h of shape {h.shape})",
                    "make constants of Python's floats (float(np.cos(0.3)): NumPy's are float64) "
                    "or like h (np.zeros_like(h)); cast nothing; or say in expected_failures that "
                    "only one dtype is used",
                )


def called(context: Context, dtype: Any, lead: tuple[int, ...]) -> tuple[Array, Any]:
    """Return states with these leading axes in this dtype, and what step makes of them."""
    h, x = (None if a is None else a.astype(dtype) for a in context.sampled(lead))
    assert h is not None
    return h, context.cast(dtype).call(h, x)


def kind(value: Any) -> str:
    """Name a type, with its library where that is not Python."""
    home = type(value).__module__.partition(".")[0]
    return type(value).__name__ if home == "builtins" else f"{home} {type(value).__name__}"


def refusal(context: Context) -> CheckFailed | None:
    """Return the failure of a step that cannot be called, or nothing.

    Every check of it fails with this one, and is folded into one message.
    """
    for dtype in (np.float32, np.float64):
        for lead in LEADING:
            try:
                called(context, dtype, lead)
            except Exception as error:
                shape = (*lead, context.size)
                return CheckFailed(
                    "step(h, x, theta) accepts any leading axes",
                    f"{type(error).__name__} for h of shape {shape}: {brief(error)}",
                    *remedy_of(context, error),
                )
    return None


def exchanged(context: Context) -> CheckFailed | None:
    """Return the failure of a step whose parameters are named in another order, or nothing."""
    try:
        names = list(inspect.signature(context.recurrence.step).parameters)[:2]
    except (TypeError, ValueError):
        return None
    if context.system.x is None or len(names) < 2:
        return None
    if names[0] not in DRIVES or names[1] not in STATES:
        return None
    return CheckFailed(
        "step is called as step(h, x, theta)",
        f"its first parameter is called {names[0]}, its second {names[1]}",
        "put the state first, as lax.scan does and torch's cells do not",
        "state and drive are exchanged",
    )


def remedy_of(context: Context, error: Exception) -> tuple[str, str]:
    """Return remedy and defect for an error of step: what it was not given, before all."""
    missing = [
        name
        for name, value in (("x", context.system.x), ("theta", context.system.theta))
        if value is None
    ]
    if missing and "None" in str(error):
        names = " and ".join(missing)
        return f"pass {names}", f"{names} was not given, and is None in step"
    if "positional argument" in str(error) or "exactly one argument" in str(error):
        return "define step(h, x, theta), with three positional arguments in this order", ""
    remedy = (
        f"{LAST_AXIS}; NumPy's functions (np.tanh, not math.tanh) and np.where in place of if, "
        "which take arrays"
    )
    return remedy, ""


def calls_are_deterministic(context: Context) -> None:
    """The same arguments give the same bits, whatever was called before.

    Proves: two calls with equal arguments, with calls on other states between, agree bit by bit.

    Costs: 9 calls on 3 states.

    A failure means: step keeps something between calls (a counter, a list, the last state, a cache
    that takes other arguments for these) or draws random numbers.
    """
    h, x = context.sampled(SAMPLES)
    remedy = (
        "keep nothing between calls: no counter, no last state, no random numbers; what changes "
        "along time belongs into x or into h"
    )
    order = [0, 1, 2, 0, 2, 1, 0, 2, 1]
    first: dict[int, Array] = {}
    for call, t in enumerate(order):
        f = np.array(context.call(h[t].copy(), None if x is None else x[t].copy()))
        if t not in first:
            first[t] = f
        elif not np.array_equal(f, first[t], equal_nan=True):
            index = tuple(int(i) for i in np.argwhere(f != first[t])[0])
            now, before = numbers(f[index], first[t][index])
            raise CheckFailed(
                "equal arguments give equal results",
                f"{now} in call {call + 1}, {before} in call {order.index(t) + 1} of the same "
                f"arguments{place((t, *index))}",
                remedy,
                "step keeps something between calls, or draws random numbers",
            )


def results_are_not_overwritten(context: Context) -> None:
    """What step returned stays as it is when step is called again.

    Proves: a result is unchanged after two further calls on other states of the same shape, and
    shares no memory with theirs.

    Costs: 3 calls on 3 states.

    A failure means: step returns a buffer that it uses again, as by ``out=``, or what a cache has
    kept for another state.
    """
    h, x = context.sampled(SAMPLES)
    result = context.call(h[0].copy(), None if x is None else x[0].copy())
    kept = np.array(result)
    for t in (1, 2):
        other = context.call(h[t].copy(), None if x is None else x[t].copy())
        if isinstance(other, np.ndarray) and np.shares_memory(other, result):
            same = np.array_equal(other, kept)
            raise CheckFailed(
                "every call makes a new array",
                f"calls for steps 0 and {t} return the same array; its first value was "
                f"{number(kept.flat[0])} and is {number(other.flat[0])}",
                "make a new array in every call: no out=, no buffer and no cache between calls",
                "a cache that takes other arguments for these" if same else "a buffer used again",
            )
    require_close(
        "a result stays as it is",
        result,
        kept,
        0.0,
        axes="sequence component",
        names=("after two more calls", "before"),
        remedy="make a new array in every call: no out=, no buffer kept between calls",
    )


def inputs_are_not_mutated(context: Context) -> None:
    """Step, jacobian= and vjp= write into none of their arguments.

    Proves: h, x, every leaf of theta and the adjoint of vjp= hold the same bits after a call as
    before.

    Costs: 1 call of each on 15 states.

    A failure means: an operation in place (``h += ...``, ``h[..., 0] = ...``, ``out=h``), whose
    effect is seen by whoever holds that array.
    """
    recurrence = context.recurrence
    require_unwritten(context, "step", recurrence.step)
    if callable(recurrence.jacobian):
        require_unwritten(context, "jacobian", recurrence.jacobian)
    if recurrence.vjp is not None:
        lam = np.random.default_rng(1).standard_normal((*SAMPLES, context.size))
        require_unwritten(context, "vjp", recurrence.vjp, lam.astype(context.system.h0.dtype))


def require_unwritten(
    context: Context, function: str, call: Callable[..., Any], *lam: Array
) -> None:
    """Raise CheckFailed if a function of a recurrence writes into an argument."""
    h, x = context.sampled(SAMPLES)
    theta = copied(context.system.theta)
    arguments = {"h": h, "x": x} | dict(zip(("lam",), lam, strict=False))
    arguments |= dict(zip(tree.paths(theta), tree.flatten(theta)[0], strict=True))
    before = {
        name: np.array(value) for name, value in arguments.items() if isinstance(value, np.ndarray)
    }
    try:
        call(h, x, theta, *lam)
    except Exception:
        if function == "step":
            raise
        return  # the check of jacobian= or vjp= says so
    for name, value in before.items():
        after = np.asarray(arguments[name])
        if np.array_equal(after, value, equal_nan=value.dtype.kind == "f"):
            continue
        index = tuple(int(i) for i in np.argwhere(after != value)[0])
        was, now = numbers(value[index], after[index])
        entry = name + "".join(f"[{i}]" for i in index)  # of theta; the others have names of axes
        of_states = name in ("h", "x", "lam")
        what, where = (name, place(index, AXES)) if of_states else (entry, "")
        raise CheckFailed(
            f"{function} leaves its arguments as they are",
            f"{what} was {was} and is {now}{where}",
            f"write into a copy: {name[:5].split('[')[0]}.copy(), or np.where and np.concatenate",
            f"{function} writes into {name}",
        )


CHECKS: dict[str, Callable[[Context], str | None]] = {
    check.__name__: check
    for check in (
        shapes_and_dtypes_are_kept,
        calls_are_deterministic,
        results_are_not_overwritten,
        inputs_are_not_mutated,
    )
}
