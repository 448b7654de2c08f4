"""Checks that a step treats every state alone: leading axes never mix."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers.testing.context import (
    AXES,
    LAST_AXIS,
    LEADING,
    SAMPLES,
    Context,
    copy,
    farthest,
    numbers,
    place,
    require_close,
)
from pararnn_solvers.testing.results import CheckFailed
from pararnn_solvers.typing import Array

MOST_ALONE = 8  # sequences as many as channels, one by one


def vectorized_is_one_at_a_time(context: Context) -> None:
    """A call on many states equals as many calls on one state.

    Proves: the equality for (T, batch) of (2,), (1, 2), ... (5, 3), for as many sequences as there
    are channels or components (up to 8), to rounding, and for all steps of the data at once.

    Costs: 13 calls on at most 15 states, 76 on single ones, and one on at most 48.

    A failure means: step mixes states (a mean, a maximum or a cumulative sum over a leading axis),
    branches on a value of all states together (``if np.any(...)``) or on their number, draws masks
    in the shape of h, or gives theta an axis that fits where the batch equals the channels.
    """
    d = context.size
    _, n = context.recurrence.structure(d)
    for lead in [*LEADING, *sorted({(count,) for count in (d, n) if 3 < count <= MOST_ALONE})]:
        h, x = context.sampled(lead)
        alone = np.empty_like(h)
        for index in np.ndindex(lead):
            alone[index] = context.call(h[index].copy(), None if x is None else x[index].copy())
        require_close(
            "step gives a state among others what it gives that state alone",
            context.call(h.copy(), None if x is None else x.copy()),
            alone,
            context.rounding(h.dtype),
            scale=float(np.max(np.abs(h))),
            axes=AXES,
            names=("among others", "alone"),
            remedy=f"{LAST_AXIS}; np.where in place of if; no array made by the shape of h but "
            f"zeros (found with h of shape {h.shape})",
        )
    states, x = context.trajectory, context.system.x
    require_close(
        "step gives all steps of the data at once what it gives one after another",
        context.call(states[:-1].copy(), None if x is None else x[: len(states) - 1].copy()),
        states[1:],
        context.rounding(states.dtype),
        scale=float(np.max(np.abs(states))),
        names=("at once", "one after another"),
        remedy=f"let nothing depend on how many steps there are; {LAST_AXIS}",
        defect=f"step computes something else for {len(states) - 1} steps than for fewer",
    )


def time_steps_do_not_mix(context: Context) -> None:
    """What step returns for one time step depends on no other time step.

    Proves: changing h, or x, at one of 5 steps, changes the result at that step only.

    Costs: 11 calls on 15 states.

    A failure means: step looks along the time axis: a shift by one step (off by one, a peek at the
    next drive), a difference, a mean or a cumulative sum over axis 0.
    """
    require_apart(context, 0, "step")


def sequences_do_not_mix(context: Context) -> None:
    """What step returns for one sequence depends on no other sequence.

    Proves: changing h, or x, in one of 3 sequences, changes the result in that sequence only.

    Costs: 7 calls on 15 states.

    A failure means: something is shared by the batch, such as a normalization by its mean.
    """
    require_apart(context, 1, "sequence")


def require_apart(context: Context, axis: int, what: str) -> None:
    """Change one index of a leading axis, of h or of x; the result elsewhere has to stay."""
    given: dict[str, Any] = dict(zip("hx", context.sampled(SAMPLES), strict=True))
    before = context.call(*map(copy, given.values()))
    for name, array in given.items():
        if array is None or not array.size:
            continue
        size = max(1.0, float(np.max(np.abs(array))))
        for i in range(SAMPLES[axis]):
            changed = {**given, name: array.copy()}
            np.moveaxis(changed[name], axis, 0)[i] += array.dtype.type(size)
            after = context.call(*map(copy, changed.values()))
            kept = np.arange(SAMPLES[axis]) != i
            got, expected = (np.compress(kept, a, axis) for a in (after, before))
            scale = float(np.max(np.abs(given["h"])))
            where = farthest(got, expected, context.rounding(array.dtype), scale)
            if where is None:
                continue
            index = list(where)
            index[axis] = int(np.flatnonzero(kept)[where[axis]])
            old, new = numbers(expected[where], got[where])
            nudged = {**given, name: array.copy()}
            np.moveaxis(nudged[name], axis, 0)[i] *= array.dtype.type(1 + 1e-5)
            slightly = context.call(*map(copy, nudged.values()))
            raise CheckFailed(
                f"{name} of one {what} changes the result of no other {what}",
                f"{name} changed at {what} {i}; the result changed from {old} to {new}"
                f"{place(tuple(index))}",
                f"{LAST_AXIS}; np.where in place of if",
                defect_of(axis, i, before, after, slightly),
            )


def defect_of(axis: int, i: int, before: Array, after: Array, slightly: Array) -> str:
    """Name what lets others depend on index i: results `after` a change of it, and `slightly`."""
    others = [j for j in range(before.shape[axis]) if not same(before, after, j, axis)]
    shifts = {j - i for j in others} - {0}
    if axis == 0 and shifts == {1}:
        return "step looks one step back along the time axis (off by one)"
    if axis == 0 and shifts == {-1}:
        return "step peeks at the next step along the time axis"
    if all(same(before, slightly, j, axis) for j in others if j != i):
        return (
            "step decides by a value of all states together (an if, or a maximum over a leading "
            "axis)"
        )
    return f"step mixes axis {axis} (a mean, a norm, a sum over it?)"


def same(a: Array, b: Array, i: int, axis: int) -> bool:
    """Tell whether two results are equal at one index of an axis."""
    return bool(np.array_equal(a.take(i, axis), b.take(i, axis), equal_nan=True))


def leading_axes_broadcast(context: Context) -> None:
    """Steps and sequences keep their axes, be there as many of the one as of the other or not.

    Proves: with T = batch = 3, and with T = 3 or 2 and batch = 2 or 3, every state gets what it
    gets alone.

    Costs: 3 calls on at most 9 states, and 21 on single ones.

    A failure means: an array is transposed, or given a new axis on the wrong side; NumPy broadcasts
    it silently where T happens to equal the batch, and refuses it elsewhere.
    """
    promised = "states of shapes (3, 3, d), (3, 2, d) and (2, 3, d) are each treated as alone"
    for lead in ((3, 3), (3, 2), (2, 3)):
        h, x = context.sampled(lead)
        remedy = f"take care of transposes and of axes from np.newaxis: {LAST_AXIS}"
        try:
            together = context.call(h.copy(), copy(x))
        except ValueError as error:
            square = "; it accepts T = batch = 3" if lead != (3, 3) else ""
            raise CheckFailed(
                promised, f"ValueError for h of shape {h.shape}{square}: {error}", remedy
            ) from error
        alone = np.stack(
            [
                np.stack(
                    [
                        context.call(h[t, b].copy(), None if x is None else x[t, b].copy())
                        for b in range(lead[1])
                    ]
                )
                for t in range(lead[0])
            ]
        )
        require_close(
            promised,
            together,
            alone,
            context.rounding(h.dtype),
            names=(f"with h of shape {h.shape}", "alone"),
            remedy=remedy,
            scale=float(np.max(np.abs(h))),
        )


def nan_stays_where_it_is(context: Context) -> None:
    """A NaN at one step of one sequence reaches no other.

    Proves: with x, or h, NaN at one place, results at all other steps and sequences are the same
    bits.

    Costs: 3 calls on 15 states.

    A failure means: states are added up over a leading axis and multiplied by zero, which hides
    them unless one is NaN: a mask by multiplication. One diverging sequence then ruins the others.
    """
    given: dict[str, Any] = dict(zip("hx", context.sampled(SAMPLES), strict=True))
    before = context.call(*map(copy, given.values()))
    at = (2, 1)
    for name, array in given.items():
        if array is None:
            continue
        spoiled = {**given, name: array.copy()}
        spoiled[name][at] = np.nan
        after = context.call(*map(copy, spoiled.values()))
        after[at] = before[at]
        require_close(
            "a NaN stays in its step and sequence",
            after,
            before,
            context.rounding(array.dtype),
            scale=float(np.max(np.abs(given["h"]))),
            names=(f"with {name} NaN at step 2, sequence 1, the result is", "before it was"),
            remedy="select by np.where, never by multiplying with a mask; " + LAST_AXIS,
            defect="states are multiplied by zero and added up, which NaN survives",
        )


CHECKS: dict[str, Callable[[Context], str | None]] = {
    check.__name__: check
    for check in (
        time_steps_do_not_mix,
        sequences_do_not_mix,
        vectorized_is_one_at_a_time,
        leading_axes_broadcast,
        nan_stays_where_it_is,
    )
}
