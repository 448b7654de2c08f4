"""Numbers as bits: exponents and last digits, without converting to an integer and back.

A number is added to a constant so large that the last bit of the sum counts ones. Conversions
between floats and 64-bit integers have no vector instruction before AVX-512.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="import-untyped, no-untyped-call, misc"
from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pararnn_solvers.compiled.arithmetic import Emit, constant, element, truth
from pararnn_solvers.linear.simd import VectorType


class _Format(NamedTuple):
    """How numbers lie in memory: a sign, the exponent plus `bias`, then `mantissa` bits.

    ``real`` and ``word`` are LLVM's types for them as floats and as integers, or vectors of those.
    """

    real: Any
    word: Any
    mantissa: int
    bias: int

    @property
    def one(self) -> int:
        """The bits of 1.0."""
        return self.bias << self.mantissa

    def bits(self, builder: Any, x: Any) -> Any:
        return builder.bitcast(x, self.word)

    def counted(self, builder: Any, n: Any, more: int = 0) -> Any:
        """Return the bits of a number whose last bits are those of the integer ``n + more``."""
        magic = constant(self.real, 1.5 * 2.0**self.mantissa + more)
        return self.bits(builder, builder.fadd(n, magic))


_FORMATS = {
    types.float32: _Format(ir.FloatType(), ir.IntType(32), 23, 127),
    types.float64: _Format(ir.DoubleType(), ir.IntType(64), 52, 1023),
}


def _format(x: Any) -> _Format:
    form = _FORMATS[element(x)]
    if not isinstance(x, VectorType):
        return form
    return form._replace(
        real=ir.VectorType(form.real, x.size), word=ir.VectorType(form.word, x.size)
    )


@intrinsic
def nearest(typing: Any, x: Any) -> tuple[Any, Emit]:
    """``nearest(x)``: the nearest integer, for ``|x| < 2**22`` (float32) or ``2**51``."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        form = _format(x)
        magic = constant(form.real, 1.5 * 2.0**form.mantissa)
        return builder.fsub(builder.fadd(args[0], magic), magic)

    return x(x), emit


@intrinsic
def power_of_two(typing: Any, n: Any) -> tuple[Any, Emit]:
    """``power_of_two(n)``: ``2**n`` for an integer ``n`` that makes it a normal number.

    One below that range gives 0, one above infinity.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        form = _format(n)
        exponent = form.counted(builder, args[0], form.bias)
        shifted = builder.shl(exponent, constant(form.word, form.mantissa))
        return builder.bitcast(shifted, form.real)

    return n(n), emit


@intrinsic(prefer_literal=True)
def bit(typing: Any, n: Any, place: Any) -> tuple[Any, Emit]:
    """``bit(n, k)``: whether bit ``k`` of the integer ``n`` is set, in the range of `nearest`."""
    mask = 1 << place.literal_value

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        form = _format(n)
        masked = builder.and_(form.counted(builder, args[0]), constant(form.word, mask))
        return builder.icmp_unsigned("!=", masked, constant(form.word, 0))

    return truth(n)(n, place), emit


@intrinsic
def split(typing: Any, x: Any) -> tuple[Any, Emit]:
    """``split(x)``: ``m, e`` with ``x = m * 2**e`` and m from sqrt(1/2) to sqrt(2).

    ``x`` is positive, finite and normal; anything else gives a finite ``e``.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        form = _format(x)

        def word(value: int) -> Any:
            return constant(form.word, value)

        # From here up the exponent field counts from sqrt(1/2) instead of from 1.
        half_root = 0x3F3504F3 if form.mantissa == 23 else 0x3FE6A09E667F3BCD
        shifted = builder.add(form.bits(builder, args[0]), word(form.one - half_root))
        field = builder.lshr(shifted, word(form.mantissa))
        # The field as a number: the last bits of 2**mantissa, which is then subtracted.
        large = 2.0**form.mantissa
        counted = builder.or_(field, word(form.mantissa + form.bias << form.mantissa))
        e = builder.bitcast(counted, form.real)
        e = builder.fsub(e, constant(form.real, large + form.bias))
        rest = builder.and_(shifted, word((1 << form.mantissa) - 1))
        m = builder.bitcast(builder.add(rest, word(half_root)), form.real)
        return context.make_tuple(builder, signature.return_type, [m, e])

    return types.UniTuple(x, 2)(x), emit
