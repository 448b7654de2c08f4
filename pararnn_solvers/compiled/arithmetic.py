"""Arithmetic of vector mathematics: operations that become one or a few vector instructions.

Every function takes float32 or float64 and stays there. None branches and none calls a library,
so that LLVM can put neighbouring elements of a loop into one register.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="import-untyped, no-untyped-call, misc, no-any-return"
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from pararnn_solvers.linear.simd import VectorType

Emit = Callable[[Any, Any, Any, Any], Any]
Coefficients = tuple[float, ...]

strict: Callable[[Callable[..., Any]], Any] = partial(
    njit,
    forceinline=True,
    nogil=True,
    error_model="numpy",
    fastmath=False,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)
"""Decorator of a function whose every operation is rounded on its own, whoever inlines it.

Rounding errors are computed as differences that are zero in exact arithmetic; an optimizer that
may contract or reorder would be right to remove them. Where fusing is welcome, `fmadd` says so.
"""


def element(x: Any) -> Any:
    """Return the type of a number, or of each element of a vector."""
    return x.dtype if isinstance(x, VectorType) else x


class MaskType(types.Type):
    """The Numba type of a truth value for each element of a vector."""

    def __init__(self, vector: VectorType) -> None:
        self.vector = vector
        super().__init__(name=f"Mask({vector})")


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: MaskType) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), fe_type.vector.size))


def truth(x: Any) -> Any:
    """Return the type of comparisons of such numbers or vectors."""
    return MaskType(x) if isinstance(x, VectorType) else types.boolean


def constant(kind: Any, value: float) -> ir.Constant:
    """Return a number of an LLVM type, in every element of a vector type."""
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def broadcast(builder: Any, scalar: Any, kind: Any) -> Any:
    """Emit a vector with a number in every element."""
    empty = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(empty, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, empty, zeros)


def emit_llvm(name: str) -> Emit:
    """Return what emits a call of the intrinsic ``llvm.name``."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        suffix = getattr(kind, "element", kind).intrinsic_name
        if isinstance(kind, ir.VectorType):
            suffix = f"v{kind.count}{suffix}"
        form = ir.FunctionType(kind, [arg.type for arg in args])
        function = cgutils.get_or_insert_function(builder.module, form, f"llvm.{name}.{suffix}")
        return builder.call(function, args)

    return emit


@intrinsic
def like(typing: Any, x: Any, value: Any) -> tuple[Any, Emit]:
    """``like(x, c)``: the constant ``c`` in the type of ``x``."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.cast(builder, args[1], value, x)

    return x(x, value), emit


@intrinsic
def either(typing: Any, x: Any, single: Any, double: Any) -> tuple[Any, Emit]:
    """``either(x, a, b)``: the constant ``a`` for a float32 ``x``, ``b`` for a float64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        chosen, kind = (args[1], single) if element(x) == types.float32 else (args[2], double)
        return context.cast(builder, chosen, kind, x)

    return x(x, single, double), emit


def polynomial(single: Coefficients, double: Coefficients) -> Any:
    """Return the function ``x -> c[0] + c[1] x + c[2] x**2 + ...``, by Horner's rule.

    Parameters
    ----------
    single, double : tuple of float
        The coefficients for float32 and for float64.

    Returns
    -------
    intrinsic
        Callable from compiled code.
    """

    @intrinsic
    def evaluate(typing: Any, x: Any) -> tuple[Any, Emit]:
        coefficients = single if element(x) == types.float32 else double

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            real = context.get_value_type(x)
            total = constant(real, coefficients[-1])
            for coefficient in reversed(coefficients[:-1]):
                term = [total, args[0], constant(real, coefficient)]
                total = emit_llvm("fmuladd")(context, builder, signature, term)
            return total

        return x(x), emit

    return evaluate


@intrinsic
def fmadd(typing: Any, a: Any, b: Any, c: Any) -> tuple[Any, Emit]:
    """``fmadd(a, b, c)``: ``a b + c``, rounded once where the processor can."""
    return a(a, b, c), emit_llvm("fmuladd")


@intrinsic
def root(typing: Any, x: Any) -> tuple[Any, Emit]:
    """``root(x)``: the square root, correctly rounded."""
    return x(x), emit_llvm("sqrt")


@intrinsic
def magnitude(typing: Any, x: Any) -> tuple[Any, Emit]:
    """``magnitude(x)``: ``x`` without its sign."""
    return x(x), emit_llvm("fabs")


@intrinsic
def with_sign(typing: Any, x: Any, sign: Any) -> tuple[Any, Emit]:
    """``with_sign(x, s)``: ``|x|`` with the sign of ``s``, be that a zero or NaN."""
    return x(x, sign), emit_llvm("copysign")


@intrinsic
def where(typing: Any, condition: Any, a: Any, b: Any) -> tuple[Any, Emit]:
    """``where(condition, a, b)``: ``a`` or ``b``, both evaluated."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(condition, a, a), emit


@intrinsic
def unordered(typing: Any, x: Any, y: Any) -> tuple[Any, Emit]:
    """``unordered(x, y)``: whether either is NaN."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fcmp_unordered("uno", *args)

    return truth(x)(x, x), emit


@intrinsic
def clamp(typing: Any, x: Any, low: Any, high: Any) -> tuple[Any, Emit]:
    """``clamp(x, low, high)``: ``x`` or the nearer bound; NaN stays."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, low, high = args
        x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
        return builder.select(builder.fcmp_ordered(">", x, high), high, x)

    return x(x, x, x), emit


def _has_fma(context: Any) -> bool:
    triple, _, features = context.codegen().magic_tuple()
    return "+fma," in f"{features}," or triple.startswith(("aarch64", "arm64"))


@intrinsic
def exact_product(typing: Any, a: Any, b: Any) -> tuple[Any, Emit]:
    """``exact_product(a, b)``: ``p, e`` with ``p + e = a b`` exactly, ``p`` the rounded product.

    One fused multiply-add; on a processor without it, Dekker's 17 operations, whose arguments
    must stay below the greatest number over ``2**13`` (float32) or ``2**28``.

    Source: Dekker (1971), "A floating-point technique for extending the available precision".
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        p = builder.fmul(*args)
        if _has_fma(context):
            error = emit_llvm("fma")(context, builder, signature, [*args, builder.fneg(p)])
        else:
            bits = 12 if element(a) == types.float32 else 27  # half of them
            splitter = constant(p.type, 2.0**bits + 1)
            halves = []
            for x in args:
                c = builder.fmul(splitter, x)
                high = builder.fsub(c, builder.fsub(c, x))
                halves.append((high, builder.fsub(x, high)))
            (ah, al), (bh, bl) = halves
            error = builder.fsub(builder.fmul(ah, bh), p)
            for x, y in ((ah, bl), (al, bh), (al, bl)):
                error = builder.fadd(error, builder.fmul(x, y))
        return context.make_tuple(builder, signature.return_type, [p, error])

    return types.UniTuple(a, 2)(a, b), emit


@strict
def exact_sum(a: Any, b: Any) -> Any:
    """Return ``s, e`` with ``s + e = a + b`` exactly, ``s`` the rounded sum: Knuth (1969)."""
    s = a + b
    c = s - a
    return s, (a - (s - c)) + (b - c)
