"""Checks of what every step promises: a function of its arguments, and of nothing else."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.testing.context import (
    AXES,
    LAST_AXIS,
    LEADING,
    SAMPLES,
    Context,
    copied,
    numbers,
    place,
    require_close,
)
from pararnn_solvers.testing.results import CheckFailed
from pararnn_solvers.typing import Array


def shapes_and_dtypes_are_kept(context: Context) -> None:
    """States come back in the shape and the dtype in which they were given.

    Proves: for no, one, two and three leading axes, and for float32 and float64 data, step returns
    an array of the shape and the dtype of h.

    Costs: 22 calls of step on at most 15 states.

    A failure means: constants or parameters of another dtype promote the state, a reduction drops
    an axis, or step was written for one number of leading axes.
    """
    promised = "step returns an array of the shape and dtype of h"
    for dtype in (np.float32, np.float64):
        cast = context.cast(dtype)
        for lead in LEADING:
            h, x = (None if a is None else a.astype(dtype) for a in context.sampled(lead))
            assert h is not None
            try:
                f = cast.call(h, x)
            except Exception as error:
                raise CheckFailed(
                    promised,
                    f"{type(error).__name__} for h {h.shape}: {error}",
                    f"accept any leading axes: {LAST_AXIS}; np.where in place of if",
                ) from error
            shape, kind = getattr(f, "shape", None), getattr(f, "dtype", type(f).__name__)
            if shape != h.shape:
                raise CheckFailed(
                    promised, f"shape {shape} for h of shape {h.shape}", f"{LAST_AXIS}, keepdims"
                )
            if kind != h.dtype:
                raise CheckFailed(
                    promised,
                    f"{kind} for h, x and theta in {h.dtype} (h of shape {h.shape})",
                    "make constants of Python's floats or like h (np.zeros_like(h)); cast nothing; "
                    "or say in expected_failures that only one dtype is used",
                )


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
            )


def results_are_not_overwritten(context: Context) -> None:
    """What step returned stays as it is when step is called again.

    Proves: a result is unchanged after two further calls on other states of the same shape.

    Costs: 3 calls on 3 states.

    A failure means: step returns a buffer that it uses again, as by ``out=``.
    """
    h, x = context.sampled(SAMPLES)
    result = context.call(h[0].copy(), None if x is None else x[0].copy())
    kept = np.array(result)
    for t in (1, 2):
        context.call(h[t].copy(), None if x is None else x[t].copy())
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
    """Step writes into none of its arguments.

    Proves: h, x and every leaf of theta hold the same bits after a call as before.

    Costs: 1 call on 15 states.

    A failure means: an operation in place (``h += ...``, ``h[..., 0] = ...``, ``out=h``), whose
    effect is seen by whoever holds that array.
    """
    h, x = context.sampled(SAMPLES)
    theta = copied(context.system.theta)
    arguments = {"h": h, "x": x}
    arguments |= dict(zip(tree.paths(theta), tree.flatten(theta)[0], strict=True))
    before = {
        name: np.array(value) for name, value in arguments.items() if isinstance(value, np.ndarray)
    }
    context.call(h, x, theta)
    for name, value in before.items():
        after = np.asarray(arguments[name])
        if np.array_equal(after, value, equal_nan=value.dtype.kind == "f"):
            continue
        index = tuple(int(i) for i in np.argwhere(after != value)[0])
        was, now = numbers(value[index], after[index])
        entry = name + "".join(f"[{i}]" for i in index)  # of theta; h and x have names of axes
        what, where = (name, place(index, AXES)) if name in ("h", "x") else (entry, "")
        raise CheckFailed(
            "step leaves its arguments as they are",
            f"{what} was {was} and is {now}{where}",
            f"write into a copy: {name[:5].split('[')[0]}.copy(), or np.where and np.concatenate",
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
