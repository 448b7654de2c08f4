"""Squares of numbers transposed in registers."""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="import-untyped, no-untyped-call, misc"
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pararnn_solvers.compiled.addresses import Address
from pararnn_solvers.compiled.arithmetic import Emit
from pararnn_solvers.linear.simd import VectorType


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Emit the transpose of a square of vectors, by shuffles that processors have.

    First within the 128-bit quarters of e elements: those of e neighbouring rows become columns.
    Then the quarters themselves.
    """
    size = len(rows)
    e = size // 4
    numbers = ir.VectorType(ir.IntType(32), size)

    def shuffled(a: Any, b: Any, lanes: list[int]) -> Any:
        return builder.shuffle_vector(a, b, ir.Constant(numbers, lanes))

    def unpacked(a: Any, b: Any, half: int, run: int) -> Any:
        """Alternate runs of a and b out of one half of each quarter."""
        lanes = []
        for quarter in range(0, size, e):
            for first in range(0, e // 2, run):
                start = quarter + half * (e // 2) + first
                lanes += [*range(start, start + run), *range(size + start, size + start + run)]
        return shuffled(a, b, lanes)

    def quarters(a: Any, b: Any, chosen: tuple[int, int]) -> Any:
        lanes = [side * size + q * e + x for side in (0, 1) for q in chosen for x in range(e)]
        return shuffled(a, b, lanes)

    columns: list[list[Any]] = []  # of each group of e rows
    for g in range(4):
        group, run = rows[g * e : (g + 1) * e], 1
        while run < e:
            pairs = [(i, i + run) for i in range(e) if not i & run]
            mixed: list[Any] = [None] * e
            for i, other in pairs:
                mixed[i] = unpacked(group[i], group[other], 0, run)
                mixed[other] = unpacked(group[i], group[other], 1, run)
            group, run = mixed, 2 * run
        columns.append(group)
    order = list(range(e)) if e == 2 else [0, 2, 1, 3]
    done: list[Any] = [None] * size
    for place, column in enumerate(order):
        u = [columns[g][place] for g in range(4)]
        even = [quarters(u[g], u[g + 1], (0, 2)) for g in (0, 2)]
        odd = [quarters(u[g], u[g + 1], (1, 3)) for g in (0, 2)]
        done[column] = quarters(even[0], even[1], (0, 2))
        done[2 * e + column] = quarters(even[0], even[1], (1, 3))
        done[e + column] = quarters(odd[0], odd[1], (0, 2))
        done[3 * e + column] = quarters(odd[0], odd[1], (1, 3))
    return done


@intrinsic
def transpose(
    typing: Any, source: Any, start: Any, pitch: Any, target: Any, begin: Any, width: Any
) -> tuple[Any, Emit]:
    """``transpose(a, i, p, b, j, q)``: as many rows as a vector has elements, in registers.

    Row r is at ``a[i + r p]``; what were columns goes to ``b[j + r q]``.
    """
    size = VectorType(source.dtype).size

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, i, p, b, j, q = args
        at, to = (
            Address(context, builder, kind, value) for kind, value in ((source, a), (target, b))
        )

        def place(first: Any, step: Any, r: int) -> Any:
            return builder.add(first, builder.mul(step, ir.Constant(step.type, r)))

        rows = _transposed(builder, [at.load(place(i, p, r)) for r in range(size)])
        for r in range(size):
            to.store(place(j, q, r), rows[r])
        return context.get_dummy_value()

    return types.void(source, types.int64, types.int64, target, types.int64, types.int64), emit
