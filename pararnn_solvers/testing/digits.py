"""Checks that a step computes with all digits of its dtype, the same in each, without jumps."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pararnn_solvers.testing.context import (
    SAMPLES,
    Context,
    copy,
    number,
    numbers,
    place,
    require_close,
)
from pararnn_solvers.testing.results import CheckFailed

PIECES = 32  # of a line between two states, in which jumps are looked for


def all_digits_are_used(context: Context) -> None:
    """A small change of the state changes the result as its slope says, in float64.

    Proves: a change of h by 2**-30 of its size changes the result by slope times change, to 64
    units in the last place of the result and 1 % of the change.

    Costs: 6 calls on 15 states.

    A failure means: something inside is computed or stored in float32 (or rounded, or tabulated),
    so that residuals cannot fall below some 1e-7 and differences are noise.
    """
    wide = context.wide
    h, x = wide.sampled(SAMPLES)
    scale = float(np.max(np.abs(h))) or 1.0
    small = scale * 2.0**-30
    base = wide.call(h.copy(), copy(x))
    got = wide.call(h + small, copy(x)) - base
    rounding = wide.rounding(np.float64) * max(scale, float(np.max(np.abs(base))))
    expected = np.full_like(base, np.inf)
    for large in (scale * 2.0**-12, scale * 2.0**-18):  # a kink may lie within the greater one
        slope = (wide.call(h + large, copy(x)) - wide.call(h - large, copy(x))) / (2 * large)
        nearer = np.abs(got - slope * small) < np.abs(got - expected)
        expected = np.where(nearer, slope * small, expected)
    allowed = rounding + 0.01 * float(np.max(np.abs(expected)))
    error = np.abs(got - expected)
    if np.all(error <= allowed) or not np.all(np.isfinite(error)):
        return
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))
    raise CheckFailed(
        "in float64, a small change of h changes the result in proportion",
        f"h changed by {small:.3g}; the result changed by {number(got[index])}, by its slope "
        f"expected {number(expected[index])}{place(index)}",
        "compute in the dtype of h: look for a cast to float32, a rounding, a table inside step",
        "step loses digits",
    )


def float32_agrees_with_float64(context: Context) -> None:
    """In float32, step computes the same function as in float64.

    Proves: on states, drives and parameters that both dtypes hold, results differ by rounding of
    float32, relative to the sizes of result, state and drive.

    Costs: 2 calls on 15 states.

    A failure means: an overflow or underflow in float32 (``exp`` beyond 88, a guard of 1e-50
    against zero), a branch on the dtype, or a cancellation that leaves float32 without digits.
    """
    narrow = context.cast(np.float32)
    h, x = (None if a is None else a.astype(np.float32) for a in context.sampled(SAMPLES))
    assert h is not None
    exact = narrow.wide.call(h.astype(np.float64), None if x is None else x.astype(np.float64))
    drive = 0.0 if x is None else float(np.max(np.abs(x), initial=0))
    require_close(
        "step computes the same function in float32 as in float64",
        narrow.call(h, x),
        exact,
        narrow.rounding(np.float32),
        scale=max(float(np.max(np.abs(h))), drive),
        names=("in float32", "in float64"),
        remedy="mind the range of float32 (1e-38 to 3e38) and cancellation: np.expm1, np.log1p, "
        "np.logaddexp, prs.sigmoid; no branch on the dtype",
        defect="step computes something else in float32",
    )


def step_is_continuous(context: Context) -> None:
    """Between the states of the data, step does not jump.

    Proves: each of 15 lines from one state to another is cut in 32 pieces, and of each piece 60
    times the half is kept in which the result changes more; no change is left that is greater than
    5e-6 of the results.

    Costs: 62 calls on 480 states.

    A failure means: ``sign``, ``floor``, a rounding, a cast to integers or float16, ``argmax``, a
    ``mod`` of angles, or a ``np.where`` whose branches do not meet. Derivatives do not see a jump,
    and methods that use them may miss states beyond it.
    """
    h, x = context.wide.sampled(SAMPLES)
    cuts = np.linspace(0, 1, PIECES + 1)[:, None, None, None]
    points = h + cuts * (np.roll(h.reshape(-1, h.shape[-1]), 1, axis=0).reshape(h.shape) - h)
    drives = None if x is None else np.broadcast_to(x, (PIECES, *x.shape)).copy()
    low, high = points[:-1], points[1:]
    f_low, f_high = (context.wide.call(side.copy(), copy(drives)) for side in (low, high))
    spread = np.ptp(f_low, axis=0)
    for _ in range(60):
        middle = (low + high) / 2
        f = context.wide.call(middle.copy(), copy(drives))
        left = np.max(np.abs(f - f_low), axis=-1) >= np.max(np.abs(f_high - f), axis=-1)
        first = left[..., None]
        low, f_low = np.where(first, low, middle), np.where(first, f_low, f)
        high, f_high = np.where(first, middle, high), np.where(first, f, f_high)
    jump = np.abs(f_high - f_low)
    jump[~(jump <= 2 * spread)] = 0  # a pole grows, a jump does not; what is not finite is no jump
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(jump)), jump.shape))
    if jump[index] <= 5e-6 * np.max(np.abs(f_low), where=np.isfinite(f_low), initial=0):
        return
    before, after = numbers(f_low[index], f_high[index])
    raise CheckFailed(
        "step is continuous in h",
        f"the result jumps from {before} to {after}{place(index[1:])}, where h is "
        f"{number(low[index])}",
        "let the branches of np.where meet; sin and cos of an angle need no mod; if the jump is "
        "meant, say so in expected_failures: methods converge while states stay on one side of it",
        "step jumps (sign, floor, a rounding, argmax, mod, a branch that does not meet the other)",
    )


CHECKS: dict[str, Callable[[Context], str | None]] = {
    check.__name__: check
    for check in (
        all_digits_are_used,
        step_is_continuous,
        float32_agrees_with_float64,
    )
}
