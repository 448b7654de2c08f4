"""SIMD vectors inside Numba kernels: what LLVM's vectorizer cannot be trusted to find.

A kernel says ``y = fma(load(A, a), load(h, x), load(b, y))``: 64 bytes at once, at any alignment,
from flat arrays. LLVM lowers the vectors to whatever the processor has. There is no aliasing to
disprove, and shuffles express a scan *along* a vector.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="import-untyped, no-untyped-call, misc"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

BYTES = 64


class VectorType(types.Type):
    """The Numba type of a vector of 16 float32 or 8 float64."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.size = BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype}, {self.size})")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        element = ir.FloatType() if fe_type.dtype == types.float32 else ir.DoubleType()
        super().__init__(dmm, fe_type, ir.VectorType(element, fe_type.size))


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    vector = context.get_value_type(VectorType(array_type.dtype))
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _element(index: int) -> ir.Constant:
    return ir.Constant(ir.IntType(32), index)


def _shuffle(builder: Any, first: Any, second: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(first, second, mask)


Emit = Callable[[Any, Any, Any, Any], Any]


@intrinsic
def width(typing: Any, array: Any) -> tuple[Any, Emit]:
    """``width(array)``: how many elements a vector has, as a constant of the compiled code."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(ir.IntType(64), VectorType(array.dtype).size)

    return types.uint64(array), emit


@intrinsic
def widest(typing: Any) -> tuple[Any, Emit]:
    """``widest()``: in the kernel that says so, loops fill vectors of 64 bytes where there are any.

    On many processors of Intel's that have them, LLVM prefers to fill halves, in regard of the
    clock of the first. What takes a vector from an array, as `load` does, takes the whole anyway.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # An attribute that is a string; ``add`` of llvmlite takes those only that it knows.
        set.add(builder.function.attributes, f'"prefer-vector-width"="{8 * BYTES}"')
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def load(typing: Any, array: Any, index: Any) -> tuple[Any, Emit]:
    """``load(array, i)``: the vector of elements ``i``, ``i + 1``, … of a flat array."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[0], *args)
        return builder.load(address, align=array.dtype.bitwidth // 8)

    return VectorType(array.dtype)(array, index), emit


@intrinsic
def store(typing: Any, array: Any, index: Any, vector: Any) -> tuple[Any, Emit]:
    """``store(array, i, v)``: write ``v`` to elements ``i``, ``i + 1``, … of a flat array."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, index, vector), emit


@intrinsic
def splat(typing: Any, array: Any, index: Any) -> tuple[Any, Emit]:
    """``splat(array, i)``: element ``i`` in every place of a vector."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        vector = context.get_value_type(signature.return_type)
        empty = ir.Constant(vector, ir.Undefined)
        scalar = builder.load(builder.gep(data, [args[1]]))
        one = builder.insert_element(empty, scalar, _element(0))
        return _shuffle(builder, one, empty, [0] * vector.count)

    return VectorType(array.dtype)(array, index), emit


@intrinsic
def fma(typing: Any, a: Any, x: Any, b: Any) -> tuple[Any, Emit]:
    """``fma(a, x, b)``: ``a x + b``, contracted where the processor can."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(builder.fmul(args[0], args[1]), args[2])

    return b(a, x, b), emit


@intrinsic(prefer_literal=True)
def pairs_product(
    typing: Any, first: Any, second: Any, h: Any, b: Any, adjoint: Any
) -> tuple[Any, Emit]:
    """``pairs_product(A, A', h, b, adjoint)``: ``A_s h_s + b_s`` for adjacent 2 x 2 systems s.

    ``h`` and ``b`` hold pairs one after another, ``A`` and then ``A'`` their matrices row by row.
    """
    transposed, size = adjoint.literal_value, h.size

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        A, more, h, b, _ = args
        pair, row = [i // 2 for i in range(size)], [i % 2 for i in range(size)]
        total = b
        for j in (0, 1):
            ij = [(j, i) if transposed else (i, j) for i in row]
            entries = [4 * s + 2 * i + j for s, (i, j) in zip(pair, ij, strict=True)]
            a_ij = _shuffle(builder, A, more, entries)
            h_j = _shuffle(builder, h, h, [2 * s + j for s in pair])
            total = builder.fadd(builder.fmul(a_ij, h_j), total)
        return total

    return h(first, second, h, b, adjoint), emit


@intrinsic(prefer_literal=True)
def prefix(typing: Any, a: Any, b: Any, lanes: Any, down: Any) -> tuple[Any, Emit]:
    """``prefix(a, b, L, down)``: vectors ``P, e`` such that ``h = P * h_before + e``.

    Element ``i`` is step ``i // L`` of lane ``i % L``, later steps first when ``down``. The maps
    ``h -> a h + b`` of successive steps are composed in log2(size / L) rounds: Kogge and Stone
    (1973), Blelloch (1990) eq. (1.5).
    """
    L, reverse, size = lanes.literal_value, down.literal_value, a.size

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        P, e = args[:2]
        one, zero = (ir.Constant(P.type, [value] * size) for value in (1.0, 0.0))
        distance = L
        while distance < size:
            before = [i + distance if reverse else i - distance for i in range(size)]
            inside = [0 <= i < size for i in before]
            source = [i if ok else size for i, ok in zip(before, inside, strict=True)]
            composed = builder.fadd(builder.fmul(P, _shuffle(builder, e, zero, source)), e)
            # Select: the first steps have no predecessor, and inf * 0 would be NaN.
            chosen = ir.Constant(ir.VectorType(ir.IntType(1), size), inside)
            e = builder.select(chosen, composed, e)
            P = builder.fmul(P, _shuffle(builder, P, one, source))
            distance *= 2
        return context.make_tuple(builder, signature.return_type, [P, e])

    return types.UniTuple(a, 2)(a, b, lanes, down), emit


@intrinsic(prefer_literal=True)
def last_step(typing: Any, h: Any, lanes: Any, down: Any) -> tuple[Any, Emit]:
    """``last_step(h, L, down)``: the ``L`` lanes of the step solved last, repeated."""
    L, reverse = lanes.literal_value, down.literal_value

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = 0 if reverse else h.size - L
        return _shuffle(builder, args[0], args[0], [start + i % L for i in range(h.size)])

    return h(h, lanes, down), emit


@intrinsic
def all_finite(typing: Any, h: Any) -> tuple[Any, Emit]:
    """``all_finite(h)``: whether no element is NaN or infinite."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        difference = builder.fsub(args[0], args[0])  # NaN exactly where h is not finite
        bad = builder.fcmp_unordered("uno", difference, difference)
        bits = builder.bitcast(bad, ir.IntType(h.size))
        return builder.icmp_unsigned("==", bits, ir.Constant(bits.type, 0))

    return types.boolean(h), emit
