"""Between memory and tuples of vectors: what a step needs of one row, and what it returns.

A vector holds neighbouring channels of a row (:mod:`~pararnn_solvers.compiled.addresses`); or, in
a *tile*, whose rows are L lanes wide, the same channel of neighbouring lanes.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="import-untyped, no-untyped-call, misc"
from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pararnn_solvers.compiled.addresses import Address, Place
from pararnn_solvers.compiled.arithmetic import Emit
from pararnn_solvers.linear.simd import VectorType


def _tuple_type(array: Any, size: int) -> Any:
    # A tuple of none has no type of element; nothing reads the one that stands in for it.
    return types.UniTuple(VectorType(array.dtype), max(1, size))


def _filled(context: Any, builder: Any, kind: Any, values: list[Any], vector: Any) -> Any:
    return context.make_tuple(builder, kind, values or [ir.Constant(vector, ir.Undefined)])


@cache
def row_reader(places: tuple[Place, ...], partial: bool = False) -> Any:
    """Return ``read(array, row, n, c)``: for each place, a vector of channels c, c + 1, ...

    ``partial``: there are fewer than a vector's elements left; only channels below n are read.
    """

    @intrinsic
    def read(typing: Any, array: Any, row: Any, n: Any, c: Any) -> tuple[Any, Emit]:
        result = _tuple_type(array, len(places))

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            at = Address(context, builder, array, args[0])
            row, n, c = args[1:]

            def load(place: Place) -> Any:
                index = at.index(place, row, n, c)
                if not place.channels:
                    return at.splat(index)
                return at.load_first(index, builder.sub(n, c)) if partial else at.load(index)

            found = [load(place) for place in places]
            return _filled(context, builder, result, found, at.vector)

        return result(array, types.int64, types.int64, types.int64), emit

    return read


@cache
def row_prefetcher(places: tuple[Place, ...]) -> Any:
    """Return ``prefetch(array, row, n, c)``: bring what :func:`row_reader` reads into the cache."""

    @intrinsic
    def prefetch(typing: Any, array: Any, row: Any, n: Any, c: Any) -> tuple[Any, Emit]:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            at = Address(context, builder, array, args[0])
            for place in places:
                at.prefetch(at.index(place, *args[1:]))
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64, types.int64), emit

    return prefetch


@cache
def splat_reader(places: tuple[Place, ...]) -> Any:
    """Return ``read(array, row, n, c)``: for each place, channel c in every element."""

    @intrinsic
    def read(typing: Any, array: Any, row: Any, n: Any, c: Any) -> tuple[Any, Emit]:
        result = _tuple_type(array, len(places))

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            at = Address(context, builder, array, args[0])
            found = [at.splat(at.index(place, *args[1:])) for place in places]
            return _filled(context, builder, result, found, at.vector)

        return result(array, types.int64, types.int64, types.int64), emit

    return read


@cache
def tile_reader(places: tuple[Place, ...]) -> Any:
    """Return ``read(tile, row, n, c, lane, L)``: channel c of lanes ``lane``, ``lane + 1``, ..."""

    @intrinsic
    def read(
        typing: Any, array: Any, row: Any, n: Any, c: Any, lane: Any, lanes: Any
    ) -> tuple[Any, Emit]:
        result = _tuple_type(array, len(places))

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            at = Address(context, builder, array, args[0])
            *where, lane, lanes = args[1:]
            found = [
                at.load(builder.add(builder.mul(at.index(place, *where), lanes), lane))
                for place in places
            ]
            return _filled(context, builder, result, found, at.vector)

        return result(array, *[types.int64] * 5), emit

    return read


@cache
def row_writer(places: tuple[Place | None, ...], partial: bool = False) -> Any:
    """Return ``write(array, row, n, c, values)``, which writes what :func:`row_reader` reads.

    A value whose place is None goes nowhere.
    """

    @intrinsic
    def write(typing: Any, array: Any, row: Any, n: Any, c: Any, values: Any) -> tuple[Any, Emit]:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            at = Address(context, builder, array, args[0])
            for i, place in enumerate(places):
                if place is None:
                    continue
                value = builder.extract_value(args[4], i)
                row, n, c = args[1:4]
                index = at.index(place, row, n, c)
                if partial:
                    at.store_first(index, value, builder.sub(n, c))
                else:
                    at.store(index, value)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64, types.int64, values), emit

    return write


@cache
def row_streamer(places: tuple[Place, ...]) -> Any:
    """Return ``write(array, row, n, c, values)`` past the caches, whole cache lines.

    For more than stays in them until it is read, where each component of a row starts a line.
    """

    @intrinsic
    def write(typing: Any, array: Any, row: Any, n: Any, c: Any, values: Any) -> tuple[Any, Emit]:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            at = Address(context, builder, array, args[0])
            for i, place in enumerate(places):
                value = builder.extract_value(args[4], i)
                at.store_past_caches(at.index(place, *args[1:4]), value)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64, types.int64, values), emit

    return write


@cache
def tile_writer(places: tuple[Place | None, ...]) -> Any:
    """Return ``write(tile, row, n, c, lane, lanes, values)``, as :func:`row_writer` does."""

    @intrinsic
    def write(
        typing: Any, array: Any, row: Any, n: Any, c: Any, lane: Any, lanes: Any, values: Any
    ) -> tuple[Any, Emit]:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            at = Address(context, builder, array, args[0])
            *where, lane, lanes, values = args[1:]
            for i, place in enumerate(places):
                if place is None:
                    continue
                index = builder.add(builder.mul(at.index(place, *where), lanes), lane)
                at.store(index, builder.extract_value(values, i))
            return context.get_dummy_value()

        return types.void(array, *[types.int64] * 5, values), emit

    return write
