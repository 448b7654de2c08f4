"""What becomes of the rows of a dense kernel after a step: they are stored, and stay or leave."""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="import-untyped, no-untyped-call, misc, call-arg, var-annotated"
from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types, uint64
from numba.extending import intrinsic

from pararnn_solvers.compiled.arithmetic import Emit
from pararnn_solvers.linear.jit import inlined
from pararnn_solvers.typing import Array

__all__ = ["greatest", "is_finite", "nothing_seen", "retire"]


def nothing_seen(dtype: Any) -> Array:
    """Return the array in which a kernel keeps the bits of the greatest magnitude it has seen."""
    return np.zeros(1, np.int32 if dtype == np.float32 else np.int64)


def is_finite(seen: Array, dtype: Any) -> bool:
    """Tell whether all is finite of what a kernel saw."""
    return bool(np.isfinite(seen.view(dtype)).all())


@intrinsic
def magnitude_bits(typing: Any, x: Any) -> tuple[Any, Emit]:
    """``magnitude_bits(x)``: the bits of ``|x|``, an integer; NaN exceeds all others."""
    word = types.int32 if x == types.float32 else types.int64

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.IntType(x.bitwidth)
        mask = ir.Constant(kind, (1 << (x.bitwidth - 1)) - 1)
        return builder.and_(builder.bitcast(args[0], kind), mask)

    return word(x), emit


@intrinsic
def number_of(typing: Any, bits: Any) -> tuple[Any, Emit]:
    """``number_of(bits)``: the number that has these bits."""
    real = types.float32 if bits.bitwidth == 32 else types.float64

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(real))

    return real(bits), emit


@intrinsic
def greater_of(typing: Any, a: Any, b: Any) -> tuple[Any, Emit]:
    """``greater_of(a, b)``: of two integers of one type."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed(">", *args), *args)

    return a(a, a), emit


@inlined
def greatest(a: Any, i: Any, size: Any, before: Any) -> Any:
    """Return the greatest magnitude in a slice from `i` on and `before`, all as bits."""
    for k in range(size):
        before = greater_of(before, magnitude_bits(a[i + k]))
    return before


@inlined
def distance(a: Any, i: Any, b: Any, j: Any, size: Any) -> Any:
    """Return ``max |a - b|`` and ``max |a|`` of slices from `i` and `j` on; NaN if one is."""
    far = great = magnitude_bits(a.dtype.type(0))
    for k in range(size):
        far = greater_of(far, magnitude_bits(a[i + k] - b[j + k]))
        great = greater_of(great, magnitude_bits(a[i + k]))
    return number_of(far), number_of(great)


@inlined
def copy(source: Any, i: Any, target: Any, j: Any, size: Any) -> None:
    """Copy a slice from `i` on to `j`."""
    for k in range(size):
        target[j + k] = source[i + k]


@inlined
def retire(
    rows: Any,
    d: Any,
    batch: Any,
    h: Any,
    new: Any,
    state: Any,
    position: Any,
    left: Any,
    row: Any,
    met: Any,
    gap: Any,
    tolerance: Any,
    seen: Any,
) -> Any:
    """Store the new states of all rows, and keep those that have not arrived; return how many.

    A row ends after its last step. Where a tolerance is given, it ends before storing a state that
    is as close to the stored one, of which the stored states are the continuation.

    Parameters
    ----------
    rows, d, batch : uint64
    h : array, shape (T * batch * d,)
        The trajectory.
    new, state : arrays, shape (at least rows * d,)
        States after and before the step; `state` is replaced for the rows that are kept.
    position, left, row : arrays of uint64
        Where in the trajectory, how many steps are left, and which row it was at first: moved up
        with the rows that are kept.
    met : array of uint64
        For each row, how many steps were left when it met the stored trajectory; 0 if never.
    gap : array, shape (rows, 2)
        How far it was from it at its first step, and where it met it.
    tolerance : array, shape (2,)
        ``atol`` and ``rtol``; a negative one asks for no comparison.
    seen : array of integers, shape (1,)
        The bits of the greatest magnitude so far.
    """
    seen[0] = greatest(new, uint64(0), rows * d, seen[0])
    kept = uint64(0)
    for r in range(rows):
        start, i = position[r] * d, row[r]
        if tolerance[0] >= 0:
            far, great = distance(h, start, new, r * d, d)
            if gap[i, 0] < 0:
                gap[i, 0] = far
            if far <= tolerance[0] + tolerance[1] * great:
                met[i] = left[r]
                gap[i, 1] = far
                continue
        copy(new, r * d, h, start, d)
        if left[r] > 1:
            copy(new, r * d, state, kept * d, d)
            position[kept] = position[r] + batch
            left[kept] = left[r] - uint64(1)
            row[kept] = i
            kept += uint64(1)
    return kept
