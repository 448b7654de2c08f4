"""What becomes of many vectors, or of the elements of one."""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="import-untyped, no-untyped-call, misc, untyped-decorator"
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from pararnn_solvers.compiled.arithmetic import Emit, constant, emit_llvm


def _bits(builder: Any, x: Any, element: Any) -> Any:
    """Emit numbers as integers, which those without a sign are ordered as, NaN beyond infinity."""
    word = ir.IntType(element.bitwidth)
    return builder.bitcast(x, ir.VectorType(word, x.type.count))


@intrinsic
def farthest(typing: Any, a: Any, x: Any) -> tuple[Any, Emit]:
    """``farthest(a, x)``: the greater of ``a``, which has no sign, and ``|x|``; NaN wins."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        positive = emit_llvm("fabs")(context, builder, sig, args[1:])
        far, new = (_bits(builder, v, a.dtype) for v in (args[0], positive))
        greater = builder.select(builder.icmp_signed(">", new, far), new, far)
        return builder.bitcast(greater, args[0].type)

    return a(a, x), emit


@intrinsic
def greatest(typing: Any, a: Any) -> tuple[Any, Emit]:
    """``greatest(a)``: the greatest of elements that have no sign, NaN if any is."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        v = _bits(builder, args[0], a.dtype)
        numbers = ir.VectorType(ir.IntType(32), a.size)
        distance = a.size // 2
        while distance:
            others = ir.Constant(numbers, [(i + distance) % a.size for i in range(a.size)])
            other = builder.shuffle_vector(v, v, others)
            v = builder.select(builder.icmp_signed(">", v, other), v, other)
            distance //= 2
        first = builder.extract_element(v, ir.Constant(ir.IntType(32), 0))
        return builder.bitcast(first, args[0].type.element)

    return a.dtype(a), emit


@intrinsic
def total(typing: Any, x: Any) -> tuple[Any, Emit]:
    """``total(v)``: the sum of the elements, by halves."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (v,) = args
        numbers = ir.VectorType(ir.IntType(32), x.size)
        distance = x.size // 2
        while distance:
            others = ir.Constant(numbers, [(i + distance) % x.size for i in range(x.size)])
            v = builder.fadd(v, builder.shuffle_vector(v, v, others))
            distance //= 2
        return builder.extract_element(v, ir.Constant(ir.IntType(32), 0))

    return x.dtype(x), emit


@intrinsic
def spoil(typing: Any, zero: Any, values: Any) -> tuple[Any, Emit]:
    """``spoil(z, v)``: zero, but NaN where ``z`` or any of some vectors is not finite.

    Also where their sum overflows: what it tells is to look closer.
    """

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        found = [builder.extract_value(args[1], i) for i in range(len(values))]
        total = found[0]
        for value in found[1:]:
            total = builder.fadd(total, value)
        nothing = builder.fmul(total, constant(total.type, 0.0), flags=("contract",))
        return builder.fadd(args[0], nothing, flags=("contract",))

    return zero(zero, values), emit
