"""Where a number is in memory, and the code that reads and writes a vector there.

A *row* is what belongs to one sequence at one time: n channels of one or more components, one
component after the other, in a flat array. A :class:`Place` says where in a row a component is.
"""

# Code is emitted by llvmlite and Numba, which mypy does not know.
# mypy: disable-error-code="import-untyped, no-untyped-call, misc"
from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils

from pararnn_solvers.compiled.arithmetic import broadcast, constant
from pararnn_solvers.linear.simd import BYTES, VectorType


def prefetch(builder: Any, pointer: Any, level: int = 1) -> None:
    """Emit a request for the cache line of a pointer, to be brought to this level of caches."""
    word = ir.IntType(32)
    pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, word, word, word])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    read, keep, data = (ir.Constant(word, value) for value in (0, 4 - level, 1))
    builder.call(function, [pointer, read, keep, data])


class Place(NamedTuple):
    """Where a component is in a row of n channels: at ``offset + component * n``.

    Attributes
    ----------
    offset, component : int
    channels : bool
        Whether there is a value for each channel; otherwise one serves all.
    """

    offset: int
    component: int
    channels: bool


class Address:
    """Emits the code that finds a component."""

    def __init__(self, context: Any, builder: Any, array_type: Any, array: Any) -> None:
        self.builder = builder
        self.data = context.make_array(array_type)(context, builder, array).data
        self.vector = context.get_value_type(VectorType(array_type.dtype))
        self.align = array_type.dtype.bitwidth // 8

    def index(self, place: Place, row: Any, n: Any, c: Any) -> Any:
        """Emit where a place is in a row, or channel c of it."""
        b = self.builder
        skipped = b.mul(n, ir.Constant(n.type, place.component))
        index = b.add(b.add(row, skipped), ir.Constant(n.type, place.offset))
        return b.add(index, c) if place.channels else index

    def pointer(self, index: Any) -> Any:
        """Emit the address of a vector."""
        return self.builder.bitcast(self.builder.gep(self.data, [index]), self.vector.as_pointer())

    def load(self, index: Any) -> Any:
        """Emit a vector read."""
        return self.builder.load(self.pointer(index), align=self.align)

    def store(self, index: Any, vector: Any) -> None:
        """Emit a vector written."""
        self.builder.store(vector, self.pointer(index), align=self.align)

    def store_past_caches(self, index: Any, vector: Any) -> None:
        """Emit a vector written to a whole cache line, which is not read before."""
        stored = self.builder.store(vector, self.pointer(index), align=BYTES)
        once = self.builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        stored.set_metadata("nontemporal", once)

    def load_first(self, index: Any, count: Any) -> Any:
        """Load the first elements only; zero in the place of the others."""
        zeros = constant(self.vector, 0.0)
        mask, pointer, align = self.first(count), self.pointer(index), self.alignment()
        kinds = [pointer.type, align.type, mask.type, self.vector]
        load = self.declare("load", self.vector, kinds)
        return self.builder.call(load, [pointer, align, mask, zeros])

    def store_first(self, index: Any, vector: Any, count: Any) -> None:
        """Write the first elements only."""
        mask, pointer, align = self.first(count), self.pointer(index), self.alignment()
        kinds = [self.vector, pointer.type, align.type, mask.type]
        store = self.declare("store", ir.VoidType(), kinds)
        self.builder.call(store, [vector, pointer, align, mask])

    def prefetch(self, index: Any) -> None:
        """Ask for the cache line of an element."""
        prefetch(self.builder, self.pointer(index))

    def first(self, count: Any) -> Any:
        """Return a mask that is true for the first elements."""
        numbers = ir.VectorType(ir.IntType(32), self.vector.count)
        each = ir.Constant(numbers, list(range(self.vector.count)))
        many = broadcast(self.builder, self.builder.trunc(count, ir.IntType(32)), numbers)
        return self.builder.icmp_signed("<", each, many)

    def alignment(self) -> Any:
        """Return what masked operations are told of the address."""
        return ir.Constant(ir.IntType(32), self.align)

    def declare(self, verb: str, result: Any, kinds: list[Any]) -> Any:
        """Declare a masked operation of LLVM."""
        suffix = f"v{self.vector.count}{self.vector.element.intrinsic_name}.p0"
        kind = ir.FunctionType(result, kinds)
        return cgutils.get_or_insert_function(
            self.builder.module, kind, f"llvm.masked.{verb}.{suffix}"
        )

    def splat(self, index: Any) -> Any:
        """Emit a number read into every element."""
        scalar = self.builder.load(self.builder.gep(self.data, [index]))
        return broadcast(self.builder, scalar, self.vector)
