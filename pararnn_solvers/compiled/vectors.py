"""SIMD vectors as numbers: arithmetic, comparisons and selections of them in Numba kernels.

A `step` that was printed from its graph computes with vectors as it does with numbers, so that one
source serves every processor: ``z = sigmoid(a * h + x)`` is 16 float32 or 8 float64 at once.
Constants, which Numba takes for float64, adopt the type of the vector they meet.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="import-untyped, no-untyped-call, misc, untyped-decorator"
from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.imputils import lower_builtin, lower_cast
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

from pararnn_solvers.compiled.arithmetic import Emit, MaskType, broadcast, constant
from pararnn_solvers.linear.simd import VectorType

__all__ = [
    "all_true",
    "blank",
    "full",
    "minus",
    "plus",
    "select",
    "taker",
]


def _is_number(t: Any) -> bool:
    return isinstance(t, (types.Float, types.Integer, types.IntegerLiteral))


@lower_cast(types.Float, VectorType)
@lower_cast(types.Integer, VectorType)
def _number_to_vector(context: Any, builder: Any, source: Any, target: Any, value: Any) -> Any:
    scalar = context.cast(builder, value, source, target.dtype)
    return broadcast(builder, scalar, context.get_value_type(target))


def _define(
    op: Any, arity: int, result: Callable[[VectorType], Any], emit: Callable[..., Any]
) -> None:
    """Let an operator act on vectors, and on vectors and numbers."""

    class Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            vectors = [t for t in args if isinstance(t, VectorType)]
            fits = len(args) == arity and vectors
            if fits and all(t == vectors[0] or _is_number(t) for t in args):
                return signature(result(vectors[0]), *[vectors[0]] * arity)
            return None

    infer_global(op)(Template)

    @lower_builtin(op, *[VectorType] * arity)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, *args)


def _define_on_masks(op: Any, arity: int, emit: Callable[..., Any]) -> None:
    class Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            fits = len(args) == arity and isinstance(args[0], MaskType)
            return signature(args[0], *args) if fits and len(set(args)) == 1 else None

    infer_global(op)(Template)

    @lower_builtin(op, *[MaskType] * arity)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, *args)


def _contracted(name: str) -> Callable[..., Any]:
    # As in the scalar kernels of this package, a product and a sum may become one operation.
    return lambda builder, *args: getattr(builder, name)(*args, flags=("contract",))


_ARITHMETIC = {"add": "fadd", "sub": "fsub", "mul": "fmul", "truediv": "fdiv"}
for _name, _instruction in _ARITHMETIC.items():
    for _op in (getattr(operator, _name), getattr(operator, f"i{_name}")):
        _define(_op, 2, lambda vector: vector, _contracted(_instruction))
_define(operator.neg, 1, lambda vector: vector, lambda builder, x: builder.fneg(x))

_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=="}
for _name, _sign in _COMPARISONS.items():
    _define(
        getattr(operator, _name),
        2,
        MaskType,
        lambda builder, a, b, sign=_sign: builder.fcmp_ordered(sign, a, b),
    )
_define(operator.ne, 2, MaskType, lambda builder, a, b: builder.fcmp_unordered("!=", a, b))

_define_on_masks(operator.and_, 2, lambda builder, a, b: builder.and_(a, b))
_define_on_masks(operator.or_, 2, lambda builder, a, b: builder.or_(a, b))
_define_on_masks(operator.xor, 2, lambda builder, a, b: builder.xor(a, b))
_define_on_masks(operator.eq, 2, lambda builder, a, b: builder.not_(builder.xor(a, b)))
_define_on_masks(operator.not_, 1, lambda builder, a: builder.not_(a))


@intrinsic
def full(typing: Any, vector: Any, value: Any) -> tuple[Any, Emit]:
    """``full(v, c)``: the number or vector ``c`` as a vector like ``v``."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.cast(builder, args[1], value, vector)

    return vector(vector, value), emit


@intrinsic
def select(typing: Any, mask: Any, a: Any, b: Any) -> tuple[Any, Emit]:
    """``select(m, a, b)``: ``a`` where ``m`` is true, ``b`` elsewhere; both are evaluated."""
    result = mask if isinstance(a, MaskType) else mask.vector

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        chosen = (
            context.cast(builder, args[1], a, result),
            context.cast(builder, args[2], b, result),
        )
        return builder.select(args[0], *chosen)

    return result(mask, a, b), emit


@intrinsic
def all_true(typing: Any, mask: Any) -> tuple[Any, Emit]:
    """``all_true(m)``: whether every element is."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(mask.vector.size))
        return builder.icmp_unsigned("==", bits, ir.Constant(bits.type, -1))

    return types.boolean(mask), emit


@intrinsic
def blank(typing: Any, array: Any) -> tuple[Any, Emit]:
    """``blank(a)``: a vector of zeros, of the type of an array's."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return constant(context.get_value_type(sig.return_type), 0.0)

    return VectorType(array.dtype)(array), emit


def taker(first: int, count: int) -> Any:
    """Return ``take(v)``: some neighbouring vectors of a tuple; the first if none are asked for."""

    @intrinsic
    def take(typing: Any, values: Any) -> tuple[Any, Emit]:
        result = types.UniTuple(values.dtype, max(1, count))

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            start = first if count else 0
            found = [builder.extract_value(args[0], start + i) for i in range(max(1, count))]
            return context.make_tuple(builder, result, found)

        return result(values), emit

    return take


def _each(instruction: str) -> Any:
    @intrinsic
    def function(typing: Any, a: Any, b: Any) -> tuple[Any, Emit]:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            found = [
                getattr(builder, instruction)(*(builder.extract_value(part, i) for part in args))
                for i in range(len(sig.return_type))
            ]
            return context.make_tuple(builder, sig.return_type, found)

        return a(a, b), emit

    return function


plus, minus = _each("fadd"), _each("fsub")
"""``plus(a, b)``, ``minus(a, b)``: of tuples of vectors, one by one."""
